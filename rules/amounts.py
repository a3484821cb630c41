"""Amounts: what budgets count. Exact decimals, zero or more, with up to twelve places; never float.

Wherever a number has more places than that it is rounded up, so that no budget ever counts too little.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, Inexact

from rules.call import Json
from rules.checks import number
from rules.fields import Absent, Many, Value, WireText
from rules.yamltree import Scalar

LARGEST = Decimal(10**18)
"""No budget is larger, and whatever is larger counts as this much."""

_LARGEST = int(LARGEST)

ZERO = Decimal(0)

PLACES = 12

_STEP = Decimal(1).scaleb(-PLACES)
_EXACT = Context(prec=100, traps=[Inexact])
"""A sum of amounts is exact in this: there can not be as many as it takes to fill a hundred digits."""

_UP = Context(prec=1000, rounding=ROUND_CEILING)


def read_amount(value: Value) -> Decimal | None:
    """The amount that `value` is, of a list with `[]` the sum; None when it is no number, negative, or ambiguous."""
    if isinstance(value, Many):
        if value.ambiguous:
            return None
        parts = [_read_one(each) for each in value.values]
        known = [part for part in parts if part is not None]
        return total(known) if len(known) == len(parts) else None
    return _read_one(value)


def _read_one(value: Json | Absent) -> Decimal | None:
    found = number(value)
    if found is None or found < 0:
        return None
    return bounded(found) if isinstance(found, Decimal) else Decimal(min(found, _LARGEST))


def bounded(amount: Decimal) -> Decimal:
    """`amount`, zero or more, as budgets count it: with up to twelve places, rounded up, and not above `LARGEST`."""
    if amount >= LARGEST:
        return LARGEST
    places = -int(amount.as_tuple().exponent)
    return amount if 0 <= places <= PLACES else amount.quantize(_STEP if places > 0 else Decimal(1), context=_UP)


def add(one: Decimal, other: Decimal) -> Decimal:
    """The exact sum."""
    return _EXACT.add(one, other)


def subtract(one: Decimal, other: Decimal) -> Decimal:
    """The exact difference."""
    return _EXACT.subtract(one, other)


def total(amounts: list[Decimal]) -> Decimal:
    """The exact sum of them all."""
    found = ZERO
    for amount in amounts:
        found = _EXACT.add(found, amount)
    return found


def written(amount: Decimal) -> str:
    """`amount` as text without exponent: for people, and for the ledger."""
    return format(amount, "f")


def parse_amount(scalar: Scalar) -> Decimal | None:
    """The amount above zero that a rule file writes as a number or as text (`"20.00"`); None when it is none."""
    found = number(WireText(scalar) if isinstance(scalar, str) else scalar)
    return None if found is None or not 0 < found <= LARGEST else bounded(Decimal(found))
