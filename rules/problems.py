"""What can be wrong with a rule file: problems that point at their place, each with a code that can be explained."""

from __future__ import annotations

import msgspec


class Mark(msgspec.Struct, frozen=True):
    """A place in a rule file; `line` and `col` count from 1."""

    file: str
    line: int
    col: int


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `message` is lower case with the input in backticks; `help` says how to mend it."""

    code: str
    message: str
    mark: Mark
    help: str = ""


class RuleFileError(Exception):
    """The rule files cannot be used. Nothing of them is in force."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems
