"""Faults of our own at each step of a call that guards hold something for: it does not get through, and nothing of it
stays held: the same call goes out when all is well again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

import proxy.addon
import proxy.gate
import rules.decide
import rules.deciding
import rules.params.check
from proxy.admission import Attempt
from proxy.ledger.entries import LedgerError
from proxy.ownhost import OwnHost
from proxy.waiting import WaitingRoom
from rules.guards.breaker import Breaker
from rules.guards.budget import Budget
from rules.guards.cards import Cards
from rules.guards.concurrency import Concurrency
from rules.guards.cooldown import Cooldown
from rules.guards.endings import Endings
from rules.guards.history import History
from rules.guards.loop import Loop
from rules.guards.measures import Count
from rules.guards.require import Require
from tests.proxy.conftest import answer, until
from tests.proxy.test_attacks import H2

RULES = """
version: 1
tools:
  look: GET {origin}/look
  pay:
    match: POST {origin}/pay
    params: {n: {type: integer}}
    expect: {status: 2xx}
rules:
  - {id: look, tool: look, allow: true}
  - id: pay
    tool: pay
    allow: true
    dedupe: 1h
    loop: true
    breaker: true
    require: look
    concurrency: {max: 1, wait: 20s}
    budget: {sum: count, max: 2, per: 24h}
