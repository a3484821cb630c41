"""Signed checkpoints: in the form that other tools read, and refused when a single character was changed."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proxy.ledger.note import NoteError, Signer, Verifier, parse_note, parse_verifier

ORIGIN, ROOT = "borderpost/0123456789abcdef", b"r" * 32
SIGNER = Signer(b"s" * 32)
VERIFIER = SIGNER.verifier(ORIGIN)
NOTE = SIGNER.sign(ORIGIN, 1204, ROOT)


def test_a_note_says_which_ledger_had_how_many_entries_and_how_the_last_one_hashed() -> None:
    note = parse_note(NOTE)
    assert (note.origin, note.size, note.root) == (ORIGIN, 1204, ROOT)
    assert VERIFIER.check(note)


def test_the_form_is_c2sps_signed_note() -> None:
    """Composed here from the specification, byte by byte."""
    public = Ed25519PrivateKey.from_private_bytes(b"s" * 32).public_key().public_bytes_raw()
    key_hash = hashlib.sha256(f"{ORIGIN}\n".encode() + b"\x01" + public).digest()[:4]
    text = f"{ORIGIN}\n1204\n{base64.b64encode(ROOT).decode()}\n"
    signature = Ed25519PrivateKey.from_private_bytes(b"s" * 32).sign(text.encode())
    assert f"{text}\n\u2014 {ORIGIN} {base64.b64encode(key_hash + signature).decode()}\n" == NOTE
    assert str(VERIFIER) == f"{ORIGIN}+{key_hash.hex()}+{base64.b64encode(b'\x01' + public).decode()}"


@pytest.mark.parametrize("seed", range(20))
def test_a_key_comes_back_equal(seed: int) -> None:
    """Whatever base64 makes of it: `+` is one of its digits."""
    verifier = Signer(bytes([seed]) * 32).verifier(ORIGIN)
    assert parse_verifier(f"{verifier}\n") == verifier


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_no_byte_of_a_note_can_be_changed(bit: int) -> None:
    data = NOTE.encode()
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ bit]) + data[index + 1 :]
        with contextlib.suppress(NoteError, UnicodeDecodeError):
            assert not VERIFIER.check(parse_note(changed.decode()))


STRANGERS = {
    "another key": Signer(b"x" * 32).verifier(ORIGIN),
    "the key of another ledger": SIGNER.verifier("borderpost/other"),
    "a key that only says so": Verifier(ORIGIN, Signer(b"x" * 32).verifier(ORIGIN).public),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=list(STRANGERS))
def test_only_the_right_key_checks_a_note(stranger: Verifier) -> None:
    assert not stranger.check(parse_note(NOTE))


NO_NOTES = {
    "nothing": "",
    "a text": "some text\n",
    "no signature": NOTE.partition("\n\n")[0] + "\n",
    "two signatures": NOTE + NOTE.splitlines(keepends=True)[-1],
    "a line too many": NOTE.replace("\n1204\n", "\n1204\n5\n"),
    "a number with a sign": NOTE.replace("1204", "+1204"),
    "a number with a zero before it": NOTE.replace("1204", "01204"),
    "another script's digits": NOTE.replace("1204", "\u0661"),
    "a short hash": NOTE.replace(base64.b64encode(ROOT).decode(), "cnI="),
    "more after it": NOTE + "\n",
}


@pytest.mark.parametrize("text", NO_NOTES.values(), ids=list(NO_NOTES))
def test_what_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_note(text)


@pytest.mark.parametrize("text", ["", "x", "a+b+c", str(VERIFIER)[:-4], str(VERIFIER).replace("+", "+0", 1)])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_verifier(text)
