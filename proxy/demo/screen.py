"""What `borderpost demo` shows, on one screen: the API's counts before and after, then the ledger of the second run."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path

from proxy.demo.main import RUN, Demo
from proxy.ledger.query import LedgerReader
from proxy.ledger.selecting import Filters
from proxy.report.calls import list_calls
from proxy.report.state import by_decision
from proxy.report.terminal import Cell, Column, paint, table

SEARCH = "search"
INTRODUCTION = """\
An agent is to refund one charge. The answer is slow, so it tries again; it
forgets, and refunds once more; it searches in a loop; it deletes the customer.
What reached the API, as the API counted it:"""


def show(demo: Demo, room: int, colour: bool) -> list[str]:
    """The lines, for `room` columns."""
    program = _program()
    ledger = shlex.quote(str(demo.ledger))
    return [
        *INTRODUCTION.splitlines(),
        "",
        *(f"  {line}" for line in _comparison(demo, room - 2, colour)),
        "",
        "Each call of the second run was decided by a rule, and is on record:",
        "",
        *_ledger(demo, room, colour),
        "",
        f"The agent was told: {paint(demo.steps_guarded[-1].text, 'red', colour)}",
        f"Look further:       {program} log --ledger {ledger}",
        f"The rules:          {demo.rules}",
    ]


def _comparison(demo: Demo, room: int, colour: bool) -> list[str]:
    before, after = demo.without, demo.guarded
    rows = [
        ("refunds of one charge", str(before.refunds), str(after.refunds)),
        ("money refunded", _money(before.refunded), _money(after.refunded)),
        ("customers deleted", str(before.deletions), str(after.deletions)),
        ("searches a second", str(before.searches_per_second), str(after.searches_per_second)),
    ]
    columns = [Column("", 30), Column("WITHOUT", 7, right=True), Column("WITH BORDERPOST", 15, right=True)]
    return table(columns, [_row(*row) for row in rows], room, colour)


def _row(name: str, before: str, after: str) -> list[Cell]:
    return (
        [Cell(name), Cell(before, "red"), Cell(after, "green")]
        if before != after
        else [*map(Cell, (name, before, after))]
    )


def _ledger(demo: Demo, room: int, colour: bool) -> list[str]:
    """The calls in the order they were made, as `borderpost log` prints them; the searches in one line."""
    with LedgerReader.open(demo.ledger) as reader:
        rows = reader.list(Filters(run=RUN), limit=1000)[::-1]
    searches = Counter(row.decision for row in rows if row.tool == SEARCH)
    rest = ", ".join(by_decision(searches))
    return [
        *list_calls([row for row in rows if row.tool != SEARCH], room, colour),
        paint(f"and {searches.total()} searches by rule search-pace: {rest}", "dim", colour),
    ]


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _program() -> str:
    """How this program is called by the person who reads this."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "borderpost" and len(called.parts) > 1 else "borderpost"
