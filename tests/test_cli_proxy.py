"""`run` and `serve` as programs: real processes, a real agent, and an upstream that counts what reached it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from proxy.osuser import os_user
from tests.saving import save

HOUSE = Path(__file__).parents[1]

RULES = """\
version: 1
rules:
  - {{id: orders, match: "POST http://localhost:{port}/orders", allow: true, dedupe: 1h}}
  - {{id: look, match: "GET http://localhost:{port}/**", allow: true}}
"""

AGENT = """
import sys, urllib.error, urllib.request
for request in sys.argv[1:]:
    method, url = request.split(" ")
    try:
        body = b"a=1" if method == "POST" else None
        with urllib.request.urlopen(urllib.request.Request(url, method=method, data=body), timeout=30) as answer:
            print(answer.status, answer.headers.get("Idempotent-Replayed", ""))
    except urllib.error.HTTPError as error:
        print(error.code)
sys.exit(7)
"""


class Upstream(ThreadingHTTPServer):
    """Counts the requests that reach it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), Answering)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """An upstream, and rules for it in the current directory."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BORDERPOST_CONFDIR", str(tmp_path / "confdir"))
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("PYTHONPATH", str(HOUSE))
    with Upstream() as server:
        (tmp_path / "borderpost.yaml").write_text(RULES.format(port=server.server_port))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def borderpost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def asked(*arguments: str) -> str:
    """What a reading command prints; in this process, which is quicker."""
    return CliRunner().invoke(cli.cli, list(arguments)).stdout


def agent(*requests: str) -> list[str]:
    """The command of an agent that sends `requests` and ends with 7."""
    return [sys.executable, "-c", AGENT, *requests]


# --- run ---


def test_run_decides_for_its_child_and_passes_its_code_on(upstream: Upstream) -> None:
    order, stray = f"POST {upstream.url}/orders", f"DELETE {upstream.url}/orders/7"
    done = borderpost(
        "run", "--agent", "shop", "--run", "r_one", "--", *agent(order, order, f"GET {upstream.url}/", stray)
    )
    assert done.stdout.splitlines() == ["200 ", "200 true", "200 ", "403"]
    assert upstream.seen == ["POST /orders", "GET /"]
    assert done.returncode == 7
    assert done.stderr.splitlines()[-1].startswith(
        "borderpost: 4 calls · 2 allowed · 1 replayed · 1 blocked · log: borderpost log --run r_one --ledger "
    )
    listed = asked("log", "--run", "r_one", "--agent", "shop")
    assert re.findall(r" (allow|replay|deny) ", listed) == ["deny", "allow", "replay", "allow"]


def test_run_reaches_whatever_its_command_starts(upstream: Upstream) -> None:
    """Pipelines, nested shells, what runs in the background: the environment is handed on."""
    ask = f'{sys.executable} -c "$AGENT" "GET {upstream.url}'
    script = f"""
        {ask}/piped" | {ask}/read-from" &
        wait
        bash -c "exec sh -c '\\$0 -c \\"\\$AGENT\\" \\"GET {upstream.url}/nested\\"' {sys.executable}"
        exit 9
    """
    done = borderpost("run", "--", "bash", "-c", script, AGENT=AGENT)
    assert done.returncode == 9, done.stderr
    assert sorted(upstream.seen) == ["GET /nested", "GET /piped", "GET /read-from"]
    assert "3 calls · 3 allowed" in done.stderr


def test_run_says_what_its_child_could_write_and_which_proxy_it_passes_over(upstream: Upstream) -> None:
    done = borderpost("run", "true", HTTPS_PROXY="http://other:1", NO_PROXY="localhost,.corp.example")
    assert done.returncode == 0
    assert "borderpost: the command runs as you and could write the rules, the ledger and the keys" in done.stderr
    assert "borderpost: HTTPS_PROXY is set but not used" in done.stderr
    assert "NO_PROXY is emptied for the command, so that localhost,.corp.example is reached" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "borderpost: 0 calls (a client that ignores HTTPS_PROXY goes round the proxy) · log: borderpost log --run r_0"
    )


def test_run_goes_out_through_another_proxy(upstream: Upstream) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            with listening.accept()[0] as client:
                asked.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 407 No\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://me:secret@127.0.0.1:{listening.getsockname()[1]}"
        done = borderpost(
            "run", "--", "sh", "-c", f"""{sys.executable} -c "$AGENT" "GET {upstream.url}/a"; env""",
            AGENT=AGENT, BORDERPOST_UPSTREAM_PROXY=url, HTTPS_PROXY="http://other:1",
        )  # fmt: skip
        thread.join()
    assert [head.split(b"\r\n")[0] for head in asked] == [f"CONNECT localhost:{upstream.server_port} HTTP/1.1".encode()]
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in asked[0]
    assert done.stdout.startswith("502\n")
    assert "secret" not in done.stdout + done.stderr, "neither the agent nor the terminal gets to see it"
    assert f"borderpost: calls go out through http://127.0.0.1:{url.rpartition(':')[2]}\n" in done.stderr
    assert "1 got no answer" in done.stderr
    assert upstream.seen == []


def test_what_is_no_proxy_is_refused_without_showing_it(upstream: Upstream) -> None:
    done = borderpost("run", "--upstream-proxy", "https://me:secret@proxy:1", "true")
    assert done.returncode == 3
    assert "cannot use what is given as --upstream-proxy: it has to begin with `http://`" in done.stderr
    assert "secret" not in done.stderr


def test_run_in_monitor_mode_stops_nothing_and_tells_what_it_would(upstream: Upstream) -> None:
    order = f"POST {upstream.url}/orders"
    done = borderpost("run", "--mode", "monitor", "--", *agent(order, order))
    assert done.stdout.splitlines() == ["200 ", "200 "]
    assert upstream.seen == ["POST /orders", "POST /orders"]
    assert "2 calls · 2 allowed" in done.stderr
    assert asked("log", "-n", "1").endswith("  orders (monitor)\n")


def test_run_in_monitor_mode_needs_no_rules(upstream: Upstream) -> None:
    Path("borderpost.yaml").unlink()
    assert borderpost("run", "--mode", "monitor", "true").returncode == 0


def test_nothing_of_ours_is_left_where_the_child_was(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    done = borderpost(
        "run", "sh", "-c", "echo $SSL_CERT_FILE; test -s $SSL_CERT_FILE", TMPDIR=str(tmp_path / "scratch")
    )
    assert done.returncode == 0
    assert done.stdout.startswith(str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_run_isolated_leaves_no_other_way_out(upstream: Upstream) -> None:
    direct = AGENT.replace(
        "import sys, urllib.error, urllib.request",
        "import sys, urllib.error, urllib.request\n"
        "urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))",
    ).replace(
        "except urllib.error.HTTPError as error:\n        print(error.code)",
        "except OSError as error:\n        print('no')",
    )
    order = f"POST {upstream.url}/orders"
    both = f'{sys.executable} -c "$0" "{order}"; exec {sys.executable} -c "$1" "{order}"'
    done = borderpost("run", "--isolated", "--run", "r_iso", "--", "sh", "-c", both, AGENT, direct)
    if "cannot isolate" in done.stderr:
        pytest.skip("the kernel forbids namespaces")
    assert done.stdout.splitlines() == ["200 ", "no"]
    assert upstream.seen == ["POST /orders"]
    assert done.returncode == 7
    assert re.search(r"1 call · 1 allowed · \d attempts? to go round the proxy failed · log: ", done.stderr)
    with sqlite3.connect(os.environ["BORDERPOST_LEDGER"]) as ledger:
        (boot,) = ledger.execute("select rest ->> '$.isolated' from entries where kind = 'boot'").fetchone()
        (end,) = ledger.execute(
            "select rest ->> '$.data.direct_attempts' from entries where rest ->> '$.name' = 'shutdown'"
        ).fetchone()
    ledger.close()
    assert boot == 1 and end >= 1


# --- serve ---


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `serve`, and its URL."""
    command = [sys.executable, "-m", "cli", "serve", "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            first = process.stderr.readline()
            found = re.match(r"borderpost: listening on (http://127\.0\.0\.1:\d+) · 2 rules, 0 tools from ", first)
            assert found, first
            told = process.stderr.readline()
            port = first.split(" ")[3].rpartition(":")[2]
            places = f"--ledger {os.environ['BORDERPOST_LEDGER']} --confdir {os.environ['BORDERPOST_CONFDIR']}"
            assert told.endswith(f'eval "$(borderpost env --listen 127.0.0.1:{port} {places})"\n'), told
            yield process, found[1]
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline().removeprefix("borderpost: ").rstrip("\n")


def through(url: str, *requests: str) -> list[str]:
    done = subprocess.run(
        agent(*requests),
        capture_output=True,
        text=True,
        env=os.environ | {"http_proxy": url, "no_proxy": ""},
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_well_when_told_to(number: signal.Signals, upstream: Upstream) -> None:
    with serving() as (process, url):
        assert through(url, f"GET {upstream.url}/", f"DELETE {upstream.url}/") == ["200 ", "403"]
        assert asked("status").startswith(f"proxy    running: borderpost serve, process {process.pid},")
        process.send_signal(number)
        assert said(process) == "stopping: calls in flight may end"
        assert said(process) == "2 calls · 1 allowed · 1 blocked"
        assert process.wait(30) == 0
    assert asked("status").startswith("proxy    not running\n")


def test_serve_follows_its_rules_and_keeps_good_ones(upstream: Upstream, tmp_path: Path) -> None:
    rules = tmp_path / "borderpost.yaml"
    good = rules.read_text()
    with serving() as (process, url):
        save(rules, good + f'  - {{id: no-look, match: "GET {upstream.url}/**", deny: Closed.}}\n')
        assert said(process) == "reloaded the rules: 3 in force"
        assert through(url, f"GET {upstream.url}/") == ["403"]
        save(rules, good + "  - {")
        assert said(process).startswith(
            "kept the rules in force, because the changed ones cannot be used: borderpost.yaml:"
        )
        assert through(url, f"GET {upstream.url}/") == ["403"]
        assert "problem  reload failed at" in asked("status")
        save(rules, good)
        assert said(process) == "reloaded the rules: 2 in force"
        assert through(url, f"GET {upstream.url}/") == ["200 "]
        assert "problem" not in asked("status")


def test_a_person_stops_a_proxy_that_runs_and_lets_it_go_on(upstream: Upstream) -> None:
    look = f"GET {upstream.url}/"
    with serving() as (process, url):
        assert through(url, look) == ["200 "]
        # whose calls they are is said by the person, not by what happens to be in the environment
        stopped = borderpost("halt", "--reason", "Refunds went wrong", BORDERPOST_AGENT="nobody")
        assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "borderpost: stopped all calls\n")
        assert through(url, look, look) == ["403", "403"]
        user = os_user()
        assert said(process) == f"{user} has stopped all calls: Refunds went wrong"
        assert re.search(f"^halted   all calls, by {user} at 20.*: Refunds went wrong$", asked("status"), re.MULTILINE)
        assert json.loads(asked("status", "--json"))["ledger"]["halts"][0]["calls"] == "all calls"
        evaluated = borderpost("rules", "eval", look)
        assert evaluated.returncode == 0, "that is what the rules say"
        assert f"{user} has stopped all calls, so this one is refused for now: Refunds went wrong" in evaluated.stderr
        lifted = borderpost("resume")
        assert (lifted.returncode, lifted.stderr) == (0, "borderpost: all calls may go on\n")
        assert through(url, look) == ["200 "]
        assert len(re.findall("  halted$", asked("log"), re.MULTILINE)) == 2
        assert re.search("^halted ", asked("status"), re.MULTILINE) is None
    assert upstream.seen == ["GET /", "GET /"]
    assert borderpost("halt", "--reason", "x").stderr == "borderpost: stopped all calls\n", "said once without a proxy"
    assert borderpost("resume").stderr == "borderpost: all calls may go on\n"
    stopped = borderpost("halt", "--agent", "shop", "--reason", "No.", "--json")
    told = {"calls": "calls of agent `shop`", "agent": "shop", "tool": ""}
    assert json.loads(stopped.stdout) == told | {"tools": []}
    assert json.loads(borderpost("resume", "--agent", "shop", "--json").stdout) == told | {"reason": "No."}
    again = borderpost("resume", "--agent", "x")
    assert (again.returncode, again.stderr) == (3, "error: there is no such halt: nothing is stopped\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["halt"], "Missing option '--reason'"),
        (["halt", "--agent", "", "--reason", "x"], "`--agent` is empty: leave it out if you mean all"),
        (["resume", "--tool", ""], "`--tool` is empty: leave it out if you mean all"),
        (["--agent", "", "resume"], "`--agent` is empty: leave it out if you mean all"),
    ],
)
def test_what_is_stopped_has_to_be_said(given: list[str], said: str) -> None:
    done = CliRunner().invoke(cli.cli, given)
    assert done.exit_code == 2
    assert said in done.stderr


