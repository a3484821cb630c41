"""loop: an agent that makes the same call again and again, and learns nothing new from it, is told so.

For each run and tool the guard keeps the last calls and what came of each: an answer, an error, a refusal, a replay.
Three patterns stop a call: the same error three times, the same answer five times (ten for GET and HEAD), or two or
three calls that took turns three times with the same answers. What an error is says the status, the tool (`expect`), or
the protocol of the message (`rules.protocols.failure`). What was between does not hide it, and a changed answer
ends it: polling that progresses is no loop. A call that is stopped is refused for a minute. Then it goes out once more,
and when the same comes of it again, it is stopped for twice as long.

What time alone mends is left out: refusals such as `rate-limited`, and answers that start a cool-down.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, cast

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.codes import CODES
from rules.decision import Answer, Change, Decision, Executed, Plain
from rules.fingerprint import WHO
from rules.guard import Pass, Refuse, Settled, Verdict, View
from rules.guards.cooldown import pause_until
from rules.guards.probe import PROBE_NS
from rules.guards.reading import DURATION_SCHEMA, read_count, read_duration, read_map, shown
from rules.protocols import failure
from rules.state import Due, SetBack, State
from rules.units import SECOND_NS, show_duration
from rules.yamltree import Node

SAME_ERROR = 3
SAME_RESULT = 5
SAME_READ = 10
CYCLE = 3
WITHIN_NS = 600 * SECOND_NS
COOL_DOWN_NS = 60 * SECOND_NS
LONGEST_NS = 900 * SECOND_NS
"""A stop grows up to this, or stays as long as the rule says, if that is longer."""

KEPT = 100
"""So many calls of a run and tool are kept."""

MOST = 30
PERIODS = (2, 3)

REFUSALS = 50
"""Of the refusals of one run and tool, so many a minute are noted. What they all are, one more does not change."""

LASTING = ("never", "never as is", "changed only", "with a new key")
"""The advice on retrying of refusals that are the same tomorrow. Others mend with time, or a person mends them."""

_KNOWN_FIRST: tuple[Executed, ...] = ("yes", "unknown", "no")


class Seen(msgspec.Struct, gc=False):
    """A call (its fingerprint) and what came of it. `of`: the call that was answered so. Equal results are equal."""

    call: str
    result: str
    error: bool
    of: str
    executed: Executed
    at_ns: int


_when = attrgetter("at_ns")
"""What `Row.seen` is sorted by: time never goes back, and what was put back stays in order (`SetBack.moved`)."""


class Stop(msgspec.Struct):
    """A call that is not sent until `until_ns`, because `result` came of it `count` times, `times` times before.

    `period`: above 1, it took turns with others.
    """

    until_ns: int
    times: int
    result: str
    count: int
    period: int
    executed: Executed


class Row(msgspec.Struct):
    """The last calls of one run and tool, oldest first, and those that are stopped."""

    within_ns: int
    seen: list[Seen] = []
    stops: dict[str, Stop] = {}

    def due_ns(self) -> int:
        last_ns = max([self.seen[-1].at_ns if self.seen else 0, *[stop.until_ns for stop in self.stops.values()]])
        return last_ns + self.within_ns


class Rows(msgspec.Struct):
    """All rows by key."""

    verb: ClassVar[str] = "loop"

    rows: dict[str, Row] = {}
    due: Due = msgspec.field(default_factory=Due)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        row = self.rows.get(change.key)
        if change.op == "saw":
            if row is None:
                row = self.rows[change.key] = Row(data["within_ns"])
                self.due.add(data["at_ns"] + row.within_ns, change.key)
            self._saw(row, data)
        elif row is not None and data["call"] in row.stops:  # sent once more: others wait for what comes of it
            stop = row.stops[data["call"]]
            stop.until_ns = max(stop.until_ns, data["at_ns"] + PROBE_NS)
        self.due.forget(self.rows, data["at_ns"], Row.due_ns)

    def _saw(self, row: Row, data: dict[str, Any]) -> None:
        call, result, at_ns = data["call"], data["result"], data["at_ns"]
        row.within_ns = data["within_ns"]
        row.seen.append(Seen(call, result, data["error"], data["of"], data["executed"], at_ns))
        gone = bisect_right(row.seen, at_ns - row.within_ns, key=_when)
        del row.seen[: max(gone, len(row.seen) - KEPT)]
        row.stops = {name: stop for name, stop in row.stops.items() if stop.until_ns + row.within_ns > at_ns}
        if call in row.stops and not data["stop"]:
            del row.stops[call]
        for name, stopped in data["stop"].items():
            row.stops[name] = Stop(**stopped)

    def set_back(self, clock: SetBack) -> None:
        for row in self.rows.values():
            for each in row.seen:
                each.at_ns = clock.moved(each.at_ns)
            for stop in row.stops.values():
                stop.until_ns = clock.moved(stop.until_ns)
        self.due.set_back(clock)


class Loop(msgspec.Struct, frozen=True, dict=True):
    """The guard. A limit of 0 is none. `same_read` is `same_result` for GET and HEAD."""

    verb: ClassVar[str] = "loop"
    stage: ClassVar[int] = 5
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "Stop a call that is made again and again with the same result. true: with the usual limits.",
        "oneOf": [
            {"const": True},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    **{
                        name: {
                            "description": f"{what} Default: {usual}. false: do not look at it.",
                            "oneOf": [{"type": "integer", "minimum": 2, "maximum": MOST}, {"const": False}],
                        }
                        for name, what, usual in (
                            ("same_error", "The same call failed so many times in the same way.", f"{SAME_ERROR}"),
                            (
                                "same_result",
                                "The same call got the same answer so many times.",
                                f"{SAME_RESULT}, and {SAME_READ} for GET and HEAD",
                            ),
                            ("cycle", "Two or three calls took turns so many times, with equal answers.", f"{CYCLE}"),
                        )
                    },
                    "within": {**DURATION_SCHEMA, "description": "All within this time. Default: 10m."},
                    "cool_down": {
                        **DURATION_SCHEMA,
                        "description": "How long it is stopped; twice as long each time after that. Default: 60s.",
                    },
                    "polling": {
                        "description": "Asking again for the same answer is no loop here; errors are counted still.",
                        "type": "boolean",
                    },
                },
            },
        ],
    }

    rule: str
    same_error: int = SAME_ERROR
    same_result: int = SAME_RESULT
    same_read: int = SAME_READ
    cycle: int = CYCLE
    within_ns: int = WITHIN_NS
    cool_down_ns: int = COOL_DOWN_NS

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Loop:
        """`true`, or the long form."""
        if node.scalar is True:
            return cls(rule_id)
        if node.kind != "map":
            mend = "write `loop: true`, or `loop: {same_error: 3}`"
            node.fail("loop", f"{shown(node)} is neither `true` nor a mapping", mend)
        entries = read_map(node, "loop", ("same_error", "same_result", "cycle", "within", "cool_down", "polling"))
        given: dict[str, Any] = {name: _read_limit(entries[name], name) for name in _LIMITS if name in entries}
        if "same_result" in given:
            given["same_read"] = given["same_result"]
        if "within" in entries:
            given["within_ns"] = read_duration(entries["within"], "within")
        if "cool_down" in entries:
            given["cool_down_ns"] = read_duration(entries["cool_down"], "cool_down")
        if "polling" in entries and _read_flag(entries["polling"]):
            given |= {"same_result": 0, "same_read": 0, "cycle": 0}
        return cls(rule_id, **given)

    def needs_body(self, call: Call, writes: bool) -> bool:
        return True

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        return messages

    @cached_property
    def _space(self) -> bytes:
        return frame(b"loop", self.rule.encode())

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        call, key = self._identity(view)
        row = state.of(Rows).rows.get(key)
        stop = row.stops.get(call) if row is not None else None
        if stop is not None and now_ns < stop.until_ns:
            view.note(f"loop.{self.rule}", call)
            return self._refuse(stop)
        same_result, cycle = self._limits(view)
        data: dict[str, Plain] = {
            "at_ns": now_ns,
            "call": call,
            "same_result": same_result,
            "cycle": cycle,
            "writes": view.writes,
        }
        return Pass((Change(self.verb, self.rule, key, "sent", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        answer = settled.answer
        if answer.withdrawn or answer.abandoned or pause_until(answer, now_ns) > now_ns:
            return ()
        said = failure(settled.call, answer) if answer.complete and settled.expected != "met" else ""
        result, error = _came(answer, settled.expected == "failed", said, settled.call_id)
        done: Executed = "unknown" if said else "yes"
        executed: dict[str, Executed] = {"done": done, "not_executed": "no", "unknown": "unknown"}
        changes: list[Change] = []
        for sent in settled.claimed:
            call, writes = cast(str, sent.data["call"]), sent.data["writes"]
            seen = Seen(call, result, error, settled.call_id, executed[settled.kind] if writes else "no", now_ns)
            limits = cast(int, sent.data["same_result"]), cast(int, sent.data["cycle"])
            changes.append(self._saw(state.of(Rows).rows.get(sent.key), sent.key, seen, *limits))
        return tuple(changes)

    def watch(self, view: View, state: State, decision: Decision, now_ns: int) -> tuple[Change, ...]:
        """A call that got no answer of its own: it was refused for good, or got the answer of an earlier one."""
        call, key = self._identity(view)
        row = state.of(Rows).rows.get(key)
        before = row.seen if row is not None else []
        if decision.action == "replay":
            of = decision.replay_of
            known = next((each for each in reversed(before) if each.of == of), None)
            result, error = (known.result, known.error) if known is not None else (f"replay:{of}", False)
            seen = Seen(call, result, error, of, "yes", now_ns)
        elif CODES[decision.code].retry in LASTING:
            recent = before[bisect_right(before, now_ns - 60 * SECOND_NS, key=_when) :]
            if sum(each.result.startswith("refused:") for each in recent) >= REFUSALS:
                return ()
            seen = Seen(call, f"refused:{decision.code}", True, "", decision.executed, now_ns)
        else:
            return ()
        return (self._saw(row, key, seen, *self._limits(view)),)

    def _limits(self, view: View) -> tuple[int, int]:
        """`same_result` and `cycle` for this call."""
        if view.polling:
            return 0, 0
        return self.same_read if view.call.method in ("GET", "HEAD") else self.same_result, self.cycle

    def _identity(self, view: View) -> tuple[str, str]:
        """The call's fingerprint, and the key of its run and tool."""
        who = (view.call.agent.encode(), view.call.run.encode(), view.tool.encode())
        return view.fingerprint(WHO)[:32], view.key(self._space, *who)

    def _saw(self, row: Row | None, key: str, now: Seen, same_result: int, cycle: int) -> Change:
        """What is noted of a call that has come to its end, and which calls are stopped for it."""
        since_ns = now.at_ns - self.within_ns
        before = row.seen if row is not None else []
        seen = [*before[bisect_right(before, since_ns, key=_when) :], now]
        stops = {call: _plain(stop) for call, stop in self._stops(row, seen, now, same_result, cycle).items()}
        data: dict[str, Plain] = {
            "at_ns": now.at_ns,
            "call": now.call,
            "result": now.result,
            "error": now.error,
            "of": now.of,
            "executed": now.executed,
            "within_ns": self.within_ns,
            "stop": stops,
        }
        return Change(self.verb, self.rule, key, "saw", data)

    def _stops(self, row: Row | None, seen: list[Seen], now: Seen, same_result: int, cycle: int) -> dict[str, Stop]:
        held = row.stops.get(now.call) if row is not None else None
        if held is not None and held.until_ns + self.within_ns > now.at_ns:
            if held.result != now.result:
                return {}
            executed = _known((held.executed, now.executed))
            return {now.call: self._stop(now, held.count + 1, held.times + 1, held.period, executed)}
        limit = self.same_error if now.error else same_result
        count = _streak(seen, now)
        if limit and count >= limit:
            return {now.call: self._stop(now, count, 0, 1, _executed(seen, now.call))}
        for period in PERIODS if cycle else ():
            turn = _turn(seen, period, cycle)
            if turn:
                return {each.call: self._stop(each, cycle, 0, period, _executed(seen, each.call)) for each in turn}
        return {}

    def _stop(self, seen: Seen, count: int, times: int, period: int, executed: Executed) -> Stop:
        """`seen` is the last of the calls that stop it, or one of those that took turns with that."""
        longest_ns = max(LONGEST_NS, self.cool_down_ns)
        until_ns = seen.at_ns + min(self.cool_down_ns << min(times, 20), longest_ns)
        return Stop(until_ns, times, seen.result, count, period, executed)

    def _refuse(self, stop: Stop) -> Refuse:
        within = show_duration(self.within_ns)
        if stop.period > 1:
            what = f"This call and {'another' if stop.period == 2 else 'two others'} took turns {stop.count} times"
            detail = f"{what}, each time with the same results. It was not sent again."
        else:
            came = _words(stop.result)
            detail = f"This same call was made {stop.count} times, each time with the same result: {came}. "
            detail += "It was not sent again."
        return Refuse(
            "loop-detected",
            detail,
            executed=stop.executed,
            actual=f"{stop.count} times",
            limit=f"the same result within {within}",
            next=("Do not repeat this call: nothing new will come of it.", "Do something else, or ask a person."),
        )


