"""Notion's API: https://developers.notion.com/reference/status-codes. They show messages of codes they know only."""

from __future__ import annotations

import msgspec

from proxy.dialects.plain import body
from proxy.reply import Reply, Told
from rules.call import Call

_CODES = {400: "validation_error", 409: "conflict_error", 413: "validation_error", 422: "validation_error"}
_SOON = {409: "conflict_error", 429: "rate_limited"}
"""Of what may be sent again by itself."""


def spoken_in(call: Call) -> bool:
    """Its host."""
    return call.host == "api.notion.com"


def write(told: Told) -> Reply:
    """The problem, marked as Notion marks errors. Our own code is at the end of `type`."""
    codes, otherwise = (_CODES, "restricted_resource") if told.final else (_SOON, "service_unavailable")
    said = {"object": "error", **told.problem, "code": codes.get(told.status, otherwise)}
    return body(told, told.status, "application/json", msgspec.json.encode(said) + b"\n")
