"""A disk that is full, fails, or can only be read, a ledger that somebody has locked; and then all is well again.

The disk is one megabyte in a mount namespace of its own, where there can be one. `CRASH_KILLS` makes the lock last for
half a minute, against the time that a proxy really waits.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from proxy import server
from proxy.ledger import writing
from tests.crash.sweep import Proxies

SMALL_DISK = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"')


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run([*SMALL_DISK, str(disk), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    return disk


@pytest.fixture
async def proxies(tmp_path: Path, disk: Path) -> AsyncIterator[Proxies]:
    async with Proxies(tmp_path, disk=disk, within=(*SMALL_DISK, str(disk))) as running:
        yield running


async def test_a_full_disk_refuses_calls_until_there_is_room_and_loses_nothing(proxies: Proxies) -> None:
    assert await proxies.start()
    effects = proxies.upstream.effects
    filler = proxies.seen_from_here(proxies.disk) / "filler"
    async with proxies.client() as client:
        assert (await client.post("/pay/first", content=b"{}")).status_code == 200
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        told: list[httpx.Response] = []
        while not told or told[-1].status_code == 200:
            told.append(await client.post(f"/pay/{len(told)}", content=b"{}"))
        refused = f"/pay/{len(told) - 1}"
        assert (told[-1].status_code, told[-1].json()["code"]) == (503, "store-error")
        assert (await client.get("/quota")).status_code == 503
        assert (effects[refused], effects["/quota"]) == (0, 0)
        filler.unlink()
        async with asyncio.timeout(30):
            while (await client.get("/quota")).status_code == 503:
                pass
        repeated = [await client.post(f"/pay/{name}", content=b"{}") for name in ("first", *range(len(told)))]
    assert [answer.status_code for answer in repeated] == [200] * (len(told) + 1)
    assert [answer.headers.get("idempotent-replayed") for answer in repeated] == ["true"] * len(told) + [None]
    proxies.kill()
    await proxies.dead()
    ledger = proxies.ledger()
    assert ledger.check_chain() == ""
    assert set(effects.values()) == {1}
    assert set(effects) == set(ledger.allowed)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def until_let_out(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while (await client.get("/quota")).status_code == 503:  # noqa: ASYNC110  the proxy tells nobody that it is well
            await asyncio.sleep(0.1)  # each refusal is a line that it says, and nobody listens


async def refused_for(client: httpx.AsyncClient, path: str, seconds: float) -> None:
    """Make the call again and again, for so long: each time it must be refused."""
    ends_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends_s:
        answer = await client.post(path, content=b"{}")
        assert (answer.status_code, answer.json()["code"]) == (503, "store-error")
        await asyncio.sleep(0.1)


async def check(proxies: Proxies, client: httpx.AsyncClient, done: int, refused: int) -> None:
    """Every call is made again, and then the proxy dies: each has taken effect once, and is on record."""
    names = [*(f"/pay/done-{n}" for n in range(done)), *(f"/pay/refused-{n}" for n in range(refused))]
    repeated = [await client.post(name, content=b"{}") for name in names]
    assert [answer.status_code for answer in repeated] == [200] * len(names)
    assert [answer.headers.get("idempotent-replayed") for answer in repeated] == ["true"] * done + [None] * refused
    proxies.kill()
    await proxies.dead()
    ledger = proxies.ledger()
    effects = proxies.upstream.effects
    assert ledger.check_chain() == ledger.check_snapshot(proxies.directory / "confdir") == ""
    assert set(effects.values()) == {1}
    assert set(effects) == set(ledger.allowed)


def mount(proxies: Proxies, words: str) -> None:
    """Mount something anew where the proxies are."""
    inside = ("nsenter", "-t", str(proxies.pid), "-m", "sh", "-c", words, str(proxies.disk))
    subprocess.run(inside, check=True, capture_output=True)


async def test_a_disk_that_fails_and_then_can_only_be_read_refuses_calls_until_it_is_well(proxies: Proxies) -> None:
    assert await proxies.start()
    effects = proxies.upstream.effects
    _, hard = resource.prlimit(proxies.pid, resource.RLIMIT_FSIZE)
    async with proxies.client() as client:
        assert (await client.post("/pay/done-0", content=b"{}")).status_code == 200
        resource.prlimit(proxies.pid, resource.RLIMIT_FSIZE, (0, hard))  # from now on, no write succeeds
        await refused_for(client, "/pay/refused-0", 0.3)
        mount(proxies, 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"')
        resource.prlimit(proxies.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        await refused_for(client, "/pay/refused-1", 2.5 * server.MEND_S)  # meanwhile it tries to write, twice
        assert (effects["/pay/refused-0"], effects["/pay/refused-1"]) == (0, 0)
        mount(proxies, 'mount -o remount,bind,rw "$0"')
        await until_let_out(client)
        await check(proxies, client, 1, 2)


async def test_a_lock_that_somebody_holds_refuses_calls_until_it_is_gone(tmp_path: Path) -> None:
    long = bool(int(os.environ.get("CRASH_KILLS", "0")))
    async with Proxies(tmp_path) as proxies:
        assert await proxies.start(busy_s=writing.BUSY_S if long else 0.3)
        async with proxies.client() as client:
            assert (await client.post("/pay/done-0", content=b"{}")).status_code == 200
            with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as outsider:
                outsider.execute("BEGIN IMMEDIATE")
                await refused_for(client, "/pay/refused-0", 30 if long else 1)
                assert proxies.upstream.effects["/pay/refused-0"] == 0
            await until_let_out(client)
            await check(proxies, client, 1, 1)
