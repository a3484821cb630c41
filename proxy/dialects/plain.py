"""JSON: RFC 9457 problem details, with mirrors of what they say where most SDKs look for it."""

from __future__ import annotations

import msgspec

from proxy.reply import Reply, Told


def write(told: Told) -> Reply:
    """The refusal as it is."""
    return body(told, told.status, "application/problem+json", msgspec.json.encode(told.problem) + b"\n")


def body(told: Told, status: int, media_type: str, content: bytes) -> Reply:
    """A reply with `content`; a HEAD has none. What is told by a 200 is not told by its reason phrase."""
    headers = [("content-type", media_type), *told.headers]
    if told.method == "HEAD":
        content = b""
    else:
        headers.append(("content-length", str(len(content))))
    reason = "OK" if told.reason and status == 200 else told.reason
    return Reply(status, reason, tuple(headers), content)
