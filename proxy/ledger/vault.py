"""The vault: what the ledger needs keys for: hashes for secrets, encryption of stored answers, signed checkpoints,
authentic snapshots."""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.confdir import Confdir, key_id, keyed_hash
from proxy.ledger.entries import LedgerError, StoredAnswer
from proxy.ledger.note import Signer

NONCE_BYTES = 12


class Vault:
    """Seals and opens stored answers, hashes secrets, signs, authenticates. Holds the keys of the confdir.

    Without `signing_key`, no checkpoints are made.
    """

    def __init__(self, hash_key: bytes, vault_key: bytes, signing_key: bytes = b"") -> None:
        self._hash_key = hash_key
        self._cipher = AESGCM(vault_key)
        self._mac_key = hmac.digest(vault_key, b"borderpost snapshot", "sha256")
        self.signer = Signer(signing_key) if signing_key else None
        self.key_ids = {"hash_key": key_id(hash_key), "vault_key": key_id(vault_key)}
        if signing_key:
            self.key_ids["signing_key"] = key_id(signing_key)

    @classmethod
    def of(cls, confdir: Confdir) -> Vault:
        """The vault whose keys lie in `confdir`."""
        return cls(confdir.hash_key, confdir.vault_key, confdir.signing_key)

    def hash_secret(self, secret: bytes) -> str:
        """The keyed hash (hex) that stands for `secret`."""
        return keyed_hash(self._hash_key, secret)

    def seal(self, answer: StoredAnswer) -> bytes:
        """`answer` under AES-256-GCM: a random nonce, then the ciphertext, which is bound to the call's id."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(answer), answer.id.encode())

    def open(self, call_id: str, sealed: bytes) -> StoredAnswer:
        """The answer to call `call_id`. Raises `LedgerError` when it was changed or sealed with another key."""
        try:
            plain = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], call_id.encode())
        except (InvalidTag, ValueError):
            raise LedgerError(f"the stored answer to `{call_id}` was changed, or sealed with another key") from None
        return msgspec.msgpack.decode(plain, type=StoredAnswer)

    def authenticator(self) -> hmac.HMAC:
        """A fresh HMAC-SHA256 for what only we may have written."""
        return hmac.new(self._mac_key, digestmod="sha256")

    def digest(self, sealed: bytes) -> str:
        """What the chain says of a sealed answer; the random nonce keeps it from telling anything of the content."""
        return hashlib.sha256(sealed).hexdigest()
