"""Conditions that no call meets: `{gt: 10, lt: 5}`, `eq` beside an `in` without it, `method: POST` of what is all GET.

Pairs of tests are looked at, of one field, that have to hold together whatever else the condition says. Only what is
certain is found. A deny (and a guard) looks into lists for any element, so that for each test another one may do, and
takes a bound as met where there is no number: there a pair of bounds is told, which is a slip in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from rules.call import Json
from rules.fields import EACH, ConditionError, Field, Value, WireText
from rules.ruleset import Match
from rules.where import BOUNDS, AllOf, AnyOf, Condition, NotOf, Part, Test

type Affirmed = tuple[Test, bool]
"""A test, and whether it has to hold or its opposite."""

ONE_VALUE = ("path", "agent", "run", "tool", "host", "method")
"""Places that never hold several values."""


def contradictions(condition: Condition, strict: bool) -> Iterator[tuple[str, str, str]]:
    """(field, one test, another) of which no value meets both, each once. `strict`: an allow asks, or an `unless`."""
    told: set[frozenset[str]] = set()
    for found in _pairs(condition.root, True, (), strict):
        if frozenset(found) not in told:
            told.add(frozenset(found))
            yield found


def never(condition: Condition, matches: Sequence[Match], agents: Sequence[str] | None) -> tuple[str, list[str]] | None:
    """The field, and its values in all calls of `matches` by `agents`, for which the condition never holds; or None."""
    methods = [pattern.methods for pattern in (match.pattern for match in matches)]
    known: dict[str, list[str]] = {}
    if methods and all(methods):
        known["method"] = sorted({method for each in methods for method in each})
    if matches and all(match.pattern.exact_host for match in matches):
        known["host"] = sorted({match.pattern.host for match in matches})
    if agents is not None and not any("*" in agent for agent in agents):
        known["agent"] = sorted(agents)
    for name, values in known.items():
        if all(condition.verdict(_only(name, value)) is False for value in values):
            return name, values
    return None


def _only(name: str, value: str) -> Callable[[Field], Value]:
    """Reads the field `name`; of no other can be told what it holds."""

    def read(field: Field) -> Value:
        if field.place != name:
            raise ConditionError("it is not known")
        return value

    return read


def _pairs(part: Part, affirmed: bool, outer: tuple[Affirmed, ...], strict: bool) -> Iterator[tuple[str, str, str]]:
    """The pairs in `part`. `outer`: the tests that have to hold beside it."""
    together = list(outer)
    choices: list[tuple[Part, bool]] = []
    for one, yes in _needed(part, affirmed):
        if not isinstance(one, Test):
            choices.append((one, yes))
            continue
        for other, other_yes in together:
            if _clash((other, other_yes), (one, yes), strict):
                yield one.field.text, other.describe(other_yes), one.describe(yes)
        together.append((one, yes))
    for choice, yes in choices:
        assert isinstance(choice, AllOf | AnyOf)
        for one in choice.parts:
            yield from _pairs(one, yes, tuple(together), strict)


def _needed(part: Part, affirmed: bool) -> Iterator[tuple[Part, bool]]:
    """What all has to hold for `part` to: tests, and choices of which one part is enough."""
    if isinstance(part, NotOf):
        yield from _needed(part.part, not affirmed)
    elif isinstance(part, Test) or isinstance(part, AnyOf) is affirmed:
        yield part, affirmed
    else:
        for one in part.parts:
            yield from _needed(one, affirmed)


def _clash(one: Affirmed, other: Affirmed, strict: bool) -> bool:
    """Whether no value meets both."""
    field = one[0].field
    if field.text != other[0].field.text or EACH in field.steps:
        return False
    first, second = one[0].means(one[1]), other[0].means(other[1])
    if first in BOUNDS and second in BOUNDS:
        return _apart(one, other) or _apart(other, one)
    if not strict and field.place not in ONE_VALUE:
        return False
    if strict and (_absent(one) or _absent(other)):
        return _absent(one) is not _absent(other)
    values = _values(one) or _values(other)
    if values:
        return not any(_meets(one, value, strict) and _meets(other, value, strict) for value in values)
    if first == second == "prefix":
        ours, its = str(one[0].limit), str(other[0].limit)
        return not (ours.startswith(its) or its.startswith(ours))
    return False


def _apart(low: Affirmed, high: Affirmed) -> bool:
    """Whether `low` asks for more than `high` permits."""
    least, most = low[0].means(low[1]), high[0].means(high[1])
    if least not in ("gt", "gte") or most not in ("lt", "lte"):
        return False
    one, other = low[0].limit, high[0].limit
    assert isinstance(one, int | Decimal) and isinstance(other, int | Decimal), "bounds are numbers"
    return one > other or (one == other and (least, most) != ("gte", "lte"))


def _absent(asked: Affirmed) -> bool:
    test, yes = asked
    return test.operator == "exists" and (test.limit is True) is not yes


def _values(asked: Affirmed) -> tuple[Json, ...]:
    """The only values that meet it, in every form that they have on the wire; nothing where others may."""
    test, yes = asked
    means = test.means(yes)
    listed = [test.limit] if means == "eq" else test.limit if means == "in" else []
    assert isinstance(listed, list), "`in` is compared with a list"
    return tuple(form for value in listed for form in (value, WireText(_spelled(value))))


def _spelled(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _meets(asked: Affirmed, value: Json, strict: bool) -> bool:
    """Whether `value` does, or perhaps another spelling of the number that it is (`1.0` is 1, too)."""
    test, yes = asked
    limits = test.limit if isinstance(test.limit, list) else [test.limit]
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and any(isinstance(one, str) for one in limits):
        return True
    verdict = test.check(value)
    return verdict is yes or (verdict is None and not strict)