"""

STEPS: list[tuple[Any, str]] = [
    (OwnHost, "answer"),
    (Attempt, "now_ns"),
    (Cooldown, "check"),
    (Endings, "check"),
    (Require, "check"),
    (Loop, "check"),
    (Breaker, "check"),
    (Concurrency, "check"),
    (Budget, "check"),
    (Count, "estimate"),
    (History, "apply"),
    (rules.deciding, "let_out"),
    (rules.deciding, "past_of"),
    (rules.params.check, "check"),
    (proxy.gate, "decision_entry"),
    (proxy.gate.Gate, "_may_wait"),
    (proxy.gate.Gate, "_record"),
    (proxy.gate.Gate, "_call_for"),
    (proxy.gate.Gate, "_count"),
    (proxy.gate.Gate, "_turn_ns"),
    (WaitingRoom, "leave"),
    (WaitingRoom, "call"),
    (proxy.addon, "set_on"),
]


def failing(error: type[BaseException]) -> Any:
    def fails(*_: object, **__: object) -> Any:
        raise error("injected")

    return fails


async def pay(client: httpx.AsyncClient, n: int) -> int:
    """The status; 0 where the connection was closed."""
    try:
        return (await client.post("/pay", json={"n": n})).status_code
    except httpx.RemoteProtocolError:
        return 0


def paid(here: Any) -> list[bytes]:
    return [hit.body for hit in here.upstream.hits if hit.target == "/pay"]


@pytest.mark.parametrize("error", [RuntimeError, LedgerError])
@pytest.mark.parametrize(("place", "name"), STEPS, ids=[f"{place.__name__}.{name}" for place, name in STEPS])
async def test_error_never_allows_and_nothing_stays_held(
    world: Any, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: type[Exception]
) -> None:
    here = await world(RULES)
    async with here.client(timeout=30) as client:
        assert (await client.get("/look")).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(error))
            assert await pay(client, 1) in (503, 0)
        assert paid(here) == []
    async with here.client(timeout=30) as client:
        assert [await pay(client, n) for n in (1, 2, 1, 3)] == [200, 200, 200, 403]
    assert paid(here) == [b'{"n":1}', b'{"n":2}']


WAKING: list[tuple[Any, str]] = [
    (rules.decide, "decide"),
    (Concurrency, "check"),
    (proxy.gate, "decision_entry"),
    (proxy.gate.Gate, "_try"),
    (proxy.gate.Gate, "_may_wait"),
    (proxy.gate.Gate, "_record_for_good"),
    (proxy.gate.Gate, "_count"),
]


@pytest.mark.parametrize("error", [RuntimeError, LedgerError])
@pytest.mark.parametrize(("place", "name"), WAKING, ids=[f"{place.__name__}.{name}" for place, name in WAKING])
async def test_error_as_a_call_wakes_never_allows_and_nothing_stays_held(
    world: Any, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: type[Exception]
) -> None:
    here = await world(RULES)
    go_on = asyncio.Event()

    async def held(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        if b"1" in hit.body:
            await go_on.wait()
        return answer(200)

    here.upstream.respond = held
    async with here.client(timeout=30) as client:
        await client.get("/look")
        first = asyncio.create_task(pay(client, 1))
        await until(lambda: bool(paid(here)))
        second = asyncio.create_task(pay(client, 2))
        await until(lambda: bool(here.proxy._gate._room._waiters))
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(error))
            go_on.set()
            assert await first == 200
            assert await second in (503, 0)
        assert [await pay(client, n) for n in (1, 2, 3)] == [200, 200, 403]
    assert paid(here) == [b'{"n":1}', b'{"n":2}']


TURN: list[tuple[Any, str]] = [
    (rules.decide, "recheck"),
    (proxy.gate.Gate, "_turn_ns"),
    (proxy.gate, "first_of"),
    (WaitingRoom, "sit"),
]


@pytest.mark.parametrize("error", [RuntimeError, LedgerError])
@pytest.mark.parametrize(("place", "name"), TURN, ids=[f"{place.__name__}.{name}" for place, name in TURN])
async def test_error_as_a_call_waits_its_turn_never_allows_and_nothing_stays_held(
    world: Any, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: type[Exception]
) -> None:
    here = await world(RULES + "    throttle: {rate: 1, per: 500ms, wait: 20s}\n")
    async with here.client(timeout=30) as client:
        await client.get("/look")
        assert await pay(client, 1) == 200
        with monkeypatch.context() as patch:
            patch.setattr(place, name, failing(error))
            assert await pay(client, 2) == 503
        assert paid(here) == [b'{"n":1}']
        assert [await pay(client, n) for n in (2, 1, 3)] == [200, 200, 403]
    assert paid(here) == [b'{"n":1}', b'{"n":2}']


WAITS = {
    "a person": ("approve: {hold: 20s}", False),
    "a slot": ("concurrency: {max: 1, wait: 20s}", True),
    "its turn": ("throttle: {rate: 1, per: 1s, wait: 20s}", True),
    "its twin": ("dedupe: 1h", True),
}


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("what", WAITS)
async def test_who_leaves_while_its_call_waits_leaves_nothing_behind(world: Any, what: str, http2: bool) -> None:
    """Over HTTP/2 only the stream is reset; its connection stays."""
    guard, another = WAITS[what]
    rule = "{{id: pay, match: 'POST {{origin}}/pay', allow: true, budget: {{sum: count, max: 2, per: 24h}}, {}}}"
    here = await world(f"version: 1\nrules:\n  - {rule.format(guard)}\n")
    gate = here.proxy._gate
    go_on = asyncio.Event()

    async def held(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        await go_on.wait()
        return answer(200)

    here.upstream.respond = held
    async with here.client(timeout=30) as client:
        first = asyncio.create_task(pay(client, 1)) if another else None
        if first is not None:
            await until(lambda: len(paid(here)) == 1)
        await comes_and_leaves(here, client, 1 if what == "its twin" else 2, http2)
        await until(lambda: not gate._room._waiters)
        go_on.set()
        if first is not None:
            assert await first == 200
        if what == "a person":
            assert not gate._state.of(Cards).cards, "nobody is asked for one who has left"
            return
        assert await pay(client, 3) == 200
        assert await pay(client, 4) == 403, "what never left has cost nothing, and there is room for no more"
    assert paid(here) == [b'{"n":1}', b'{"n":3}']


async def comes_and_leaves(here: Any, client: httpx.AsyncClient, n: int, http2: bool) -> None:
    """A call waits, and its client leaves."""
    gate = here.proxy._gate
    if http2:
        raw = await H2.to(here)
        body = b'{"n":%d}' % n
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        stream = await raw.begin(b"POST", b"/pay", *headers)
        await raw.data(stream, body)
        await until(lambda: bool(gate._room._waiters))
        raw.connection.reset_stream(stream)
        await raw.flush()
    else:
        leaving = asyncio.create_task(pay(client, n))
        await until(lambda: bool(gate._room._waiters))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
