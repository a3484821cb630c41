"""`rules explain`: what a code means, be it of a problem in a rule file or of a refusal."""

from __future__ import annotations

from textwrap import fill

from proxy.report.refused import MEANINGS
from proxy.report.terminal import Cell, Column, paint, table
from proxy.rulefiles import UNREADABLE
from rules.codes import CODES
from rules.explanations import EXPLANATIONS
from rules.suggest import suggest

UNREADABLE_MEANS = (
    "The file could not be read, is not UTF-8, or is larger than 16 MiB. Nothing of the rule set is used then."
)


def codes() -> list[str]:
    """Every code. One can be that of a problem and of a refusal."""
    return sorted({*EXPLANATIONS, UNREADABLE, *CODES})


def show(code: str) -> str | None:
    """The explanation of `code`, or None when there is no such code."""
    parts = [text for text in (_problem(code), _refusal(code)) if text]
    return "\n\n".join(parts) or None


def plain(code: str) -> dict[str, object]:
    """What `rules explain --json` prints of a code."""
    refusal = CODES.get(code)
    return {
        "code": code,
        "problem": _problem(code),
        "refusal": None
        if refusal is None
        else {
            "title": refusal.title,
            "status": refusal.status,
            "retry": refusal.retry,
            "final": refusal.final,
            "meaning": MEANINGS[code],
        },
    }


def _problem(code: str) -> str | None:
    """What a problem in a rule file with this code is."""
    return UNREADABLE_MEANS if code == UNREADABLE else EXPLANATIONS.get(code)


def _refusal(code: str) -> str | None:
    """What a refusal with this code is."""
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
    problems = [(code, EXPLANATIONS[code]) for code in sorted(EXPLANATIONS)] + [(UNREADABLE, UNREADABLE_MEANS)]
    lines = [paint("problems in rule files", "bold", colour)]
    lines += _table(
        [(code, text.removeprefix("A warning. ").partition(". ")[0]) for code, text in problems], room, colour
    )
    lines += ["", paint("refusals", "bold", colour)]
    return lines + _table([(code, f"{CODES[code].status} {CODES[code].title}") for code in sorted(CODES)], room, colour)


def similar(code: str) -> str:
    """What was probably meant, as the end of a sentence."""
    meant = suggest(code, codes())
    return f": {meant}" if meant else ": `borderpost rules explain` lists them"


def _table(pairs: list[tuple[str, str]], room: int, colour: bool) -> list[str]:
    rows = [[Cell(code, "cyan"), Cell(text)] for code, text in pairs]
    return table([Column("CODE", 24), Column("MEANING", 20, gives=True)], rows, room, colour)
