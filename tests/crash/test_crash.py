"""kill -9 at every step of a call, of a start, of a reload and of an end. See `sweep.py` for what must hold.

`CRASH_KILLS` says how often the sweep kills, and the storm restarts a tenth as often; `make crash` kills 500 times.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from tests.crash.sweep import FEW_STEPS, FIRST_START, STEPS, Proxies, Sweep

KILLS = int(os.environ.get("CRASH_KILLS", "0"))
RESTARTS = max(5, KILLS // 10)
QUOTA = 10 * RESTARTS
AGENTS = 6


@pytest.fixture
async def proxies(tmp_path: Path) -> AsyncIterator[Proxies]:
    async with Proxies(tmp_path, QUOTA) as running:
        yield running


async def test_whenever_it_is_killed_nothing_happens_twice_and_nothing_is_lost(proxies: Proxies) -> None:
    sweep = Sweep(proxies)
    steps = cycle(STEPS if KILLS else FEW_STEPS)
    for _ in FEW_STEPS:
        await sweep.kill_at(next(steps))
    while sweep.kills.total() < KILLS:
        await sweep.kill_at(next(steps))
    await sweep.kill_at("acted")  # and so the calls of the step before are repeated, too
    sys.stdout.write("\n" + sweep.report())
    assert sweep.violations == []
    assert {"done", "none", "unknown"} <= set(sweep.repeated)


@pytest.mark.parametrize("step", FIRST_START)
async def test_a_first_start_that_is_killed_does_not_hinder_the_second(proxies: Proxies, step: str) -> None:
    assert not await proxies.start(step)
    assert await proxies.start()
    async with proxies.client() as client:
        assert (await client.post("/pay/1", content=b"{}")).status_code == 200
    proxies.kill()
    await proxies.dead()
    assert proxies.ledger().check_chain() == ""


async def test_a_storm_of_restarts_under_load_leaves_a_window_exact(proxies: Proxies) -> None:
    """Agents call as fast as they can; the proxy is killed again and again in the middle of it."""
    told: Counter[int] = Counter()
    enough = asyncio.Event()

    async def agent(client: httpx.AsyncClient, until: int) -> None:
        while not enough.is_set():
            try:
                answer = await client.get("/quota")
            except httpx.HTTPError:
                return  # the proxy was killed
            told[answer.status_code] += 1
            if told.total() >= until:
                enough.set()

    let_out = 0
    for _ in range(RESTARTS):
        assert await proxies.start()
        enough.clear()
        async with proxies.client() as client:
            until = told.total() + 2 * AGENTS
            agents = [asyncio.create_task(agent(client, until)) for _ in range(AGENTS)]
            await enough.wait()
            proxies.kill()
            await proxies.dead()
            await asyncio.gather(*agents)
        ledger = proxies.ledger()
        assert let_out <= ledger.allowed["/quota"] <= QUOTA
        assert proxies.upstream.effects["/quota"] <= ledger.allowed["/quota"]
        let_out = ledger.allowed["/quota"]
    assert await proxies.start()
    async with proxies.client() as client:
        for _ in range(QUOTA - let_out):
            assert (await client.get("/quota")).status_code == 200
        assert (await client.get("/quota")).status_code == 429
    proxies.kill()
    await proxies.dead()
    assert proxies.ledger().allowed["/quota"] == QUOTA
    sys.stdout.write(f"\n{RESTARTS:6} restarts under load, {dict(told)}: {QUOTA} calls were let out\n")
