"""The refusal codes: one table that decides status, retry advice and Proxy-Status of every refusal.

Sources: RFC 9457 (problem details), RFC 9209 (Proxy-Status), and how real SDKs react to each status, measured.
"""

from __future__ import annotations

import msgspec


class Code(msgspec.Struct, frozen=True):
    """How a refusal is answered. `retry` is advice for the agent; `final` asks SDKs not to retry by themselves."""

    status: int
    title: str
    retry: str
    final: bool
    proxy_status: str


CODES: dict[str, Code] = {
    "policy-denied": Code(403, "Blocked by policy", "never", True, "http_request_denied"),
    "halted": Code(403, "Stopped by a person", "never", True, "http_request_denied"),
    "no-allow": Code(403, "No rule allows this", "never", True, "http_request_denied"),
    "prerequisite-missing": Code(403, "Something has to be done first", "after it", True, "http_request_denied"),
    "ambiguous-request": Code(400, "Ambiguous request", "changed only", True, "http_request_error"),
    "body-too-large": Code(413, "Body too large to decide", "changed only", True, "http_request_error"),
    "body-unfinished": Code(400, "Body not whole", "changed only", True, "http_request_error"),
    "proxy-auth-required": Code(
        407, "Proxy authentication required", "with a valid token", True, "http_request_denied"
    ),
    "parameters-invalid": Code(422, "Parameters invalid", "changed only", True, "http_request_error"),
    "batch-refused": Code(422, "Batch refused", "changed only", True, "http_request_error"),
    "key-reused": Code(422, "Idempotency key reused", "with a new key", True, "http_request_error"),
    "duplicate-in-flight": Code(409, "Duplicate in flight", "yes", False, "http_request_error"),
    "duplicate": Code(409, "Duplicate", "never as is", True, "http_request_denied"),
    "duplicate-not-replayable": Code(409, "Duplicate, answer not kept", "never as is", True, "http_request_denied"),
    "outcome-unknown": Code(409, "Outcome of the first attempt unknown", "never as is", True, "http_request_denied"),
    "approval-required": Code(
        403, "Approval required", "the identical call, after approval", True, "http_request_denied"
    ),
    "approval-refused": Code(403, "Refused by a person", "never as is", True, "http_request_denied"),
    "budget-exhausted": Code(403, "Budget exhausted", "after the reset", True, "http_request_denied"),
    "rate-limited": Code(429, "Rate limited", "yes", False, "http_request_error"),
    "concurrency": Code(429, "Too many at the same time", "yes", False, "http_request_error"),
    "upstream-cooldown": Code(503, "Upstream asked to slow down", "yes", False, "destination_unavailable"),
    "loop-detected": Code(403, "Loop detected", "never as is", True, "http_request_denied"),
    "circuit-open": Code(503, "Upstream is failing", "yes", False, "destination_unavailable"),
    "destination-refused": Code(403, "Destination not permitted", "never", True, "destination_ip_prohibited"),
    "upgrade-refused": Code(403, "Protocol upgrade not supported", "never", True, "http_request_denied"),
    "upstream-failed": Code(502, "Upstream failed", "unknown", True, "destination_unavailable"),
    "policy-error": Code(503, "Could not decide", "no", True, "proxy_internal_error"),
    "store-error": Code(503, "Could not record", "no", True, "proxy_internal_error"),
    "shutting-down": Code(503, "Shutting down", "yes", True, "proxy_internal_error"),
}
"""`replay` is not here: a replay is an answer, not a refusal."""
