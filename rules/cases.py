"""Embedded tests: calls in a rule file, and what is expected to be decided for them.

    - name: a second refund of the same charge is replayed
      earlier: [{agent: support, request: POST https://api.stripe.com/v1/refunds, form: {charge: ch_1}}]
      call: {agent: support, request: POST https://api.stripe.com/v1/refunds, form: {charge: ch_1}, at: +59s}
      expect: {decision: replay, rule: small-refunds}

`calls:` instead of `call:` is a sequence in which each call may have its own `expect`. Calls happen one after another,
from an empty state on. Each that is let out is answered as `answer` says: a status (200), `{status: 200, json: ...}`,
or `lost` when none came; at once, or when `ends` says. `approval: allow` (or `refuse`) is what a person says when the
call is held.
"""

from __future__ import annotations

import re
from bisect import insort
from calendar import timegm
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from rules.call import NO_BODY, Body, Call, Json, Part
from rules.canonical import canonical_json
from rules.codes import CODES
from rules.decide import apply, decide, replayed, said, settle
from rules.decision import Answer, Decision
from rules.guards.reading import read_map
from rules.needs import needs
from rules.pattern import PORTS
from rules.problems import Mark
from rules.ruleset import RuleSet
from rules.state import State
from rules.suggest import listing, suggest
from rules.units import SECOND_NS, parse_duration
from rules.yamltree import Node

START_NS = timegm((2026, 1, 5, 12, 0, 0)) * SECOND_NS
"""When a case begins unless its first call says `at`: a Monday noon, UTC."""

DECISIONS = ("allow", "deny", "throttle", "replay", "hold")
APPROVALS = ("allow", "refuse")
EXECUTED = ("no", "yes", "unknown")
WIRE_KEYS = ("headers", "query", "json", "form", "multipart", "text")
CALL_KEYS = ("request", "agent", "run", *WIRE_KEYS, "at", "answer", "ends", "approval")
EXPECT_KEYS = ("decision", "code", "rule", "tool", "executed", "would")


class Expect(msgspec.Struct, frozen=True):
    """What is expected; None where it does not matter. `rule` is one of those that determined the decision."""

    decision: str | None = None
    code: str | None = None
    rule: str | None = None
    tool: str | None = None
    executed: str | None = None
    would: str | None = None


class Step(msgspec.Struct, frozen=True):
    """One call of a case, when it happens, what answers it, and what is expected.

    `end_ns`: when it is answered; the calls that happen before find it on its way. `approval`: what a person says when
    it is held, `allow` or `refuse`; empty: nothing.
    """

    call: Call
    at_ns: int
    answer: Answer
    expect: Expect | None
    end_ns: int
    approval: str = ""


class Case(msgspec.Struct, frozen=True):
    """A test in a rule file, and where it stands."""

    name: str
    steps: tuple[Step, ...]
    mark: Mark


class Mismatch(msgspec.Struct, frozen=True):
    """At the `step`-th call (from 1), `what` was expected to be `expected` and was `actual`."""

    step: int
    what: str
    expected: str
    actual: str


