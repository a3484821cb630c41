"""docs/guarantees.md: its tables are the program's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rules.decision import Answer
from rules.guards.claims import STEPS, outcome_of
from tests.rules.world import LOST, WITHDRAWN, answered

PAGE = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \| .+ \|$", re.MULTILINE)
OUTCOME = re.compile(r"^\| (.+) \| `(\w+)` \|$", re.MULTILINE)


def test_the_steps_of_a_claim_are_these() -> None:
    rows: list[tuple[str, str, str]] = STEP.findall(PAGE)
    assert [(state, step) for state, step, _ in rows] == list(STEPS), "each once, in this order"
    assert {(state, step): after for state, step, after in rows} == STEPS


def all_of(*statuses: int) -> list[Answer]:
    return [answered(status) for status in statuses]


SAID: dict[str, tuple[list[Answer], bool]] = {
    "was held back, or": ([WITHDRAWN, Answer(0, complete=False, sent=False, error="connection refused")], False),
    "got no complete answer": ([LOST, Answer(200, complete=False, sent=True)], False),
    "was answered 2xx or 3xx": (all_of(*range(200, 400)), True),
    "was answered 4xx but": (
        [*all_of(*(each for each in range(400, 500) if each not in (408, 499))), answered(503, ("retry-after", "1"))],
        False,
    ),
    "went to a tool with an `upstream_key`": (all_of(409), True),
    "was answered 408, 499": (all_of(408, 499, *range(500, 600)), True),
}
"""How a row begins -> the answers that it is about, and whether the tool has an upstream key."""


@pytest.mark.parametrize("begins", SAID)
def test_an_answer_says_what_the_table_says(begins: str) -> None:
    ((_, kind),) = [row for row in OUTCOME.findall(PAGE) if row[0].startswith(begins)]
    answers, keyed = SAID[begins]
    assert {outcome_of(answer, keyed) for answer in answers} == {kind}


def test_every_row_about_an_answer_is_tested() -> None:
    rows = [row[0] for row in OUTCOME.findall(PAGE)]
    assert len(rows) == len(SAID) + 1, "and that a dead proxy leaves an unknown outcome is scenario 22"
