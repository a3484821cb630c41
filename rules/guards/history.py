"""history: what a run has done, as far as rules can ask about it. A fold over recorded facts, for every run.

- `sent`: the tools of which a call was let out, or answered by a replay, from the decision on; whatever came of it.
  `after` of a deny or of a guard asks for this. It is kept for all tools, so rules that come later know the past.
- `done`: the tools of which a call was completed with success. `after` of an allow asks for this.
- `met`: when calls were completed that some `require` of the rules of that time asks for (`rules.earlier`), by key.

Forgetting may only refuse. So `sent` is never forgotten while a run is known, and of `met` the oldest goes first, when
one run has more than `TIMES`. Whole runs are dropped only when there are more than `RUNS`, one by one, and only those
that have been idle for a day and whose id was made by a proxy: such ids sort by the time they were made, so the latest
one that was dropped tells of any other whether it may have been. What a run with such an id has done is no longer
known: if it does come back, it counts as having sent everything and completed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, ClassVar, cast

import msgspec

from rules.decision import Change
from rules.state import SetBack, State
from rules.units import SECOND_NS

RUNS = 10_000
IDLE_NS = 24 * 3600 * SECOND_NS
SEEN_NS = 3600 * SECOND_NS
"""So often at most it is recorded that a run is still active, when nothing else is new."""

TIMES = 1000
"""So many times of completed calls are kept for one run,"""

TIMES_OF_ONE = 100
"""and so many of calls that are the same to a rule: the most that `count` can ask for."""

CALLS = 2
"""Of so many calls that sent a tool the ids are kept: enough to tell of each call whether another one did."""

_MADE = re.compile(r"r_[0-9a-hjkmnp-tv-z]{26}")
"""Ids of runs that a proxy makes (`proxy.ledger.ids`)."""

type Time = tuple[int, str]
"""When a call was completed, and its id."""


class RunPast(msgspec.Struct):
    """The past of one run. `lost`: an earlier part of it may have been forgotten. `times`: how many `met` holds."""

    seen_ns: int = 0
    lost: bool = False
    sent: dict[str, list[str]] = {}
    done: list[str] = []
    met: dict[str, list[Time]] = {}
    times: int = 0


class History(msgspec.Struct):
    """The past of every run, the one that was idle longest first. `dropped`: the latest id of those that were."""

    verb: ClassVar[str] = "history"

    runs: dict[str, RunPast] = {}
    dropped: str = ""

    def of(self, run: str) -> RunPast:
        """The past of `run`; an empty one when it has none."""
        found = self.runs.get(run)
        return found if found is not None else RunPast(lost=bool(_MADE.fullmatch(run)) and run <= self.dropped)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        past = self.of(data["run"])
        past.seen_ns = max(past.seen_ns, data["at_ns"])
        for tool in data["tools"]:
            if change.op == "sent":
                calls = past.sent.setdefault(tool, [])
                if data["call"] not in calls and len(calls) < CALLS:
                    calls.append(data["call"])
            elif tool not in past.done:
                past.done.append(tool)
        for key in data.get("met", ()):
            _meet(past, key, (data["at_ns"], data["call"]))
        self.runs.pop(data["run"], None)
        self.runs[data["run"]] = past
        self._forget(data["at_ns"])

    def set_back(self, clock: SetBack) -> None:
        """Nobody knows how long ago it was what was done while the clock ran ahead, so for `require` it was not."""
        for past in self.runs.values():
            past.seen_ns = clock.moved(past.seen_ns)
            kept = {key: [time for time in times if time[0] <= clock.to_ns] for key, times in past.met.items()}
            past.met = {key: times for key, times in kept.items() if times}
            past.times = sum(map(len, past.met.values()))

    def _forget(self, now_ns: int) -> None:
        for run in [run for run, _ in zip(self.runs, range(2), strict=False)]:
            past = self.runs[run]
            if len(self.runs) <= RUNS or now_ns - past.seen_ns < IDLE_NS:
                return
            del self.runs[run]
            if _MADE.fullmatch(run):
                self.dropped = max(self.dropped, run)
            else:  # whoever named it may name it again
                self.runs[run] = past


def _meet(past: RunPast, key: str, time: Time) -> None:
    times = past.met.pop(key, [])
    times.append(time)
    past.met[key] = times
    past.times += 1
    if len(times) > TIMES_OF_ONE:
        times.pop(0)
        past.times -= 1
    if past.times > TIMES:
        oldest = next(iter(past.met))
        past.met[oldest].pop(0)
        past.times -= 1
        if not past.met[oldest]:
            del past.met[oldest]


class Past(msgspec.Struct, frozen=True, gc=False):
    """What the run of one call has done, as that call sees it: without itself."""

    run: RunPast
    call_id: str

    def sent(self, tools: Iterable[str]) -> bool:
        """Was another call of one of `tools` let out?"""
        return self.run.lost or any(call != self.call_id for tool in tools for call in self.run.sent.get(tool, ()))

    def done(self, tools: Iterable[str]) -> bool:
        """Was a call of one of `tools` completed with success?"""
        return any(tool in self.run.done for tool in tools)

    def met(self, keys: Iterable[str]) -> list[int]:
        """When the calls that are remembered under any of `keys` were completed, each once."""
        return sorted({call: at_ns for key in keys for at_ns, call in self.run.met.get(key, ())}.values())


NO_PAST = Past(RunPast(), "")


def past_of(state: State, run: str, call_id: str) -> Past:
    """The past of `run`, as the call `call_id` sees it."""
    return Past(state.of(History).of(run), call_id)


def sent(state: State, run: str, call_id: str, tools: Sequence[str], now_ns: int) -> tuple[Change, ...]:
    """The change when a call of `tools` is let out, unless it tells nothing new."""
    past = state.of(History).of(run)
    new: list[Any] = [tool for tool in tools if len(past.sent.get(tool, ())) < CALLS]
    if not new and (not tools or now_ns - past.seen_ns < SEEN_NS):
        return ()
    return (_change("sent", run, {"at_ns": now_ns, "call": call_id, "run": run, "tools": new}),)


def done(
    state: State, run: str, call_id: str, tools: Sequence[str], met: Iterable[str], now_ns: int
) -> tuple[Change, ...]:
    """The change when a call is completed: with success, if it names `tools`; as a `require` asks, under keys `met`."""
    past = state.of(History).of(run)
    new: list[Any] = [tool for tool in tools if tool not in past.done]
    keys: list[Any] = list(dict.fromkeys(met))
    if not new and not keys:
        return ()
    return (_change("done", run, {"at_ns": now_ns, "call": call_id, "run": run, "tools": new, "met": keys}),)


def _change(op: str, run: str, data: dict[str, Any]) -> Change:
    return Change(History.verb, "", sha256(run.encode()).hexdigest()[:32], op, data)
