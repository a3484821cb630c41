"""Whether the process of a run that has joined still lives: it holds a lock, which the kernel takes from it at its end.

However it ends: `kill -9` and a machine that is switched off included. A process id would not do, for they are given
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

NAME_DIGITS = 32
"""So much of the hash of its token names a run's file."""


@contextlib.contextmanager
def shown(confdir: Path, token_hash: str) -> Iterator[None]:
    """Within the block, this process is seen to live. Raises `OSError`."""
    path = _path(confdir, token_hash)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        forget(confdir, token_hash)
        os.close(lock)


def lives(confdir: Path, token_hash: str) -> bool:
    """Whether the process lives that the token with this hash was made by. Raises `OSError` when nobody can tell."""
    try:
        lock = os.open(_path(confdir, token_hash), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def forget(confdir: Path, token_hash: str) -> None:
    """Remove what a process that has ended may have left."""
    with contextlib.suppress(OSError):
        _path(confdir, token_hash).unlink(missing_ok=True)


def _path(confdir: Path, token_hash: str) -> Path:
    return confdir / "runs" / token_hash[:NAME_DIGITS]
