"""Run by the clients' own Python: one write by each SDK, as its documentation would make it, at an API that is ours.

`sdks.py once SDK ORIGIN` makes it. `sdks.py stream SDK ORIGIN` has the answer streamed, and prints it. `sdks.py refused
SDK ORIGIN ELSEWHERE` makes it once for each of the table's columns, under a path of that column, and prints a line of
JSON for each: the path, what was raised, and its text.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

ROWS = ("denied", "duplicate", "spent", "pause", "unreached", "cut", "failing", "cooldown")
"""What goes wrong there. The last one holds for the whole host."""

TWICE = ("duplicate", "spent", "pause", "cooldown")
"""Where another such call comes before, which the API answers."""

REFUND = {"charge": "ch_1", "amount": "500"}
ISSUE = "mutation { createIssue { id } }"
AWS = {"region_name": "us-east-1", "aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret"}
CHAT: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

type Write = Callable[[str, bool], object]
"""Makes the call at an address; with the SDK's own retries, or without."""


def by_requests(base: str, retries: bool) -> None:
    import_module("requests").post(base + "/v1/refunds", data=REFUND, timeout=60).raise_for_status()


def by_httpx(base: str, retries: bool) -> None:
    import_module("httpx").post(base + "/v1/refunds", data=REFUND, timeout=60).raise_for_status()


def by_aiohttp(base: str, retries: bool) -> None:
    aiohttp = import_module("aiohttp")

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.post(base + "/v1/refunds", data=REFUND) as got:
            got.raise_for_status()

    asyncio.run(ask())


def by_stripe(base: str, retries: bool) -> None:
    stripe: Any = import_module("stripe")
    stripe.api_key, stripe.api_base = "sk_test_1", base
    own = stripe.max_network_retries
    stripe.max_network_retries = own if retries else 0
    try:
        stripe.Refund.create(charge="ch_1", amount=500)
    finally:
        stripe.max_network_retries = own


def by_openai(base: str, retries: bool) -> None:
    made = import_module("openai").OpenAI(api_key="sk-1", base_url=base + "/v1")
    (made if retries else made.with_options(max_retries=0)).chat.completions.create(**CHAT)


def by_anthropic(base: str, retries: bool) -> None:
    made = import_module("anthropic").Anthropic(api_key="sk-1", base_url=base)
    (made if retries else made.with_options(max_retries=0)).messages.create(max_tokens=10, **CHAT)


def _aws(service: str, base: str, retries: bool) -> Any:
    config = import_module("botocore.config").Config(
        s3={"addressing_style": "path"}, **({} if retries else {"retries": {"total_max_attempts": 1}})
    )
    return import_module("boto3").client(service, endpoint_url=base, config=config, **AWS)


def by_boto3(base: str, retries: bool) -> None:
    _aws("dynamodb", base, retries).put_item(TableName="t", Item={"a": {"S": "1"}})


def by_boto3_s3(base: str, retries: bool) -> None:
    _aws("s3", base, retries).create_multipart_upload(Bucket="one", Key="k")


def by_slack_sdk(base: str, retries: bool) -> None:
    import_module("slack_sdk").WebClient(token="xoxb-1", base_url=base + "/").chat_postMessage(channel="C1", text="hi")


def by_twilio(base: str, retries: bool) -> None:
    made = import_module("twilio.rest").Client("AC1", "token")
    made.api.base_url = base
    made.messages.create(to="+15550001", from_="+15550002", body="hi")


def by_sendgrid(base: str, retries: bool) -> None:
    mail = import_module("sendgrid.helpers.mail").Mail("a@example.com", "b@example.com", "hi", "hello")
    import_module("sendgrid").SendGridAPIClient("SG.1", host=base).send(mail)


def by_pygithub(base: str, retries: bool) -> None:
    github = import_module("github")
    options = {} if retries else {"retry": None}
    made = github.Github(auth=github.Auth.Token("ghp_1"), base_url=base, **options)
    made.get_repo("acme/shop", lazy=True).create_issue("broken")


def by_notion(base: str, retries: bool) -> None:
    made = import_module("notion_client").Client(auth="ntn_1", base_url=base, **({} if retries else {"retry": False}))
    made.pages.create(parent={"page_id": "1"}, properties={})


def by_gql(base: str, retries: bool) -> None:
    gql = import_module("gql")
    transport = import_module("gql.transport.requests").RequestsHTTPTransport(url=base + "/graphql")
    gql.Client(transport=transport).execute(gql.gql(ISSUE))


SDKS: dict[str, Write] = {
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "stripe": by_stripe,
    "openai": by_openai,
    "anthropic": by_anthropic,
    "boto3": by_boto3,
    "boto3-s3": by_boto3_s3,
    "slack_sdk": by_slack_sdk,
    "twilio": by_twilio,
    "sendgrid": by_sendgrid,
    "PyGithub": by_pygithub,
    "notion-client": by_notion,
    "gql": by_gql,
}


def openai_stream(origin: str) -> str:
    made = import_module("openai").OpenAI(api_key="sk-1", base_url=origin + "/v1")
    with made.chat.completions.create(stream=True, **CHAT) as stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def anthropic_stream(origin: str) -> str:
    made = import_module("anthropic").Anthropic(api_key="sk-1", base_url=origin)
    with made.messages.stream(max_tokens=10, **CHAT) as stream:
        return "".join(stream.text_stream)


STREAMS = {"openai": openai_stream, "anthropic": anthropic_stream}
"""SDK -> what it makes of server-sent events."""


def refused(write: Write, origin: str, elsewhere: str) -> None:
    for row in ROWS:
        base = f"{elsewhere if row == 'unreached' else origin}/{row}"
        if row in TWICE:
            try:
                write(base, False)
            except Exception:  # noqa: BLE001  the API's own 429
                assert row == "cooldown", row
        raised = ["", ""]
        try:
            write(base, True)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
            raised = [type(error).__name__, str(error)]
        sys.stdout.write(json.dumps([row, *raised]) + "\n")


if __name__ == "__main__":
    how, name, *where = sys.argv[1:]
    if how == "once":
        SDKS[name](where[0], True)
    elif how == "stream":
        sys.stdout.write(STREAMS[name](where[0]))
    else:
        refused(SDKS[name], *where)
