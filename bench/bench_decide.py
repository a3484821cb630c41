"""The decision path without I/O: from a decoded call to its decision, and from bytes to a decoded call.

The time of a decision should not depend on how many rules there are; decoding is counted per KB of body.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial

import msgspec

from proxy.wire.request import Head, read_body, read_head
from rules import decide
from rules.call import NO_BODY, Body, Call
from rules.decision import Answer
from rules.load import Source, load
from rules.ruleset import RuleSet
from rules.state import State

CALLS = 1000
STEP_NS = 10_000_000
"""The decisions' own clock goes on by this with each call: 100 calls a second, below the throttle."""


class DecideTime(msgspec.Struct, frozen=True):
    """How long a decision takes with `rules` rules of these verbs, and folding its changes: medians over the rounds."""

    rules: int
    verbs: str
    decide_us: float
    apply_us: float


class DecodeTime(msgspec.Struct, frozen=True):
    """How long decoding takes: the head, and a body of `body_bytes`."""

    what: str
    body_bytes: int
    us: float
    us_per_kb: float


ALL = (
    "allow: true, dedupe: 1h, throttle: 500/s, concurrency: 100, loop: true, breaker: true, "
    "budget: {sum: body.amount, max: 100000000, per: 24h}, require: {after: read, within: 30m}"
)
"""Every guard but `approve`, after which nothing is left to decide."""

VERBS = ("allow: true", "allow: true, throttle: 500/s", "allow: true, throttle: 500/s, dedupe: 1h", ALL)


def rule_set(count: int, verbs: str) -> RuleSet:
    """`count` tools with a rule each: every one has `verbs`, within a bound."""
    lines = ["version: 1", "tools:", "  read: GET https://api.example.com/v1/things"]
    lines += [f"  t{n}: POST https://api.example.com/v1/things-{n}/{{id}}/acts" for n in range(count)]
    lines += ["rules:"]
    lines += [f"  - {{id: r{n}, tool: t{n}, where: {{body.amount: {{lte: 5000}}}}, {verbs}}}" for n in range(count)]
    lines += ["  - {id: read, tool: read, allow: true}"]
    lines += ["  - {id: no-deletes, match: 'DELETE https://**', deny: Deleting is not permitted.}"]
    return load([Source("bench.yaml", "\n".join(lines) + "\n")], {}).ruleset


def calls(count: int, rules: int) -> Iterator[Call]:
    """Different calls, each a write that rule set `rule_set(rules, ...)` allows."""
    for number in range(count):
        path = f"/v1/things-{rules // 2}/id{number}/acts"
        yield Call(
            agent="bench",
            run="r",
            method="POST",
            scheme="https",
            host="api.example.com",
            port=443,
            path=path,
            segments=tuple(path.split("/")[1:]),
            headers=(("host", "api.example.com"), ("content-type", "application/json"), ("content-length", "60")),
            body=Body(
                "json",
                "application/json",
                json={"amount": 4200, "charge": f"ch_{number}", "rate": Decimal("1.5"), "tags": ["a", "b"]},
                sha256=b"\0" * 32,
                size_bytes=60,
            ),
            credential="c" * 32,
        )


def decide_time(count: int, verbs: str, rounds: int) -> DecideTime:
    ruleset = rule_set(count, verbs)
    made = list(calls(CALLS, count))
    decide_us, apply_us = [], []
    for _ in range(rounds):
        state = State()
        now_ns = 1_700_000_000_000_000_000
        deciding_ns = applying_ns = 0
        _have_read(ruleset, state, made[0], now_ns)
        for number, call in enumerate(made):
            now_ns += STEP_NS
            began_ns = time.perf_counter_ns()
            decision = decide.decide(ruleset, state, call, f"c_{number}", now_ns)
            decided_ns = time.perf_counter_ns()
            decide.apply(state, decision.changes)
            applying_ns += time.perf_counter_ns() - decided_ns
            deciding_ns += decided_ns - began_ns
            assert decision.action == "allow", decision
            answer = Answer(200, complete=True, sent=True, stored=True, digest=f"{number}")
            decide.apply(state, decide.settle(ruleset, state, call, decision, f"c_{number}", answer, now_ns).changes)
        decide_us.append(deciding_ns / 1000 / CALLS)
        apply_us.append(applying_ns / 1000 / CALLS)
    return DecideTime(count, verbs, statistics.median(decide_us), statistics.median(apply_us))


