"""Refusals: what people read is kept in golden files; what machines act on is checked field by field.

`UPDATE_GOLDEN=1` writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.refusal import RETRY_AFTER_CAP_S, Reply, readable, render, render_failure
from rules.codes import CODES
from rules.decision import Decision, Executed, Limit, Violation

GOLDEN = Path(__file__).parent / "golden"
NOW_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
S = 1_000_000_000
FINAL = {"x-should-retry": "false", "stripe-should-retry": "false"}


def denied(code: str = "policy-denied", detail: str = "Deleting is not permitted.", **changes: Any) -> Decision:
    decision = Decision(action="deny", code=code, detail=detail, rules=("no-deletes",), tool="")
    return msgspec.structs.replace(decision, **changes)


def answered(decision: Decision, method: str = "POST", http_version: str = "HTTP/1.1") -> Reply:
    return render(decision, method=method, http_version=http_version, call_id="c_01", now_ns=NOW_NS)


def failed(code: str, detail: str, executed: Executed = "no") -> Reply:
    return render_failure(code, detail, executed=executed, method="POST", http_version="HTTP/1.1", call_id="c_01")


def problem(reply: Reply) -> dict[str, Any]:
    read = json.loads(reply.body)
    assert isinstance(read, dict)
    return read


DELETED = denied(
    detail="Archive it instead, or ask a person. It was decided by policy, and nothing was executed.",
    violations=(Violation("no-deletes", "policy-denied", "Archive it instead, or ask a person."),),
)
NEAREST = denied(
    "no-allow",
    "No rule allows this call: the nearest, `small-refunds`, wants `body.amount` to be at most 5000, and it is 5001.",
    rules=(),
    violations=(Violation("small-refunds", "no-allow", "wants at most 5000", "body.amount", "5001", "lte 5000"),),
    next=("Ask for at most 5000.",),
)
PACED = denied(
    "rate-limited",
    "The limit of 10/min is reached. Nothing was executed; the next call fits in 3 s.",
    rules=("search-pace",),
    violations=(Violation("search-pace", "rate-limited", "the limit is reached", "", "10", "10/min"),),
    next=("Wait 3 s, then repeat the call.",),
    retry_after_ns=2_100_000_000,
    limits=(Limit("search-pace", 10, 60, 0, 3),),
)
SPENT = denied(
    "budget-exhausted",
    "The budget is 50000 cent in any 24h; 2000 cent of it are left, and this call comes to 3000 cent. "
    "Nothing was executed.",
    rules=("refunds",),
    violations=(
        Violation("refunds", "budget-exhausted", "it is spent", "body.amount", "3000 cent", "50000 cent in any 24h"),
    ),
    next=("A call that comes to at most 2000 cent fits now.", "There is room for this call again in 5 h."),
    retry_after_ns=5 * 3600 * S,
)
SEEN: dict[str, Reply] = {
    "budget-exhausted": answered(SPENT),
    "policy-denied": answered(DELETED),
    "policy-denied-http2": answered(DELETED, http_version="HTTP/2.0"),
    "policy-denied-head": answered(DELETED, method="HEAD"),
    "no-allow": answered(NEAREST),
    "rate-limited": answered(PACED),
    "rate-limited-for-long": answered(msgspec.structs.replace(PACED, retry_after_ns=3600 * S)),
    "duplicate-in-flight": answered(
        denied("duplicate-in-flight", "The same call is on its way.", rules=("once",), retry_after_ns=2 * S)
    ),
    "duplicate-not-replayable": answered(
        denied(
            "duplicate-not-replayable",
            "The same call was already executed; its answer was not kept, and the call was not sent again.",
            rules=("once",),
            executed="yes",
            replay_of="c_00",
            next=("Go on as if this call had succeeded; read the result back if you need it.",),
        )
    ),
    "outcome-unknown": answered(
        denied(
            "outcome-unknown",
            "The same call was sent before, and nobody can tell whether it took effect. It was not sent again.",
            rules=("once",),
            executed="unknown",
            replay_of="c_00",
            next=("Read back whether the first attempt took effect.", "If you cannot tell, ask a person."),
        )
    ),
    "upstream-cooldown": answered(
        denied("upstream-cooldown", "The API asked to slow down.", rules=(), retry_after_ns=30 * S)
    ),
    "ambiguous-request": failed("ambiguous-request", "The path holds a dot segment (`.` or `..`)."),
    "proxy-auth-required": failed("proxy-auth-required", "This proxy wants a token."),
    "upstream-unreachable": failed("upstream-failed", "The API could not be reached: connection refused."),
    "upstream-failed": failed("upstream-failed", "The API failed before its answer was complete.", "unknown"),
    "store-error": failed("store-error", "This call could not be recorded, so it was not sent."),
}


def as_http(reply: Reply) -> str:
    """The reply as it would stand on the wire of HTTP/1.1, its JSON indented for the reader."""
    lines = [f"{reply.status} {reply.reason}".rstrip(), *(f"{name}: {value}" for name, value in reply.headers)]
    body = json.dumps(json.loads(reply.body), indent=2, ensure_ascii=False) if reply.body else ""
    return "\n".join([*lines, "", body]).rstrip("\n") + "\n"


@pytest.mark.parametrize("name", SEEN)
def test_people_read_this(name: str) -> None:
    path = GOLDEN / f"{name}.http"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(as_http(SEEN[name]), encoding="utf-8")
    assert as_http(SEEN[name]) == path.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.http")} == set(SEEN)


@pytest.mark.parametrize("code", sorted(CODES.keys() - {"upstream-failed"}))
def test_every_code_is_answered_whole(code: str) -> None:
    entry = CODES[code]
    reply = answered(denied(code, retry_after_ns=5 * S))
    headers = dict(reply.headers)
    body = problem(reply)
    assert reply.status == body["status"] == entry.status
    assert body["code"] == body["error"]["code"] == body["errors"][0]["code"] == code
    assert body["type"] == f"urn:borderpost:refusal:{code}"
    assert body["__type"] == headers["x-amzn-errortype"] == code.title().replace("-", "")
    assert body["message"] == body["error"]["message"] == body["errors"][0]["message"]
    assert body["detail"] in body["message"]
    assert body["call"] == headers["borderpost-call"] == "c_01"
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(reply.body))
    assert headers["cache-control"] == "no-store"
    assert headers["proxy-status"] == f'borderpost; error={entry.proxy_status}; details="{code}: no-deletes"'
    assert ("retry-after" in headers) == (not entry.final)
    assert (FINAL.items() <= headers.items()) == entry.final
    assert [name for name, _ in reply.headers] == list(headers), "no field is sent twice"
    assert {
        "type", "title", "status", "detail", "code", "executed", "retry", "violations", "next", "message", "__type",
        "errors", "error", "call",
    } <= body.keys()  # fmt: skip


RETRIES: list[tuple[str, Decision, str | None, bool, Any, Any]] = [
    ("no time known: waiting is no remedy", denied("rate-limited"), None, True, None, "changed only"),
    ("soon", denied("rate-limited", retry_after_ns=2 * S), "2", False, 2, "yes"),
    ("part of a second is rounded up", denied("rate-limited", retry_after_ns=1), "1", False, 1, "yes"),
    ("just over two seconds is three", denied("rate-limited", retry_after_ns=2 * S + 1), "3", False, 3, "yes"),
    ("ten seconds", denied("rate-limited", retry_after_ns=10 * S), "10", False, 10, "yes"),
    ("longer than clients should sleep", denied("rate-limited", retry_after_ns=10 * S + 1), None, True, 11, "yes"),
    ("an hour", denied("upstream-cooldown", retry_after_ns=3600 * S), None, True, 3600, "yes"),
    ("in flight", denied("duplicate-in-flight", retry_after_ns=2 * S), "2", False, 2, "yes"),
    ("a 403 never says when", denied("policy-denied", retry_after_ns=2 * S), None, True, 2, "never"),
    ("a 403 that time mends", denied("budget-exhausted", retry_after_ns=2 * S), None, True, 2, "after the reset"),
    ("one that it does not", denied("budget-exhausted"), None, True, None, "changed only"),
    ("a final 409", denied("outcome-unknown", retry_after_ns=2 * S), None, True, 2, "never as is"),
]


@pytest.mark.parametrize(
    ("decision", "header", "final", "after_s", "when"), [row[1:] for row in RETRIES], ids=[row[0] for row in RETRIES]
)
def test_clients_are_told_to_wait_only_as_long_as_they_should(
    decision: Decision, header: str | None, final: bool, after_s: int | None, when: str
) -> None:
    reply = answered(decision)
    headers = dict(reply.headers)
    assert headers.get("retry-after") == header
    assert (FINAL.items() <= headers.items()) is final
    assert problem(reply)["retry"] == {"when": when, "after_s": after_s}
    assert ("resets_at" in problem(reply)) == (after_s is not None)


def test_the_moment_of_reset_is_rounded_up() -> None:
    assert problem(answered(denied("rate-limited", retry_after_ns=1)))["resets_at"] == "2026-01-01T00:00:01Z"


def test_retry_after_is_capped() -> None:
    assert RETRY_AFTER_CAP_S == 10


def test_rate_limit_fields_name_every_limit() -> None:
    limits = (Limit('a"b\\', 10, 60, 0, 41), Limit("zweié", 5, 1, 2, 1))
    headers = dict(answered(denied("rate-limited", limits=limits)).headers)
    assert headers["ratelimit-policy"] == '"a\\"b\\\\";q=10;w=60, "zwei?";q=5;w=1'
    assert headers["ratelimit"] == '"a\\"b\\\\";r=0;t=41, "zwei?";r=2;t=1'


def test_rate_limit_fields_are_for_429_only() -> None:
    headers = dict(answered(denied("upstream-cooldown", limits=(Limit("a", 1, 1, 0, 1),))).headers)
    assert not {"ratelimit", "ratelimit-policy"} & headers.keys()


REASONS: list[tuple[str, Decision, str, str]] = [
    ("the rule", denied(), "HTTP/1.1", "Blocked by policy: no-deletes"),
    ("HTTP/1.0", denied(), "HTTP/1.0", "Blocked by policy: no-deletes"),
    ("HTTP/2 has none", denied(), "HTTP/2.0", ""),
    ("two rules", denied(rules=("a", "b")), "HTTP/1.1", "Blocked by policy: a, b"),
    ("no rule", denied("no-allow", rules=()), "HTTP/1.1", "No rule allows this"),
    ("letters outside ASCII", denied(rules=("löschen",)), "HTTP/1.1", "Blocked by policy: l?schen"),
    ("a line feed splits nothing", denied(rules=("a\r\nb: c",)), "HTTP/1.1", "Blocked by policy: a??b: c"),
    ("a long name", denied(rules=("r" * 90,)), "HTTP/1.1", "Blocked by policy: " + "r" * 58 + "..."),
]


@pytest.mark.parametrize(
    ("decision", "http_version", "reason"), [row[1:] for row in REASONS], ids=[row[0] for row in REASONS]
)
def test_the_reason_phrase_is_short_plain_ascii(decision: Decision, http_version: str, reason: str) -> None:
    assert answered(decision, http_version=http_version).reason == reason
    assert len(reason) <= 80


def test_head_has_no_body() -> None:
    reply = answered(denied(), method="HEAD")
    assert reply.body == b""
    assert "content-length" not in dict(reply.headers)


EXECUTED: list[tuple[str, Executed, str]] = [
    ("Deleting is off.", "no", "Deleting is off. Nothing was executed."),
    ("Deleting is off. Nothing was executed.", "no", "Deleting is off. Nothing was executed."),
    ("it was sent before.", "yes", "It was sent before. It was executed already."),
    ("It was sent before.", "unknown", "It was sent before. Whether it was executed is not known."),
    ("Nobody knows whether it took effect.", "unknown", "Nobody knows whether it took effect."),
    ("", "no", "Nothing was executed."),
]


@pytest.mark.parametrize(("detail", "executed", "read"), EXECUTED)
def test_the_detail_says_whether_anything_was_executed(detail: str, executed: Executed, read: str) -> None:
    body = problem(answered(denied(detail=detail, executed=executed)))
    assert body["detail"] == read
    assert body["executed"] == executed


def test_the_message_stands_alone() -> None:
    """Many SDKs show nothing else: it says that it was policy, whose rule, what happened, and what to do."""
    assert problem(SEEN["policy-denied"])["message"] == (
        "Blocked by policy (no-deletes): Archive it instead, or ask a person. It was decided by policy, and nothing "
        "was executed. Sending it again will be refused again."
    )


def test_the_message_does_not_say_its_title_twice() -> None:
    assert problem(SEEN["no-allow"])["message"].count("No rule allows this") == 1


UNREADABLE = "a\r\nb\x1b[31m\u202ec\u2066\u200b\u2028d\0\x85\ud800e\ufeff"


def test_nothing_that_an_agent_reads_holds_control_or_direction_characters() -> None:
    violation = Violation(*[UNREADABLE] * 6)
    reply = answered(denied(detail=UNREADABLE, rules=(UNREADABLE,), violations=(violation,), next=(UNREADABLE,)))
    text = reply.body.decode("utf-8")
    assert not [char for char in text[:-1] if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert all(value.isascii() and value.isprintable() for _, value in reply.headers)
    assert not re.search(r"\\u|\\n|\\r", text)
    assert problem(reply)["violations"][0]["actual"] == "a b[31mc de"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é 例 \U0001f4a9", "é 例 \U0001f4a9"),
        ("a\tb\nc  d", "a b c d"),
        (UNREADABLE, "a b[31mc de"),
        ("x" * 21, "x" * 17 + "..."),
    ],
)
def test_text_is_made_readable(text: str, shown: str) -> None:
    assert readable(text, 20) == shown


@given(st.text(), st.text(), st.text())
def test_any_text_makes_a_sound_reply(detail: str, rule: str, field: str) -> None:
    violation = Violation(rule, "policy-denied", detail, field, detail, detail)
    reply = answered(denied(detail=detail, rules=(rule,), violations=(violation,)))
    assert problem(reply)["code"] == "policy-denied"
    assert reply.reason.isascii() and len(reply.reason) <= 80
    assert all(value.isascii() and value.isprintable() for _, value in reply.headers)


def test_a_long_detail_is_cut() -> None:
    assert len(answered(denied(detail="x" * 100_000)).body) < 10_000


def test_a_407_says_how_to_authenticate() -> None:
    assert dict(SEEN["proxy-auth-required"].headers)["proxy-authenticate"] == 'Basic realm="borderpost"'


def test_an_unreachable_upstream_may_be_tried_again_and_a_broken_answer_may_not() -> None:
    assert not FINAL.items() <= dict(SEEN["upstream-unreachable"].headers).items()
    assert FINAL.items() <= dict(SEEN["upstream-failed"].headers).items()
    assert problem(SEEN["upstream-failed"])["executed"] == "unknown"
