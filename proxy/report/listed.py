"""The rule set in force as tables: `rules list`, `rules list --tools`."""

from __future__ import annotations

from proxy.report.terminal import Cell, Column, Style, table
from rules.ruleset import READ_METHODS, Match, Rule, RuleSet, Tool


def show_rules(ruleset: RuleSet, room: int, colour: bool) -> list[str]:
    """One line a rule."""
    columns = [Column("RULE", 12), Column("SAYS", 6), Column("CALLS", 20, gives=True), Column("FROM", 8)]
    rows = [
        [Cell(rule.id, "bold"), _says(rule, ruleset), Cell(_calls(rule)), Cell(rule.source, "dim")]
        for rule in ruleset.rules
    ]
    return table(columns, rows, room, colour) if rows else ["no rules: nothing is allowed"]


def show_tools(ruleset: RuleSet, room: int, colour: bool) -> list[str]:
    """One line a tool, with the number of rules that name it."""
    columns = [Column("TOOL", 16), Column("EFFECT", 6), Column("RULES", 5, right=True), Column("CALLS", 20, gives=True)]
    rows = []
    for tool in ruleset.tools.values():
        count = len(ruleset.by_tool.get(tool.name, ()))
        effect = _effect(tool)
        rows.append(
            [
                Cell(tool.name, "bold" if count else ""),
                Cell(effect, "yellow" if effect == "write" else ""),
                Cell(f"{count}", "" if count else "dim"),
                Cell(", ".join(map(_match, tool.matches))),
            ]
        )
    return table(columns, rows, room, colour) if rows else ["no tools"]


def plain_rules(ruleset: RuleSet) -> list[dict[str, object]]:
    """What `rules list --json` prints."""
    return [
        {
            "id": rule.id,
            "mode": _mode(rule, ruleset),
            "allow": rule.allow,
            "deny": rule.deny,
            "guards": [guard.verb for guard in rule.guards],
            "tools": sorted(rule.select.tools) if rule.select.tools is not None else None,
            "match": [_match(match) for match in rule.select.matches] if rule.select.matches is not None else None,
            "agents": rule.select.agents,
            "runs": rule.select.runs,
            "where": rule.select.where.describe() if rule.select.where else None,
            "after": sorted(rule.select.after) if rule.select.after is not None else None,
            "source": rule.source,
        }
        for rule in ruleset.rules
    ]


def plain_tools(ruleset: RuleSet) -> list[dict[str, object]]:
    """What `rules list --tools --json` prints."""
    return [
        {
            "name": tool.name,
            "match": [_match(match) for match in tool.matches],
            "effect": _effect(tool),
            "body": tool.body,
            "rules": [rule.id for rule in ruleset.by_tool.get(tool.name, ())],
            "source": tool.source,
        }
        for tool in ruleset.tools.values()
    ]


def _says(rule: Rule, ruleset: RuleSet) -> Cell:
    words = [*(["allow"] if rule.allow else []), *(["deny"] if rule.deny is not None else [])]
    words += [guard.verb for guard in rule.guards]
    style: Style = "red" if rule.deny is not None else "green" if rule.allow else "yellow"
    if _mode(rule, ruleset) == "monitor":
        words.append("(monitor)")
        style = "dim"
    return Cell(" ".join(words), style)


def _mode(rule: Rule, ruleset: RuleSet) -> str:
    return "monitor" if "monitor" in (rule.mode, ruleset.mode) else "enforce"


def _calls(rule: Rule) -> str:
    select = rule.select
    if select.tools is not None:
        what = ", ".join(sorted(select.tools))
    elif select.matches is not None:
        what = ", ".join(map(_match, select.matches))
    else:
        what = "every call"
    return f"{what} where {select.where.describe()}" if select.where else what


def _match(match: Match) -> str:
    said = [f" {match.says.text}"] if match.says else []
    if match.where:
        said.append(f" where {match.where.describe()}")
    return f"{match.pattern}{''.join(said)}"


def _effect(tool: Tool) -> str:
    if tool.effect is not None:
        return tool.effect
    reads = all(match.pattern.methods and READ_METHODS.issuperset(match.pattern.methods) for match in tool.matches)
    return "read" if reads else "write"
