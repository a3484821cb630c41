"""Deciding, stage by stage: what refuses, which rule it was, and what is said about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rules.call import UNREAD_BODY, Body, Call
from rules.decide import decide, decides_messages, keep_until_ns, recheck
from rules.decision import Decision
from rules.index import Index
from rules.needs import Needs, needs
from rules.ruleset import BODY_CAP_BYTES
from rules.state import State
from tests.rules.world import LOST, START, S, World, answered, call, form_body, json_body, of_guards, rules

SHOP = """
tools:
  order.read: GET https://api.example.com/orders/{id}
  order.make: POST https://api.example.com/orders
  order.any: https://api.example.com/orders/**
rules:
  - {id: read, tool: order.read, allow: true}
  - {id: small, tool: order.make, where: {body.amount: {lte: 5000}}, allow: true}
  - {id: big, tool: order.make, agent: boss, where: {body.amount: {lte: 90000}, body.note: {exists: true}}, allow: true}
  - {id: no-delete, match: "DELETE https://**", unless: {agent: janitor}, deny: Archive it instead.}
  - {id: no-eve, agent: "ev*", deny: You may not.}
  - {id: nights, match: "https://night.example.com/**", during: {from: "22:00", to: "06:00", zone: UTC}, allow: true}
  - {id: no-secret, match: "GET https://api.example.com/secret/**", deny: Secret.}
  - {id: open, match: "GET https://api.example.com/{area}/**", where: {path.area: {ne: shut}}, allow: true}
  - {id: runs, match: "PUT https://api.example.com/**", run: "r-*", allow: true}