def _have_read(ruleset: RuleSet, state: State, call: Call, now_ns: int) -> None:
    """What `require` asks for: the same run has read the things."""
    path = "/v1/things"
    read = msgspec.structs.replace(call, method="GET", path=path, segments=tuple(path.split("/")[1:]), body=NO_BODY)
    decision = decide.decide(ruleset, state, read, "c_read", now_ns)
    decide.apply(state, decision.changes)
    answer = Answer(200, complete=True, sent=True, digest="read")
    decide.apply(state, decide.settle(ruleset, state, read, decision, "c_read", answer, now_ns).changes)


def decode_times(rounds: int) -> Iterator[DecodeTime]:
    """The head alone, then JSON and form bodies of three sizes."""
    head = _head("application/json", 200)
    yield _decode_time("head", 0, rounds, partial(read_head, head, "bench", "r", bytes.hex))
    for count in (4, 50, 600):
        things = [{"id": n, "name": f"thing {n}", "price": 12.5, "tags": ["a", "b"]} for n in range(count)]
        yield _body_time("json", "application/json", json.dumps(things).encode(), rounds)
    for count in (5, 60, 700):
        pairs = "&".join(f"item[{n}][name]=thing+{n}" for n in range(count))
        yield _body_time("form", "application/x-www-form-urlencoded", pairs.encode(), rounds)


def _body_time(what: str, media_type: str, raw: bytes, rounds: int) -> DecodeTime:
    call = read_head(_head(media_type, len(raw)), "bench", "r", bytes.hex)
    return _decode_time(what, len(raw), rounds, partial(read_body, call, raw))


def _head(media_type: str, body_bytes: int) -> Head:
    return Head(
        method=b"POST",
        scheme="https",
        host="api.example.com",
        port=443,
        target=b"/v1/things/17/acts?dry=false",
        authority=b"",
        http_version="HTTP/1.1",
        headers=(
            (b"Host", b"api.example.com"),
            (b"User-Agent", b"bench/1.0"),
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"gzip, deflate"),
            (b"Authorization", b"Bearer sk_test_123"),
            (b"Content-Type", media_type.encode()),
            (b"Content-Length", str(body_bytes).encode()),
        ),
        sni="api.example.com",
    )


def _decode_time(what: str, body_bytes: int, rounds: int, act: Callable[[], object]) -> DecodeTime:
    times = max(20, 200_000 // (body_bytes + 1000))
    took = []
    for _ in range(rounds):
        began_ns = time.perf_counter_ns()
        for _ in range(times):
            act()
        took.append((time.perf_counter_ns() - began_ns) / 1000 / times)
    us = statistics.median(took)
    return DecodeTime(what, body_bytes, us, us / body_bytes * 1024 if body_bytes else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (%(default)s)")
    parser.add_argument("--rules", type=int, nargs="+", default=[10, 100, 1000, 10_000], help="how many rules")
    args = parser.parse_args()
    decided = [decide_time(count, verbs, args.rounds) for verbs in VERBS for count in args.rules]
    decoded = list(decode_times(args.rounds))
    if args.json:
        print(msgspec.json.encode({"decide": decided, "decode": decoded}).decode())
        return
    for one in decided:
        print(f"decide {one.decide_us:6.1f} us, fold {one.apply_us:4.1f} us: {one.rules:>6} rules with {one.verbs}")
    for decode in decoded:
        per_kb = f" {decode.us_per_kb:7.1f} us/KB" if decode.body_bytes else ""
        print(f"decode {decode.what:<5}{decode.body_bytes:>7} bytes: {decode.us:8.1f} us{per_kb}")


if __name__ == "__main__":
    main()
