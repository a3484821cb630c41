"""An agent on pydantic-ai."""

from __future__ import annotations

import json
import os
import sys

import httpx
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.usage import UsageLimits

SHOP = os.environ["SHOP_URL"]
agent = Agent(OpenAIChatModel("scripted"))


@agent.tool_plain
def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    answer = httpx.request(method, SHOP + path, data=json.loads(fields or "{}") or None)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    return str(agent.run_sync(task, usage_limits=UsageLimits(request_limit=200)).output)


if __name__ == "__main__":
    print(run(sys.argv[1]))
