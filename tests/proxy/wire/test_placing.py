"""Putting a key into a request: the value is there, once, and nothing else has changed, not even its spelling."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.body import read_json
from proxy.wire.placing import PlacingError, in_form, in_object, in_query
from proxy.wire.target import read_pairs


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        ('{"a":1}', '{"k":"v","a":1}'),
        ("{}", '{"k":"v"}'),
        (" {\n}\n", ' {"k":"v"\n}\n'),
        ('{ "a" : 1e2 , "b":[1,2] }', '{"k":"v", "a" : 1e2 , "b":[1,2] }'),
        ('{"k":"old","a":1}', '{"k":"v","a":1}'),
        ('{"a":1.50,\t"k" : "old" , "z":null}', '{"a":1.50,\t"k" : "v" , "z":null}'),
        ('{"a":{"k":"inner"},"k":{"x":[{}]}}', '{"a":{"k":"inner"},"k":"v"}'),
        ('{"\\u006b":"old"}', '{"\\u006b":"v"}'),
        ('{"a":"\\"k\\":","k":7}', '{"a":"\\"k\\":","k":"v"}'),
        ('{"n":' + "9" * 4000 + "}", '{"k":"v","n":' + "9" * 4000 + "}"),
        ('{"é":"ü\\ud83d\\ude00","z":"日"}', '{"k":"v","é":"ü\\ud83d\\ude00","z":"日"}'),
    ],
)
def test_the_rest_of_an_object_stays_as_it_was_written(raw: str, changed: str) -> None:
    assert in_object(raw.encode(), "k", "v").decode() == changed


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b"a=1", b"a=1&k=v+w%2F"),
        (b"", b"k=v+w%2F"),
        (b"k=old", b"k=v+w%2F"),
        (b"a=%41&k=1&b=+&k=2&&c", b"a=%41&k=v+w%2F&b=+&&c"),
        (b"%6b=old&kk=1", b"k=v+w%2F&kk=1"),
        (b"a=1&", b"a=1&&k=v+w%2F"),
    ],
)
def test_the_rest_of_a_form_stays_as_it_was_written(raw: bytes, changed: bytes) -> None:
    changed = changed.replace(b"v+w%2F", b"v%20w%2F")
    assert in_form(raw, "k", "v w/") == changed
    assert in_query(b"/p?" + raw, "k", "v w/") == b"/p?" + changed


def test_a_target_without_a_query_gets_one() -> None:
    assert in_query(b"/a%2Fb", "requestId", "v") == b"/a%2Fb?requestId=v"


@pytest.mark.parametrize("raw", [b"[1]", b'"k"', b"7"])
def test_what_is_no_object_cannot_carry_one(raw: bytes) -> None:
    with pytest.raises(PlacingError):
        in_object(raw, "k", "v")


@pytest.mark.parametrize("raw", [b"", b"{", b'{"k":1,"k":2}', b'{"a":1} {}', b"\xef\xbb\xbf{}"])
def test_what_cannot_be_read_is_not_touched(raw: bytes) -> None:
    with pytest.raises(ValueError, match="its JSON"):
        in_object(raw, "k", "v")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("k"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS | st.just("k"), VALUES, max_size=4), PRINTABLE, st.sampled_from([None, 0, 3, "\t"]))
def test_an_object_reads_as_before_but_for_the_key(before: dict[str, object], value: str, indent: int | None) -> None:
    raw = json.dumps(before, indent=indent, ensure_ascii=bool(indent)).encode()
    changed = in_object(raw, "k", value)
    found = read_json(changed)
    assert isinstance(found, dict)
    assert found.pop("k") == value
    expected = read_json(raw)
    assert isinstance(expected, dict)
    expected.pop("k", None)
    assert list(found.items()) == list(expected.items())
    assert in_object(changed, "k", value) == changed


@given(st.lists(st.tuples(TEXTS | st.just("k"), TEXTS), max_size=5), PRINTABLE)
def test_a_form_reads_as_before_but_for_the_key(pairs: list[tuple[str, str]], value: str) -> None:
    pairs = [(name, text) for name, text in pairs if "\0" not in name + text]
    raw = "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in pairs).encode()
    changed = in_form(raw, "k", value)
    found = read_pairs(changed, "form")
    assert [pair for pair in found if pair[0] != "k"] == [pair for pair in read_pairs(raw, "form") if pair[0] != "k"]
    assert [text for name, text in found if name == "k"] == [value]
    assert in_form(changed, "k", value) == changed
