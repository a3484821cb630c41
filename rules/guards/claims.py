"""Claims: the one-time right to perform one side effect, found by its fingerprint, and what becomes of it.

`STEPS` is the whole theory: the states that a claim can be in, and what takes it from one to the next. A claim is
`claimed` when its call is let out, and then what the answer says about the effect (`outcome_of`): `done`, `free`
because nothing was executed, or `unknown`. Whoever repeats a call whose claim is `unknown` may do the effect twice. So
`unknown` ends in four ways only: a retry whose answer speaks about the first attempt (`end_of`), a person who has
looked (`Claims.resolved`), another act that makes it pointless, or time, where a rule says so or the window is over.

Every step is a `Change` in the ledger. A step that is not in the table changes nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import msgspec

from rules.decision import Answer, Change, OutcomeKind
from rules.state import Due, SetBack
from rules.units import SECOND_NS
from rules.upstream_key import PLACES, SentKey

STEPS: dict[tuple[str, str], str] = {
    ("free", "claim"): "claimed",
    ("claimed", "done"): "done",
    ("claimed", "release"): "free",
    ("claimed", "unknown"): "unknown",
    ("claimed", "end"): "free",
    ("unknown", "retry"): "retrying",
    ("unknown", "done"): "done",
    ("unknown", "release"): "free",
    ("unknown", "claim"): "claimed",
    ("unknown", "end"): "free",
    ("retrying", "done"): "done",
    ("retrying", "release"): "free",
    ("retrying", "unknown"): "unknown",
    ("retrying", "end"): "free",
    ("done", "claim"): "claimed",
    ("done", "end"): "free",
}
"""(state, step) -> state. `free` is no state that is kept: there is no claim.

| step | is made when |
|---|---|
| claim | a call is let out, and no claim stands in its way (any more) |
| done | the answer says that the effect has happened; or a person does |
| release | the answer says that nothing was executed; or a person does |
| unknown | no answer came, or one that does not say; or the proxy died before it came |
| retry | a duplicate of an unknown call is let out |
| end | another write to the same path was let out, or the tool of `until:` succeeded |
"""

ON_ITS_WAY = ("claimed", "retrying")
"""The states of a claim whose call is out. It counts beyond its window: nobody knows yet what it did."""

OUTCOMES: dict[int, OutcomeKind] = {
    101: "done",
    **dict.fromkeys(range(200, 400), "done"),
    **dict.fromkeys(range(400, 500), "not_executed"),
    408: "unknown",
    499: "unknown",
}
"""What a complete answer says about the effect, by its status; all other statuses say that it is unknown.

