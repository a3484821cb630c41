"""concurrency through a real proxy: the most requests that the upstream ever had at the same time are the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crash.sweep import Proxies
from tests.proxy.conftest import Hit, answer
from tests.proxy.test_waiting import until_waiting

REFUSING = """
version: 1
rules: [{id: two, match: "{origin}/**", allow: true, concurrency: 2}]
"""
WAITING = REFUSING.replace("concurrency: 2", "concurrency: {max: 2, wait: 30s}")
ONE = REFUSING.replace("concurrency: 2", "concurrency: 1")


class Gauge:
    """An upstream that holds each request until it is let go, and knows the most that it ever held."""

    def __init__(self, here: Any) -> None:
        self.now = self.most = 0
        self.changed = asyncio.Event()
        self.go = asyncio.Semaphore(0)
        self.targets: list[str] = []
        here.upstream.respond = self.respond

    async def respond(self, hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        self.targets.append(hit.target)
        self.now += 1
        self.most = max(self.most, self.now)
        self.changed.set()
        await self.go.acquire()
        self.now -= 1
        if hit.target == "/breaks":
            writer.transport.abort()
        return answer(500 if hit.target == "/fails" else 200)

    async def has(self, count: int) -> None:
        """Return when so many requests have arrived."""
        while len(self.targets) < count:
            self.changed.clear()
            await self.changed.wait()


async def test_the_third_at_the_same_time_is_refused(world: Any) -> None:
    here = await world(REFUSING)
    gauge = Gauge(here)
    async with here.client(timeout=30) as client:
        out = [asyncio.create_task(client.get(f"/{n}")) for n in range(2)]
        await gauge.has(2)
        refused = await client.get("/third")
        assert (refused.status_code, refused.json()["code"]) == (429, "concurrency")
        assert (refused.json()["retry"], refused.headers["retry-after"]) == ({"when": "yes", "after_s": 2}, "2")
        assert refused.json()["executed"] == "no"
        gauge.go.release()
        gauge.go.release()
        assert [(await one).status_code for one in out] == [200, 200]
        gauge.go.release()
        assert (await client.get("/fourth")).status_code == 200
    assert (gauge.most, len(here.upstream.hits)) == (2, 3)


async def test_forty_that_wait_all_go_and_never_more_than_two_at_once(world: Any) -> None:
    here = await world(WAITING)
    gauge = Gauge(here)
    async with here.client(timeout=60, limits=httpx.Limits(max_connections=50)) as client:
        calls = [asyncio.create_task(client.get(f"/{n}")) for n in range(40)]
        await gauge.has(2)
        await until_waiting(here, 38)
        for _ in calls:
            gauge.go.release()
        got = await asyncio.gather(*calls)
    assert {one.status_code for one in got} == {200}
    assert (gauge.most, len(gauge.targets)) == (2, 40)


async def test_those_that_wait_go_in_the_order_in_which_they_came(world: Any) -> None:
    here = await world(WAITING)
    gauge = Gauge(here)
    async with here.client(timeout=30) as client:
        calls = [asyncio.create_task(client.get(f"/out-{n}")) for n in range(2)]
        await gauge.has(2)
        for n in range(5):
            calls.append(asyncio.create_task(client.get(f"/{n}")))
            await until_waiting(here, n + 1)
        for n in range(7):
            gauge.go.release()
            await gauge.has(min(n + 3, 7))
        await asyncio.gather(*calls)
    assert gauge.targets[2:] == ["/0", "/1", "/2", "/3", "/4"]


async def test_at_most_fifty_wait(world: Any) -> None:
    here = await world(WAITING)
    gauge = Gauge(here)
    async with here.client(timeout=30, limits=httpx.Limits(max_connections=60)) as client:
        out = [asyncio.create_task(client.get(f"/{n}")) for n in range(52)]
        await until_waiting(here, 50)
        assert (await client.get("/one-more")).json()["code"] == "concurrency"
        for _ in out:
            gauge.go.release()
        assert {one.status_code for one in await asyncio.gather(*out)} == {200}


async def test_one_that_has_waited_long_enough_is_refused(world: Any) -> None:
    here = await world(ONE.replace("concurrency: 1", "concurrency: {max: 1, wait: 100ms}"))
    gauge = Gauge(here)
    async with here.client(timeout=30) as client:
        out = asyncio.create_task(client.get("/out"))
        await gauge.has(1)
        assert (await client.get("/late")).json()["code"] == "concurrency"
        gauge.go.release()
        assert (await out).status_code == 200
    assert gauge.targets == ["/out"]


@pytest.mark.parametrize(("path", "status"), [("/fails", 500), ("/breaks", 502)])
async def test_the_lease_comes_back_after_a_failure(world: Any, path: str, status: int) -> None:
    here = await world(ONE)
    gauge = Gauge(here)
    gauge.go.release()
    gauge.go.release()
    async with here.client(timeout=30) as client:
        assert (await client.get(path)).status_code == status
        assert (await client.get("/after")).status_code == 200


async def test_the_lease_comes_back_when_the_upstream_cannot_be_reached(world: Any, upstream: Any) -> None:
    here = await world(ONE)
    await upstream.stop()
    async with here.client(timeout=30) as client:
        codes = [(await client.get("/")).json()["code"] for _ in range(3)]
    assert codes == ["upstream-failed"] * 3


async def body() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("leaves", ["while the upstream works", "while it still sends", "while it waits"])
async def test_the_lease_comes_back_when_the_client_leaves(world: Any, leaves: str, http2: bool) -> None:
    here = await world(WAITING.replace("max: 2", "max: 1"))
    gauge = Gauge(here)
    hasty = httpx.Timeout(20, read=0.15)
    async with here.client(timeout=30) as client:
        if leaves == "while it waits":
            out = asyncio.create_task(client.get("/out"))
            await gauge.has(1)
        async with here.client(timeout=hasty, http2=http2) as other:
            if leaves == "while it still sends":
                sends = asyncio.create_task(other.post("/leaves", content=body(), headers={"content-length": "5"}))
                while not here.proxy.counts:  # noqa: ASYNC110  it is decided on its head
                    await asyncio.sleep(0.005)
                sends.cancel()
            else:
                with pytest.raises(httpx.ReadTimeout):
                    await other.get("/leaves")
        after = asyncio.create_task(client.get("/after"))
        gauge.go.release()
        gauge.go.release()
        assert (await after).status_code == 200
        if leaves == "while it waits":
            assert (await out).status_code == 200
            assert gauge.targets == ["/out", "/after"]


async def test_the_lease_of_a_call_whose_proxy_was_killed_is_free_after_the_restart(tmp_path: Path) -> None:
    async with Proxies(tmp_path) as proxies:
        proxies.write_rules("  - {id: one, match: 'https://**', concurrency: 1}\n")

        async def kill() -> None:
            proxies.kill()

        proxies.upstream.moments["acted", "/pay/held"] = kill
        assert await proxies.start()
        async with proxies.client() as client:
            with pytest.raises(httpx.HTTPError):
                await client.post("/pay/held", content=b"{}")
        await proxies.dead()
        assert await proxies.start()
        async with proxies.client() as client:
            got = [(await client.post(f"/pay/{n}", content=b"{}")).status_code for n in range(3)]
        proxies.kill()
        await proxies.dead()
    assert got == [200] * 3
    assert proxies.upstream.effects.total() == 4
