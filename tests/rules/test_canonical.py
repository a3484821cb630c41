"""Canonical bytes: what means the same has the same bytes, and nothing else does."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import NO_BODY, UNREAD_BODY, Body, Json, Part
from rules.canonical import (
    PLAIN_DIGITS,
    _canonical,
    _canonical_slowly,
    canonical_body,
    canonical_json,
    canonical_number,
    canonical_pairs,
    frame,
    text_bytes,
)


def read(text: str) -> Json:
    return cast(Json, json.loads(text, parse_float=Decimal))


SAME = [
    ("100", "1e2"),
    ("100", "100.0"),
    ("100", "1.00E+2"),
    ("0", "-0"),
    ("0", "0e99999"),
    ("-0.5", "-5e-1"),
    ("1e40", "1" + "0" * 40),
    ("1e39", "1" + "0" * 39),
    ("123456789012345678901234567890.0", "123456789012345678901234567890"),
    ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
    ('{"a": {"c": 1.0, "b": [1e1]}}', '{ "a": {"b":[10], "c":1} }'),
    ('"\\u00e9"', '"é"'),
    ('{"a": 1.5}', '{"a": 15e-1}'),
]

DIFFERENT = [
    ("9007199254740992", "9007199254740993"),
    ("1", '"1"'),
    ("1", "true"),
    ("0", "false"),
    ("null", "false"),
    ("null", '"null"'),
    ("[]", "{}"),
    ("[1, 2]", "[2, 1]"),
    ("[1, 2]", "[12]"),
    ("[[1], 2]", "[[1, 2]]"),
    ('{"a": 1}', '{"A": 1}'),
    ('{"a": null}', "{}"),
    ('"é"', '"e\\u0301"'),
    ('"a "', '"a"'),
    ("1e999999999", "1e999999998"),
    ("1e40", "-1e40"),
    ('"1e40"', "1e40"),
    ('{"a": "b\\",\\"c\\":\\"d"}', '{"a": "b", "c": "d"}'),
    ('"\\ud800"', '"\\ud801"'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_means_the_same_has_the_same_bytes(one: str, other: str) -> None:
    assert canonical_json(read(one)) == canonical_json(read(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_differs_has_other_bytes(one: str, other: str) -> None:
    assert canonical_json(read(one)) != canonical_json(read(other))


@pytest.mark.parametrize("text", ["1e999999999", "-1e-999999999", "1e+4000"])
def test_an_exponent_is_never_written_out(text: str) -> None:
    assert len(canonical_json(read(text))) < 20


def test_keys_are_sorted_by_code_point() -> None:
    assert canonical_json(read('{"é": 1, "z": 2, "Z": 3, "\\ud83d\\ude00": 4, "\\uffff": 5}')) == (
        b'{"Z":3,"z":2,"\\u00e9":1,"\\uffff":5,"\\ud83d\\ude00":4}'
    )


@pytest.mark.parametrize("fraction", ["1", "1.0"])
def test_depth_is_no_limit(fraction: str) -> None:
    value: Json = Decimal(fraction)
    for _ in range(50_000):
        value = {"a": [value]}
    assert canonical_json(value) == b'{"a":[' * 50_000 + b"1" + b"]}" * 50_000


def test_an_integer_longer_than_python_writes_is_canonical() -> None:
    assert canonical_json([10**5000]) == b"[1e5000]"
    assert canonical_json([7 * 10**PLAIN_DIGITS, 7]) == b"[7e40,7]"


# JSON values, and the same values in another spelling: keys in another order, numbers as Decimals with zeros behind.
numbers = st.one_of(
    st.integers(-(10**45), 10**45),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5))
values: st.SearchStrategy[Json] = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)


def respell(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: respell(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [respell(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(f"{value}.000")
    if isinstance(value, Decimal):
        return Decimal(f"{value:f}" + ("0" if "." in f"{value:f}" else ".0"))
    return value


def typed(value: Json) -> object:
    """A value that is equal to another one exactly when both mean the same; Python's own `1 == True` is not that."""
    if isinstance(value, dict):
        return ("map", frozenset((key, typed(each)) for key, each in value.items()))
    if isinstance(value, list):
        return ("list", tuple(typed(each) for each in value))
    kind = "number" if isinstance(value, int | Decimal) and not isinstance(value, bool) else type(value).__name__
    return (kind, value)


