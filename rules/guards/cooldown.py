"""cooldown: when an upstream asks for a pause, everybody who shares the host and the credential makes one.

No rule names this guard. An answer 429, 503 with Retry-After, or 403 with `x-ratelimit-remaining: 0` starts a pause:
until Retry-After, else `x-ratelimit-reset`, else for 60 s; never longer than an hour. After it one call goes first;
the others follow when it was answered without another such request, or after 10 s.
"""

from __future__ import annotations

import re
from calendar import timegm
from hashlib import sha256
from typing import Any, ClassVar, cast

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.decision import Answer, Change
from rules.guard import Pass, Refuse, Settled, Verdict, View
from rules.guards.probe import PROBE_NS, Pause
from rules.state import Due, SetBack, State
from rules.units import SECOND_NS, seconds_up

PAUSE_NS = 60 * SECOND_NS
LONGEST_NS = 3600 * SECOND_NS
CAUTION_NS = 60 * SECOND_NS
"""So long after a pause the first call still goes alone."""


class Cooldowns(msgspec.Struct):
    """All pauses, by host and credential."""

    verb: ClassVar[str] = "cooldown"

    pauses: dict[str, Pause] = {}
    due: Due = msgspec.field(default_factory=Due)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        pause = self.pauses.get(change.key)
        if change.op == "pause":
            until_ns = max(data["until_ns"], pause.until_ns if pause else 0)
            self.pauses[change.key] = Pause(until_ns)
            self.due.add(until_ns + CAUTION_NS, change.key)
        elif pause is not None and change.op == "probe":
            pause.send(data["call"], data["until_ns"])
        elif pause is not None and pause.probe == data["call"]:
            if change.op == "clear":
                del self.pauses[change.key]
            else:
                pause.lose()
        self._forget(data["at_ns"])

    def set_back(self, clock: SetBack) -> None:
        for pause in self.pauses.values():
            pause.set_back(clock)
        self.due.rebuild([(pause.until_ns + CAUTION_NS, key) for key, pause in self.pauses.items()])

    def _forget(self, now_ns: int) -> None:
        for _ in range(2):
            key = self.due.pop(now_ns)
            pause = None if key is None else self.pauses.get(key)
            if key is not None and pause is not None and pause.until_ns + CAUTION_NS <= now_ns:
                del self.pauses[key]


class Cooldown:
    """The guard."""

    verb: ClassVar[str] = "cooldown"
    stage: ClassVar[int] = 5

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        pauses = state.of(Cooldowns).pauses
        if not pauses:
            return Pass()
        key = _key(view.call)
        pause = pauses.get(key)
        if pause is None or now_ns >= pause.until_ns + CAUTION_NS:
            return Pass()
        left_ns = pause.left_ns(now_ns)
        if left_ns:
            return _refuse(left_ns)
        until_ns = now_ns + PROBE_NS
        data: dict[str, Any] = {"at_ns": now_ns, "call": view.call_id, "until_ns": until_ns}
        return Pass((Change(self.verb, "", key, "probe", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        key = _key(settled.call)
        until_ns = pause_until(settled.answer, now_ns)
        if until_ns > now_ns:
            return (Change(self.verb, "", key, "pause", {"at_ns": now_ns, "until_ns": until_ns}),)
        pause = state.of(Cooldowns).pauses.get(key)
        if pause is None or pause.probe != settled.call_id:
            return ()
        op = "clear" if settled.answer.status else "no-answer"
        return (Change(self.verb, "", key, op, {"at_ns": now_ns, "call": settled.call_id}),)


def _key(call: Call) -> str:
    where = (call.host.encode(), b"%d" % call.port, call.credential.encode())
    return sha256(frame(b"cooldown", *where)).hexdigest()[:32]


def _refuse(wait_ns: int) -> Refuse:
    wait_s = seconds_up(wait_ns)
    return Refuse(
        "upstream-cooldown",
        f"The API asked to slow down, so nothing is sent to it for {wait_s} s. Nothing was executed.",
        retry_after_ns=wait_ns,
        next=(f"Wait {wait_s} s, then repeat the call.",),
    )


def pause_until(answer: Answer, now_ns: int) -> int:
    """Until when `answer` asks to pause; 0 when it does not ask."""
    said = {name: value.strip() for name, value in reversed(answer.headers)}
    exhausted = said.get("x-ratelimit-remaining") == "0"
    if not (
        answer.status == 429 or (answer.status == 503 and "retry-after" in said) or (answer.status == 403 and exhausted)
    ):
        return 0
    until_ns = _retry_after(said.get("retry-after", ""), now_ns)
    if until_ns is None and exhausted:
        until_ns = _reset(said.get("x-ratelimit-reset", ""), now_ns)
    return min(now_ns + PAUSE_NS if until_ns is None else until_ns, now_ns + LONGEST_NS)


_SECONDS = re.compile(r"[0-9]{1,12}", re.ASCII)
_DATE = re.compile(r"[A-Z][a-z]{2}, (\d{2}) ([A-Z][a-z]{2}) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _retry_after(value: str, now_ns: int) -> int | None:
    """RFC 9110, 10.2.3: seconds from now, or a date in its preferred form. None for anything else."""
    if _SECONDS.fullmatch(value):
        return now_ns + int(value) * SECOND_NS
    date = _DATE.fullmatch(value)
    if not date or date[2] not in _MONTHS:
        return None
    month = _MONTHS.index(date[2]) + 1
    return timegm((int(date[3]), month, int(date[1]), int(date[4]), int(date[5]), int(date[6]))) * SECOND_NS


def _reset(value: str, now_ns: int) -> int | None:
    """Seconds since 1970 (GitHub and most others), or seconds from now when that would be long past."""
    if not _SECONDS.fullmatch(value):
        return None
    return int(value) * SECOND_NS + (now_ns if int(value) < 1_000_000_000 else 0)
