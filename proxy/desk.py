"""The desk: where commands are carried out, by whoever owns the ledger: a proxy, or for a moment the command line.

A command becomes an entry, or is refused with a sentence. A new one is a function here and a line in `HANDLERS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy import presence
from proxy.clock import Clock
from proxy.confdir import Confdir, reason
from proxy.gate import Gate
from proxy.joining import HASH, Host, Wish, objections
from proxy.ledger.commands import Command, CommandError, Data, Inbox, submit
from proxy.ledger.entries import CommandEntry
from proxy.ledger.redact import escape
from proxy.ledger.store import Ledger, LedgerError
from proxy.ledger.vault import Vault
from proxy.osuser import os_user
from proxy.owner import apart, owner_of
from proxy.runs import JOIN, LEAVE, JoinedRun, Runs
from proxy.settings import SettingsError
from rules.globs import glob_fits
from rules.guards.spending import Fullness
from rules.halts import Halt
from rules.load import load

NOTE = 1000
"""What a person says is cut to so many characters."""

TOLD_S = 2.0
"""How long a proxy has to tell what `status` asks."""

OURS = "the proxy could not do it, because of an error of its own, which is in its log"

LOOK_S = 0.1
"""How often a proxy looks for commands. It also listens before each decision."""

log = logging.getLogger("borderpost")

type Result = Mapping[str, Any]


class Desk:
    """Carries out commands on `ledger`, and on what `gate` remembers of it.

    `say` tells whoever sits at the proxy's terminal, as `logging` does. `host`: of a `serve`, which takes runs in; None
    for every other owner.
    """

    def __init__(self, ledger: Ledger, clock: Clock, gate: Gate, say: Callable[..., None] = log.warning) -> None:
        self.ledger = ledger
        self.clock = clock
        self.gate = gate
        self.say = say
        self.host: Host | None = None
        self._inbox = Inbox(ledger.path)

    def listen(self) -> None:
        """Look, if somebody knocked: takes a microsecond if not."""
        if self._inbox.knocked():
            self.look()

    def look(self) -> None:
        """Carry out what was left since the last look. Raises `LedgerError` when nobody can look or record."""
        for command in self._inbox.poll():
            try:
                result = self.carry_out(command)
            except CommandError as error:
                self.ledger.reply(command.id, False, _text({"error": str(error)}))
            except LedgerError:
                raise
            except Exception:
                log.exception("a command was not carried out, because of an error of ours")
                self.ledger.reply(command.id, False, _text({"error": OURS}))
            else:
                self.ledger.reply(command.id, True, _text(result))

    def carry_out(self, command: Command) -> Result:
        """Do what is wanted; what is appended for it is not durable yet. Raises `CommandError`."""
        handler = HANDLERS.get(command.name)
        if handler is None:
            raise CommandError(f"the proxy does not know `{command.name}`: it is of another version than this command")
        return handler(self, command)

    async def keep_looking(self) -> None:
        """Look now and then, for as long as it is not cancelled."""
        while True:
            try:
                self.look()
                self.end_dead_runs()
            except LedgerError as error:
                log.error("commands cannot be carried out: %s", error)
            await asyncio.sleep(LOOK_S)

    def end_dead_runs(self) -> None:
        """Record the end of runs that have joined and whose process has died. Their tokens are worthless already."""
        if self.host is None or self.ledger.failed:
            return
        for joined in tuple(self.gate.runs.joined.values()):
            try:
                dead = not presence.lives(self.host.confdir, joined.hash)
            except OSError:  # of too many open files, say: nobody can tell now
                continue
            if dead:
                self.end(joined, os_user(), "its process has died")
                presence.forget(self.host.confdir, joined.hash)

    def end(self, joined: JoinedRun, by: str, why: str) -> None:
        """A run that has joined has ended. Recorded."""
        self.gate.end_run(joined, why, by)
        self.say("run `%s` of agent `%s` has ended: %s", joined.run, joined.agent, why)

    def close(self) -> None:
        """Look no more."""
        self._inbox.close()


def checkpoint(desk: Desk, command: Command) -> Result:
    """Seal everything that is recorded."""
    seq = desk.ledger.checkpoint(desk.clock.now_ns())
    if not seq:
        raise CommandError("nothing is recorded yet, so there is nothing to sign")
    return {"seq": seq}


def prune(desk: Desk, command: Command) -> Result:
    """Give up the payloads of what is older than `before_ns`."""
    before_ns = command.data.get("before_ns")
    if not isinstance(before_ns, int):
        raise CommandError("`prune` needs a time")
    through, entries = desk.ledger.prune(desk.clock.now_ns(), before_ns, command.by)
    return {"through": through, "entries": entries}


def resolve(desk: Desk, command: Command) -> Result:
    """Settle a call whose outcome is unknown, as a person says."""
    call, executed, note = (command.data.get(name) for name in ("call", "executed", "note"))
    if not isinstance(call, str) or not isinstance(executed, bool) or not isinstance(note, str):
        raise CommandError("`resolve` needs a call, whether it was executed, and a note")
    if not desk.gate.resolve(call, executed, note, command.by):
        raise CommandError(
            f"nothing waits for the outcome of `{call}`: it is known, its time is over, or no rule counts it"
        )
    return {"call": call, "executed": executed}


MOST_BUDGETS = 1000
"""So many budgets are told at once."""


class Told(msgspec.Struct, frozen=True):
    """What the owner of a ledger tells: the budgets that are used most, and the runs that have joined."""

    budgets: tuple[Fullness, ...] = ()
    runs: tuple[JoinedRun, ...] = ()


def tell(desk: Desk, command: Command) -> Result:
    """Tell what is not on record as such. Records nothing."""
    runs = sorted(desk.gate.runs.joined.values(), key=lambda joined: joined.at_ns)
    result: Result = msgspec.to_builtins(Told(desk.gate.budgets(MOST_BUDGETS), tuple(runs)))
    return result


def join(desk: Desk, command: Command) -> Result:
    """Take in a `run`, whose child may call with the token of this hash as soon as that is on record.

    The answer can be read only then, and nobody else knows the token.
    """
    try:
        wish = msgspec.convert(command.data, Wish)
        wish.check()
    except (msgspec.ValidationError, SettingsError) as error:
        raise CommandError(f"this run cannot join: {error}") from None
    host, runs = desk.host, desk.gate.runs
    if host is None:
        raise CommandError("only `borderpost serve` can be joined")
    found = list(objections(wish, host, desk.gate.ruleset))
    if found:
        raise CommandError(
            f"cannot join the running `borderpost serve`: {'; '.join(found)}; run with what it has, restart it with "
            "what this has, or give this run a proxy of its own with another `--ledger FILE`"
        )
    if any(joined.run == wish.run for joined in runs.joined.values()):
        raise CommandError(f"a run `{wish.run}` has joined already: give this one another `--run`, or none")
    if runs.goes_on(wish.run, desk.clock.now_ns()):
        raise CommandError(f"an agent of this serve is in the run `{wish.run}`: give this one another `--run`, or none")
    if wish.hash in runs.joined or not _seen_to_live(host, wish.hash):
        raise CommandError("this run cannot join: its process is not seen to live")
    joined = JoinedRun(wish.run, wish.agent, wish.hash, wish.pid, desk.clock.now_ns())
    desk.ledger.append(CommandEntry(joined.at_ns, JOIN, command.by, joined.data()))
    runs.begin(joined)
    desk.say("run `%s` of agent `%s` has joined, process %d", joined.run, joined.agent, joined.pid)
    address, port = host.address
    ca_path = str(host.ca_path.resolve())
    return {"host": address, "port": port, "ca": ca_path, "rules": host.rules(), "at_ns": joined.at_ns}


def _seen_to_live(host: Host, token_hash: str) -> bool:
    try:
        return HASH.fullmatch(token_hash) is not None and presence.lives(host.confdir, token_hash)
    except OSError as error:
        raise CommandError(f"this run cannot join: nobody can see whether its process lives: {reason(error)}") from None


def leave(desk: Desk, command: Command) -> Result:
    """The command of a run that has joined has ended: its token is worth nothing from now on."""
    joined = desk.gate.runs.joined.get(str(command.data.get("hash")))
    if joined is None:
        raise CommandError("there is no such run: it has ended already")
    desk.gate.flush(everything=True)
    desk.end(joined, command.by, "its command has ended")
    return {"run": joined.run}


MAX_REASON = 300
"""A reason goes to the agent with every refusal: it is a sentence, not a page."""


def halt(desk: Desk, command: Command) -> Result:
    """Stop all calls, or those of an agent, to a tool, or both."""
    agent, tool, reason = (command.data.get(name) for name in ("agent", "tool", "reason"))
    if not isinstance(agent, str) or not isinstance(tool, str) or not isinstance(reason, str):
        raise CommandError("`halt` needs an agent, a tool and a reason; the first two may be empty")
    if not reason.strip() or len(reason) > MAX_REASON:
        raise CommandError(f"the reason is what the agent reads: write a sentence of at most {MAX_REASON} characters")
    found = Halt(agent, tool, reason.strip(), command.by, desk.clock.now_ns())
    desk.gate.halt(found)
    desk.say("%s has stopped %s: %s", command.by, found.calls, found.reason)
    tools = sorted(name for name in desk.gate.ruleset.tools if tool and glob_fits(tool, name))
    return {"calls": found.calls, "tools": tools, "rules": len(desk.gate.ruleset.rules)}


def resume(desk: Desk, command: Command) -> Result:
    """Let go on what was halted with the same agent and tool."""
    agent, tool = command.data.get("agent"), command.data.get("tool")
    for found in desk.gate.halts:
        if (found.agent, found.tool) == (agent, tool):
            desk.gate.resume(found, command.by)
            desk.say("%s lets %s go on", command.by, found.calls)
            return {"calls": found.calls, "reason": found.reason}
    others = " and ".join(found.calls for found in desk.gate.halts)
    raise CommandError(f"there is no such halt: {f'stopped are {others}' if others else 'nothing is stopped'}")


def clock(desk: Desk, command: Command) -> Result:
    """Go on from the wall clock, though it is behind what is recorded."""
    note = command.data.get("note")
    if not isinstance(note, str):
        raise CommandError("`clock` needs a note")
    back = desk.gate.set_back_clock(note, command.by)
    if back is None:
        raise CommandError("the wall clock is not behind the recorded time, so there is nothing to accept")
    return {"from_ns": back.from_ns, "to_ns": back.to_ns}


def answer(desk: Desk, command: Command) -> Result:
    """A person says whether a call that is held may pass."""
    card, allowed, note = (command.data.get(name) for name in ("card", "allowed", "note"))
    if not isinstance(card, str) or not isinstance(allowed, bool) or not isinstance(note, str):
        raise CommandError("`answer` needs a card, whether it is allowed, and a note")
    own_user = command.by == os_user()
    if not desk.gate.answer(card, allowed, escape(note)[:NOTE], command.by, own_user):
        raise CommandError(
            f"`{card}` waits for no answer: it was given, its time is over, or its client has left before"
        )
    desk.say("%s has %s %s", command.by, "allowed" if allowed else "refused", card)
    return {"card": card, "allowed": allowed}


HANDLERS: dict[str, Callable[[Desk, Command], Result]] = {
    "answer": answer,
    "checkpoint": checkpoint,
    "clock": clock,
    "halt": halt,
    JOIN: join,
    LEAVE: leave,
    "prune": prune,
    "resolve": resolve,
    "resume": resume,
    "tell": tell,
}
REMEMBERING = {"answer", LEAVE, "resolve", "resume"}
"""Commands that need the state, which takes a while to gather from a long ledger."""

FOR_PEOPLE = {"answer", "resolve", "resume"}
"""Commands that an isolated agent may not give. One that writes into the ledger by itself is not stopped by that."""


def command(path: Path, confdir: Path, name: str, data: Data, by: str) -> Result:
    """Have a command carried out on the ledger at `path`: by the proxy that owns it, else here and now.

    What it changed is durable when this returns. Raises `CommandError`, `LedgerError` or `ConfdirError`.
    """
    if not path.exists():
        raise LedgerError(f"there is no ledger at `{path}`: nothing was recorded yet, or give `--ledger`")
    while True:
        owner = owner_of(path)
        if owner is not None and name in FOR_PEOPLE and apart(owner):
            raise CommandError("this is for people; it runs within `borderpost run --isolated`, where the agent is")
        if owner is None:
            return asyncio.run(_here(path, confdir, Command(0, name, data, by)))
        result = submit(path, name, data, by, lambda owner=owner: owner_of(path) == owner)  # type: ignore[misc]
        if result is not None:
            return result


async def _here(path: Path, confdir: Path, wanted: Command) -> Result:
    """Own the ledger for as long as it takes to carry out `wanted`."""
    ledger = Ledger.open(path, Vault.of(Confdir.open(confdir)), owner=f"borderpost {wanted.name}")
    try:
        clock = Clock()
        clock.advance(ledger.last_ns)
        gate = Gate(load([], {}).ruleset, ledger, clock, Runs("", lambda now_ns: ""))
        if wanted.name in REMEMBERING:
            gate.remember()
        desk = Desk(ledger, clock, gate, say=lambda *words: None)  # who has commanded it is told the result
        try:
            result = desk.carry_out(wanted)
        finally:
            desk.close()
        await ledger.idle()
        return result
    finally:
        ledger.close()


def told(path: Path) -> Told:
    """What the proxy tells that owns the ledger at `path`; nothing without one."""
    owner = owner_of(path)
    if owner is None:
        return Told()
    try:
        result = submit(path, "tell", {}, os_user(), lambda: owner_of(path) == owner, wait_s=TOLD_S)
        return msgspec.convert(result or {}, Told)
    except (CommandError, msgspec.ValidationError):  # of another version, or too busy to say
        return Told()


def _text(result: Result) -> str:
    return msgspec.json.encode(result).decode()
