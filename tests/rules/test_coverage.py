"""Coverage: what tests have seen of each rule."""

from __future__ import annotations

import pytest

from rules.coverage import seen
from rules.load import Source, load

RULES = """
version: 1
tools:
  look: GET https://shop.example.com/orders/{order}
  order: {match: POST https://shop.example.com/orders, body: json}
rules:
  - {id: look, tool: look, allow: true}
  - {id: order, tool: order, where: {body.count: {lte: 10}}, allow: true, dedupe: 1h}
  - {id: pool, match: "https://**", throttle: 2/h}
  - {id: watched, mode: monitor, tool: look, throttle: 1/h}
  - {id: asked, match: PUT https://shop.example.com/prices, allow: true, approve: true}
  - {id: no-deletes, match: "DELETE https://**", unless: {agent: janitor}, deny: No.}
  - {id: no-patches, match: "PATCH https://**", deny: No.}
tests:
"""
ORDER = "request: POST https://shop.example.com/orders, json"
LOOK = "request: GET https://shop.example.com/orders/1"


def sides(*calls: str) -> dict[str, tuple[int | None, int | None]]:
    """What one test that makes these calls has seen."""
    listed = "".join(f"\n      - {{{one}}}" for one in calls)
    test = f"  - name: x\n    calls:{listed}\n      - {{request: GET https://elsewhere.example/, expect: deny}}\n"
    loaded = load([Source("test.yaml", RULES + test)], {})
    return {each.rule: (each.lets, each.refuses) for each in seen(loaded.ruleset, loaded.cases)}


@pytest.mark.parametrize(
    ("calls", "rule", "lets", "refuses"),
    [
        ([], "look", 0, None),
        ([LOOK], "look", 1, None),
        ([LOOK, LOOK, LOOK], "look", 2, None),  # the pool refuses the third
        ([], "order", 0, 0),
        ([f"{ORDER}: {{count: 3}}"], "order", 1, 0),
        ([f"{ORDER}: {{count: 30}}"], "order", 0, 1),
        ([f"{ORDER}: {{count: 3}}", f"{ORDER}: {{count: 3}}"], "order", 1, 1),  # the second is a replay
        ([LOOK], "pool", 1, 0),
        ([LOOK, LOOK, LOOK], "pool", 2, 1),
        ([LOOK], "watched", 1, 0),
        ([LOOK, LOOK], "watched", 1, 1),
        (["request: DELETE https://shop.example.com/orders/1"], "no-deletes", 0, 1),
        (["agent: janitor, request: DELETE https://shop.example.com/orders/1"], "no-deletes", 1, 0),
        ([LOOK], "no-deletes", 0, 0),
        (["request: PUT https://shop.example.com/prices"], "asked", 0, 1),
        (["request: PUT https://shop.example.com/prices, approval: allow"], "asked", 0, 1),
        (["request: PATCH https://shop.example.com/orders/1"], "no-patches", None, 1),
    ],
)
def test_sides(calls: list[str], rule: str, lets: int | None, refuses: int | None) -> None:
    assert sides(*calls)[rule] == (lets, refuses)


def test_what_is_complete_and_what_was_never_asked() -> None:
    loaded = load([Source("test.yaml", RULES.replace("tests:\n", ""))], {})
    found = {each.rule: each for each in seen(loaded.ruleset, loaded.cases)}
    assert all(each.never and not each.complete for each in found.values())
    assert found["look"].source == "test.yaml:7"
