"""An agent on the OpenAI Agents SDK."""

from __future__ import annotations

import json
import os
import sys

import httpx
from agents import Agent, Runner, function_tool, set_default_openai_api

SHOP = os.environ["SHOP_URL"]
set_default_openai_api("chat_completions")


@function_tool
def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    answer = httpx.request(method, SHOP + path, data=json.loads(fields or "{}") or None)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    agent = Agent(name="support", model="scripted", tools=[call_api])
    return str(Runner.run_sync(agent, task, max_turns=100).final_output)


if __name__ == "__main__":
    print(run(sys.argv[1]))
