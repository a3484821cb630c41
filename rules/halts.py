"""Halts: a person has stopped calls, all of them or those of some agents or tools, until a person lets them go on.

A halt is no rule: it is commanded (`borderpost halt`), recorded, and outlives restarts and changes of the rule files.
It refuses at the first stage, replays too and whatever the mode is. Calls that are out already come to their end.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, ClassVar, cast

import msgspec

from rules.canonical import frame
from rules.decision import Change
from rules.globs import glob_fits
from rules.state import SetBack


def stopped_calls(agent: str, tool: str) -> str:
    """Which calls a halt stops, for people: `all calls`, or `calls of agent x to stripe.*`."""
    chosen = (f" of agent `{agent}`" if agent else "") + (f" to `{tool}`" if tool else "")
    return f"calls{chosen}" if chosen else "all calls"


class Halt(msgspec.Struct, frozen=True):
    """Who has stopped which calls, why, and when. `agent` and `tool` are names or globs, empty for any."""

    agent: str
    tool: str
    reason: str
    by: str
    at_ns: int

    @property
    def key(self) -> str:
        return sha256(frame(b"halt", self.agent.encode(), self.tool.encode())).hexdigest()[:32]

    @property
    def calls(self) -> str:
        """Which calls, for people."""
        return stopped_calls(self.agent, self.tool)

    def stops(self, agent: str, tools: Iterable[str]) -> bool:
        """Does it stop a call of `agent` that matches `tools`?"""
        if self.agent and not glob_fits(self.agent, agent):
            return False
        return not self.tool or any(glob_fits(self.tool, tool) for tool in tools)

    def begun(self) -> Change:
        """It comes into force. One of the same calls that was in force before is replaced."""
        data: dict[str, Any] = msgspec.structs.asdict(self)
        return Change(Halts.verb, "", self.key, "halt", data)

    def ended(self, at_ns: int) -> Change:
        """The calls that it stops may go on."""
        return Change(Halts.verb, "", self.key, "resume", {"at_ns": at_ns})


class Halts(msgspec.Struct):
    """The halts in force, by key."""

    verb: ClassVar[str] = "halt"

    halts: dict[str, Halt] = {}

    def apply(self, change: Change) -> None:
        if change.op == "halt":
            self.halts[change.key] = Halt(**cast(dict[str, Any], change.data))
        else:
            self.halts.pop(change.key, None)

    def set_back(self, clock: SetBack) -> None:
        for key, halt in self.halts.items():
            self.halts[key] = msgspec.structs.replace(halt, at_ns=clock.moved(halt.at_ns))

    def in_force(self) -> tuple[Halt, ...]:
        """All of them, the widest first; the same in any order of being commanded."""
        return tuple(sorted(self.halts.values(), key=lambda halt: (halt.agent, halt.tool)))

    def stopping(self, agent: str, tools: Iterable[str]) -> Halt | None:
        """The halt that stops a call of `agent` that matches `tools`, or None."""
        return next((halt for halt in self.in_force() if halt.stops(agent, tools)), None)
