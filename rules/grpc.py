"""What a gRPC answer says about the effect: its HTTP status is 200 whatever happened, the truth stands at its end.

Sources: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md and
https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.
"""

from __future__ import annotations

from rules.call import Call
from rules.decision import Answer, OutcomeKind

NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""By number."""

REFUSED = frozenset(
    NAMES.index(name)
    for name in (
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"),
        *("OUT_OF_RANGE", "UNIMPLEMENTED", "UNAUTHENTICATED"),
    )
)
"""Statuses by which a server refuses to act. RESOURCE_EXHAUSTED is none of them: servers also say it when they have
acted, and their answer is too large to send."""

_UNITS_NS = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 10**3, "n": 1}
"""Of `grpc-timeout`."""


def judge(call: Call, answer: Answer, kind: OutcomeKind) -> tuple[OutcomeKind, str]:
    """What became of `call`, of which HTTP alone says `kind`; and in a few words what its gRPC status is, but for OK.

    A refusal after part of an answer is none: something had been done. A status that is not there, or that gRPC does
    not know, says nothing.
    """
    if kind != "done" or not (speaks(call.headers) or speaks(answer.headers)):
        return kind, ""
    number = status(answer)
    if number is None:
        return "unknown", "there is no gRPC status that can be read"
    if number == 0:
        return "done", ""
    refused = number in REFUSED and (answer.size_bytes == 0 or answer.only_trailers)
    return "not_executed" if refused else "unknown", _shown(number)


def failure(call: Call, answer: Answer) -> str:
    """The status of an answer of gRPC, where it is an error; else empty."""
    number = status(answer) if speaks(call.headers) or speaks(answer.headers) else None
    return _shown(number) if number else ""


def _shown(number: int) -> str:
    return f"gRPC status {number} ({NAMES[number]})"


def status(answer: Answer) -> int | None:
    """The gRPC status of `answer`; None where there is none that can be read."""
    said = [value for name, value in (*answer.headers, *answer.trailers) if name == "grpc-status"]
    known = {str(number): number for number in range(len(NAMES))}
    return known.get(said[0]) if len(said) == 1 else None


def timeout_ns(headers: tuple[tuple[str, str], ...]) -> int | None:
    """How long the client waits for the end of its call, if it says so."""
    for name, value in headers:
        if name == "grpc-timeout" and value[:-1].isdecimal() and len(value) <= 9 and value[-1] in _UNITS_NS:
            return int(value[:-1]) * _UNITS_NS[value[-1]]
    return None


def speaks(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether a message with these headers is one of gRPC."""
    return any(
        name == "content-type" and value.strip().lower().startswith("application/grpc") for name, value in headers
    )
