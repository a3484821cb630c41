"""From the texts of rule files to a rule set: all files are merged, their order never matters.

Everything that is wrong in any file is found before anything is refused, and then nothing of them is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import combinations
from typing import Literal, cast

import msgspec

from rules import yamltree
from rules.cases import Case, parse_case
from rules.index import Index, TargetId
from rules.known_tools import KnownTools
from rules.pattern import Pattern
from rules.problems import Problem, RuleFileError
from rules.read_ledger import read_bounds
from rules.read_rules import read_rule
from rules.read_tools import read_tool
from rules.ruleset import Match, Mode, Rule, RuleSet, Tool
from rules.shape import Report
from rules.suggest import listing, suggest
from rules.vocabulary import FILE, MODES
from rules.warn import warn
from rules.yamltree import Node

VERSION = "0.1.0"
"""The version of the program: part of the digest, since another version may read the same files differently."""


class Source(msgspec.Struct, frozen=True):
    """A rule file: its name, for messages, and what it says."""

    file: str
    text: str


class Loaded(msgspec.Struct, frozen=True):
    """What rule files amount to. `warnings` are for people: the rule set is usable all the same."""

    ruleset: RuleSet
    cases: tuple[Case, ...] = ()
    warnings: tuple[Problem, ...] = ()


def pack_file(name: str) -> str:
    """The file name that problems in the pack `name` carry."""
    return f"rules/packs/{name}.yaml"


def load(sources: Sequence[Source], packs: Mapping[str, str]) -> Loaded:
    """The rule set of `sources`. `packs`: the text of every shipped pack by its name.

    Raises `RuleFileError` with every problem of every file, in the order of their places.
    """
    report = Report()
    files = [_read(source, report) for source in sources]
    used = _used(files, packs, report)
    misspelled = any(problem.code == "unknown-key" for problem in report.problems)  # what is under it is not known
    shipped = [_read(Source(pack_file(name), packs[name]), report) for name in used.known]
    tools = _tools([*shipped, *files], report)
    known = KnownTools(
        tools={name: tool for name, (_, tool) in tools.items()},
        unused={name: text for name, text in packs.items() if name not in used.known},
        complete=None not in [*files, *shipped]
        and not (misspelled or used.unknown)
        and all(map(_tools_are_named, files)),
    )
    rules = _rules(files, known, report)
    cases = _cases(files, known, report, None not in files and not misspelled)
    mode = _mode(files, report)
    ledger = read_bounds([found["ledger"] for found in files if found and "ledger" in found], report)
    if report.problems:
        raise RuleFileError(_sorted(report.problems))
    texts = [source.text for source in sources] + [packs[name] for name in used.known]
    ready = {name: tool for name, tool in sorted(known.tools.items()) if tool is not None}
    ruleset = RuleSet(
        digest=_digest(texts),
        tools=ready,
        rules=tuple(sorted((rule for rule, _ in rules), key=lambda rule: rule.id)),
        index=Index.build(_targets(ready.values(), [rule for rule, _ in rules])),
        mode=mode,
        ledger=ledger,
    )
    places = {name: node for name, (node, _) in tools.items()}
    return Loaded(ruleset, tuple(case for case in cases if case is not None), warn(rules, ready, places))


def _targets(tools: Iterable[Tool], rules: Iterable[Rule]) -> list[tuple[TargetId, Pattern]]:
    """Every pattern that a call may match, and whose it is."""
    owners: list[tuple[Literal["tool", "rule", "unless"], str, tuple[Match, ...]]] = []
    owners += [("tool", tool.name, tool.matches) for tool in tools]
    owners += [("rule", rule.id, rule.select.matches or ()) for rule in rules]
    owners += [("unless", rule.id, rule.unless.matches or ()) for rule in rules if rule.unless]
    return [(TargetId(kind, name, nth), m.pattern) for kind, name, matches in owners for nth, m in enumerate(matches)]


def _read(source: Source, report: Report) -> dict[str, Node] | None:
    """The values of a file by key, or None when it can not be read at all."""
    root, problems = yamltree.read(source.text, source.file)
    report.problems.extend(problems)
    if root is None:
        return None
    if root.kind != "map":
        report.wrong_type(root, "a rule file", "a mapping", "a rule file starts with `version: 1`")
        return None
    version = root.get("version")
    if version is None:
        report.add("version", "the file does not say its version", root, "add `version: 1`")
    elif type(version.scalar) is not int or version.scalar != 1:
        text = "the text " if isinstance(version.scalar, str) else ""
        shown = f"{text}`{version.plain()}`"
        report.add("version", f"{shown} is not a version that this program reads", version, "write `version: 1`")
        return None
    elif len(root.entries) == 1:
        mend = "write `rules: []` if that is what is meant"
        report.add("empty-file", "the file says nothing but its version", root, mend)
    return report.keys(root, "a rule file", FILE)


def _used(files: Sequence[dict[str, Node] | None], packs: Mapping[str, str], report: Report) -> _Used:
    known: set[str] = set()
    unknown = False
    for found in files:
        if found is None or "use" not in found or _is_empty(found["use"]):
            continue
        for name, node in report.texts(found["use"], "`use`"):
            if name in packs:
                known.add(name)
            else:
                unknown = True
                mend = suggest(name, packs) or f"the packs are {listing(sorted(packs), 'and')}"
                report.add("unknown-pack", f"no pack is named `{name}`", node, mend)
    return _Used(tuple(sorted(known)), unknown)


class _Used(msgspec.Struct, frozen=True):
    """The packs in use; `unknown`: others were asked for, too."""

    known: tuple[str, ...]
    unknown: bool


def _is_empty(node: Node) -> bool:
    return node.kind == "list" and not node.items


type _Definitions = dict[str, tuple[Node, Tool | None]]
"""Name -> where it is defined, and the tool unless the definition is in error."""


def _tools_are_named(found: dict[str, Node] | None) -> bool:
    return found is None or "tools" not in found or found["tools"].kind == "map"


def _tools(files: Sequence[dict[str, Node] | None], report: Report) -> _Definitions:
    tools: _Definitions = {}
    for found in files:
        node = found.get("tools") if found else None
        if node is None:
            continue
        if node.kind != "map":
            report.wrong_type(
                node, "`tools`", "a mapping from names to patterns", "write `name: GET https://host/path`"
            )
            continue
        for key, value in node.entries:
            name = str(key.scalar)
            tool = read_tool(key, value, report)
            if name in tools:
                mend = f"it is defined in {_place(tools[name][0])}; give one of them another name"
                report.add("duplicate-tool", f"the tool `{name}` is defined twice", key, mend)
            else:
                tools[name] = (key, tool)
    _check_rivals(tools, report)
    return tools


def _check_rivals(tools: _Definitions, report: Report) -> None:
    """Which tool names a call must never be a toss-up: two tools may not have the same pattern and discriminators."""
    alike: dict[object, list[tuple[str, Pattern]]] = {}
    for name, (_, tool) in tools.items():
        for match in tool.matches if tool else ():
            where = match.where.describe() if match.where else ""
            says = match.says.text if match.says else ""
            alike.setdefault((match.pattern.shape, says, where), []).append((name, match.pattern))
    told = set()
    for group in alike.values():
        for (one, pattern), (other, its) in combinations(group, 2):
            if one != other and (one, other) not in told and pattern.rivals(its):
                told.add((one, other))
                message = f"`{other}` is the same calls as `{one}`: neither could name them"
                mend = f"`{one}` is defined in {_place(tools[one][0])}; use one name, or tell them apart by `where`"
                report.add("equal-tools", message, tools[other][0], mend)


def _rules(files: Sequence[dict[str, Node] | None], known: KnownTools, report: Report) -> list[tuple[Rule, Node]]:
    rules: list[tuple[Rule, Node]] = []
    first: dict[str, Node] = {}
    for node in _items(files, "rules", report):
        rule = read_rule(node, known, report)
        if rule is not None:
            rules.append((rule, node))
        own = node.get("id")
        if own is not None and isinstance(own.scalar, str):
            if own.scalar in first:
                mend = f"the other is in {_place(first[own.scalar])}; give one of them another id"
                report.add("duplicate-id", f"two rules have the id `{own.scalar}`", own, mend)
            else:
                first[own.scalar] = own
    return rules


def _cases(
    files: Sequence[dict[str, Node] | None], known: KnownTools, report: Report, complete: bool
) -> list[Case | None]:
    """The embedded tests. What they expect of rules and tools has to speak of those that there are. `complete`: every
    rule could be found."""
    ids = {str(own.scalar) for node in _items(files, "rules", Report()) if (own := node.get("id")) is not None}
    cases: list[Case | None] = []
    for node in _items(files, "tests", report):
        cases.append(report.attempt(partial(parse_case, node)))
        calls = node.get("calls")
        for holder in (node, *(calls.items if calls else ())):
            expect = holder.get("expect")
            for key in ("rule", "would") if expect and complete else ():
                named = expect.get(key) if expect else None
                if named is not None and isinstance(named.scalar, str) and named.scalar not in ids:
                    mend = suggest(named.scalar, ids) or "write the id of a rule"
                    report.add("unknown-rule", f"no rule has the id `{named.scalar}`", named, mend)
            tool = expect.get("tool") if expect else None
            if tool is not None and isinstance(tool.scalar, str):
                known.named(tool.scalar, tool, report)
    return cases


def _items(files: Sequence[dict[str, Node] | None], key: str, report: Report) -> Iterator[Node]:
    """The items of the lists under `key` in all files."""
    for found in files:
        node = found.get(key) if found else None
        if node is not None and node.kind != "list":
            report.wrong_type(node, f"`{key}`", "a list", "start each of its items with `-`")
        elif node is not None:
            yield from node.items


def _mode(files: Sequence[dict[str, Node] | None], report: Report) -> Mode:
    """The mode that the files agree on."""
    said: Node | None = None
    for found in files:
        node = found.get("mode") if found else None
        if node is None or report.choice(node, "`mode`", MODES) is None:
            continue
        if said is not None and said.scalar != node.scalar:
            message = f"`mode: {node.scalar}` contradicts another file"
            mend = f"{_place(said)} says `mode: {said.scalar}`; the mode is one for all files"
            report.add("conflicting-modes", message, node, mend)
        said = said or node
    return cast(Mode, said.scalar) if said is not None else "enforce"


def _place(node: Node) -> str:
    return f"`{node.mark.file}`, line {node.mark.line}"


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """In the order of their places, each once. Where YAML refused a value, nothing more is said about its stand-in."""
    refused = {problem.mark for problem in problems if problem.code.startswith("yaml-")}
    kept = {p for p in problems if p.mark not in refused or p.code.startswith("yaml-")}
    return tuple(sorted(kept, key=lambda p: (p.mark.file, p.mark.line, p.mark.col, p.code, p.message)))


def _digest(texts: Iterable[str]) -> str:
    """SHA-256 (hex) over our version and what all files say, in whatever order they are read."""
    parts = sorted(sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return sha256(b"".join([VERSION.encode(), b"\0", *parts])).hexdigest()
