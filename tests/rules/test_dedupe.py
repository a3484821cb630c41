"""dedupe: a side effect happens at most once. The scenarios are numbered as in the table of what duplicates mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rules.call import Body
from rules.decide import abandon, apply, decide, keep_until_ns, resolve
from rules.decision import Answer, Change, Decision
from rules.guards.claims import Claim, Claims, outcome_of
from rules.guards.dedupe import Dedupe
from rules.needs import needs
from rules.problems import RuleFileError
from rules.yamltree import parse
from tests.rules.world import (
    LOST,
    OK,
    START,
    WITHDRAWN,
    S,
    World,
    answered,
    call,
    form_body,
    json_body,
    of_guards,
    rules,
)

ORDERS = """
tools:
  order: POST https://api.example.com/orders
rules:
  - {id: order, tool: order, allow: true, dedupe: 24h}
"""
PAYMENTS = ORDERS.replace(
    "order: POST https://api.example.com/orders",
    "order: {match: POST https://api.example.com/orders, upstream_key: Idempotency-Key}",
)
DAY = 24 * 3600
ORDER = call(body='{"amount": 100, "items": [1, 2]}')


def header(name: str, value: str) -> dict[str, Any]:
    return {"headers": ((name, value),)}


def changed(**given: Any) -> Any:
    return msgspec.structs.replace(ORDER, **given)


def sent_key(decision: Decision) -> str:
    """The one upstream key that a call goes out under."""
    ((_, _, value),) = decision.send
    return value


def claim_of(world: World, decision: Decision) -> Claim:
    """The one claim that a call holds."""
    (change,) = [change for change in decision.changes if change.guard == "dedupe"]
    return world.state.of(Claims).claims[change.key]


def s1(world: World) -> None:
    """The first is forwarded; 2xx makes it done."""
    assert world.ask(ORDER).action == "allow"
    assert world.end(OK).kind == "done"


def s2(world: World) -> None:
    """A duplicate after 2xx is replayed from the first call."""
    world.do(ORDER)
    again = world.ask(ORDER, at=5)
    assert (again.action, again.code, again.rules, again.replay_of) == ("replay", "replay", ("order",), "call-1")
    assert (again.executed, of_guards(again.changes)) == ("yes", ())


def s3(world: World) -> None:
    """A duplicate while the first is on its way waits for it, and is then replayed."""
    world.ask(ORDER)
    twin = world.ask(ORDER, at=1)
    assert twin.wait is not None
    assert (twin.wait.at_most_ns, twin.replay_of) == (10 * S, "call-1")
    (entry,) = twin.wait.on
    assert entry in [(change.guard, change.key) for change in world.ledger], "it waits for the claim"
    assert twin.changes == ()
    world.end(OK)
    assert world.ask(ORDER, at=2).action == "replay"


def s4(world: World) -> None:
    """When the wait is over, what it was told to wait for is the refusal: 409, try again in 2 s."""
    world.ask(ORDER)
    twin = world.ask(ORDER, at=10)
    assert (twin.action, twin.code, twin.executed) == ("deny", "duplicate-in-flight", "unknown")
    assert (twin.retry_after_ns, twin.rules) == (2 * S, ("order",))


def s5(world: World) -> None:
    """The same client key with another fingerprint."""
    world.do(changed(**header("idempotency-key", "k1")))
    again = world.ask(changed(**header("idempotency-key", "k1"), body=json_body('{"amount": 101}')))
    assert (again.code, again.rules, again.executed) == ("key-reused", ("order",), "no")
    assert again.violations[0].field == "header.idempotency-key"


def s6(world: World) -> None:
    """Another client key with the same fingerprint."""
    world.do(changed(**header("idempotency-key", "k1")))
    assert world.do(changed(**header("idempotency-key", "k2"))) == "replay"


def s7(world: World) -> None:
    """Key order, white space and the spelling of numbers."""
    world.do(ORDER)
    assert world.do(call(body='{"items":[1.0,2],"amount":1e2}')) == "replay"


def s8(world: World) -> None:
    """The order of an array."""
    world.do(ORDER)
    assert world.do(call(body='{"amount": 100, "items": [2, 1]}')) == "allow"


def s9(world: World) -> None:
    """Numbers that doubles cannot tell apart."""
    world.do(call(body='{"n": 9007199254740992}'))
    assert world.do(call(body='{"n": 9007199254740993}')) == "allow"


def s10(world: World) -> None:
    """A body that cannot be read in one way, such as one with a duplicate key."""
    refused = world.ask(changed(body=Body("undecodable", problem="`amount` stands twice")))
    assert (refused.code, refused.executed) == ("ambiguous-request", "no")
    assert "`amount` stands twice" in refused.detail


def s11(world: World) -> None:
    """A new multipart boundary."""
    world.do(changed(body=Body("multipart", "multipart/form-data; boundary=a")))
    assert world.do(changed(body=Body("multipart", "multipart/form-data; boundary=b"))) == "replay"


def s12(world: World) -> None:
    """Trace ids, dates and user agents."""
    world.do(changed(headers=(("traceparent", "1"), ("date", "1"), ("user-agent", "1"))))
    assert world.do(changed(headers=(("traceparent", "2"), ("date", "2"), ("user-agent", "2")))) == "replay"


def s13(world: World) -> None:
    """Another credential."""
    world.do(ORDER)
    assert world.do(changed(credential="another")) == "allow"


def s14(world: World) -> None:
    """422, then the same."""
    assert world.do(ORDER, answered(422)) == "allow"
    assert world.do(ORDER) == "allow"


def s15(world: World) -> None:
    """429, then the same: refused while the upstream cools down, then forwarded."""
    assert world.do(ORDER, answered(429, ("retry-after", "7"))) == "allow"
    assert world.do(ORDER, at=6) == "upstream-cooldown"
    assert world.do(ORDER, at=7) == "allow"


def s16(world: World) -> None:
    """500: nobody knows."""
    world.ask(ORDER)
    assert world.end(answered(500)).kind == "unknown"
    refused = world.ask(ORDER, at=60)
    assert (refused.code, refused.executed, refused.replay_of) == ("outcome-unknown", "unknown", "call-1")


def s17(world: World) -> None:
    """500 with an upstream key: forwarded with the first key, whatever key the client sends now."""
    world.ruleset = rules(PAYMENTS)
    first = world.ask(ORDER)
    key = sent_key(first)
    world.end(answered(500))
    again = world.ask(changed(**header("idempotency-key", "fresh")), at=60)
    assert (again.action, again.rules, again.replay_of) == ("allow", ("order",), "call-1")
    assert again.send == (("header", "Idempotency-Key", key),)
    assert world.ask(changed(agent="bob")).send != again.send, "each claim has a key of its own"


def s18(world: World) -> None:
    """A keyed retry that is refused says nothing about the first attempt: still unknown."""
    world.ruleset = rules(PAYMENTS)
    key = sent_key(world.ask(ORDER))
    world.end(answered(500))
    for n, status in enumerate((401, 429, 400, 422, 503, 302, 409), 1):
        retry = world.ask(ORDER, at=n * 3600)
        assert (retry.action, sent_key(retry)) == ("allow", key), status
        retry_after = (("retry-after", "1"),) if status == 503 else ()
        world.end(answered(status, *retry_after))
        assert claim_of(world, retry).state == "unknown", status


def s19(world: World) -> None:
    """A keyed retry that is answered 2xx: done, and the next duplicate gets that answer."""
    world.ruleset = rules(PAYMENTS)
    world.do(ORDER, LOST)
    assert world.do(ORDER, at=60) == "allow"
    again = world.ask(ORDER, at=120)
    assert (again.action, again.replay_of, again.executed) == ("replay", "call-2", "yes")


def s20(world: World) -> None:
    """Connection refused."""
    world.do(ORDER, Answer(0, complete=False, sent=False, error="connection refused"))
    assert world.do(ORDER) == "allow"


def s21(world: World) -> None:
    """A reset after the headers were sent."""
    world.do(ORDER, LOST)
    assert world.do(ORDER) == "outcome-unknown"


def s22(world: World) -> None:
    """Killed between decision and outcome, and started again."""
    world.ask(ORDER)
    world.state = world.refold()
    world.record(abandon(world.state, START + S))
    assert world.do(ORDER, at=2) == "outcome-unknown"

    world.ruleset = rules(PAYMENTS)
    key = sent_key(world.ask(changed(agent="bob")))
    world.state = world.refold()
    world.record(abandon(world.state, START + 3 * S))
    assert sent_key(world.ask(changed(agent="bob"))) == key, "an upstream key outlives the program"
    world.state = world.refold()
    world.record(abandon(world.state, START + 4 * S))
    assert sent_key(world.ask(changed(agent="bob"))) == key, "so does that of a retry"


def s23(world: World) -> None:
    """The window's end is exclusive: then it is a new claim."""
    world.do(ORDER, at=0)
    assert world.do(ORDER, at=DAY - 1e-9) == "replay"
    again = world.ask(ORDER, at=DAY)
    assert again.action == "allow"
    assert keep_until_ns(again) == START + 2 * DAY * S
    world.end(OK)
    assert world.ask(ORDER, at=DAY + 1).replay_of == "call-3"

    world.ruleset = rules(PAYMENTS)
    bob = changed(agent="bob")
    key = sent_key(world.ask(bob))
    world.end(LOST)
    assert world.ask(bob, at=2 * DAY + 1 - 1e-9).code == "outcome-unknown", "the key's time is over before the window"
    anew = world.ask(bob, at=2 * DAY + 1)
    assert anew.replay_of == ""
    assert sent_key(anew) != key


