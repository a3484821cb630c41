"""`log verify`, `checkpoint`, `prune` and `resolve` on the command line: what is printed, and the exit codes."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cli
from proxy.confdir import Confdir
from proxy.ledger.entries import DecisionEntry, OutcomeEntry
from proxy.ledger.snapshot import Snapshots
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.report.progress import Progress, bar
from tests.proxy.ledger.samples import decision, outcome, refusal

DAY_NS = 86_400_000_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a ledger of one old call and one new one, and a checkpoint over both."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BORDERPOST_CONFDIR", str(tmp_path / "confdir"))
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "ledger.db"))
    record(refusal("c_1", at_ns=time.time_ns() - 100 * DAY_NS), refusal("c_2", at_ns=time.time_ns() - DAY_NS))


def record(*entries: DecisionEntry | OutcomeEntry) -> None:
    vault = Vault.of(Confdir.open(Path("confdir").absolute()))
    ledger = Ledger.open(Path("ledger.db").absolute(), vault, owner="borderpost serve")
    for entry in entries:
        ledger.append(entry)
    ledger.close()


def borderpost(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost")
    assert result.exit_code == code, result.output
    return result


def change() -> None:
    """Somebody hides that a call was refused."""
    with closing(sqlite3.connect("ledger.db")) as connection, connection:
        ((trigger,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'entries_no_update'")
        connection.execute("DROP TRIGGER entries_no_update")
        connection.execute("UPDATE entries SET decision = 'allow' WHERE seq = 1")
        connection.execute(trigger)


INCONCLUSIVE = """\
inconclusive: nothing is wrong, but nothing shows that no entry was cut off the
              end
  ledger   ledger.db
  chain    3 entries, each following the one before
  signed   entries 1 to 2, by 1 checkpoint
  anchor   none: give a checkpoint that was kept elsewhere, with `--anchor FILE`
           (`borderpost log checkpoint --export FILE` writes one)
"""
GOOD = """\
good: every entry that the anchor tells of is as it was written
  ledger   ledger.db
  chain    3 entries, each following the one before
  signed   entries 1 to 2, by 1 checkpoint
  anchor   entries 1 to 2 are exactly those that it tells of
"""
BROKEN = """\
broken: entry 1 is not what was written
  ledger   ledger.db
  meaning  its content or its hash was changed; what stands before it is as it
           was written
  so far   0 entries before that, as they were written
