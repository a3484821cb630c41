"""grpcio through the proxy: unary and streamed in turns, trailers and statuses kept, refusals as statuses, and at most
once."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import HERE, Run

RULES = """
version: 1
rules:
  - {id: look, match: ["POST ORIGIN/bank.Bank/Get", "POST ORIGIN/bank.Bank/List"], allow: true}
  - {id: act, match: ["POST ORIGIN/bank.Bank/Pay", "POST ORIGIN/bank.Bank/Refuse"], allow: true, dedupe: 1h}
"""


@pytest.fixture
def server(
    python: Path, authority: tuple[ssl.SSLContext, Path, Path], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [python, HERE / "rpc.py", "serve", authority[2]], stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        yield started, started.stdout.readline().strip()
        started.kill()


def test_grpcio(
    server: tuple[subprocess.Popen[str], str],
    python: Path,
    authority: tuple[ssl.SSLContext, Path, Path],
    tmp_path: Path,
) -> None:
    process, port = server
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", f"https://localhost:{port}", authority[1], RULES)
    said = [json.loads(line) for line in run(python, HERE / "rpc.py", "call", port).splitlines()]
    assert said == [
        ["Get", "OK", ["cba", ["x-cost", "5"]]],
        ["List", "OK", ["abc", "cba", "abc"]],
        ["Close", "PERMISSION_DENIED", []],
        ["Pay", "UNAVAILABLE", []],
        ["Pay", "FAILED_PRECONDITION", []],
        ["Refuse", "FAILED_PRECONDITION", []],
        ["Refuse", "FAILED_PRECONDITION", []],
    ]
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read().split() == ["Get", "List", "Pay", "Refuse", "Refuse"]
    recorded = [(call["path"].rpartition("/")[2], call["code"] or call["outcome"]) for call in run.recorded]
    assert recorded == [
        ("Get", "done"),
        ("List", "done"),
        ("Close", "no-allow"),
        ("Pay", "unknown"),
        ("Pay", "outcome-unknown"),
        ("Refuse", "not_executed"),
        ("Refuse", "not_executed"),
    ]


TALKED = """
version: 1
rules:
  - id: talk
    match: ["POST ORIGIN/bank.Bank/Chat", "POST ORIGIN/bank.Bank/Upload", "POST ORIGIN/bank.Bank/Arrived"]
    allow: true
  - {id: watch, match: ["POST ORIGIN/bank.Bank/Watch", "POST ORIGIN/bank.Bank/Listen"], allow: true}
  - {id: once, match: "POST ORIGIN/bank.Bank/Once", allow: true, dedupe: 1h}
"""


def test_grpcio_in_turns(
    server: tuple[subprocess.Popen[str], str],
    python: Path,
    authority: tuple[ssl.SSLContext, Path, Path],
    tmp_path: Path,
) -> None:
    process, port = server
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", f"https://localhost:{port}", authority[1], TALKED)
    said = [json.loads(line) for line in run(python, HERE / "rpc.py", "talk", port).splitlines()]
    refused = said.pop()
    assert said == [
        ["Chat", "OK", ["eno", "owt", "eerht"], [["x-cost", "5"]]],
        ["Upload", "OK", ["yes", "first+second"]],
        ["Watch", "CANCELLED", "watching"],
        ["Listen", "DEADLINE_EXCEEDED", "watching"],
        ["Once", ["lla", "ecno ta"], "OK"],
    ]
    assert refused[:2] == ["Once", "INVALID_ARGUMENT"]
    assert "rule `once` has to read the whole of it" in refused[2]
    process.kill()
    assert process.stdout is not None
    got = process.stdout.read().split("\n")[:-1]
    assert sorted(got) == sorted(
        [
            *("Chat", "one", "two", "three", "Upload", "Arrived", "Watch", "left", "Listen", "left"),
            *("Once", "all", "at once"),
        ]
    )
    recorded = [(call["path"].rpartition("/")[2], call["code"] or call["outcome"]) for call in run.recorded]
    assert recorded == [
        ("Chat", "done"),
        ("Upload", "done"),
        ("Arrived", "done"),
        ("Watch", "unknown"),
        ("Listen", "unknown"),
        ("Once", "done"),
        ("Once", "body-unfinished"),
    ]
