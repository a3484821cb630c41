"""Commands: left by one process, carried out by the one that owns the ledger, and answered when they are on record."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.commands import Command, CommandError, Inbox, submit
from proxy.ledger.store import Ledger
from tests.proxy.ledger.samples import open_ledger, refusal


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(tmp_path)
    yield ledger
    ledger.close()


def ask(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql).fetchall()


def leave(path: Path, name: str, data: str = "{}") -> None:
    ask(path, f"INSERT INTO commands (name, data, by) VALUES ('{name}', '{data}', 'ada')")


def test_what_is_left_is_seen_once_and_in_order(ledger: Ledger) -> None:
    inbox = Inbox(ledger.path)
    assert inbox.poll() == ()
    leave(ledger.path, "one", '{"a": 1}')
    leave(ledger.path, "two")
    assert inbox.poll() == (Command(1, "one", {"a": 1}, "ada"), Command(2, "two", {}, "ada"))
    assert inbox.poll() == ()
    leave(ledger.path, "three", "no JSON")
    assert inbox.poll() == (Command(3, "three", {}, "ada"),)
    inbox.close()


def test_what_was_left_for_an_earlier_owner_is_not_carried_out(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    leave(tmp_path / "ledger.db", "late")
    ledger = open_ledger(tmp_path)
    inbox = Inbox(ledger.path)
    assert inbox.poll() == ()
    inbox.close()
    ledger.close()


def test_a_knock_is_heard_once(ledger: Ledger) -> None:
    inbox = Inbox(ledger.path)
    assert [inbox.knocked(), inbox.knocked()] == [True, False], "what was left before is not missed"
    with pytest.raises(CommandError):
        submit(ledger.path, "checkpoint", {}, "ada", lambda: True, wait_s=0)
    assert [inbox.knocked(), inbox.knocked()] == [True, False]
    ledger.append(refusal())
    assert not inbox.knocked()
    inbox.close()


def owner(ledger: Ledger, done: bool, result: str) -> threading.Thread:
    """Carries out the next command: appends an entry, and answers."""

    def carry_out() -> None:
        inbox = Inbox(ledger.path)
        while not (commands := inbox.poll()):
            pass
        ledger.append(refusal())
        ledger.reply(commands[0].id, done, result)
        inbox.close()

    thread = threading.Thread(target=carry_out)
    thread.start()
    return thread


def test_the_result_comes_when_the_entry_is_on_the_disk(ledger: Ledger) -> None:
    thread = owner(ledger, True, '{"seq": 1}')
    assert submit(ledger.path, "checkpoint", {}, "ada", lambda: True) == {"seq": 1}
    assert ask(ledger.path, "SELECT count(*) FROM entries") == [(1,)]
    thread.join()


def test_a_refusal_is_told(ledger: Ledger) -> None:
    thread = owner(ledger, False, '{"error": "not now"}')
    with pytest.raises(CommandError, match="not now"):
        submit(ledger.path, "checkpoint", {}, "ada", lambda: True)
    thread.join()


def test_an_owner_that_does_not_answer_is_not_waited_for_without_end(ledger: Ledger) -> None:
    with pytest.raises(CommandError, match="did not answer within 0 s, so the command was withdrawn"):
        submit(ledger.path, "checkpoint", {}, "ada", lambda: True, wait_s=0.05)
    assert ask(ledger.path, "SELECT * FROM commands") == []


def test_an_owner_that_ended_leaves_nothing_behind(ledger: Ledger) -> None:
    assert submit(ledger.path, "checkpoint", {}, "ada", lambda: False) is None
    assert ask(ledger.path, "SELECT * FROM commands") == []


def test_a_new_owner_makes_the_command_line_ask_again(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()

    def replaced() -> bool:
        open_ledger(tmp_path).close()
        return True

    assert submit(tmp_path / "ledger.db", "checkpoint", {}, "ada", replaced) is None


def test_a_proxy_of_an_older_version_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "schema-1.sql").read_text())
    with pytest.raises(CommandError, match="is of an older version and takes no commands: stop it first"):
        submit(path, "checkpoint", {}, "ada", lambda: True)


def test_results_are_kept_for_a_while_only(ledger: Ledger) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)"
    ask(ledger.path, f"{numbers} INSERT INTO commands (name, data, by, done) SELECT 'x', '{{}}', 'ada', 1 FROM n")
    directory = ledger.path.parent
    ledger.close()
    again = open_ledger(directory)
    assert ask(again.path, "SELECT min(id), max(id) FROM commands") == [(501, 1500)]
    again.close()
