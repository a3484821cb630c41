"""Run by the clients' own Python: `retries.py CLIENT ORIGIN` makes one call with CLIENT's own settings.

Prints a line of JSON: what was raised, and its text.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def with_requests(origin: str) -> None:
    import_module("requests").post(origin + "/v1/refunds", data={"charge": "ch_1"}, timeout=60).raise_for_status()


def with_httpx(origin: str) -> None:
    import_module("httpx").post(origin + "/v1/refunds", data={"charge": "ch_1"}, timeout=60).raise_for_status()


def with_aiohttp(origin: str) -> None:
    aiohttp = import_module("aiohttp")

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(origin + "/v1/refunds", data={"charge": "c"}) as got,
        ):
            got.raise_for_status()

    import_module("asyncio").run(ask())


def with_stripe(origin: str) -> None:
    stripe: Any = import_module("stripe")
    stripe.api_key, stripe.api_base = "sk_test_1", origin
    stripe.Refund.create(charge="ch_1", amount=500)


def with_openai(origin: str) -> None:
    made = import_module("openai").OpenAI(api_key="sk-1", base_url=origin + "/v1")
    made.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def with_anthropic(origin: str) -> None:
    made = import_module("anthropic").Anthropic(api_key="sk-1", base_url=origin)
    made.messages.create(model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}])


def with_boto3(origin: str) -> None:
    made = import_module("boto3").client(
        "dynamodb",
        endpoint_url=origin,
        region_name="us-east-1",
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="secret",
    )
    made.put_item(TableName="t", Item={"a": {"S": "1"}})


CLIENTS = {
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
    "stripe": with_stripe,
    "openai": with_openai,
    "anthropic": with_anthropic,
    "boto3": with_boto3,
}

if __name__ == "__main__":
    raised = ["", ""]
    try:
        CLIENTS[sys.argv[1]](sys.argv[2])
    except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
        raised = [type(error).__name__, str(error)]
    sys.stdout.write(json.dumps(raised) + "\n")
