"""What holds for every policy and every call: properties with the names of theorems, on generated policies.

At the end a reference model says in fifty lines how verdicts combine, and the engine has to agree with it.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Call
from rules.decide import apply, decide
from rules.load import Source, load
from rules.ruleset import RuleSet
from rules.state import State
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call

# A small universe in which rules and calls often meet: three paths, two methods, two agents, one field.
TOOLS = {"a": "POST https://api.example.com/a", "b": "https://api.example.com/b", "any": "https://api.example.com/**"}
PATHS = ("/a", "/b", "/c")
CONDITIONS = (
    {"query.n": {"lte": 5}},
    {"query.n": {"ne": 3}},
    {"query.n": {"exists": True}},
    {"body.x": {"matches": "a+"}},
)
SELECTORS: tuple[dict[str, Any], ...] = (
    *({"tool": name} for name in TOOLS),
    {"match": "POST https://api.example.com/{p}"},
    {"match": "https://**"},
)

selectors = st.builds(
    lambda target, where, agent: {
        **target,
        **({"where": where} if where else {}),
        **({"agent": agent} if agent else {}),
    },
    st.sampled_from(SELECTORS),
    st.sampled_from((None, None, *CONDITIONS)),
    st.sampled_from((None, None, "ann", "b*")),
)
unlesses = st.sampled_from((None, None, None, {"agent": "ann"}, {"where": CONDITIONS[0]}, {"tool": "b"}))
modes = st.sampled_from(("enforce", "enforce", "enforce", "monitor"))


def rule(selector: dict[str, Any], unless: Any, mode: str, verbs: dict[str, Any]) -> dict[str, Any]:
    return {**selector, **({"unless": unless} if unless else {}), "mode": mode, **verbs}


DEDUPES = ("1h", {"window": "10m", "methods": ["PUT"], "key": "query.n"}, {"on_duplicate": "reject"})
THROTTLES = ("1/min", "2/min", {"rate": "1/min", "by": "agent", "wait": "90s"}, {"pace": "1/min"})
BUDGETS = (
    {"sum": "count", "max": 2, "per": "1m"},
    {"sum": "query.n", "max": 9, "per": "1m", "by": "agent"},
    {"sum": "bytes", "max": 20, "per": "day"},
)
ENDS = (OK, OK, LOST, WITHDRAWN, answered(422), answered(429), None)

guards = st.fixed_dictionaries(
    {},
    optional={
        "dedupe": st.sampled_from(DEDUPES),
        "throttle": st.sampled_from(THROTTLES),
        "budget": st.sampled_from(BUDGETS),
    },
)
allows = st.builds(lambda given, s, u, m: rule(s, u, m, {"allow": True, **given}), guards, selectors, unlesses, modes)
denies = st.builds(lambda s, u, m: rule(s, u, m, {"deny": "No."}), selectors, unlesses, modes)
guardings = st.builds(lambda given, s, u, m: rule(s, u, m, given), guards.filter(bool), selectors, unlesses, modes)
policies = st.lists(st.one_of(allows, allows, denies, guardings), max_size=6)

calls = st.builds(
    lambda method, path, agent, query, body: call(method, path, body, agent=agent, query=query),
    st.sampled_from(("POST", "POST", "PUT", "GET")),
    st.sampled_from(PATHS),
    st.sampled_from(("ann", "bob")),
    st.sampled_from(((), (("n", "3"),), (("n", "5"),), (("n", "9"),), (("n", "1"), ("n", "9")))),
    st.sampled_from((None, '{"x": "aa"}', '{"x": ["aa", "b"]}', '{"x": "\\ud800"}')),
)
histories = st.lists(st.tuples(calls, st.integers(0, 90), st.sampled_from(ENDS)), max_size=8)


def build(policy: list[dict[str, Any]], mode: str = "enforce") -> RuleSet:
    """The rule set of generated rules, through the loader: one file for each rule."""
    named = [{"id": f"r{n}", **each} for n, each in enumerate(policy)]
    return merged([{"version": 1, "mode": mode, "tools": TOOLS}, *[{"version": 1, "rules": [each]} for each in named]])


def merged(files: list[dict[str, Any]]) -> RuleSet:
    sources = [Source(f"{n}.yaml", msgspec.json.encode(each).decode()) for n, each in enumerate(files)]
    return load(sources, {}).ruleset


def lived(ruleset: RuleSet, history: list[Any]) -> World:
    """A world in which `history` has happened: calls, seconds between them, and how they ended (None: not yet)."""
    world = World(ruleset)
    for asked, seconds, end in history:
        world.at_ns += seconds * S
        if world.ask(asked).action == "allow" and end is not None:
            world.end(end)
    return world


def goes_out(world: World, asked: Call) -> bool:
    return decide(world.ruleset, world.state, asked, "next", world.at_ns).action == "allow"


@given(st.lists(st.one_of(denies, guardings), max_size=6), calls)
def test_default_deny(policy: list[dict[str, Any]], asked: Call) -> None:
    assert decide(build(policy), State(), asked, "x", START).action == "deny"


@given(policies, denies, calls, histories)
def test_forbid_trumps_permit(policy: list[Any], deny: dict[str, Any], asked: Call, history: list[Any]) -> None:
    enforced = {**deny, "mode": "enforce"}
    alone = decide(build([{**SELECTORS[-1], "allow": True}, enforced]), State(), asked, "x", START)
    world = lived(build([*policy, enforced]), history)
    if alone.code == "policy-denied":
        decision = decide(world.ruleset, world.state, asked, "next", world.at_ns)
        assert (decision.action, decision.code) == ("deny", "policy-denied")
        assert f"r{len(policy)}" in decision.rules


@given(policies, calls, histories, st.randoms(use_true_random=False))
def test_order_does_not_matter(policy: list[Any], asked: Call, history: list[Any], random: Any) -> None:
    named = [{"version": 1, "rules": [{"id": f"r{n}", **each}]} for n, each in enumerate(policy)]
    files = [{"version": 1, "tools": TOOLS}, *named]
    shuffled = random.sample(files, len(files))
    one, other = lived(merged(files), history), lived(merged(shuffled), history)
    assert one.ledger == other.ledger
    assert decide(one.ruleset, one.state, asked, "x", one.at_ns) == decide(
        other.ruleset, other.state, asked, "x", one.at_ns
    )


@given(policies, selectors, unlesses, calls)
def test_adding_an_allow_only_widens(policy: list[Any], selector: Any, unless: Any, asked: Call) -> None:
    before, after = build(policy), build([*policy, rule(selector, unless, "enforce", {"allow": True})])
    if decide(before, State(), asked, "x", START).action == "allow":
        decision = decide(after, State(), asked, "x", START)
        assert decision.action == "allow" or decision.code == "policy-error"


@given(policies, st.one_of(denies, guardings), calls, histories)
def test_adding_a_deny_or_guard_only_narrows(policy: list[Any], more: Any, asked: Call, history: list[Any]) -> None:
    """What happened is the same in both worlds: the history of the narrower one. The added guard may delay the call to
    a moment at which another one has room for it: without the addition it goes out as well, when asked at that moment.
    """
    narrow = lived(build([*policy, more]), history)
    decision = decide(narrow.ruleset, narrow.state, asked, "next", narrow.at_ns)
    if decision.action != "allow":
        return
    wide = World(build(policy))
    apply(wide.state, [change for change in narrow.ledger if change.rule != f"r{len(policy)}"])
    wide.at_ns = narrow.at_ns
    if not goes_out(wide, asked):
        assert decision.send_at_ns > narrow.at_ns
        wide.at_ns = decision.send_at_ns
        assert goes_out(wide, asked)


def test_a_guard_that_waits_takes_a_call_to_where_another_has_room() -> None:
    policy: list[Any] = [{"tool": "a", "allow": True}, {"tool": "a", "throttle": "1/min"}]
    waiting = {"tool": "a", "throttle": {"rate": "1/min", "wait": "90s"}}
    asked = call("POST", "/a")
    narrow = lived(build([*policy, waiting]), [])
    first = decide(narrow.ruleset, narrow.state, asked, "first", narrow.at_ns)
    apply(narrow.state, first.changes)
    later = decide(narrow.ruleset, narrow.state, asked, "next", narrow.at_ns)
    assert (later.action, later.send_at_ns) == ("allow", narrow.at_ns + 60 * S)


@given(policies, calls, histories)
def test_refused_call_consumes_nothing(policy: list[Any], asked: Call, history: list[Any]) -> None:
    world = lived(build(policy), history)
    decision = decide(world.ruleset, world.state, asked, "x", world.at_ns)
    if decision.action != "allow":
        assert decision.changes == ()
        assert decision.send_at_ns == 0


@given(policies, calls, histories)
def test_error_never_allows(policy: list[Any], asked: Call, history: list[Any]) -> None:
    """A condition that cannot be told, in any rule in force that could apply: the call does not go out."""
    half = msgspec.structs.replace(asked, method="POST", body=call(body='{"x": "\\ud800"}').body)
    erring = {"match": "https://**", "where": CONDITIONS[-1]}
    for verb in ({"allow": True}, {"deny": "No."}, {"throttle": "1/s"}):
        world = lived(build([*policy, {**erring, **verb}]), history)
        decision = decide(world.ruleset, world.state, half, "x", world.at_ns)
        assert decision.action in ("deny", "throttle")


@given(policies, calls, histories)
def test_same_input_same_decision(policy: list[Any], asked: Call, history: list[Any]) -> None:
    one, other = lived(build(policy), history), lived(build(policy), history)
    first = decide(one.ruleset, one.state, asked, "x", one.at_ns)
    assert first == decide(one.ruleset, one.state, asked, "x", one.at_ns)
    assert first == decide(other.ruleset, other.state, asked, "x", other.at_ns)


@given(policies, calls, histories)
def test_replayed_ledger_gives_the_same_state(policy: list[Any], asked: Call, history: list[Any]) -> None:
    world = lived(build(policy), history)
    assert world.refold() == world.state


@given(policies, calls, histories)
def test_replayed_ledger_gives_the_same_decisions(policy: list[Any], asked: Call, history: list[Any]) -> None:
    world = lived(build(policy), history)
    live = decide(world.ruleset, world.state, asked, "x", world.at_ns)
    assert decide(world.ruleset, world.refold(), asked, "x", world.at_ns) == live


@given(policies, calls, histories)
def test_monitor_mode_lets_everything_out_and_says_what_enforcement_says(
    policy: list[Any], asked: Call, history: list[Any]
) -> None:
    enforced = build([{**each, "mode": "enforce"} for each in policy])
    watched = build([{**each, "mode": "enforce"} for each in policy], "monitor")
    expected = decide(enforced, State(), asked, "x", START)
    told = decide(watched, State(), asked, "x", START)
    assert told.action == "allow"
    assert told.would == expected.violations


@given(policies, calls)
def test_a_refusal_says_why(policy: list[Any], asked: Call) -> None:
    decision = decide(build(policy), State(), asked, "x", START)
    if decision.action != "allow":
        assert decision.violations
        assert decision.code == decision.violations[0].code
        assert "executed" in decision.detail
        assert decision.next


# --- the reference model ---


def number(asked: Call) -> list[int]:
    return [int(value) for name, value in asked.query if name == "n"]


def holds(where: dict[str, Any], asked: Call, strict: bool) -> bool:
    """The conditions above, by hand. `strict` is an allow's reading: doubt fails; else doubt holds where it bounds."""
    ((field, test),) = where.items()
    ((operator, _),) = test.items()
    if field == "body.x":
        value = asked.body.json["x"] if isinstance(asked.body.json, dict) else None
        values = value if isinstance(value, list) else [value]
        fitting = [isinstance(each, str) and set(each) == {"a"} for each in values]
        return not isinstance(value, list) and fitting[0] if strict else any(fitting)
    found = number(asked)
    if operator == "exists":
        return bool(found) and not (strict and len(found) > 1)
    if not found or (strict and len(found) > 1):
        return not strict
    return any(each <= 5 if operator == "lte" else each != 3 for each in found)


