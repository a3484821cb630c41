"""The fingerprint: two calls have the same one exactly when they ask for the same side effect.

It is SHA-256 over a version, who asks (`by`), method, scheme, host, port, path, and what is asked: the fields under
`key:`, or else query, media type and body in canonical form. Headers do not count unless `key:` names them or they say
which operation is asked for: those in `OPERATIONS`, and those by which tools tell calls apart. SDKs draw a fresh
`Idempotency-Key` for every call, and trace ids, dates, user agents and lengths say nothing about the effect; such a
header never counts unasked, since a retry with another value would be sent.
Every part has its length before it, so no two calls share bytes by accident.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import msgspec

from rules.call import Body, Call, Json, Part
from rules.canonical import canonical_body, canonical_json, canonical_pairs, frame, text_bytes
from rules.fields import EACH, Absent, Field, Many, Step, Value

VERSION = b"borderpost-fingerprint-1"
"""Any change of what the bytes mean needs another version: claims in a ledger outlive the program that made them."""

SIGNING_QUERY = frozenset({"x-amz-signature", "x-amz-date", "x-amz-security-token", "x-amz-expires"})
"""Query parameters that differ between two signings of the same call (AWS SigV4 query signing)."""


OPERATIONS = ("soapaction", "x-amz-target")
"""Headers by which APIs with one path for everything tell what is to be done: `DynamoDB_20120810.DeleteItem`."""

_OF_A_TRY = re.compile(
    r".*(?:idempot|request-?id|correlation|trace|baggage|retry|attempt|nonce|timestamp|signature|telemetry|token).*"
    r"|.*(?:session|-span|timeout|deadline|user-agent).*|.*-(?:date|time)|x-request-start|last-event-id|x-goog-api-client"
    r"|(?:x-stainless|amz-sdk|sec|x-b3|cf|x-forwarded|x-datadog|x-instana)-.*|newrelic|b3|date"
    r"|expires|age|via|forwarded|x-real-ip"
    r"|authorization|proxy-authorization|cookie|(?:x-)?api-?key|x-goog-api-key|from|referer|origin"
    r"|host|connection|keep-alive|content-length|content-type|content-encoding|transfer-encoding|te|expect|upgrade"
    r"|accept-encoding"
)


def may_tell(name: str) -> bool:
    """Whether the header `name` may say what is asked for: not who asks, nor which try it is, nor how it is sent."""
    return not _OF_A_TRY.fullmatch(name)


LARGE_BYTES = 16 * 1024
SHORT = 200
REMEMBERED = 1_000
"""The fingerprints of so many calls with bodies larger than `LARGE_BYTES` are remembered, and the bytes of so many
agents, credentials and media types no longer than `SHORT`: a client may send any."""

_REMEMBERED: dict[str, str] = {}

WHO = (Field("agent", "agent"), Field("credential", "credential"))
"""Whose repetition of a call is one, unless a rule says so: the same agent's, with the same credential."""


def value_bytes(value: Value) -> bytes:
    """The canonical bytes of a field's value; absent, single and several values never share them."""
    if isinstance(value, str):
        return b"text:" + text_bytes(value)
    if isinstance(value, Absent):
        return b"absent"
    if isinstance(value, Many):
        kind = b"ambiguous:" if value.ambiguous else b"many:"
        return kind + frame(*[value_bytes(each) for each in value.values])
    return b"json:" + canonical_json(value)


def named_values(values: Sequence[tuple[str, Value]]) -> bytes:
    """The canonical bytes of fields with their values, in this order."""
    return frame(*[part for name, value in values for part in (text_bytes(name), value_bytes(value))])


_named_texts = lru_cache(REMEMBERED)(named_values)
"""The same for texts, which who asks usually is. (Numbers cannot be looked up: 1 and true are equal.)"""


def fingerprint(
    call: Call,
    by: Sequence[tuple[str, Value]],
    key: Sequence[tuple[str, Value]] | None,
    ignore: Sequence[Field] = (),
    telling: Sequence[str] = (),
) -> str:
    """The fingerprint (64 hex digits) of `call`.

    `by`: who asks, as (field, value). `key`: the fields that tell calls apart, or None for query and body without
    `ignore`. With None the body has to be decoded. `telling`: headers that say what is asked for, beside `OPERATIONS`.
    """
    operation = [text_bytes(part) for pair in call.headers if pair[0] in OPERATIONS for part in pair]
    for name in telling:
        operation += [text_bytes(part) for pair in call.headers if pair[0] == name for part in pair]
    short = all(type(value) is str and len(value) <= SHORT for _, value in by)
    who = _named_texts(tuple(by)) if short else named_values(by)
    if key is None and call.body.size_bytes > LARGE_BYTES and call.body.kind == "json" and call.body.sha256:
        return _of_large(call, who, ignore, operation)
    return _of(call, who, b"key:" + named_values(key) if key is not None else _whole(call, ignore), operation)


