"""A stored answer given once more: byte for byte, marked as a replay, framed anew for this connection. Where the client
speaks JSON-RPC it bears the id of this request (`proxy.envelope`).

Left out: hop-by-hop fields (RFC 9110 7.6.1), Set-Cookie (it was for another exchange), and rate-limit fields (they
describe a moment that has passed). Date stays the original one. Cache-Status is RFC 9211.
"""

from __future__ import annotations

import re

from proxy.envelope import readdressed
from proxy.ledger.entries import StoredAnswer
from proxy.refusal import Reply
from proxy.wire.coding import CodingError, codings, decompress
from rules.call import Call
from rules.protocols.mcp import read_message

DECODED_CAP_BYTES = 16 * 1024 * 1024
"""A stored answer that this client cannot decode is decoded for it up to this size."""

_DROPPED = frozenset({
    "cache-status", "connection", "content-length", "idempotent-replayed", "keep-alive", "proxy-authenticate",
    "proxy-authentication-info", "proxy-connection", "retry-after", "set-cookie", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip
_RATE_LIMIT = re.compile(r"(?:x-)?rate-?limit(?:-.*)?|.*-ratelimit-.*")
_CODED_ONLY = frozenset({"content-encoding", "content-md5", "content-digest", "digest"})
"""Fields about the coded bytes, which are wrong for the decoded ones."""

_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def reply(stored: StoredAnswer, call: Call) -> Reply:
    """`stored` as the answer to `call`, a duplicate."""
    accept_encoding = call.header("accept-encoding") or ""
    sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in stored.headers]
    dropped = _DROPPED | {
        name.strip().lower() for field, value in sent if field == "connection" for name in value.split(",")
    }
    earlier = [value for name, value in sent if name == "cache-status"]
    headers = [(name, value) for name, value in sent if name not in dropped and not _RATE_LIMIT.fullmatch(name)]
    body = stored.body
    coding = ", ".join(value for name, value in sent if name == "content-encoding")
    addressed = read_message(call) is not None
    if coding and body and (addressed or not accepts(accept_encoding, codings(coding))):
        try:
            body = decompress(body, coding, DECODED_CAP_BYTES)
        except CodingError:
            pass  # as the upstream sent it, then: its header says what it is
        else:
            headers = [(name, _weak(name, value)) for name, value in headers if name not in _CODED_ONLY]
            coding = ""
    if addressed and not coding:
        body = readdressed(body, call)
    headers.append(("idempotent-replayed", "true"))
    headers.append(("cache-status", ", ".join([*earlier, "borderpost; hit; detail=dedupe"])))
    if call.method == "HEAD" or stored.status in (204, 304):
        body = b""
    else:
        headers.append(("content-length", str(len(body))))
    reason = stored.reason.decode("latin-1")
    return Reply(stored.status, reason if reason.isascii() and reason.isprintable() else "", tuple(headers), body)


def accepts(accept_encoding: str, names: tuple[str, ...]) -> bool:
    """Whether every coding in `names` is acceptable. A client that sends no Accept-Encoding rarely decodes anything."""
    weights: dict[str, bool] = {}
    for item in accept_encoding.lower().split(","):
        name, _, parameter = item.partition(";")
        weight = _WEIGHT.fullmatch(parameter.strip()) if parameter.strip() else None
        wanted = not parameter.strip() or (weight is not None and float(weight[1]) > 0)
        weights["gzip" if name.strip() == "x-gzip" else name.strip()] = wanted
    return all(weights.get(name, weights.get("*", False)) for name in names)


def _weak(name: str, value: str) -> str:
    """A strong ETag names the coded bytes; decoded, the answer is only equivalent (RFC 9110 8.8.1)."""
    return "W/" + value if name == "etag" and not value.startswith("W/") else value
