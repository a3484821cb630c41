"""gRPC: 200 without a body, the status in the head ("Trailers-Only"), https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""

from __future__ import annotations

from urllib.parse import quote

from proxy.reply import Reply, Told
from rules.call import Call

PERMISSION_DENIED = 7
STATUSES = {
    400: 3,  # INVALID_ARGUMENT
    403: PERMISSION_DENIED,
    407: 16,  # UNAUTHENTICATED
    409: 9,  # FAILED_PRECONDITION
    413: 3,
    422: 3,
    429: 8,  # RESOURCE_EXHAUSTED
    502: 14,  # UNAVAILABLE
    503: 14,
}
"""The status of the plain form -> https://grpc.io/docs/guides/status-codes/."""

FINAL = {14: 13, 8: PERMISSION_DENIED}
"""UNAVAILABLE and RESOURCE_EXHAUSTED are what clients repeat by themselves: a final refusal says INTERNAL instead."""

_KEPT = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""What percent-encoding leaves alone in `grpc-message`: printable ASCII but `%`."""


def spoken_in(call: Call) -> bool:
    """Its media types, gRPC-Web left out: that is read by browsers' code, which takes plain statuses."""
    kind = (call.header("content-type") or "").partition(";")[0].strip().lower()
    return kind == "application/grpc" or kind.startswith("application/grpc+")


def write(told: Told) -> Reply:
    """Head and end in one."""
    status = STATUSES.get(told.status, PERMISSION_DENIED)
    status = FINAL.get(status, status) if told.final else status
    said = (("grpc-status", str(status)), ("grpc-message", quote(told.message, safe=_KEPT)))
    return Reply(200, "OK" if told.reason else "", (("content-type", "application/grpc"), *told.headers, *said), b"")
