"""Upstream keys: the header by which an API itself tells that a request repeats an earlier one, and what stands in it.

The value belongs to a claim, not to what is asked: the same act, meant once more after our window, must not be taken
for a repetition by an API that remembers for longer. So a new claim has a new value, and only a retry of the same claim
carries the first one again. A client that sends a key of its own has chosen the value.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.units import SECOND_NS

RETENTION_NS = 24 * 3600 * SECOND_NS
"""How long an API remembers a key, where the tool does not say: what most of them promise."""

LONGEST_KEY = 255
"""A client's key that is longer than this is sent as it is, and not relied on."""


class UpstreamKey(msgspec.Struct, frozen=True):
    """What a tool says: its API remembers the value of `header` for `retention_ns`."""

    header: str
    retention_ns: int = RETENTION_NS

    def remembers(self, key: SentKey, now_ns: int) -> bool:
        """Can the API be relied on to know `key` still? For nine tenths of its time: no two clocks are alike."""
        same = key.header.lower() == self.header.lower()
        return same and now_ns < key.since_ns + self.retention_ns * 9 // 10


class SentKey(msgspec.Struct, frozen=True):
    """The key under which a claim's first call went out, at `since_ns`."""

    header: str
    value: str
    since_ns: int


def first_key(where: UpstreamKey, call: Call, call_id: str, now_ns: int) -> SentKey | None:
    """The key of a new claim: the client's own, else one made from the call's id.

    None when the client sent something that cannot be sent again for it: several keys, or none that is readable.
    """
    name = where.header.lower()
    sent = [value for header, value in call.headers if header == name]
    if not any(sent):
        return SentKey(where.header, _made_from(call_id), now_ns)
    own = sent[0]
    if len(sent) > 1 or len(own) > LONGEST_KEY or not (own.isascii() and own.isprintable()):
        return None
    return SentKey(where.header, own, now_ns)


def _made_from(call_id: str) -> str:
    """A UUID: no API asks for another form, and some for this one, of version 4 even. The bits are a digest's."""
    digits = sha256(frame(b"borderpost-upstream-key-1", call_id.encode())).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
