"""The schema for editors: it accepts every good file, refuses what is wrong in shape, and explains every word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rules.guards import GUARDS
from rules.schema import schema
from rules.vocabulary import FILE, MATCH, RULE, SELECT, TOOL
from rules.yamltree import parse, read

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VALIDATOR = jsonschema_rs.Draft7Validator(schema())

EXAMPLES = sorted((ROOT / "tests/examples").iterdir())
SHIPPED = [*sorted((ROOT / "rules/packs").glob("*.yaml")), *sorted((ROOT / "proxy/demo").glob("*.yaml"))]
BAD = sorted((HERE / "bad").glob("*.yaml"))

BEYOND_SHAPE = {
    "equal-tools",
    "equal-tools-with-conditions",
    "look-around-and-backreferences",
    "names-that-no-pattern-captures",
    "nothing-but-a-version",
    "tool-of-a-pack-again",
    "tools-of-a-pack-not-in-use",
    "unknown-packs",
    "unknown-tools",
}
"""What only the loader can tell: it depends on other values, files or packs."""


def plain(value: object) -> object:
    """Decimals as the floats that an editor's YAML has."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return float(value) if isinstance(value, Decimal) else value


@pytest.mark.parametrize("path", [*EXAMPLES, *SHIPPED], ids=lambda path: path.stem)
def test_good_files_are_accepted(path: Path) -> None:
    value = plain(parse(path.read_text(encoding="utf-8"), path.name).plain())
    assert [error.message for error in VALIDATOR.iter_errors(value)] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_files_are_refused_where_their_shape_is_wrong(path: Path) -> None:
    root, problems = read(path.read_bytes().decode(), path.name)
    if root is None or problems:
        assert problems, "no YAML, so no schema is asked"
        return
    assert VALIDATOR.is_valid(plain(root.plain())) is (path.stem in BEYOND_SHAPE)


GOOD = [
    "rules: [{id: a, match: 'https://**', deny: true}]",
    "rules: [{id: a, agent: rogue, deny: No.}]",
    "rules: [{id: a, tool: [x, y.*], throttle: {rate: 3, per: 8s, wait: 0}}]",
    "rules: [{id: a, tool: x, dedupe: {window: 1h, key: ['body.a|body.b'], on_duplicate: reject}}]",
    "rules: [{id: a, tool: x, dedupe: {on_unknown: block, unknown_after: 30m}}]",
    "tools: {a: {match: POST https://a.example/, upstream_key: {header: X-Key, retention: 30d}}}\nrules: []",
    "tools: {a: {match: POST https://a.example/, upstream_key: Idempotency-Key}}\nrules: []",
    "tools: {a: {match: POST https://a.example/, upstream_key: {body: requestId}}}\nrules: []",
    "tools: {a: {match: POST https://a.example/, upstream_key: {query: requestId, retention: 1h}}}\nrules: []",
    "rules: [{id: a, tool: x, unless: {during: {days: [mon, wed-fri], zone: UTC}}, deny: true}]",
    "rules: [{id: a, tool: x, where: {any: [{body.a: 1.5}, {not: {'body[\"b c\"]': {eq: null}}}]}, throttle: 5/s}]",
    "rules: [{id: a, tool: x, where: {header.x: {cidr: [10.0.0.0/8]}, agent: b}, deny: true, mode: monitor}]",
    "rules: [{id: a, tool: x, where: {args.input.id: b, 'args.list[].c': {exists: false}}, deny: true}]",
    "tests: [{name: a, call: {request: GET https://a.example/, query: {a: [1, b]}}, expect: deny}]",
    "tests: [{name: a, calls: [{request: GET https://a.example/, at: +5s, answer: lost, expect: {rule: null}}]}]",
    "use: stripe\nmode: monitor\nrules: []\ntools: {}",
]


@pytest.mark.parametrize("text", GOOD)
def test_every_short_and_long_form_is_accepted(text: str) -> None:
    value = plain(parse(f"version: 1\n{text}", "f.yaml").plain())
    assert [error.message for error in VALIDATOR.iter_errors(value)] == []


def test_it_is_a_schema_of_draft_7() -> None:
    assert schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert jsonschema_rs.meta.is_valid(schema())
    assert json.loads(json.dumps(schema())) == schema()


def properties(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property that some mapping in the schema may have."""
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield from part.get("properties", {}).items()
        for inside in part.values():
            yield from properties(inside)
    elif isinstance(part, list):
        for inside in part:
            yield from properties(inside)


def test_every_word_is_explained() -> None:
    found = list(properties(schema()))
    assert {name for name, _ in found} >= {*FILE, *TOOL, *MATCH, *SELECT, *RULE, *GUARDS}
    for name, word in found:
        assert word.get("description", "").endswith("."), name


def test_beside_a_reference_nothing_stands() -> None:
    """Draft 7 ignores every other key beside `$ref`."""
    text = json.dumps(schema())
    assert text.count('"$ref"') == text.count('{"$ref"')
    assert '", "$ref"' not in text
