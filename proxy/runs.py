"""Which run a call belongs to. A client never chooses its run.

A proxy of `run` has one. Under `serve` it is an agent's activity, or that of a `run` that has joined, as the token of
its child tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from proxy.settings import token_sha256
from rules.decision import Plain

LATE_NS = 24 * 60 * 60 * 1_000_000_000
"""A call of a run that has ended comes up no later than so long after that."""

IDLE_NS = 30 * 60 * 1_000_000_000
"""Under `serve`, an agent that was idle this long begins a new run."""

JOIN, LEAVE = "join", "leave"
"""The commands by which a `run` joins, and leaves: what they are called on record."""


class JoinedRun(msgspec.Struct, frozen=True):
    """A `run` beside a `serve`. `hash`: the SHA-256 (hex) of its child's token. `pid`: the process that has joined."""

    run: str
    agent: str
    hash: str
    pid: int
    at_ns: int

    def data(self) -> dict[str, Plain]:
        """What is recorded of it."""
        return {"run": self.run, "agent": self.agent, "hash": self.hash, "pid": self.pid}

    @classmethod
    def told(cls, data: dict[str, Plain], at_ns: int) -> JoinedRun:
        """What was recorded at `at_ns`."""
        return msgspec.convert(data | {"at_ns": at_ns}, cls)


def lately(left: Mapping[str, int], now_ns: int) -> dict[str, int]:
    """Of the runs that have ended, with when, those of which a call may still come up."""
    return {run: at_ns for run, at_ns in left.items() if now_ns - at_ns < LATE_NS}


class Runs:
    """The current run of each agent. `fixed` is the run's id under `run`, empty under `serve`.

    `joined`: the runs that have joined, by the hash of their token; `left`: those that have ended, with when (ns).
    """

    def __init__(self, fixed: str, new_run_id: Callable[[int], str]) -> None:
        self._fixed = fixed
        self._new_run_id = new_run_id
        self._current: dict[str, tuple[str, int]] = {}
        self.joined: dict[str, JoinedRun] = {}
        self.left: dict[str, int] = {}

    def recorded(self, agent: str, run: str, at_ns: int) -> None:
        """The ledger says that `agent` was active in `run` at `at_ns`: keeps runs over a restart."""
        self._current[agent] = (run, at_ns)

    def begin(self, joined: JoinedRun) -> None:
        """`joined` has joined, and that is recorded. One of the same id may have ended before."""
        self.joined[joined.hash] = joined
        self.left.pop(joined.run, None)

    def end(self, joined: JoinedRun, at_ns: int) -> None:
        """`joined` has ended, and that is recorded."""
        self.joined.pop(joined.hash, None)
        self.left = lately(self.left, at_ns) | {joined.run: at_ns}

    def has_left(self, run: str) -> bool:
        """Whether `run` had joined and has ended. One that is begun anew by a proxy of its own is another."""
        return run in self.left and run != self._fixed

    def joined_with(self, token: str) -> JoinedRun | None:
        """The run that has joined and whose child has this token."""
        return self.joined.get(token_sha256(token))

    def goes_on(self, run: str, now_ns: int) -> bool:
        """Whether `run` is that of an agent which was active in it lately."""
        return any(current == run and now_ns - last_ns < IDLE_NS for current, last_ns in self._current.values())

    def run_of(self, agent: str, now_ns: int) -> str:
        """The run that a call of `agent` at `now_ns` belongs to."""
        if self._fixed:
            return self._fixed
        run, last_ns = self._current.get(agent, ("", 0))
        if not run or now_ns - last_ns >= IDLE_NS:
            run = self._new_run_id(now_ns)
        self._current[agent] = (run, now_ns)
        return run
