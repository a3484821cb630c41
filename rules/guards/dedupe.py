"""dedupe: a side effect happens at most once. A claim is the one-time right to perform it, found by its fingerprint.

A claim is `claimed` when its call is let out. The end of the call makes it `done` (duplicates get the stored answer),
gone (nothing was executed, duplicates are forwarded) or `unknown` (duplicates are refused: nobody can tell whether it
happened). It ends with its window, exclusively; a claim whose call is still on its way never does. What an answer says
about the effect is the table in `outcome_of`.

For PATCH, PUT and DELETE a claim also ends when another write to the same path goes out: open, closed, open is three
acts. With `until:` it ends when a call that this tool names succeeds. `Endings`, below, watches for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, ClassVar, Literal, cast

import msgspec

from rules.call import Call
from rules.canonical import frame, text_bytes
from rules.decision import Answer, Change, OutcomeKind
from rules.fields import ABSENT, Field, Value
from rules.fingerprint import fingerprint, named_values
from rules.guard import Pass, Refuse, Replay, Settled, Verdict, View, Wait
from rules.guards.reading import (
    DURATION_SCHEMA,
    FIELD_LIST_SCHEMA,
    Key,
    read_choices,
    read_duration,
    read_fields,
    read_map,
)
from rules.state import Due, State
from rules.suggest import listing, suggest
from rules.units import SECOND_NS
from rules.yamltree import Node

WINDOW_NS = 24 * 3600 * SECOND_NS
TWIN_RETRY_NS = 2 * SECOND_NS
"""What a twin is told when the first call is still on its way."""

CLIENT_KEY_HEADERS = (
    "idempotency-key",
    "x-idempotency-key",
    "paypal-request-id",
    "cko-idempotency-key",
    "x-gcs-idempotence-key",
    "x-amz-pay-idempotency-key",
    "x-qonto-idempotency-key",
    "x-payout-idempotency",
)
"""Headers by which clients name a side effect: the same value for another one is refused as `key-reused`."""

PATH_METHODS = frozenset({"PATCH", "PUT", "DELETE"})
"""Writes that say what a resource shall become: another write to its path makes the same words a new act."""

METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS")

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


class Dedupe(msgspec.Struct, frozen=True):
    """The guard. `key` is None when query and body tell calls apart."""

    verb: ClassVar[str] = "dedupe"
    stage: ClassVar[int] = 6
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "A side effect happens at most once in this time, such as 24h. Short for {window: 24h}.",
        "oneOf": [
            DURATION_SCHEMA,
            {"const": True},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "window": {**DURATION_SCHEMA, "description": "How long a repetition is one. Default: 24h."},
                    "methods": {
                        "description": "Methods that are covered, besides the tool's writes by POST.",
                        "type": "array",
                        "items": {"enum": list(METHODS)},
                        "minItems": 1,
                        "uniqueItems": True,
                    },
                    "key": {
                        **FIELD_LIST_SCHEMA,
                        "description": "What tells calls apart, instead of query and body. `a|b`: the first there is.",
                    },
                    "ignore": {**FIELD_LIST_SCHEMA, "description": "Fields of query and body that tell nothing apart."},
                    "by": {
                        **FIELD_LIST_SCHEMA,
                        "description": "Whose repetition counts. Default: the same agent with the same credential.",
                    },
                    "until": {"type": "string", "description": "The tool whose success ends the claim early."},
                    "on_duplicate": {
                        "description": "replay: give the first answer again. reject: refuse. Default: replay.",
                        "enum": ["replay", "reject"],
                    },
                },
            },
        ],
    }

    rule: str
    by: tuple[Field, ...] = (Field("agent", "agent"), Field("credential", "credential"))
    window_ns: int = WINDOW_NS
    methods: frozenset[str] = frozenset()
    key: tuple[Key, ...] | None = None
    ignore: tuple[Field, ...] = ()
    until: str = ""
    on_duplicate: Literal["replay", "reject"] = "replay"

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Dedupe:
        """`24h`, `true` (24 h), or the long form."""
        if node.scalar is True:
            return cls(rule_id)
        if node.kind != "map":
            return cls(rule_id, window_ns=read_duration(node, "dedupe"))
        entries = read_map(
            node,
            "dedupe",
            ("window", "methods", "key", "ignore", "by", "until", "on_duplicate"),
            {
                "on_unknown": "leave it out: a duplicate of an unknown outcome is refused until the window ends",
                "unknown_after": "leave it out: a duplicate of an unknown outcome is refused until the window ends",
            },
        )
        given: dict[str, Any] = {}
        if "window" in entries:
            given["window_ns"] = read_duration(entries["window"], "window")
        if "methods" in entries:
            given["methods"] = _read_methods(entries["methods"])
        if "key" in entries:
            given["key"] = read_choices(entries["key"], "key")
        if "ignore" in entries:
            given["ignore"] = _read_ignore(entries["ignore"])
        if "by" in entries:
            given["by"] = read_fields(entries["by"], "by")
        if "until" in entries:
            until = entries["until"]
            if not isinstance(until.scalar, str) or not until.scalar or "*" in until.scalar:
                until.fail("until", "`until` names no tool", "write the name of one tool, whose success ends the claim")
            given["until"] = until.scalar
        if "on_duplicate" in entries:
            said = entries["on_duplicate"]
            if said.scalar not in ("replay", "reject"):
                mend = suggest(str(said.scalar), ("replay", "reject")) or "write `replay` or `reject`"
                said.fail("choice", "`on_duplicate` is neither `replay` nor `reject`", mend)
            given["on_duplicate"] = said.scalar
        return cls(rule_id, **given)

    def needs_body(self, method: str, writes: bool) -> bool:
        if not self.claims(method, writes):
            return False
        named = [field for choice in self.key or () for field in choice]
        # a named field that turns out to be absent makes the whole body count; these are never absent
        whole = self.key is None or any(field.place not in ("path", "host", "method") for field in named)
        return whole or any(field.needs_body for field in self.by)

    def claims(self, method: str, writes: bool) -> bool:
        return method in self.methods or (method == "POST" and writes)

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        call = view.call
        if not self.claims(call.method, view.writes):
            return Pass()
        by = [(field.text, view.read(field)) for field in self.by]
        identity = fingerprint(call, by, self._key_values(view), self.ignore)
        view.note(f"fingerprint.{self.rule}", identity)
        key = view.key(b"dedupe", self.rule.encode(), identity.encode())
        claims = state.of(Claims)
        view.own.append(key)
        client_keys: list[str] = []
        for name, value in call.headers:
            if name in CLIENT_KEY_HEADERS and value:
                who = [text.encode() for text in (self.rule, call.agent, call.credential, call.host, name)]
                client_key = view.key(b"client-key", *who, text_bytes(value))
                client_keys.append(client_key)
                held = claims.by_client_key.get(client_key)
                if held is not None and held != key and claims.live(held, now_ns) is not None:
                    return self._key_reused(name)
        claim = claims.live(key, now_ns)
        if claim is not None:
            return self._duplicate(claim)
        data: dict[str, Any] = {
            "at_ns": now_ns,
            "call": view.call_id,
            "until_ns": now_ns + self.window_ns,
            "client_keys": client_keys,
            "path": path_key(call) if call.method in PATH_METHODS else "",
            "until": until_key(self.until, [each for each in by if each[0] in SCOPES]) if self.until else "",
        }
        return Pass((Change(self.verb, self.rule, key, "claim", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        op = {"done": "done", "not_executed": "release", "unknown": "unknown"}[settled.kind]
        data: dict[str, Any] = {"at_ns": now_ns, "call": settled.call_id}
        if op == "done":
            data["stored"] = settled.answer.stored
        return tuple(Change(self.verb, self.rule, claim.key, op, data) for claim in settled.claimed)

    def _key_values(self, view: View) -> list[tuple[str, Value]] | None:
        """The fields under `key:` with their values; None when there is no key, or one of them is absent."""
        if self.key is None:
            return None
        values: list[tuple[str, Value]] = []
        for choice in self.key:
            for field in choice:
                value = view.read(field)
                if value is not ABSENT:
                    values.append((field.text, value))
                    break
            else:
                return None
        return values

    def _duplicate(self, claim: Claim) -> Verdict:
        """What a duplicate of a call with a live claim gets."""
        if claim.state == "claimed":
            return Wait(claim.call)
        if claim.state == "unknown":
            return Refuse(
                "outcome-unknown",
                "The same call was sent before, and nobody can tell whether it took effect. It was not sent again.",
                executed="unknown",
                replay_of=claim.call,
                next=("Read back whether the first attempt took effect.", "If you cannot tell, ask a person."),
            )
        if self.on_duplicate == "reject":
            return Refuse(
                "duplicate",
                "The same call was already executed, so it was not sent again.",
                executed="yes",
                replay_of=claim.call,
                next=("Go on as if this call had succeeded.", "If you mean another act, change what it says."),
            )
        if not claim.stored:
            return Refuse(
                "duplicate-not-replayable",
                "The same call was already executed; its answer was not kept, and the call was not sent again.",
                executed="yes",
                replay_of=claim.call,
                next=("Go on as if this call had succeeded; read the result back if you need it.",),
            )
        return Replay(claim.call)

    def _key_reused(self, header: str) -> Refuse:
        return Refuse(
            "key-reused",
            f"The value of `{header}` was already used for another call. Nothing was executed.",
            field=f"header.{header}",
            next=(f"Use a new `{header}` for a new call, or repeat the first one unchanged.",),
        )


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


def abandoned(claims: Claims, now_ns: int) -> tuple[Change, ...]:
    """The calls that were on their way when their proxy ended: whether they took effect is unknown."""
    return tuple(
        Change("dedupe", "", key, "unknown", {"at_ns": now_ns, "call": claim.call})
        for key, claim in claims.claims.items()
        if claim.state == "claimed"
    )


def _read_methods(node: Node) -> frozenset[str]:
    found: set[str] = set()
    for item in node.items or (node,):
        name = item.scalar
        if not isinstance(name, str) or name not in METHODS:
            mend = suggest(str(name).upper(), METHODS) or f"write some of {listing(METHODS)}"
            item.fail("method", f"`{name}` in `methods` is no method", mend)
        found.add(name)
    return frozenset(found)


def _read_ignore(node: Node) -> tuple[Field, ...]:
    """The fields that do not count. Only query and body could count without being named."""
    fields = read_fields(node, "ignore")
    for field in fields:
        if field.place not in ("query", "body") or not field.steps:
            node.fail("field", f"`{field}` cannot be ignored", "name parts of the query or the body")
    return fields