"""


def decided(text: str, asked: Call, at: int = START) -> Decision:
    return decide(rules(text), State(), asked, "call-1", at)


def make(body: str, **given: Any) -> Call:
    return call("POST", "/orders", body, **given)


# (what it is, the call, action, code, determining rules)
TABLE: list[tuple[str, Call, str, str, tuple[str, ...]]] = [
    ("an allow by tool", call("GET", "/orders/1"), "allow", "", ("open", "read")),
    ("an allow with a condition", make('{"amount": 5000}'), "allow", "", ("small",)),
    ("beyond the condition", make('{"amount": 5001}'), "deny", "no-allow", ()),
    ("the field is absent", make("{}"), "deny", "no-allow", ()),
    ("the field is of another type", make('{"amount": "5"}'), "deny", "no-allow", ()),
    ("a form's text is a number", call("POST", "/orders", form_body(("amount", "5"))), "allow", "", ("small",)),
    ("nothing matches", call("POST", "/other"), "deny", "no-allow", ()),
    ("another host", call("GET", "/orders/1", host="api.example.org"), "deny", "no-allow", ()),
    ("another port", call("GET", "/orders/1", port=8443), "deny", "no-allow", ()),
    ("another scheme", call("GET", "/orders/1", scheme="http", port=80), "deny", "no-allow", ()),
    ("a deny", call("DELETE", "/orders/1"), "deny", "policy-denied", ("no-delete",)),
    ("a deny that is excused, and no allow", call("DELETE", "/orders/1", agent="janitor"), "deny", "no-allow", ()),
    ("a deny of an agent, everywhere", call("GET", "/orders/1", agent="eve"), "deny", "policy-denied", ("no-eve",)),
    ("two denies", call("DELETE", "/x", agent="eve"), "deny", "policy-denied", ("no-delete", "no-eve")),
    ("a deny beats an allow", call("GET", "/secret/1"), "deny", "policy-denied", ("no-secret",)),
    ("its encoded slash is seen", call("GET", "/x", segments=("secret/1",)), "deny", "policy-denied", ("no-secret",)),
    ("an empty segment is seen", call("GET", "/secret//1"), "deny", "policy-denied", ("no-secret",)),
    ("a capture fits", call("GET", "/free/1"), "allow", "", ("open",)),
    ("a capture does not fit", call("GET", "/shut/1"), "deny", "no-allow", ()),
    ("by day", call("GET", "/", host="night.example.com"), "deny", "no-allow", ()),
    ("a run fits", call("PUT", "/x", run="r-1"), "allow", "", ("runs",)),
    ("a run does not fit", call("PUT", "/x", run="x"), "deny", "no-allow", ()),
]  # fmt: skip


@pytest.mark.parametrize(("what", "asked", "action", "code", "by"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_decided_and_by_which_rule(what: str, asked: Call, action: str, code: str, by: tuple[str, ...]) -> None:
    decision = decided(SHOP, asked)
    assert (decision.action, decision.code, decision.rules) == (action, code, by)
    assert decision.executed == "no"
    assert of_guards(decision.changes) == ()


def test_at_night_the_night_rule_applies() -> None:
    assert decided(SHOP, call("GET", "/", host="night.example.com"), START + 11 * 3600 * S).rules == ("nights",)


# (what it is, the call, the rule it names, (field, actual, limit) of each miss, a part of the detail)
OUTSIDE = "this is outside the times of its `during`"
NEAREST: list[tuple[str, Call, str, list[tuple[str, str, str]], str]] = [
    ("a bound", make('{"amount": 6000}'), "small", [("body.amount", "6000", "lte 5000")], "to be at most 5000"),
    ("absent", make("{}"), "small", [("body.amount", "absent", "lte 5000")], "and it is absent"),
    ("exists", make('{"amount": 6000}', agent="boss"), "big", [("body.note", "absent", "exists true")], "to be there"),
    ("a run", call("PUT", "/x", run="x"), "runs", [("run", "x", 'in ["r-*"]')], 'one of ["r-*"], and it is x'),
    ("the time", call("GET", "/", host="night.example.com"), "nights", [("", "", OUTSIDE)], OUTSIDE),
    ("nothing near", call("POST", "/other"), "", [("", "", "")], "No rule allows this call."),
]  # fmt: skip


@pytest.mark.parametrize(("what", "asked", "rule", "misses", "said"), NEAREST, ids=[row[0] for row in NEAREST])
def test_a_refusal_names_the_nearest_allow_and_what_it_missed(
    what: str, asked: Call, rule: str, misses: list[tuple[str, str, str]], said: str
) -> None:
    decision = decided(SHOP, asked)
    assert [(each.field, each.actual, each.limit) for each in decision.violations] == misses
    assert {each.rule for each in decision.violations} == {rule}
    assert said in decision.detail
    assert decision.detail.endswith("nothing was executed.")
    assert decision.next


def test_an_agent_is_told_to_change_a_call_only_where_a_change_would_help() -> None:
    near = decided("rules: [{id: a, match: 'GET https://**', where: {query.q: x}, allow: true}]", call("GET"))
    far = decided("rules: []", call("GET"))
    assert near.code == far.code == "no-allow"
    assert near.next == ("Do not repeat this call unchanged.", "Change it so that a rule allows it, or ask a person.")
    assert far.next == ("Do not repeat this call.", "Do without it, or ask a person.")


def test_the_nearest_allow_may_be_excused_or_watched() -> None:
    excused = decided("rules: [{id: a, match: 'GET https://**', unless: {agent: ann}, allow: true}]", call("GET"))
    assert "its `unless` holds" in excused.detail
    watched = decided("rules: [{id: a, match: 'GET https://**', mode: monitor, allow: true}]", call("GET"))
    assert "monitor mode" in watched.detail


def test_an_allow_that_the_agent_can_come_nearer_to_is_named_first() -> None:
    decision = decided(
        """
rules:
  - {id: a, match: "POST https://**", unless: {agent: ann}, allow: true}
  - {id: b, match: "POST https://**", where: {body.amount: {lte: 5000}}, allow: true}
