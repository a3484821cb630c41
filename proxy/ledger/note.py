"""Signed checkpoints: a short text that says how long a ledger was and which hash it ended with. Pure.

The form is C2SP's signed note (c2sp.org/signed-note) with the three lines of a checkpoint (c2sp.org/tlog-checkpoint):
the ledger's name, the number of entries, and in base64 the hash of the last of them. A blank line and a line for the
signature follow. `size` and `root` are of our chain: the root is a hash in a row, not of a tree.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
"""The kind of signature, in C2SP's registry."""

HASH_BYTES = 32
SIGNED = "\n\n\N{EM DASH} "


class NoteError(ValueError):
    """The text is no note, or no key, of ours. Its message is one line."""


class Note(msgspec.Struct, frozen=True):
    """A checkpoint as read: ledger `origin` had `size` entries, and the hash of the last was `root`."""

    origin: str
    size: int
    root: bytes
    signer: str
    signature: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return _text(self.origin, self.size, self.root)


class Verifier(msgspec.Struct, frozen=True):
    """The public key of the ledger `name`."""

    name: str
    public: bytes

    def check(self, note: Note) -> bool:
        """Whether this key signed `note`."""
        key_hash, signature = note.signature[:4], note.signature[4:]
        if note.signer != self.name or note.origin != self.name or key_hash != _key_hash(self.name, self.public):
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, note.text.encode())
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        """The key as C2SP writes it: name, hash and base64, with `+` between."""
        key = base64.b64encode(ED25519 + self.public).decode()
        return f"{self.name}+{_key_hash(self.name, self.public).hex()}+{key}"


class Signer:
    """Signs checkpoints with the key whose 32-byte seed it is given."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key().public_bytes_raw()

    def verifier(self, origin: str) -> Verifier:
        """The public key, under the name of the ledger `origin`."""
        return Verifier(origin, self._public)

    def sign(self, origin: str, size: int, root: bytes) -> str:
        """The signed note that says: `origin` has `size` entries, the last with hash `root`."""
        text = _text(origin, size, root)
        signature = _key_hash(origin, self._public) + self._key.sign(text.encode())
        return f"{text}\n\N{EM DASH} {origin} {base64.b64encode(signature).decode()}\n"


def parse_note(text: str) -> Note:
    """The note in `text`. Raises `NoteError` when it is none. Its signature is not checked."""
    body, found, signed = text.partition(SIGNED)
    lines, words = body.split("\n"), signed.removesuffix("\n").split(" ")
    if not found or len(lines) != 3 or len(words) != 2:
        raise NoteError("this is no checkpoint: `borderpost log checkpoint --export FILE` writes one")
    origin, size, root = lines
    note = Note(origin, _number(size), _base64(root), words[0], _base64(words[1]))
    if len(note.root) != HASH_BYTES or text != f"{note.text}\n\N{EM DASH} {words[0]} {words[1]}\n":
        raise NoteError("this is a checkpoint that was changed: it is not written as checkpoints are")
    return note


def parse_verifier(text: str) -> Verifier:
    """The public key in `text`, as `Verifier` writes it. Raises `NoteError` when it is none."""
    name, _, rest = text.strip().partition("+")
    key_hash, _, key = rest.partition("+")
    data = _base64(key)
    if not name or data[:1] != ED25519 or len(data) != 1 + HASH_BYTES or key_hash != _key_hash(name, data[1:]).hex():
        raise NoteError("this is no public key: `borderpost log checkpoint --public-key` prints one")
    return Verifier(name, data[1:])


def _text(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and str(int(text)) == text):
        raise NoteError(f"this is a checkpoint that was changed: `{text}` is no number of entries")
    return int(text)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("this is no checkpoint or key, or one that was changed: it is not base64") from None