def s24(world: World) -> None:
    """The policy now denies: no stored answer is disclosed."""
    world.do(ORDER)
    world.ruleset = rules(ORDERS + "  - {id: stop, match: 'https://**', deny: Stopped.}")
    refused = world.ask(ORDER)
    assert (refused.code, refused.rules, refused.replay_of) == ("policy-denied", ("stop",), "")


def s25(world: World) -> None:
    """An answer that was too large to keep."""
    world.do(ORDER, Answer(200, complete=True, sent=True, stored=False))
    refused = world.ask(ORDER)
    assert (refused.code, refused.executed, refused.replay_of) == ("duplicate-not-replayable", "yes", "call-1")


def s26(world: World) -> None:
    """A stream that was kept is replayed like any answer."""
    world.do(ORDER, answered(200, ("content-type", "text/event-stream")))
    assert world.do(ORDER) == "replay"


def s27(world: World) -> None:
    """A replay consumes no quota."""
    world.ruleset = rules(ORDERS.replace("dedupe: 24h", "dedupe: 24h, throttle: 2/min"))
    world.do(ORDER)
    assert [world.do(ORDER) for _ in range(5)] == ["replay"] * 5
    assert world.do(changed(agent="bob")) == "allow"
    assert world.do(changed(agent="cid")) == "rate-limited"


