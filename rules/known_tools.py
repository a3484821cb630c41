"""The tools that rules can refer to, and what a name or glob in a rule refers to."""

from __future__ import annotations

import bisect
import re
from collections.abc import Mapping

from rules.ruleset import Tool
from rules.shape import Report
from rules.suggest import suggest
from rules.yamltree import Node

SUGGESTIONS = 20
"""Looking for the closest of many names is slow; a file with more unknown names than this has another problem."""


class KnownTools:
    """`tools`: name -> the tool, None where its definition is in error. `unused`: the packs not in use, name -> text.

    `complete`: every file and pack could be read, so that a name which is not here is a mistake.
    """

    def __init__(self, tools: Mapping[str, Tool | None], unused: Mapping[str, str], complete: bool) -> None:
        self.tools = tools
        self._unused = unused
        self._complete = complete
        self._sorted = sorted(tools)
        self._expanded: dict[str, frozenset[str]] = {}
        self._suggestions = SUGGESTIONS

    def named(self, text: str, node: Node, report: Report) -> frozenset[str]:
        """The names of the tools that `text` means: one name, or a glob in which `*` crosses dots."""
        if "*" in text:
            names = self._expanded.get(text)
            if names is None:
                names = self._expanded[text] = self._expand(text)
            if not names and self._complete:
                report.add("unknown-tool", f"no tool has a name like `{text}`", node, self._help(text))
            return names
        if text not in self.tools:
            if self._complete:
                report.add("unknown-tool", f"no tool is named `{text}`", node, self._help(text))
            return frozenset()
        return frozenset({text})

    def _expand(self, glob: str) -> frozenset[str]:
        literal, *_ = glob.split("*")
        start = bisect.bisect_left(self._sorted, literal)
        whole = re.compile(".*".join(map(re.escape, glob.split("*"))))
        found = []
        for name in self._sorted[start:]:
            if not name.startswith(literal):
                break
            if whole.fullmatch(name):
                found.append(name)
        return frozenset(found)

    def _help(self, text: str) -> str:
        self._suggestions -= 1
        if self._suggestions < 0:
            return ""
        key = re.compile(f"^  {'[^:]*'.join(map(re.escape, text.split('*')))}:", re.MULTILINE)
        packs = [name for name, content in sorted(self._unused.items()) if key.search(content)]
        if packs:
            return f"the pack `{packs[0]}` has it: add `use: [{packs[0]}]`"
        return suggest(text, self._sorted) or self._some()

    def _some(self) -> str:
        if not self._sorted:
            return "name it under `tools:`, or use a pack that has it"
        return f"tools have names such as {', '.join(f'`{name}`' for name in self._sorted[:3])}"