"""


def test_verify_says_in_words_what_it_found_and_ends_accordingly() -> None:
    ledger = ["--ledger", "ledger.db"]
    assert borderpost("log", "checkpoint", "--export", "a.note", *ledger).stdout == ""
    assert borderpost("log", "verify", *ledger, code=3).output == INCONCLUSIVE
    assert borderpost("log", "verify", "--anchor", "a.note", *ledger).output == GOOD
    change()
    assert borderpost("log", "verify", "--anchor", "a.note", *ledger, code=1).output == BROKEN
    assert borderpost("log", "verify", *ledger, code=1).output == BROKEN


def test_the_verdict_as_json() -> None:
    borderpost("log", "checkpoint", "--export", "a.note")
    change()
    found = json.loads(borderpost("log", "verify", "--anchor", "a.note", "--json", code=1).stdout)
    assert found["result"] == "broken"
    assert found["finding"]["seq"] == 1
    assert set(found) == {
        "result", "path", "entries", "checkpoints", "sealed", "anchored", "pruned", "own_key", "finding",
        "snapshot",
    }  # fmt: skip


def test_an_exported_checkpoint_is_what_is_printed() -> None:
    printed = borderpost("log", "checkpoint").stdout
    exported = borderpost("log", "checkpoint", "--export", "a.note")
    assert "keep it where whoever can change the ledger cannot" in exported.stderr
    assert Path("a.note").read_text() == printed
    assert printed.splitlines()[1] == "2"
    told = json.loads(borderpost("log", "checkpoint", "--json").stdout)
    assert (told["seq"], told["note"]) == (3, printed)
    assert told["key"] == borderpost("log", "checkpoint", "--public-key").stdout.strip()


def test_the_public_key_is_enough_elsewhere() -> None:
    borderpost("log", "checkpoint", "--export", "a.note")
    key = borderpost("log", "checkpoint", "--public-key").stdout.strip()
    elsewhere = ["log", "verify", "--confdir", "nowhere", "--anchor", "a.note"]
    assert "by a key that only the ledger" not in borderpost(*elsewhere, "--key", key).output
    assert "by a key that only the ledger" in borderpost(*elsewhere).output
    assert not Path("nowhere").exists()


def test_verify_checks_the_snapshot_too() -> None:
    borderpost("log", "checkpoint")
    ledger = Ledger.open(
        Path("ledger.db").absolute(), Vault.of(Confdir.open(Path("confdir").absolute())), owner="borderpost serve"
    )
    Snapshots(ledger).take()
    ledger.close()
    assert "snapshot what the entries 1 to 3 come to" in borderpost("log", "verify", code=3).output
    assert "snapshot not checked" in borderpost("log", "verify", "--confdir", "nowhere", code=3).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--anchor", "no.note"], "cannot read the anchor `no.note`"),
        (["verify", "--anchor", "ledger.db"], "cannot use the anchor `ledger.db`: this is no checkpoint"),
        (["verify", "--key", "x"], "cannot use `x` as `--key`: this is no"),
        (["verify", "--ledger", "no.db"], "there is no ledger at `no.db`"),
        (["checkpoint", "--ledger", "no.db"], "there is no ledger at `no.db`"),
        (["checkpoint", "--export", "no/where"], "cannot write `no/where`"),
        (["prune", "--older-than", "soon"], "`soon` is no duration"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli.cli, ["log", *arguments], prog_name="borderpost")
    assert result.exit_code in (2, 3)
    assert message in result.stderr
    assert "fault of borderpost's" not in result.stderr


def test_prune_gives_up_what_is_old_and_keeps_the_rest() -> None:
    assert "no checkpoint has signed it yet" in borderpost("log", "prune", "--older-than", "200d").stderr
    borderpost("log", "checkpoint")
    pruned = borderpost("log", "prune", "--older-than", "90d", "--json")
    assert "pruned entries up to 1: 1 of them now" in pruned.stderr
    assert json.loads(pruned.stdout) == {"through": 1, "entries": 1}
    shown = [json.loads(borderpost("log", "show", f"c_{n}", "--json").stdout) for n in (1, 2)]
    assert [one["pruned"] for one in shown] == [True, False]
    assert [one["facts"] for one in shown] == [{}, {"body.amount": 500, "body.charge": "ch_1"}]
    assert "what was read and said was given up, on record" in borderpost("log", "show", "c_1").output
    assert [call["decision"] for call in json.loads(borderpost("log", "--json").stdout)] == ["deny", "deny"]
    assert "what was read and said in entries 1 to 1" in borderpost("log", "verify", code=3).output


def test_resolve_wants_to_know_what_became_of_it() -> None:
    assert "`--executed` or `--not-executed`" in borderpost("resolve", "c_1", "--note", "x", code=2).stderr
    assert (
        "nothing waits for the outcome of `c_1`"
        in borderpost("resolve", "c_1", "--executed", "--note", "x", code=3).stderr
    )
    assert "no call `c_9` is on record" in borderpost("resolve", "c_9", "--executed", "--note", "x", code=3).stderr


def test_a_call_that_a_person_has_resolved_is_not_shown_as_failed() -> None:
    sent, gone = decision("c_3", at_ns=time.time_ns()), {"status": 0, "at_ns": time.time_ns(), "duration_ns": 0}
    record(sent, outcome("c_3", outcome="unknown", **gone), outcome("c_3", error="resolved by ada: seen", **gone))
    shown = borderpost("log", "-n", "1").output.splitlines()[1].split()
    assert shown[-4:] == ["done", "POST", "api.stripe.com/v1/refunds", "small-refunds"]
    assert "resolved by ada: seen" in borderpost("log", "show", "c_3").output


# The bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "seconds", "shown"),
    [(Terminal(), [0.5], False), (Terminal(), [0.5, 1.5], True), (io.StringIO(), [0.5, 1.5], False)],
    ids=["less than a second", "more than a second", "no terminal"],
)
def test_a_bar_is_for_work_over_a_second_on_a_terminal(stream: io.StringIO, seconds: list[float], shown: bool) -> None:
    times = iter([0.0, *seconds])
    with Progress("verifying", stream, lambda: next(times)) as progress:
        for _ in seconds:
            progress.tell(4_000, 12_000)
    written = stream.getvalue()
    assert ("verifying ########---------------- 33 % 4,000 of 12,000" in written) == shown
    assert written.endswith("\r\x1b[K") == shown


def test_a_bar_of_nothing_is_full() -> None:
    assert bar("x", 0, 0).split()[2] == "100"
