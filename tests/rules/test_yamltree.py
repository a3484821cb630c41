"""Rule files as YAML: what a scalar means, what is refused, and where the error points."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.problems import Mark, RuleFileError
from rules.yamltree import DEPTH, Node, parse, read

SCALARS: list[tuple[str, object]] = [
    ("null", None),
    ("~", None),
    ("Null", None),
    ("nULL", "nULL"),
    ("true", True),
    ("False", False),
    ("tRue", "tRue"),
    ("yes", "yes"),
    ("NO", "NO"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("0", 0),
    ("-7", -7),
    ("+7", 7),
    ("010", 10),
    ("0o17", 15),
    ("0x1F", 31),
    ("0b11", "0b11"),
    ("1_000", "1_000"),
    ("12:30:45", "12:30:45"),
    ("2020-01-01", "2020-01-01"),
    ("9007199254740993", 9007199254740993),
    ("18446744073709551617", 2**64 + 1),
    ("1.50", Decimal("1.50")),
    (".5", Decimal("0.5")),
    ("5.", Decimal("5")),
    ("1e2", Decimal("100")),
    ("-1.5E-3", Decimal("-0.0015")),
    (".", "."),
    ("1.2.3", "1.2.3"),
    ("10/min", "10/min"),
    ("24h", "24h"),
    ("=", "="),
    ("<<", "<<"),
    ('"1"', "1"),
    ("'true'", "true"),
    ('"\\u200b"', "\u200b"),
    ("GET https://api.example.com/{id}", "GET https://api.example.com/{id}"),
    ("\u0967\u0968", "\u0967\u0968"),
    ("|\n  two\n  lines", "two\nlines\n"),
    ("|-\n  5", "5"),
]


@pytest.mark.parametrize(("written", "meant"), SCALARS, ids=[written for written, _ in SCALARS])
def test_scalars_mean_what_yaml_1_2_core_says(written: str, meant: object) -> None:
    node = parse(f"a: {written}\n", "f.yaml").get("a")
    assert node is not None
    assert node.scalar == meant
    assert type(node.scalar) is type(meant)


REFUSED: list[tuple[str, str, str, tuple[int, int]]] = [
    ("an empty file", "", "empty-file", (1, 1)),
    ("only a comment", "# nothing\n", "empty-file", (1, 1)),
    ("an empty document", "---\n...\n", "empty-file", (1, 1)),
    ("an open bracket at the end", "a: [1, 2\n", "yaml-syntax", (1, 4)),
    ("an open brace at the end", "a: 1\nb: {c: 1,\n", "yaml-syntax", (2, 4)),
    ("an open quote at the end", "a: 1\nb: 'text\nc: 1\n", "yaml-syntax", (2, 4)),
    ("brackets in brackets open at the end", "a: {b: [1,\n\n", "yaml-syntax", (1, 8)),
    ("a double quote open at the end", 'a: "text', "yaml-syntax", (1, 4)),
    ("a key without a value", "a: 1\nrul", "yaml-syntax", (2, 1)),
    ("a tab as indentation", "a:\n\tb: 1\n", "yaml-tab", (2, 1)),
    ("a tab deeper down", "a:\n  b: 1\n\tc: 1\n", "yaml-tab", (3, 1)),
    ("a tab in a block text", "a: |\n\t x\n", "yaml-tab", (2, 1)),
    ("a colon in an unquoted text", "deny: No: ask.\n", "yaml-syntax", (1, 9)),
    ("a star without a name", "tool: *\n", "yaml-syntax", (1, 7)),
    ("an alias", "tool: *x\n", "yaml-alias", (1, 7)),
    ("an anchor", "tool: &x y\n", "yaml-alias", (1, 7)),
    ("an anchor on a mapping", "tool: &x {a: 1}\n", "yaml-alias", (1, 7)),
    ("a tag of YAML's own", "id: !!str 7\n", "yaml-tag", (1, 5)),
    ("a tag that runs code elsewhere", "id: !!python/object:os.system 7\n", "yaml-tag", (1, 5)),
    ("a tag of one's own", "id: !include x.yaml\n", "yaml-tag", (1, 5)),
    ("an undeclared tag handle", "id: !x!y 7\n", "yaml-tag", (1, 5)),
    ("a directive", "%YAML 1.1\n---\na: 1\n", "yaml-tag", (1, 1)),
    ("two documents", "a: 1\n---\nb: 1\n", "yaml-documents", (2, 1)),
    ("text behind the document", "a: 1\n...\nb\n", "yaml-documents", (3, 1)),
    ("a key twice", "a: 1\nb: 2\na: 3\n", "duplicate-key", (3, 1)),
    ("a key twice, quoted once", 'a: 1\n"a": 3\n', "duplicate-key", (2, 1)),
    ("a key twice, deep inside", "a:\n  - {b: 1, b: 1}\n", "duplicate-key", (2, 12)),
    ("a number as a key", "7: x\n", "key-not-text", (1, 1)),
    ("true as a key", "true: x\n", "key-not-text", (1, 1)),
    ("null as a key", "~: x\n", "key-not-text", (1, 1)),
    ("a list as a key", "? [a, b]\n: x\n", "key-not-text", (1, 3)),
    ("an alias as a key", "*x : y\n", "yaml-alias", (1, 1)),
    ("infinity", "a: .inf\n", "yaml-number", (1, 4)),
    ("minus infinity", "a: -.INF\n", "yaml-number", (1, 4)),
    ("not a number", "a: .nan\n", "yaml-number", (1, 4)),
    ("a number of any size", f"a: {'9' * 5000}\n", "yaml-number", (1, 4)),
    ("an exponent of any size", "a: 1e999999999\n", "yaml-number", (1, 4)),
    ("an exponent below any size", "a: 1e-9999\n", "yaml-number", (1, 4)),
    ("an unknown escape", 'a: "\\d"\n', "yaml-syntax", (1, 5)),
    ("a value that starts with a backtick", "a: `x`\n", "yaml-syntax", (1, 4)),
    ("braces inside of braces", "{a: GET https://x/{id}, b: 1}\n", "yaml-syntax", (1, 19)),
    ("a list item where none fits", "a: - b\n", "yaml-syntax", (1, 4)),
    ("a line that fits no mapping", "a:\n  - b\n c: 1\n", "yaml-syntax", (3, 2)),
    ("a key below a list", "- a\nb: 1\n", "yaml-syntax", (2, 1)),
    ("a null character", "a: 1\nb: \0\n", "yaml-character", (2, 4)),
    ("an escape sequence for the terminal", "a: \x1b[2J\n", "yaml-character", (1, 4)),
    ("a zero-width space", "a: b\u200b\n", "yaml-character", (1, 5)),
    ("text that runs backwards", "a: \u202eb\n", "yaml-character", (1, 4)),
    ("a line break of YAML 1.1 only", "a: b\u2028c: d\n", "yaml-character", (1, 5)),
    ("a byte order mark in the middle", "a: 1\n\ufeffb: 2\n", "yaml-character", (2, 1)),
    ("half of a surrogate pair", "a: \ud800\n", "yaml-character", (1, 4)),
    ("nesting without end", "[" * 5000, "yaml-depth", (1, DEPTH + 2)),
]


@pytest.mark.parametrize(("text", "code", "place"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused_with_its_place(text: str, code: str, place: tuple[int, int]) -> None:
    with pytest.raises(RuleFileError) as refused:
        parse(text, "f.yaml")
    problem = refused.value.problems[0]
    assert (problem.code, (problem.mark.line, problem.mark.col)) == (code, place)
    assert problem.mark.file == "f.yaml"


def test_a_bomb_of_aliases_is_refused_without_being_built() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    with pytest.raises(RuleFileError) as refused:
        parse("\n".join(["a0: &a0 lol", *levels]), "f.yaml")
    assert {problem.code for problem in refused.value.problems} == {"yaml-alias"}


def test_everything_that_is_wrong_is_reported_at_once() -> None:
    node, problems = read("a: 1\na: 2\n7: x\nb: !t y\nc: *d\ne: .nan\nf: fine\n", "f.yaml")
    codes = ["duplicate-key", "key-not-text", "yaml-tag", "yaml-alias", "yaml-number"]
    assert [problem.code for problem in problems] == codes
    assert node is not None
    assert node.plain() == {"a": 1, "b": "y", "c": None, "e": None, "f": "fine"}


@pytest.mark.parametrize(
    "text",
    ["a: 1", "a: 1\n", "---\na: 1\n", "%YAML 1.2\n---\na: 1\n...\n", "\ufeffa: 1\n", "a:\t1\n", "a: 1\r\n", "{a: 1}"],
)
def test_the_same_mapping_in_other_clothes(text: str) -> None:
    assert parse(text, "f.yaml").plain() == {"a": 1}


def test_lines_are_counted_as_editors_count_them() -> None:
    node = parse("a: 1\r\nb: 2\rc:\n  - d\n  - 日本: e\n", "f.yaml")
    places = [(key.mark.line, key.mark.col) for key, _ in node.entries]
    assert places == [(1, 1), (2, 1), (3, 1)]
    items = (node.get("c") or node).items
    assert items[1].entries[0][1].mark == Mark("f.yaml", 5, 9)


def test_get_finds_nothing_where_there_is_nothing() -> None:
    node = parse("a: {b: 1}", "f.yaml")
    assert node.get("b") is None
    assert parse("[a]", "f.yaml").get("a") is None


def test_fail_points_at_the_node() -> None:
    node = parse("a: b\n", "f.yaml").get("a")
    assert node is not None
    with pytest.raises(RuleFileError, match="no such thing") as refused:
        node.fail("some-code", "no such thing", "try another")
    (problem,) = refused.value.problems
    assert (problem.mark, problem.help) == (Mark("f.yaml", 1, 4), "try another")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: wrong", (1, 6)),
        ("a: 'wrong'", (1, 7)),
        ('a: "wrong"', (1, 7)),
        ('a: "\\x77rong"', (1, 4)),
        ("a: |\n  wrong\n", (1, 4)),
    ],
)
def test_a_letter_of_a_text_has_a_place(text: str, place: tuple[int, int]) -> None:
    node = parse(text, "f.yaml").get("a")
    assert node is not None
    mark = node.at(2)
    assert (mark.line, mark.col) == place


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    node, problems = read(text, "f.yaml")
    assert isinstance(node, Node) or problems
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for problem in problems:
        assert 1 <= problem.mark.line <= len(lines) + 1
        assert problem.mark.col >= 1


@given(st.text(alphabet="a:-[]{}*&!%@`\"'|>#\t\n ,?1.e\\"))
def test_no_punctuation_breaks_the_reader(text: str) -> None:
    node, problems = read(text, "f.yaml")
    assert isinstance(node, Node) or problems
