"""Refusals: answers that a person, an SDK and a language model all understand. One body serves nearly all of them.

RFC 9457 problem details, with mirrors of `detail` and `code` where SDKs look for them (`error.message`: Stripe, OpenAI,
Google; `message`: GitHub; `__type`: AWS). Proxy-Status is RFC 9209, RateLimit draft-ietf-httpapi-ratelimit-headers.
What the clients of some APIs want instead is in `proxy.dialects`. Nothing here reveals a secret, and nothing an agent
reads holds control or direction-changing characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime

from proxy import dialects
from proxy.reply import Reply as Reply
from proxy.reply import Told, type_name
from rules.call import Call
from rules.codes import CODES, Code
from rules.decision import Decision, Executed, Limit, Plain, Violation

RETRY_AFTER_CAP_S = 10
"""Several SDKs sleep in silence for as long as Retry-After says: above this, the time stands in the body only."""

_REASON_CAP = 80
_DETAIL_CAP = 1000
_FIELD_CAP = 200
_NS = 1_000_000_000

_EXECUTED: dict[Executed, str] = {
    "no": "Nothing was executed.",
    "yes": "It was executed already.",
    "unknown": "Whether it was executed is not known.",
}
_FAILED: dict[Executed, tuple[str, ...]] = {
    "no": ("Try again once.", "If it fails the same way, do without it, or tell a person."),
    "unknown": ("Read back whether it took effect before you try again.",),
}
"""What to do when an upstream failed."""

_SAYS_EXECUTED = ("executed", "took effect", "is unknown")
"""A detail that says one of these has said it already."""


def render(
    decision: Decision,
    *,
    method: str,
    http_version: str,
    call_id: str,
    now_ns: int,
    call: Call | None = None,
    dialect: str = "",
) -> Reply:
    """The answer to `call`, which `decision` (a deny, or a throttle that can wait no longer) refuses.

    `dialect`: how the tool says that refusals are told; empty where it leaves that to the call.
    """
    return _reply(
        decision.code,
        decision.detail,
        executed=decision.executed,
        rules=decision.rules,
        violations=decision.violations,
        advice=decision.next,
        limits=decision.limits,
        first_call=decision.replay_of,
        ticket=decision.ticket,
        retry_after_ns=decision.retry_after_ns,
        method=method,
        http_version=http_version,
        call_id=call_id,
        now_ns=now_ns,
        call=call,
        dialect=dialect,
    )


def render_failure(
    code: str,
    detail: str,
    *,
    method: str,
    http_version: str,
    call_id: str,
    executed: Executed = "no",
    call: Call | None = None,
    dialect: str = "",
) -> Reply:
    """The answer where no rule refused: `upstream-failed`, a `WireError`, a missing token (407), a fault of ours."""
    return _reply(
        code,
        detail,
        executed=executed,
        advice=_FAILED.get(executed, ()) if code == "upstream-failed" else (),
        method=method,
        http_version=http_version,
        call_id=call_id,
        now_ns=0,
        call=call,
        dialect=dialect,
    )


def _reply(
    code: str,
    detail: str,
    *,
    executed: Executed,
    method: str,
    http_version: str,
    call_id: str,
    now_ns: int,
    call: Call | None,
    dialect: str,
    rules: tuple[str, ...] = (),
    violations: tuple[Violation, ...] = (),
    advice: tuple[str, ...] = (),
    limits: tuple[Limit, ...] = (),
    first_call: str = "",
    ticket: str = "",
    retry_after_ns: int = 0,
) -> Reply:
    entry = CODES[code]
    after_s = -(-retry_after_ns // _NS) if retry_after_ns > 0 else None
    when = entry.retry
    soon = not entry.final and after_s is not None and after_s <= RETRY_AFTER_CAP_S
    if code == "upstream-failed":
        when = "yes" if executed == "no" else "after checking whether it was executed"
        soon = executed == "no"
    elif after_s is None and (not entry.final or entry.retry == "after the reset"):
        when = "changed only"  # waiting would not help: no time is known at which it could succeed
    sentences = readable(detail, _DETAIL_CAP)
    sentences = sentences[:1].upper() + sentences[1:]
    if not any(words in sentences for words in _SAYS_EXECUTED):
        sentences = f"{sentences} {_EXECUTED[executed]}".lstrip()
    named = f" ({', '.join(rules)})" if rules else ""
    lead = "" if sentences.startswith(entry.title) else f"{entry.title}{named}: "
    steps = [readable(step, _DETAIL_CAP) for step in advice]
    message = readable(f"{lead}{sentences} {' '.join(steps) or _advice(when, after_s)}", 2 * _DETAIL_CAP)
    problem: dict[str, Plain] = {
        "type": f"urn:borderpost:refusal:{code}",
        "title": entry.title,
        "status": entry.status,
        "detail": sentences,
        "code": code,
        "executed": executed,
        "retry": {"when": when, "after_s": after_s},
        "violations": [_violation(violation) for violation in violations],
        "next": list[Plain](steps),
        "call": _ascii(call_id),
        "message": message,
        "__type": type_name(code),
        "errors": [{"message": message, "code": code}],
        "error": {"message": message, "type": code.replace("-", "_"), "code": code},
    }
    if after_s is not None:
        problem["resets_at"] = _utc(now_ns + retry_after_ns)
    if first_call:
        problem["first_call"] = _ascii(first_call)
    if ticket:
        problem["ticket"] = ticket
    headers = [
        ("cache-control", "no-store"),
        ("proxy-status", _proxy_status(entry, code, rules)),
        ("x-amzn-errortype", type_name(code)),
        ("borderpost-call", _ascii(call_id)),
    ]
    if not soon:
        headers += [("x-should-retry", "false"), ("stripe-should-retry", "false")]
    elif after_s is not None and entry.status != 403:
        headers += [("retry-after", str(after_s)), ("x-amz-retry-after", str(after_s * 1000))]
    if entry.status == 429 and limits:
        policies = [f"{_quoted(limit.rule)};q={limit.quota};w={limit.window_s}" for limit in limits]
        states = [f"{_quoted(limit.rule)};r={limit.remaining};t={limit.reset_s}" for limit in limits]
        headers += [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(states))]
    if entry.status == 407:
        headers.append(("proxy-authenticate", 'Basic realm="borderpost"'))
    named_by = [violation.field for violation in violations] if code == "parameters-invalid" else rules
    reason = _reason(entry, named_by) if http_version.startswith("HTTP/1") else ""
    told = Told(entry.status, reason, code, message, problem, tuple(headers), not soon, method, _ascii(call_id), call)
    return dialects.write(told, dialect)


def readable(text: str, cap: int) -> str:
    """`text` on one line, without control, format (bidi, zero-width) and unassigned characters, at most `cap` long."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(" " if _separates(char) else char for char in text if _shows(char))
    if "  " in text or text.strip(" ") != text:
        text = " ".join(text.split())
    return text if len(text) <= cap else text[: cap - 3] + "..."