def selects(select: dict[str, Any], asked: Call, strict: bool) -> bool:
    names = {"any"} | {asked.path.strip("/")} & {"a", "b"} - ({"a"} if asked.method != "POST" else set())
    fits = select.get("tool", "any") in names
    if "match" in select:
        fits = asked.method == "POST" or select["match"] == "https://**"
    who = select.get("agent", asked.agent)
    return fits and asked.agent.startswith(who.rstrip("*")) and holds_all(select, asked, strict)


def holds_all(select: dict[str, Any], asked: Call, strict: bool) -> bool:
    return "where" not in select or holds(select["where"], asked, strict)


def model(policy: list[dict[str, Any]], asked: Call) -> bool:
    """Does the call go out, as the first ever? Iff no deny applies, an allow does, and no guard objects. The one reason
    that a guard has yet is an amount that cannot be measured."""
    denied = permitted = False
    for each in policy:
        if each["mode"] == "monitor":
            continue
        excuse = each.get("unless")
        if each.get("budget", {}).get("sum") == "query.n" and len(number(asked)) != 1:
            applies = selects(each, asked, False) or (each.get("allow") and selects(each, asked, True))
            denied |= bool(applies) and not (excuse and selects(excuse, asked, True))
        if "deny" in each:
            denied |= selects(each, asked, False) and not (excuse and selects(excuse, asked, True))
        if each.get("allow"):
            taken = excuse and (selects(excuse, asked, True) or selects(excuse, asked, False))
            permitted |= selects(each, asked, True) and not taken
    return permitted and not denied


readable = calls.filter(lambda asked: not isinstance(asked.body.json, dict) or asked.body.json["x"] != "\ud800")


@given(policies, readable)
def test_the_engine_combines_as_the_model(policy: list[dict[str, Any]], asked: Call) -> None:
    assert (decide(build(policy), State(), asked, "x", START).action == "allow") is model(policy, asked)


def test_the_model_has_cases_of_every_kind() -> None:
    """The universe is small enough to see that calls go out and do not, for every kind of reason."""
    kinds = itertools.product(SELECTORS, (None, *CONDITIONS[:3]), PATHS, ("POST", "GET"))
    seen = {
        model([{**select, **({"where": where} if where else {}), "mode": "enforce", "allow": True}], call(method, path))
        for select, where, path, method in kinds
    }
    assert seen == {True, False}
