"""Explaining: which tools matched, which rules applied, and why the others did not."""

from __future__ import annotations

import pytest

from rules.explain import explain
from rules.state import State
from rules.where import Miss
from tests.rules.world import START, call, rules

POLICY = """
tools:
  any: [https://api.example.com/**, 'https://**.example.com/**']
  order: POST https://api.example.com/orders
  cancel: {match: {request: POST https://api.example.com/orders, where: {query.op: {eq: cancel}}}}
  other: GET https://other.example.com/**
rules:
  - {id: a-small, tool: order, where: {query.n: {lte: 5}}, allow: true, dedupe: 1h, throttle: 1/min}
  - {id: b-boss, tool: order, agent: [boss, chief], run: "r-*", allow: true}
  - {id: c-no, match: "https://api.example.com/**", unless: {agent: ann}, deny: No.}
  - {id: d-far, tool: other, allow: true}
  - {id: e-watch, tool: any, mode: monitor, throttle: 5/min}
  - {id: f-odd, match: "https://api.example.com/**", where: {query.q: {matches: x}}, mode: monitor, deny: Odd.}
"""


def test_every_rule_is_told_and_why_it_does_not_apply() -> None:
    told = explain(rules(POLICY), State(), call(path="/orders", query=(("n", "9"),)), START)
    assert (told.decision.code, told.nearest, told.writes) == ("no-allow", "a-small", True)
    assert [(each.id, each.verbs, each.near, each.applies) for each in told.rules] == [
        ("a-small", ("allow", "dedupe", "throttle"), True, False),
        ("b-boss", ("allow",), True, False),
        ("c-no", ("deny",), True, False),
        ("d-far", ("allow",), False, False),
        ("e-watch", ("throttle",), True, True),
        ("f-odd", ("deny",), True, False),
    ]
    assert [each.why_not for each in told.rules[:4]] == [
        (Miss("query.n", '"9"', "lte 5"),),
        (Miss("agent", "ann", 'in ["boss", "chief"]'), Miss("run", "run-1", 'in ["r-*"]')),
        (Miss("", "", "its `unless` holds"),),
        (),
    ]
    assert told.rules[4].mode == "monitor"
    assert told.rules[0].source == "test.yaml:9"


@pytest.mark.parametrize(
    ("query", "tools"),
    [
        (
            (),
            [
                ("cancel", "its `where` does not hold"),
                ("order", ""),
                ("any", "`order` is more specific"),
            ],
        ),
        (
            (("op", "cancel"),),
            [
                ("cancel", ""),
                ("order", "`cancel` is more specific"),
                ("any", "`cancel` is more specific"),
            ],
        ),
    ],
)
def test_every_tool_is_told_and_which_names_the_call(
    query: tuple[tuple[str, str], ...], tools: list[tuple[str, str]]
) -> None:
    told = explain(rules(POLICY), State(), call(path="/orders", query=query), START)
    assert [(each.name, each.why_not) for each in told.tools] == tools
    assert told.tools[1].pattern == "POST https://api.example.com/orders"


def test_a_tool_that_matches_only_leniently_does_not_name_the_call() -> None:
    told = explain(rules(POLICY), State(), call("POST", "/x", segments=("a", "", "b")), START)
    assert [(each.name, each.why_not[:15]) for each in told.tools] == [("any", "it matches only")]


def test_a_call_that_two_tools_name_is_explained() -> None:
    twice = POLICY.replace(
        "  other:",
        "  void: {match: {request: POST https://api.example.com/orders, where: {query.v: {exists: true}}}}\n  other:",
    )
    told = explain(rules(twice), State(), call(path="/orders", query=(("op", "cancel"), ("v", "1"))), START)
    assert told.decision.code == "ambiguous-request"
    assert {each.name: each.why_not for each in told.tools}["void"] == "another tool is just as specific"


def test_a_tool_whose_discriminator_cannot_be_applied_is_told() -> None:
    text = "tools: {t: {match: {request: 'POST https://**', where: {query.q: {matches: x}}}}}\nrules: []"
    told = explain(rules(text), State(), call(query=(("q", "\ud800"),)), START)
    assert told.decision.code == "ambiguous-request"
    assert [each.why_not[:33] for each in told.tools] == ["its `where` could not be applied:"]


def test_a_rule_that_cannot_be_applied_is_told() -> None:
    told = explain(rules(POLICY), State(), call(path="/orders", query=(("q", "\ud800"),)), START)
    assert "surrogate" in told.rules[-1].error
    assert not told.rules[-1].applies


def test_an_allowed_call_has_no_nearest() -> None:
    told = explain(rules(POLICY), State(), call(path="/orders", query=(("n", "1"),)), START)
    assert (told.decision.action, told.nearest) == ("allow", "")
    assert [each.id for each in told.rules if each.applies] == ["a-small", "e-watch"]
