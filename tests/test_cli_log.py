"""`log`, `status` and `env` on the command line, over a real ledger with a morning's calls."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cli
from proxy.ledger.entries import (
    BootEntry,
    CommandEntry,
    DecisionEntry,
    OutcomeEntry,
    PruneEntry,
    RulesetEntry,
)
from proxy.ledger.query import LedgerReader
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.report.calls import tail_calls
from proxy.report.events import TOLD
from proxy.report.terminal import WIDE
from rules.decision import Violation

HOUSE = Path(__file__).parents[1]
MINUTE_NS = 60 * 10**9
START_NS = time.time_ns() // (24 * 60 * MINUTE_NS) * (24 * 60 * MINUTE_NS)
"""Midnight of today in UTC, so that the tables show no dates."""

TODAY = datetime.fromtimestamp(START_NS / 1e9, UTC).date().isoformat()

DIGEST = "d1" * 32
RUN, OTHER_RUN = "r_01aaaaaaaaaaaaaaaaaaaaaaaa", "r_01bbbbbbbbbbbbbbbbbbbbbbbb"


def decided(number: int, minute: int, request: str, action: Any, **more: Any) -> DecisionEntry:
    """The `number`-th call, decided so many minutes after midnight."""
    method, _, rest = request.partition(" ")
    host, _, path = rest.partition("/")
    usual: dict[str, Any] = {
        "run": RUN, "agent": "shop", "tool": "", "scheme": "https", "port": 443, "code": "", "detail": "", "rules": (),
        "executed": "no", "status": 0, "ruleset": DIGEST,
    }  # fmt: skip
    return DecisionEntry(
        **{
            **usual,
            "at_ns": START_NS + minute * MINUTE_NS,
            "id": f"c_{number:026}",
            "method": method,
            "host": host,
            "path": f"/{path}",
            "action": action,
            **more,
        }
    )


def answered(number: int, minute: int, outcome: Any, status: int, **more: Any) -> OutcomeEntry:
    at_ns = START_NS + minute * MINUTE_NS + 45_000_000
    return OutcomeEntry(
        at_ns=at_ns, id=f"c_{number:026}", outcome=outcome, status=status, duration_ns=45_000_000, **more
    )


ENTRIES = (
    BootEntry(START_NS, "b_1", "serve", 4711, "127.0.0.1:4711", {}),
    RulesetEntry(START_NS, DIGEST, ("rules/main.yaml",), 3, 40, "enforce"),
    decided(1, 1, "POST api.stripe.com/v1/refunds", "allow", rules=("small-refunds",), tool="stripe.refund.create"),
    answered(1, 1, "done", 200, answer_bytes=512),
    decided(
        2, 2, "POST api.stripe.com/v1/refunds", "replay", code="replay", rules=("small-refunds",), status=200,
        tool="stripe.refund.create", executed="yes", replay_of=f"c_{1:026}", facts={"body.amount": 500},
        detail="The same call was already executed.",
    ),
    decided(
        3, 3, "DELETE api.stripe.com/v1/customers/cus_1/sources/card_1/something/long", "deny", code="policy-denied",
        rules=("no-deletes",), status=403, detail="Deleting is not permitted.",
        violations=(Violation("no-deletes", "policy-denied", "Deleting is not permitted."),),
    ),
    decided(4, 4, "GET unknown.example/", "deny", code="no-allow", status=403, detail="No rule allows this call."),
    decided(
        5, 5, "GET api.stripe.com/v1/charges/ch_1", "allow", rules=("look",), tool="stripe.charge.read",
        would=(Violation("trial", "policy-denied", "Not yet."),), run=OTHER_RUN,
    ),
    answered(5, 5, "unknown", 0, error="the upstream closed the connection\x1b[2J"),
    RulesetEntry(START_NS + 6 * MINUTE_NS, DIGEST, ("rules/main.yaml",), 3, 40, "enforce", "main.yaml:4:1: broken"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BORDERPOST_CONFDIR", str(tmp_path / "confdir"))
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
    for entry in ENTRIES:
        ledger.append(entry)
    ledger.close()
    yield
    monkeypatch.undo()
    time.tzset()


def borderpost(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost")
    assert result.exit_code == 0, result.output
    return result


def numbers(*arguments: str) -> list[int]:
    """Which calls `log list` gives, by their number."""
    return [int(call["id"][2:]) for call in json.loads(borderpost(*arguments, "--json").stdout)]


# --- events ---

OUTAGE: dict[str, Any] = {
    "calls": 12, "first_ns": START_NS, "last_ns": START_NS + MINUTE_NS, "agent": "shop", "run": RUN, "tool": "",
    "method": "GET", "scheme": "https", "host": "api.stripe.com", "rules": ["look"],
}  # fmt: skip
COMMANDED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("halt", {"agent": "", "tool": "stripe.*", "reason": "No refunds today."}),
    ("resume", {"agent": "", "tool": "stripe.*"}),
    ("approval", {"card": "a_1", "allowed": False, "note": "refunded by hand", "own_user": True}),
    ("resolve", {"call": "c_5", "executed": True, "note": "it is in the list"}),
    ("join", {"run": "r_1", "agent": "mail", "hash": "ab", "pid": 7}),
    ("leave", {"run": "r_1", "agent": "mail", "hash": "ab", "why": "its command has ended"}),
    ("unrecorded", OUTAGE),
    ("unrecorded", dict.fromkeys(OUTAGE, "") | {"calls": 1, "first_ns": 1, "last_ns": 2, "rules": []}),
    ("recover", {"problem": "the disk was full"}),
    ("clock", {"from_ns": START_NS + 9 * MINUTE_NS, "note": "set wrongly"}),
    ("shutdown", {}),
)


def command() -> None:
    """Put the commands on record, and what is recorded now and then."""
    ledger = Ledger.open(Path(os.environ["BORDERPOST_LEDGER"]), Vault(bytes(32), bytes(32)), owner="borderpost serve")
    for name, data in COMMANDED:
        ledger.append(CommandEntry(START_NS + 7 * MINUTE_NS, name, "ada", data))
    ledger.append(PruneEntry(START_NS + 8 * MINUTE_NS, 5, 0, "rules (keep)"))
    ledger.close()


EVENTS = f"""\
gave up what was read of the calls up to entry 5
the proxy stopped
this computer's clock is right, and was not until {TODAY} 00:09:00 +0000: set wrongly
the ledger could be written again, after: the disk was full
1 call went out without a record, of many kinds; from 1970-01-01 00:00:00 +0000 to 1970-01-01 00:00:00 +0000
12 calls of agent shop went out without a record: GET api.stripe.com, as look lets them; from {TODAY} 00:00:00 +0000 \
to {TODAY} 00:01:00 +0000
run r_1 of agent mail ended: its command has ended
run r_1 of agent mail joined, process 7
c_5 was executed: it is in the list
refused a_1: refunded by hand
let calls to `stripe.*` go on
stopped calls to `stripe.*`: No refunds today.
the rules in force were kept, for the changed ones cannot be used: main.yaml:4:1: broken
3 rules in force, from rules/main.yaml
`borderpost serve` began, process 4711, on 127.0.0.1:4711
"""


def test_what_is_on_record_besides_calls_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    command()
    head, *lines = borderpost("log", "events").stdout.splitlines()
    assert head.split() == ["SEQ", "TIME", "BY", "EVENT", "WHAT"]
    assert [line[head.index("WHAT") :] for line in lines] == EVENTS.splitlines()
    told = json.loads(borderpost("log", "events", "--json").stdout)
    assert [event["event"] for event in told[1:-3]] == [name for name, _ in COMMANDED][::-1]
    assert told[-4] == {
        "seq": 11, "at": f"{TODAY}T00:07:00.000Z", "event": "halt", "by": "ada", "data": COMMANDED[0][1],
    }  # fmt: skip
    assert [event["event"] for event in told[-3:]] == ["ruleset", "ruleset", "boot"]
    assert {event["event"] for event in told} == set(TOLD)


def test_events_are_chosen_by_time_and_number() -> None:
    command()
    assert len(borderpost("log", "events", "-n", "2").stdout.splitlines()) == 3
    since = json.loads(borderpost("log", "events", "--since", f"{TODAY}T00:08", "--json").stdout)
    assert [event["event"] for event in since] == ["prune"]
    until = json.loads(borderpost("log", "events", "--until", f"{TODAY}T00:06", "--json").stdout)
    assert [event["event"] for event in until] == ["ruleset", "boot"]
    assert borderpost("log", "events", "--until", "2020-01-01").stderr == "borderpost: nothing fits\n"


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["list"], 13),
        (["list", "-n", "1"], 13),  # they were told after that one
        (["list", "--agent", "shop"], 12),
        (["list", "--run", OTHER_RUN], 0),
        (["list", "--decision", "allow"], 13),
        (["list", "--decision", "deny"], 0),
        (["list", "--rule", "look"], 0),
        (["list", "--until", "2020-01-01"], 0),
        (["list", "--host", "api.stripe.com", "--json"], 12),
        (["stats", "--agent", "shop"], 12),
        (["stats"], 13),
    ],
)
def test_calls_that_went_out_without_a_record_are_told_of(arguments: list[str], calls: int) -> None:
    assert "without a record" not in borderpost("log", *arguments).stderr
    command()
    said = f"borderpost: {calls} calls went out without a record: `borderpost log events` tells of them\n"
    assert (said in borderpost("log", *arguments).stderr) == (calls > 0)


def test_where_only_such_calls_fit_it_is_not_said_that_none_do() -> None:
    command()
    listed = borderpost("log", "--since", f"{TODAY}T00:06:30")
    assert (listed.stdout, listed.stderr.count("\n")) == ("", 1)


# --- list ---

TABLE = """\
SEQ  TIME      DECISION   STATUS  CALL                           RULES
  8  00:05:00  allow     unknown  GET api.stripe.com/v1/charge…  trial (monitor)
  7  00:04:00  deny          403  GET unknown.example/           no-allow
  6  00:03:00  deny          403  DELETE api.stripe.com/v1/cus…  no-deletes
  5  00:02:00  replay        200  POST api.stripe.com/v1/refun…  small-refunds
  3  00:01:00  allow         200  POST api.stripe.com/v1/refun…  small-refunds
