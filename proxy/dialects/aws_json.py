"""AWS services that speak JSON (DynamoDB, SQS, Lambda and others): the problem as it is, with a status that ends it.

Their SDKs repeat whatever answers 429 or 5xx, and know no header that says not to: what is final is 400, as AWS itself
answers what is over a limit. https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
"""

from __future__ import annotations

import msgspec

from proxy.dialects.plain import body
from proxy.reply import Reply, Told
from rules.call import Call


def spoken_in(call: Call) -> bool:
    """What names its operation in a header, and what is signed for AWS."""
    signed = (call.header("authorization") or "").startswith("AWS4-HMAC-SHA256 ")
    return signed or call.header("x-amz-target") is not None


def status(told: Told) -> int:
    """The status for SDKs of AWS."""
    return 400 if told.final and (told.status == 429 or told.status >= 500) else told.status


def write(told: Told) -> Reply:
    """The problem; `__type` and `message` in it are what the SDKs read."""
    content = msgspec.json.encode({**told.problem, "status": status(told)}) + b"\n"
    return body(told, status(told), "application/problem+json", content)
