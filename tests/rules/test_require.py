"""require and after: what has to come before, and what may not come after, told by the past of the run."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from rules.applies import Reading
from rules.call import UNREAD_BODY, Body, Call
from rules.decide import decide, recheck, replayed
from rules.decision import Answer
from rules.earlier import spelled
from rules.explain import explain
from rules.fields import ABSENT, Many, Value, WireText
from rules.guard import Settled
from rules.guards.history import NO_PAST
from rules.load import Source, load
from rules.needs import needs
from rules.problems import RuleFileError
from rules.state import State
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, form_body, json_body, rules

MINUTE = 60
SHOP = """
tools:
  charge.read: GET https://api.example.com/charges/{charge}
  charge.any: GET https://api.example.com/charges/**
  refund: {match: POST https://api.example.com/refunds}
rules:
  - {id: read, tool: "charge.*", allow: true}
  - id: refund
    tool: refund
    allow: true
    require: {after: charge.read, same: {body.charge: path.charge}, within: 30m}
"""


def read(charge: str = "ch_1", **given: Any) -> Call:
    return call("GET", f"/charges/{charge}", **given)


def refund(charge: str = "ch_1", **given: Any) -> Call:
    return call("POST", "/refunds", form_body(("charge", charge)), **given)


def said(body: str, status: int = 200) -> Answer:
    return Answer(status, complete=True, sent=True, stored=True, body=json_body(body))


# -- require -----------------------------------------------------------------------------------------------------------


def test_first_this_then_that() -> None:
    world = World(SHOP)
    assert world.do(refund()) == "prerequisite-missing"
    assert world.do(read()) == "allow"
    assert world.do(refund()) == "allow"
    assert world.do(refund("ch_2")) == "prerequisite-missing"


def test_a_refusal_says_what_to_do_first() -> None:
    world = World(SHOP)
    world.do(read("ch_1"))
    refused = world.ask(refund("ch_9"))
    assert (refused.action, refused.code, refused.rules, refused.executed) == (
        "deny",
        "prerequisite-missing",
        ("refund",),
        "no",
    )
    assert refused.next == (
        'First call `charge.read` (GET https://api.example.com/charges/ch_9) with path.charge "ch_9".',
        "Then repeat this call.",
    )
    assert "ch_1" not in str(refused)
    assert refused.violations[0].field == "body.charge"


@pytest.mark.parametrize(
    ("after_s", "decided"),
    [
        (0, "allow"),
        (30 * MINUTE - 1, "allow"),
        (30 * MINUTE, "prerequisite-missing"),
        (31 * MINUTE, "prerequisite-missing"),
    ],
)
def test_what_was_done_counts_for_so_long(after_s: int, decided: str) -> None:
    world = World(SHOP)
    world.do(read(), at=0)
    assert world.do(refund(), at=after_s) == decided


def test_it_counts_from_the_answer_on() -> None:
    world = World(SHOP)
    world.ask(read(), at=0)
    assert world.do(refund()) == "prerequisite-missing"
    world.at_ns = START + 20 * MINUTE * S
    world.end()
    assert world.do(refund(), at=49 * MINUTE) == "allow"
    assert "the last one is older" in world.ask(refund(), at=50 * MINUTE).detail


@pytest.mark.parametrize(
    ("answer", "decided"),
    [
        (OK, "allow"),
        (answered(204), "allow"),
        (answered(302), "prerequisite-missing"),
        (answered(404), "prerequisite-missing"),
        (answered(500), "prerequisite-missing"),
        (Answer(200, complete=False, sent=True), "prerequisite-missing"),
        (LOST, "prerequisite-missing"),
        (WITHDRAWN, "prerequisite-missing"),
    ],
)
def test_only_success_counts(answer: Answer, decided: str) -> None:
    world = World(SHOP)
    world.do(read(), answer)
    assert world.do(refund()) == decided


@pytest.mark.parametrize("other", [{"run": "run-2"}, {"agent": "bob"}])
def test_what_others_have_done_does_not_count(other: dict[str, str]) -> None:
    world = World(SHOP)
    world.do(read(**other))
    assert world.do(refund()) == "prerequisite-missing"
    assert world.do(refund(**other)) == "allow"


def one(require: str, more: str = "") -> World:
    return World(f"""
tools:
  read: GET https://api.example.com/items/{{id}}
  peek: GET https://api.example.com/peek/{{id}}
  list: GET https://api.example.com/items
  find: {{match: POST https://api.example.com/find, effect: read}}
  buy: POST https://api.example.com/buy
rules:
  - {{id: look, tool: [read, peek, list, find], allow: true}}
  - {{id: buy, tool: buy, allow: true, require: {require}}}
{more}""")


BUY = call("POST", "/buy", '{"id": "x"}')


@pytest.mark.parametrize(
    ("require", "done", "decided"),
    [
        ("read", [], "prerequisite-missing"),
        ("read", ["/items/x"], "allow"),
        ("'*e*'", ["/peek/x"], "allow"),
        ("{after: [read, peek]}", ["/peek/y"], "allow"),
        ("{after: [read, peek]}", ["/items"], "prerequisite-missing"),
        ("[read, peek]", ["/items/x"], "prerequisite-missing"),
        ("[read, {after: peek}]", ["/items/x", "/peek/x"], "allow"),
        ("{after: read, count: 2}", ["/items/x"], "prerequisite-missing"),
        ("{after: read, count: 2}", ["/items/x", "/items/x"], "allow"),
        ("{after: [read, peek], count: 2}", ["/items/x", "/peek/x"], "allow"),
        ("{after: read, count: 2, same: {body.id: path.id}}", ["/items/x", "/items/y"], "prerequisite-missing"),
        ("{after: read, same: {agent: agent, host: host}}", ["/items/x"], "allow"),
    ],
)
def test_what_may_be_asked_for(require: str, done: list[str], decided: str) -> None:
    world = one(require)
    for path in done:
        assert world.do(call("GET", path)) == "allow"
    assert world.do(BUY) == decided
    assert world.refold() == world.state


def test_a_refusal_lists_everything_that_is_missing() -> None:
    world = one("[{after: read, count: 3}, {after: [read, peek, list, find]}, {after: peek, same: {body.no: path.id}}]")
    world.do(call("GET", "/items/x"))
    refused = world.ask(BUY)
    assert refused.detail == (
        "This has to come after 3 completed calls of `read` (GET https://api.example.com/items/{id}), and there are 1. "
        "Nothing was executed."
    )
    assert refused.next == (
        "First call `read` (GET https://api.example.com/items/{id}) 2 times.",
        "Give `body.no` one plain value.",
        "Then repeat this call.",
    )
    fresh = one("{after: [read, peek, list, find]}").ask(BUY)
    assert fresh.next[0] == (
        "First call `read` or `peek` or `list` or `find`, such as `find` (POST https://api.example.com/find)."
    )


@pytest.mark.parametrize(
    ("match", "made"),
    [
        ("GET https://api.example.com/a/{id}/b/{no}", "GET https://api.example.com/a/x-1/b/{no}"),
        (
            "[GET https://api.example.com/a/{id}, GET https://b.example.com/{id}]",
            "GET https://api.example.com/a/x-1 or GET https://b.example.com/x-1",
        ),
        (
            "[GET https://a.example.com/{id}, GET https://b.example.com/{id}, GET https://c.example.com/{id}]",
            "GET https://a.example.com/x-1 or GET https://b.example.com/x-1 or ...",
        ),
        (
            "{request: 'POST https://{id}.example.com/mcp', mcp: look}",
            "POST https://x-1.example.com/mcp (mcp: look)",
        ),
        (
            "{request: 'POST https://api.example.com/{id}', where: {header.x-action: {eq: get}}}",
            'POST https://api.example.com/x-1 where header.x-action eq "get"',
        ),
        (f"GET https://api.example.com/{'a' * 300}/{{id}}", f"GET https://api.example.com/{'a' * 169}..."),
    ],
)
def test_a_refusal_says_how_the_call_is_made(match: str, made: str) -> None:
    match = match if match[0] in "[{" else f'"{match}"'
    match = re.sub(r"(GET [^,\]]+)", r"'\1'", match) if match[0] == "[" else match
    world = World(f"""
tools:
  look: {{match: {match}}}
  buy: POST https://api.example.com/buy
rules:
  - {{id: all, tool: look, allow: true}}
  - {{id: buy, tool: buy, allow: true, require: {{after: look, same: {{body.id: path.id}}}}}}
""")
    refused = world.ask(call("POST", "/buy", '{"id": "x-1"}'))
    assert refused.next[0] == f'First call `look` ({made}) with path.id "x-1".'
    odd = world.ask(call("POST", "/buy", '{"id": "../x"}'))
    assert "../x" not in odd.detail.partition(" with ")[0]


def test_a_call_that_matches_two_of_the_tools_counts_once() -> None:
    world = World(
        SHOP.replace(
            "{after: charge.read, same: {body.charge: path.charge}, within: 30m}", "{after: 'charge.*', count: 2}"
        )
    )
    world.do(read())
    assert world.do(refund()) == "prerequisite-missing"
    world.do(read())
    assert world.do(refund()) == "allow"


def test_every_tool_that_matches_counts_not_only_the_one_that_names_the_call() -> None:
    world = World(SHOP.replace("after: charge.read, same: {body.charge: path.charge}", "after: charge.any"))
    world.do(read())
    assert world.do(refund()) == "allow"


@pytest.mark.parametrize("body", ['{"id": null}', '{"id": ["x"]}', '{"id": {"x": 1}}', "{}"])
def test_a_value_that_is_not_one_is_refused(body: str) -> None:
    world = one("{after: read, same: {body.id: path.id}}")
    world.do(call("GET", "/items/x"))
    refused = world.ask(call("POST", "/buy", body))
    assert (refused.code, refused.violations[0].field) == ("prerequisite-missing", "body.id")


def test_the_body_of_the_earlier_call_is_compared_and_read_for_it() -> None:
    world = one("{after: find, same: {body.id: body.query.id}}")
    find = call("POST", "/find", '{"query": {"id": 7}}')
    assert needs(world.ruleset, find).body
    assert not needs(world.ruleset, call("GET", "/items/x")).body
    world.do(find)
    world.do(call("POST", "/find", Body("undecodable", problem="cut off")))
    world.do(call("POST", "/find", "{}"))
    world.do(call("POST", "/find", UNREAD_BODY))
    assert world.do(call("POST", "/buy", '{"id": 7.0}')) == "allow"
    assert world.do(call("POST", "/buy", '{"id": 8}')) == "prerequisite-missing"


PAID = "{after: read, same: {body.id: path.id}, answer: {body.paid: true}}"


def test_the_answer_to_the_earlier_call_has_to_fit() -> None:
    world = one(PAID)
    assert needs(world.ruleset, call("GET", "/items/x")).answer
    assert not needs(world.ruleset, call("GET", "/peek/x")).answer
    assert not needs(one("{after: read, answer: {status: 200}}").ruleset, call("GET", "/items/x")).answer
    world.do(call("GET", "/items/x"), said('{"paid": false}'))
    world.do(call("GET", "/items/x"), said('{"paid": true}', 402))
    world.do(call("GET", "/items/x"), OK)  # whose body was not kept
    refused = world.ask(BUY)
    assert refused.next[0] == (
        'First call `read` (GET https://api.example.com/items/x) with path.id "x"; '
        "its answer has to be: body.paid eq true."
    )
    world.do(call("GET", "/items/x"), said('{"paid": true}'))
    assert world.do(BUY) == "allow"


EXPECTS = """
tools:
  look: {match: "GET https://api.example.com/items/{id}", expect: {body.ok: true}}
  find: {match: POST https://api.example.com/find, expect: {body.ok: true}}
  buy: POST https://api.example.com/buy
rules:
  - {id: look, tool: [look, find], allow: true, dedupe: {window: 1d, by: agent}}
  - {id: buy, tool: buy, allow: true, require: {after: [look, find]}}
"""


@pytest.mark.parametrize(
    ("answer", "decided"),
    [
        (said('{"ok": true}'), "allow"),
        (said('{"ok": false}'), "prerequisite-missing"),
        (OK, "prerequisite-missing"),  # whose body was not kept
        (LOST, "prerequisite-missing"),
    ],
)
def test_what_success_is_the_tool_may_say(answer: Answer, decided: str) -> None:
    world = World(EXPECTS)
    world.do(call("GET", "/items/x"), answer)
    assert world.do(BUY) == decided


def test_what_success_is_holds_for_a_replay_too() -> None:
    world = World(EXPECTS)
    find = call("POST", "/find", "{}")
    world.do(find, said('{"ok": true}'))
    other = msgspec.structs.replace(find, run="run-2")
    decision = decide(world.ruleset, world.state, other, "call-9", START)
    for text, decided in (('{"ok": false}', "prerequisite-missing"), ('{"ok": true}', "allow")):
        given = replayed(world.ruleset, world.state, other, decision, "call-9", said(text), START)
        world.record(given.changes)
        assert world.do(msgspec.structs.replace(BUY, run="run-2")) == decided


def test_a_condition_on_the_status_stands_in_place_of_success() -> None:
    world = one("{after: read, same: {body.id: path.id}, answer: {status: 404}}")
    world.do(call("GET", "/items/x"))
    assert world.do(BUY) == "prerequisite-missing"
    world.do(call("GET", "/items/x"), answered(404))
    assert world.do(BUY) == "allow"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (WireText("ch_1"), "ch_1", True),
        (WireText("ch_1"), WireText("ch_1"), True),
        ("ch_1", "CH_1", False),
        (WireText("42"), 42, True),
        (42, "42", True),
        (WireText("042"), 42, False),
        (WireText("true"), True, True),
        (1, True, False),
        (WireText("café"), "cafe\u0301", False),
        (10**41, "1e41", True),
    ],
)
def test_values_are_the_same_when_they_are_spelled_the_same(one: Value, other: Value, same: bool) -> None:
    assert (spelled(one) == spelled(other)) is same


@pytest.mark.parametrize("value", [ABSENT, None, [], {}, Many(("a",)), Many(("a", "b"), ambiguous=True)])
def test_what_has_no_one_spelling(value: Value) -> None:
    assert spelled(value) is None


def test_a_replayed_answer_is_as_good_as_one_that_was_sent_for() -> None:
    rule_set = """
tools:
  quote: POST https://api.example.com/quotes
  buy: POST https://api.example.com/buy
rules:
  - {id: quote, tool: quote, allow: true, dedupe: {window: 24h, by: agent}}
  - {id: buy, tool: buy, allow: true, require: {after: quote, answer: {body.ok: true}}}
"""
    world = World(rule_set)
    quote = call("POST", "/quotes", "{}")
    world.do(quote, said('{"ok": true}'))
    other = msgspec.structs.replace(quote, run="run-2")
    decision = decide(world.ruleset, world.state, other, "call-9", START)
    assert decision.action == "replay"
    for answer, decided in ((said('{"ok": false}'), "prerequisite-missing"), (said('{"ok": true}'), "allow")):
        given = replayed(world.ruleset, world.state, other, decision, "call-9", answer, START)
        world.record(given.changes)
        assert world.do(msgspec.structs.replace(BUY, run="run-2")) == decided


def test_a_rule_that_comes_later_does_not_know_what_was_not_asked_for_then() -> None:
    world = World(SHOP)
    world.do(read())
    world.ruleset = rules(SHOP.replace("path.charge}, within: 30m", "path.charge}, within: 40m, count: 1"))
    assert world.do(refund()) == "allow"
    world.ruleset = rules(
        SHOP.replace("same: {body.charge: path.charge}", "same: {body.charge: path.charge, host: host}")
    )
    assert world.do(refund()) == "prerequisite-missing"
    world.do(read())
    assert world.do(refund()) == "allow"


def test_in_monitor_mode_it_is_told_and_nothing_stopped() -> None:
    watched = World(
        SHOP.replace("id: refund\n", "id: refund\n    mode: monitor\n") + "  - {id: open, tool: refund, allow: true}"
    )
    decision = watched.ask(refund())
    assert (decision.action, [each.code for each in decision.would]) == ("allow", ["prerequisite-missing"])
    every = World("mode: monitor" + SHOP)
    decision = every.ask(refund())
    assert (decision.action, [each.code for each in decision.would]) == ("allow", ["prerequisite-missing"])


def test_it_is_asked_before_what_consumes() -> None:
    world = World(SHOP + "    dedupe: 24h\n    throttle: 1/d\n")
    assert world.do(refund()) == "prerequisite-missing"
    world.do(read())
    assert world.do(refund()) == "allow"


NARROWED = "where: {body.final: true}, "
MET: list[tuple[str, str, str, bool]] = [
    ("only another tool is allowed", "read", "{id: b, tool: other, allow: true, throttle: 1/h}", False),
    ("another host is", "read", "{id: b, match: 'GET https://x.example.com/**', allow: true}", False),
    ("another scheme is", "read", "{id: b, match: 'GET http://api.example.com/**', allow: true}", False),
    (
        "another method is",
        "read",
        "{id: b, match: 'PUT https://api.example.com/**', allow: true, throttle: 1/h}",
        False,
    ),
    ("a rule that only watches does", "read", "{id: b, mode: monitor, tool: all, allow: true}", False),
    ("the tool is allowed", "read", "{id: b, tool: read, allow: true}", True),
    ("a wider tool is", "read", "{id: b, tool: all, allow: true}", True),
    ("a wider pattern is", "read", "{id: b, match: 'GET https://*.example.com/**', allow: true}", True),
    ("a host of it is", "wild", "{id: b, match: 'GET https://x.example.com/', allow: true}", True),
    ("perhaps a host of it is", "wild", "{id: b, match: 'GET https://{x}.example.org/', allow: true}", True),
    ("it asks for itself", "buy", "{id: b, tool: other, allow: true, throttle: 1/h}", False),
    (
        "it asks for other calls of its tool",
        f"buy, {NARROWED}",
        "{id: b, tool: other, allow: true, throttle: 1/h}",
        True,
    ),
]


@pytest.mark.parametrize(("require", "other", "met"), [case[1:] for case in MET], ids=[case[0] for case in MET])
def test_a_require_that_nothing_can_meet_is_warned_of(require: str, other: str, met: bool) -> None:
    file = f"""
version: 1
tools:
  read: "GET https://api.example.com/items/{{id}}"
  all: "GET https://api.example.com/**"
  wild: "GET https://*.example.com/"
  other: GET https://other.example.com/
  buy: POST https://api.example.com/buy
rules: [{{id: a, tool: buy, allow: true, throttle: 1/h, require: {require}}}, {other}]
"""
    found = [warning.code for warning in load([Source("test.yaml", file)], {}).warnings]
    assert found == ([] if met else ["unmet-require"])


# -- after -------------------------------------------------------------------------------------------------------------

WEB = """
tools:
  web: GET https://**
  post: POST https://**
  note: POST https://api.example.com/notes
  secret: {match: {request: "GET https://api.example.com/{what}", where: {query.level: high}}}
rules:
  - {id: open, tool: [web, post], allow: true}
  - {id: tainted, tool: post, unless: {tool: note}, after: web, deny: Nothing is sent out any more.}
"""
LOOK = call("GET", "/page")
SEND = call("POST", "/send")


@pytest.mark.parametrize("answer", [OK, LOST, answered(404), WITHDRAWN])
def test_a_deny_counts_from_the_decision_on_whatever_came_of_it(answer: Answer) -> None:
    world = World(WEB)
    assert world.do(SEND) == "allow"
    world.ask(LOOK)
    assert world.do(SEND) == "policy-denied"
    world.end(answer, "call-2")
    assert world.do(SEND, at=10**7) == "policy-denied"
    assert world.do(call("POST", "/notes")) == "allow"
    assert world.do(msgspec.structs.replace(SEND, run="run-2")) == "allow"
    assert world.do(msgspec.structs.replace(SEND, agent="bob")) == "policy-denied"
    assert world.refold() == world.state


def test_a_refused_call_does_not_taint() -> None:
    world = World(WEB + "  - {id: closed, match: 'GET https://api.example.com/page', deny: No.}")
    assert world.do(LOOK) == "policy-denied"
    assert world.do(SEND) == "allow"


def test_a_more_specific_tool_hides_nothing() -> None:
    world = World(WEB)
    decision = world.ask(call("GET", "/page", query=(("level", "high"),)))
    assert decision.tool == "secret"
    assert world.do(SEND) == "policy-denied"


def test_in_doubt_a_call_is_of_the_tool_for_a_deny_and_not_for_an_allow() -> None:
    text = """
tools:
  find: {match: {request: POST https://api.example.com/find, where: {body.kind: outside}}}
  send: POST https://api.example.com/send
rules:
  - {id: find, match: POST https://api.example.com/find, allow: true}
  - {id: send, tool: send, %s}
"""
    ambiguous = call("POST", "/find", form_body(("kind", "outside"), ("kind", "inside")))
    taint = World(text % "allow: true" + "  - {id: tainted, tool: send, after: find, deny: No.}")
    taint.do(ambiguous)
    assert taint.do(SEND) == "policy-denied"
    permit = World(text % "after: find, allow: true")
    permit.do(ambiguous)
    assert permit.do(SEND) == "no-allow"
    permit.do(call("POST", "/find", form_body(("kind", "outside"))))
    assert permit.do(SEND) == "allow"


def test_of_two_calls_at_once_the_one_decided_first_taints_the_other() -> None:
    world = World(WEB)
    assert world.ask(SEND).action == "allow"
    assert world.ask(LOOK).action == "allow"
    assert world.ask(SEND).code == "policy-denied"


ONCE = """
tools: {send: "POST https://**", web: "GET https://**"}
rules:
  - {id: open, tool: [send, web], allow: true}
  - {id: once, tool: send, after: send, deny: Once is enough.}
"""


def test_a_call_does_not_taint_itself() -> None:
    world = World(ONCE)
    assert world.ask(SEND).action == "allow"
    assert recheck(world.ruleset, world.state, SEND, "call-1", START) is None
    assert world.do(SEND) == "policy-denied"


def test_a_call_that_waits_sees_what_came_meanwhile() -> None:
    world = World(WEB)
    world.ask(SEND)
    assert recheck(world.ruleset, world.state, SEND, "call-1", START) is None
    world.ask(LOOK)
    refused = recheck(world.ruleset, world.state, SEND, "call-1", START)
    assert refused is not None
    assert refused.rules == ("tainted",)
    both = World(ONCE.replace("after: send", "after: web"))
    both.ask(call("GET", "/a"))
    assert recheck(both.ruleset, both.state, SEND, "call-1", START) is None  # its own
    both.ask(call("GET", "/b"))
    assert recheck(both.ruleset, both.state, SEND, "call-1", START) is not None


def test_rules_that_come_later_know_the_past() -> None:
    world = World(
        "tools: {web: 'GET https://**', post: 'POST https://**'}\nrules: [{id: open, tool: '*', allow: true}]"
    )
    world.do(LOOK)
    world.ruleset = rules(WEB)
    assert world.do(SEND) == "policy-denied"
    world.ruleset = rules(WEB.replace("[web, post], allow", "[web, post], after: web, allow"))
    assert world.do(call("GET", "/more")) == "allow"


@pytest.mark.parametrize("mode", ["mode: monitor", ""])
def test_what_monitor_mode_lets_out_taints(mode: str) -> None:
    world = World(mode + "\ntools: {web: 'GET https://**', post: 'POST https://**'}\nrules: []")
    assert world.do(LOOK) == ("allow" if mode else "no-allow")
    world.ruleset = rules(WEB)
    assert world.do(SEND) == ("policy-denied" if mode else "allow")


def test_a_rule_that_only_watches_tells_of_taint() -> None:
    world = World(WEB.replace("id: tainted,", "id: tainted, mode: monitor,"))
    world.do(LOOK)
    decision = world.ask(SEND)
    assert (decision.action, [each.rule for each in decision.would]) == ("allow", ["tainted"])


def test_a_replay_taints_the_run_that_gets_it() -> None:
    world = World("""
tools: {ask: POST https://api.example.com/ask, send: POST https://api.example.com/send}
rules:
  - {id: ask, tool: ask, allow: true, dedupe: {window: 24h, by: agent}}
  - {id: send, tool: send, allow: true}
  - {id: tainted, tool: send, after: ask, deny: No.}
""")
    asked = call("POST", "/ask", "{}")
    world.do(asked)
    other = {"run": "run-2"}
    assert world.do(msgspec.structs.replace(SEND, run="run-2")) == "allow"
    assert world.do(call("POST", "/ask", "{}", **other)) == "replay"
    assert world.do(msgspec.structs.replace(SEND, run="run-2")) == "policy-denied"


@pytest.mark.parametrize(
    ("rule", "answer", "decided"),
    [
        ("after: web, allow: true", None, "no-allow"),
        ("after: web, allow: true", OK, "allow"),
        ("after: web, allow: true", LOST, "no-allow"),
        ("allow: true, unless: {after: web}", None, "allow"),
        ("allow: true, unless: {after: web}", LOST, "no-allow"),
        ("allow: true, unless: {after: web}", OK, "no-allow"),
    ],
)
def test_an_allow_counts_success_and_loses_by_less(rule: str, answer: Answer | None, decided: str) -> None:
    world = World(f"""
tools: {{web: "GET https://**", post: "POST https://**"}}
rules: [{{id: read, tool: web, allow: true}}, {{id: send, tool: post, {rule}}}]
""")
    if answer is not None:
        world.do(LOOK, answer)
    assert world.do(SEND) == decided


@pytest.mark.parametrize(("answer", "decided"), [(None, "policy-denied"), (LOST, "policy-denied"), (OK, "allow")])
def test_to_be_excused_from_a_deny_takes_success(answer: Answer | None, decided: str) -> None:
    world = World(WEB.replace("unless: {tool: note}, after: web", "unless: {after: web}"))
    if answer is not None:
        world.do(LOOK, answer)
    assert world.do(SEND) == decided


def test_a_guard_counts_from_the_decision_on() -> None:
    world = World(WEB.replace("deny: Nothing is sent out any more.", "throttle: 1/h"))
    for _ in range(3):
        assert world.do(SEND) == "allow"
    world.do(LOOK, LOST)
    assert world.do(SEND) == "allow"
    assert world.do(SEND) == "rate-limited"


def test_why_it_does_not_apply_is_told() -> None:
    world = World(WEB.replace("[web, post], allow", "[web, post], after: [web, note], allow"))
    decision = world.ask(SEND)
    assert "this run has not called `note` or `web` before" in decision.detail
    seen = {each.id: each for each in explain(world.ruleset, State(), SEND, START).rules}
    assert not seen["tainted"].applies
    assert seen["tainted"].why_not[0].limit == "this run has not called `web` before"


def test_it_holds_nothing_of_the_calls_that_it_guards() -> None:
    world = one("{after: read, same: {body.id: path.id}}")
    (guard,) = world.ruleset.by_id["buy"].guards
    needed = needs(world.ruleset, BUY)
    assert (needed.body, needed.claim, needed.answer) == (True, False, False)
    assert guard.settle(Settled(BUY, "call-1", "buy", (), "done", OK), world.state, START) == ()


def test_a_discriminator_that_can_not_be_read() -> None:
    ruleset = rules("""
tools: {find: {match: {request: POST https://api.example.com/find, where: {body.kind: outside}}}}
rules: []
""")
    reading = Reading(ruleset, call("POST", "/find", UNREAD_BODY), START, NO_PAST)
    assert list(reading.matching("deny")) == ["find"]
    assert list(reading.matching("allow")) == []


def test_a_tool_with_a_mistake_of_its_own_is_not_told_of_twice() -> None:
    file = """
version: 1
tools:
  look: {match: "GET https://api.example.com/{id}", efect: read}
  buy: POST https://api.example.com/buy
rules:
  - {id: buy, tool: buy, allow: true, require: {after: look, same: {body.id: path.other}}}
"""
    with pytest.raises(RuleFileError) as error:
        load([Source("test.yaml", file)], {})
    assert [problem.code for problem in error.value.problems] == ["unknown-key"]
