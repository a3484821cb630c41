"""What each operator makes of one value: yes, no, or that it can not be told, since the value is absent or of another
type than the limit. See `rules.where` for what follows from that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import jsonschema_rs

from rules.call import Json
from rules.fields import ABSENT, Absent, ConditionError, WireText
from rules.yamltree import Scalar

type Verdict = bool | None
"""Whether one value passes one test; None: it can not be told."""
type Check = Callable[[Json | Absent], Verdict]
type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


TEXT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,399})(?:\.[0-9]{1,400})?")
"""How wire text spells a number. Others (`05`, `+5`, `1e3`, ` 5`) mean different things to different servers."""


def number(value: Json | Absent) -> int | Decimal | None:
    if isinstance(value, WireText):
        return Decimal(value) if TEXT_NUMBER.fullmatch(value) else None
    return value if type(value) is int or isinstance(value, Decimal) else None  # and true is no number


def equal(value: Json | Absent, limit: Scalar) -> Verdict:
    if value is ABSENT:
        return None
    if value is None or limit is None:
        return value is limit
    if isinstance(limit, bool):
        if isinstance(value, WireText):
            return {"true": True, "false": False}[value] is limit if value in ("true", "false") else None
        return value is limit if isinstance(value, bool) else None
    if isinstance(limit, str):
        return value == limit if isinstance(value, str) else None
    found = number(value)
    return None if found is None else found == limit


def eq(limit: Scalar) -> Check:
    return lambda value: equal(value, limit)


def ne(limit: Scalar) -> Check:
    return lambda value: None if (same := equal(value, limit)) is None else not same


def within(limits: tuple[Scalar, ...]) -> Check:
    def check(value: Json | Absent) -> Verdict:
        same = [equal(value, limit) for limit in limits]
        return True if True in same else None if None in same else False

    return check


def not_within(limits: tuple[Scalar, ...]) -> Check:
    inside = within(limits)
    return lambda value: None if (found := inside(value)) is None else not found


def bound(compare: Callable[[int | Decimal, int | Decimal], bool], limit: int | Decimal) -> Check:
    return lambda value: None if (found := number(value)) is None else compare(found, limit)


def exists(limit: bool) -> Check:
    return lambda value: (value is not ABSENT) is limit


def prefix(limit: str) -> Check:
    return lambda value: value.startswith(limit) if isinstance(value, str) else None


def search(pattern: str) -> Callable[[str], bool]:
    """Whether `pattern` is found in a text. Raises `ValueError` for a pattern that can not be used."""
    options = jsonschema_rs.RegexOptions(size_limit=REGEX_SIZE)
    return jsonschema_rs.validator_for({"type": "string", "pattern": pattern}, pattern_options=options).is_valid


def matches(pattern: str) -> Check:
    """Whether a text is, as a whole, what `pattern` says. Raises `ValueError` for a pattern that can not be used."""
    search(pattern)  # by itself, lest `a)|(b` pass inside the group
    valid = search(f"^(?:{pattern})$")

    def check(value: Json | Absent) -> Verdict:
        if not isinstance(value, str):
            return None
        try:
            return valid(str(value))
        except UnicodeError:
            raise ConditionError("a text that holds half a surrogate pair can not be matched") from None

    return check


def glob(pattern: str) -> Check:
    signs = {"*": ".*", "?": "."}
    return matches("(?s)" + "".join(signs.get(sign) or _escaped(sign) for sign in pattern))


def _escaped(sign: str) -> str:
    return f"\\{sign}" if sign in "\\.+()|[]{}^$#&-~" else sign


def cidr(networks: tuple[Network, ...]) -> Check:
    def check(value: Json | Absent) -> Verdict:
        if not isinstance(value, str):
            return None
        try:
            address = ipaddress.ip_address(str(value))
        except ValueError:
            return None
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return check


REGEX_LENGTH: Final = 2000
REGEX_SIZE: Final = 1 << 20
"""Regular expressions may be this long, and this many bytes when compiled."""
