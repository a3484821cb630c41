"""`log events`: what is on record besides calls, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proxy.report.checked import counted
from proxy.report.moments import show_second
from proxy.report.terminal import Cell, Column, Style, table
from rules.halts import stopped_calls

if TYPE_CHECKING:
    from proxy.ledger.events import Event

type Data = Mapping[str, Any]


def _boot(data: Data) -> str:
    isolated = ", its command isolated" if data["isolated"] else ""
    return f"`borderpost {data['command']}` began, process {data['pid']}, on {data['listen']}{isolated}"


def _ruleset(data: Data) -> str:
    if data["problem"]:
        return f"the rules in force were kept, for the changed ones cannot be used: {data['problem']}"
    files = ", ".join(data["files"]) or "no file"
    mode = f", mode {data['mode']}" if data["mode"] != "enforce" else ""
    return f"{counted(data['rules'], 'rule')} in force, from {files}{mode}"


def _unrecorded(data: Data) -> str:
    who = f" of agent {data['agent']}" if data["agent"] else ""
    what = f": {data['method']} {data['host']}" if data["host"] else ", of many kinds"
    rules = f", as {', '.join(data['rules'])} lets them" if data["rules"] else ""
    return (
        f"{counted(data['calls'], 'call')}{who} went out without a record{what}{rules}; from "
        f"{show_second(data['first_ns'])} to {show_second(data['last_ns'])}"
    )


def _approval(data: Data) -> str:
    note = f": {data['note']}" if data["note"] else ""
    return f"{'allowed' if data['allowed'] else 'refused'} {data['card']}{note}"


def _resolve(data: Data) -> str:
    return f"{data['call']} was {'executed' if data['executed'] else 'not executed'}: {data['note']}"


TOLD: dict[str, Callable[[Data], str]] = {
    "approval": _approval,
    "boot": _boot,
    "clock": lambda data: (
        f"this computer's clock is right, and was not until {show_second(data['from_ns'])}: {data['note']}"
    ),
    "halt": lambda data: f"stopped {stopped_calls(data['agent'], data['tool'])}: {data['reason']}",
    "join": lambda data: f"run {data['run']} of agent {data['agent']} joined, process {data['pid']}",
    "leave": lambda data: f"run {data['run']} of agent {data['agent']} ended: {data['why']}",
    "prune": lambda data: f"gave up what was read of the calls up to entry {data['through']}",
    "recover": lambda data: f"the ledger could be written again, after: {data['problem']}",
    "resolve": _resolve,
    "resume": lambda data: f"let {stopped_calls(data['agent'], data['tool'])} go on",
    "ruleset": _ruleset,
    "shutdown": lambda data: "the proxy stopped",
    "unrecorded": _unrecorded,
}
"""What each event was, in words."""

STYLES: dict[str, Style] = {"halt": "red", "recover": "yellow", "unrecorded": "yellow"}


def plain(events: Sequence[Event]) -> list[dict[str, object]]:
    """What `log events --json` prints."""
    from proxy.ledger.told import iso

    return [
        {"seq": each.seq, "at": iso(each.at_ns), "event": each.name, "by": each.by, "data": each.data}
        for each in events
    ]


def show(events: Sequence[Event], room: int, colour: bool) -> list[str]:
    """One line an event."""
    rows = [
        [
            Cell(str(each.seq), "dim"),
            Cell(show_second(each.at_ns)),
            Cell(each.by),
            Cell(each.name, STYLES.get(each.name, "")),
            Cell(TOLD[each.name](each.data) if each.name in TOLD else "of a later version"),
        ]
        for each in events
    ]
    columns = [
        Column("SEQ", 3, right=True),
        Column("TIME", 19),
        Column("BY", 4),
        Column("EVENT", 8),
        Column("WHAT", 30, gives=True),
    ]
    return table(columns, rows, room, colour)
