"""Commands to the process that owns a ledger: left in a table by the command line, seen and answered by the owner.

The table is no part of the record. The owner makes an entry of what it carries out, and the result can be read when
that entry is durable: both are written in one transaction.

Who leaves a command also knocks: touches the owner's lock file. To hear that costs a microsecond, while to look into
the database after every commit of our own costs many.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from proxy.ledger.entries import LedgerError
from proxy.owner import lock_path
from rules.decision import Plain

WAIT_S = 10.0
"""How long the command line waits for the owner."""

POLL_S = 0.01

INSERT = "INSERT INTO commands (name, data, by) VALUES (?, ?, ?)"
RESULT = "SELECT done, result FROM commands WHERE id = ?"
WITHDRAW = "DELETE FROM commands WHERE id = ? AND done IS NULL"
NEW = "SELECT id, name, data, by FROM commands WHERE id > ? AND done IS NULL ORDER BY id"

type Data = dict[str, Plain]


class Command(msgspec.Struct, frozen=True):
    """What OS user `by` wants done."""

    id: int
    name: str
    data: Data
    by: str


class CommandError(Exception):
    """The command was refused or not answered; nothing is recorded of it. The text is one line."""


class Inbox:
    """The owner's side: what was left since the last look. Has a connection of its own, which cannot write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        self._connection = sqlite3.connect(address, uri=True, isolation_level=None)
        self._connection.execute("PRAGMA query_only = ON")
        self._version: int | None = None
        self._seen = 0
        self._door = str(lock_path(path))
        self._knocked_ns = 0

    def knocked(self) -> bool:
        """Whether somebody knocked since this was asked last."""
        try:
            at_ns = os.stat(self._door).st_mtime_ns  # noqa: PTH116  before every decision: a Path takes thrice as long
        except OSError:
            return True
        if at_ns == self._knocked_ns:
            return False
        self._knocked_ns = at_ns
        return True

    def poll(self) -> tuple[Command, ...]:
        """The new commands, in their order. Costs microseconds, less if nobody has written to the file.

        Raises `LedgerError` when the file cannot be read.
        """
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return ()
            rows = self._connection.execute(NEW, (self._seen,)).fetchall()
            self._version = version
        except sqlite3.Error as error:
            raise LedgerError(f"cannot read the ledger `{self._path}`: {error}") from None
        if rows:
            self._seen = rows[-1][0]
        return tuple(Command(number, name, _decoded(data), by) for number, name, data, by in rows)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def submit(
    path: Path, name: str, data: Data, by: str, owned: Callable[[], bool], wait_s: float = WAIT_S
) -> dict[str, Any] | None:
    """Have the owner of the ledger at `path` carry out a command, and return its result.

    None when the owner ended before it could: nothing was done then. `owned` says whether there is still one. Raises
    `CommandError` when the owner refuses, or does not answer within `wait_s`.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=wait_s)) as connection:
            command_id = connection.execute(INSERT, (name, msgspec.json.encode(data).decode(), by)).lastrowid
            with contextlib.suppress(OSError):  # unheard, it is found within a tenth of a second
                os.utime(lock_path(path))
            deadline_s = time.monotonic() + wait_s
            while True:
                alive = owned()  # asked first: an owner that ends now has answered before
                row = connection.execute(RESULT, (command_id,)).fetchone()
                if row is None:
                    return None  # a new owner does not take up what was left for the one before
                if row[0] is not None:
                    result: dict[str, Any] = msgspec.json.decode(row[1])
                    if not row[0]:
                        raise CommandError(str(result.get("error", "the proxy refused")))
                    return result
                if not alive:
                    connection.execute(WITHDRAW, (command_id,))
                    return None
                if time.monotonic() > deadline_s:
                    connection.execute(WITHDRAW, (command_id,))
                    raise CommandError(
                        f"the proxy that owns `{path}` did not answer within {wait_s:.0f} s, so the command was "
                        "withdrawn: `borderpost status` tells whether its record still grows"
                    )
                time.sleep(POLL_S)
    except sqlite3.Error as error:
        if "no such table" in str(error):
            raise CommandError(
                f"the proxy that owns `{path}` is of an older version and takes no commands: stop it first"
            ) from None
        raise CommandError(f"cannot reach the proxy through `{path}`: {error}") from None


def _decoded(data: str) -> Data:
    """The data of a command; empty when somebody else has left something else there."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {}
