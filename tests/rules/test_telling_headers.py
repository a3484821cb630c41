"""Headers by which tools tell calls apart: two calls that differ in one are two acts, and two tries stay one."""

from __future__ import annotations

from typing import Any

import pytest

from rules.call import Call
from rules.fingerprint import fingerprint, may_tell
from tests.rules.world import World, call

SHOP = """
tools:
  create: {match: {request: POST https://api.example.com/orders, where: {header.X-Action: {eq: create}}}}
  cancel: {match: {request: POST https://api.example.com/orders, where: {header.x-action: {in: [cancel, drop]}}}}
  copy: {match: {request: PUT https://api.example.com/files/*, where: {header.x-source: {exists: true}}}}
  odd:
    match:
      request: POST https://api.example.com/odd
      where:
        any:
          - {header.idempotency-key: {exists: true}}
          - {header.x-stainless-retry-count: {gte: 1}}
          - {header.x-shop-secret: {exists: true}}
          - {header.x-shop-once: {exists: true}}
          - {header.user-agent: {prefix: "shop"}}
          - {header.x-amz-target: {prefix: "Orders"}}
    credential: header.X-Shop-Secret
    upstream_key: X-Shop-Once
rules:
  - {id: all, match: "https://**", allow: true, dedupe: {methods: [POST, PUT]}}
  - {id: retries, match: {request: "https://**", where: {header.x-tries: {gte: 2}}}, loop: true}
"""


def sent(*headers: tuple[str, str], path: str = "/orders", method: str = "POST", **given: Any) -> Call:
    return call(method, path, body='{"order": 7}', headers=headers, **given)


def done(*asked: Call, rules: str = SHOP) -> list[str]:
    world = World(rules)
    return [world.do(each) for each in asked]


@pytest.mark.parametrize(
    ("one", "other", "second"),
    [
        (sent(("x-action", "create")), sent(("x-action", "cancel")), "allow"),
        (sent(("x-action", "cancel")), sent(("x-action", "drop")), "allow"),
        (sent(("x-action", "create")), sent(), "allow"),
        (sent(("x-action", "other")), sent(("x-action", "another")), "allow"),
        (sent(("x-action", "create")), sent(("x-action", "create")), "replay"),
        (sent(("x-action", "create"), ("x-action", "drop")), sent(("x-action", "create")), "allow"),
        (sent(("x-action", "create"), ("x-trace", "1")), sent(("x-trace", "2"), ("x-action", "create")), "replay"),
        (sent(("x-action", "create"), path="/else"), sent(("x-action", "cancel"), path="/else"), "replay"),
        (
            sent(("x-source", "a"), path="/files/k", method="PUT"),
            sent(("x-source", "b"), path="/files/k", method="PUT"),
            "allow",
        ),
        (sent(("x-tries", "1")), sent(("x-tries", "2")), "replay"),
    ],
)
def test_a_header_that_tells_tools_apart_tells_acts_apart(one: Call, other: Call, second: str) -> None:
    assert done(one, other) == ["allow", second]


@pytest.mark.parametrize(
    "name", ["idempotency-key", "x-stainless-retry-count", "x-shop-secret", "x-shop-once", "user-agent"]
)
def test_what_differs_from_try_to_try_never_makes_two_acts_of_one(name: str) -> None:
    assert done(sent((name, "shop1"), path="/odd"), sent((name, "shop2"), path="/odd")) == ["allow", "replay"]


@pytest.mark.parametrize(
    ("name", "may"),
    [
        *[
            (name, True)
            for name in (
                "x-action",
                "x-http-method-override",
                "x-amz-copy-source",
                "x-amz-acl",
                "api-version",
                "accept",
                "range",
            )
        ],
        *[
            (name, False)
            for name in (
                *("idempotency-key", "paypal-request-id", "x-request-id", "x-correlation-id", "traceparent", "b3"),
                *("x-retry-attempt", "x-stainless-retry-count", "amz-sdk-invocation-id", "date", "x-amz-date"),
                *(
                    "x-goog-api-client",
                    "mcp-session-id",
                    "last-event-id",
                    "x-ms-date",
                    "x-request-start",
                    "grpc-timeout",
                ),
                *("x-datadog-parent-id", "x-ot-span-context", "x-stripe-client-user-agent", "x-server-timeout"),
                *("authorization", "cookie", "x-api-key", "apikey", "x-auth-token", "user-agent", "content-length"),
            )
        ],
    ],
)
def test_which_headers_may_say_what_is_asked_for(name: str, may: bool) -> None:
    assert may_tell(name) is may


@pytest.mark.parametrize("key", ["", ", key: body.order"])
def test_a_call_without_such_a_header_keeps_its_fingerprint(key: str) -> None:
    """Claims of today's ledgers are found again after tools that read headers have come to stand beside them."""
    plain = f"rules: [{{id: all, match: 'https://**', allow: true, dedupe: {{methods: [POST]{key}}}}}]"
    told = SHOP.partition("rules:")[0] + plain
    for asked in (sent(), sent(("x-trace", "1")), sent(("x-amz-target", "Orders.Create"), path="/odd")):
        keys = []
        for rules in (plain, told):
            world = World(rules)
            keys.append([change.key for change in world.ask(asked).changes if change.op == "claim"])
        assert len(keys[0]) == 1
        assert keys[0] == keys[1]


def test_the_order_of_such_headers_does_not_matter_and_their_names_do() -> None:
    one, other = sent(("x-a", "1"), ("x-b", "2")), sent(("x-b", "2"), ("x-a", "1"))
    crossed = sent(("x-a", "2"), ("x-b", "1"))
    telling = ("x-a", "x-b")
    prints = [fingerprint(each, [], None, (), telling) for each in (one, other, crossed)]
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint(one, [], None) == fingerprint(crossed, [], None)
