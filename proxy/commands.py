"""Our own commands and events of mitmproxy's engine: a layer waits, or is told to look whether it may still go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mitmproxy.proxy import commands, events


@dataclass
class Wait(commands.Command):
    """Go on when `task` has ended well. If it fails, never."""

    blocking = True
    task: asyncio.Task[None]

    def __hash__(self) -> int:
        return id(self)


@dataclass
class LookLater(commands.Command):
    """`Look` comes after so long."""

    after_s: float

    def __hash__(self) -> int:
        return id(self)


class Look(events.Event):
    """Something has changed, or time has passed: whoever is at something sees whether that may go on."""


@dataclass(repr=False)
class WaitCompleted(events.CommandCompleted):
    """What was waited for has come."""

    command: Wait
    reply: None = None