class CaseResult(msgspec.Struct, frozen=True):
    """What came of a case: the decision on each of its calls, and everything that was not as expected."""

    name: str
    decisions: tuple[Decision, ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def passed(self) -> bool:
        return not self.mismatches


class Played(msgspec.Struct, frozen=True):
    """A call of a case that was decided: the state that it found, which its own changes are not in yet."""

    state: State
    call: Call
    at_ns: int
    decision: Decision


def play(ruleset: RuleSet, case: Case) -> Iterator[Played]:
    """Decide the calls of `case` one after another under `ruleset`, from an empty state on."""
    state = State()
    out: list[tuple[int, int, Step, Call, Decision]] = []
    given: dict[str, Answer] = {}

    def end(until_ns: int) -> None:
        """Settle the calls that have been answered by `until_ns`, in the order of their answers."""
        while out and out[0][0] <= until_ns:
            end_ns, number, step, call, decision = out.pop(0)
            given[f"call-{number}"] = step.answer
            apply(state, settle(ruleset, state, call, decision, f"call-{number}", step.answer, end_ns).changes)

    for number, step in enumerate(case.steps, 1):
        end(step.at_ns)
        call = with_credential(ruleset, step.call)
        decision = decide(ruleset, state, call, f"call-{number}", step.at_ns)
        if decision.action == "replay":
            answer = given[decision.replay_of]
            decision = replayed(ruleset, state, call, decision, f"call-{number}", answer, step.at_ns)
        yield Played(state, call, step.at_ns, decision)
        apply(state, decision.changes)
        if decision.action == "allow":
            insort(out, (step.end_ns, number, step, call, decision), key=lambda each: each[:2])
        if step.approval and decision.action == "hold":
            apply(state, said(state, decision.ticket, step.approval == "allow", "it is so tested", step.at_ns))


def run_case(ruleset: RuleSet, case: Case) -> CaseResult:
    """What comes of `case` under `ruleset`."""
    decisions = tuple(played.decision for played in play(ruleset, case))
    mismatches: list[Mismatch] = []
    for number, (step, decision) in enumerate(zip(case.steps, decisions, strict=True), 1):
        if step.approval and decision.action != "hold":
            mismatches.append(Mismatch(number, "decision", "hold", decision.action))
        if step.expect is not None:
            mismatches += _compare(number, step.expect, decision)
    return CaseResult(case.name, decisions, tuple(mismatches))


def _compare(number: int, expect: Expect, decision: Decision) -> list[Mismatch]:
    rules = (*decision.rules, *[each.rule for each in decision.violations])
    would = tuple(each.rule for each in decision.would)
    actual: dict[str, Sequence[str]] = {
        "decision": (decision.action,),
        "code": (decision.code,),
        "rule": rules,
        "tool": (decision.tool,),
        "executed": (decision.executed,),
        "would": would,
    }
    found: list[Mismatch] = []
    for what, values in actual.items():
        expected: str | None = getattr(expect, what)
        if expected is not None and expected not in (values or ("",)):
            shown = ", ".join(dict.fromkeys(value for value in values if value)) or "none"
            found.append(Mismatch(number, what, expected or "none", shown))
    return found


def with_credential(ruleset: RuleSet, call: Call) -> Call:
    """The call with a stand-in for the hash of its secret: from where its tool says, else from the usual header."""
    place, _, name = (needs(ruleset, call).credential or "header.authorization").partition(".")
    pairs = call.query if place == "query" else call.headers
    wanted = name if place == "query" else name.lower()
    secret = next((value for sent, value in pairs if sent == wanted), "")
    return msgspec.structs.replace(call, credential=sha256(secret.encode()).hexdigest()[:32]) if secret else call


def parse_case(node: Node) -> Case:
    """One item of `tests:`. Raises `RuleFileError`."""
    if node.kind != "map":
        node.fail("wrong-type", "a test has to be a mapping", "write `name`, `call` and `expect`")
    entries = read_map(node, "a test", ("name", "call", "calls", "earlier", "expect"))
    name = _text(entries["name"], "name") if "name" in entries else ""
    if not name:
        node.fail("missing-key", "the test has no `name`", "say in a sentence what it shows")
    if ("call" in entries) == ("calls" in entries):
        node.fail("test", "a test has either `call` or `calls`", "write `call: {request: GET https://...}`")
    steps: list[Step] = []
    for each in entries["earlier"].items if "earlier" in entries else ():
        steps.append(_step(each, steps, False))
    if "calls" in entries:
        if "expect" in entries:
            entries["expect"].fail("test", "`expect` stands beside `calls`", "write it into the calls")
        for each in entries["calls"].items:
            steps.append(_step(each, steps, True))
    else:
        if "expect" not in entries:
            node.fail("missing-key", "the test expects nothing", "add `expect: {decision: deny}` or the like")
        step = _step(entries["call"], steps, False)
        steps.append(msgspec.structs.replace(step, expect=_expect(entries["expect"])))
    if not any(step.expect for step in steps):
        node.fail("missing-key", "the test expects nothing", "add `expect` to one of its calls")
    return Case(name, tuple(steps), node.mark)


def _step(node: Node, before: Sequence[Step], expects: bool) -> Step:
    if node.kind != "map":
        node.fail("wrong-type", "a call has to be a mapping", "write `{request: GET https://host/path}`")
    entries = read_map(node, "a call", (*CALL_KEYS, "expect") if expects else CALL_KEYS)
    call = _call(node, entries)
    previous_ns = before[-1].at_ns if before else 0
    start_ns = before[0].at_ns if before else START_NS
    at_ns = _moment(entries["at"], start_ns) if "at" in entries else previous_ns or START_NS
    if at_ns < previous_ns:
        entries["at"].fail("test", "`at` is before the call before it", "write the calls in the order of time")
    answer = _answer(entries["answer"]) if "answer" in entries else _answered(200)
    end_ns = _moment(entries["ends"], start_ns if before else at_ns) if "ends" in entries else at_ns
    if end_ns < at_ns:
        entries["ends"].fail("test", "`ends` is before the call", "write when its answer comes, such as `+5s`")
    approval = _word(entries["approval"], "approval", APPROVALS) if "approval" in entries else ""
    return Step(call, at_ns, answer, _expect(entries["expect"]) if "expect" in entries else None, end_ns, approval)


def _call(node: Node, entries: dict[str, Node]) -> Call:
    if "request" not in entries:
        node.fail("missing-key", "the call has no `request`", "add `request: GET https://host/path`")
    method, scheme, host, port, path, query = _request(entries["request"])
    bodies = [key for key in ("json", "form", "multipart", "text") if key in entries]
    if len(bodies) > 1:
        entries[bodies[1]].fail("test", f"`{bodies[0]}` and `{bodies[1]}` are two bodies", "a call has one body")
    return Call(
        agent=_text(entries["agent"], "agent") if "agent" in entries else "",
        run=_text(entries["run"], "run") if "run" in entries else "",
        method=method,
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        segments=tuple(unquote(segment, errors="strict") for segment in path.split("/")[1:]),
        query=(*query, *(_pairs(entries["query"], "query") if "query" in entries else ())),
        headers=tuple((name.lower(), value) for name, value in _pairs(entries["headers"], "headers"))
        if "headers" in entries
        else (),
        body=_body(bodies[0], entries[bodies[0]]) if bodies else NO_BODY,
    )


_REQUEST = re.compile(r"([A-Z][A-Z-]*) (https?|wss?)://(\S+)")


def _request(node: Node) -> tuple[str, str, str, int, str, tuple[tuple[str, str], ...]]:
    """Method, scheme, host, port, path and query of `POST https://host/path?a=b`."""
    found = _REQUEST.fullmatch(node.scalar) if isinstance(node.scalar, str) else None
    help_ = "write a method and a URL, such as `POST https://api.example.com/orders`"
    if not found:
        node.fail("test", "`request` is no request", help_)
    method, scheme, rest = found.groups()
    try:
        url = urlsplit(f"{scheme}://{rest}")
        host, port = (url.hostname or "").rstrip("."), url.port or PORTS[scheme]
        path = url.path or "/"
        unquote(path, errors="strict")
        query = tuple(parse_qsl(url.query, keep_blank_values=True, errors="strict"))
    except (ValueError, UnicodeError):
        node.fail("test", f"`{rest}` is no URL", help_)
    if not host or not host.isascii() or url.username is not None or url.fragment:
        node.fail("test", f"`{rest}` is no URL of a request", help_)
    return method, scheme, host, port, path, query


def _body(kind: str, node: Node) -> Body:
    if kind == "json":
        value = cast(Json, node.plain())
        encoded = canonical_json(value)
        return Body("json", "application/json", json=value, sha256=_digest(encoded), size_bytes=len(encoded))
    if kind == "text":
        text = _text(node, "text")
        return Body("text", "text/plain", text=text, sha256=_digest(text.encode()), size_bytes=len(text.encode()))
    pairs = _pairs(node, kind)
    size_bytes = sum(len(name) + len(value) + 2 for name, value in pairs)
    if kind == "form":
        return Body("form", "application/x-www-form-urlencoded", fields=pairs, size_bytes=size_bytes)
    parts = tuple(Part(name, "", "text/plain", _digest(value.encode()), value) for name, value in pairs)
    return Body("multipart", "multipart/form-data", parts=parts, size_bytes=size_bytes)


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()


def _pairs(node: Node, what: str) -> tuple[tuple[str, str], ...]:
    """A mapping from names to a value or a list of values."""
    if node.kind != "map":
        node.fail("wrong-type", f"`{what}` has to be a mapping", f"write `{what}: {{name: value}}`")
    return tuple(
        (str(name.scalar), _text(item, what))
        for name, value in node.entries
        for item in (value.items if value.kind == "list" else (value,))
    )


def _text(node: Node, what: str) -> str:
    """A scalar as text, as it would stand on the wire."""
    if node.kind != "scalar" or node.scalar is None:
        node.fail("wrong-type", f"a value in `{what}` is no text", "write one text or number")
    if isinstance(node.scalar, bool):
        return "true" if node.scalar else "false"
    return str(node.scalar)


_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d))?Z", re.ASCII)


