"""breaker: an upstream that fails again and again is left alone for a while.

Five calls in a row to one host with one credential that end without an answer, or with 502, 503 or 504, open the
circuit: nothing is sent there for 30 s. Then one call goes first. If it fails as well, the circuit stays open for 60 s,
then 90 s, up to 300 s; any other answer closes it. What the API says to a call, such as a 4xx, is no such failure.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, cast

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.decision import Answer, Change
from rules.guard import Pass, Refuse, Settled, Verdict, View
from rules.guards.probe import PROBE_NS, Pause
from rules.guards.reading import DURATION_SCHEMA, read_count, read_duration, read_map
from rules.state import Due, SetBack, State
from rules.units import SECOND_NS, seconds_up
from rules.yamltree import Node

FAILURES = 5
OPEN_NS = 30 * SECOND_NS
LONGEST = 10
"""Being open grows by `open` each time in a row, up to so many times."""

KEPT_NS = 600 * SECOND_NS
"""Failures farther apart than this are not in a row; and an open circuit is forgotten so long after its pause."""

MOST = 1000
FAILING = frozenset({502, 503, 504})
"""What gateways say of an upstream that does not answer."""


class Circuit(msgspec.Struct):
    """The failures in a row, how often in a row it was opened, and while it is open the pause."""

    seen_ns: int
    failures: int = 0
    opened: int = 0
    pause: Pause | None = None

    def due_ns(self) -> int:
        return max(self.seen_ns, self.pause.until_ns if self.pause is not None else 0) + KEPT_NS


class Circuits(msgspec.Struct):
    """Every circuit that has seen a failure since its last success, by key."""

    verb: ClassVar[str] = "breaker"

    rows: dict[str, Circuit] = {}
    due: Due = msgspec.field(default_factory=Due)

    def live(self, key: str, now_ns: int) -> Circuit | None:
        """The circuit `key` if it still counts at `now_ns`."""
        circuit = self.rows.get(key)
        return None if circuit is None or circuit.due_ns() <= now_ns else circuit

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        circuit = self.rows.get(change.key)
        if change.op in ("failed", "open"):
            if circuit is None or circuit.due_ns() <= data["at_ns"]:
                if circuit is None:
                    self.due.add(data["at_ns"] + KEPT_NS, change.key)
                circuit = self.rows[change.key] = Circuit(data["at_ns"])
            circuit.seen_ns = data["at_ns"]
            circuit.failures += 1
            if change.op == "open":
                circuit.opened += 1
                circuit.pause = Pause(data["until_ns"])
        elif change.op == "closed":
            self.rows.pop(change.key, None)
        elif circuit is not None and circuit.pause is not None:
            if change.op == "probe":
                circuit.pause.send(data["call"], data["until_ns"])
            elif change.op == "lost" and circuit.pause.probe == data["call"]:
                circuit.pause.lose()
        self.due.forget(self.rows, data["at_ns"], Circuit.due_ns)

    def set_back(self, clock: SetBack) -> None:
        for circuit in self.rows.values():
            circuit.seen_ns = clock.moved(circuit.seen_ns)
            if circuit.pause is not None:
                circuit.pause.set_back(clock)
        self.due.set_back(clock)


class Breaker(msgspec.Struct, frozen=True, dict=True):
    """The guard: `failures` in a row open the circuit of a host and a credential, for `open_ns` the first time."""

    verb: ClassVar[str] = "breaker"
    stage: ClassVar[int] = 5
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "Leave an upstream alone that fails again and again. Short for {failures: 5, open: 30s}.",
        "oneOf": [
            {"const": True},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "failures": {
                        "description": "So many failures in a row open the circuit. Default: 5.",
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MOST,
                    },
                    "open": {
                        **DURATION_SCHEMA,
                        "description": "How long it is open the first time; longer each time after that. Default: 30s.",
                    },
                },
            },
        ],
    }

    rule: str
    failures: int = FAILURES
    open_ns: int = OPEN_NS

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Breaker:
        """`true`, or the long form."""
        if node.scalar is True:
            return cls(rule_id)
        if node.kind != "map":
            node.fail(
                "breaker", "`breaker` is neither `true` nor a mapping", "write `breaker: {failures: 5, open: 30s}`"
            )
        entries = read_map(node, "breaker", ("failures", "open"))
        failures = read_count(entries["failures"], "failures", MOST) if "failures" in entries else FAILURES
        return cls(rule_id, failures, read_duration(entries["open"], "open") if "open" in entries else OPEN_NS)

    def needs_body(self, call: Call, writes: bool) -> bool:
        return False

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        return False

    @cached_property
    def _space(self) -> bytes:
        return frame(b"breaker", self.rule.encode())

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        call = view.call
        where = (call.host.encode(), b"%d" % call.port, call.credential.encode())
        key = view.key(self._space, *where)
        circuit = state.of(Circuits).live(key, now_ns)
        data: dict[str, Any] = {"at_ns": now_ns, "call": view.call_id}
        if circuit is None or circuit.pause is None:
            return Pass((Change(self.verb, self.rule, key, "sent", data),))
        left_ns = circuit.pause.left_ns(now_ns)
        if left_ns:
            return _refuse(circuit.failures, left_ns)
        data["until_ns"] = now_ns + PROBE_NS
        return Pass((Change(self.verb, self.rule, key, "probe", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        answer, circuits = settled.answer, state.of(Circuits)
        changes: list[Change] = []
        for begun in settled.claimed:
            circuit = circuits.live(begun.key, now_ns)
            data: dict[str, Any] = {"at_ns": now_ns, "call": settled.call_id}
            op = ""
            if circuit is not None and circuit.pause is not None and circuit.pause.probe != settled.call_id:
                continue  # it was on its way when the circuit opened: only the probe tells how things are now
            if answer.withdrawn or answer.abandoned:
                op = "lost" if begun.op == "probe" else ""
            elif not fails(answer):
                op = "closed" if circuit is not None else ""
            elif begun.op == "probe" or (circuit.failures if circuit is not None else 0) + 1 >= self.failures:
                opened = circuit.opened if circuit is not None else 0
                data["until_ns"] = now_ns + min(opened + 1, LONGEST) * self.open_ns
                op = "open"
            else:
                op = "failed"
            if op:
                changes.append(Change(self.verb, self.rule, begun.key, op, data))
        return tuple(changes)


def fails(answer: Answer) -> bool:
    """Did the upstream fail, and not only refuse the call?"""
    return not answer.complete or answer.status in FAILING


def _refuse(failures: int, wait_ns: int) -> Refuse:
    wait_s = seconds_up(wait_ns)
    return Refuse(
        "circuit-open",
        f"The API failed {failures} times in a row, so nothing is sent to it for {wait_s} s. Nothing was executed.",
        retry_after_ns=wait_ns,
        next=(f"Wait {wait_s} s, then repeat the call; or go on with something that does not need this API.",),
    )
