"""`status` as people read it: is a proxy running, what is in force, where does the ledger stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.agents import Agents
from proxy.clock import TOLERATED_NS
from proxy.ledger.room import Room
from proxy.owner import owner_of
from proxy.report.checked import counted
from proxy.report.moments import SECOND_NS, show_size, show_span
from proxy.report.terminal import Style, paint, visible
from rules.amounts import written
from rules.ruleset import Bounds
from rules.units import show_duration

if TYPE_CHECKING:
    from proxy.ledger.told import Status

WORDS = {"allow": "allowed", "replay": "replayed", "throttle": "throttled", "hold": "held", "deny": "blocked"}


class Budget(msgspec.Struct, frozen=True):
    """How much of a budget is used, in exact decimals; `resets_at` is empty where it is not known."""

    rule: str
    who: str
    per: str
    unit: str
    max: str
    spent: str
    held: str
    used_percent: int
    resets_at: str


class JoinedRow(msgspec.Struct, frozen=True):
    """A `borderpost run` that has joined the running `serve`."""

    run: str
    agent: str
    pid: int
    since: str


SHOWN = 5
"""So many budgets are shown to people; `--json` has more."""


class Facts(msgspec.Struct, frozen=True):
    """What `status --json` prints. `ledger` is None where nothing was recorded yet.

    `pid`, `command` and `listen` are of the running proxy, if there is one. `clock_behind_s`: how far the clock of this
    computer is behind the last entry. `questions`: so many calls wait for a person.
    `budgets`: those of a running proxy of which anything is used, the fullest first. `runs`: those that have joined it.
    """

    running: bool
    pid: int | None
    command: str
    listen: str
    ledger: Status | None
    ledger_path: str
    confdir: str
    agents: int
    clock_behind_s: int
    questions: int
    budgets: tuple[Budget, ...] = ()
    runs: tuple[JoinedRow, ...] = ()


def gather(ledger: Path, confdir: Path, wall_ns: int) -> Facts:
    """Look at the ledger, at who owns it, and at the agents. Changes nothing. `wall_ns`: the computer's time."""
    owner = owner_of(ledger)
    status, asked = None, 0
    if ledger.exists():
        from proxy.ledger.query import LedgerReader

        with LedgerReader.open(ledger) as reader:
            status = reader.status()
            asked = sum(question.state == "asked" for question in reader.questions(wall_ns))
    budgets, runs = _told(ledger) if owner is not None and ledger.exists() else ((), ())
    return Facts(
        running=owner is not None,
        pid=owner.pid if owner else None,
        command=owner.command if owner else "",
        listen=str(status.boot.get("listen", "")) if owner and status and status.boot else "",
        ledger=status,
        ledger_path=str(ledger),
        confdir=str(confdir),
        agents=len(Agents(confdir).list()),
        clock_behind_s=max(status.last_ns - wall_ns, 0) // SECOND_NS if status else 0,
        questions=asked,
        budgets=budgets,
        runs=runs,
    )


def _told(ledger: Path) -> tuple[tuple[Budget, ...], tuple[JoinedRow, ...]]:
    """What the proxy tells that owns `ledger`: budgets, and runs that have joined."""
    from proxy.desk import told
    from proxy.ledger.told import iso

    found = told(ledger)
    budgets = tuple(
        Budget(
            each.rule,
            each.who,
            each.per,
            each.unit,
            written(each.limit),
            written(each.spent),
            written(each.held),
            int(each.used * 100 / each.limit),
            iso(each.resets_ns) if each.resets_ns else "",
        )
        for each in found.budgets
    )
    return budgets, tuple(JoinedRow(each.run, each.agent, each.pid, iso(each.at_ns)) for each in found.runs)


def _shown(budget: Budget) -> tuple[str, Style]:
    """One budget as a line."""
    of = f" of {budget.who}" if budget.who else ""
    unit = f" {budget.unit}" if budget.unit else ""
    held = f", {budget.held} held" if budget.held != "0" else ""
    free = f", free again from {budget.resets_at}" if budget.resets_at and budget.used_percent >= 80 else ""
    used = f"{budget.used_percent} % of {budget.max}{unit} {budget.per}"
    style: Style = "red" if budget.used_percent >= 100 else "yellow" if budget.used_percent >= 80 else ""
    return f"{budget.rule}{of}: {used}, {budget.spent} spent{held}{free}", style


