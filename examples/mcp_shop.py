"""The shop's MCP server, for the agent that uses one: tools that call its API. It prints the port that it has got."""

from __future__ import annotations

import os
import socket

import httpx
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

shop = MCPServer("shop", log_level="ERROR")
api = httpx.AsyncClient(base_url=os.environ["SHOP_URL"])


@shop.tool()
async def read_charge(charge: str) -> str:
    """Look at a charge."""
    return text_of(await api.get(f"/v1/charges/{charge}"))


@shop.tool()
async def refund(charge: str, amount: int, force: bool = False) -> str:
    """Pay a charge back."""
    form = {"charge": charge, "amount": amount} | ({"force": "true"} if force else {})
    return text_of(await api.post("/v1/refunds", data=form))


@shop.tool()
async def make_report(month: str) -> str:
    """Make the report of a month."""
    return text_of(await api.post("/v1/reports", data={"month": month}))


@shop.tool()
async def delete_charge(charge: str) -> str:
    """Delete a charge for good."""
    return text_of(await api.delete(f"/v1/charges/{charge}"))


def text_of(answer: httpx.Response) -> str:
    if answer.is_error:
        raise ToolError(answer.text)
    return answer.text


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(shop.streamable_http_app(), log_level="error")).run(sockets=[listening])
