"""A state as lines and back: equal, whatever a table is made of, and in lines of bounded length."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

import msgspec
import pytest

from rules import kept
from rules.decision import Change
from rules.guards import TABLES
from rules.state import Due, SetBack, State


class Small(msgspec.Struct, tag=True):
    numbers: dict[int, int] = {}


class Large(msgspec.Struct, tag=True):
    number: int = 0


class Everything(msgspec.Struct):
    """A table of all that a table may be made of."""

    verb: ClassVar[str] = "everything"

    rows: dict[str, Small | Large] = {}
    order: list[tuple[int, str]] = []
    amount: Decimal = Decimal()
    since_ns: int | None = None
    due: Due = msgspec.field(default_factory=Due)

    def apply(self, change: Change) -> None:
        """Nothing."""

    def set_back(self, clock: SetBack) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, Everything.verb, Everything)


def filled(rows: int) -> State:
    state = State()
    table = state.of(Everything)
    table.rows = {f"{n}": Small({n: -n}) if n % 2 else Large(10**30 + n) for n in range(rows)}
    table.order = [(n, f"{n}") for n in reversed(range(rows))]
    table.amount = Decimal("0.10")
    table.since_ns = 5
    for n in range(rows):
        table.due.add(1 << 62, f"{n}")
    return state


@pytest.mark.parametrize("rows", [0, 1, kept.ROWS, 5 * kept.ROWS + 1])
def test_what_is_written_is_read_back_equal(rows: int) -> None:
    state = filled(rows)
    read = kept.read(list(kept.write(state)))
    assert read == state
    assert list(read.of(Everything).rows) == list(state.of(Everything).rows), "in the same order"
    assert list(kept.write(read)) == list(kept.write(state))


def test_no_line_holds_more_than_some_rows() -> None:
    longest = max(map(len, kept.write(filled(50 * kept.ROWS))))
    assert longest < 3 * max(map(len, kept.write(filled(kept.ROWS))))


def test_nothing_is_nothing() -> None:
    assert list(kept.write(State())) == []
    assert kept.read([]) == State()


@pytest.mark.parametrize("verb", TABLES)
def test_every_table_can_be_written_and_read(verb: str) -> None:
    """Its fields are of types that JSON can carry and tell apart."""
    state = State()
    table = state.of(TABLES[verb])
    assert isinstance(table, msgspec.Struct)
    assert kept.read(kept.write(state)) == state
    assert kept._decoders(type(table)).keys() == set(table.__struct_fields__)


@pytest.mark.parametrize("line", [b"", b"[]", b'["nothing",["rows"],{}]', b'["everything",["nothing"],{}]'])
def test_other_lines_are_an_error(line: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, LookupError)):
        kept.read([line])
