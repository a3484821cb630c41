"""What ends claims before their window does: another write to the same path, or the success of an `until:` tool.

For PATCH, PUT and DELETE a claim ends when another write to the same path goes out: open, closed, open is three acts.
With `until:` it ends when a call that this tool names succeeds. No rule names this guard: it watches every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar

from rules.call import Call
from rules.canonical import frame, text_bytes
from rules.decision import Change
from rules.fields import ABSENT, Value
from rules.fingerprint import named_values
from rules.guard import Pass, Settled, View
from rules.guards.claims import Claims
from rules.state import State

SCOPES = ("agent", "run")
"""Whose success of an `until:` tool ends a claim: that of the same agent and run, where the claim is held `by` them."""


def path_key(call: Call) -> str:
    """The key of the resource that `call` writes to."""
    where = (call.scheme.encode(), call.host.encode(), b"%d" % call.port)
    return sha256(frame(*where, *[text_bytes(segment) for segment in call.segments])).hexdigest()[:32]


def until_key(tool: str, scope: Sequence[tuple[str, Value]]) -> str:
    """The key of "a success of `tool` within `scope`"."""
    return sha256(frame(tool.encode(), named_values(sorted(scope, key=lambda pair: pair[0])))).hexdigest()[:32]


class Endings:
    """Watches every call that goes out, whatever rule applies to it, for what ends the claims of others."""

    verb: ClassVar[str] = "dedupe"
    stage: ClassVar[int] = 9

    def check(self, view: View, state: State, now_ns: int) -> Pass:
        """A write ends the claims of other calls on its path."""
        claims = state.of(Claims)
        if not claims.by_path or not view.writes:
            return Pass()
        ended = [key for key in claims.by_path.get(path_key(view.call), ()) if key not in view.own]
        return Pass(_end(claims, ended, now_ns))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        """A success ends the claims that wait for it."""
        claims = state.of(Claims)
        if not claims.by_until or settled.kind != "done" or not settled.tool:
            return ()
        agent = ("agent", settled.call.agent or ABSENT)
        run = ("run", settled.call.run or ABSENT)
        keys = [until_key(settled.tool, scope) for scope in ((), (agent,), (run,), (agent, run))]
        ended = [key for until in keys for key in claims.by_until.get(until, ())]
        return _end(claims, ended, now_ns)


def _end(claims: Claims, keys: Sequence[str], now_ns: int) -> tuple[Change, ...]:
    return tuple(Change("dedupe", "", key, "end", {"at_ns": now_ns, "call": claims.claims[key].call}) for key in keys)