def _moment(node: Node, start_ns: int) -> int:
    """`+59s` after the first call of the case, or a date in UTC such as `2026-01-05T12:00Z`."""
    text = str(node.scalar)
    if text.startswith("+"):
        after_ns = 0 if text == "+0s" else parse_duration(text[1:])
        if after_ns is not None:
            return start_ns + after_ns
    date = _DATE.fullmatch(text)
    if date and 1 <= int(date[2]) <= 12 and 1970 <= int(date[1]) < 2200:
        numbers = [int(part or 0) for part in date.groups()]
        return timegm((numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5])) * SECOND_NS
    return node.fail("test", f"`{text}` is no moment", "write `+59s` after the first call, or `2026-01-05T12:00Z`")


def _answer(node: Node) -> Answer:
    """A status, `lost`, or a mapping of `status`, `headers` and `json`."""
    if node.scalar == "lost":
        return Answer(0, complete=False, sent=True)
    if node.kind != "map":
        return _answered(_status(node))
    entries = read_map(node, "answer", ("status", "headers", "json"))
    return _answered(
        _status(entries["status"]) if "status" in entries else 200,
        tuple((name.lower(), value) for name, value in _pairs(entries["headers"], "headers"))
        if "headers" in entries
        else (),
        _body("json", entries["json"]) if "json" in entries else NO_BODY,
    )