def s28(world: World) -> None:
    """A person finds out. What was not executed goes out, as an act of its own; what was is refused as done."""
    world.do(ORDER, LOST)
    world.record(resolve(world.state, "call-1", False, START + S))
    assert world.do(ORDER, LOST, at=2) == "allow"
    world.record(resolve(world.state, "call-2", True, START + 3 * S))
    refused = world.ask(ORDER, at=4)
    assert (refused.code, refused.executed, refused.replay_of) == ("duplicate-not-replayable", "yes", "call-2")
    assert resolve(world.state, "call-2", False, START + 5 * S) == (), "no longer unknown"


SCENARIOS = [
    s1,
    s2,
    s3,
    s4,
    s5,
    s6,
    s7,
    s8,
    s9,
    s10,
    s11,
    s12,
    s13,
    s14,
    s15,
    s16,
    s17,
    s18,
    s19,
    s20,
    s21,
    s22,
    s23,
    s24,
    s25,
    s26,
    s27,
    s28,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(scenario: Callable[[World], None]) -> None:
    world = World(ORDERS)
    scenario(world)
    assert world.refold() == world.state


OUTCOMES = [
    *[(answered(status), "done") for status in (200, 201, 204, 299, 301, 304, 399)],
    *[(answered(status), "not_executed") for status in (400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 414)],
    *[(answered(status), "not_executed") for status in (415, 422, 425, 429)],
    (answered(503, ("retry-after", "1")), "not_executed"),
    *[(answered(status), "unknown") for status in (408, 499, 500, 501, 502, 503, 504, 599, 100, 103)],
    (LOST, "unknown"),
    (Answer(200, complete=False, sent=True), "unknown"),
    (Answer(422, complete=False, sent=True), "unknown"),
    (Answer(0, complete=False, sent=False), "not_executed"),
    (WITHDRAWN, "not_executed"),
]


@pytest.mark.parametrize(("answer", "kind"), OUTCOMES, ids=str)
def test_what_an_answer_says_about_the_effect(answer: Answer, kind: str) -> None:
    assert outcome_of(answer) == kind


WRITES = """
tools:
  door.open: {match: POST https://api.example.com/open}
  door: https://api.example.com/doors/{id}
  find: {match: POST https://api.example.com/find, effect: read}
rules:
  - {id: any, tool: [door, door.open, find], allow: true, dedupe: %s}
"""
COVERED = [
    ("24h", "POST", "/open", True),
    ("true", "POST", "/open", True),
    ("24h", "POST", "/find", False),
    ("24h", "PUT", "/doors/1", False),
    ("24h", "GET", "/doors/1", False),
    ("{methods: [PUT]}", "PUT", "/doors/1", True),
    ("{methods: [PUT]}", "POST", "/open", True),
    ("{methods: [PUT]}", "PATCH", "/doors/1", False),
    ("{methods: [PUT, PATCH, DELETE]}", "DELETE", "/doors/1", True),
    ("{methods: [POST]}", "POST", "/find", True),
    ("{methods: [GET]}", "GET", "/doors/1", True),
]


@pytest.mark.parametrize(("dedupe", "method", "path", "covered"), COVERED)
def test_it_covers_writes_by_post_and_the_methods_it_lists(dedupe: str, method: str, path: str, covered: bool) -> None:
    world = World(WRITES % dedupe)
    asked = call(method, path)
    assert needs(world.ruleset, asked).claim is covered
    assert [world.do(asked), world.do(asked)] == ["allow", "replay" if covered else "allow"]


def test_another_write_to_the_path_ends_a_claim() -> None:
    """Open, closed, open is three acts; open, open is one."""
    world = World(WRITES % "{methods: [PUT, PATCH]}")
    opened, closed = call("PUT", "/doors/1", '{"open": true}'), call("PUT", "/doors/1", '{"open": false}')
    assert [world.do(opened), world.do(opened), world.do(closed), world.do(opened)] == [
        "allow",
        "replay",
        "allow",
        "allow",
    ]
    assert world.do(call("PUT", "/doors/2", '{"open": false}')) == "allow"
    assert world.do(opened) == "replay"
    assert world.do(call("GET", "/doors/1")) == "allow"
    assert world.do(opened) == "replay"
    assert world.do(call("DELETE", "/doors/1")) == "allow", "not covered itself, and yet a write"
    assert world.do(opened) == "allow"
    assert world.refold() == world.state


def test_a_retry_does_not_end_the_claim_that_it_retries() -> None:
    """It is a write to the same path, too; were it to end its own claim, the next retry would be a new act."""
    keyed = "tools: {door: {match: PATCH https://api.example.com/doors/*, upstream_key: Idempotency-Key}}"
    world = World(f"{keyed}\nrules: [{{id: all, tool: door, allow: true, dedupe: {{methods: [PATCH]}}}}]")
    opened = call("PATCH", "/doors/1", '{"open": true}')
    first = world.ask(opened)
    world.end(LOST)
    for number in (1, 2, 3):
        retry = world.ask(opened)
        assert (retry.action, retry.replay_of, sent_key(retry)) == ("allow", f"call-{number}", sent_key(first))
        assert [change.op for change in of_guards(retry.changes)] == ["retry"]
        world.end(LOST)
    world.do(opened)
    assert world.do(opened) == "replay"


def test_two_rules_keep_a_claim_each_on_one_path() -> None:
    world = World(
        WRITES % "{methods: [PUT]}" + "  - {id: too, match: 'https://**', dedupe: {methods: [PUT], by: agent}}"
    )
    opened = call("PUT", "/doors/1", '{"open": true}')
    assert [world.do(opened, answered(422)), world.do(opened), world.do(opened)] == ["allow", "allow", "replay"]
    assert world.do(call("DELETE", "/doors/1")) == "allow"
    assert world.do(opened) == "allow"
    assert world.refold() == world.state


def test_a_write_that_is_not_sent_ends_no_claim() -> None:
    world = World(WRITES % "{methods: [PUT]}" + "  - {id: no, match: 'DELETE https://**', deny: No.}")
    opened = call("PUT", "/doors/1", '{"open": true}')
    assert [world.do(opened), world.do(call("DELETE", "/doors/1")), world.do(opened)] == [
        "allow",
        "policy-denied",
        "replay",
    ]


def test_the_end_of_a_call_whose_claim_has_gone_changes_nothing() -> None:
    world = World(WRITES % "{methods: [PUT]}")
    opened, closed = call("PUT", "/doors/1", '{"open": true}'), call("PUT", "/doors/1", '{"open": false}')
    world.ask(opened)
    world.do(closed)
    world.ask(opened)
    world.end(LOST, "call-1")
    world.end(OK, "call-3")
    assert world.do(opened) == "replay"


UNTIL = """
tools:
  buy: POST https://api.example.com/buy
  reset: POST https://api.example.com/reset
rules:
  - {id: buy, tool: buy, allow: true, dedupe: {until: reset, by: %s}}
  - {id: reset, tool: reset, allow: true}
"""
BUY, RESET = call(path="/buy"), call(path="/reset")


@pytest.mark.parametrize(
    ("by", "who", "answer", "then"),
    [
        ("agent", {}, OK, "allow"),
        ("agent", {"credential": "other", "run": "r"}, OK, "allow"),
        ("agent", {}, answered(500), "replay"),
        ("agent", {}, answered(422), "replay"),
        ("agent", {"agent": "bob"}, OK, "replay"),
        ("[run, agent]", {}, OK, "allow"),
        ("[agent, run]", {"run": "other"}, OK, "replay"),
        ("run", {"agent": "bob"}, OK, "allow"),
        ("credential", {"agent": "bob", "run": "other"}, OK, "allow"),
    ],
)
def test_the_success_of_a_tool_ends_the_claim(by: str, who: dict[str, Any], answer: Answer, then: str) -> None:
    world = World(UNTIL % by)
    assert world.do(BUY) == "allow"
    assert world.do(BUY) == "replay"
    assert world.do(msgspec.structs.replace(RESET, **who), answer) == "allow"
    assert world.do(BUY) == then
    assert world.refold() == world.state


KEYED = """
tools:
  pay: POST https://api.example.com/pay/{id}
rules:
  - {id: pay, tool: pay, allow: true, dedupe: %s}
"""
Q = (("q", "1"),)
KEYS: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
    ("one field", "{key: body.a}", {"body": '{"a":1,"b":1}'}, {"body": '{"a":1,"b":2}'}, "replay"),
    ("another value", "{key: body.a}", {"body": '{"a":1}'}, {"body": '{"a":2}'}, "allow"),
    ("absent: all counts", "{key: body.a}", {"body": '{"b":1}'}, {"body": '{"b":2}'}, "allow"),
    ("absent: all is the same", "{key: body.a}", {"body": '{"b":1}'}, {"body": '{"b":1.0}'}, "replay"),
    ("one of two absent", "{key: [body.a, body.b]}", {"body": '{"a":1,"c":1}'}, {"body": '{"a":1,"c":2}'}, "allow"),
    ("first present", "{key: 'body.a|body.b'}", {"body": '{"b":1,"c":1}'}, {"body": '{"b":1,"c":2}'}, "replay"),
    ("of another name", "{key: 'body.a|body.b'}", {"body": '{"a":1}'}, {"body": '{"b":1}'}, "allow"),
    ("null is a value", "{key: body.a}", {"body": '{"a":null,"b":1}'}, {"body": '{"a":null,"b":2}'}, "replay"),
    ("query does not count", "{key: body.a}", {"body": '{"a":1}', "query": Q}, {"body": '{"a":1}'}, "replay"),
    ("a header", "{key: header.X-Id}", header("x-id", "1"), header("x-id", "2"), "allow"),
    ("path counts anyway", "{key: body.a}", {"body": '{"a":1}'}, {"body": '{"a":1}', "path": "/pay/2"}, "allow"),
    ("by agent only", "{by: agent}", {"body": "1"}, {"body": "1", "credential": "new"}, "replay"),
    ("by run", "{by: run}", {"body": "1"}, {"body": "1", "run": "new"}, "allow"),
    ("by run, another agent", "{by: run}", {"body": "1"}, {"body": "1", "agent": "bob"}, "replay"),
    ("by a field", "{by: body.who, key: body.a}", {"body": '{"a":1,"who":1}'}, {"body": '{"a":1,"who":2}'}, "allow"),
    ("ignored", "{ignore: [body.ts, query.q]}", {"body": '{"ts":1}', "query": Q}, {"body": "{}"}, "replay"),
    ("a form", "{key: body.a}", {"body": form_body(("a", "1"))}, {"body": form_body(("b", ""), ("a", "1"))}, "replay"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "dedupe", "one", "other", "then"), KEYS, ids=[row[0] for row in KEYS])
