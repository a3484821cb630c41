"""The confdir: the directory of keys that make this installation's hashes and read its stored answers. Owner only.

Keys are made on first use, whole or not at all, and are never replaced: a ledger is of use only with the keys that
it was written with. Where things live by default is said here too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

KEY_BYTES = 32
HASH_BYTES = 16
"""The size of a keyed hash: 128 bits keep two secrets apart, and 32 hex digits can still be read."""

GROUP_AND_OTHERS = 0o077


class ConfdirError(Exception):
    """The confdir cannot be used. The text is one line for the person who started us."""


class Confdir:
    """An open confdir. Made by `Confdir.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, bytes] = {}

    @classmethod
    def open(cls, path: Path | None = None) -> Confdir:
        """The confdir at `path`, else at the usual place; made if it is not there.

        Raises `ConfdirError` when it cannot be made, or when anybody but its owner can look into it.
        """
        path = default_confdir() if path is None else path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = path.stat().st_mode
        except OSError as error:
            raise ConfdirError(
                f"cannot make the confdir `{path}`: {reason(error)}; give another one with `--confdir`"
            ) from None
        if mode & GROUP_AND_OTHERS:
            raise ConfdirError(
                f"the confdir `{path}` holds keys, but others can reach into it "
                f"(mode {stat.S_IMODE(mode):04o}): run `chmod 700 {path}`"
            )
        return cls(path)

    @property
    def hash_key(self) -> bytes:
        """The key of all keyed hashes: what the ledger shows in place of a secret."""
        return self._key("hash.key")

    @property
    def vault_key(self) -> bytes:
        """The key that stored answers are encrypted with."""
        return self._key("vault.key")

    @property
    def signing_key(self) -> bytes:
        """The seed of the Ed25519 key that the ledger's checkpoints are signed with."""
        return self._key("signing.key")

    def hash_secret(self, secret: bytes) -> str:
        """The keyed hash (hex) that stands for `secret`: equal for equal secrets, and worthless without the key."""
        return keyed_hash(self.hash_key, secret)

    @property
    def key_id(self) -> str:
        """Names the hash key without telling it."""
        return key_id(self.hash_key)

    def _key(self, name: str) -> bytes:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _read_or_make_key(self.path / name)
        return key


def keyed_hash(key: bytes, secret: bytes) -> str:
    """BLAKE2b (RFC 7693) of `secret` under `key`, 16 bytes as hex."""
    return hashlib.blake2b(secret, key=key, digest_size=HASH_BYTES).hexdigest()


def key_id(key: bytes) -> str:
    """A name (16 hex digits) for `key` that tells nothing about it."""
    return hashlib.blake2b(b"key id", key=key, digest_size=8).hexdigest()


def default_confdir(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where the confdir is when nobody says: by the XDG base directories, on macOS in Application Support."""
    return _base(environ, platform, "XDG_CONFIG_HOME", ".config")


def default_ledger_path(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Where the ledger is when nobody says: in the user's data directory."""
    return _base(environ, platform, "XDG_DATA_HOME", ".local/share") / "ledger.db"


def _base(environ: Mapping[str, str], platform: str, variable: str, usual: str) -> Path:
    """XDG says that a relative path in one of its variables counts as not set."""
    given = Path(environ.get(variable, ""))
    if given.is_absolute():
        return given / "borderpost"
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if platform == "darwin":
        return home / "Library" / "Application Support" / "borderpost"
    return home / usual / "borderpost"


def _read_or_make_key(path: Path) -> bytes:
    """The key in `path`; if there is none, a new one, which the first of several processes makes."""
    try:
        if not path.exists():
            _make_key(path)
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as error:
        raise ConfdirError(f"cannot use the key `{path}`: {reason(error)}") from None
    if mode & GROUP_AND_OTHERS:
        raise ConfdirError(
            f"others can read the key `{path}` (mode {stat.S_IMODE(mode):04o}): run `chmod 600 {path}`, "
            "and think of it as known to them"
        )
    if len(key) != KEY_BYTES:
        raise ConfdirError(
            f"`{path}` is not a key of {KEY_BYTES} bytes: put the right file back; the ledger is of no use without it"
        )
    return key


def _make_key(path: Path) -> None:
    """Write a new key beside `path`, then link it there: linking fails if another process was first."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reason(error: OSError) -> str:
    """What went wrong, in lower case, without the path."""
    if isinstance(error, FileExistsError):
        return "a file is where its directory should be"
    return (error.strerror or str(error)).lower()
