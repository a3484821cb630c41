"""Contradictions in conditions: a table of what is told, and that nothing is told of what some call meets."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.contradictions import contradictions
from rules.fields import Field, Value, WireText
from rules.where import Condition, parse_where
from rules.yamltree import parse


def condition(text: str) -> Condition:
    return parse_where(parse(dedent(text), "test.yaml"))


def told(text: str, strict: bool = True) -> list[str]:
    return [f"{field}: {one}; {other}" for field, one, other in contradictions(condition(text), strict)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{body.n: {gt: 10, lt: 5}}", ["body.n: gt 10; lt 5"]),
        ("{body.n: {lt: 5, gt: 10}}", ["body.n: lt 5; gt 10"]),
        ("{body.n: {gt: 5, lt: 10}}", []),
        ("{body.n: {gte: 5, lte: 5}}", []),
        ("{body.n: {gt: 5, lte: 5}}", ["body.n: gt 5; lte 5"]),
        ("{body.n: {gte: 5, lt: 5}}", ["body.n: gte 5; lt 5"]),
        ("{body.n: {gte: 5.01, lte: 5.001}}", ["body.n: gte 5.01; lte 5.001"]),
        ("{body.n: {lt: 5, lte: 9}}", []),
        ("{body.n: {gt: 10}, body.m: {lt: 5}}", []),
        ("{not: {any: [{body.n: {lte: 10}}, {body.n: {gte: 5}}]}}", ["body.n: gt 10; lt 5"]),
        ("{not: {body.n: {gt: 10, lt: 5}}}", []),
        ("{body.n: {eq: 3, lt: 3}}", ["body.n: eq 3; lt 3"]),
        ("{body.n: {eq: 3, lte: 3}}", []),
        ('{body.n: {eq: "3", lte: 3}}', []),
        ('{body.n: {eq: "03", lte: 3}}', ['body.n: eq "03"; lte 3']),
        ("{body.n: {eq: a, in: [b, c]}}", ['body.n: eq "a"; in ["b", "c"]']),
        ("{body.n: {eq: a, in: [a, c]}}", []),
        ("{body.n: {in: [a, c], not_in: [c, a]}}", ['body.n: in ["a", "c"]; not_in ["c", "a"]']),
        ("{body.n: {in: [a, c], ne: a}}", []),
        ("{body.n: {eq: a, ne: a}}", ['body.n: eq "a"; ne "a"']),
        ("{body.n: {ne: a, not_in: [b]}}", []),
        ("{all: [{body.n: a}, {body.n: b}]}", ['body.n: eq "a"; eq "b"']),
        ("{any: [{body.n: a}, {body.n: b}]}", []),
        ("{body.n: a, any: [{body.n: b}, {body.m: c}]}", ['body.n: eq "a"; eq "b"']),
        ("{not: {body.n: {ne: a}}, body.n: b}", ['body.n: eq "a"; eq "b"']),
        ("{body.n: {prefix: ab, eq: ac}}", ['body.n: prefix "ab"; eq "ac"']),
        ("{body.n: {prefix: ab, glob: '*c'}}", []),
        ("{all: [{body.n: {prefix: ab}}, {body.n: {prefix: abc}}]}", []),
        ("{all: [{body.n: {prefix: ab}}, {body.n: {prefix: ac}}]}", ['body.n: prefix "ab"; prefix "ac"']),
        ("{body.n: {matches: '[0-9]+', eq: x}}", ['body.n: matches "[0-9]+"; eq "x"']),
        ("{body.n: {cidr: 10.0.0.0/8, eq: 11.0.0.1}}", ['body.n: cidr ["10.0.0.0/8"]; eq "11.0.0.1"']),
        ("{body.n: {eq: 1, prefix: '1.'}}", []),
        ("{body.n: {eq: true, in: [false]}}", ["body.n: eq true; in [false]"]),
        ('{body.n: {eq: true, in: ["true"]}}', []),
        ("{body.n: {exists: false, eq: 1}}", ["body.n: exists false; eq 1"]),
        ("{body.n: {exists: false, lt: 1}}", ["body.n: exists false; lt 1"]),
        ("{body.n: {exists: true, lt: 1}}", []),
        (
            "{all: [{body.n: {exists: true}}, {not: {body.n: {exists: true}}}]}",
            ["body.n: exists true; not exists true"],
        ),
        ("{all: [{body.n: {exists: false}}, {not: {body.n: {exists: true}}}]}", []),
        ("{'body.to[].n': {gt: 10, lt: 5}}", []),
        ("{all: [{body.n: {gt: 10, lt: 5}}, {body.n: {gt: 10, lt: 5}}]}", ["body.n: gt 10; lt 5"]),
    ],
)
def test_what_no_value_meets_is_told(text: str, expected: list[str]) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{body.n: {gt: 10, lt: 5}}", 1),
        ("{all: [{body.n: a}, {body.n: b}]}", 0),  # a list may hold both
        ("{body.n: {exists: false, lt: 1}}", 0),  # what is absent is taken to be below any bound
        ("{all: [{method: GET}, {method: POST}]}", 1),
        ("{path.n: {eq: a, lt: 5}}", 0),
        ("{path.n: {eq: a, prefix: b}}", 1),
    ],
)
def test_where_calls_are_refused_less_is_certain(text: str, expected: int) -> None:
    assert len(told(text, strict=False)) == expected


VALUES: list[Value] = [1, 2, 3, True, None, "a", "ab", "1", *map(WireText, ("1", "2", "true", "a", "ab", "1.0"))]
LIMITS = {
    **dict.fromkeys(("eq", "ne"), ("1", "2", "a", '"1"', "true", "null")),
    **dict.fromkeys(("in", "not_in"), ("[1, a]", '["1", ab]', "[2, true]")),
    **dict.fromkeys(("lt", "lte", "gt", "gte"), ("1", "2", "3")),
    "prefix": ("a", "ab", '"1"'),
    "glob": ("'a*'", "'1*'"),
    "exists": ("true", "false"),
}
TEST = st.sampled_from([f"{operator}: {limit}" for operator, limits in LIMITS.items() for limit in limits])
ONE = st.builds(
    lambda test, denied: f"not: {{body.n: {{{test}}}}}" if denied else f"body.n: {{{test}}}", TEST, st.booleans()
)


@given(st.lists(ONE.map(lambda one: f"{{{one}}}"), min_size=2, max_size=3))
def test_nothing_is_told_of_what_some_value_meets(tests: list[str]) -> None:
    asked = condition(f"{{all: [{', '.join(tests)}]}}")

    def reads(value: Value) -> bool:
        def read(_: Field) -> Value:
            return value

        return asked.holds(read, "allow")

    if any(map(reads, VALUES)):
        assert list(contradictions(asked, True)) == []
