"""An upstream that is down, and recovers, through a real proxy: what reaches it, and what the agent is told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from proxy.clock import Clock
from tests.proxy.conftest import Hit, answer

RULES = """
version: 1
rules: [{id: api, match: "{origin}/**", allow: true, breaker: {failures: 3, open: 5s}}]
"""


class Hand(Clock):
    """A clock that goes where the test puts it."""

    def __init__(self) -> None:
        self.at_ns = 1_800_000_000 * 10**9
        super().__init__(lambda: self.at_ns)


async def test_a_recovering_upstream_is_used_again(world: Any) -> None:
    clock = Hand()
    here = await world(RULES, clock)
    up = False

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(200 if up else 503)

    here.upstream.respond = respond
    async with here.client() as client:
        down = [await client.get(f"/{n}") for n in range(20)]
        assert len(here.upstream.hits) == 3
        assert [each.status_code for each in down] == [503] * 20
        refused = down[-1]
        assert (refused.json()["code"], refused.json()["executed"]) == ("circuit-open", "no")
        assert refused.headers["retry-after"] == "5"
        clock.at_ns += 5 * 10**9
        assert (await client.get("/still-down")).headers.get("proxy-status") is None, "the upstream's own 503"
        assert (await client.get("/again")).json()["code"] == "circuit-open"
        assert len(here.upstream.hits) == 4
        clock.at_ns += 10 * 10**9
        up = True
        assert [(await client.get(f"/{n}")).status_code for n in range(5)] == [200] * 5
        assert len(here.upstream.hits) == 9


async def test_a_restart_keeps_it_open(world: Any) -> None:
    clock = Hand()
    here = await world(RULES, clock)

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(502)

    here.upstream.respond = respond
    async with here.client() as client:
        for n in range(3):
            await client.get(f"/{n}")
    await here.proxy.stop()
    again = await world(RULES, clock)
    async with again.client() as client:
        assert (await client.get("/x")).json()["code"] == "circuit-open"
    assert len(again.upstream.hits) == 3


async def test_clients_that_leave_do_not_open_it(world: Any) -> None:
    here = await world(RULES)
    arrived = asyncio.Event()

    async def hang(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await asyncio.sleep(60)
        return answer(200)

    here.upstream.respond = hang
    for _ in range(4):
        arrived.clear()
        async with here.client() as client:
            leaving = asyncio.ensure_future(client.get("/slow"))
            await asyncio.wait_for(arrived.wait(), 10)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
    here.upstream.respond = None
    async with here.client() as client:
        got: httpx.Response = await client.get("/fast")
    assert got.status_code == 200
    assert len(here.upstream.hits) == 5
