"""What `doctor` found, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.report.checked import counted
from proxy.report.terminal import Cell, Column, Style, clip, hung, table

if TYPE_CHECKING:
    from proxy.doctor.examine import Diagnosis

OF_VERDICT: dict[str, Style] = {"through": "green", "goes round": "red", "TLS refused": "yellow", "unclear": "yellow"}

COLUMNS = (Column("CLIENT"), Column("VERSION"), Column("RUNS IN", least=10, gives=True), Column("COMES"))

ERROR_ROOM = 300


def show(diagnosis: Diagnosis, room: int, colour: bool) -> list[str]:
    """A table of all clients, what would help those that do not come through, and one line that sums it up."""
    findings = diagnosis.findings
    if not findings:
        return ["no client found: there is neither Python nor Node.js, curl, wget, git or npm"]
    rows = [
        [Cell(one.client), Cell(one.version), Cell(one.runs_in), Cell(one.verdict, OF_VERDICT[one.verdict])]
        for one in findings
    ]
    lines = [*table(COLUMNS, rows, room, colour), ""]
    bad = [one for one in findings if one.verdict != "through"]
    for one in bad:
        lines += hung(f"{one.client}, {one.verdict}: ", one.fix, room)
        if one.verdict == "unclear":
            lines += hung("  it said: ", clip(one.error, ERROR_ROOM), room)
    if diagnosis.failures:
        lines += hung(f"the preload failed ({counted(len(diagnosis.failures), 'time')}): ", diagnosis.failures[0], room)
    lines.append(f"{counted(len(findings), 'client')}: " + (f"{len(bad)} not through" if bad else "all come through"))
    return lines
