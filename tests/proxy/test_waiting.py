"""Waiting for something to happen: in the order of arrival, until the rules, the time or the client say otherwise."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.rulefiles import read
from proxy.waiting import Entry, Waiter, WaitingRoom
from tests.proxy.conftest import Hit, answer, until

SLOT: Entry = ("concurrency", "k")
OTHER: Entry = ("concurrency", "other")


class Slots:
    """So many places; who is asked while one is free takes it."""

    def __init__(self, room: WaitingRoom, free: int) -> None:
        self.room = room
        self.free = free
        self.served: list[str] = []

    def comes(self, name: str) -> Waiter:
        waiter = Waiter(lambda: self.asks(waiter, name))
        self.room.sit(waiter, (SLOT,))
        return waiter

    def asks(self, waiter: Waiter, name: str) -> None:
        if self.free:
            self.free -= 1
            self.served.append(name)
            self.room.leave(waiter)

    def frees(self) -> None:
        self.free += 1
        self.room.call([SLOT])


def test_first_come_first_served() -> None:
    slots = Slots(WaitingRoom(), 0)
    for name in "abc":
        slots.comes(name)
    for _ in range(3):
        slots.frees()
    assert slots.served == ["a", "b", "c"]
    assert slots.room.crowd(SLOT) == 0


def test_who_waits_for_something_else_then_keeps_its_place() -> None:
    slots = Slots(WaitingRoom(), 0)
    first = slots.comes("first")
    slots.comes("second")
    slots.room.sit(first, (OTHER,))
    assert (slots.room.crowd(SLOT), slots.room.crowd(OTHER)) == (1, 1)
    slots.room.sit(first, (SLOT,))
    slots.frees()
    assert slots.served == ["first"]


def test_who_leaves_is_not_asked() -> None:
    slots = Slots(WaitingRoom(), 0)
    first = slots.comes("first")
    slots.comes("second")
    slots.room.leave(first)
    slots.room.leave(first)
    slots.frees()
    assert slots.served == ["second"]
    assert not first.moved.is_set()


def test_whom_an_answer_concerns_is_asked_in_the_same_step_and_order() -> None:
    """One that is served at once gives its place on: all are served by one event, still in order."""
    slots = Slots(WaitingRoom(), 0)

    def serve(waiter: Waiter, name: str) -> None:
        had = len(slots.served)
        slots.asks(waiter, name)
        if len(slots.served) > had:
            slots.frees()

    for name in "abcd":
        waiter = Waiter()
        waiter.ask = lambda waiter=waiter, name=name: serve(waiter, name)  # type: ignore[misc]
        slots.room.sit(waiter, (SLOT,))
    slots.frees()
    assert slots.served == ["a", "b", "c", "d"]


def test_one_that_waits_for_nothing_in_particular_hears_of_what_concerns_all() -> None:
    room = WaitingRoom()
    waiter = Waiter()
    room.sit(waiter, ())
    room.call([SLOT])
    assert not waiter.moved.is_set()
    room.call_all()
    assert waiter.moved.is_set()


# --- through a real proxy ---

ORDERS = """
version: 1
rules:
  - {id: once, match: "POST {origin}/**", allow: true, dedupe: 1h}
  - {id: paced, match: "GET {origin}/**", allow: true, throttle: {rate: 1/h, wait: 1h}}
