"""`approvals` as programs: one process holds the call, another one answers, and the upstream counts what reached it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cli
from tests.test_cli_proxy import Upstream, borderpost
from tests.test_cli_proxy import upstream as upstream  # a fixture

RULES = """\
version: 1
rules:
  - id: large
    match: "POST http://localhost:{port}/**"
    allow: true
    approve: {{title: A refund, hold: {hold}}}
"""


class Agent:
    """Calls through a proxy of its own, from other threads."""

    def __init__(self, url: str, upstream: Upstream) -> None:
        self.url = url
        self.upstream = upstream
        self.pool = ThreadPoolExecutor()

    def calls(self, amount: int, path: str = "/refunds?force=1") -> Future[tuple[int, dict[str, Any]]]:
        return self.pool.submit(self._call, amount, path)

    def _call(self, amount: int, path: str) -> tuple[int, dict[str, Any]]:
        handler = urllib.request.ProxyHandler({"http": self.url})
        body = {"amount": amount, "note": "evil \u202e\x1b[31m text", "api_key": "sk_live_0123456789abcdef"}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.upstream.url + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.build_opener(handler).open(request, timeout=60) as answer:
                return answer.status, {}
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


type Serve = Callable[[str], Agent]


@pytest.fixture
def serve(upstream: Upstream) -> Iterator[Serve]:
    """Starts a `serve` whose rules hold for so long."""
    running: list[subprocess.Popen[str]] = []

    def start(hold: str) -> Agent:
        Path("borderpost.yaml").write_text(RULES.format(port=upstream.server_port, hold=hold))
        command = [sys.executable, "-m", "cli", "serve", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        found = re.match(r"borderpost: listening on (http://127\.0\.0\.1:\d+)", process.stderr.readline())
        assert found
        return Agent(found[1], upstream)

    yield start
    for process in running:
        process.terminate()
        process.communicate()


def approvals(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, ["approvals", *arguments])


def waiting(count: int = 1) -> list[dict[str, Any]]:
    """What waits for an answer, when it is so many."""
    while True:
        if Path(os.environ["BORDERPOST_LEDGER"]).exists():
            found: list[dict[str, Any]] = json.loads(approvals("--json").stdout)
            if len(found) == count:
                return found
        time.sleep(0.02)


def test_a_person_looks_and_allows(serve: Serve) -> None:
    agent = serve("30s")
    call = agent.calls(9000)
    (card,) = waiting()
    assert card | {"id": "", "call": "", "run": "", "until_ns": 0, "at": "", "url": ""} == {
        "id": "", "state": "asked", "at": "", "until_ns": 0, "title": "A refund", "rule": "large", "agent": "default",
        "run": "", "tool": "", "method": "POST", "url": "", "headers": {}, "query": {"force": "1"},
        "body": card["body"], "call": "", "by": "", "note": "", "own_user": False,
    }  # fmt: skip
    assert card["body"]["api_key"].startswith("hash:")
    listed = approvals()
    assert re.search(rf"{card['id']} +59 min +default +POST http://localhost:\d+/refunds +A refund\n", listed.stdout)
    assert "1 call for your answer" in CliRunner().invoke(cli.cli, ["status"]).stdout
    shown = approvals("show", card["id"][:5]).stdout
    assert shown.startswith("A refund\nPOST http://localhost:")
    assert "  query force = 1\n" in shown
    assert '    "amount": 9000,\n' in shown
    assert "sk_live" not in shown
    assert shown.isascii() and all(char >= " " or char == "\n" for char in shown), "nothing that a terminal obeys"
    allowed = approvals("allow", card["id"][:5], "--note", "the customer called")
    assert (allowed.exit_code, allowed.stderr) == (
        0, f"borderpost: allowed {card['id']}: the identical call passes, once\n",
    )  # fmt: skip
    assert call.result() == (200, {})
    assert agent.upstream.seen == ["POST /refunds?force=1"]
    assert approvals("list").stderr == "borderpost: no call waits for you\n"
    assert "the customer called" in approvals("show", card["id"]).stdout


def test_a_person_refuses_and_the_agent_reads_why(serve: Serve) -> None:
    agent = serve("30s")
    call = agent.calls(9000)
    (card,) = waiting()
    without = approvals("refuse", card["id"])
    assert (without.exit_code, "Missing option '--reason'" in without.stderr) == (2, True)
    refused = approvals("refuse", "a_", "--reason", "Not this customer.", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)) == (0, {"card": card["id"], "allowed": False})
    status, problem = call.result()
    assert (status, problem["code"], problem["ticket"]) == (403, "approval-refused", card["id"])
    assert "Not this customer" in problem["detail"]
    assert agent.upstream.seen == []
    assert "refused by" in approvals("show", "a_").stdout


def test_an_answer_to_nothing(serve: Serve) -> None:
    agent = serve("0")
    tickets = [agent.calls(amount).result()[1]["ticket"] for amount in (1, 2)]
    assert [card["id"] for card in waiting(2)] == tickets
    for wrong, message in (("a_", "`a_` is not unique"), ("b_", "there is no ticket `b_`")):
        got = borderpost("approvals", "allow", wrong)
        assert (got.returncode, message in got.stderr) == (3, True)
    assert borderpost("approvals", "allow", tickets[0]).returncode == 0
    again = borderpost("approvals", "allow", tickets[0])
    assert (again.returncode, "waits for no answer" in again.stderr) == (3, True)
    assert agent.calls(1).result()[0] == 200
    assert agent.calls(1).result()[0] == 403


def test_a_record_with_questions_is_whole(serve: Serve, upstream: Upstream) -> None:
    agent = serve("0")
    ticket = agent.calls(1).result()[1]["ticket"]
    waiting()
    assert json.loads(borderpost("approvals", "allow", ticket, "--json").stdout) == {"card": ticket, "allowed": True}
    agent.calls(1).result()
    borderpost("log", "checkpoint", "--export", "anchor.note")
    verified = borderpost("log", "verify", "--anchor", "anchor.note")
    assert verified.returncode == 0, verified.stdout
    with sqlite3.connect(os.environ["BORDERPOST_LEDGER"]) as ledger:
        assert dict(ledger.execute("select decision, calls from totals")) == {"hold": 1, "allow": 1}
    ledger.close()


@pytest.mark.parametrize(
    ("typed", "seen", "said"),
    [("a\n", 1, "allowed a_"), ("r\nr no\n", 0, "refused a_"), ("x\ns\n", 0, "skipped a_"), ("q\n", 0, "")],
)
def test_watch_takes_lines_where_no_terminal_is(serve: Serve, typed: str, seen: int, said: str) -> None:
    agent = serve("0")
    agent.calls(1).result()
    waiting()
    done = subprocess.run(
        [sys.executable, "-m", "cli", "approvals", "watch"], input=typed, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "A refund\nPOST http://localhost:" in done.stdout
    assert said in done.stdout
    assert agent.calls(1).result()[0] == (200 if seen else 403)
    assert len(agent.upstream.seen) == seen


class Terminal:
    """`approvals watch` on a terminal of its own."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "cli", "approvals", "watch"]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until `text` has been shown."""
        deadline_s = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < deadline_s, self.shown
            if select.select([self.master], [], [], 0.1)[0]:
                self.shown += os.read(self.master, 4096).decode()
        self.shown = self.shown.partition(text)[2]

    def types(self, keys: str) -> None:
        os.write(self.master, keys.encode())


