"""A disk of one megabyte that is full, and then is not; in a mount namespace of its own, where there can be one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

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