def _ledger(status: Status) -> Iterator[tuple[str, str, Style]]:
    """How large the ledger is, and how large it may be."""
    rules = status.ruleset
    bounds = Bounds(rules.max_bytes, rules.keep_ns) if rules is not None else Bounds()
    room = Room(bounds, status.used_bytes)
    size = show_size(status.size_bytes)
    if bounds.max_bytes:
        size = f"{show_size(status.used_bytes)} of at most {show_size(bounds.max_bytes)}"
    style: Style = "red" if room.full else "yellow" if room.near else ""
    yield "ledger", f"{status.path}: {size}, {status.entries} entries", style
    if room.near:
        what = "it is full, and calls are refused" if room.full else "nothing is left to give up for room"
        yield "", f"{what}: raise `max_size`, or begin a new ledger", style
    if bounds.keep_ns:
        yield "", f"what calls were decided by is kept for {show_duration(bounds.keep_ns)}", "dim"


def by_decision(counts: Mapping[str, int]) -> list[str]:
    """How many calls were decided how: `["9 allowed", "1 blocked"]`, without the zeros."""
    return [f"{counts[action]} {word}" for action, word in WORDS.items() if counts.get(action)]


def show(facts: Facts, colour: bool) -> Sequence[str]:
    """The facts as lines."""
    lines: list[tuple[str, str, Style]] = []
    if facts.running:
        where = f", listening on {facts.listen}" if facts.listen else ""
        lines.append(("proxy", f"running: {facts.command}, process {facts.pid}{where}", "green"))
    else:
        lines.append(("proxy", "not running", "yellow"))
    status = facts.ledger
    if status is not None:
        lines += [("halted", f"{halt.calls}, by {halt.by} at {halt.at}: {halt.reason}", "red") for halt in status.halts]
    if status is not None and status.ruleset is not None:
        rules = status.ruleset
        mode = f", mode {rules.mode}" if rules.mode != "enforce" else ""
        files = ", ".join(rules.files) or "no file"
        count = f"{counted(rules.rules, 'rule')}, {counted(rules.tools, 'tool')}"
        lines.append(("rules", f"{count} from {files}{mode}", ""))
        since = "in force since" if facts.running else "last put in force at"
        lines.append(("", f"{since} {status.ruleset_at}, digest {rules.digest[:12]}", "dim"))
    if status is not None and status.problem:
        lines.append(("problem", f"reload failed at {status.problem_at}: {status.problem}", "red"))
    if status is None:
        lines.append(("ledger", f"{facts.ledger_path}: nothing recorded yet", ""))
    else:
        lines += _ledger(status)
        total = sum(status.totals.values())
        lines.append(("calls", " · ".join([f"{total} on record", *by_decision(status.totals)]), ""))
        if status.codes:
            lines.append(("", " · ".join(f"{calls} {code}" for code, calls in status.codes.items()), "dim"))
        if status.last_at:
            lines.append(("", f"last entry {status.last_at}", "dim"))
    if facts.clock_behind_s * SECOND_NS > TOLERATED_NS:
        behind = show_span(facts.clock_behind_s * SECOND_NS)
        lines.append(("clock", f"this computer's is {behind} behind the record, so no window passes", "red"))
        lines.append(("", "if it is right: borderpost clock --accept --note TEXT", "dim"))
    if facts.questions:
        lines.append(("waiting", f"{counted(facts.questions, 'call')} for your answer: borderpost approvals", "blue"))
    for number, joined in enumerate(facts.runs):
        text = f"{joined.run} of agent {joined.agent}, process {joined.pid}, since {joined.since}"
        lines.append(("" if number else "joined", text, ""))
    for number, budget in enumerate(facts.budgets[:SHOWN]):
        text, style = _shown(budget)
        lines.append(("" if number else "budgets", text, style))
    if len(facts.budgets) > SHOWN:
        lines.append(("", f"and {len(facts.budgets) - SHOWN} more: borderpost status --json", "dim"))
    lines.append(("agents", f"{facts.agents} with a token" if facts.agents else "none with a token", ""))
    lines.append(("confdir", facts.confdir, ""))
    return [f"{paint(f'{name:<9}', 'dim', colour)}{paint(visible(text), style, colour)}" for name, text, style in lines]
