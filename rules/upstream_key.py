"""Upstream keys: the field by which an API itself tells that a request repeats an earlier one, and what stands in it.

The value belongs to a claim, not to what is asked: the same act, meant once more after our window, must not be taken
for a repetition by an API that remembers for longer. So a new claim has a new value, and only a retry of the same claim
carries the first one again. A client that sends a key of its own has chosen the value.

The field is a header, a parameter of the query, or a member of a JSON object or form. It tells nothing apart: whatever
a client puts into it, the call asks for the same.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from typing import Literal

import msgspec

from rules.call import Call, Json
from rules.canonical import frame
from rules.decision import Setting
from rules.fields import Field
from rules.pattern import MESSAGE
from rules.units import SECOND_NS

type Place = Literal["header", "query", "body"]
PLACES: tuple[Place, ...] = ("header", "query", "body")

RETENTION_NS = 24 * 3600 * SECOND_NS
"""How long an API remembers a key, where the tool does not say: what most of them promise."""

LONGEST_KEY = 255
"""A client's key that is longer than this is sent as it is, and not relied on."""

OF_THE_BODY = ("content-md5", "digest", "content-digest", "repr-digest", "signature", "x-amz-content-sha256")
"""Headers that say what the body is: with another one, they would not be true any more."""


class UpstreamKey(msgspec.Struct, frozen=True, dict=True):
    """What a tool says: its API remembers the value of the field `name` in `place` for `retention_ns`."""

    name: str
    retention_ns: int = RETENTION_NS
    place: Place = "header"

    def remembers(self, key: SentKey, now_ns: int) -> bool:
        """Can the API be relied on to know `key` still? For nine tenths of its time: no two clocks are alike."""
        return self.field == key.field and now_ns < key.since_ns + self.retention_ns * 9 // 10

    @cached_property
    def field(self) -> Field:
        """The field that holds it. The case of a header's name makes no difference."""
        name = self.name.lower() if self.place == "header" else self.name
        return Field(f"{self.place}.{name}", self.place, (name,))


class SentKey(msgspec.Struct, frozen=True):
    """The key under which a claim's first call went out, at `since_ns`."""

    name: str
    value: str
    since_ns: int
    place: Place = "header"

    @property
    def setting(self) -> Setting:
        """As it is set on the request."""
        return self.place, self.name, self.value

    @property
    def field(self) -> Field:
        """The field that holds it."""
        return UpstreamKey(self.name, place=self.place).field


def first_key(where: UpstreamKey, call: Call, call_id: str, now_ns: int) -> SentKey | None:
    """The key of a new claim: the client's own, else one made from the call's id.

    None when the client sent something that cannot be sent again for it: several keys, or none that is readable.
    """
    sent = sent_values(where, call)
    if all(value is None or value == "" for value in sent):
        return SentKey(where.name, _made_from(call_id), now_ns, where.place)
    own = sent[0]
    if len(sent) > 1 or not isinstance(own, str) or len(own) > LONGEST_KEY or not (own.isascii() and own.isprintable()):
        return None
    return SentKey(where.name, own, now_ns, where.place)


def sent_values(where: UpstreamKey | SentKey, call: Call) -> list[Json]:
    """What the client itself put into the field."""
    name = where.name
    if where.place == "header":
        return [value for header, value in call.headers if header == name.lower()]
    if where.place == "query":
        return [value for key, value in call.query if key == name]
    if isinstance(call.body.json, dict):
        return [call.body.json[name]] if name in call.body.json else []
    return [value for key, value in call.body.fields if key == name]


def obstacle(key: SentKey, call: Call) -> str:
    """Why `key` cannot be put into `call`, such as `its body is no JSON object or form`; empty when it can."""
    if call.method == MESSAGE:
        return "it is a message in a WebSocket"
    if key.place == "header" or sent_values(key, call) == [key.value]:
        return ""
    if (call.header("authorization") or "").startswith("AWS4-"):
        return "it is signed as a whole"
    if key.place == "query":
        return ""
    body = call.body
    if not (body.kind == "form" or (body.kind == "json" and isinstance(body.json, dict))):
        return "its body is no JSON object and no form"
    if (call.header("content-encoding") or "identity").strip().lower() != "identity":
        return "its body is compressed"
    says = next((name for name in OF_THE_BODY if call.header(name) is not None), "")
    return f"its header `{says}` says what the body is" if says else ""


def _made_from(call_id: str) -> str:
    """A UUID: no API asks for another form, and some for this one, of version 4 even. The bits are a digest's."""
    digits = sha256(frame(b"borderpost-upstream-key-1", call_id.encode())).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