""",
        make('{"amount": 6000}'),
    )
    assert "body.amount" in decision.detail


def test_the_reason_of_a_deny_is_what_the_agent_reads() -> None:
    decision = decided(SHOP, call("DELETE", "/x"))
    assert decision.detail == "Archive it instead. It was decided by policy, and nothing was executed."
    assert decided("rules: [{id: a, match: 'https://**', deny: No way}]", call()).detail.startswith("No way. It was")


# --- stage 0 ---

NAMES = """
tools:
  any: https://**
  api: https://api.example.com/**
  orders: POST https://api.example.com/orders
  cancel:
    match:
      - {request: POST https://api.example.com/orders, where: {body.op: {eq: cancel}}}
      - {request: POST https://api.example.com/orders, where: {body.cancel: {eq: true}}}
  void: {match: {request: POST https://api.example.com/orders, where: {query.void: {exists: true}}}, effect: read}
  encoded: GET https://api.example.com/{a}/{b}
rules:
  - {id: all, tool: any, allow: true, dedupe: 24h}
"""


@pytest.mark.parametrize(
    ("asked", "tool"),
    [
        (call("POST", "/", host="other.example"), "any"),
        (call("POST", "/other"), "api"),
        (call("POST", "/orders", "{}"), "orders"),
        (call("POST", "/orders", '{"op": "cancel"}'), "cancel"),
        (call("POST", "/orders", '{"op": "cancel", "cancel": true}'), "cancel"),
        (call("GET", "/a/b"), "encoded"),
        (call("POST", "/", host="other.example", scheme="http", port=80), ""),
    ],
)
def test_the_most_specific_tool_names_the_call(asked: Call, tool: str) -> None:
    assert decided(NAMES, asked).tool == tool


def test_a_call_that_two_tools_name_is_refused() -> None:
    decision = decided(NAMES, call("POST", "/orders", '{"op": "cancel"}', query=(("void", ""),)))
    assert (decision.code, decision.tool) == ("ambiguous-request", "")
    assert "`cancel` and `void` both name this call" in decision.detail


KINDS = """
tools:
  json: {match: POST https://api.example.com/json, body: json}
  none: {match: POST https://api.example.com/none, body: none}
  free: POST https://api.example.com/free
rules:
  - {id: all, tool: [json, none, free], allow: true, dedupe: 24h}
  - {id: a-eve, tool: free, agent: eve, where: {body.a: {eq: 1}}, deny: No.}
  - {id: deep, tool: free, where: {body.a.b: {eq: 1}}, deny: No.}
"""
TEXT = Body("text", "text/plain", text="{}", sha256=b"x", size_bytes=2)
BROKEN = Body("undecodable", "application/json", problem="not JSON", size_bytes=9)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/json", json_body("{}"), ""),
        ("/json", None, ""),
        ("/json", form_body(("a", "b")), "`json` takes a json body, and this one is application/x-www-form-urlencoded"),
        ("/json", TEXT, "`json` takes a json body, and this one is text/plain"),
        ("/json", BROKEN, "its body cannot be read (not JSON)"),
        ("/json", UNREAD_BODY, "its body was not read, and the rules have come to need it"),
        ("/none", None, ""),
        ("/none", json_body("{}"), "`none` takes no body"),
        ("/free", form_body(("a", "b")), ""),
        ("/free", TEXT, "rule `deep` has to read `body.a.b`, and the body is text/plain"),
        ("/free", Body("binary", sha256=b"x", size_bytes=1), "and the body is neither JSON nor a form"),
        ("/free", Body("text", "text/plain"), ""),
    ],
)
def test_a_body_that_the_rules_need_has_to_be_readable(path: str, body: Body | None, said: str) -> None:
    decision = decided(KINDS, call("POST", path, body))
    assert decision.code == ("ambiguous-request" if said else "")
    assert said in decision.detail
    watched = decided("mode: monitor\n" + KINDS, call("POST", path, body))
    assert watched.code == decision.code, "global monitor mode still refuses what cannot be read"


@pytest.mark.parametrize("body", [BROKEN, UNREAD_BODY, TEXT])
def test_a_body_that_nothing_needs_may_be_anything(body: Body) -> None:
    text = "tools: {up: {match: PUT https://api.example.com/**, body: json}}\nrules: [{id: a, tool: up, allow: true}]"
    assert decided(text, call("PUT", "/x", body)).action == "allow"


HALF = call("POST", "/x", '{"a": "\\ud800"}')
"""Its text cannot be matched with a regular expression: applying a rule that wants to is an error."""
ERRING = "match: 'POST https://**', where: {body.a: {matches: x}}"


@pytest.mark.parametrize(
    ("rule", "by"),
    [
        ("allow: true", ("r",)),
        ("deny: No.", ("r",)),
        ("throttle: 1/min", ("r",)),
        ("mode: monitor, deny: No.", ()),
        ("mode: monitor, throttle: 1/min", ()),
    ],
)
def test_an_error_refuses_unless_the_rule_is_only_watched(rule: str, by: tuple[str, ...]) -> None:
    text = f"rules: [{{id: a, match: 'https://**', allow: true}}, {{id: r, {ERRING}, {rule}}}]"
    decision = decided(text, HALF)
    assert decision.code == ("policy-error" if by else "")
    told = decision.violations or decision.would
    assert [(each.rule, each.code) for each in told] == [("r", "policy-error")]
    assert "surrogate" in told[0].detail


def test_an_error_in_a_watched_allow_is_passed_over() -> None:
    decision = decided(f"rules: [{{id: r, {ERRING}, mode: monitor, allow: true}}]", HALF)
    assert (decision.code, decision.detail[:28]) == ("no-allow", "No rule allows this call. It")


def test_an_error_in_a_discriminator_is_ambiguous() -> None:
    text = "tools: {t: {match: {request: 'POST https://**', where: {body.a: {matches: x}}}}}\nrules: []"
    assert decided(text, HALF).code == "ambiguous-request"


# --- sides ---


def test_an_unless_that_is_in_doubt_excuses_nothing_and_allows_nothing() -> None:
    deny = "{id: d, match: 'https://**', unless: {where: {query.n: {lte: 5}}}, deny: No.}"
    allow = "{id: a, match: 'https://**', unless: {where: {query.n: {gt: 5}}}, allow: true}"
    free = "{id: b, match: 'https://**', allow: true}"
    small, large = call(query=(("n", "5"),)), call(query=(("n", "6"),))
    assert [decided(f"rules: [{deny}, {free}]", each).action for each in (small, large, call())] == [
        "allow",
        "deny",
        "deny",
    ]
    assert [decided(f"rules: [{allow}]", each).action for each in (small, large, call())] == ["allow", "deny", "deny"]


def test_an_unless_may_name_tools_and_patterns_of_its_own() -> None:
    text = """
tools:
  a: POST https://api.example.com/a/{x}
rules:
  - {id: all, match: "https://**", allow: true}
  - id: not-a
    match: POST https://api.example.com/{top}/**
    unless: {tool: a, where: {path.x: {eq: "1"}}}
    deny: No.
  - id: not-b
    match: PUT https://**
    unless: {match: "https://api.example.com/b/{y}", where: {path.y: {eq: "1"}}}
    deny: No.
"""
    asked = [call("POST", "/a/1"), call("POST", "/a/2"), call("POST", "/b/1"), call("PUT", "/b/1"), call("PUT", "/b/2")]
    assert [decided(text, each).action for each in asked] == ["allow", "deny", "deny", "allow", "deny"]


def test_many_values_are_all_needed_for_an_allow_and_one_is_enough_for_a_deny() -> None:
    allow = "rules: [{id: a, match: 'https://**', where: {'body.to[].m': {glob: '*@acme.com'}}, allow: true}]"
    deny = allow[:-1] + ", {id: d, match: 'https://**', where: {'body.to[].m': {eq: x@acme.com}}, deny: No.}]"
    one, mixed = (
        call(body='{"to": [{"m": "a@acme.com"}]}'),
        call(body='{"to": [{"m": "a@acme.com"}, {"m": "b@evil.com"}]}'),
    )
    barred = call(body='{"to": [{"m": "a@acme.com"}, {"m": "x@acme.com"}]}')
    assert [decided(allow, each).action for each in (one, mixed, barred)] == ["allow", "deny", "allow"]
    assert [decided(deny, each).code for each in (one, mixed, barred)] == ["", "no-allow", "policy-denied"]


def test_what_an_allow_lets_through_its_guards_watch() -> None:
    """Every element of no elements fits, none of them does: the allow holds by the first, the guard all the same."""
    world = World("rules: [{id: a, match: 'https://**', where: {'body.to[]': {eq: x}}, allow: true, throttle: 1/min}]")
    asked = call(body='{"to": ["x"]}')
    assert [world.do(asked), world.do(asked)] == ["allow", "rate-limited"]


def test_a_guard_of_a_rule_that_does_not_allow_watches_what_another_allows() -> None:
    world = World("""
rules:
  - {id: all, match: "https://**", allow: true}
  - {id: strict, match: "https://**", where: {query.n: {lte: 5}}, allow: true, throttle: 1/min}
""")
    assert [world.do(call(query=(("n", "9"),))) for _ in range(2)] == ["allow", "allow"], "it does not apply"
    assert [world.do(call()) for _ in range(2)] == ["allow", "rate-limited"], "a guard applies on doubt"


# --- monitor mode ---

WATCHED = """
tools: {t: POST https://api.example.com/**}
rules:
  - {id: all, tool: t, allow: true}
  - {id: bar, tool: t, agent: eve, deny: No., mode: monitor}
  - {id: once, tool: t, dedupe: 24h, mode: monitor}
  - {id: pace, tool: t, throttle: {rate: 2/min, wait: 30s}, mode: monitor}
"""


def test_a_watched_rule_stops_nothing_and_tells_what_it_would_have_done() -> None:
    world = World(WATCHED)
    first = world.ask(call(agent="eve"))
    assert (first.action, [(each.rule, each.code) for each in first.would]) == ("allow", [("bar", "policy-denied")])
    second = world.ask(call(agent="eve"), at=1)
    assert [(each.rule, each.code) for each in second.would] == [
        ("bar", "policy-denied"),
        ("once", "duplicate-in-flight"),
    ]
    world.end(call_id="call-1")
    third = world.ask(call(), at=31)
    assert (third.action, third.send_at_ns) == ("allow", 0)
    assert [(each.rule, each.code, each.detail) for each in third.would] == [
        ("pace", "rate-limited", "The call would have waited 29 s for its turn.")
    ]
    late = world.ask(call(agent="eve"), at=32)
    assert [(each.rule, each.code) for each in late.would] == [
        ("bar", "policy-denied"),
        ("once", "duplicate"),
        ("pace", "rate-limited"),
    ]
    assert world.refold() == world.state


def test_what_a_watched_guard_could_not_apply_is_told() -> None:
    text = """
rules:
  - {id: a, match: "https://**", allow: true}
  - {id: t, match: "https://**", mode: monitor, throttle: {rate: 1/s, by: %s}}
"""
    asked = call("POST", "/x", UNREAD_BODY)
    assert decided(text % "body.a", asked).code == "ambiguous-request"
    assert decided(text % "agent", asked).action == "allow"


GLOBAL = """
mode: monitor
tools: {t: "POST https://api.example.com/orders"}
rules:
  - {id: once, tool: t, allow: true, dedupe: 24h, throttle: {rate: 2/min, wait: 30s}}
  - {id: bar, match: "DELETE https://**", deny: No.}
"""


def test_in_global_monitor_mode_everything_goes_out_and_what_enforcement_says_is_told() -> None:
    world = World(GLOBAL)
    told = []
    for at, asked in [
        (0, call("DELETE", "/orders")),
        (0, call("GET", "/x")),
        (0, call(agent="ann")),
        (0, call(agent="ann")),
        (1, call(agent="bob")),
        (2, call(agent="cid")),
        (31, call(agent="cid", credential="x")),
    ]:
        decision = world.ask(asked, at)
        assert (decision.action, decision.code, decision.send_at_ns) == ("allow", "", 0)
        told.append([each.code for each in decision.would])
    assert told == [
        ["policy-denied"],
        ["no-allow"],
        [],
        ["duplicate-in-flight"],
        [],
        ["rate-limited"],
        ["rate-limited"],
    ]
    world.end(call_id="call-3")
    replayed = world.ask(call(agent="ann"), 70)
    assert [(each.rule, each.code) for each in replayed.would] == [("once", "duplicate")]
    assert replayed.changes == ()
    world.ruleset = rules(GLOBAL.replace("mode: monitor", ""))
    assert world.ask(call(agent="ann"), 71).action == "allow", "enforced claims are apart from watched ones"


# --- what the shell is told ---

HEADS = """
tools:
  rest: https://api.example.com/**
  plain: POST https://api.example.com/plain
  op: {match: {request: POST https://api.example.com/op, where: {body.op: {eq: x}}}, cap: 1kB, credential: header.x-key}
  big: {match: POST https://api.example.com/big, cap: 32MiB}
  find: {match: POST https://api.example.com/find, effect: read}
  sub: {match: {request: POST https://api.example.com/find, where: {query.w: {exists: true}}}, effect: write}
  seek: {match: POST https://api.example.com/seek, effect: read}
rules:
  - {id: plain, tool: [plain, op, big, find, sub, seek], allow: true}
  - {id: keyed, tool: big, agent: ann, dedupe: 24h}
  - {id: found, tool: [find, sub, seek], dedupe: 24h}
  - {id: shy, match: "POST https://api.example.com/plain", agent: bob, where: {body.a: {eq: 1}}, deny: No.}
  - id: late
    match: POST https://api.example.com/late
    during: {from: "22:00", to: "06:00", zone: UTC}
    where: {body.a: {eq: 1}}
    deny: No.
  - {id: spared, match: "POST https://api.example.com/spared", unless: {where: {body.a: {eq: 1}}}, deny: No.}
"""
NEEDS = [
    (call(path="/plain"), Needs("", BODY_CAP_BYTES, False, "")),
    (call(path="/plain", agent="bob"), Needs("rule `shy`", BODY_CAP_BYTES, False, "")),
    (call(path="/op"), Needs("tool `op`", BODY_CAP_BYTES, False, "header.x-key")),
    (call(path="/big"), Needs("rule `keyed`", 32 << 20, True, "")),
    (call(path="/big", agent="bob"), Needs("", 32 << 20, False, "")),
    (call(path="/find"), Needs("rule `found`", BODY_CAP_BYTES, True, "")),
    (call(path="/seek"), Needs("", BODY_CAP_BYTES, False, "")),
    (call(path="/late"), Needs("rule `late`", BODY_CAP_BYTES, False, "")),
    (call(path="/spared"), Needs("rule `spared`", BODY_CAP_BYTES, False, "")),
    (call(path="//plain"), Needs("", BODY_CAP_BYTES, False, "")),
    (call(path="/none"), Needs("", BODY_CAP_BYTES, False, "")),
]


@pytest.mark.parametrize(("head", "needed"), NEEDS, ids=[head.path + head.agent for head, _ in NEEDS])
def test_what_a_decision_will_need(head: Call, needed: Needs) -> None:
    assert needs(rules(HEADS), msgspec.structs.replace(head, body=UNREAD_BODY)) == needed


@pytest.mark.parametrize(("head", "needed"), NEEDS, ids=[head.path + head.agent for head, _ in NEEDS])
def test_a_body_that_nobody_needs_changes_no_decision(head: Call, needed: Needs) -> None:
    unread = decide(rules(HEADS), State(), msgspec.structs.replace(head, body=UNREAD_BODY), "call-1", START)
    read = decide(rules(HEADS), State(), msgspec.structs.replace(head, body=json_body('{"a": 1}')), "call-1", START)
    if needed.body:
        assert unread.code == "ambiguous-request" != read.code
    else:
        assert unread == read


def test_facts_are_what_was_read() -> None:
    decision = decided(SHOP, make('{"amount": 50.0, "note": "x", "other": 1}', agent="boss"))
    assert decision.facts == {"body.amount": "50.0", "body.note": "x"}
    assert decided(SHOP, call("GET", "/orders/1")).facts == {"path.area": "orders"}
    assert decided(SHOP, call("GET", "/", host="other.example")).facts == {}


def test_facts_that_differ_by_rule_are_all_told() -> None:
    text = """
rules:
  - {id: a, match: "GET https://api.example.com/{x}/**", where: {path.x: {eq: one}}, allow: true}
  - {id: b, match: "GET https://api.example.com/*/{x}", where: {path.x: {eq: two}}, allow: true}
  - {id: c, match: "GET https://api.example.com/*/{x}", where: {path.x: {eq: two}}, allow: true}
  - {id: d, match: "https://{x}.example.com/**", where: {path.x: {eq: api}}, allow: true}
"""
    assert decided(text, call("GET", "/one/two")).facts == {"path.x": "one", "path.x#2": "two", "path.x#3": "api"}


EXACT = """
tools: {wide: "https://*.example.com/**", near: "https://api.example.com/near/**"}
rules:
  - {id: w, tool: wide, allow: true}
  - {id: m, match: "https://api.example.com/mine/**", allow: true}
"""


@pytest.mark.parametrize(("path", "exact"), [("/x", False), ("/mine/x", True), ("/near/x", True)])
def test_an_exact_host_is_told(path: str, exact: bool) -> None:
    assert decided(EXACT, call("GET", path)).exact_host is exact
    assert decided("mode: monitor" + EXACT, call("GET", path)).exact_host is exact


def test_a_place_is_checked_again_with_the_rules_of_then() -> None:
    asked = call("GET", "/orders/1")
    now = rules(SHOP)
    assert recheck(now, State(), asked, "call-1", START) is None
    stopped = rules(SHOP + "  - {id: stop, match: 'https://**', deny: Stopped.}")
    refused = recheck(stopped, State(), asked, "call-1", START)
    assert refused is not None
    assert (refused.code, refused.rules) == ("policy-denied", ("stop",))
    assert recheck(rules("mode: monitor" + SHOP), State(), call("DELETE"), "call-1", START) is None
    unread = recheck(rules(KINDS), State(), call(path="/json", body=UNREAD_BODY), "call-1", START)
    assert unread is not None
    assert unread.code == "ambiguous-request"


def test_an_outcome_is_settled_by_the_rules_that_let_the_call_out() -> None:
    world = World("rules: [{id: a, match: 'https://**', allow: true, dedupe: 24h, throttle: 5/min}]")
    before = world.ruleset
    decision = world.ask(call())
    assert keep_until_ns(decision) == START + 24 * 3600 * S
    assert {change.op for change in of_guards(decision.changes)} == {"claim", "admit"}
    assert world.end(LOST).kind == "unknown"
    assert world.do(call()) == "outcome-unknown"
    assert world.ruleset is before
    assert keep_until_ns(decided(SHOP, call("GET", "/orders/1"))) == 0


def test_several_outcomes_of_one_call_settle_each_rule() -> None:
    world = World("""
tools: {t: POST https://api.example.com/**}
rules:
  - {id: a, tool: t, allow: true, dedupe: 1h}
  - {id: b, tool: t, dedupe: {window: 2h, key: query.q}}
""")
    world.ask(call())
    outcome = world.end(answered(422))
    assert [(change.rule, change.op) for change in outcome.changes] == [("a", "release"), ("b", "release")]


def test_whichever_rules_apply_together_each_has_its_guards_asked() -> None:
    """Of 2,048 sets of rules, more than are remembered, each one twice."""
    where = "match: 'GET https://**'"
    lines = [f"  - {{id: r{n:02}, {where}, where: {{query.q{n:02}: 1}}, throttle: 5/h}}" for n in range(11)]
    ruleset = rules("\n".join(["rules:", f"  - {{id: all, {where}, allow: true}}", *lines]))
    for _ in range(2):
        for number in range(2**11):
            named = [n for n in range(11) if number >> n & 1]
            asked = call("GET", "/", query=tuple((f"q{n:02}", "1") for n in named))
            changes = decide(ruleset, State(), asked, "call-1", START).changes
            assert [change.rule for change in changes] == [f"r{n:02}" for n in named]


def test_an_empty_rule_set_allows_nothing() -> None:
    empty = msgspec.structs.replace(rules("rules: []"), index=Index.build(()))
    decision = decide(empty, State(), call(), "x", START)
    assert (decision.action, decision.code, decision.detail) == (
        "deny",
        "no-allow",
        "No rule allows this call. It was decided by policy, and nothing was executed.",
    )


UNRECORDED = """
tools:
  look: GET https://api.example.com/look
  fetch: GET https://api.example.com/fetch
  odd: {match: GET https://api.example.com/odd, effect: write}
  search: {match: POST https://api.example.com/search, effect: read}
rules:
  - {id: open, match: GET|HEAD https://api.example.com/**, allow: true, unrecorded: allow}
  - {id: search, tool: search, allow: true, unrecorded: allow}
  - {id: shut, match: "https://api.example.com/{any}/shut", allow: true}
  - {id: slow, match: GET https://api.example.com/slow, throttle: 5/min}
  - {id: tainted, match: POST https://api.example.com/**, after: fetch, deny: Not after a fetch.}
"""


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        (call("GET", "/other"), True),
        (call("GET", "/look"), True),
        (call("POST", "/search"), True),
        (call("GET", "/a/shut"), True),
        (call("POST", "/a/shut"), False),
        (call("GET", "/odd"), False),
        (call("GET", "/slow"), False),
        (call("GET", "/fetch"), False),
        (call("DELETE", "/other"), False),
    ],
    ids=[
        "a read that a rule lets",
        "a read of a tool: that it was made is remembered, but nobody asks for it",
        "a tool that says that it reads",
        "one rule is enough",
        "a write, and a rule that does not say so",
        "a GET that says that it writes",
        "a read that something counts",
        "a read that taints the run",
        "what is refused",
    ],
)
def test_what_may_go_unrecorded(asked: Call, may: bool) -> None:
    assert decided(UNRECORDED, asked).unrecorded == may


def test_without_the_word_nothing_goes_unrecorded() -> None:
    without = UNRECORDED.replace(", unrecorded: allow", "")
    assert not any(decided(without, call("GET", path)).unrecorded for path in ("/other", "/look"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("MESSAGE wss://api.example.com/live", True),
        ("GET|MESSAGE wss://**.example.com/**", True),
        ("wss://api.example.com/live", False),
        ("MESSAGE wss://api.example.com/other", False),
        ("MESSAGE ws://api.example.com/live", False),
    ],
)
def test_messages_are_decided_where_a_pattern_says_so(said: str, told: bool) -> None:
    ruleset = rules(f'rules: [{{id: a, match: "{said}", allow: true}}]')
    assert decides_messages(ruleset, call("GET", "/live", scheme="wss")) is told
