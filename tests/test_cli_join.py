"""`run` beside a running `serve`, as programs: they join it, and whoever dies takes nothing along but its own calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.ledger.query import LedgerReader
from proxy.ledger.selecting import Filters
from tests.test_cli_proxy import Upstream, agent, asked, borderpost, said, serving, through, upstream

__all__ = ["upstream"]

TALKER = """
import sys, urllib.error, urllib.request
for line in sys.stdin:
    try:
        with urllib.request.urlopen(line.strip(), timeout=30) as answer:
            print(answer.status, flush=True)
    except urllib.error.HTTPError as error:
        print(error.code, flush=True)
    except OSError:
        print("no answer", flush=True)
sys.exit(5)
"""
"""An agent that gets each URL that it is told, until there are no more."""


class Agent:
    """A `run` whose command does as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def get(self, url: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{url}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, list[str]]:
        """The exit code, and what was said on standard error."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.close()
        lines = self.process.stderr.read().splitlines()
        return self.process.wait(60), lines


@contextmanager
def running(*options: str) -> Iterator[Agent]:
    command = [sys.executable, "-m", "cli", "run", *options, "--", sys.executable, "-c", TALKER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1) as process:
        try:
            yield Agent(process)
        finally:
            process.kill()


def runs_of(path: str) -> list[tuple[str, str]]:
    """Agent and run of each call to `path`."""
    with LedgerReader.open(Path(os.environ["BORDERPOST_LEDGER"])) as reader:
        return [(row.agent, row.run) for row in reader.list(Filters()) if row.path == path]


def test_two_runs_at_a_time_share_one_serve_and_each_counts_its_own(upstream: Upstream) -> None:
    order, look = f"POST {upstream.url}/orders", f"GET {upstream.url}/look"
    with serving() as (process, url), running("--agent", "mail", "--run", "r_mail") as mail:
        assert mail.get(f"{upstream.url}/mail") == "200"
        shop = borderpost(
            "run", "--agent", "shop", "--run", "r_shop", "--", *agent(order, order, f"DELETE {upstream.url}/")
        )
        assert (shop.returncode, shop.stdout.splitlines()) == (7, ["200 ", "200 true", "403"])
        joined, *_, last = shop.stderr.splitlines()
        assert joined == (
            f"borderpost: joined `borderpost serve` (process {process.pid}), whose rules hold: 2 rules, 0 tools from "
            f"{Path('borderpost.yaml').absolute()}"
        )
        assert last.startswith(
            "borderpost: 3 calls · 1 allowed · 1 replayed · 1 blocked · log: borderpost log --run r_shop --ledger "
        )
        assert re.search(r"^joined   r_mail of agent mail, process \d+, since ", asked("status"), re.MULTILINE)
        assert through(url, look) == ["200 "]
        code, lines = mail.end()
        assert (code, lines[-1].partition(" · log: ")[0]) == (5, "borderpost: 1 call · 1 allowed")
        told = [re.sub(r"process \d+", "process N", said(process)) for _ in range(4)]
        assert told == [
            "run `r_mail` of agent `mail` has joined, process N",
            "run `r_shop` of agent `shop` has joined, process N",
            "run `r_shop` of agent `shop` has ended: its command has ended",
            "run `r_mail` of agent `mail` has ended: its command has ended",
        ]
        assert "joined" not in asked("status")
    assert upstream.seen == ["GET /mail", "POST /orders", "GET /look"]
    (alone,) = runs_of("/look")
    assert alone[0] == "default" and alone[1] not in ("r_mail", "r_shop")
    assert runs_of("/mail") == [("mail", "r_mail")]


def test_a_directory_without_rules_joins_and_one_with_others_does_not(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving():
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert borderpost("run", "--", *agent(f"GET {upstream.url}/")).stdout == "200 \n"
        for named in (["--rules", "none.yaml"], []):
            (tmp_path / "elsewhere" / "borderpost.yaml").write_text("version: 1\nrules: []\n")
            done = borderpost("run", *named, "touch", "ran")
            assert done.returncode == 3
            assert ("no rules at `none.yaml`" if named else "its rules are 2 rules, 0 tools from ") in done.stderr
    assert not Path("ran").exists()
    assert upstream.seen == ["GET /"]


def test_what_is_exported_for_the_serve_does_not_keep_a_run_from_joining(upstream: Upstream) -> None:
    with serving() as (_, url):
        where = {"BORDERPOST_LISTEN": url.removeprefix("http://"), "BORDERPOST_MODE": "enforce"}
        assert borderpost("run", "true", **where).returncode == 0
        assert "it listens on " in borderpost("run", "true", BORDERPOST_LISTEN="127.0.0.1:1").stderr


def test_when_a_run_is_killed_its_command_is_shut_out(upstream: Upstream) -> None:
    with serving() as (process, _), running("--run", "r_killed") as killed:
        assert killed.get(f"{upstream.url}/1") == "200"
        killed.process.kill()
        killed.process.wait()
        assert killed.get(f"{upstream.url}/2") == "407"
        assert said(process).startswith("run `r_killed` of agent `default` has joined")
        assert said(process) == "run `r_killed` of agent `default` has ended: its process has died"
        assert killed.get(f"{upstream.url}/3") == "407"
    assert upstream.seen == ["GET /1"]


def test_while_the_serve_is_away_nothing_gets_out_and_a_restart_goes_on_with_the_run(upstream: Upstream) -> None:
    with serving() as (first, url), running("--run", "r_long") as long:
        assert long.get(f"{upstream.url}/1") == "200"
        while '"done"' not in asked("log", "--json"):
            pass
        first.kill()
        first.wait()
        assert long.get(f"{upstream.url}/2") == "no answer"
        with serving("--listen", url.removeprefix("http://")):
            assert long.get(f"{upstream.url}/3") == "200"
            code, lines = long.end()
    assert (code, lines[-1].partition(" · log: ")[0]) == (5, "borderpost: 2 calls · 2 allowed")
    assert upstream.seen == ["GET /1", "GET /3"]
    assert runs_of("/3") == [("default", "r_long")]


def test_a_run_that_outlives_its_serve_says_so_and_passes_the_code_on(upstream: Upstream) -> None:
    with serving() as (process, _), running() as left:
        assert left.get(f"{upstream.url}/1") == "200"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert left.get(f"{upstream.url}/2") == "no answer"
        code, lines = left.end()
    assert code == 5
    assert (
        f"borderpost: `borderpost serve` (process {process.pid}), which this run had joined, has ended: " in lines[-2]
    )
    assert lines[-1].startswith("borderpost: 1 call · 1 allowed · log: ")
    assert upstream.seen == ["GET /1"]


def test_calls_without_an_answer_are_counted(upstream: Upstream, tmp_path: Path) -> None:
    rules = tmp_path / "borderpost.yaml"
    rules.write_text(rules.read_text() + '  - {id: dead, match: "GET http://localhost:1/**", allow: true}\n')
    command = [sys.executable, "-m", "cli", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "3 rules" in said(process)
            done = borderpost("run", "--", *agent("GET http://localhost:1/", f"GET {upstream.url}/"))
        finally:
            process.kill()
    assert "2 calls · 2 allowed · 1 got no answer · log: " in done.stderr
