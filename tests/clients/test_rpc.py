"""gRPC through the proxy: calls of every kind, at once and in turns; metadata, refusals, writes at most once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import HERE, Run, Tls, node

RULES = """
version: 1
rules:
  - {id: look, match: [METHODS], allow: true}
  - {id: act, match: ["POST ORIGIN/bank.Bank/Pay", "POST ORIGIN/bank.Bank/Refuse"], allow: true, dedupe: 1h}
"""

METHODS = ", ".join(f'"POST ORIGIN/bank.Bank/{method}"' for method in ("Get", "List", "Sum", "Echo"))
KEPT = {"x-asked-by": "ada", "x-cost": "5", "x-raw-bin": "00ff"}


@pytest.fixture
def server(python: Path, tls: Tls) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([python, HERE / "rpc.py", "serve", tls[1]], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        yield started, started.stdout.readline().strip()
        started.kill()


@pytest.mark.parametrize("client", ["grpcio", "@grpc/grpc-js"])
def test_grpc(client: str, server: tuple[subprocess.Popen[str], str], python: Path, tls: Tls, tmp_path: Path) -> None:
    process, port = server
    run = Run(tmp_path / "run", f"https://localhost:{port}", tls[0], RULES.replace("METHODS", METHODS))
    command = (python, HERE / "rpc.py", "call") if client == "grpcio" else ("node", node(run, "rpc.cjs"))
    said = run(*command, port)
    made = [json.loads(line) for line in said.splitlines()]
    assert [(method, code, answers) for method, code, _, answers, _ in made] == [
        ("Get", "OK", ["cba"]),
        ("List", "OK", ["abc", "cba", "abc"]),
        ("Sum", "OK", ["abcdefghi"]),
        ("Echo", "OK", ["cba", "fed", "ihg"]),
        ("Close", "PERMISSION_DENIED", []),
        ("Pay", "UNAVAILABLE", []),
        ("Pay", "FAILED_PRECONDITION", []),
        ("Refuse", "FAILED_PRECONDITION", []),
        ("Refuse", "FAILED_PRECONDITION", []),
    ]
    assert {name: made[0][4].get(name) for name in KEPT} == KEPT
    details: dict[int, Any] = {index: row[2] for index, row in enumerate(made)}
    assert details[4].startswith("No rule allows this call. It was decided by policy, and nothing was executed.")
    assert details[5] == "gone"
    assert "nobody can tell whether it took effect" in details[6]
    assert details[7] == details[8] == "no"
    process.kill()
    assert process.stdout is not None
    assert process.stdout.read().split() == ["Get", "List", "Sum", "Echo", "Pay", "Refuse", "Refuse"]
    recorded = [(call["path"].rpartition("/")[2], call["code"] or call["outcome"]) for call in run.recorded]
    assert recorded == [
        ("Get", "done"),
        ("List", "done"),
        ("Sum", "done"),
        ("Echo", "done"),
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
    tls: Tls,
    tmp_path: Path,
) -> None:
    process, port = server
    run = Run(tmp_path / "run", f"https://localhost:{port}", tls[0], TALKED)
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
