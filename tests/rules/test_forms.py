"""Forms: what bracket names spell, and which of them can be read in several ways."""

from __future__ import annotations

import pytest

from rules.forms import Either, Indexed, tree

ONE = Indexed({"0": "1"})
DEEP = "a" + "[b]" * 7
TOO_DEEP = "a" + "[b]" * 8

TREES: list[tuple[str, list[tuple[str, str]], dict[str, object]]] = [
    ("a name", [("a", "1")], {"a": "1"}),
    ("an object", [("a[b]", "1"), ("a[c]", "2")], {"a": {"b": "1", "c": "2"}}),
    ("an object in an object", [("a[b][c]", "1")], {"a": {"b": {"c": "1"}}}),
    ("a list that is pushed to", [("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
    ("a list by index", [("a[1]", "2"), ("a[0]", "1")], {"a": Indexed({"0": "1", "1": "2"})}),
    ("objects in a list", [("a[0][b]", "1")], {"a": Indexed({"0": {"b": "1"}})}),
    ("numbers among names are names", [("a[0]", "1"), ("a[x]", "2")], {"a": {"0": "1", "x": "2"}}),
    ("an index with a leading zero is a name", [("a[00]", "1")], {"a": {"00": "1"}}),
    ("dots are part of a name", [("a.b", "1")], {"a.b": "1"}),
    ("eight levels", [(DEEP, "1")], {"a": {"b": {"b": {"b": {"b": {"b": {"b": {"b": "1"}}}}}}}}),
    # what servers read differently
    ("a name twice", [("a", "1"), ("a", "2")], {"a": Either(("1", "2"))}),
    ("a member twice", [("a[b]", "1"), ("a[b]", "2")], {"a": {"b": Either(("1", "2"))}}),
    ("a value beside members", [("a", "1"), ("a[b]", "2")], {"a": Either(("1", {"b": "2"}))}),
    ("pushed beside members", [("a[]", "1"), ("a[b]", "2")], {"a": Either((["1"], {"b": "2"}))}),
    ("pushed beside an index", [("a[]", "1"), ("a[0]", "1")], {"a": Either((["1"], ONE))}),
    ("members of what is pushed", [("a[][b]", "1"), ("a[][c]", "2")], {"a": Either(([{"b": "1", "c": "2"}],))}),
    ("a bracket that does not close", [("a[b", "1")], {"a": Either(("1",))}),
    ("text behind a bracket", [("a[b]c", "1")], {"a": Either(("1",))}),
    ("nine levels", [(TOO_DEEP, "1")], {"a": Either(("1",))}),
    ("a bracket without a name", [("[a]", "1")], {"": {"a": "1"}}),
]


@pytest.mark.parametrize(
    ("case", "pairs", "expected"), TREES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_bracket_names_spell(case: str, pairs: list[tuple[str, str]], expected: dict[str, object]) -> None:
    assert tree(pairs, None) == expected
    assert type(tree(pairs, None).get("a")) is type(expected.get("a")), "an `Indexed` equals a dict, but is none"


def test_only_the_wanted_member_is_decoded() -> None:
    pairs = [("a[b]", "1"), ("ab", "2"), ("b[a]", "3"), ("a", "4")]
    assert tree(pairs, "b") == {"b": {"a": "3"}}


def test_a_name_with_brackets_can_be_wanted_as_it_is() -> None:
    assert tree([("a[b", "1"), ("a[b]", "2"), ("a", "3")], "a[b") == {"a[b": "1"}
    assert tree([("a[b", "1"), ("a[b]", "2"), ("a", "3")], "a[b]") == {"a[b]": "2"}
