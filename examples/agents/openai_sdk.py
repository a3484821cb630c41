"""An agent on the OpenAI SDK, with streamed answers."""

from __future__ import annotations

import json
import os
import sys

import httpx
from openai import OpenAI

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
    answer = httpx.request(method, SHOP + path, data=json.loads(fields or "{}") or None)
    return f"{answer.status_code} {answer.text}"


def run(task: str) -> str:
    client = OpenAI()
    messages = [{"role": "user", "content": task}]
    while True:
        with client.chat.completions.stream(model="scripted", messages=messages, tools=[TOOL]) as stream:
            said = stream.get_final_completion().choices[0].message
        messages.append(said.model_dump(exclude_none=True))
        if not said.tool_calls:
            return said.content or ""
        for call in said.tool_calls:
            result = call_api(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


if __name__ == "__main__":
    print(run(sys.argv[1]))