def _of_large(call: Call, by: bytes, ignore: Sequence[Field], operation: Sequence[bytes]) -> str:
    """The same, remembered: a call that waits is decided again and again, and a large body takes long each time.

    Found by what it is made from, the body by the digest of what was sent.
    """
    ignored = frame(*[text_bytes(field.text) for field in ignore])
    asked = frame(call.body.sha256, text_bytes(call.body.media_type), canonical_pairs(call.query), ignored)
    name = _of(call, by, asked, operation)
    found = _REMEMBERED.get(name)
    if found is None:
        while len(_REMEMBERED) >= REMEMBERED:
            del _REMEMBERED[next(iter(_REMEMBERED))]
        found = _REMEMBERED[name] = _of(call, by, _whole(call, ignore), operation)
    return found


def _of(call: Call, by: bytes, asked: bytes, operation: Sequence[bytes]) -> str:
    where = _where(call.method, call.scheme, call.host, call.port)
    what = frame(frame(*map(text_bytes, call.segments)), asked, *operation)
    return sha256(frame(VERSION, by) + where + what).hexdigest()


@lru_cache(REMEMBERED)
def _where(method: str, scheme: str, host: str, port: int) -> bytes:
    """Framed, what many calls have in common."""
    return frame(method.encode(), scheme.encode(), host.encode(), b"%d" % port)


def _whole(call: Call, ignore: Sequence[Field]) -> bytes:
    """What is asked, when no `key:` says it: query, media type and body, without the parts of them under `ignore`."""
    query = [pair for pair in call.query if pair[0].lower() not in SIGNING_QUERY] if call.query else []
    body = call.body
    for field in ignore:
        if field.place == "query":
            query = [pair for pair in query if pair[0] != field.steps[0]]
        else:
            body = _without(body, field.steps)
    if body.kind == "json":
        body = _without_envelope(body)
    essence = _essence if len(body.media_type) <= SHORT else _essence.__wrapped__
    return b"whole:" + frame(canonical_pairs(query), essence(body.media_type), canonical_body(body))


@lru_cache(REMEMBERED)
def _essence(media_type: str) -> bytes:
    """The media type without its parameters."""
    return text_bytes(media_type.partition(";")[0].strip().lower())


def _without_envelope(body: Body) -> Body:
    """A JSON-RPC request without its id and MCP's `_meta`, which are new on every try."""
    message = body.json
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return body
    kept = {name: value for name, value in message.items() if name != "id"}
    params = kept.get("params")
    if isinstance(params, dict):
        kept["params"] = {name: value for name, value in params.items() if name != "_meta"}
    return msgspec.structs.replace(body, json=kept)


def _without(body: Body, steps: tuple[Step, ...]) -> Body:
    """`body` without what stands behind `steps`."""
    if body.kind == "json":
        return msgspec.structs.replace(body, json=_prune(body.json, steps))
    if body.kind == "form":
        fields = tuple(pair for pair in body.fields if not _named(pair[0], steps))
        return msgspec.structs.replace(body, fields=fields)
    if body.kind == "multipart":
        parts: tuple[Part, ...] = tuple(part for part in body.parts if not _named(part.name, steps))
        return msgspec.structs.replace(body, parts=parts)
    return body


def _prune(value: Json, steps: tuple[Step, ...]) -> Json:
    """A copy of `value` without what stands behind `steps` (one at least); the value itself where nothing does."""
    step, rest = steps[0], steps[1:]
    if step == EACH:
        if not isinstance(value, list):
            return value
        return [_prune(element, rest) for element in value] if rest else []
    if not isinstance(value, dict) or step not in value:
        return value
    if not rest:
        return {name: member for name, member in value.items() if name != step}
    return {name: _prune(member, rest) if name == step else member for name, member in value.items()}


_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


def _named(name: str, steps: tuple[Step, ...]) -> bool:
    """Does the form field `name` (such as `a[b][]`) stand at or below `steps`?"""
    head, bracket, _ = name.partition("[")
    inner = _BRACKETS.findall(name[len(head) :]) if bracket else []
    parts: list[str] = [head, *inner]
    if len(parts) < len(steps):
        return False
    return all(
        (part == "" or part.isdecimal()) if step == EACH else part == step
        for part, step in zip(parts, steps, strict=False)
    )
