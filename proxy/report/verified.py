"""What `log verify` has found, in words: what is wrong, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.report.terminal import Style, hung, paint

if TYPE_CHECKING:
    from proxy.ledger.verify import Verdict

EXIT_CODES = {"good": 0, "broken": 1, "inconclusive": 3}

STYLES: dict[str, Style] = {"good": "green", "broken": "red", "inconclusive": "yellow"}

HEADLINES = {
    "good": "every entry that the anchor tells of is as it was written",
    "inconclusive": "nothing is wrong, but nothing shows that no entry was cut off the end",
}


def show(verdict: Verdict, room: int, colour: bool) -> list[str]:
    """The verdict as lines: the answer first."""
    headline = verdict.finding.what if verdict.finding else HEADLINES[verdict.result]
    first, *more = hung(f"{verdict.result}: ", headline, room)
    head = paint(verdict.result, STYLES[verdict.result], colour)
    lines = [head + first.removeprefix(verdict.result), *more]
    for name, text in _facts(verdict):
        lines += hung(f"  {name:<9}", text, room)
    return lines


def _facts(verdict: Verdict) -> Sequence[tuple[str, str]]:
    facts = [("ledger", verdict.path)]
    if verdict.finding:
        facts.append(("meaning", verdict.finding.means))
        facts.append(("so far", f"{_entries(verdict.entries)} before that, as they were written"))
        return facts
    facts.append(("chain", f"{_entries(verdict.entries)}, each following the one before"))
    if verdict.sealed:
        count = "1 checkpoint" if verdict.checkpoints == 1 else f"{verdict.checkpoints:,} checkpoints"
        whose = ", by a key that only the ledger itself names (`--key` gives one)" if verdict.own_key else ""
        facts.append(("signed", f"entries 1 to {verdict.sealed:,}, by {count}{whose}"))
    else:
        facts.append(("signed", "nothing yet: a checkpoint is made every ten minutes"))
    if verdict.anchored:
        after = verdict.entries - verdict.anchored
        rest = f"; for {_entries(after)} after it, give a newer one" if after > 1 else ""
        facts.append(("anchor", f"entries 1 to {verdict.anchored:,} are exactly those that it tells of{rest}"))
    else:
        facts.append(("anchor", "none: give a checkpoint that was kept elsewhere, with `--anchor FILE`"))
        facts.append(("", "(`borderpost log checkpoint --export FILE` writes one)"))
    if verdict.pruned:
        facts.append(("pruned", f"what was read and said in entries 1 to {verdict.pruned:,}, on record"))
    if verdict.snapshot:
        facts.append(("snapshot", verdict.snapshot))
    return facts


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"
