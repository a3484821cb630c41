"""An agent on LangChain and LangGraph."""

from __future__ import annotations

import json
import os
import sys

import requests
from langchain.agents import create_agent
from langchain.tools import tool
from langchain_openai import ChatOpenAI

SHOP = os.environ["SHOP_URL"]


@tool
def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    answer = requests.request(method, SHOP + path, data=json.loads(fields or "{}") or None, timeout=30)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    agent = create_agent(ChatOpenAI(model="scripted", streaming=True), tools=[call_api])
    done = agent.invoke({"messages": [{"role": "user", "content": task}]}, {"recursion_limit": 200})
    return str(done["messages"][-1].content)


if __name__ == "__main__":
    print(run(sys.argv[1]))
