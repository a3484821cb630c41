"""The result of `rules test`: what failed and how, and one line that sums up."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.report.checked import counted
from proxy.report.terminal import Cell, Column, hung, paint, table, visible
from rules.cases import Case, CaseResult
from rules.coverage import Seen

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
        for line in missed(case, result):
            lines += hung("     ", line, room)
    failed = sum(not result.passed for _, result in results)
    if not results:
        return ["no tests: add `tests:` to a rule file"]
    text = f"{counted(len(results), 'test')}: {len(results) - failed} passed" + (f", {failed} failed" if failed else "")
    return [*lines, *([""] if lines else []), paint(text, "red" if failed else "green", colour)]


def missed(case: Case, result: CaseResult) -> list[str]:
    """What was not as expected in a test that failed, and what was said of the first such call."""
    lines = []
    for miss in result.mismatches:
        which = f"call {miss.step}: " if len(case.steps) > 1 else ""
        lines.append(f"{which}{miss.what} was expected to be `{miss.expected}` and is `{miss.actual}`")
    detail = result.decisions[result.mismatches[0].step - 1].detail
    return [*lines, detail] if detail else lines


def chosen(cases: Sequence[Case], words: str) -> list[Case]:
    """The tests that have all of `words` in their names."""
    return [case for case in cases if all(word in case.name.casefold() for word in words.casefold().split())]


def show_coverage(coverage: Sequence[Seen], room: int, colour: bool) -> list[str]:
    """One line a rule: how many calls of the tests it let through, and how many it refused. Then the sum."""
    columns = [
        Column("RULE", 12),
        Column("LETS THROUGH", 12, right=True),
        Column("REFUSES", 7, right=True),
        Column("FROM", 8, gives=True),
    ]
    rows = [
        [Cell(each.rule, "bold"), _side(each.lets), _side(each.refuses), Cell(each.source, "dim")] for each in coverage
    ]
    complete = sum(each.complete for each in coverage)
    never = sum(each.never for each in coverage)
    text = f"{counted(len(coverage), 'rule')}: {complete} tested on every side"
    if complete < len(coverage):
        text += f", {len(coverage) - complete - never} on one, {never} on none"
    done = complete == len(coverage)
    return [*table(columns, rows, room, colour), "", paint(text, "green" if done else "yellow", colour)] if rows else []


def _side(count: int | None) -> Cell:
    """`-` for a side that the rule does not have."""
    if count is None:
        return Cell("-", "dim")
    return Cell(f"{count}") if count else Cell("never", "yellow")


def plain_coverage(coverage: Sequence[Seen]) -> list[dict[str, object]]:
    """What `rules test --coverage --json` adds. A side that a rule does not have is null."""
    return [
        {"rule": each.rule, "source": each.source, "lets_through": each.lets, "refuses": each.refuses}
        for each in coverage
    ]


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
