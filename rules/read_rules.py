"""From the `rules:` of a rule file to rules: what may happen to calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from rules.during import parse_during
from rules.earlier import AsksEarlier, parts
from rules.guard import Guard
from rules.guards import GUARDS
from rules.known_tools import KnownTools
from rules.read_tools import NAME_HELP, read_matches
from rules.ruleset import Match, Mode, Rule, Selector
from rules.shape import Report
from rules.suggest import listing, suggest
from rules.vocabulary import MODES, NAME, RULE, SELECT
from rules.where import parse_where
from rules.yamltree import Node

NO_REASON = "This is not permitted."
"""What the agent reads when a rule says only `deny: true`."""


def read_rule(node: Node, known: KnownTools, report: Report) -> Rule | None:
    """The rule that `node` says, or None when something is wrong with it, which is in the report."""
    before = len(report.problems)
    found = report.keys(node, "a rule", (*RULE, *GUARDS))
    if node.kind != "map":
        return None
    rule_id = _id(node, found, report)
    select = _select(found, known, report)
    unless = _unless(found["unless"], known, report) if "unless" in found else None
    deny = _deny(found["deny"], report) if "deny" in found else None
    mode = report.choice(found["mode"], "`mode`", MODES) if "mode" in found else "enforce"
    guards = [report.attempt(partial(GUARDS[verb].parse, found[verb], rule_id)) for verb in GUARDS if verb in found]
    for guard in guards:
        _check_until(guard, found, known, report)
    guards = [_asking(guard, found, known, report) if isinstance(guard, AsksEarlier) else guard for guard in guards]
    _check_verbs(node, found, rule_id, report)
    _check_unrecorded(found, select, known, report)
    if len(report.problems) > before:
        return None
    rule = Rule(
        id=rule_id,
        select=select,
        unless=unless,
        allow="allow" in found,
        deny=deny,
        guards=tuple(sorted((guard for guard in guards if guard), key=lambda guard: (guard.stage, guard.verb))),
        mode=cast(Mode, mode),
        source=f"{node.mark.file}:{node.mark.line}",
        unrecorded="unrecorded" in found,
    )
    _check_path_names(rule, found, known, report)
    return rule if len(report.problems) == before else None


def _id(node: Node, found: dict[str, Node], report: Report) -> str:
    if "id" not in found:
        report.add(
            "missing-key", "the rule has no `id`", node, "give it a name: it stands in refusals and in the ledger"
        )
        return ""
    text = report.text(found["id"], "`id`")
    if text is not None and not re.fullmatch(NAME, text):
        report.add("name", f"`{text}` can not be the id of a rule", found["id"], NAME_HELP)
    return text or ""


def _select(found: dict[str, Node], known: KnownTools, report: Report) -> Selector:
    """The selector of a rule or of `unless`, from the values of its keys."""
    tools = _tools(found["tool"], "tool", known, report) if "tool" in found else None
    if "tool" in found and "match" in found:
        mend = "use one: `tool` names calls, `match` describes them; `where` narrows both"
        report.add("tool-and-match", "`tool` and `match` stand side by side", found["match"], mend)
    where, during = found.get("where"), found.get("during")
    after = _tools(found["after"], "after", known, report) if "after" in found else None
    return Selector(
        tools=tools,
        matches=read_matches(found["match"], report) if "match" in found else None,
        agents=_globs(found, "agent", report),
        runs=_globs(found, "run", report),
        where=report.attempt(lambda: parse_where(where)) if where is not None else None,
        during=report.attempt(lambda: parse_during(during)) if during is not None else None,
        after=after,
    )


def _tools(node: Node, key: str, known: KnownTools, report: Report) -> frozenset[str]:
    """The tools that are named under `key`: a name, a glob or a list."""
    texts = report.texts(node, f"`{key}`")
    return frozenset[str]().union(*(known.named(text, item, report) for text, item in texts))


def _globs(found: dict[str, Node], key: str, report: Report) -> tuple[str, ...] | None:
    return tuple(text for text, _ in report.texts(found[key], f"`{key}`")) if key in found else None


def _unless(node: Node, known: KnownTools, report: Report) -> Selector | None:
    found = report.keys(node, "`unless`", SELECT)
    if node.kind == "map" and not node.entries:
        report.add("empty", "`unless` is empty", node, "write what the rule does not apply to, or remove it")
    return _select(found, known, report)


def _deny(node: Node, report: Report) -> str | None:
    if node.scalar is True:
        return NO_REASON
    if node.scalar is False:
        report.add("wrong-type", "`deny: false` says nothing", node, "remove it; `allow: true` permits")
        return None
    return report.text(node, "`deny`")


def _check_verbs(node: Node, found: dict[str, Node], rule_id: str, report: Report) -> None:
    verbs = [verb for verb in GUARDS if verb in found]
    if "allow" in found and found["allow"].scalar is not True:
        if found["allow"].scalar is False:
            mend = 'write `deny: "the reason"` to refuse, or remove it: nothing is allowed by default'
            report.add("wrong-type", "`allow: false` says nothing", found["allow"], mend)
        else:
            report.wrong_type(found["allow"], "`allow`", "`true`", "write `allow: true`")
    if "deny" in found and "allow" in found:
        report.add("conflicting-verbs", "a rule can not both allow and deny", found["deny"], "make two rules of it")
    elif "deny" in found and verbs:
        message = f"`{verbs[0]}` never counts: the rule denies the same calls"
        report.add("conflicting-verbs", message, found[verbs[0]], "make two rules of it")
    written = {str(key.scalar) for key, _ in node.entries}
    if not written & {"allow", "deny", *GUARDS} and written <= {*RULE}:
        shown = f"the rule `{rule_id}`" if rule_id else "the rule"
        mend = f'add `allow: true`, `deny: "the reason"` or a guard ({", ".join(sorted(GUARDS))})'
        report.add("no-verb", f"{shown} does nothing: it has no verb", node, mend)
    if "allow" in found and not {"tool", "match"} & written:
        mend = "add `tool` or `match`: a deny or a guard may cover every call, an allow says which"
        report.add("allow-without-target", "the rule allows, but does not say what", found["allow"], mend)


def _check_unrecorded(found: dict[str, Node], select: Selector, known: KnownTools, report: Report) -> None:
    """Only what has no effect may go out without a record, and only what nobody counts."""
    node = found.get("unrecorded")
    if node is None or report.choice(node, "`unrecorded`", ("allow",)) is None:
        return
    if "allow" not in found:
        report.add("unrecorded", "`unrecorded` stands without `allow`", node, "add `allow: true`, or remove it")
    for verb in (verb for verb in GUARDS if verb in found):
        message = f"`unrecorded` stands beside `{verb}`, which goes by the record"
        report.add("unrecorded", message, node, f"remove one of the two; where any `{verb}` counts, calls are refused")
    tools = [(name, known.tools.get(name)) for name in sorted(select.tools or ())]
    writing = [name for name, tool in tools if tool is not None and tool.may_write]
    writing += [str(match.pattern) for match in select.matches or () if match.may_write]
    if writing:
        mend = "leave that out, or say `effect: read` for a tool that only reads"
        report.add("unrecorded", f"`{writing[0]}` may write, and no write goes out without a record", node, mend)


def _check_path_names(rule: Rule, found: dict[str, Node], known: KnownTools, report: Report) -> None:
    """`path.x` has to be captured by some pattern of the rule: else a bound on it never holds, or always."""
    selected = (rule.select.tools or frozenset()) | ((rule.unless and rule.unless.tools) or frozenset())
    if any(known.tools[name] is None for name in selected):
        return  # what a broken definition captures is not known
    own = _names(rule.select, known)
    for select, key, names in (
        (rule.select, "where", own),
        (rule.unless, "unless", own | (_names(rule.unless, known) if rule.unless else set())),
    ):
        for field in select.where.fields if select and select.where else ():
            if field.place == "path" and field.steps[0] not in names:
                place = next((text for text in _texts(found[key]) if text.scalar == field.text), found[key])
                _never_set(str(field.steps[0]), place, names, report)
    of_others = {id(there) for guard in rule.guards for one in parts(found[guard.verb]) for _, there in _same(one)}
    for text in (text for guard in rule.guards for text in _texts(found[guard.verb]) if id(text) not in of_others):
        for name in _PATH_NAME.findall(text.scalar) if isinstance(text.scalar, str) else ():
            if name not in own and text.scalar not in known.tools:
                _never_set(name, text, own, report)


_PATH_NAME = re.compile(r"(?:^|\|\s*)path\.([A-Za-z0-9_$@-]+)(?=\s*(?:\||$))")


def _never_set(name: str, place: Node, names: set[str], report: Report, whose: str = "of this rule") -> None:
    captured = listing((f"{{{each}}}" for each in sorted(names)), "and") if names else "no name"
    message = f"`path.{name}` is never set: the patterns {whose} capture {captured}"
    report.add("unknown-path-name", message, place, suggest(name, names))


def _asking(guard: AsksEarlier, found: dict[str, Node], known: KnownTools, report: Report) -> Guard:
    """`guard`, which asks about earlier calls, with the tools that it names. What it compares has to be captured."""
    meant: list[Mapping[str, str]] = []
    for node in parts(found[guard.verb]):
        after = node.get("after") if node.kind == "map" else node
        tools = _tools(after, "after", known, report) if after is not None else frozenset[str]()
        meant.append({name: tool.shown if (tool := known.tools[name]) else "" for name in tools})
        if any(known.tools[name] is None for name in tools):
            continue  # what a broken definition captures is not known
        captured = _names(Selector(tools), known)
        for _, there in _same(node) if tools else ():
            for name in _PATH_NAME.findall(str(there.scalar)):
                if name not in captured:
                    _never_set(name, there, captured, report, f"of {listing(sorted(tools)[:SHOWN], 'and')}")
    return guard.knowing(meant)


SHOWN = 3
"""Of the tools whose patterns capture something, so many are named."""


def _same(node: Node) -> Sequence[tuple[Node, Node]]:
    """What `require` compares: pairs of the field of this call and that of the earlier one."""
    same = node.get("same") if node.kind == "map" else None
    return same.entries if same is not None else ()


def _check_until(guard: Guard | None, found: dict[str, Node], known: KnownTools, report: Report) -> None:
    """A claim that ends with a tool which does not exist would never end early, and nobody would notice."""
    until = found[guard.verb].get("until") if guard is not None else None
    if until is not None and isinstance(until.scalar, str):
        known.named(until.scalar, until, report)


def _names(select: Selector, known: KnownTools) -> set[str]:
    matches: list[Match] = list(select.matches or ())
    for tool in sorted(select.tools or ()):
        definition = known.tools[tool]
        matches.extend(definition.matches if definition else ())
    return {name for match in matches for name in match.pattern.names}


def _texts(node: Node) -> Iterator[Node]:
    """Every key and every scalar inside `node`."""
    if node.kind == "scalar":
        yield node
    for inside in (*node.items, *(each for entry in node.entries for each in entry)):
        yield from _texts(inside)
