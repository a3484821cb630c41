"""`clock` on the command line, and what `status` tells: over a ledger whose last entry is three hours ahead."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import cli
from proxy.confdir import Confdir
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from tests.proxy.ledger.samples import refusal

HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BORDERPOST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BORDERPOST_CONFDIR", str(tmp_path / "confdir"))
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "ledger.db"))
    ledger = Ledger.open(tmp_path / "ledger.db", Vault.of(Confdir.open(tmp_path / "confdir")), owner="borderpost serve")
    ledger.append(refusal(at_ns=time.time_ns() + 3 * HOUR_NS))
    ledger.close()


def borderpost(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost")


def test_a_clock_that_is_far_behind_the_record_is_told() -> None:
    found = borderpost("clock")
    assert found.exit_code == 1
    assert "The computer's clock is 2 h 59 min behind the record." in found.stdout
    found = borderpost("clock", "--json")
    told = json.loads(found.stdout)
    assert found.exit_code == 1
    assert told["recorded_ns"] - told["wall_ns"] == pytest.approx(3 * HOUR_NS, abs=60 * 10**9)
    assert told["behind_s"] == (told["recorded_ns"] - told["wall_ns"]) // 10**9
    assert (
        "clock    this computer's is 2 h 59 min behind the record, so no window passes" in borderpost("status").stdout
    )
    assert 3500 < json.loads(borderpost("status", "--json").stdout)["clock_behind_s"] / 3 <= 3600


def test_a_person_accepts_the_clock() -> None:
    accepted = borderpost("clock", "--accept", "--note", "was wrong")
    assert (accepted.exit_code, accepted.stdout) == (0, "")
    assert accepted.stderr.startswith("borderpost: recorded: time went on from 20")
    found = borderpost("clock")
    assert (found.exit_code, len(found.stdout.splitlines())) == (0, 2)
    assert "clock " not in borderpost("status").stdout
    again = borderpost("clock", "--accept", "--note", "was wrong")
    assert again.exit_code == 3
    assert "the wall clock is not behind the recorded time" in again.stderr


@pytest.mark.parametrize("given", [["--accept"], ["--note", "x"]], ids=["no note", "nothing accepted"])
def test_accepting_a_clock_needs_a_note(given: list[str]) -> None:
    found = borderpost("clock", *given)
    assert found.exit_code == 2
    assert "`--accept` and `--note TEXT` belong together" in found.stderr
