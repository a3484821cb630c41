"""Tables, wrapped text and colour: what fits, what gives way, and what a terminal never gets to see."""

from __future__ import annotations

import io

import pytest

from proxy.report.terminal import (
    WIDE,
    Cell,
    Column,
    clip,
    coloured,
    columns_of,
    hung,
    paint,
    table,
    table_width,
    visible,
    width,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


COLUMNS = [Column("ID", 2, right=True), Column("WHAT", 6, gives=True), Column("WHO", 3)]


def rows(*texts: tuple[str, str, str]) -> list[list[Cell]]:
    return [[Cell(text) for text in row] for row in texts]


def test_a_table_is_as_wide_as_it_has_to_be() -> None:
    assert table(COLUMNS, rows(("1", "short", "me"), ("12", "longer text", "you")), 80, False) == [
        "ID  WHAT         WHO",
        " 1  short        me",
        "12  longer text  you",
    ]


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (20, "12  longer text  you"),
        (18, "12  longer t…  you"),
        (15, "12  longe…  you"),
        (5, "12  longe…  you"),
    ],
)
def test_what_gives_way_does_so_down_to_its_least(room: int, line: str) -> None:
    assert table(COLUMNS, rows(("12", "longer text", "you")), room, False)[1] == line


def test_wide_characters_take_two_columns() -> None:
    assert columns_of("日本e\u0301") == 5
    assert clip("日本語", 5) == "日本…"
    assert clip("日本語", 4) == "日…"
    lines = table(COLUMNS, rows(("1", "日本", "me"), ("2", "x", "me")), 80, False)
    assert lines[1:] == [" 1  日本  me", " 2  x     me"]


def test_colour_does_not_count_as_width() -> None:
    plain = table(COLUMNS, [[Cell("1"), Cell("short", "red"), Cell("me")]], 80, False)
    painted = table(COLUMNS, [[Cell("1"), Cell("short", "red"), Cell("me")]], 80, True)
    assert painted[1] == plain[1].replace("short", "\x1b[31mshort\x1b[0m")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[2Jb", "a\ufffd[2Jb"), ("a\nb\tc", "a b c"), ("\u202egnp.exe", "\ufffdgnp.exe"), ("größe ✓", "größe ✓")],
)
def test_what_a_terminal_would_obey_is_not_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert table(COLUMNS, rows(("1", text, "me")), 80, False)[1].split("  ")[1].strip() == shown


def test_text_hangs_below_its_head() -> None:
    assert hung("why: ", "one two three four five six", 26) == ["why: one two three four", "     five six"]


@pytest.mark.parametrize(
    ("environment", "stream", "colour"),
    [
        ({}, Terminal(), True),
        ({}, io.StringIO(), False),
        ({"NO_COLOR": "1"}, Terminal(), False),
        ({"NO_COLOR": ""}, Terminal(), True),
        ({"TERM": "dumb"}, Terminal(), False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    environment: dict[str, str], stream: io.StringIO, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert coloured(stream) is colour
    assert paint("x", "red", coloured(stream)) == ("\x1b[31mx\x1b[0m" if colour else "x")


@pytest.mark.parametrize(
    ("columns", "text", "tables"), [("", 80, WIDE), ("120", 120, 120), ("10", 40, 40), ("wide", 80, WIDE)]
)
def test_a_pipe_is_eighty_columns_wide_for_text_and_wide_for_tables_unless_it_is_said(
    columns: str, text: int, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert (width(io.StringIO()), table_width(io.StringIO())) == (text, tables)
