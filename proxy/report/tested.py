"""The result of `rules test`: what failed and how, and one line that sums up."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.report.checked import counted
from proxy.report.terminal import hung, paint, visible
from rules.cases import Case, CaseResult

type Results = Sequence[tuple[Case, CaseResult]]


def show(results: Results, verbose: bool, room: int, colour: bool) -> list[str]:
    """Each failed test (`verbose`: each test), then the sum."""
    lines: list[str] = []
    for case, result in results:
        if result.passed:
            lines += [f"{paint('pass', 'green', colour)} {visible(case.name)}"] if verbose else []
            continue
        lines.append(f"{paint('FAIL', 'red', colour)} {visible(case.name)}")
        lines.append(paint(f"     {case.mark.file}:{case.mark.line}", "dim", colour))
        for miss in result.mismatches:
            which = f"call {miss.step}: " if len(case.steps) > 1 else ""
            lines.append(f"     {which}{miss.what} was expected to be `{miss.expected}` and is `{miss.actual}`")
        decision = result.decisions[result.mismatches[0].step - 1]
        lines += hung("     ", decision.detail, room) if decision.detail else []
    failed = sum(not result.passed for _, result in results)
    if not results:
        return ["no tests: add `tests:` to a rule file"]
    text = f"{counted(len(results), 'test')}: {len(results) - failed} passed" + (f", {failed} failed" if failed else "")
    return [*lines, *([""] if lines else []), paint(text, "red" if failed else "green", colour)]


def plain(results: Results) -> dict[str, object]:
    """What `rules test --json` prints."""
    return {
        "passed": sum(result.passed for _, result in results),
        "failed": sum(not result.passed for _, result in results),
        "tests": [
            {
                "name": case.name,
                "file": case.mark.file,
                "line": case.mark.line,
                "passed": result.passed,
                "mismatches": result.mismatches,
                "decisions": [decision.action for decision in result.decisions],
            }
            for case, result in results
        ],
    }
