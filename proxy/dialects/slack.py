"""Slack's Web API: 200 with `ok: false`, https://docs.slack.dev/apis/web-api/#responses. Its Node.js SDK repeats a 403.

A pause is told by 429 with Retry-After, as Slack does.
"""

from __future__ import annotations

import msgspec

from proxy.dialects.plain import body
from proxy.reply import Reply, Told
from rules.call import Call


def spoken_in(call: Call) -> bool:
    """Its host, but for what is not a method of the Web API (files, webhooks)."""
    return call.host == "slack.com" and call.path.startswith("/api/")


def write(told: Told) -> Reply:
    """The problem, marked as Slack marks failures. Its Node.js SDK shows `error`, and nothing else."""
    error = f"{told.code.replace('-', '_')}: {told.message}"
    said = {"ok": False, **told.problem, "error": error, "errors": [told.message]}
    status = 429 if told.status == 429 and not told.final else 200
    return body(told, status, "application/json", msgspec.json.encode(said) + b"\n")
