"""Refusals in the words of one API's clients: who speaks what, and what they read there."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import unquote
from xml.etree import ElementTree

import msgspec
import pytest

from proxy.dialects import SIGNS, WRITERS
from proxy.refusal import Reply, render, render_failure
from proxy.reply import type_name
from rules.batch import MOST
from rules.call import UNREAD_BODY, Body, Call
from rules.codes import CODES
from rules.decision import Decision, Executed
from rules.vocabulary import REFUSALS
from tests.rules.world import call, json_body

DENIED = Decision("deny", "policy-denied", 'Ask <the> "team" & be patient, 100 %.', ("no-x",), "")
SECOND_NS = 1_000_000_000
SCOPE = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Sig=1"

TOOL_CALL = '{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "delete_x", "arguments": {}}}'
LISTING = '{"jsonrpc": "2.0", "id": "b", "method": "tools/list"}'
PROMPT = '{"jsonrpc": "2.0", "id": 1, "method": "prompts/get"}'
NOTE = '{"jsonrpc": "2.0", "method": "notifications/initialized"}'
MUTATION = '{"query": "mutation { createIssue { id } }"}'
GRPC = (("content-type", "application/grpc+proto"),)
FORM = (("content-type", "application/x-www-form-urlencoded; charset=utf-8"),)
SESSION = (("mcp-session-id", "s"),)


def told(asked: Call, decision: Decision = DENIED, dialect: str = "", http_version: str = "HTTP/1.1") -> Reply:
    return render(
        decision, method=asked.method, http_version=http_version, call_id="c_1", now_ns=0, call=asked, dialect=dialect
    )


def header(reply: Reply, name: str) -> str | None:
    return next((value for given, value in reply.headers if given == name), None)


def read(reply: Reply) -> Any:
    return json.loads(reply.body)


def spoken(asked: Call) -> str:
    """The dialect that a call shows."""
    return next((name for name, shows in SIGNS.items() if shows(asked)), "json")


@pytest.mark.parametrize(
    ("dialect", "asked"),
    [
        ("json", call()),
        ("json", call(host="s3.example.com")),
        ("json", call(path="/graphql", body='{"variables": {}}')),
        ("json", call(path="/graphql/schema", body=MUTATION)),
        ("json", call(method="GET", path="/graphql", body=UNREAD_BODY)),
        ("json", call(host="slack.com", path="/help")),
        ("json", call(host="files.slack.com", path="/api/x")),
        ("json", call(headers=(("content-type", "application/grpc-web"),))),
        ("json", call(body='{"id": 1, "method": "tools/call"}')),
        ("s3", call(host="s3.amazonaws.com")),
        ("s3", call(host="acme.s3.eu-west-1.amazonaws.com")),
        ("s3", call(host="acme.s3-us-west-2.amazonaws.com")),
        ("s3", call(host="acme.s3.cn-north-1.amazonaws.com.cn")),
        ("s3", call(host="minio.example.com", headers=(("authorization", SCOPE),))),
        ("aws-query", call(host="sts.amazonaws.com", headers=FORM)),
        ("aws-json", call(host="dynamodb.eu-west-1.amazonaws.com", headers=(("x-amz-target", "DynamoDB.GetItem"),))),
        ("aws-json", call(host="localhost", headers=(("authorization", SCOPE.replace("/s3/", "/lambda/")),))),
        ("slack", call(host="slack.com", path="/api/chat.postMessage")),
        ("grpc", call(path="/pkg.Service/Method", headers=GRPC)),
        ("mcp", call(path="/mcp", body=TOOL_CALL)),
        ("mcp", call(path="/mcp", body=f"[{NOTE}, {LISTING}]")),
        ("mcp", call(method="GET", path="/mcp", headers=SESSION)),
        ("graphql", call(path="/graphql", body=MUTATION)),
        ("graphql", call(path="/api/graphql", body=f"[{MUTATION}, {MUTATION}]")),
        ("graphql", call(path="/graphql", body='{"extensions": {"persistedQuery": {"version": 1}}}')),
        ("graphql", call(path="/graphql", body=UNREAD_BODY)),
        ("graphql", call(host="api.github.com", path="/graphql", body=MUTATION)),
        ("github", call(host="api.github.com", path="/repos/a/b")),
        ("github", call(host="github.example.com", headers=(("accept", "application/vnd.github.v3+json"),))),
        ("notion", call(host="api.notion.com", path="/v1/pages")),
    ],
)
def test_a_call_shows_what_its_client_speaks(dialect: str, asked: Call) -> None:
    assert spoken(asked) == dialect


def test_every_word_has_a_writer() -> None:
    assert set(WRITERS) == set(REFUSALS)


def test_the_tool_has_the_last_word() -> None:
    reply = told(call(host="slack.com", path="/api/x"), dialect="json")
    assert (reply.status, header(reply, "content-type")) == (403, "application/problem+json")


@pytest.mark.parametrize("dialect", REFUSALS)
@pytest.mark.parametrize("code", CODES)
def test_every_dialect_keeps_what_programs_act_on(dialect: str, code: str) -> None:
    plain = told(call(), msgspec.structs.replace(DENIED, code=code), "json")
    reply = told(call(), msgspec.structs.replace(DENIED, code=code), dialect)
    kept = [pair for pair in plain.headers if pair[0] not in ("content-type", "content-length")]
    assert set(kept) <= set(reply.headers)
    assert header(reply, "content-length") in (None, str(len(reply.body)))
    assert reply.reason.isascii()


@pytest.mark.parametrize("dialect", [name for name in REFUSALS if name != "grpc"])
def test_a_head_has_no_body(dialect: str) -> None:
    reply = told(call(method="HEAD"), dialect=dialect)
    assert (reply.body, header(reply, "content-length")) == (b"", None)


@pytest.mark.parametrize("dialect", REFUSALS)
def test_http2_has_no_reason(dialect: str) -> None:
    assert told(call(), dialect=dialect, http_version="HTTP/2.0").reason == ""


def test_s3_reads_xml() -> None:
    reply = told(call(method="PUT", path="/a&b", host="s3.amazonaws.com"))
    root = ElementTree.fromstring(reply.body)
    assert (reply.status, root.tag, root.findtext("Code")) == (403, "Error", "PolicyDenied")
    assert 'Ask <the> "team" & be patient, 100 %.' in (root.findtext("Message") or "")
    assert (root.findtext("Resource"), root.findtext("RequestId")) == ("/a&b", "c_1")


def test_the_query_protocol_reads_xml() -> None:
    root = ElementTree.fromstring(told(call(host="sts.amazonaws.com", headers=FORM)).body)
    assert (root.tag, root.findtext("Error/Code")) == ("ErrorResponse", "PolicyDenied")
    assert "be patient" in (root.findtext("Error/Message") or "")


@pytest.mark.parametrize("dialect", ["s3", "aws-query", "aws-json"])
@pytest.mark.parametrize(
    ("code", "after_s", "status"),
    [
        ("policy-denied", 0, 403),
        ("duplicate", 0, 409),
        ("rate-limited", 3, 429),
        ("rate-limited", 3600, 400),
        ("upstream-cooldown", 3, 503),
        ("upstream-cooldown", 30, 400),
        ("store-error", 0, 400),
        ("upstream-failed", 0, 502),
    ],
)
def test_aws_repeats_429_and_5xx_so_what_is_final_is_neither(
    dialect: str, code: str, after_s: int, status: int
) -> None:
    decision = msgspec.structs.replace(DENIED, code=code, retry_after_ns=after_s * SECOND_NS)
    reply = told(call(), decision, dialect)
    waits = str(after_s * 1000) if status in (429, 503) and after_s else None
    assert (reply.status, header(reply, "x-amz-retry-after")) == (status, waits)
    if dialect == "aws-json":
        assert (read(reply)["status"], read(reply)["__type"]) == (status, type_name(code))


def test_aws_does_not_send_again_what_may_have_been_executed() -> None:
    for executed, status in (("no", 502), ("unknown", 400)):
        reply = render_failure(
            "upstream-failed", "it was cut off", executed=cast("Executed", executed), method="POST",
            http_version="HTTP/1.1", call_id="c_1", dialect="aws-json",
        )  # fmt: skip
        assert reply.status == status


@pytest.mark.parametrize(
    ("code", "after_s", "status"),
    [("policy-denied", 0, 403), ("rate-limited", 3600, 429), ("store-error", 0, 400), ("circuit-open", 3, 503)],
)
def test_github_reads_json_and_nothing_final_is_a_5xx(code: str, after_s: int, status: int) -> None:
    decision = msgspec.structs.replace(DENIED, code=code, retry_after_ns=after_s * SECOND_NS)
    reply = told(call(host="api.github.com"), decision)
    assert (reply.status, read(reply)["status"], header(reply, "content-type")) == (status, status, "application/json")
    assert "be patient" in read(reply)["message"]
    assert "errors" not in read(reply)


@pytest.mark.parametrize(
    ("code", "after_s", "status", "says"),
    [
        ("policy-denied", 0, 403, "restricted_resource"),
        ("parameters-invalid", 0, 422, "validation_error"),
        ("duplicate", 0, 409, "conflict_error"),
        ("rate-limited", 3, 429, "rate_limited"),
        ("rate-limited", 3600, 429, "restricted_resource"),
        ("upstream-cooldown", 3, 503, "service_unavailable"),
    ],
)
def test_notion_reads_a_code_that_it_knows(code: str, after_s: int, status: int, says: str) -> None:
    decision = msgspec.structs.replace(DENIED, code=code, retry_after_ns=after_s * SECOND_NS)
    reply = told(call(host="api.notion.com"), decision)
    assert (reply.status, read(reply)["object"], read(reply)["code"]) == (status, "error", says)
    assert read(reply)["type"].endswith(code)


def test_slack_reads_ok_false() -> None:
    reply = told(call(host="slack.com", path="/api/chat.postMessage"))
    assert (reply.status, reply.reason) == (200, "OK")
    assert read(reply)["ok"] is False
    assert read(reply)["error"].startswith("policy_denied: Blocked by policy (no-x): Ask <the>")
    assert "be patient" in read(reply)["detail"]


def test_slack_waits_when_told_to() -> None:
    soon = msgspec.structs.replace(DENIED, code="rate-limited", retry_after_ns=3 * SECOND_NS)
    late = msgspec.structs.replace(DENIED, code="rate-limited", retry_after_ns=3600 * SECOND_NS)
    asked = call(host="slack.com", path="/api/chat.postMessage")
    assert (told(asked, soon).status, header(told(asked, soon), "retry-after")) == (429, "3")
    assert (told(asked, late).status, header(told(asked, late), "retry-after")) == (200, None)


@pytest.mark.parametrize(
    ("code", "after_s", "status"),
    [
        ("policy-denied", 0, "7"),
        ("ambiguous-request", 0, "3"),
        ("duplicate", 0, "9"),
        ("rate-limited", 3, "8"),
        ("rate-limited", 3600, "7"),
        ("upstream-cooldown", 3, "14"),
        ("store-error", 0, "13"),
    ],
)
def test_grpc_reads_a_status_in_the_head(code: str, after_s: int, status: str) -> None:
    decision = msgspec.structs.replace(DENIED, code=code, retry_after_ns=after_s * SECOND_NS)
    reply = told(call(path="/pkg.Service/Method", headers=GRPC), decision)
    assert (reply.status, reply.body, header(reply, "grpc-status")) == (200, b"", status)
    message = header(reply, "grpc-message") or ""
    assert "100 %25." in message
    assert "be patient, 100 %." in unquote(message)


def test_mcp_reads_a_result_of_its_tool() -> None:
    reply = told(call(path="/mcp", body=TOOL_CALL))
    assert (reply.status, header(reply, "content-type")) == (200, "application/json")
    (content,) = read(reply)["result"]["content"]
    assert (read(reply)["id"], read(reply)["result"]["isError"], content["type"]) == (7, True, "text")
    assert "be patient" in content["text"]
    assert read(reply)["result"]["resultType"] == "complete"  # since 2026-07-28 clients refuse a result without it


def test_mcp_reads_an_error_of_other_methods() -> None:
    answer = read(told(call(path="/mcp", body=PROMPT, headers=SESSION)))
    assert (answer["id"], answer["error"]["code"], answer["error"]["data"]["code"]) == (1, -32000, "policy-denied")


def test_mcp_reads_one_answer_for_each_request_of_a_batch() -> None:
    answers = read(told(call(path="/mcp", body=f"[{TOOL_CALL}, {NOTE}, {LISTING}]")))
    assert [(one["id"], "result" in one) for one in answers] == [(7, True), ("b", False)]


@pytest.mark.parametrize("asked", [call(method="GET", path="/mcp", headers=SESSION), call(body=NOTE, headers=SESSION)])
def test_mcp_has_no_answer_where_nothing_was_asked(asked: Call) -> None:
    reply = told(asked)
    assert (reply.status, header(reply, "content-type")) == (403, "application/problem+json")


def test_graphql_reads_errors() -> None:
    reply = told(call(path="/graphql", body=MUTATION))
    (error,) = read(reply)["errors"]
    assert (reply.status, read(reply)["data"], error["extensions"]["code"]) == (200, None, "policy-denied")
    assert "be patient" in error["message"]


def test_graphql_reads_one_answer_for_each_operation_of_a_batch() -> None:
    assert len(read(told(call(path="/graphql", body=f"[{MUTATION}, {MUTATION}]")))) == 2


@pytest.mark.parametrize(("path", "one"), [("/mcp", TOOL_CALL), ("/graphql", MUTATION)])
def test_a_batch_of_too_many_gets_one_answer_for_all(path: str, one: str) -> None:
    assert isinstance(read(told(call(path=path, body=f"[{', '.join([one] * MOST)}]"))), list)
    reply = told(call(path=path, body=f"[{', '.join([one] * (MOST + 1))}]"))
    assert (reply.status, read(reply)["code"]) == (403, "policy-denied")


@pytest.mark.parametrize("dialect", REFUSALS)
@pytest.mark.parametrize("body", [json_body("[]"), json_body("1"), Body("undecodable"), UNREAD_BODY])
def test_a_declared_dialect_is_written_whatever_the_call_holds(dialect: str, body: Body) -> None:
    assert told(call(body=body), dialect=dialect).status in (200, 403)