def test_what_tells_calls_apart(what: str, dedupe: str, one: dict[str, Any], other: dict[str, Any], then: str) -> None:
    world = World(KEYED % dedupe)
    assert world.do(call(**{"path": "/pay/1", **one})) == "allow"
    assert world.do(call(**{"path": "/pay/1", **other})) == then


def test_a_duplicate_can_be_rejected() -> None:
    world = World(ORDERS.replace("24h", "{on_duplicate: reject}"))
    world.do(ORDER)
    again = world.ask(ORDER)
    assert (again.code, again.executed, again.replay_of, again.rules) == ("duplicate", "yes", "call-1", ("order",))


def test_a_released_claim_releases_its_client_key() -> None:
    world = World(ORDERS)
    keyed = changed(**header("idempotency-key", "k"))
    other = msgspec.structs.replace(keyed, body=json_body("{}"))
    world.do(keyed, answered(422))
    assert world.do(other) == "allow"
    assert world.do(keyed) == "key-reused"
    assert world.do(other, at=DAY - 1) == "replay"
    assert world.do(keyed, at=DAY) == "allow"


@pytest.mark.parametrize("who", [{"agent": "bob"}, {"credential": "other"}, {"headers": (("paypal-request-id", "k"),)}])
def test_client_keys_of_others_do_not_collide(who: dict[str, Any]) -> None:
    world = World(ORDERS)
    world.do(changed(**header("idempotency-key", "k")))
    asked = changed(**{**header("idempotency-key", "k"), "body": json_body("{}"), **who})
    assert world.do(asked) == "allow"


