"""Saying what is wrong with a call: every violation names the parameter, its legal form, and the one that was meant.

What the validator reports is about schemas; a language model that shall correct itself needs to hear of parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from rules.decision import Violation
from rules.fields import spell
from rules.params.contract import Contract, Place, PlaceName
from rules.params.legal import actual, legal, one_of
from rules.params.typed import Schema, Steps, elements, flat, members
from rules.suggest import closest

CODE = "parameters-invalid"
TOLD = 10
"""So many violations are told. A call with more of them is not worth more words."""

ERRORS = 100
"""Errors of the validator that are looked at."""

SPOKEN: dict[PlaceName, str] = {"path": "the path", "query": "the query", "body": "the body", "args": "`args`"}
"""A place as sentences name it."""


def told(tool: str, violations: Sequence[Violation]) -> str:
    """What the agent reads: every violation in one sentence, so that it can mend them all at once."""
    shown_now = [each.detail for each in violations[:TOLD]]
    more = len(violations) - len(shown_now)
    rest = f"; and {more} more" if more else ""
    return f"This call does not fit the parameters of `{tool}`: {'; '.join(shown_now)}{rest}. Nothing was executed."


def violation(field: str, detail: str, actual: str, wanted: str) -> Violation:
    """`actual` is what `field` is, `wanted` what it has to be."""
    return Violation("", CODE, detail, field, actual, wanted)


class Telling:
    """Says what the validator found, in words about parameters. `here`: the place `where`, or which one of several."""

    def __init__(self, contract: Contract, where: Place, here: str) -> None:
        self.contract = contract
        self.where = where
        self.here = here

    def errors(self, errors: Iterable[Any], unclear: Sequence[Steps] = ()) -> list[Violation]:
        """The violations behind `errors`, but for those in places that are unclear anyway."""
        found: list[Violation] = []
        for error in islice(errors, ERRORS):
            steps = tuple(error.instance_path)
            if not any(steps[: len(doubt)] == doubt for doubt in unclear):
                found += self._error(error, steps)
        return found

    def unclear(self, steps: Steps) -> Violation:
        """What stands in `steps` can be read in two ways."""
        detail = f"`{self._named(steps)}` stands more than once, or in two forms, and it can be only one"
        return violation(self._spelled(steps), detail, "ambiguous", "one value")

    def _named(self, steps: Steps) -> str:
        """The field as the rule file would say it: bare where the tool's bare names stand."""
        if self.here == self.contract.home and steps and isinstance(steps[0], str):
            return steps[0] + _spelled("", steps[1:])
        return self._spelled(steps)

    def _spelled(self, steps: Steps) -> str:
        return _spelled(self.here, steps)

    def _error(self, error: Any, steps: Steps) -> list[Violation]:
        kind = error.kind
        what = type(kind).__name__
        schemas = self._schemas(steps)
        if what in ("AdditionalProperties", "UnevaluatedProperties"):
            known = _names(schemas)
            return [
                self._unknown((*steps, name), known, error.instance) for name in kind.unexpected if name not in known
            ]
        if what == "Required":
            return [self._missing((*steps, kind.property))]
        if what in ("AnyOf", "OneOfNotValid"):
            nearest = _nearest(kind.context, steps)
            if nearest:
                return self.errors(nearest)
            lacking = [errors[0].kind.property for errors in kind.context if _is_required(errors, steps)]
            if len(lacking) == len(kind.context):
                either = one_of([f"`{name}`" for name in dict.fromkeys(lacking)])
                inside = f"`{self._named(steps)}` lacks " if steps else "the call lacks "
                return [violation(self._spelled(steps), inside + either, "absent", either)]
        wanted = one_of([legal(schema) for schema in schemas]) if schemas else "something else"
        quoted = f"`{self._named(steps)}`" if steps else SPOKEN[self.where.name]
        what_it_is = actual(error.instance)
        field = self._spelled(steps)
        if what == "OneOfMultipleValid":
            return [violation(field, f"{quoted} fits several of its forms, and has to fit one", what_it_is, wanted)]
        if what == "UniqueItems":
            return [violation(field, f"{quoted} holds an element twice", what_it_is, wanted)]
        if what == "Not":
            return [violation(field, f"{quoted} is what it must not be: {what_it_is}", what_it_is, wanted)]
        return [violation(field, f"{quoted} has to be {wanted}, and it is {what_it_is}", what_it_is, wanted)]

    def _schemas(self, steps: Steps) -> list[Schema]:
        found: list[Schema] = [self.where.schema]
        for step in steps:
            found = elements(found) if isinstance(step, int) else members(found, step)
        return found

    def _missing(self, steps: Steps) -> Violation:
        schemas = self._schemas(steps)
        wanted = one_of([legal(schema) for schema in schemas]) if schemas else "given"
        detail = f"`{self._named(steps)}` is missing: it has to be {wanted}"
        return violation(self._spelled(steps), detail, "absent", wanted)

    def _unknown(self, steps: Steps, known: Sequence[str], value: Any) -> Violation:
        """A parameter that nobody defined; which one was meant, or where it belongs, or which ones there are."""
        last = str(steps[-1])
        name = self._named(steps)
        listed = one_of([f"`{each}`" for each in known], "and") if known else ""
        meant = closest(last, [each for each in known if each not in value]) or closest(last, known)
        others = [each for each in self.contract.places if each is not self.where and last in each.names]
        if meant:
            help = f"(did you mean `{meant}`?)"  # noqa: A001 -- as in Problem
        elif len(steps) == 1 and others:
            help = f"here: it belongs into {SPOKEN[others[0].name]}"  # noqa: A001
        else:
            help = f"here: there are {listed} only" if known else f"here: {SPOKEN[self.where.name]} has none"  # noqa: A001
        what = "member" if len(steps) > 1 else "argument" if self.where.name == "args" else "parameter"
        return violation(self._spelled(steps), f"`{name}` is no {what} {help}", actual(value[last]), listed)


def _names(schemas: Sequence[Schema]) -> list[str]:
    return list(dict.fromkeys(name for each in schemas for part in flat(each) for name in part.get("properties", ())))


def _nearest(context: Sequence[Sequence[Any]], steps: Steps) -> Sequence[Any]:
    """The errors of the branch that comes nearest: one of whose type the value is; of several, the one with fewest."""
    fitting = [errors for errors in context if errors and not any(_of_type(error, steps) for error in errors)]
    return min(fitting, key=len) if (fitting and len(fitting) < len(context)) or len(fitting) == 1 else ()


def _is_required(errors: Sequence[Any], steps: Steps) -> bool:
    """Whether all that a branch lacks is one member of the value itself."""
    return len(errors) == 1 and type(errors[0].kind).__name__ == "Required" and tuple(errors[0].instance_path) == steps


def _of_type(error: Any, steps: Steps) -> bool:
    """Whether the value itself, not something in it, is of the wrong type."""
    kind = type(error.kind).__name__
    return kind in ("Type", "Enum", "Constant") and tuple(error.instance_path) == steps


def _spelled(where: str, steps: Steps) -> str:
    return "".join([where, *(f"[{step}]" if isinstance(step, int) else spell("", (step,)) for step in steps)])