def _separates(char: str) -> bool:
    return char in "\t\n\r" or unicodedata.category(char) in ("Zl", "Zp")


def _shows(char: str) -> bool:
    return _separates(char) or unicodedata.category(char) not in ("Cc", "Cf", "Cn", "Co", "Cs")


def _advice(when: str, after_s: int | None) -> str:
    """The last sentence for the model: what sending it again would do."""
    if when.startswith("never"):
        return "Sending it again will be refused again."
    if when == "yes" and after_s is not None:
        return f"Try again in {after_s} s."
    return ""


def _violation(violation: Violation) -> dict[str, Plain]:
    return {
        "rule": readable(violation.rule, _FIELD_CAP),
        "code": readable(violation.code, _FIELD_CAP),
        "detail": readable(violation.detail, _DETAIL_CAP),
        "field": readable(violation.field, _FIELD_CAP),
        "actual": readable(violation.actual, _FIELD_CAP),
        "limit": readable(violation.limit, _FIELD_CAP),
    }


def _reason(entry: Code, rules: Iterable[str]) -> str:
    names = ", ".join(rules)
    reason = _ascii(f"{entry.title}: {names}" if names else entry.title)
    return reason if len(reason) <= _REASON_CAP else reason[: _REASON_CAP - 3] + "..."


def _ascii(text: str) -> str:
    """Printable ASCII only, what else there is as `?`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _quoted(text: str) -> str:
    """An sf-string (RFC 9651 3.3.3)."""
    return '"' + _ascii(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _proxy_status(entry: Code, code: str, rules: tuple[str, ...]) -> str:
    details = f"{code}: {', '.join(rules)}" if rules else code
    return f"borderpost; error={entry.proxy_status}; details={_quoted(details[:_FIELD_CAP])}"


def _utc(at_ns: int) -> str:
    """RFC 3339 in whole seconds, rounded up: at that second it is open."""
    return datetime.fromtimestamp(-(-at_ns // _NS), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