"""


def test_the_list_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert borderpost("log", "list").stdout == TABLE
    assert borderpost("log").stdout == TABLE
    assert max(map(len, TABLE.splitlines())) == 80


def test_a_pipe_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "DELETE api.stripe.com/v1/customers/cus_1/sources/card_1/something/long" in borderpost("log").stdout


def test_json_has_the_documented_fields() -> None:
    first = json.loads(borderpost("log", "--json").stdout)[-1]
    assert list(first) == [
        "id", "seq", "at", "run", "agent", "tool", "method", "scheme", "host", "port", "path", "decision", "code",
        "rules", "would", "executed", "outcome", "status", "duration_ms", "ruleset",
    ]  # fmt: skip
    assert (first["decision"], first["executed"], first["outcome"], first["duration_ms"]) == (
        "allow",
        "yes",
        "done",
        45.0,
    )


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("-n 2", [5, 4]),
        ("--decision deny", [4, 3]),
        ("--tool stripe.refund.create", [2, 1]),
        ("--rule no-deletes", [3]),
        ("--rule trial", [5]),
        ("--host unknown.example", [4]),
        ("--status 403", [4, 3]),
        ("--agent shop --decision replay", [2]),
        ("--agent nobody", []),
        (f"--run {RUN}", [4, 3, 2, 1]),
        ("--run r_01b", [5]),
        ("--run r_02", []),
        ("--since 3000-01-01", []),
        ("--until 2020-01-01", []),
        ("--since {day}T00:04 --until {day}T00:05", [4]),
    ],
)
def test_filters(arguments: str, calls: list[int]) -> None:
    day = time.strftime("%Y-%m-%d", time.gmtime(START_NS // 10**9))
    assert numbers("log", *arguments.format(day=day).split()) == calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "--ledger", "ledger.db", "show", "6"], ["log", "show", "6", "--json"]),
        (["--rule=look", "stats"], ["log", "stats", "--rule", "look"]),
        (["--rule", "stats"], ["log", "list", "--rule", "stats"]),
    ],
)
def test_options_may_stand_before_the_command(arguments: list[str], words: list[str]) -> None:
    assert borderpost("log", *arguments).output == borderpost(*words).output


def test_options_of_the_program_filter_when_typed_but_not_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert numbers("--run", OTHER_RUN, "log") == [5]
    monkeypatch.setenv("BORDERPOST_RUN", OTHER_RUN)
    assert numbers("log") == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("arguments", [[], ["stats"]])
def test_nothing_fits_is_no_error(arguments: list[str]) -> None:
    result = borderpost("log", *arguments, "--agent", "nobody")
    assert (result.stdout, result.stderr) == ("", "borderpost: no calls fit\n")


@pytest.mark.parametrize("command", ["list", "stats"])
def test_a_beginning_of_several_runs_is_one_line(command: str) -> None:
    result = CliRunner().invoke(cli.cli, ["log", command, "--run", "r_01"])
    told = f"error: `r_01` is not unique (`{RUN}`, `{OTHER_RUN}`...): give more of the run's id\n"
    assert (result.exit_code, result.stderr) == (3, told)


# --- show ---


@pytest.mark.parametrize("name", ["5", f"c_{2:026}"])
def test_one_call_is_shown_by_number_or_id(name: str) -> None:
    lines = borderpost("log", "show", name).stdout.splitlines()
    assert lines[0] == "POST https://api.stripe.com/v1/refunds"
    shown = dict(line.strip().split("  ", 1) for line in lines[1:] if "  " in line.strip())
    told = {name: value.strip() for name, value in shown.items()}
    assert told | {
        "decision": "replay (replay)", "why": "The same call was already executed.", "rules": "small-refunds",
        "executed": "yes", "tool": "stripe.refund.create", "agent": "shop", "run": RUN, "answered": "status 200",
        "repeats": f"c_{1:026}", "id": f"c_{2:026}, entry 5", "body.amount": "500",
    } == told  # fmt: skip


def test_what_upstreams_say_cannot_move_the_cursor() -> None:
    shown = borderpost("log", "show", "8").stdout
    assert "unknown · after 45 ms · the upstream closed the connection" in shown
    assert "trial: Not yet." in shown
    assert "\x1b" not in shown


def test_show_has_everything_as_json() -> None:
    told = json.loads(borderpost("log", "show", "6", "--json").stdout)
    assert told["call"]["decision"] == "deny"
    assert told["violations"][0]["rule"] == "no-deletes"


@pytest.mark.parametrize(("name", "message"), [("c_9", "no call `c_9` is on record"), ("c_0", "`c_0` is not unique")])
def test_a_call_that_cannot_be_told_is_one_line(name: str, message: str) -> None:
    result = CliRunner().invoke(cli.cli, ["log", "show", name])
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: {message}")


# --- stats ---


def test_stats_count_by_decision_tool_and_rule() -> None:
    assert borderpost("log", "stats").stdout == (
        "DECISION  CALLS  UNKNOWN    P50    P95\n"
        "allow         2        1  45 ms  45 ms\n"
        "deny          2        0      -      -\n"
        "replay        1        0      -      -\n"
        "\n"
        "TOOL                  CALLS  ALLOW  DENY  REPLAY  UNKNOWN    P50    P95\n"
        "(none)                    2      0     2       0        0      -      -\n"
        "stripe.refund.create      2      1     0       1        0  45 ms  45 ms\n"
        "stripe.charge.read        1      1     0       0        1  45 ms  45 ms\n"
        "\n"
        "RULE           CALLS  ALLOW  DENY  REPLAY  UNKNOWN    P50    P95\n"
        "small-refunds      2      1     0       1        0  45 ms  45 ms\n"
        "look               1      1     0       0        1  45 ms  45 ms\n"
        "no-deletes         1      0     1       0        0      -      -\n"
    )


def test_stats_by_what_is_asked() -> None:
    told = json.loads(borderpost("log", "stats", "--by", "agent", "--run", "r_01a", "--json").stdout)
    assert [(row["key"], row["calls"], row["denied"]) for row in told["agent"]] == [("shop", 4, 2)]


# --- tail ---


def test_tail_is_cut_to_fit_a_terminal_only() -> None:
    with LedgerReader.open(Path("ledger.db")) as reader:
        deny = reader.list(limit=3)[2]
    path = "DELETE api.stripe.com/v1/customers/cus_1/sources/card_1/something/long"
    (line,) = tail_calls([deny], 80, False)
    assert (len(line), "…" in line, line.endswith(" no-deletes")) == (80, True, True)
    assert tail_calls([deny], WIDE, False) == [f"00:03:00  deny             403  {path}  no-deletes"]


def test_tail_begins_with_the_last_and_follows(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    command = [sys.executable, "-m", "cli", "log", "tail", "-n", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["seq"] == 8
        ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
        ledger.append(decided(6, 9, "GET unknown.example/", "deny", code="no-allow", status=403))
        ledger.close()
        assert json.loads(tail.stdout.readline())["id"] == f"c_{6:026}"
        tail.send_signal(signal.SIGINT)
        assert tail.wait(30) == 130


def test_a_failure_behind_a_200_is_shown_everywhere(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
    ledger.append(decided(6, 9, "POST slack.com/api/chat.postMessage", "allow", rules=("say",), tool="say"))
    failed: Any = {"expected": "failed", "shown_as": 422, "error": "not as expected: body.ok eq true"}
    ledger.append(answered(6, 9, "not_executed", 200, **failed))
    ledger.close()
    assert "200 failed" in borderpost("log", "list").stdout
    assert json.loads(borderpost("log", "--json").stdout)[0]["expected"] == "failed"
    shown = borderpost("log", "show", "c_00000000000000000000000006").stdout
    assert "not executed · status 200 · failed · shown to the agent as 422" in shown
    assert "not as expected: body.ok eq true" in shown
    groups = json.loads(borderpost("log", "stats", "--by", "tool", "--json").stdout)["tool"]
    assert [(row["key"], row["failed"]) for row in groups if row["failed"]] == [("say", 1)]
    assert "FAILED" in borderpost("log", "stats", "--by", "tool").stdout


# --- status, env ---


def test_status_of_a_ledger_that_nobody_owns() -> None:
    lines = borderpost("status").stdout.splitlines()
    assert lines[0] == "proxy    not running"
    assert "rules    3 rules, 40 tools from rules/main.yaml" in lines
    assert any(
        line.startswith("problem  reload failed at ") and line.endswith("main.yaml:4:1: broken") for line in lines
    )
    assert "calls    5 on record · 2 allowed · 1 replayed · 2 blocked" in lines
    assert "         1 no-allow · 1 policy-denied · 1 replay" in lines
    told = json.loads(borderpost("status", "--json").stdout)
    assert (told["running"], told["pid"], told["listen"], told["ledger"]["entries"]) == (False, None, "", 10)
    assert told["ledger"]["codes"] == {"no-allow": 1, "policy-denied": 1, "replay": 1}


def test_status_of_a_ledger_that_is_owned(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
    try:
        expected = f"proxy    running: borderpost serve, process {os.getpid()}, listening on 127.0.0.1:4711"
        assert borderpost("status").stdout.splitlines()[0] == expected
        told = json.loads(borderpost("status", "--json").stdout)
        assert (told["running"], told["pid"], told["listen"]) == (True, os.getpid(), "127.0.0.1:4711")
        assert "export HTTPS_PROXY=http://127.0.0.1:4711\n" in borderpost("env").stdout
    finally:
        ledger.close()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (0.5, None),
        (0.97, "         nothing is left to give up for room: raise `max_size`, or begin a new ledger"),
        (1.0, "         it is full, and calls are refused: raise `max_size`, or begin a new ledger"),
    ],
)
def test_status_tells_how_much_room_is_left(tmp_path: Path, part: float, said: str | None) -> None:
    used_bytes = json.loads(borderpost("status", "--json").stdout)["ledger"]["used_bytes"]
    max_bytes, keep_ns = int(used_bytes / part), 90 * 86_400_000_000_000
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
    ledger.append(RulesetEntry(time.time_ns(), DIGEST, ("a.yaml",), 1, 1, "enforce", "", max_bytes, keep_ns))
    ledger.close()
    lines = borderpost("status").stdout.splitlines()
    (told,) = [line for line in lines if line.startswith("ledger   ")]
    assert re.search(r"ledger\.db: [0-9.]+ KiB of at most [0-9.]+ KiB, 1[0-9] entries$", told)
    assert [line for line in lines if "raise `max_size`" in line] == ([said] if said else [])
    assert "         what calls were decided by is kept for 90 d" in lines


def test_status_before_anything_was_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "none.db"))
    assert f"ledger   {tmp_path}/none.db: nothing recorded yet" in borderpost("status").stdout


@pytest.mark.parametrize(
    ("arguments", "shell", "language"), [([], "sh", "sh"), (["--shell", "sh"], "bash", "sh")], ids=["sh", "bash"]
)
def test_a_shell_takes_what_env_prints(arguments: list[str], shell: str, language: str, tmp_path: Path) -> None:
    (tmp_path / "con f'dir").mkdir(mode=0o700)
    printed = borderpost("env", "--confdir", "con f'dir", "--listen", "127.0.0.1:99", *arguments)
    assert "no proxy is running" in printed.stderr
    script = f'{printed.stdout}\nprintf "%s\\n" "$HTTPS_PROXY" "${{ALL_PROXY-unset}}" "$SSL_CERT_FILE"'
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"ALL_PROXY": "x"}
    )
    url, unset, bundle = done.stdout.splitlines()
    assert (url, unset) == ("http://127.0.0.1:99", "unset")
    assert "BEGIN CERTIFICATE" in Path(bundle).read_text()


def test_env_takes_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORDERPOST_TOKEN", "bp_x")
    told = json.loads(borderpost("env", "--agent", "support", "--listen", "proxy.example:80", "--json").stdout)
    assert told["set"]["HTTPS_PROXY"] == "http://support:bp_x@proxy.example:80"
    assert "ALL_PROXY" in told["unset"]
    nobody = CliRunner().invoke(cli.cli, ["env"])
    assert (nobody.exit_code, nobody.stdout) == (2, "")
    assert "say with `--agent NAME` whose token it is" in nobody.stderr


@pytest.mark.parametrize(("listen", "reached"), [("0.0.0.0:99", "127.0.0.1:99"), ("[::]:99", "[::1]:99")])
def test_env_reaches_a_proxy_on_all_addresses_and_asks_for_its_token(listen: str, reached: str) -> None:
    printed = borderpost("env", "--listen", listen)
    assert f"http://{reached}" in printed.stdout
    assert "this proxy wants a token: set BORDERPOST_TOKEN" in printed.stderr


def test_env_passes_over_the_proxy_of_a_run(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost run")
    try:
        printed = borderpost("env")
        assert "export HTTPS_PROXY=http://127.0.0.1:8080\n" in printed.stdout
        assert "no proxy is running" in printed.stderr
    finally:
        ledger.close()
