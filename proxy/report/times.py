"""`clock` as people read it: what time the computer says, what time the record says, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from proxy.clock import TOLERATED_NS
from proxy.ledger.query import LedgerReader
from proxy.ledger.told import iso
from proxy.report.moments import SECOND_NS, show_second, show_span
from proxy.report.terminal import paint


class Times(msgspec.Struct, frozen=True):
    """What `clock --json` prints. `recorded` is the time of the last entry; `behind_s`: how far `wall` is behind it."""

    wall: str
    wall_ns: int
    recorded: str
    recorded_ns: int
    behind_s: int

    @property
    def good(self) -> bool:
        """Whether the wall clock is as far as the record, but for what steps of an hour's time service come to."""
        return self.recorded_ns - self.wall_ns <= TOLERATED_NS


def gather(ledger: Path, wall_ns: int) -> Times:
    """Look at both. Raises `LedgerError`."""
    with LedgerReader.open(ledger) as reader:
        recorded_ns = reader.status().last_ns
    behind_s = max(recorded_ns - wall_ns, 0) // SECOND_NS
    return Times(iso(wall_ns), wall_ns, iso(recorded_ns), recorded_ns, behind_s)


def show(times: Times, colour: bool) -> Sequence[str]:
    """The times as lines."""
    lines = [
        f"{paint('computer', 'dim', colour)}  {show_second(times.wall_ns)}",
        f"{paint('record', 'dim', colour)}    {show_second(times.recorded_ns)}",
    ]
    if not times.good:
        behind = show_span(times.recorded_ns - times.wall_ns)
        lines += [
            paint(f"The computer's clock is {behind} behind the record. Until it has come as far,", "red", colour),
            paint("no window passes: what was refused for a while stays refused.", "red", colour),
            "If the computer is wrong, set its clock. If it is right, because its clock had run ahead:",
            "  borderpost clock --accept --note TEXT",
        ]
    return lines
