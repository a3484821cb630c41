"""docs/packs.md lists every tool of every pack, under reads or writes as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rules.applies import writes
from rules.load import Source, load
from tests.rules.world import call

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "packs.md").read_text(encoding="utf-8")
PACKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules" / "packs").glob("*.yaml"))}
ROW = re.compile(r"^\| `([a-z0-9_.]+\.)` \|(.*)\|(.*)\|$", re.MULTILINE)
TOOL = re.compile(r"`([A-Za-z0-9_-]+)`")


def listed(pack: str) -> dict[str, str]:
    """Tool -> "read" or "write", as the tables say."""
    found: dict[str, str] = {}
    for prefix, reads, writing in ROW.findall(PAGE):
        for effect, cell in (("read", reads), ("write", writing)):
            found |= {f"{prefix}{name}": effect for name in TOOL.findall(cell)}
    return {name: effect for name, effect in found.items() if name.startswith(f"{pack}.")}


@pytest.mark.parametrize("pack", PACKS)
def test_the_table_is_the_pack(pack: str) -> None:
    tools = load([Source("rules.yaml", f"version: 1\nuse: [{pack}]\nrules: []\n")], PACKS).ruleset.tools
    actual = {}
    for name, tool in tools.items():
        methods = {method for match in tool.matches for method in match.pattern.methods or ("POST",)}
        actual[name] = "write" if any(writes(tool, call(method)) for method in methods) else "read"
    assert listed(pack) == actual


@pytest.mark.parametrize("pack", PACKS)
def test_each_pack_has_its_section(pack: str) -> None:
    assert len(re.findall(rf"^`use: \[{pack}\]`:", PAGE, re.MULTILINE)) == 1
