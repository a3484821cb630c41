"""Whether a proxy owns a ledger now, asked without disturbing it. The lock itself is `proxy.ledger.store`'s."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

SERVE = "borderpost serve"


class Owner(msgspec.Struct, frozen=True):
    """The process that owns a ledger: its id, and the command it gave, such as `borderpost serve`."""

    pid: int
    command: str


def lock_path(ledger: Path) -> Path:
    """The file beside `ledger` that its owner has locked."""
    return ledger.with_name(ledger.name + ".lock")


def owner_of(ledger: Path) -> Owner | None:
    """The process that owns `ledger`, or None when there is none."""
    try:
        lock = os.open(lock_path(ledger), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid, _, command = os.pread(lock, 1024, 0).decode("utf-8", "replace").strip().partition(" ")
        # The name of a dead process stays in the file. Only a living one is asked for its lock, so that asking
        # cannot be in the way of one that is about to take it.
        if not (pid.isascii() and pid.isdigit() and _lives(int(pid))):
            return None
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Owner(int(pid), command)
    finally:
        os.close(lock)
    return None


def serving(ledger: Path) -> Owner | None:
    """The `serve` that owns `ledger`, which a `run` joins; None when there is none."""
    owner = owner_of(ledger)
    return owner if owner is not None and owner.command == SERVE else None


def apart(owner: Owner) -> bool:
    """Whether this process has another network than `owner`: so has all that `run --isolated` starts.

    Where the system has no such thing, or `owner` has just ended, it has not.
    """
    try:
        return Path(f"/proc/{owner.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except PermissionError:  # from within a user namespace, too, nobody may look out
        return True
    except OSError:
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
