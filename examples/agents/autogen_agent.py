"""An agent on AutoGen."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import httpx
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

SHOP = os.environ["SHOP_URL"]
CAPABLE = {
    "vision": False,
    "function_calling": True,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}


async def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    async with httpx.AsyncClient() as client:
        answer = await client.request(method, SHOP + path, data=json.loads(fields or "{}") or None)
    return f"{answer.status_code} {answer.text}"


async def run(task: str) -> str:
    model = OpenAIChatCompletionClient(model="scripted", model_info=CAPABLE)
    agent = AssistantAgent("support", model_client=model, tools=[call_api], max_tool_iterations=100)
    done = await agent.run(task=task)
    await model.close()
    return str(done.messages[-1].content)


if __name__ == "__main__":
    print(asyncio.run(run(sys.argv[1])))
