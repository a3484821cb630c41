"""Published OpenAPI documents: every operation is imported or said to be left out, calls made from the documents' own
schemas are let through, and the same calls with one thing wrong are not. Figures are printed.

Needs the documents, which are not ours to keep: `make openapi` fetches them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random
from statistics import median

import msgspec
import pytest

from rules.call import Body, Call
from rules.decide import decide
from rules.load import Source, load
from rules.openapi.document import read
from rules.openapi.notes import LEFT_OUT, NARROWER, WIDER, Note
from rules.openapi.operations import names, operations
from rules.openapi.tools import Options, tools_of
from rules.ruleset import RuleSet, Tool
from rules.state import State
from tests.published.calls import Cannot, Maker, json_body

SPECS = Path(os.environ["OPENAPI_SPECS"]) if "OPENAPI_SPECS" in os.environ else None
DOCUMENTS = sorted(path.name for path in SPECS.glob("*.*")) if SPECS else ["none"]
RULES = 'version: 1\nrules: [{id: all, match: ["https://**", "http://**"], allow: true}]\n'
SEEDS = 5
"""So many calls are made of each operation."""

NOW_NS = 1_767_614_400_000_000_000

pytestmark = pytest.mark.skipif(SPECS is None, reason="`make openapi` fetches the documents")


class Seen(msgspec.Struct):
    """What came of the calls of one document."""

    made: int = 0
    unmade: int = 0
    broken: int = 0
    elsewhere: int = 0
    refused: list[str] = []
    let_through: list[str] = []
    times_us: list[float] = []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_published_document(name: str) -> None:
    assert SPECS is not None
    text = (SPECS / name).read_text(encoding="utf-8")
    document = read(text)
    started = time.perf_counter()
    imported = tools_of(text, name, Options(), lambda done, total: None)
    imported_s = time.perf_counter() - started
    assert tools_of(text, name, Options(), lambda done, total: None) == imported
    started = time.perf_counter()
    loaded = load([Source("tools.yaml", imported.text), Source("rules.yaml", RULES)], {})
    loaded_s = time.perf_counter() - started
    left_out = sum(note.kind == LEFT_OUT for _, note in imported.notes)
    assert len(loaded.ruleset.tools) == imported.tools == imported.wanted - left_out
    notes: dict[str, set[Note]] = {}
    for about, note in imported.notes:
        notes.setdefault(about, set()).add(note)
    found = operations(document)
    seen = Seen()
    for operation, tool_name in zip(found, names(found, ""), strict=True):
        tool = loaded.ruleset.tools.get(tool_name)
        own = notes.get(tool_name, set())
        if tool is None or any(note.kind == NARROWER for note in own):
            continue
        for seed in range(SEEDS):
            try:
                call = Maker(document, seed).call(operation, _base(tool, operation.path))
            except (Cannot, RecursionError):
                seen.unmade += 1
                continue
            _try(loaded.ruleset, tool, call, own, Random(seed), seen)
    lost = {kind: len({about for about, note in imported.notes if note.kind == kind}) for kind in (WIDER, NARROWER)}
    print(  # noqa: T201 -- the figures are what this is run for
        f"\n{name}: {imported.tools} of {imported.wanted} operations ({left_out} left out, {lost[WIDER]} wider,"
        f" {lost[NARROWER]} narrower), {len(imported.text) // 1024} KiB, imported in {imported_s:.1f} s,"
        f" loaded in {loaded_s:.1f} s; {seen.made} calls made ({seen.unmade} could not be, {seen.elsewhere} are named"
        f" by another tool), {len(seen.refused)} of them refused; {seen.broken} with one thing wrong,"
        f" {len(seen.let_through)} of them let through; a decision takes {median(seen.times_us):.0f} us"
    )
    assert seen.refused == []
    assert seen.let_through == []
    assert seen.made > 0
    assert seen.broken > 0


def _base(tool: Tool, path: str) -> str:
    """The URL before the path of the operation, from the tool's first pattern."""
    pattern = tool.matches[0].pattern
    text = str(pattern).partition(" ")[2]
    depth = len([part for part in path.partition("?")[0].strip("/").split("/") if part])
    parts = text.rstrip("/").split("/")
    base = "/".join(parts[: len(parts) - depth]) if depth else text.rstrip("/")
    return base.replace("{", "x").replace("}", "x")


def _try(ruleset: RuleSet, tool: Tool, call: Call, notes: set[Note], random: Random, seen: Seen) -> None:
    seen.made += 1
    started = time.perf_counter()
    decision = decide(ruleset, State(), call, "c", NOW_NS)
    seen.times_us.append((time.perf_counter() - started) * 1e6)
    if decision.tool != tool.name:
        seen.elsewhere += 1
        return
    if decision.action != "allow":
        seen.refused.append(f"{tool.name}: {decision.detail}")
        return
    for what, broken in _broken(tool, call, notes, random):
        seen.broken += 1
        decision = decide(ruleset, State(), broken, "c", NOW_NS)
        if decision.code != "parameters-invalid":
            seen.let_through.append(f"{tool.name}: {what}: {broken.query} {broken.body.json} {broken.body.fields}")


def _broken(tool: Tool, call: Call, notes: set[Note], random: Random) -> list[tuple[str, Call]]:
    """The call with one thing wrong that its contract is able to see."""
    contract = tool.params
    assert contract is not None
    found = [("an unknown parameter", msgspec.structs.replace(call, query=(*call.query, ("zz_unknown", "1"))))]
    properties = contract.query.schema["properties"]
    scalars = [pair for pair in call.query if _scalar(properties.get(pair[0]))]
    if scalars:
        found.append(("a duplicate", msgspec.structs.replace(call, query=(*call.query, random.choice(scalars)))))
    numbers = [pair for pair in call.query if properties.get(pair[0], {}).get("type") in ("integer", "boolean")]
    if numbers:
        query = tuple(
            (name, f"{value}x") if (name, value) == numbers[0] else (name, value) for name, value in call.query
        )
        found.append(("a wrong type", msgspec.structs.replace(call, query=query)))
    if not contract.kinds or contract.body.open or any(note.where == "body" for note in notes):
        return found
    members = contract.body.schema.get("properties", {})
    body = call.body
    if body.kind == "json" and isinstance(body.json, dict):
        found.append(
            ("an unknown member", msgspec.structs.replace(call, body=json_body({**body.json, "zz_unknown": 1})))
        )
        for name in body.json:
            if _scalar(members.get(name)):
                changed = {**body.json, name: {"zz": [1]}}
                found.append(("a wrong type", msgspec.structs.replace(call, body=json_body(changed))))
                break
    elif body.kind == "form":
        scalars = [pair for pair in body.fields if _scalar(members.get(pair[0]))]
        for what, pair in (("an unknown field", ("zz_unknown", "1")), *(("a duplicate", pair) for pair in scalars[:1])):
            fields = (*body.fields, pair)
            found.append((what, msgspec.structs.replace(call, body=msgspec.structs.replace(body, fields=fields))))
    else:
        found.append(
            (
                "a body of another kind",
                msgspec.structs.replace(call, body=Body("text", "text/x", text="x", size_bytes=1)),
            )
        )
    return found


def _scalar(schema: object) -> bool:
    """Whether it is one value of a type."""
    return isinstance(schema, dict) and schema.get("type") in ("string", "integer", "number", "boolean")
