"""How problems look: the message, the place, the line with a caret, help; nothing that a terminal would obey."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.problems import SHOWN, Mark, Problem, RuleFileError, render
from rules.suggest import listing, suggest

TEXT = "version: 1\nrules:\n  - {id: a, alow: true}\n"

LOOKS: list[tuple[str, Problem, str, str]] = [
    (
        "a problem with help",
        Problem("unknown-key", "`alow` is not a key of a rule", Mark("my rules.yaml", 3, 13), "did you mean `allow`?"),
        TEXT,
        """\
error[unknown-key]: `alow` is not a key of a rule
 --> my rules.yaml:3:13
  |
3 |   - {id: a, alow: true}
  |             ^
  |
help: did you mean `allow`?""",
    ),
    (
        "a problem without help, in a line with more digits",
        Problem("empty", "it is empty", Mark("f.yaml", 100, 2)),
        "\n" * 99 + "ab\n",
        """\
error[empty]: it is empty
   --> f.yaml:100:2
    |
100 | ab
    |  ^""",
    ),
    (
        "wide characters before the caret",
        Problem("code", "message", Mark("f.yaml", 1, 4)),
        "日本: x",
        """\
error[code]: message
 --> f.yaml:1:4
  |
1 | 日本: x
  |      ^""",
    ),
    (
        "a tab, a control character and a change of direction",
        Problem("code", "a \x1b[31m message", Mark("f\n.yaml", 1, 4), "a \u202e help"),
        "\ta\x07\u202eb",
        """\
error[code]: a \ufffd[31m message
 --> f .yaml:1:4
  |
1 |  a\ufffd\ufffdb
  |    ^
  |
help: a \ufffd help""",
    ),
    (
        "a byte order mark in front of it all",
        Problem("code", "message", Mark("f.yaml", 1, 2)),
        "\ufeffab",
        """\
error[code]: message
 --> f.yaml:1:2
  |
1 | ab
  |  ^""",
    ),
    (
        "a place behind the end of the file",
        Problem("code", "message", Mark("f.yaml", 7, 1)),
        "a\n",
        """\
error[code]: message
 --> f.yaml:7:1
  |
7 |
  | ^""",
    ),
    (
        "lines that end in other ways",
        Problem("code", "message", Mark("f.yaml", 3, 1)),
        "a\r\nb\rc\x0cd\n",
        """\
error[code]: message
 --> f.yaml:3:1
  |
3 | c\ufffdd
  | ^""",
    ),
]


@pytest.mark.parametrize(("problem", "text", "shown"), [case[1:] for case in LOOKS], ids=[case[0] for case in LOOKS])
def test_a_problem_looks_like_this(problem: Problem, text: str, shown: str) -> None:
    assert render(problem, text) == shown


@pytest.mark.parametrize("level", ["error", "warning"])
def test_a_warning_says_that_it_is_one(level: Literal["error", "warning"]) -> None:
    assert render(LOOKS[0][1], TEXT, level).startswith(f"{level}[unknown-key]: ")


@pytest.mark.parametrize("col", [1, 50, 119, 120, 121, 500, 990, 1000])
def test_of_a_long_line_the_part_at_the_caret_is_shown(col: int) -> None:
    line = "".join(chr(ord("a") + place % 26) for place in range(1000))
    shown = render(Problem("code", "message", Mark("f.yaml", 1, col)), line).split("\n")
    source, caret = shown[3], shown[4]
    assert len(source) < SHOWN + 12
    assert source[caret.index("^")] == line[col - 1]


def test_an_error_says_all_that_is_wrong() -> None:
    problems = tuple(Problem("code", message, Mark("f.yaml", 1, 1)) for message in ("first", "second"))
    assert str(RuleFileError(problems)) == "first; second"


@given(st.text(), st.text(), st.integers(1, 5), st.integers(1, 300))
def test_whatever_a_file_holds_the_terminal_is_safe(text: str, name: str, line: int, col: int) -> None:
    shown = render(Problem("code", text, Mark(name, line, col), name), text)
    assert all(char.isprintable() or char in "\n\xa0\u3000" or char.isspace() for char in shown)
    assert shown.count("\n") in (4, 6)
    assert not any(ord(char) < 32 for char in shown.replace("\n", ""))


@pytest.mark.parametrize(
    ("word", "known", "help"),
    [
        ("alow", ["allow", "deny"], "did you mean `allow`?"),
        ("denied", ["allow", "deny"], ""),
        ("stripe.refund", ["stripe.refund.create", "stripe.charge"], "did you mean `stripe.refund.create`?"),
        ("budget", ["allow", "deny"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean(word: str, known: list[str], help: str) -> None:
    assert suggest(word, known) == help


@pytest.mark.parametrize(
    ("words", "said"), [([], ""), (["a"], "`a`"), (["a", "b"], "`a` or `b`"), (["a", "b", "c"], "`a`, `b` or `c`")]
)
def test_a_listing_of_words(words: list[str], said: str) -> None:
    assert listing(words) == said


def test_a_listing_can_join_by_and() -> None:
    assert listing(["a", "b"], "and") == "`a` and `b`"