def test_watch_takes_keys_on_a_terminal(serve: Serve) -> None:
    agent = serve("30s")
    first = agent.calls(1)
    waiting()
    terminal = Terminal()
    terminal.until("quit (q)? ")
    second = agent.calls(2)
    waiting(2)
    terminal.types("aa")  # the second is no answer to the next question
    terminal.until("allowed a_")
    assert first.result()[0] == 200
    terminal.until('"amount": 2')
    terminal.until("quit (q)? ")
    terminal.types("r")
    terminal.until("reason, for the agent to read: ")
    terminal.types("no\n")
    terminal.until("refused a_")
    assert second.result()[1]["code"] == "approval-refused"
    third = agent.calls(3)
    terminal.until('"amount": 3')
    terminal.until("quit (q)? ")
    borderpost("approvals", "allow", "a_")
    terminal.until("is closed: it was answered elsewhere")
    assert third.result()[0] == 200
    terminal.types("q")
    assert terminal.process.wait(30) == 0
    os.close(terminal.master)
    assert len(agent.upstream.seen) == 2


def test_watch_prints_json(serve: Serve) -> None:
    agent = serve("0")
    ticket = agent.calls(1).result()[1]["ticket"]
    waiting()
    done = subprocess.run(
        [sys.executable, "-m", "cli", "approvals", "watch", "--json"],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [ticket]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_an_isolated_agent_cannot_answer_by_the_command(upstream: Upstream) -> None:
    Path("borderpost.yaml").write_text(RULES.format(port=upstream.server_port, hold="0"))
    code = (
        "import urllib.request, urllib.error, subprocess, sys, time\n"
        "cli = [sys.executable, '-m', 'cli', 'approvals']\n"
        "def call():\n"
        "    try:\n"
        f"        urllib.request.urlopen('{upstream.url}/refunds', b'a=1', 30)\n"
        "    except urllib.error.HTTPError as error:\n"
        "        return error.code\n"
        "print(call())\n"
        "while b'a_' not in subprocess.run([*cli, 'list', '--json'], capture_output=True).stdout:\n"
        "    time.sleep(0.1)\n"
        "got = subprocess.run([*cli, 'allow', 'a_'], capture_output=True, text=True)\n"
        "print(got.returncode, got.stderr.strip())\n"
        "print(call())\n"
    )
    done = borderpost("run", "--isolated", "--", sys.executable, "-c", code)
    if "cannot isolate" in done.stderr:
        pytest.skip("the kernel forbids namespaces")
    first, answer, second = done.stdout.splitlines()
    assert (first, second) == ("403", "403")
    assert answer.startswith("3 error: this is for people; it runs within `borderpost run --isolated`")
    assert upstream.seen == []
