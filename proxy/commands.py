"""Our own commands and events of mitmproxy's engine: a layer waits, or is told to look whether it may still go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events

from proxy.wire.error import WireError


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


class GoneOn(events.Event):
    """What came from `connection` has gone on, so that it may send more."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection


class GoesOn:
    """A call that is out, and whose client still says something. `refusal`: why it may not go on; None lifts it."""

    def __init__(self, flow: http.HTTPFlow) -> None:
        self.flow = flow
        self.refusal: WireError | None = WireError("policy-error", "It could not be decided whether this may go on.")


@dataclass
class GoesOnHook(commands.StartHook):
    """Decide whether a call that is out may go on."""

    going: GoesOn


@dataclass(repr=False)
class WaitCompleted(events.CommandCompleted):
    """What was waited for has come."""

    command: Wait
    reply: None = None
