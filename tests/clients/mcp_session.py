"""Run by the clients' own Python: a server and a client of the Model Context Protocol, both the official package.

`mcp_session.py serve json|events` prints its port, then every call of a tool that reaches it.
`mcp_session.py talk PORT auto|legacy` holds a session, as of 2026-07-28 or with the older handshake. It prints a line
of JSON for each thing that it asked for: what, whether it failed, and what it was told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from importlib import import_module
from typing import Any

OURS = {"owner": "acme", "repo": "site"}
ISSUE = OURS | {"method": "create", "title": "It breaks"}
ASKED = (
    ("list_issues", OURS),
    ("list_issues", OURS),
    ("issue_write", ISSUE),
    ("issue_write", ISSUE),
    ("issue_write", ISSUE | {"title": "It breaks again"}),
    ("issue_write", ISSUE | {"method": "update"}),
    ("list_issues", {"owner": "eve", "repo": "site"}),
    ("delete_file", OURS),
)


def tell(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def serve(as_json: bool) -> None:
    """Some of what GitHub's server does, until killed."""
    server = import_module("mcp.server").MCPServer("github", log_level="ERROR")
    opened: list[str] = []

    def list_issues(owner: str, repo: str) -> str:
        tell(f"list_issues {owner}")
        return "\n".join(opened)

    def issue_write(owner: str, repo: str, method: str, title: str) -> str:
        tell(f"issue_write {method} {title}")
        opened.append(title)
        return f"opened #{len(opened)}"

    def delete_file(owner: str, repo: str) -> str:
        tell("delete_file")
        return "gone"

    for tool in (list_issues, issue_write, delete_file):
        server.tool()(tool)
    uvicorn = import_module("uvicorn")
    listening = socket.create_server(("127.0.0.1", 0))
    tell(listening.getsockname()[1])
    app = server.streamable_http_app(json_response=as_json)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


async def talk(port: str, mode: str) -> None:
    """Open a session, list, call, and close it."""
    client: Any = import_module("mcp").Client
    async with client(f"http://127.0.0.1:{port}/mcp", mode=mode) as server:
        tell(json.dumps(["tools/list", False, sorted(tool.name for tool in (await server.list_tools()).tools)]))
        for name, arguments in ASKED:
            result = await server.call_tool(name, arguments)
            tell(json.dumps([name, bool(result.is_error), result.content[0].text if result.content else ""]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2] == "json")
    else:
        asyncio.run(talk(*sys.argv[2:]))
