"""dedupe: a side effect happens at most once. A call holds a claim, and a duplicate of it is not sent again.

The guard says which calls are the same and what a duplicate gets; what becomes of claims is in `rules.guards.claims`,
what ends them early in `rules.guards.endings`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import msgspec

from rules.call import Call
from rules.canonical import frame, text_bytes
from rules.decision import Change, Plain
from rules.fields import ABSENT, Field, Value
from rules.fingerprint import WHO
from rules.guard import Pass, Provided, Refuse, Replay, Settled, Verdict, View, Wait
from rules.guards.claims import ON_ITS_WAY, Claim, Claims, end_of
from rules.guards.endings import SCOPES, path_key, until_key
from rules.guards.reading import (
    DURATION_SCHEMA,
    FIELD_LIST_SCHEMA,
    Key,
    read_choices,
    read_duration,
    read_fields,
    read_map,
)
from rules.state import State
from rules.suggest import listing, suggest
from rules.units import SECOND_NS
from rules.upstream_key import SentKey, first_key, obstacle, sent_values
from rules.wording import IN_FLIGHT
from rules.yamltree import Node

WINDOW_NS = 24 * 3600 * SECOND_NS
TWIN_WAIT_NS = 10 * SECOND_NS
"""How long a call waits for its twin that is on its way, before it is told that it is a duplicate in flight."""

TWIN_RETRY_NS = 2 * SECOND_NS
"""After what time a twin is told to come again when the first call is still on its way."""

CLIENT_KEY_HEADERS = frozenset(
    {
        "idempotency-key",
        "x-idempotency-key",
        "paypal-request-id",
        "cko-idempotency-key",
        "x-gcs-idempotence-key",
        "x-amz-pay-idempotency-key",
        "x-qonto-idempotency-key",
        "x-payout-idempotency",
    }
)
"""Headers by which clients name a side effect: the same value for another one is refused as `key-reused`."""

PATH_METHODS = frozenset({"PATCH", "PUT", "DELETE"})
"""Writes that say what a resource shall become: another write to its path makes the same words a new act."""

ON_DUPLICATE = ("replay", "reject")
ON_UNKNOWN = ("keyed", "block", "forward")
METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS")


class Dedupe(msgspec.Struct, frozen=True, dict=True):
    """The guard. `key` is None when query and body tell calls apart.

    `on_unknown` is empty where the tool decides; `unknown_after_ns` is 0 where time alone does not end the doubt.
    """

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
                        "enum": list(ON_DUPLICATE),
                    },
                    "on_unknown": {
                        "description": "When nobody can tell whether the first call took effect. keyed: send it again "
                        "under the first key. block: refuse. forward: send it again, even if that does it twice. "
                        "Default: keyed for tools with an `upstream_key`, else block.",
                        "enum": list(ON_UNKNOWN),
                    },
                    "unknown_after": {
                        **DURATION_SCHEMA,
                        "description": "After this time an unknown outcome no longer refuses: the call goes out anew.",
                    },
                },
            },
        ],
    }

    rule: str
    by: tuple[Field, ...] = WHO
    window_ns: int = WINDOW_NS
    methods: frozenset[str] = frozenset()
    key: tuple[Key, ...] | None = None
    ignore: tuple[Field, ...] = ()
    until: str = ""
    on_duplicate: Literal["replay", "reject"] = "replay"
    on_unknown: Literal["", "keyed", "block", "forward"] = ""
    unknown_after_ns: int = 0

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
            ("window", "methods", "key", "ignore", "by", "until", "on_duplicate", "on_unknown", "unknown_after"),
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
            given["on_duplicate"] = _read_choice(entries["on_duplicate"], "on_duplicate", ON_DUPLICATE)
        if "on_unknown" in entries:
            given["on_unknown"] = _read_choice(entries["on_unknown"], "on_unknown", ON_UNKNOWN)
        if "unknown_after" in entries:
            given["unknown_after_ns"] = read_duration(entries["unknown_after"], "unknown_after")
        return cls(rule_id, **given)

    def needs_body(self, call: Call, writes: bool) -> bool:
        if not self.claims(call.method, writes):
            return False
        named = [field for choice in self.key or () for field in choice]
        # a named field that turns out to be absent makes the whole body count; these are never absent
        whole = self.key is None or any(field.place not in ("path", "host", "method") for field in named)
        return whole or any(field.needs_body for field in self.by)

    def claims(self, method: str, writes: bool) -> bool:
        return method in self.methods or (method == "POST" and writes)

    def needs_answer(self, messages: bool) -> bool:
        return False

    @cached_property
    def _space(self) -> bytes:
        return frame(b"dedupe", self.rule.encode())

    @cached_property
    def _client_keys(self) -> bytes:
        return frame(b"client-key", self.rule.encode())

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        call = view.call
        if not self.claims(call.method, view.writes):
            return Pass()
        where = view.upstream_key
        identity = view.fingerprint(self.by, self._key_values(view), self.ignore)
        view.note(f"fingerprint.{self.rule}", identity)
        key = view.key(self._space, identity.encode())
        claims = state.of(Claims)
        view.own.append(key)
        client_keys: list[str] = []
        names = [(f"header.{name}", value) for name, value in call.headers if name in CLIENT_KEY_HEADERS]
        if where is not None and where.place != "header":
            names += [(where.field.text, value) for value in sent_values(where, call) if isinstance(value, str)]
        for name, value in names:
            if value:
                who = [text.encode() for text in (call.agent, call.credential, call.host, name.removeprefix("header."))]
                client_key = view.key(self._client_keys, *who, text_bytes(value))
                client_keys.append(client_key)
                held = claims.by_client_key.get(client_key)
                if held is not None and held != key and claims.live(held, now_ns) is not None:
                    return self._key_reused(name)
        claim = claims.live(key, now_ns)
        if claim is not None:
            verdict = self._duplicate(claim, key, view, now_ns)
            if verdict is not None:
                return verdict
        data: dict[str, Any] = {
            "at_ns": now_ns,
            "call": view.call_id,
            "until_ns": now_ns + self.window_ns,
            "client_keys": client_keys,
            "path": path_key(call) if call.method in PATH_METHODS else "",
            "until": until_key(self.until, self._scope(view)) if self.until else "",
        }
        if where is None:
            return Pass((Change(self.verb, self.rule, key, "claim", data),))
        sent = view.retried or first_key(where, call, view.call_id, now_ns)
        if sent is None:
            return Pass((Change(self.verb, self.rule, key, "claim", data),))
        why_not = obstacle(sent, call)
        if why_not:
            return self._cannot_carry(sent, why_not)
        data["upstream_key"] = _recorded(sent)
        return Provided((Change(self.verb, self.rule, key, "claim", data),), send=(sent.setting,))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        changes: list[Change] = []
        for begun in settled.claimed:
            step = end_of(begun.op, settled.kind, settled.answer)
            data: dict[str, Any] = {"at_ns": now_ns, "call": settled.call_id}
            if step == "done":
                data["stored"] = settled.answer.stored
            elif step == "unknown" and settled.kind == "not_executed":
                data["refused"] = True
            changes.append(Change(self.verb, self.rule, begun.key, step, data))
        return tuple(changes)

    def _scope(self, view: View) -> list[tuple[str, Value]]:
        """Whose success of the `until:` tool ends the claim."""
        return [(field.text, view.read(field)) for field in self.by if field.text in SCOPES]

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

    def _duplicate(self, claim: Claim, key: str, view: View, now_ns: int) -> Verdict | None:
        """What a duplicate of a call with a live claim gets; None when the claim no longer stands in its way."""
        if claim.state in ON_ITS_WAY:
            return Wait(key, TWIN_WAIT_NS, _in_flight(claim))
        if claim.state == "unknown":
            return self._unknown(claim, key, view, now_ns)
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

    def _unknown(self, claim: Claim, key: str, view: View, now_ns: int) -> Verdict | None:
        """A duplicate of a call whose outcome is unknown: a retry where that is safe, or the rule takes the risk."""
        sent, where = claim.key, view.upstream_key
        known = sent is not None and where is not None and where.remembers(sent, now_ns)
        agreed = view.retried is None or sent is None or view.retried == sent
        if agreed and (self.on_unknown == "forward" or (known and self.on_unknown != "block")):
            data: dict[str, Plain] = {
                "at_ns": now_ns,
                "call": view.call_id,
                "of": claim.call,
                "until_ns": claim.until_ns,
            }
            change = Change(self.verb, self.rule, key, "retry", data)
            if sent is None:
                return Provided((change,), retry_of=claim.call)
            why_not = obstacle(sent, view.call)
            if why_not:
                return self._cannot_carry(sent, why_not)
            data["upstream_key"] = _recorded(sent)
            return Provided((change,), send=(sent.setting,), retry_of=claim.call, retried=sent)
        if self.unknown_after_ns and now_ns >= claim.since_ns + self.unknown_after_ns:
            return None
        return Refuse(
            "outcome-unknown",
            "The same call was sent before, and nobody can tell whether it took effect. It was not sent again.",
            executed="unknown",
            replay_of=claim.call,
            next=("Read back whether the first attempt took effect.", "If you cannot tell, ask a person."),
        )

    def _key_reused(self, field: str) -> Refuse:
        name = field.removeprefix("header.")
        return Refuse(
            "key-reused",
            f"The value of `{name}` was already used for another call. Nothing was executed.",
            field=field,
            next=(f"Use a new `{name}` for a new call, or repeat the first one unchanged.",),
        )

    def _cannot_carry(self, key: SentKey, why_not: str) -> Refuse:
        """Without its key the call could not be tried again, should its outcome be unknown."""
        return Refuse(
            "parameters-invalid",
            f"The API tells repetitions by `{key.field}`, which cannot be put into this call: {why_not}. "
            "Nothing was executed.",
            field=key.field.text,
            next=("Send the call as a plain JSON object or form, or with a key of its own there.",),
        )


def _in_flight(claim: Claim) -> Refuse:
    return Refuse(
        "duplicate-in-flight",
        IN_FLIGHT,
        executed="unknown",
        replay_of=claim.call,
        retry_after_ns=TWIN_RETRY_NS,
        next=("Wait a moment, then repeat the call unchanged: it gets the answer to the first one.",),
    )


def _recorded(key: SentKey) -> Plain:
    """`key` as its step of the claim is written. It is no secret: it names an act, and grants nothing."""
    return {key.place: key.name, "value": key.value, "since_ns": key.since_ns}


def _read_choice(node: Node, what: str, words: tuple[str, ...]) -> str:
    if node.scalar not in words:
        node.fail(
            "choice", f"`{what}` has to be {listing(words)}", suggest(str(node.scalar), words) or "write one of them"
        )
    return cast(str, node.scalar)


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