@pytest.mark.parametrize("name", ["user-agent", "x-request-id"])
def test_other_headers_are_no_client_keys(name: str) -> None:
    world = World(ORDERS)
    world.do(changed(**header(name, "k")))
    assert world.do(changed(**header(name, "k"), body=json_body("{}"))) == "allow"


def test_a_duplicate_under_any_of_several_rules_is_a_duplicate() -> None:
    world = World(ORDERS + "  - {id: narrow, tool: order, dedupe: {window: 1h, key: body.amount}}")
    world.do(ORDER, at=0)
    near = world.ask(call(body='{"amount": 100, "items": []}'), at=5)
    assert (near.action, near.rules) == ("replay", ("narrow",))
    assert world.ask(ORDER, at=5).rules == ("narrow", "order")
    assert world.ask(ORDER, at=3600).rules == ("order",)
    assert world.do(call(body='{"amount": 100, "items": []}'), at=3600) == "allow"


def test_what_may_have_been_executed_is_said_first() -> None:
    """One rule says that the key was reused and nothing was executed, another that nobody knows: the latter is told."""
    world = World(ORDERS + "  - {id: all, match: 'https://**', dedupe: {key: body.amount}}")
    world.do(changed(**header("idempotency-key", "k")), LOST)
    asked = changed(**header("idempotency-key", "k"), body=json_body('{"amount": 100}'))
    refused = world.ask(asked)
    assert [(each.rule, each.code) for each in refused.violations] == [
        ("all", "outcome-unknown"),
        ("order", "key-reused"),
    ]
    assert (refused.code, refused.executed) == ("outcome-unknown", "unknown")


