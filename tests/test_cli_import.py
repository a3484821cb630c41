"""`rules import` on the command line: where the tools go, what is told beside them, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import cli
from proxy.report.imported import show
from rules.openapi.notes import LEFT_OUT, NARROWER, WIDER, Note
from rules.openapi.tools import Imported

SPEC: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Shop", "version": "1"},
    "servers": [{"url": "https://shop.example"}],
    "paths": {
        "/orders": {
            "post": {
                "operationId": "create",
                "requestBody": {
                    "content": {"application/json": {"schema": {"properties": {"total": {"type": "integer"}}}}}
                },
            }
        },
        "/orders/{id}": {"get": {"operationId": "read"}},
        "/orders/{order}": {"get": {"operationId": "again"}},
    },
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_"):
            monkeypatch.delenv(name)
    (tmp_path / "openapi.json").write_text(json.dumps(SPEC))


def borderpost(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost", input=stdin)


def test_the_tools_go_to_standard_output_and_the_notes_to_standard_error() -> None:
    result = borderpost("rules", "import", "openapi.json")
    assert result.exit_code == 0
    assert result.stdout.endswith("""
tools:
  create: {match: "POST https://shop.example/orders", body: json, params: {total: integer}}

  read: {match: "GET https://shop.example/orders/{id}", params: {}}
""")
    assert result.stderr == (
        "left out, so that no tool names them:\n"
        "  1 operation: `read` is the same calls\n"
        "    GET /orders/{order}\n"
        "borderpost: 2 tools from 3 operations of Shop\n"
    )


def test_what_is_written_can_be_used_beside_rules() -> None:
    assert (
        borderpost("rules", "import", "openapi.json", "--prefix", "shop.", "--output", "rules/shop.yaml").exit_code == 0
    )
    Path("rules/main.yaml").write_text(
        "version: 1\nrules: [{id: all, tool: 'shop.*', allow: true, dedupe: 1h}]\n"
        "tests: [{name: a total, call: {request: POST https://shop.example/orders, json: {total: x}},"
        " expect: {decision: deny, code: parameters-invalid, tool: shop.create}}]\n"
    )
    assert borderpost("rules", "check").output == "2 files: 1 rule, 2 tools, 1 test, no problems\n"
    assert borderpost("rules", "test").exit_code == 0


def test_a_file_that_is_there_is_not_overwritten_unasked() -> None:
    Path("tools.yaml").write_text("mine")
    result = borderpost("rules", "import", "openapi.json", "--output", "tools.yaml")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "`tools.yaml` is there already" in result.stderr
    assert Path("tools.yaml").read_text() == "mine"
    assert borderpost("rules", "import", "openapi.json", "--output", "tools.yaml", "--force").exit_code == 0
    assert "version: 1" in Path("tools.yaml").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["openapi.json", "tools.yaml"]


def test_a_document_can_come_through_a_pipe() -> None:
    result = borderpost("rules", "import", "-", "--only", "read", stdin=json.dumps(SPEC))
    assert "# written by `borderpost rules import -` (OpenAPI 3.0.3).\n" in result.stdout
    assert "  read:" in result.stdout
    assert "  create:" not in result.stdout


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        (b"{}", [], 3, "this is no OpenAPI document"),
        (b"\xff", [], 3, "`openapi.json` is not UTF-8"),
        (json.dumps(SPEC | {"servers": []}).encode(), [], 3, "names no host: say where the API is, with `--server"),
        (json.dumps(SPEC).encode(), ["--only", "nothing*"], 3, "no operation has such a name"),
        (json.dumps(SPEC).encode(), ["--prefix", "a b"], 2, "`a b` can not begin the name of a tool"),
        (json.dumps(SPEC).encode(), ["--server", "shop.example"], 2, "`shop.example` is no URL"),
        (json.dumps(SPEC).encode(), ["--output", "openapi.json/x.yaml"], 3, "file exists: `openapi.json`"),
    ],
)
def test_what_can_not_be_imported_is_said_in_one_line(
    content: bytes, arguments: list[str], code: int, said: str
) -> None:
    Path("openapi.json").write_bytes(content)
    result = borderpost("rules", "import", "openapi.json", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


NOTES = (
    ("a", Note(NARROWER, "only one kind", "body")),
    *((f"t{number}", Note(WIDER, "anything passes", f"body.{place}")) for number in range(7) for place in "xy"),
    ("GET /x", Note(LEFT_OUT, "no pattern")),
)


def test_notes_are_told_by_kind_and_counted_by_operation() -> None:
    found = Imported("", "", 8, 9, NOTES)
    assert show(found, False, 80, False) == [
        "left out, so that no tool names them:",
        "  1 operation: no pattern",
        "    GET /x",
        "narrower than the document: these refuse calls that it describes",
        "  1 operation: only one kind",
        "    a",
        "wider than the document: these let calls through that it does not describe",
        "  7 operations: anything passes",
        "    t0, t1, t2, t3, t4 and 2 more",
        "borderpost: 8 tools from 9 operations, 8 of them not just as the document says",
    ]


def test_verbose_notes_name_every_operation_and_place() -> None:
    told = " ".join(" ".join(show(Imported("", "", 8, 9, NOTES), True, 80, False)).split())
    assert "14 operations" not in told
    assert "7 operations: anything passes t0 (body.x), t0 (body.y), t1 (body.x)" in told
    assert "t6 (body.y)" in told


def test_the_tools_of_an_mcp_server_are_used_beside_rules() -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    Path("tools.json").write_text(json.dumps({"result": {"tools": [{"name": "send", "inputSchema": schema}]}}))
    result = borderpost("rules", "import", "tools.json", "--output", "rules/crm.yaml")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "add `--server https://HOST/PATH`" in result.stderr
    asked = ("--server", "https://crm.example/mcp", "--prefix", "crm", "--output", "rules/crm.yaml")
    assert borderpost("rules", "import", "tools.json", *asked).stderr == "borderpost: 2 tools from 1 MCP tool\n"
    Path("rules/main.yaml").write_text(
        "version: 1\nrules: [{id: all, tool: 'crm.*', allow: true, dedupe: 1h}]\n"
        "tests: [{name: an argument, call: {request: POST https://crm.example/mcp, json: {jsonrpc: '2.0', id: 1,"
        " method: tools/call, params: {name: send, arguments: {too: x}}}},"
        " expect: {decision: deny, code: parameters-invalid, tool: crm.send}}]\n"
    )
    assert borderpost("rules", "check").output == "2 files: 1 rule, 2 tools, 1 test, no problems\n"
    assert borderpost("rules", "test").exit_code == 0
