"""`rules explain`: what a code means, be it of a problem in a rule file or of a refusal."""

from __future__ import annotations

from textwrap import fill

from proxy.report.refused import MEANINGS
from proxy.report.terminal import Cell, Column, paint, table
from proxy.rulefiles import UNREADABLE
from rules.codes import CODES
from rules.explanations import EXPLANATIONS
from rules.suggest import suggest


def show(code: str) -> str | None:
    """The explanation of `code`, or None when there is no such code."""
    if code == UNREADABLE:
        return (
            "The file could not be read, is not UTF-8, or is larger than 16 MiB. Nothing of the rule set is used then."
        )
    if code in EXPLANATIONS:
        return EXPLANATIONS[code]
    refusal = CODES.get(code)
    if refusal is None:
        return None
    lines = [
        f"{refusal.title}: a refusal, answered with status {refusal.status}.",
        "",
        fill(MEANINGS[code], 100, break_long_words=False, break_on_hyphens=False),
        "",
        f"Trying again: {'if it was not executed' if refusal.retry == 'unknown' else refusal.retry}."
        + (" SDKs are asked not to retry by themselves." if refusal.final else ""),
        "`borderpost log show ID` says why a call was refused, `borderpost rules eval` why one would be.",
    ]
    return "\n".join(lines)


def show_all(room: int, colour: bool) -> list[str]:
    """Every code, with the beginning of what it means."""
    problems = [(code, EXPLANATIONS[code]) for code in sorted(EXPLANATIONS)] + [(UNREADABLE, show(UNREADABLE) or "")]
    lines = [paint("problems in rule files", "bold", colour)]
    lines += _table(
        [(code, text.removeprefix("A warning. ").partition(". ")[0]) for code, text in problems], room, colour
    )
    lines += ["", paint("refusals", "bold", colour)]
    return lines + _table([(code, f"{CODES[code].status} {CODES[code].title}") for code in sorted(CODES)], room, colour)


def similar(code: str) -> str:
    """What was probably meant, as the end of a sentence."""
    meant = suggest(code, sorted([*EXPLANATIONS, *CODES, UNREADABLE]))
    return f": {meant}" if meant else ": `borderpost rules explain` lists them"


def _table(pairs: list[tuple[str, str]], room: int, colour: bool) -> list[str]:
    rows = [[Cell(code, "cyan"), Cell(text)] for code, text in pairs]
    return table([Column("CODE", 24), Column("MEANING", 20, gives=True)], rows, room, colour)