def test_a_tool_that_is_in_no_rules_is_told(upstream: Upstream) -> None:
    with serving():
        done = borderpost("--agent", "shop", "halt", "--tool", "bank.*", "--reason", "x")
        assert done.stderr == (
            "borderpost: stopped calls of agent `shop` to `bank.*`\n"
            "borderpost: but no tool of the rules in force is called so: `borderpost rules list --tools` shows their "
            "names\n"
        )


def test_a_ledger_has_one_owner(upstream: Upstream) -> None:
    with serving() as (process, _):
        done = borderpost("serve", "--listen", "127.0.0.1:0")
        assert done.returncode == 3
        assert f"is in use by process {process.pid} (`borderpost serve`): its agents are pointed at it" in done.stderr
        assert "Traceback" not in done.stderr
    beside = borderpost("run", "--", sys.executable, "-m", "cli", "run", "true")
    assert beside.returncode == 3
    assert (
        "(`borderpost run`): start `borderpost serve` once, in another terminal or as a service, and" in beside.stderr
    )


def test_a_port_that_is_taken_is_one_line(upstream: Upstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = borderpost("serve", "--listen", address)
    assert done.returncode == 3
    assert done.stderr == f"error: `{address}` is in use: choose another address with `--listen HOST:PORT`\n"


@pytest.mark.parametrize("command", [["run", "true"], ["serve"]])
def test_broken_rules_refuse_to_start(command: list[str], upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text("version: 1\nrulez: []\n")
    done = borderpost(*command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error[unknown-key]: ")
    assert done.stderr.endswith("error: the rules cannot be used: 1 problem\n")
    assert not (tmp_path / "ledger.db").exists()