"""
DENY = "  - {id: no, match: 'https://**', deny: No more.}\n"


def deny_everything(here: Any) -> None:
    """Put another rule set in force, as a reload does."""
    file: Path = here.settings.rules[0]
    file.write_text(file.read_text() + DENY)
    files = read(here.settings.rules, here.directory)
    here.proxy._gate.use(files.loaded.ruleset, files.files)


class Held:
    """An upstream that answers when `go` is set."""

    def __init__(self, here: Any) -> None:
        self.arrived, self.go = asyncio.Event(), asyncio.Event()
        here.upstream.respond = self.respond

    async def respond(self, hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        self.arrived.set()
        await self.go.wait()
        return answer(200)


async def until_waiting(here: Any, calls: int = 1) -> None:
    """Return when so many calls sit in the waiting room."""
    while len(here.proxy._gate._room._waiters) < calls:  # noqa: ASYNC110  nothing tells when somebody sits down
        await asyncio.sleep(0.005)


async def test_a_twin_that_waits_is_refused_as_soon_as_a_deny_comes_into_force(world: Any) -> None:
    here = await world(ORDERS)
    held = Held(here)
    async with here.client(timeout=30) as client:
        first = asyncio.create_task(client.post("/orders"))
        await held.arrived.wait()
        twin = asyncio.create_task(client.post("/orders"))
        await until_waiting(here)
        deny_everything(here)
        assert (await twin).json()["code"] == "policy-denied"
        assert not first.done(), "what is out stays out"
        held.go.set()
        assert (await first).status_code == 200
    assert len(here.upstream.hits) == 1


async def test_a_call_that_waits_its_turn_is_refused_as_soon_as_a_deny_comes_into_force(world: Any) -> None:
    """Its turn would come in an hour."""
    here = await world(ORDERS)
    async with here.client(timeout=30) as client:
        assert (await client.get("/a")).status_code == 200
        waits = asyncio.create_task(client.get("/b"))
        await until_waiting(here)
        deny_everything(here)
        assert (await waits).json()["code"] == "policy-denied"
    assert [hit.target for hit in here.upstream.hits] == ["/a"]


async def test_a_call_whose_next_decision_fails_is_refused(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await world(ORDERS)
    held = Held(here)
    async with here.client(timeout=30) as client:
        first = asyncio.create_task(client.post("/orders"))
        await held.arrived.wait()
        twin = asyncio.create_task(client.post("/orders"))
        await until_waiting(here)

        def fails(*_: object) -> Any:
            raise MemoryError("injected")

        with monkeypatch.context() as patch:
            patch.setattr("rules.decide.decide", fails)
            held.go.set()
            assert (await first).status_code == 200, "the fault of the twin's decision is the twin's"
            assert (await twin).json()["code"] == "policy-error"
    assert len(here.upstream.hits) == 1


async def test_nobody_is_left_in_the_room(world: Any) -> None:
    here = await world(ORDERS)
    held = Held(here)
    async with here.client(timeout=30) as client:
        first = asyncio.create_task(client.post("/orders"))
        await held.arrived.wait()
        async with here.client(timeout=httpx.Timeout(20, read=0.1)) as hasty:
            with pytest.raises(httpx.ReadTimeout):
                await hasty.post("/orders")
        while here.proxy._gate._room._waiters:  # noqa: ASYNC110  nothing tells when somebody rises
            await asyncio.sleep(0.005)
        held.go.set()
        assert (await first).status_code == 200
    assert (here.proxy._gate._room._on, len(here.upstream.hits)) == ({}, 1)


async def test_a_call_that_gives_up_waiting_is_decided_once(world: Any) -> None:
    """A command that is found in the last moment has it decided. It is not decided again after that."""
    here = await world(ORDERS)
    held = Held(here)
    gate = here.proxy._gate
    async with here.client(timeout=30) as client:
        first = asyncio.create_task(client.post("/orders"))
        await held.arrived.wait()
        async with here.client(timeout=httpx.Timeout(20, read=0.1)) as hasty:
            twin = asyncio.create_task(hasty.post("/orders"))
            await until_waiting(here)
            gate.look = gate._room.call_all
            with pytest.raises(httpx.ReadTimeout):
                await twin
        await until(lambda: not gate._room._waiters)
        held.go.set()
        assert (await first).status_code == 200
    await here.proxy._ledger.idle()
    with closing(sqlite3.connect(here.ledger)) as ledger:
        decided = ledger.execute("SELECT count(*), count(DISTINCT id) FROM entries WHERE kind = 'decision'").fetchone()
    assert decided == (2, 2)
