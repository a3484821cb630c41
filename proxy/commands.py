"""Our own command to mitmproxy's engine: a layer waits for something, and everything else goes on."""

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


@dataclass(repr=False)
class WaitCompleted(events.CommandCompleted):
    """What was waited for has come."""

    command: Wait
    reply: None = None
