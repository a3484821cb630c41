"""The result of `rules check`: every problem with its line, and one line that sums up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proxy.report.moments import show_size
from proxy.report.terminal import Style, paint
from proxy.rulefiles import RuleFiles, RulesBroken
from rules.problems import Problem
from rules.units import show_duration


def show(found: RuleFiles | RulesBroken, colour: bool) -> list[str]:
    """The problems or warnings, painted, then the sum."""
    lines: list[str] = []
    rendered = found.rendered() if isinstance(found, RulesBroken) else found.warnings()
    for line in rendered.splitlines():
        head, bracket, rest = line.partition("[")
        level = {"error": "red", "warning": "yellow"}.get(head) if bracket else None
        lines.append(paint(head, "red" if level == "red" else "yellow", colour) + bracket + rest if level else line)
    return [*lines, "", _sum(found, colour)] if lines else [_sum(found, colour)]


def plain(found: RuleFiles | RulesBroken) -> dict[str, object]:
    """What `rules check --json` prints."""
    if isinstance(found, RulesBroken):
        return {"ok": False, "files": sorted(found.texts), "problems": _plain(found.problems, "error")}
    ruleset = found.loaded.ruleset
    return {
        "ok": True,
        "files": sorted(found.files),
        "problems": _plain(found.loaded.warnings, "warning"),
        "rules": len(ruleset.rules),
        "tools": len(ruleset.tools),
        "tests": len(found.loaded.cases),
        "digest": ruleset.digest,
        "ledger": {"max_bytes": ruleset.ledger.max_bytes, "keep_ns": ruleset.ledger.keep_ns},
    }


def told(rules: RuleFiles, *, whole_paths: bool = False) -> str:
    """The rules, in a few words: `12 rules, 40 tools from 3 files (monitor: nothing is stopped)`."""
    ruleset = rules.loaded.ruleset
    monitor = " (monitor: nothing is stopped)" if ruleset.mode == "monitor" else ""
    if not rules.files:
        return f"no rules{monitor}"
    first = str(Path(rules.files[0]).absolute()) if whole_paths else rules.files[0]
    files = first if len(rules.files) == 1 else counted(len(rules.files), "file")
    if whole_paths and len(rules.files) > 1:
        files += f" ({first}, ...)"
    return f"{counted(len(ruleset.rules), 'rule')}, {counted(len(ruleset.tools), 'tool')} from {files}{monitor}"


def counted(number: int, noun: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _sum(found: RuleFiles | RulesBroken, colour: bool) -> str:
    style: Style = "green"
    if isinstance(found, RulesBroken):
        files = len({problem.mark.file for problem in found.problems})
        style, text = "red", f"{counted(len(found.problems), 'problem')} in {counted(files, 'file')}"
    else:
        loaded = found.loaded
        parts = [(loaded.ruleset.rules, "rule"), (loaded.ruleset.tools, "tool"), (loaded.cases, "test")]
        text = f"{counted(len(found.files), 'file')}: {', '.join(counted(len(what), noun) for what, noun in parts)}"
        bounds = loaded.ruleset.ledger
        if bounds.max_bytes:
            text += f", a ledger of at most {show_size(bounds.max_bytes)}"
        if bounds.keep_ns:
            text += f", data kept for {show_duration(bounds.keep_ns)}"
        if loaded.warnings:
            style, text = "yellow", f"{text}, {counted(len(loaded.warnings), 'warning')}"
        else:
            text += ", no problems"
    return paint(text, style, colour)


def _plain(problems: Sequence[Problem], level: str) -> list[dict[str, object]]:
    return [
        {
            "level": level,
            "code": problem.code,
            "message": problem.message,
            "file": problem.mark.file,
            "line": problem.mark.line,
            "col": problem.mark.col,
            "help": problem.help,
        }
        for problem in problems
    ]