def test_unknown_blocks_until_the_end_of_the_window() -> None:
    world = World(ORDERS)
    world.do(ORDER, LOST)
    assert world.do(ORDER, at=DAY - 1) == "outcome-unknown"
    assert world.do(ORDER, at=DAY) == "allow"


def test_a_call_on_its_way_blocks_beyond_the_window() -> None:
    world = World(ORDERS)
    world.ask(ORDER, at=0)
    world.do(changed(agent="bob"), at=2 * DAY)
    assert world.ask(ORDER, at=2 * DAY).code == "duplicate-in-flight"
    world.end(OK, "call-1")
    assert world.do(ORDER) == "allow"


def test_claims_are_forgotten_after_their_window() -> None:
    world = World(ORDERS.replace("24h", "1h"))
    for n in range(300):
        world.do(call(body=f'{{"n": {n}}}', **header("idempotency-key", f"k{n}")), at=n * 60)
    claims = world.state.of(Claims)
    assert len(claims.claims) <= 61
    assert len(claims.by_client_key) <= 61
    assert len(claims.due.heap) <= 61
    assert world.refold() == world.state


def test_released_claims_leave_nothing_behind() -> None:
    world = World(ORDERS)
    for n in range(300):
        world.do(call(body=f'{{"n": {n}}}'), answered(422))
    claims = world.state.of(Claims)
    assert claims.claims == {}
    assert len(claims.due.heap) <= 65


