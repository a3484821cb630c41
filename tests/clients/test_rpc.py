"""grpcio through the proxy: unary and streamed, trailers and statuses kept, refusals as statuses, and at most once."""

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