Client errors say that nothing was executed, but for a timeout (408) and a caller that left (499, by proxies).
"""


def outcome_of(answer: Answer, keyed: bool = False) -> OutcomeKind:
    """What became of a call that was let out. `keyed`: it holds a claim at an API that knows upstream keys.

    | event | outcome |
    |---|---|
    | we held it back, or no byte of the request left | not_executed |
    | no complete answer: timeout, reset, truncated | unknown |
    | 2xx, 3xx | done |
    | 409 of a keyed call: the first with this key may be on its way still | unknown |
    | other 4xx with 429, but not 408 and 499; 503 with Retry-After | not_executed |
    | 408, 499, other 5xx, anything else | unknown |
    """
    if answer.withdrawn or (not answer.sent and answer.status == 0):
        return "not_executed"
    if not answer.complete or (keyed and answer.status == 409):
        return "unknown"
    if answer.status == 503 and any(name == "retry-after" for name, _ in answer.headers):
        return "not_executed"
    return OUTCOMES.get(answer.status, "unknown")


_STEP_OF: dict[OutcomeKind, str] = {"done": "done", "not_executed": "release", "unknown": "unknown"}


def end_of(step: str, kind: OutcomeKind, answer: Answer) -> str:
    """The step at the end of a call that was let out by `step` ("claim" or "retry") and came to `kind`.

    A retry that was refused says nothing about the first attempt. One that was answered 2xx, and was done, does: the
    effect has happened. So does an answer that the API marks as the one to the first attempt, whatever it is.
    """
    if step == "retry" and not answer.replayed and not (kind == "done" and 200 <= answer.status < 300):
        return "unknown"
    return _STEP_OF[kind]


class Claim(msgspec.Struct):
    """One claim, in a state of `STEPS` but `free`. `client_keys`, `path`, `until` are keys of the indexes.

    `call` is the latest that was let out under it, `earlier` are those before it whose outcome is unknown.
    `since_ns`: when it came into this state. `key`: under which it went out, when that is known.
    """

    call: str
    state: str
    until_ns: int
    client_keys: tuple[str, ...]
    path: str
    until: str
    key: SentKey | None
    earlier: list[str] = []
    stored: bool = False
    since_ns: int = 0


class Claims(msgspec.Struct):
    """All claims by key, and where to find them by client key, by path, and by the tool that ends them."""

    verb: ClassVar[str] = "dedupe"

    claims: dict[str, Claim] = {}
    by_client_key: dict[str, str] = {}
    by_path: dict[str, list[str]] = {}
    by_until: dict[str, list[str]] = {}
    due: Due = msgspec.field(default_factory=Due)

    def live(self, key: str, now_ns: int) -> Claim | None:
        """The claim `key` if it still counts at `now_ns`. One whose call is on its way counts always."""
        claim = self.claims.get(key)
        if claim is None or (now_ns >= claim.until_ns and claim.state not in ON_ITS_WAY):
            return None
        return claim

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        held = self.claims.get(change.key)
        state = STEPS.get((held.state if held is not None else "free", change.op))
        if change.op == "claim":
            if state is not None:
                self._drop(change.key)
                self._add(change.key, _made(data))
        elif held is not None and state is not None and held.call == data["of" if change.op == "retry" else "call"]:
            if state == "free":
                self._drop(change.key)
            else:
                held.state = state
                held.stored = data.get("stored", False)
                held.since_ns = data["at_ns"]
                if change.op == "retry":
                    held.earlier.append(held.call)
                    held.call = data["call"]
                elif (
                    data.get("refused") and held.earlier
                ):  # this call did nothing; what is unknown is the one before it
                    held.call = held.earlier.pop()
        self._forget(data["at_ns"])

    def abandoned(self, now_ns: int) -> tuple[Change, ...]:
        """The calls that were on their way when their proxy ended: whether they took effect is unknown."""
        return tuple(
            Change("dedupe", "", key, "unknown", {"at_ns": now_ns, "call": claim.call})
            for key, claim in self.claims.items()
            if claim.state in ON_ITS_WAY
        )

    def resolved(self, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
        """A person has found out what became of `call_id`, a call of unknown claims whose windows are not over."""
        return tuple(
            Change("dedupe", "", key, "done" if executed else "release", {"at_ns": now_ns, "call": claim.call})
            for key, claim in self.claims.items()
            if claim.state == "unknown" and call_id in (claim.call, *claim.earlier) and now_ns < claim.until_ns
        )

    def told(self, change: Change) -> tuple[str, ...]:
        """A step that ends the doubt about a claim ends it for every attempt."""
        claim = self.claims.get(change.key)
        if claim is None or change.op not in ("done", "release") or claim.call != change.data["call"]:
            return ()
        return (*claim.earlier, claim.call) if claim.state == "unknown" else tuple(claim.earlier)

    def set_back(self, clock: SetBack) -> None:
        for claim in self.claims.values():
            claim.until_ns = clock.moved(claim.until_ns)
            claim.since_ns = clock.moved(claim.since_ns)
            if claim.key is not None and claim.key.since_ns > clock.to_ns:
                # Nobody knows how long ago that was, so the API is not relied on to remember it.
                claim.key = msgspec.structs.replace(claim.key, since_ns=0)
        self.due.set_back(clock)

    def _add(self, key: str, claim: Claim) -> None:
        self.claims[key] = claim
        for client_key in claim.client_keys:
            self.by_client_key[client_key] = key
        if claim.path:
            self.by_path.setdefault(claim.path, []).append(key)
        if claim.until:
            self.by_until.setdefault(claim.until, []).append(key)
        self.due.add(claim.until_ns, key)

    def _drop(self, key: str) -> None:
        claim = self.claims.pop(key, None)
        if claim is None:
            return
        for client_key in claim.client_keys:
            if self.by_client_key.get(client_key) == key:
                del self.by_client_key[client_key]
        for index, name in ((self.by_path, claim.path), (self.by_until, claim.until)):
            if name:
                index[name].remove(key)
                if not index[name]:
                    del index[name]

    def _forget(self, now_ns: int) -> None:
        """Drop up to two claims whose window is over: as many as one change can make, and one more."""
        for _ in range(2):
            key = self.due.pop(now_ns)
            claim = None if key is None else self.claims.get(key)
            if key is None or claim is None:
                continue
            if claim.state in ON_ITS_WAY:
                self.due.add(now_ns + 60 * SECOND_NS, key)
            elif claim.until_ns <= now_ns:  # else it is another claim of the same key, with an entry of its own
                self._drop(key)
        if len(self.due.heap) > 2 * len(self.claims) + 64:
            self.due.rebuild([(claim.until_ns, key) for key, claim in self.claims.items()])


def _made(data: dict[str, Any]) -> Claim:
    """The claim that a `claim` step makes. Older ones know no upstream key."""
    key = data.get("upstream_key")
    return Claim(
        data["call"],
        "claimed",
        data["until_ns"],
        tuple(data["client_keys"]),
        data["path"],
        data["until"],
        _sent(key) if key else None,
    )


def _sent(key: dict[str, Any]) -> SentKey:
    """A key as a step of its claim has it: its name stands under its place."""
    place = next(place for place in PLACES if place in key)
    return SentKey(key[place], key["value"], key["since_ns"], place)