def test_a_claim_made_again_is_forgotten_in_its_own_time() -> None:
    world = World(ORDERS.replace("24h", "1h"))
    world.do(ORDER, answered(422), at=0)
    world.do(ORDER, at=1800)
    world.do(changed(agent="bob"), at=3601)
    assert world.do(ORDER) == "replay"
    world.do(changed(agent="cid"), at=1800 + 3600)
    assert len(world.state.of(Claims).claims) == 2


def test_changes_of_an_unknown_claim_are_ignored() -> None:
    world = World(ORDERS)
    apply(world.state, [Change("dedupe", "", "no-such-key", "done", {"at_ns": 1, "call": "x", "stored": True})])
    assert world.do(ORDER) == "allow"


def test_deciding_twice_changes_nothing() -> None:
    world = World(ORDERS)
    world.do(ORDER)
    first = [decide(world.ruleset, world.state, ORDER, "x", START) for _ in range(3)]
    assert first[0] == first[1] == first[2]


NEEDS_BODY = [
    ("24h", "POST", True),
    ("24h", "PUT", False),
    ("{key: body.a}", "POST", True),
    ("{key: path.id}", "POST", False),
    ("{key: path.id, by: body.who}", "POST", True),
    ("{key: 'header.x|path.id'}", "POST", True),
]


@pytest.mark.parametrize(("dedupe", "method", "wanted"), NEEDS_BODY)
def test_it_needs_the_body_where_it_could_count(dedupe: str, method: str, wanted: bool) -> None:
    ruleset = rules(KEYED.replace("POST ", "") % dedupe)
    assert needs(ruleset, call(method, "/pay/1")).body is wanted


BAD = [
    ("x", "duration", "`x` is no duration"),
    ("0h", "duration", "`0h` is no duration"),
    ("{windw: 1h}", "unknown-key", "`dedupe` has no key `windw`"),
    ("{window: 5}", "duration", "`5` is no duration"),
    ("{methods: [post]}", "method", "`post` in `methods` is no method"),
    ("{key: []}", "empty", "`key` names no field"),
    ("{key: {a: b}}", "field", "`key` lists fields"),
    ("{key: [body.a, body.a]}", "repeated", "`body.a` stands twice in `key`"),
    ("{by: bdy.a}", "field", "`bdy.a` is not a field"),
    ("{ignore: header.date}", "field", "`header.date` cannot be ignored"),
    ("{ignore: body}", "field", "`body` cannot be ignored"),
    ("{until: [a]}", "until", "`until` names no tool"),
    ("{until: 'a.*'}", "until", "`until` names no tool"),
    ("{on_duplicate: rejct}", "choice", "`on_duplicate` has to be `replay` or `reject`"),
    ("{on_unknown: key}", "choice", "`on_unknown` has to be `keyed`, `block` or `forward`"),
    ("{on_unknown: [keyed]}", "choice", "`on_unknown` has to be `keyed`, `block` or `forward`"),
    ("{unknown_after: never}", "duration", "`never` is no duration"),
]


@pytest.mark.parametrize(("text", "code", "message"), BAD)
def test_mistakes_are_named(text: str, code: str, message: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        Dedupe.parse(parse(text, "test"), "r")
    assert [(problem.code, problem.message) for problem in caught.value.problems] == [(code, message)]