def _came(answer: Answer, failed: bool, said: str, call_id: str) -> tuple[str, bool]:
    """What came of a call that was sent, and whether that is an error. `said`: the failure that its protocol tells.

    Errors are the same when their status is: what they say often holds the time, or an id.
    """
    if not answer.complete:
        return "no answer", True
    if answer.status >= 400 or failed:
        return f"{'failed' if failed else 'status'}:{answer.status}", True
    if said:
        return f"said:{said}", True
    return f"answer:{answer.status}:{answer.digest or call_id}", False


def _words(result: str) -> str:
    """`result` as the agent reads it."""
    kind, _, rest = result.partition(":")
    if kind == "no answer":
        return "no answer came"
    if kind == "refused":
        return f"it was refused ({rest})"
    if kind == "failed":
        return f"the API answered {rest} and reported a failure"
    return f"the API answered {rest}" if kind in ("status", "said") else "the same answer"


def _streak(seen: Sequence[Seen], now: Seen) -> int:
    """How often `now.result` came of this call, without another result between."""
    count = 0
    for each in reversed(seen):
        if each.call == now.call:
            if each.result != now.result:
                break
            count += 1
    return count


def _turn(seen: Sequence[Seen], period: int, times: int) -> Sequence[Seen]:
    """The last `period` of `seen`, if such different calls took turns so many `times`, with equal results."""
    tail = seen[-period * times :]
    turn = tail[-period:]
    if len(tail) < period * times or len({each.call for each in turn}) < 2:
        return ()
    same = all(a.call == b.call and a.result == b.result for a, b in zip(tail, tail[period:], strict=False))
    return turn if same else ()


def _known(words: Iterable[Executed]) -> Executed:
    """What is known of the effect of a call, from what is known of each attempt: nobody shall be told it was not."""
    return min(words, key=_KNOWN_FIRST.index)


def _executed(seen: Sequence[Seen], call: str) -> Executed:
    return _known(each.executed for each in seen if each.call == call)


def _plain(stop: Stop) -> Plain:
    return cast(Plain, msgspec.structs.asdict(stop))


_LIMITS = ("same_error", "same_result", "cycle")


def _read_limit(node: Node, what: str) -> int:
    if node.scalar is False:
        return 0
    count = read_count(node, what, MOST)
    if count < 2:
        node.fail("count", f"`{what}: 1` would stop every call", "write how often is too often, at least `2`")
    return count


def _read_flag(node: Node) -> bool:
    if not isinstance(node.scalar, bool):
        node.fail("loop", f"{shown(node)} is not `true` or `false`", "write `polling: true`")
    return node.scalar
