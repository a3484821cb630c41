"""An agent whose tools are those of an MCP server."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp import Client, Tool
from openai import AsyncOpenAI


def as_function(tool: Tool) -> dict[str, object]:
    """`tool` as the model is told of it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


async def run(task: str) -> str:
    model = AsyncOpenAI()
    async with Client(os.environ["MCP_URL"]) as server:
        tools = [as_function(tool) for tool in (await server.list_tools()).tools]
        messages = [{"role": "user", "content": task}]
        while True:
            answer = await model.chat.completions.create(model="scripted", messages=messages, tools=tools)
            said = answer.choices[0].message
            messages.append(said.model_dump(exclude_none=True))
            if not said.tool_calls:
                return said.content or ""
            for call in said.tool_calls:
                result = await server.call_tool(call.function.name, json.loads(call.function.arguments))
                text = "".join(part.text for part in result.content if part.type == "text")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1])))