@given(values)
def test_spelling_does_not_matter(value: Json) -> None:
    assert canonical_json(respell(value)) == canonical_json(value)


@given(values)
def test_the_fast_way_gives_the_same_bytes(value: Json) -> None:
    assert _canonical(value).encode() == _canonical_slowly(value)
    assert canonical_json(value) == _canonical_slowly(value)


@pytest.mark.parametrize("depth", [900, 2_000, 9_000])
def test_a_fraction_at_any_depth_is_canonical(depth: int) -> None:
    value: Json = Decimal("1.5")
    for _ in range(depth):
        value = [value]
    assert canonical_json(value) == b"[" * depth + b"15e-1" + b"]" * depth


@given(values, values)
def test_equal_bytes_mean_equal_values(one: Json, other: Json) -> None:
    assert (canonical_json(one) == canonical_json(other)) is (typed(one) == typed(other))


@given(values, st.data())
def test_any_change_of_a_leaf_changes_the_bytes(value: Json, data: st.DataObject) -> None:
    old, new = data.draw(st.tuples(leaves, leaves).filter(lambda pair: typed(pair[0]) != typed(pair[1])))
    assert canonical_json([value, {"leaf": old}]) != canonical_json([value, {"leaf": new}])


@given(st.one_of(st.integers(), st.decimals(allow_nan=False, allow_infinity=False)))
def test_a_canonical_number_reads_back_as_itself(value: int | Decimal) -> None:
    assert Decimal(canonical_number(value)) == value


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_frames_are_unambiguous(one: list[bytes], other: list[bytes]) -> None:
    assert (frame(*one) == frame(*other)) is (one == other)


def test_halves_of_surrogate_pairs_keep_apart() -> None:
    halves = [text_bytes(text) for text in ("\ud83d", "\ude00", "\ud83d\ude00", "\U0001f600", "?", "")]
    assert len(set(halves)) == len(halves)


def test_pairs_are_sorted_by_name_and_keep_the_order_of_equal_names() -> None:
    assert canonical_pairs([("b", "2"), ("a", "1")]) == canonical_pairs([("a", "1"), ("b", "2")])
    assert canonical_pairs([("a", "1"), ("a", "2")]) != canonical_pairs([("a", "2"), ("a", "1")])
    assert canonical_pairs([("a", "1b")]) != canonical_pairs([("a1", "b")])


PART = Part("file", "a.txt", "text/plain", b"digest", "")
BODIES = [
    NO_BODY,
    Body("json", json={}),
    Body("json", json=[]),
    Body("form"),
    Body("form", fields=(("a", "1"),)),
    Body("multipart"),
    Body("multipart", parts=(PART,)),
    Body("multipart", parts=(PART, PART)),
    Body("multipart", parts=(Part("file", "b.txt", "text/plain", b"digest", ""),)),
    Body("multipart", parts=(Part("file", "a.txt", "text/html", b"digest", ""),)),
    Body("multipart", parts=(Part("other", "a.txt", "text/plain", b"digest", ""),)),
    Body("multipart", parts=(Part("file", "a.txt", "text/plain", b"another", ""),)),
    Body("text", sha256=b"1"),
    Body("binary", sha256=b"2"),
]


def test_bodies_of_every_kind_keep_apart() -> None:
    assert len({canonical_body(body) for body in BODIES}) == len(BODIES)


@pytest.mark.parametrize("body", [UNREAD_BODY, Body("undecodable", problem="not JSON")])
def test_a_body_that_was_not_decoded_has_no_canonical_form(body: Body) -> None:
    with pytest.raises(ValueError, match=f"a body that is `{body.kind}` has no canonical form"):
        canonical_body(body)
