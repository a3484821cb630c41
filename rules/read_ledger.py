"""From the `ledger:` of rule files to bounds: how much the record may hold. What several files say is one whole."""

from __future__ import annotations

from collections.abc import Iterable

from rules.ruleset import Bounds
from rules.shape import Report
from rules.units import SECOND_NS, parse_duration
from rules.vocabulary import LEDGER
from rules.yamltree import Node

LEAST_BYTES = 16 << 20
"""A ledger below this would be full after some ten thousand calls."""

LONGEST_NS = 36_500 * 86_400 * SECOND_NS


def read_bounds(nodes: Iterable[Node], report: Report) -> Bounds:
    """The bounds that `nodes` say, the values of `ledger` in all files; what is wrong with them is in the report."""
    said: dict[str, Node] = {}
    for node in nodes:
        found = report.keys(node, "`ledger`", LEDGER)
        if node.kind == "map" and not node.entries:
            report.add("empty", "`ledger` is empty", node, "write `max_size` or `keep`, or remove it")
        for key, value in found.items():
            if key in said and said[key].scalar != value.scalar:
                message = f"`{key}: {value.plain()}` contradicts another file"
                other = said[key]
                mend = f"`{other.mark.file}`, line {other.mark.line} says `{key}: {other.plain()}`; there is one ledger"
                report.add("conflicting-bounds", message, value, mend)
            said.setdefault(key, value)
    return Bounds(
        _max_bytes(said["max_size"], report) if "max_size" in said else 0,
        _keep_ns(said["keep"], report) if "keep" in said else 0,
    )


def _max_bytes(node: Node, report: Report) -> int:
    size_bytes = report.size(node)
    if 0 < size_bytes < LEAST_BYTES:
        report.add("size", f"`{node.scalar}` is too small", node, "the smallest `max_size` is `16MiB`")
    return size_bytes


def _keep_ns(node: Node, report: Report) -> int:
    keep_ns = parse_duration(node.scalar, LONGEST_NS)
    if keep_ns is None:
        report.add("duration", "`keep` is no duration", node, "write a number and a unit, such as `90d`")
    return keep_ns or 0
