"""The body of an answer, decoded for the rules that read it: as strictly as that of a request, and never unbounded."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.wire.body import decode
from rules.call import UNREAD_BODY, Body

DECODED_CAP_BYTES = 1024 * 1024
"""What an answer may decode to; the event loop waits for it."""


def read_answer_body(headers: Iterable[tuple[str, str]], raw: bytes | None) -> Body:
    """The body that `raw` is; of kind `unread` where it was not kept. `headers`: lower-case names and values."""
    if raw is None:
        return UNREAD_BODY
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name, value)
    return decode(raw, first.get("content-type"), first.get("content-encoding"), DECODED_CAP_BYTES)
