"""Conditions: what each operator makes of each kind of value, on each side, and what is wrong with a bad condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.checks import REGEX_LENGTH
from rules.fields import ABSENT, ConditionError, Field, Many, Value, WireText
from rules.problems import RuleFileError
from rules.where import OPERATORS, Condition, Miss, Side, parse_where
from rules.yamltree import parse

W = WireText
BIG = 2**53


def where(text: str) -> Condition:
    return parse_where(parse(text, "rules.yaml"))


def reader(values: Mapping[str, Value]) -> Callable[[Field], Value]:
    return lambda field: values.get(field.text, ABSENT)


def both(*values: object) -> Value:
    return Many(values, ambiguous=True)  # type: ignore[arg-type]


def each(*values: object) -> Value:
    return Many(values)  # type: ignore[arg-type]


YES, NO = True, False
# the test of body.x, the value of body.x, whether it holds for an allow, and for a deny
TESTS: list[tuple[str, Value, bool, bool]] = [
    # eq and ne: values of one type
    ("{eq: main}", "main", YES, YES),
    ("{eq: main}", "Main", NO, NO),
    ("{eq: main}", "main ", NO, NO),
    ("{ne: main}", "dev", YES, YES),
    ("{ne: main}", "main", NO, NO),
    ("{eq: 100}", 100, YES, YES),
    ("{eq: 100}", Decimal("100.0"), YES, YES),
    ("{eq: 100}", Decimal("1e2"), YES, YES),
    ("{eq: 1e2}", 100, YES, YES),
    ("{eq: 0.1}", Decimal("0.10"), YES, YES),
    ("{eq: 100}", 101, NO, NO),
    ("{ne: 100}", 101, YES, YES),
    ("{ne: 100}", Decimal("1e2"), NO, NO),
    (f"{{eq: {BIG + 1}}}", BIG, NO, NO),
    (f"{{eq: {BIG + 1}}}", BIG + 1, YES, YES),
    (f"{{ne: {BIG + 1}}}", Decimal(BIG), YES, YES),
    ("{eq: true}", True, YES, YES),
    ("{eq: true}", False, NO, NO),
    ("{ne: true}", False, YES, YES),
    # null is a value: it equals null, and differs from all else
    ("{eq: null}", None, YES, YES),
    ("{eq: null}", "", NO, NO),
    ("{eq: null}", W(""), NO, NO),
    ("{eq: null}", [], NO, NO),
    ("{ne: null}", 0, YES, YES),
    ("{eq: main}", None, NO, NO),
    ("{ne: main}", None, YES, YES),
    # another type than the limit's: it can not be told
    ("{eq: 100}", "100", NO, NO),
    ("{ne: 100}", "100", NO, YES),
    ("{eq: '100'}", 100, NO, NO),
    ("{ne: '100'}", 100, NO, YES),
    ("{eq: 1}", True, NO, NO),
    ("{ne: 1}", True, NO, YES),
    ("{eq: true}", 1, NO, NO),
    ("{eq: true}", "true", NO, NO),
    ("{ne: main}", {"a": 1}, NO, YES),
    ("{ne: 100}", {"a": 1}, NO, YES),
    # text from the wire may spell a number, or a truth
    ("{eq: 100}", W("100"), YES, YES),
    ("{eq: 100}", W("100.00"), YES, YES),
    ("{eq: '100'}", W("100"), YES, YES),
    ("{eq: '100'}", W("100.0"), NO, NO),
    ("{eq: 100}", W("1e2"), NO, NO),
    ("{ne: 100}", W("1e2"), NO, YES),
    ("{eq: true}", W("true"), YES, YES),
    ("{eq: false}", W("true"), NO, NO),
    ("{eq: true}", W("True"), NO, NO),
    ("{ne: true}", W("1"), NO, YES),
    # absent
    ("{eq: main}", ABSENT, NO, NO),
    ("{ne: main}", ABSENT, NO, YES),
    ("{eq: null}", ABSENT, NO, NO),
    ("{ne: null}", ABSENT, NO, YES),
    # in and not_in
    ("{in: [a, b]}", "b", YES, YES),
    ("{in: [a, b]}", "c", NO, NO),
    ("{in: [a, b]}", ABSENT, NO, NO),
    ("{in: [a, b]}", 5, NO, NO),
    ("{in: [1, 2.5]}", Decimal("2.50"), YES, YES),
    ("{in: [a, null]}", None, YES, YES),
    ("{in: [1, a]}", "a", YES, YES),
    ("{not_in: [a, b]}", "c", YES, YES),
    ("{not_in: [a, b]}", "b", NO, NO),
    ("{not_in: [a, b]}", ABSENT, NO, YES),
    ("{not_in: [a, b]}", 5, NO, YES),
    ("{not_in: [a, null]}", "b", YES, YES),
    ("{not_in: [1, a]}", "b", NO, YES),
    # bounds: numbers, exactly
    ("{lt: 5}", 4, YES, YES),
    ("{lt: 5}", 5, NO, NO),
    ("{lte: 5}", 5, YES, YES),
    ("{lte: 5}", Decimal("5.000000000000000000000000000000000001"), NO, NO),
    ("{gt: 5}", 5, NO, NO),
    ("{gt: 5}", Decimal("5.1"), YES, YES),
    ("{gte: 5}", Decimal("5.0"), YES, YES),
    ("{gte: 5}", -6, NO, NO),
    ("{gt: 0, lte: 5}", 3, YES, YES),
    ("{gt: 0, lte: 5}", 0, NO, NO),
    (f"{{gt: {BIG}}}", BIG + 1, YES, YES),
    ("{lt: 0.3}", Decimal("0.29999999999999999999"), YES, YES),
    ("{lt: 5}", Decimal("1e999999"), NO, NO),
    ("{gt: 5}", Decimal("1e-999999"), NO, NO),
    # what spells no number fails an allow, and never escapes a deny
    ("{lte: 5}", "5", NO, YES),
    ("{gt: 5}", "9", NO, YES),
    ("{lte: 5}", True, NO, YES),
    ("{lte: 5}", None, NO, YES),
    ("{lte: 5}", ABSENT, NO, YES),
    ("{gt: 5}", ABSENT, NO, YES),
    ("{lte: 5}", {}, NO, YES),
    ("{lte: 5}", [], NO, YES),
    ("{lte: 5}", W("5"), YES, YES),
    ("{lte: 5}", W("-7.25"), YES, YES),
    ("{lte: 5}", W("6"), NO, NO),
    ("{lte: 5}", W("05"), NO, YES),
    ("{lte: 5}", W("+5"), NO, YES),
    ("{lte: 5}", W(" 5"), NO, YES),
    ("{lte: 5}", W("5\n"), NO, YES),
    ("{lte: 5}", W("5."), NO, YES),
    ("{lte: 5}", W(".5"), NO, YES),
    ("{lte: 5}", W("1e0"), NO, YES),
    ("{lte: 5}", W("1_0"), NO, YES),
    ("{lte: 5}", W("0x1"), NO, YES),
    ("{lte: 5}", W("٣"), NO, YES),
    ("{lte: 5}", W("NaN"), NO, YES),
    ("{lte: 5}", W(""), NO, YES),
    ("{gt: 5}", W("9" * 401), NO, YES),
    # matches: the whole value
    ("{matches: 'a|b'}", "a", YES, YES),
    ("{matches: 'a|b'}", "ab", NO, NO),
    ("{matches: 'a'}", "xax", NO, NO),
    ("{matches: 'a'}", "a\n", NO, NO),
    ("{matches: '(?m)a'}", "b\na", NO, NO),
    ("{matches: '(?m)^a$'}", "b\na\nb", NO, NO),
    ("{matches: 'a.b'}", "a\nb", NO, NO),
    ("{matches: '(?s)a.b'}", "a\nb", YES, YES),
    ("{matches: '(?i)abc'}", "aBC", YES, YES),
    ("{matches: 'a(?i)bc'}", "aBC", YES, YES),
    ("{matches: 'a(?i)bc'}", "ABC", NO, NO),
    ("{matches: '^[^@]+@acme\\.com$'}", "x@acme.com", YES, YES),
    ("{matches: '^[^@]+@acme\\.com$'}", "x@acme.com.evil.example", NO, NO),
    ("{matches: '[^@]+@acme\\.com'}", "x@evil.example\n@acme.com", NO, NO),
    ('{matches: "(?x) a b # why\\n"}', "ab", YES, YES),
    ("{matches: '\\d+'}", "12", YES, YES),
    ("{matches: '\\d+'}", "٣", NO, NO),
    ("{matches: '\\w+'}", "é", NO, NO),
    ("{matches: '\\p{L}+'}", "é", YES, YES),
    ("{matches: '(?P<x>a)+'}", "aa", YES, YES),
    ("{matches: '.*'}", "", YES, YES),
    ("{matches: '5'}", W("5"), YES, YES),
    ("{matches: '5'}", 5, NO, NO),
    ("{matches: '.*'}", ABSENT, NO, NO),
    ("{matches: 'null'}", None, NO, NO),
    # prefix and glob
    ("{prefix: 'ch_'}", "ch_1", YES, YES),
    ("{prefix: 'ch_'}", "xch_1", NO, NO),
    ("{prefix: 'ch_'}", "CH_1", NO, NO),
    ("{prefix: 'ch_'}", 1, NO, NO),
    ("{prefix: 'ch_'}", ABSENT, NO, NO),
    ("{glob: 'a*z'}", "a.b\nz", YES, YES),
    ("{glob: 'a*z'}", "az", YES, YES),
    ("{glob: 'a*z'}", "azx", NO, NO),
    ("{glob: 'a?z'}", "aéz", YES, YES),
    ("{glob: 'a?z'}", "az", NO, NO),
    ("{glob: '[a].(b)+$^\\d{1}|&~-#'}", "[a].(b)+$^\\d{1}|&~-#", YES, YES),
    ("{glob: 'a.b'}", "axb", NO, NO),
    ("{glob: '*'}", ABSENT, NO, NO),
    ("{glob: '*'}", [], NO, NO),
    # exists is never in doubt
    ("{exists: true}", "", YES, YES),
    ("{exists: true}", None, YES, YES),
    ("{exists: true}", ABSENT, NO, NO),
    ("{exists: false}", ABSENT, YES, YES),
    ("{exists: false}", None, NO, NO),
    ("{exists: false}", [], NO, NO),
    # cidr
    ("{cidr: 10.0.0.0/8}", "10.1.2.3", YES, YES),
    ("{cidr: 10.0.0.0/8}", "11.1.2.3", NO, NO),
    ("{cidr: [10.0.0.0/8, 'fd00::/8']}", "fd00::1", YES, YES),
    ("{cidr: 10.0.0.1}", "10.0.0.1", YES, YES),
    ("{cidr: 10.0.0.0/8}", "::ffff:10.1.2.3", YES, YES),
    ("{cidr: 10.0.0.0/8}", W("10.1.2.3"), YES, YES),
    ("{cidr: 10.0.0.0/8}", "10.1.2.03", NO, NO),
    ("{cidr: 10.0.0.0/8}", "example.com", NO, NO),
    ("{cidr: 0.0.0.0/0}", 167837953, NO, NO),
    ("{cidr: 0.0.0.0/0}", ABSENT, NO, NO),
    # the short form
    ("main", "main", YES, YES),
    ("5", Decimal("5.0"), YES, YES),
    ("true", "true", NO, NO),
    # many values: every one for an allow, any for a deny
    ("{eq: a}", each("a", "a"), YES, YES),
    ("{eq: a}", each("a", "b"), NO, YES),
    ("{eq: a}", each("b", "c"), NO, NO),
    ("{ne: a}", each("a", "b"), NO, YES),
    ("{ne: a}", each("a", "a"), NO, NO),
    ("{eq: a}", each("a", ABSENT), NO, YES),
    ("{ne: a}", each("a", ABSENT), NO, YES),
    ("{lte: 5}", each(1, 2), YES, YES),
    ("{lte: 5}", each(9, "1"), NO, YES),
    ("{exists: true}", each("a", ABSENT), NO, YES),
    ("{exists: false}", each("a", ABSENT), NO, YES),
    # several readings of one value: no allow accepts them, a deny looks into each
    ("{eq: a}", both("a", "a"), NO, YES),
    ("{eq: a}", both("b", "a"), NO, YES),
    ("{eq: a}", both("b", "c"), NO, NO),
    ("{lte: 5}", both(W("1"), W("100000")), NO, YES),
    ("{exists: true}", both("a", "b"), NO, YES),
    # a list where one value is expected: likewise
    ("{eq: a}", ["a"], NO, YES),
    ("{eq: a}", ["b", "a"], NO, YES),
    ("{eq: a}", ["b"], NO, NO),
    ("{ne: a}", ["a"], NO, NO),
    ("{matches: 'a+'}", ["b", "aa"], NO, YES),
    ("{lte: 5}", [9], NO, NO),
]


@pytest.mark.parametrize(("test", "value", "allows", "denies"), TESTS)
def test_what_an_operator_makes_of_a_value(test: str, value: Value, allows: bool, denies: bool) -> None:
    condition = where(f"{{body.x: {test}}}")
    read = reader({"body.x": value})
    assert {side: condition.holds(read, side) for side in SIDES} == {
        "allow": allows,
        "unless": allows,
        "deny": denies,
        "guard": denies,
    }


SIDES: tuple[Side, ...] = ("allow", "unless", "deny", "guard")
VALUES: Mapping[str, Value] = {"body.a": 1, "body.b": "x", "body.many": each("x", "y"), "agent": "ci"}

# the condition, read with VALUES, whether it holds for an allow, and for a deny
LOGIC: list[tuple[str, bool, bool]] = [
    ("{body.a: 1, body.b: x}", YES, YES),
    ("{body.a: 1, body.b: y}", NO, NO),
    ("{body.a: {gte: 1, lte: 1}}", YES, YES),
    ("{all: [{body.a: 1}, {body.b: x}]}", YES, YES),
    ("{all: [{body.a: 1}, {body.b: y}]}", NO, NO),
    ("{any: [{body.a: 2}, {body.b: x}]}", YES, YES),
    ("{any: [{body.a: 2}, {body.b: y}]}", NO, NO),
    ("{any: [{body.a: 2, body.b: x}, {agent: ci}]}", YES, YES),
    ("{agent: ci, any: [{body.a: 2}, {body.b: y}]}", NO, NO),
    ("{not: {body.a: 2}}", YES, YES),
    ("{not: {body.a: 1}}", NO, NO),
    ("{not: {not: {body.a: 1}}}", YES, YES),
    ("{not: {body.a: 1, body.b: y}}", YES, YES),
    ("{not: {body.a: 1, body.b: x}}", NO, NO),
    ("{not: {any: [{body.a: 2}, {body.b: y}]}}", YES, YES),
    ("{not: {any: [{body.a: 2}, {body.b: x}]}}", NO, NO),
    # an absent field: an allow takes neither a test nor its negation
    ("{body.none: 1}", NO, NO),
    ("{not: {body.none: 1}}", NO, YES),
    ("{not: {body.none: {ne: 1}}}", NO, NO),
    ("{not: {body.none: {in: [1]}}}", NO, YES),
    ("{not: {body.none: {not_in: [1]}}}", NO, NO),
    ("{body.none: {lt: 1}}", NO, YES),
    ("{not: {body.none: {lt: 1}}}", NO, YES),
    ("{not: {not: {body.none: {gte: 1}}}}", NO, YES),
    ("{not: {body.none: {matches: x}}}", NO, YES),
    ("{not: {body.none: {prefix: x}}}", NO, YES),
    ("{not: {body.none: {glob: x}}}", NO, YES),
    ("{not: {body.none: {cidr: 10.0.0.0/8}}}", NO, YES),
    ("{not: {body.none: {exists: true}}}", YES, YES),
    ("{not: {body.none: {exists: false}}}", NO, NO),
    ("{any: [{body.none: 1}, {body.a: 1}]}", YES, YES),
    ("{any: [{body.none: {exists: false}}, {body.none: {lte: 5}}]}", YES, YES),
    ("{not: {any: [{body.none: 1}, {body.a: 2}]}}", NO, YES),
    # negation, too, is of every value for an allow, of any for a deny
    ("{not: {body.many: x}}", NO, YES),
    ("{not: {body.many: z}}", YES, YES),
    ("{not: {body.many: {matches: '[xy]'}}}", NO, NO),
]


@pytest.mark.parametrize(("text", "allows", "denies"), LOGIC)
def test_how_tests_combine(text: str, allows: bool, denies: bool) -> None:
    read = reader(VALUES)
    assert [where(text).holds(read, side) for side in SIDES] == [allows, allows, denies, denies]


def test_a_text_that_is_no_unicode_is_an_error_and_not_a_mismatch() -> None:
    for operator in ("matches", "glob"):
        with pytest.raises(ConditionError, match="surrogate"):
            where(f"{{body.x: {{{operator}: x}}}}").holds(reader({"body.x": "\ud800"}), "deny")


def test_an_error_in_reading_comes_through() -> None:
    def read(field: Field) -> Value:
        raise ConditionError("the body was not read")

    for side in SIDES:
        with pytest.raises(ConditionError, match="not read"):
            where("{body.x: 1}").holds(read, side)


def test_a_condition_tells_its_fields_each_once() -> None:
    condition = where("{body.a: 1, any: [{path.x: 1}, {not: {body.a: {lt: 5}, agent: x}}]}")
    assert [field.text for field in condition.fields] == ["body.a", "path.x", "agent"]


MISSES: list[tuple[str, Side, list[tuple[str, str, str]]]] = [
    ("{body.a: {lte: 5}}", "allow", []),
    ("{body.a: {lte: 0}}", "allow", [("body.a", "1", "lte 0")]),
    ("{body.a: 2, body.b: x, body.c: z}", "allow", [("body.a", "1", "eq 2"), ("body.c", "absent", 'eq "z"')]),
    (
        "{any: [{body.a: 2}, {body.b: {in: [y, z]}}]}",
        "allow",
        [("body.a", "1", "eq 2"), ("body.b", '"x"', 'in ["y", "z"]')],
    ),
    ("{any: [{body.a: 1}, {body.b: y}]}", "allow", []),
    ("{not: {body.b: x}}", "allow", [("body.b", '"x"', 'ne "x"')]),
    ("{not: {body.b: {not_in: [z]}}}", "allow", [("body.b", '"x"', 'in ["z"]')]),
    ("{not: {body.a: {gt: 0}}}", "allow", [("body.a", "1", "lte 0")]),
    ("{not: {body.b: {prefix: x}}}", "allow", [("body.b", '"x"', 'not prefix "x"')]),
    ("{not: {all: [{body.a: 1}, {body.b: x}]}}", "allow", [("body.a", "1", "ne 1"), ("body.b", '"x"', 'ne "x"')]),
    ("{body.many: x}", "allow", [("body.many", '["x", "y"]', 'eq "x"')]),
    ("{body.both: x}", "allow", [("body.both", 'ambiguous: "x", "y"', 'eq "x"')]),
    ("{body.none: {gt: 5}}", "allow", [("body.none", "absent", "gt 5")]),
    ("{body.none: {gt: 5}}", "deny", []),
    ("{body.number: {lt: 1}}", "allow", [("body.number", "1.50", "lt 1")]),
    ("{body.object: 1}", "allow", [("body.object", '{"k": ["1.50", null, true]}', "eq 1")]),
    ("{body.b: {cidr: [10.0.0.0/8]}}", "allow", [("body.b", '"x"', 'cidr ["10.0.0.0/8"]')]),
    ("{body.odd: x}", "allow", [("body.odd", '"a\\nb\\u001bc\\u202ed\\ud800ü"', 'eq "x"')]),
    ("{all: [{body.a: 2}, {body.a: 2}]}", "allow", [("body.a", "1", "eq 2")]),
]


@pytest.mark.parametrize(("text", "side", "misses"), MISSES)
def test_a_condition_tells_what_it_missed(text: str, side: Side, misses: list[tuple[str, str, str]]) -> None:
    odd: Mapping[str, Value] = {
        "body.both": both("x", "y"),
        "body.number": Decimal("1.50"),
        "body.object": {"k": [Decimal("1.50"), None, True]},
        "body.odd": "a\nb\x1bc\u202ed\ud800ü",
    }
    read = reader({**VALUES, **odd})
    assert where(text).misses(read, side) == tuple(Miss(*miss) for miss in misses)
    assert where(text).holds(read, side) is not bool(misses)


def test_a_long_value_is_cut_when_it_is_shown() -> None:
    (miss,) = where("{body.x: y}").misses(reader({"body.x": "x" * 1000}), "allow")
    assert miss.actual == '"' + "x" * 96 + "..."


DESCRIBED = [
    ("{body.amount: {gt: 0, lte: 5000}}", "body.amount gt 0 and body.amount lte 5000"),
    ("{agent: ci, not: {path.x: a}}", 'agent eq "ci" and not (path.x eq "a")'),
    ("{any: [{agent: ci}, {body.a: 1, body.b: 2}]}", 'agent eq "ci" or (body.a eq 1 and body.b eq 2)'),
    ("{body.a: {in: [1, x, null]}}", 'body.a in [1, "x", null]'),
    ("{body.a: {exists: false}}", "body.a exists false"),
    ("{body.a: {lte: 2.50}}", "body.a lte 2.50"),
]


@pytest.mark.parametrize(("text", "line"), DESCRIBED)
def test_a_condition_in_one_line(text: str, line: str) -> None:
    assert where(text).describe() == line


WRONG: list[tuple[str, str, int, str, str]] = [
    # text, code, column of the culprit, message, help
    ("5", "where", 1, "a condition is a mapping of fields", "{body.amount: {lte: 5000}}"),
    ("{}", "where", 1, "the condition is empty", "name a field"),
    ("{lte: 5}", "where", 2, "the operator `lte` stands without a field", "{lte: ...}"),
    ("{any: {agent: x}}", "where", 7, "`any` takes a list of conditions", "any: ["),
    ("{all: []}", "where", 7, "`all` takes a list of conditions", "all: ["),
    ("{not: [{agent: x}]}", "where", 7, "a condition is a mapping of fields", ""),
    ("{bdy.x: 1}", "field", 2, "`bdy.x` is not a field", "did you mean `body.x`?"),
    ("{body.x: [a]}", "where", 10, "`body.x` is compared with a list", "{in: [...]}"),
    ("{body.x: }", "where", 10, "nothing follows `body.x`", "{eq: null}"),
    ("{body.x: {}}", "where", 10, "nothing is said about `body.x`", "OPERATOR"),
    ("{body.x: {lteq: 5}}", "where", 11, "`lteq` is not an operator", "did you mean `lte`?"),
    ("{body.x: {'>=': 5}}", "where", 11, "`>=` is not an operator", "did you mean `gte`?"),
    ("{body.x: {regex: a}}", "where", 11, "`regex` is not an operator", "did you mean `matches`?"),
    ("{body.x: {zzz: a}}", "where", 11, "`zzz` is not an operator", "known are `eq`"),
    ("{body.x: {eq: [a]}}", "where", 15, "`eq` compares with one value, not with a list", ""),
    ("{body.x: {in: a}}", "where", 15, "`in` takes a list of values", "in: [a, b]"),
    ("{body.x: {not_in: []}}", "where", 19, "`not_in` takes a list of values", ""),
    ("{body.x: {in: [a, {}]}}", "where", 19, "`in` compares with one value, not with a map", ""),
    ("{body.x: {lt: '5'}}", "where", 15, "`lt` takes a number", "leave out the quotes"),
    ("{body.x: {lt: true}}", "where", 15, "`lt` takes a number", ""),
    ("{body.x: {lt: abc}}", "where", 15, "`lt` takes a number", ""),
    ("{body.x: {lt: [5]}}", "where", 15, "`lt` takes a number", ""),
    ("{body.x: {exists: maybe}}", "where", 19, "`exists` takes `true` or `false`", ""),
    ("{body.x: {prefix: 5}}", "where", 19, "`prefix` takes a text", "quote it"),
    ("{body.x: {prefix: ''}}", "where", 19, "`prefix` takes a text", ""),
    ("{body.x: {glob: [a]}}", "where", 17, "`glob` takes a text", ""),
    ("{body.x: {cidr: 10.0.0.1/8}}", "where", 17, "bits behind its prefix", "did you mean `10.0.0.0/8`?"),
    ("{body.x: {cidr: [home]}}", "where", 18, "`home` is not a network", "10.0.0.0/8"),
    ("{body.x: {cidr: 10}}", "where", 17, "`cidr` takes a network", "10.0.0.0/8"),
    ("{agent: 7}", "where", 9, "`agent` is always text", '"7"'),
    ("{tool: {in: [true]}}", "where", 14, "`tool` is always text", '"true"'),
    ("{agent: {lt: 7}}", "where", 14, "`agent` is text: `lt` never holds", "`glob`"),
    ("{host: API.a.io}", "where", 8, "`host` is never `API.a.io`", "`api.a.io`"),
    ("{method: {in: [get]}}", "where", 16, "`method` is never `get`", "`GET`"),
    ("{body.x: {matches: 'ab(?=c)'}}", "regex", 23, "`(?=` is look-around", "linear time"),
    ("{body.x: {matches: '(?<!a)b'}}", "regex", 21, "`(?<!` is look-around", "linear time"),
    ("{body.x: {matches: '(a)\\1'}}", "regex", 24, "`\\1` is a backreference", "linear time"),
    ("{body.x: {matches: 'a)|(b'}}", "regex", 20, "`a)|(b` is not a regular expression", "Rust"),
    ("{body.x: {matches: '(?x)a # b'}}", "regex", 20, "is not a regular expression", "Rust"),
    ("{body.x: {matches: 'a{1000}{1000}'}}", "regex", 20, "is not a regular expression, or too large", "Rust"),
    (f"{{body.x: {{matches: {'a' * (REGEX_LENGTH + 1)}}}}}", "regex", 20, f"at most {REGEX_LENGTH} characters", ""),
    (f"{{body.x: {{glob: {'a' * (REGEX_LENGTH + 1)}}}}}", "regex", 17, f"at most {REGEX_LENGTH} characters", ""),
]


@pytest.mark.parametrize(("text", "code", "col", "message", "help"), WRONG)
def test_what_is_wrong_with_a_condition(text: str, code: str, col: int, message: str, help: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        where(text)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert help in problem.help
    assert (problem.code, problem.mark.line, problem.mark.col) == (code, 1, col)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(RuleFileError) as caught:
        where("{bdy: 1, any: [{agnt: 2}, {body.x: {lt: a, gt: b}}], body.y: {in: [[], {}]}}")
    assert [problem.mark.col for problem in caught.value.problems] == [2, 17, 41, 48, 68, 72]


JSON_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([ABSENT, None, True, False, "a", "5", W("a"), W("5"), W("true"), [], ["a"], {}]),
    st.integers(-3, 3),
    st.decimals(-3, 3, places=1),
)
READ_VALUES = st.one_of(
    JSON_VALUES, st.builds(Many, st.lists(JSON_VALUES, min_size=1, max_size=3).map(tuple), st.booleans())
)
LIMITS = {
    "scalar": ["a", "1", "true", "null"],
    "scalars": ["[a, 1]", "[null]"],
    "number": ["1", "0.5"],
    "regex": ["a+", "'[0-9]'"],
    "text": ["a", "'5'"],
    "bool": ["true", "false"],
    "networks": ["10.0.0.0/8"],
}


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["test"] * 3 + (["all", "any", "not"] if depth else [])))
    if kind == "test":
        operator = draw(st.sampled_from(list(OPERATORS)))
        limit = draw(st.sampled_from(LIMITS[OPERATORS[operator]]))
        return f"{{body.{draw(st.sampled_from('abc'))}: {{{operator}: {limit}}}}}"
    if kind == "not":
        return f"{{not: {draw(conditions(depth=depth - 1))}}}"
    return f"{{{kind}: [{draw(conditions(depth=depth - 1))}, {draw(conditions(depth=depth - 1))}]}}"


@given(conditions(), st.fixed_dictionaries({f"body.{name}": READ_VALUES for name in "abc"}))
def test_what_an_allow_accepts_a_deny_would_refuse(text: str, values: dict[str, Value]) -> None:
    """In doubt each side errs against the call: the deny's reading of a condition is never the narrower one."""
    condition, read = where(text), reader(values)
    assert condition.holds(read, "deny") or not condition.holds(read, "allow")


@given(conditions(), st.fixed_dictionaries({f"body.{name}": READ_VALUES for name in "abc"}))
def test_no_allow_accepts_a_condition_and_its_negation(text: str, values: dict[str, Value]) -> None:
    condition, negation, read = where(text), where(f"{{not: {text}}}"), reader(values)
    assert not (condition.holds(read, "allow") and negation.holds(read, "allow"))
    assert condition.holds(read, "deny") or negation.holds(read, "deny")


@given(conditions(), st.fixed_dictionaries({f"body.{name}": READ_VALUES for name in "abc"}), st.sampled_from(SIDES))
def test_what_does_not_hold_missed_something(text: str, values: dict[str, Value], side: Side) -> None:
    condition, read = where(text), reader(values)
    assert bool(condition.misses(read, side)) is not condition.holds(read, side)
