"""A proxy's life: start, restart, reload, stop, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.clock import Clock
from proxy.ledger.entries import LedgerError, RulesetEntry
from proxy.rulefiles import read
from proxy.server import Proxy
from proxy.settings import SettingsError

RULES = """
version: 1
tools:
  pay: POST {origin}/pay
  look: GET {origin}/**
rules:
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
  - {id: look, tool: look, allow: true, throttle: 2/min}
"""


async def again(here: Any) -> Proxy:
    """A second proxy on the same ledger and rules."""
    second = Proxy(here.settings, read(here.settings.rules, here.directory))
    await second.start()
    return second


async def test_a_restart_forgets_no_claim_and_frees_no_quota(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        first = await client.post("/pay", json={"amount": 5})
        for _ in range(2):
            assert (await client.get("/a")).status_code == 200
    await here.proxy.stop()
    second = await again(here)
    try:
        async with here.client(proxy=f"http://127.0.0.1:{second.address[1]}") as client:
            repeated = await client.post("/pay", json={"amount": 5})
            refused = await client.get("/a")
    finally:
        await second.stop()
    assert (repeated.content, repeated.headers["idempotent-replayed"]) == (first.content, "true")
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert len(here.upstream.hits) == 3


@pytest.mark.parametrize("change", [b"", b"not a snapshot\n", None], ids=["as it was", "changed", "deleted"])
async def test_a_proxy_leaves_a_snapshot_and_the_next_one_remembers_the_same_with_or_without(
    world: Any, change: bytes | None
) -> None:
    here = await world(RULES)
    async with here.client() as client:
        await client.post("/pay", json={"amount": 5})
        for _ in range(2):
            await client.get("/a")
    await here.proxy.stop()
    snapshot = here.ledger.with_name("ledger.db.snapshot")
    assert snapshot.read_bytes().startswith(b"borderpost snapshot 2\n")
    if change is None:
        snapshot.unlink()
    elif change:
        snapshot.write_bytes(change)
    second = await again(here)
    try:
        async with here.client(proxy=f"http://127.0.0.1:{second.address[1]}") as client:
            assert (await client.post("/pay", json={"amount": 5})).headers["idempotent-replayed"] == "true"
            assert (await client.get("/a")).json()["code"] == "rate-limited"
    finally:
        await second.stop()
    assert len(here.upstream.hits) == 3
    assert snapshot.read_bytes().startswith(b"borderpost snapshot 2\n")


async def test_a_call_that_was_out_when_the_proxy_died_is_unknown_after_a_restart(world: Any) -> None:
    here = await world(RULES)
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await finish.wait()
        writer.transport.abort()
        return b""

    here.upstream.respond = respond
    async with here.client() as client:
        call = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        await arrived.wait()
        copy = here.directory / "copy"
        copy.mkdir()
        with sqlite3.connect(here.ledger) as source, sqlite3.connect(copy / "ledger.db") as target:
            source.backup(target)
        source.close()
        target.close()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    here.upstream.respond = None
    settings = msgspec.structs.replace(here.settings, ledger=copy / "ledger.db")
    second = Proxy(settings, read(settings.rules, here.directory))
    await second.start()
    try:
        async with here.client(proxy=f"http://127.0.0.1:{second.address[1]}") as client:
            got = await client.post("/pay", json={"amount": 5})
    finally:
        await second.stop()
        finish.set()
    assert (got.status_code, got.json()["code"], got.json()["executed"]) == (409, "outcome-unknown", "unknown")
    assert len(here.upstream.hits) == 1


async def rewrite(here: Any, text: str) -> None:
    """Have the rule file say `text`, and wait until the proxy has read it."""
    count = here.proxy.reloaded + 1
    scratch = here.directory / "scratch"
    scratch.write_text(text)
    scratch.replace(here.directory / "rules.yaml")
    async with asyncio.timeout(20):
        while here.proxy.reloaded < count:
            await here.proxy.changed.wait()


async def test_rules_are_reloaded_and_broken_ones_leave_the_last_good_set_in_force(world: Any) -> None:
    here = await world(RULES, reload=True)
    good = (here.directory / "rules.yaml").read_text()
    async with here.client() as client:
        assert (await client.put("/a")).json()["code"] == "no-allow"
        await rewrite(here, good + f"  - {{id: put, match: 'PUT {here.origin}/a', allow: true}}\n")
        assert (await client.put("/a")).status_code == 200
        await rewrite(here, good + "  - {id: put, alow: true}\n")
        assert (await client.put("/a")).status_code == 200
        await rewrite(here, "")
        assert (await client.put("/a")).status_code == 200
    with sqlite3.connect(here.ledger) as ledger:
        kept = [row[0] for row in ledger.execute("select rest ->> '$.problem' from entries where kind = 'ruleset'")]
    ledger.close()
    assert [bool(problem) for problem in kept] == [False, False, True, True]
    assert "alow" in kept[2]


async def test_a_port_in_use_is_said_and_nothing_is_left_behind(world: Any) -> None:
    here = await world(RULES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = msgspec.structs.replace(
            here.settings, listen_port=taken.getsockname()[1], ledger=here.directory / "other.db"
        )
        with pytest.raises(OSError, match="address already in use"):
            await Proxy(settings, read(settings.rules, here.directory)).start()
    await again_on(settings, here)


async def again_on(settings: Any, here: Any) -> None:
    free = Proxy(msgspec.structs.replace(settings, listen_port=0), read(settings.rules, here.directory))
    await free.start()
    await free.stop()


async def test_proxies_that_trust_the_same_share_one_file_of_authorities(world: Any) -> None:
    here = await world(RULES)
    await here.proxy.stop()
    (bundle,) = here.settings.confdir.glob("upstream-ca.*")
    trusted = bundle.read_bytes()
    await again_on(here.settings, here)
    assert list(here.settings.confdir.glob("upstream-ca.*")) == [bundle]
    await again_on(msgspec.structs.replace(here.settings, upstream_ca=here.settings.upstream_ca * 2), here)
    assert (len(list(here.settings.confdir.glob("upstream-ca.*"))), bundle.read_bytes()) == (2, trusted)


async def test_a_ledger_in_use_is_refused_by_name(world: Any) -> None:
    here = await world(RULES)
    with pytest.raises(LedgerError, match="in use by process"):
        await again(here)


async def test_of_two_proxies_on_one_ledger_fifty_twins_make_one_effect(world: Any) -> None:
    """Row 29 of the table of duplicates: the second proxy never answers, so all twins meet the claims of the first."""
    here = await world("version: 1\nrules: [{id: pay, match: 'POST {origin}/**', allow: true, dedupe: 1h}]\n")
    second = Proxy(msgspec.structs.replace(here.settings, listen_port=0), read(here.settings.rules, here.directory))
    with pytest.raises(LedgerError, match="in use by process"):
        await second.start()
    assert second.address == ("", 0)
    async with here.client(timeout=30) as client:
        answers = await asyncio.gather(*(client.post("/pay", json={"amount": 5}) for _ in range(50)))
    assert {(got.status_code, got.content) for got in answers} == {(200, b'{"n":1}')}
    assert len(here.upstream.hits) == 1


async def test_beyond_loopback_without_agents_it_refuses_to_start(world: Any) -> None:
    here = await world(RULES)
    settings = msgspec.structs.replace(here.settings, listen_host="0.0.0.0", ledger=here.directory / "other.db")
    with pytest.raises(SettingsError, match="agent add"):
        await Proxy(settings, read(settings.rules, here.directory)).start()


async def test_a_call_in_flight_ends_before_the_proxy_stops(world: Any) -> None:
    here = await world(RULES)
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await finish.wait()
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    here.upstream.respond = respond
    async with here.client() as client:
        call = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        await arrived.wait()
        stopping = asyncio.create_task(here.proxy.stop())
        finish.set()
        assert (await call).status_code == 200
        await stopping
    with sqlite3.connect(here.ledger) as ledger:
        rows = ledger.execute("select outcome from entries where kind = 'outcome'").fetchall()
    ledger.close()
    assert rows == [("done",)]


async def test_a_clock_that_is_set_back_frees_no_quota(world: Any) -> None:
    wall = [1_700_000_000_000_000_000]
    here = await world(RULES, clock=Clock(lambda: wall[0]))
    async with here.client() as client:
        for _ in range(2):
            assert (await client.get("/a")).status_code == 200
        wall[0] -= 3600 * 1_000_000_000
        assert (await client.get("/a")).status_code == 429
        wall[0] += 3659 * 1_000_000_000
        assert (await client.get("/a")).status_code == 429
        wall[0] += 1_000_000_000
        assert (await client.get("/a")).status_code == 200


async def test_a_throttled_call_is_told_when_to_come_back(world: Any) -> None:
    wall = [1_700_000_000_000_000_000]
    here = await world(RULES, clock=Clock(lambda: wall[0]))
    async with here.client() as client:
        for _ in range(2):
            await client.get("/a")
        wall[0] += 55 * 1_000_000_000
        got = await client.get("/a")
    assert got.status_code == 429
    assert got.headers["retry-after"] == "5"
    assert got.headers["ratelimit"] == '"look";r=0;t=5'
    assert got.headers["ratelimit-policy"] == '"look";q=2;w=60'
    assert len(here.upstream.hits) == 2


async def test_a_throttle_that_waits_paces_calls_in_order(world: Any) -> None:
    here = await world(RULES.replace("throttle: 2/min", "throttle: {pace: 10/s, wait: 20s}"))
    async with here.client(timeout=30) as client:
        got = await asyncio.gather(*(client.get(f"/{number}") for number in range(6)))
    assert {answer.status_code for answer in got} == {200}
    with sqlite3.connect(here.ledger) as ledger:
        sent = [row[0] for row in ledger.execute("select rest ->> '$.send_at_ns' from entries where kind='decision'")]
    ledger.close()
    delayed = sorted(int(at) for at in sent if at)
    assert len(delayed) == 5
    assert {later - earlier for earlier, later in pairwise(delayed)} == {100_000_000}


async def test_nothing_that_leaves_is_missing_from_the_ledger(world: Any, tmp_path: Path) -> None:
    here = await world(RULES)
    async with here.client() as client:
        await asyncio.gather(*(client.post("/pay", json={"amount": number}) for number in range(20)))
    with sqlite3.connect(here.ledger) as ledger:
        allowed = ledger.execute("select count(*) from entries where decision = 'allow'").fetchone()[0]
    ledger.close()
    assert allowed == len(here.upstream.hits) == 20


async def test_an_upstream_429_cools_the_credential_down(world: Any) -> None:
    wall = [1_700_000_000_000_000_000]
    here = await world(RULES, clock=Clock(lambda: wall[0]))

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        return b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"

    here.upstream.respond = respond
    async with here.client() as client:
        assert (await client.post("/pay", json={"amount": 5})).status_code == 429
        cooled = await client.post("/pay", json={"amount": 5})
        here.upstream.respond = None
        wall[0] += 7_000_000_000
        after = await client.post("/pay", json={"amount": 5})
    assert (cooled.status_code, cooled.json()["code"], cooled.json()["executed"]) == (503, "upstream-cooldown", "no")
    assert after.status_code == 200
    assert len(here.upstream.hits) == 2


async def test_an_agent_in_a_loop_of_refusals_does_not_fill_the_ledger(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        for _ in range(150):
            assert (await client.delete("/a")).status_code == 403
    await here.proxy.stop()
    with sqlite3.connect(here.ledger) as ledger:
        rows = ledger.execute("select count(*), sum(calls), max(calls) from entries where decision = 'deny'").fetchall()
    ledger.close()
    assert rows == [(101, 150, 50)]
    assert here.proxy.counts == {"deny": 150}


@pytest.mark.parametrize("moved", [False, True])
async def test_a_ledger_that_was_taken_away_lets_nothing_out(world: Any, moved: bool) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert (await client.post("/pay", json={"amount": 1})).status_code == 200
        if moved:
            here.ledger.rename(here.ledger.with_name("elsewhere.db"))
        else:
            here.ledger.unlink()
        got = await client.post("/pay", json={"amount": 2})
    assert (got.status_code, got.json()["code"], got.json()["executed"]) == (503, "store-error", "no")
    assert len(here.upstream.hits) == 1
    with pytest.raises(LedgerError, match="moved or removed"):
        await here.proxy.stop()


async def test_a_ledger_at_its_max_size_refuses_calls_until_it_may_be_larger(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = await world(RULES, reload=True)
    bounded = (here.directory / "rules.yaml").read_text() + "ledger: {max_size: 16MiB}\n"
    large = RulesetEntry(here.proxy._clock.now_ns(), "d", (), 0, 0, "enforce", problem="x" * (1 << 20))
    for _ in range(16):
        here.proxy._ledger.append(large)
    await here.proxy._ledger.idle()
    async with here.client() as client:
        assert (await client.get("/a")).status_code == 200
        await rewrite(here, bounded)
        refused = await client.post("/pay", json={"amount": 5})
        assert (refused.status_code, refused.json()["code"]) == (503, "store-error")
        assert (await client.get("/b")).json()["code"] == "store-error"
        assert "has reached its `max_size`: raise that in the rules, or begin a new ledger" in caplog.text
        await rewrite(here, bounded.replace("16MiB", "32MiB"))
        assert (await client.post("/pay", json={"amount": 5})).status_code == 200
        assert (await client.get("/b")).status_code == 200
    assert [hit.target for hit in here.upstream.hits] == ["/a", "/pay", "/b"]
