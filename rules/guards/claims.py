"""Claims: the one-time right to perform one side effect, found by its fingerprint, and what becomes of it.

A claim is `claimed` when its call is let out. The end of the call makes it `done` (duplicates get the stored answer),
gone (nothing was executed, duplicates are forwarded) or `unknown` (duplicates are refused: nobody can tell whether it
happened). It ends with its window, exclusively; a claim whose call is still on its way never does. What an answer says
about the effect is the table in `outcome_of`.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import msgspec

from rules.decision import Answer, Change, OutcomeKind
from rules.state import Due
from rules.units import SECOND_NS

OUTCOMES: dict[int, OutcomeKind] = {
    **dict.fromkeys(range(200, 400), "done"),
    **dict.fromkeys(range(400, 500), "not_executed"),
    408: "unknown",
    499: "unknown",
}
"""What a complete answer says about the effect, by its status; all other statuses say that it is unknown.

Client errors say that nothing was executed, but for a timeout (408) and a caller that left (499, by proxies).
"""


def outcome_of(answer: Answer) -> OutcomeKind:
    """What became of a call that was let out.

    | event | outcome |
    |---|---|
    | we held it back, or no byte of the request left | not_executed |
    | no complete answer: timeout, reset, truncated | unknown |
    | 2xx, 3xx | done |
    | 4xx with 429, but not 408 and 499; 503 with Retry-After | not_executed |
    | 408, 499, other 5xx, anything else | unknown |
    """
    if answer.withdrawn or (not answer.sent and answer.status == 0):
        return "not_executed"
    if not answer.complete:
        return "unknown"
    if answer.status == 503 and any(name == "retry-after" for name, _ in answer.headers):
        return "not_executed"
    return OUTCOMES.get(answer.status, "unknown")


class Claim(msgspec.Struct):
    """One claim. `state` is "claimed", "done" or "unknown". `client_keys`, `path`, `until` are keys of the indexes."""

    call: str
    state: str
    until_ns: int
    client_keys: tuple[str, ...]
    path: str
    until: str
    stored: bool = False


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
        if claim is None or (claim.state != "claimed" and now_ns >= claim.until_ns):
            return None
        return claim

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        if change.op == "claim":
            self._drop(change.key)
            claim = Claim(
                data["call"], "claimed", data["until_ns"], tuple(data["client_keys"]), data["path"], data["until"]
            )
            self.claims[change.key] = claim
            for client_key in claim.client_keys:
                self.by_client_key[client_key] = change.key
            if claim.path:
                self.by_path.setdefault(claim.path, []).append(change.key)
            if claim.until:
                self.by_until.setdefault(claim.until, []).append(change.key)
            self.due.add(claim.until_ns, change.key)
        else:
            held = self.claims.get(change.key)
            if held is not None and held.call == data["call"]:
                if change.op in ("release", "end"):
                    self._drop(change.key)
                else:
                    held.state = change.op
                    held.stored = data.get("stored", False)
        self._forget(data["at_ns"])

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
            if claim.state == "claimed":
                self.due.add(now_ns + 60 * SECOND_NS, key)
            elif claim.until_ns <= now_ns:  # else it is another claim of the same key, with an entry of its own
                self._drop(key)
        if len(self.due.heap) > 2 * len(self.claims) + 64:
            self.due.rebuild([(claim.until_ns, key) for key, claim in self.claims.items()])


def abandoned(claims: Claims, now_ns: int) -> tuple[Change, ...]:
    """The calls that were on their way when their proxy ended: whether they took effect is unknown."""
    return tuple(
        Change("dedupe", "", key, "unknown", {"at_ns": now_ns, "call": claim.call})
        for key, claim in claims.claims.items()
        if claim.state == "claimed"
    )