def _status(node: Node) -> int:
    if type(node.scalar) is not int or not 200 <= node.scalar <= 599:
        node.fail("test", "`answer` is no status", "write a status such as `500`, or `lost` when no answer came")
    return node.scalar


def _answered(status: int, headers: tuple[tuple[str, str], ...] = (), body: Body = NO_BODY) -> Answer:
    digest = body.sha256.hex() or "0"
    return Answer(status, complete=True, sent=True, stored=True, headers=headers, digest=digest, body=body)


def _expect(node: Node) -> Expect:
    if node.kind == "scalar":
        return Expect(decision=_word(node, "expect", DECISIONS))
    if node.kind != "map" or not node.entries:
        node.fail("wrong-type", "`expect` has to be a mapping", "write `{decision: deny, rule: ID}`")
    entries = read_map(node, "expect", EXPECT_KEYS)
    said: dict[str, str] = {}
    words: dict[str, Sequence[str]] = {"decision": DECISIONS, "executed": EXECUTED, "code": (*CODES, "replay")}
    for key, value in entries.items():
        if value.scalar is None and value.kind == "scalar" and key not in words:
            said[key] = ""
        else:
            said[key] = _word(value, key, words[key]) if key in words else _text(value, key)
    return Expect(**said)


def _word(node: Node, what: str, known: Sequence[str]) -> str:
    text = _text(node, what)
    if text not in known:
        node.fail("choice", f"`{text}` is no value of `{what}`", suggest(text, known) or f"write {listing(known)}")
    return text
