"""An agent without a framework: a loop around the model's HTTP API, with requests."""

from __future__ import annotations

import json
import os
import sys

import requests

MODEL = os.environ["OPENAI_BASE_URL"]
SHOP = os.environ["SHOP_URL"]

TOOL = {
    "type": "function",
    "function": {
        "name": "call_api",
        "description": "Call the shop's API.",
        "parameters": {
            "type": "object",
            "properties": {"method": {"type": "string"}, "path": {"type": "string"}, "fields": {"type": "string"}},
            "required": ["method", "path", "fields"],
        },
    },
}


def call_api(method: str, path: str, fields: str) -> str:
    """Call the shop's API. `fields` is the form, as JSON text, or empty."""
    answer = requests.request(method, SHOP + path, data=json.loads(fields or "{}") or None, timeout=30)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    messages = [{"role": "user", "content": task}]
    while True:
        asked = {"model": "scripted", "messages": messages, "tools": [TOOL]}
        said = requests.post(f"{MODEL}/chat/completions", json=asked, timeout=30).json()["choices"][0]["message"]
        messages.append(said)
        if not said.get("tool_calls"):
            return str(said["content"])
        for call in said["tool_calls"]:
            result = call_api(**json.loads(call["function"]["arguments"]))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


if __name__ == "__main__":
    print(run(sys.argv[1]))
