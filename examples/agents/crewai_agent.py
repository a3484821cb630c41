"""An agent on CrewAI."""

from __future__ import annotations

import json
import os
import sys

import requests
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool

SHOP = os.environ["SHOP_URL"]


@tool("call_api")
def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    answer = requests.request(method, SHOP + path, data=json.loads(fields or "{}") or None, timeout=30)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    model = LLM(model="openai/scripted", base_url=os.environ["OPENAI_BASE_URL"])
    agent = Agent(role="support", goal="Serve customers", backstory="", tools=[call_api], llm=model, max_iter=100)
    work = Task(description=task, expected_output="what was done", agent=agent)
    return str(Crew(agents=[agent], tasks=[work]).kickoff())


if __name__ == "__main__":
    print(run(sys.argv[1]))
