"""throttle: no more than so many calls in any stretch of time.

`rate: 10/min`: whatever 60 seconds you look at, no more than ten calls lie in them, and no call is refused that fits.
A call at exactly 60 s after the tenth-last one fits. Up to 1000 calls this is exact to the nanosecond; above that, a
place becomes free up to 1 % of the window later. `pace: 10/min` with `burst: 3`: evenly spaced, three at once after a
rest. `wait: 5s` gives a call that does not fit the next place, if it comes soon enough; places go in order of asking.

What is refused consumes nothing; what fails upstream does; what is withdrawn before it was sent gives its place back.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, cast

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.decision import Change, Limit
from rules.fields import Field
from rules.guard import Pass, Provided, Refuse, Settled, Verdict, View
from rules.guards.counters import Pace, Rate, Slices, Stamps
from rules.guards.reading import DURATION_SCHEMA, FIELD_LIST_SCHEMA, read_duration, read_fields, read_map, shown
from rules.state import Due, SetBack, State
from rules.units import FRACTION, RATE_HELP, parse_rate, seconds_up, show_duration
from rules.yamltree import Node

EXACT = 1000
"""Quotas up to this keep a time stamp of each call."""

WAITING = 50
"""So many calls may wait for their place behind one counter."""

QUOTA = 1_000_000_000

_KINDS: dict[str, type[Stamps] | type[Slices] | type[Pace]] = {"stamps": Stamps, "slices": Slices, "pace": Pace}


class Row(msgspec.Struct):
    """A counter, the rate of the rule as it was last used, and the latest time of deciding."""

    kind: str
    counter: Stamps | Slices | Pace
    rate: Rate
    seen_ns: int

    def due_ns(self) -> int:
        return max(self.counter.due_ns(self.rate), self.seen_ns)


class Rows(msgspec.Struct):
    """All counters by key. One that is as good as new is forgotten."""

    verb: ClassVar[str] = "throttle"

    rows: dict[str, Row] = {}
    due: Due = msgspec.field(default_factory=Due)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        row = self.rows.get(change.key)
        if change.op == "admit":
            rate = Rate(data["quota"], data["window_ns"], data["burst"])
            if row is None:
                row = self.rows[change.key] = Row(data["kind"], _KINDS[data["kind"]](), rate, data["at_ns"])
                self.due.add(data["place_ns"] + rate.window_ns, change.key)
            row.rate = rate
            row.seen_ns = max(row.seen_ns, data["at_ns"])
            row.counter.forget(rate, row.seen_ns)
            row.counter.add(rate, data["place_ns"])
        elif row is not None:
            row.counter.give_back(row.rate, data["place_ns"])
        self.due.forget(self.rows, data["at_ns"], Row.due_ns)

    def set_back(self, clock: SetBack) -> None:
        for row in self.rows.values():
            row.counter.set_back(row.rate, clock)
            row.seen_ns = clock.moved(row.seen_ns)
        self.due.set_back(clock)


class Throttle(msgspec.Struct, frozen=True, dict=True):
    """The guard: `rate` per key made of the fields `by`; a call waits for its place up to `wait_ns`."""

    verb: ClassVar[str] = "throttle"
    stage: ClassVar[int] = 8
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "At most so many calls in any stretch of time, such as 10/min. Short for {rate: 10/min}.",
        "oneOf": [
            {"type": "string", "pattern": "^[0-9]+/[a-z]+$"},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "rate": {
                        "description": "Never more than this in any such time: 10/min, or a number beside `per`.",
                        "oneOf": [{"type": "string"}, {"type": "integer", "minimum": 1}],
                    },
                    "per": {**DURATION_SCHEMA, "description": "The stretch of time of `rate`, such as 8s."},
                    "pace": {
                        "description": "Evenly spaced, such as 10/min: one every six seconds.",
                        "type": "string",
                        "pattern": "^[0-9]+/[a-z]+$",
                    },
                    "burst": {"description": "With `pace`: at once after a rest.", "type": "integer", "minimum": 1},
                    "by": {
                        **FIELD_LIST_SCHEMA,
                        "description": "A counter for each value of these. Default: one for all.",
                    },
                    "wait": {
                        "description": "How long a call may wait for its place before it is refused. Default: 0.",
                        "oneOf": [DURATION_SCHEMA, {"const": 0}],
                    },
                },
                "oneOf": [{"required": ["rate"]}, {"required": ["pace"]}],
            },
        ],
    }

    rule: str
    rate: Rate
    by: tuple[Field, ...] = ()
    wait_ns: int = 0

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Throttle:
        """`10/min`, or the long form."""
        if node.kind != "map":
            return cls(rule_id, _read_rate(node))
        entries = read_map(node, "throttle", ("rate", "per", "pace", "burst", "by", "wait"))
        rate, per, pace, burst = (entries.get(name) for name in ("rate", "per", "pace", "burst"))
        if (rate is None) == (pace is None):
            node.fail("throttle", "`throttle` needs either `rate` or `pace`", "write `rate: 10/min` or `pace: 10/min`")
        limit = _read_rate(rate, per) if rate is not None else _read_pace(cast(Node, pace), burst)
        if pace is not None and per is not None:
            per.fail("conflict", "`per` stands beside `pace`", "write the time into the pace, such as `pace: 10/min`")
        if rate is not None and burst is not None:
            burst.fail("conflict", "`burst` stands beside `rate`", "a rate has no burst: use `pace` for one that does")
        by = read_fields(entries["by"], "by") if "by" in entries else ()
        wait_ns = 0
        if "wait" in entries and entries["wait"].scalar not in (0, "0s"):
            wait_ns = read_duration(entries["wait"], "wait")
        return cls(rule_id, limit, by, wait_ns)

    def needs_body(self, call: Call, writes: bool) -> bool:
        return any(field.needs_body for field in self.by)

    def claims(self, method: str, writes: bool) -> bool:
        return False

    @cached_property
    def _kind(self) -> str:
        return "pace" if self.rate.burst else "stamps" if self.rate.quota <= EXACT else "slices"

    @cached_property
    def _space(self) -> bytes:
        """What its counters have in common. Stamps stay true when the rule's numbers change, the others do not."""
        rate = self.rate
        numbers = b"" if self._kind == "stamps" else b"%d/%d/%d" % (rate.quota, rate.window_ns, rate.burst)
        return frame(b"throttle", frame(self.rule.encode(), self._kind.encode(), numbers))

    def needs_answer(self, messages: bool) -> bool:
        return False

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        rate = self.rate
        key = view.counter(self._space, self.by)
        row = state.of(Rows).rows.get(key)
        wanted_ns = max(now_ns, view.not_before_ns)
        place_ns = wanted_ns
        if row is not None:
            place_ns = row.counter.place(rate, max(wanted_ns, now_ns, row.seen_ns))
            late = place_ns > max(wanted_ns, now_ns + self.wait_ns)
            if late or (place_ns > now_ns and row.counter.waiting(rate, now_ns) >= WAITING):
                return self._refuse(place_ns - now_ns)
        data: dict[str, Any] = {
            "at_ns": now_ns,
            "place_ns": place_ns,
            "kind": self._kind,
            "quota": rate.quota,
            "window_ns": rate.window_ns,
            "burst": rate.burst,
        }
        admit = (Change(self.verb, self.rule, key, "admit", data),)
        return Provided(admit, place_ns) if place_ns > now_ns else Pass(admit)

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        if not settled.answer.withdrawn:
            return ()
        if any(cast(int, admitted.data["at_ns"]) > now_ns for admitted in settled.claimed):
            return ()  # the clock was set back since, and the place is not where it was: it stays taken
        return tuple(
            Change(
                self.verb,
                self.rule,
                admitted.key,
                "give-back",
                {"at_ns": now_ns, "place_ns": admitted.data["place_ns"]},
            )
            for admitted in settled.claimed
        )

    def _refuse(self, retry_after_ns: int) -> Refuse:
        rate = self.rate
        limit = f"{rate.quota} in {show_duration(rate.window_ns)}"
        reset_s = seconds_up(retry_after_ns)
        return Refuse(
            "rate-limited",
            f"The limit of {limit} is reached. Nothing was executed; the next call fits in {reset_s} s.",
            limit=limit,
            retry_after_ns=retry_after_ns,
            limits=(Limit(self.rule, rate.quota, seconds_up(rate.window_ns), 0, reset_s),),
            next=(f"Wait {reset_s} s, then repeat the call.",),
        )


def _read_rate(node: Node, per: Node | None = None) -> Rate:
    """`10/min`, or a bare number with `per` beside it."""
    if per is not None:
        if type(node.scalar) is not int or not 0 < node.scalar <= QUOTA:
            node.fail("rate", "`rate` beside `per` is no whole number above 0", "write `rate: 3` and `per: 8s`")
        return Rate(node.scalar, read_duration(per, "per"))
    found = parse_rate(node.scalar)
    if found is None:
        off = "remove it: nothing is on by default" if node.scalar is False else RATE_HELP
        if isinstance(node.scalar, str) and FRACTION.fullmatch(node.scalar):
            off = "write whole numbers, and a longer time: `rate: 1` and `per: 2s`"
        node.fail("rate", f"{shown(node)} is no rate", off)
    return Rate(*found)


def _read_pace(node: Node, burst: Node | None) -> Rate:
    rate = _read_rate(node)
    size = 1 if burst is None else burst.scalar
    if type(size) is not int or not 0 < size <= QUOTA:
        cast(Node, burst).fail(
            "burst", "`burst` is no whole number above 0", "write how many may go at once, such as `3`"
        )
    return msgspec.structs.replace(rate, burst=size)
