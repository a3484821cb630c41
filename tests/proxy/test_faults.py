"""Faults from both sides: what the client is told, what is recorded, what a repetition gets; a ledger that fails."""

from __future__ import annotations

import asyncio
import ctypes
import json
import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest

from proxy import addon, master, server
from proxy.launch import summary
from proxy.ledger import writing
from proxy.ledger.entries import CommandEntry, LedgerError
from proxy.ledger.verify import verify
from proxy.unrecorded import MAX_GROUPS, Unrecorded
from rules.decision import Decision
from tests.proxy.conftest import answer, until
from tests.rules.world import call

RULES = """
version: 1
tools:
  pay: POST {origin}/pay
  look: GET {origin}/**
rules:
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
  - {id: look, tool: look, allow: true, throttle: 3/h}
"""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

type Told = tuple[int, str, str]
"""Status, code, and whether it was executed, as the client is told; no status where it sees the answer break off."""

FAILED: Told = (502, "upstream-failed", "unknown")
UNKNOWN: Told = (409, "outcome-unknown", "unknown")
BROKEN: Told = (0, "", "")
DONE: Told = (200, "", "")


async def told(client: httpx.AsyncClient, method: str = "POST", path: str = "/pay") -> Told:
    try:
        got = await client.request(method, path, json={"amount": 5} if method == "POST" else None)
    except httpx.RemoteProtocolError:
        return BROKEN
    if got.headers["content-type"] != "application/problem+json":
        return got.status_code, "", ""
    return got.status_code, got.json()["code"], got.json()["executed"]


def recorded(here: Any) -> list[tuple[str, str | None, int | None]]:
    """Decision, outcome and status of every call, in order."""
    with closing(sqlite3.connect(here.ledger)) as ledger:
        return ledger.execute("SELECT decision, outcome, status FROM calls ORDER BY seq").fetchall()


async def never(hit: Any, writer: asyncio.StreamWriter) -> bytes:
    """An upstream that acts and does not answer, as long as its connection stands."""
    await writer.wait_closed()
    return b""


# -- the upstream


@pytest.mark.parametrize(
    ("sent", "end", "first", "again", "outcome"),
    [
        pytest.param(b"", "reset", FAILED, UNKNOWN, "unknown", id="it resets before its answer"),
        pytest.param(b"", "close", FAILED, UNKNOWN, "unknown", id="it closes before its answer"),
        pytest.param(b"HTTP/1.1 200 O", "reset", FAILED, UNKNOWN, "unknown", id="it resets within the head"),
        pytest.param(LARGE, "reset", BROKEN, UNKNOWN, "unknown", id="it resets after the head"),
        pytest.param(LARGE + b"x" * 99999, "close", BROKEN, UNKNOWN, "unknown", id="a body one byte short"),
        pytest.param(answer(200, b"x" * 99)[:-1], "close", FAILED, UNKNOWN, "unknown", id="a short one, too"),
        pytest.param(CHUNKED + b"5\r\nabcde\r\n", "close", BROKEN, UNKNOWN, "unknown", id="chunks without an end"),
        pytest.param(CHUNKED + b"5\r\nabc", "reset", BROKEN, UNKNOWN, "unknown", id="a chunk that is cut"),
        pytest.param(CHUNKED + b"zz\r\nabc", "close", BROKEN, UNKNOWN, "unknown", id="a chunk of no size"),
        pytest.param(b"SSH-2.0-x\r\n", "close", FAILED, UNKNOWN, "unknown", id="it speaks another protocol"),
        pytest.param(answer(500), "close", (500, "", ""), UNKNOWN, "unknown", id="it says that it failed"),
        pytest.param(answer(408), "close", (408, "", ""), UNKNOWN, "unknown", id="it says that it timed out"),
        pytest.param(answer(503), "close", (503, "", ""), UNKNOWN, "unknown", id="it is not there, it says"),
        pytest.param(answer(422), "close", (422, "", ""), DONE, "not_executed", id="it says no"),
    ],
)
async def test_when_the_upstream_fails(
    world: Any, sent: bytes, end: str, first: Told, again: Told, outcome: str
) -> None:
    here = await world(RULES)

    async def fail(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        writer.write(sent)
        await writer.drain()
        if end == "reset":
            writer.transport.abort()
        writer.close()
        return b""

    here.upstream.respond = fail
    async with here.client() as client:
        assert await told(client) == first
        here.upstream.respond = None
        assert await told(client) == again
    assert len(here.upstream.hits) == 1 + (again == DONE)
    await here.proxy.stop()
    assert recorded(here)[0][:2] == ("allow", outcome)


async def test_an_upstream_that_acts_and_never_answers_is_waited_for_no_longer_than_it_may_be_silent(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(master.SECURITY_OPTIONS, "tcp_timeout", 1)
    here = await world(RULES)

    here.upstream.respond = never
    async with here.client(timeout=30) as client:
        assert await told(client) == FAILED
        assert await told(client) == UNKNOWN
    assert len(here.upstream.hits) == 1
    await here.proxy.stop()
    assert recorded(here) == [("allow", "unknown", None), ("deny", None, 409)]


async def test_a_client_that_leaves_does_not_make_it_wait_for_ever(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addon, "UPSTREAM_TIMEOUT_S", 0.2)
    here = await world(RULES)

    here.upstream.respond = never
    async with here.client(timeout=0.1) as client:
        with pytest.raises(httpx.ReadTimeout):
            await told(client)
    async with here.client(timeout=30) as client:
        assert await told(client) == UNKNOWN  # it waits for the twin, which comes to its end
    assert len(here.upstream.hits) == 1


async def test_a_client_that_leaves_in_the_middle_of_the_answer_gets_all_of_it_when_it_repeats_the_call(
    world: Any,
) -> None:
    here = await world(RULES)
    go_on = asyncio.Event()

    async def in_two(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        writer.write(LARGE + b"x" * 50_000)
        await go_on.wait()
        return b"y" * 50_000

    here.upstream.respond = in_two
    async with here.client() as client, client.stream("POST", "/pay", json={"amount": 5}) as got:
        async for _ in got.aiter_raw():
            break
    async with here.client() as client:
        again = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        go_on.set()
        repeated = await again
    assert repeated.content == b"x" * 50_000 + b"y" * 50_000
    assert repeated.headers["idempotent-replayed"] == "true"
    assert len(here.upstream.hits) == 1


async def test_a_client_that_leaves_in_the_middle_of_its_request_has_not_called(world: Any) -> None:
    here = await world(RULES)
    half_sent = asyncio.Event()

    async def half() -> Any:
        yield b'{"amount"'
        half_sent.set()
        await asyncio.Event().wait()

    async with here.client() as client:
        headers = {"content-type": "application/json", "content-length": "13"}
        leaving = asyncio.create_task(client.post("/pay", content=half(), headers=headers))
        await half_sent.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert await told(client) == DONE
    assert [hit.body for hit in here.upstream.hits] == [b'{"amount":5}']


# -- the ledger

STORE_ERROR: Told = (503, "store-error", "no")


def lock(here: Any) -> sqlite3.Connection:
    """An outsider takes the write lock, for as long as the connection is open."""
    other = sqlite3.connect(here.ledger, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


async def until_recorded(client: httpx.AsyncClient, path: str) -> Told:
    """What a call is told, made again and again until it can be recorded."""
    async with asyncio.timeout(30):
        while (said := await told(client, "GET", path)) == STORE_ERROR:
            pass
    return said


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MEND_S", 0.05)
    monkeypatch.setattr(writing, "BUSY_S", 0.01)


@pytest.mark.usefixtures("quickly")
async def test_what_a_failed_ledger_refuses_leaves_nothing_behind_and_consumes_nothing(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert await told(client, "GET", "/1") == DONE
        with closing(lock(here)):
            for _ in range(3):
                assert await told(client, "GET", "/2") == STORE_ERROR
                assert await told(client) == STORE_ERROR
        assert [hit.target for hit in here.upstream.hits] == ["/1"]
        assert await until_recorded(client, "/3") == DONE
        assert await told(client, "GET", "/4") == DONE
        assert (await told(client, "GET", "/5"))[1] == "rate-limited"
        assert await told(client) == DONE
    assert [hit.target for hit in here.upstream.hits] == ["/1", "/3", "/4", "/pay"]
    await here.proxy.stop()
    assert [decision for decision, *_ in recorded(here)] == ["allow", "allow", "allow", "throttle", "allow"]


@pytest.mark.usefixtures("quickly")
async def test_the_outcome_of_a_call_that_was_on_its_way_is_recorded_when_that_is_possible_again(world: Any) -> None:
    here = await world(RULES)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await go_on.wait()
        return answer(200, b'"the first"')

    here.upstream.respond = held
    async with here.client() as client:
        first = asyncio.create_task(client.post("/pay", json={"amount": 5}))
        await arrived.wait()
        here.upstream.respond = None
        with closing(lock(here)):
            assert await told(client, "GET", "/1") == STORE_ERROR
            go_on.set()
            assert (await first).content == b'"the first"'
            assert await told(client) == STORE_ERROR
        assert await until_recorded(client, "/2") == DONE
        again = await client.post("/pay", json={"amount": 5})
        assert (again.content, again.headers["idempotent-replayed"]) == (b'"the first"', "true")
    assert [hit.target for hit in here.upstream.hits] == ["/pay", "/2"]


@pytest.mark.usefixtures("quickly")
async def test_a_call_that_is_on_its_way_over_a_recovery_is_still_a_twin(world: Any) -> None:
    here = await world(RULES)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await go_on.wait()
        return answer(200)

    here.upstream.respond = held
    async with here.client() as client:
        first = asyncio.create_task(told(client))
        await arrived.wait()
        here.upstream.respond = None
        with closing(lock(here)):
            assert await told(client, "GET", "/1") == STORE_ERROR
        assert await until_recorded(client, "/2") == DONE
        twin = asyncio.create_task(told(client))
        go_on.set()
        assert [await first, await twin] == [DONE, DONE]
    assert [hit.target for hit in here.upstream.hits] == ["/pay", "/2"]
    await here.proxy.stop()
    assert [row[:2] for row in recorded(here)] == [("allow", "done"), ("allow", "done"), ("replay", None)]


@pytest.mark.usefixtures("quickly")
async def test_a_writer_that_is_stopped_refuses_calls_and_is_replaced(world: Any) -> None:
    here = await world(RULES)
    writer = here.proxy._ledger._writer
    stopped = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(writer.ident), ctypes.py_object(SystemExit))
    assert stopped == 1
    async with here.client() as client:
        assert await told(client, "GET", "/1") in (DONE, STORE_ERROR)  # it is stopped when it next does something
        assert await until_recorded(client, "/2") == DONE
        assert here.proxy._ledger._writer is not writer
        assert not writer.is_alive()
    assert here.upstream.hits[-1].target == "/2"


@pytest.mark.usefixtures("quickly")
async def test_a_ledger_that_somebody_else_has_written_to_stays_shut(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert await told(client, "GET", "/1") == DONE
        with closing(sqlite3.connect(here.ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("CREATE TEMP TABLE last AS SELECT * FROM entries ORDER BY seq DESC LIMIT 1")
            other.execute("UPDATE last SET seq = seq + 1, prev = hash, hash = zeroblob(32)")
            other.execute("INSERT INTO entries SELECT * FROM last")
            other.execute("COMMIT")
        assert await told(client) == STORE_ERROR
        assert not await here.proxy._gate.recover("root")
        assert await told(client) == STORE_ERROR
    assert [hit.target for hit in here.upstream.hits] == ["/1"]
    with pytest.raises(LedgerError, match="append-only"):
        await here.proxy.stop()


UNRECORDED = """
version: 1
tools:
  pay: POST {origin}/pay
  look: GET {origin}/look/**
  count: GET {origin}/count/**
rules:
  - {id: pay, tool: pay, allow: true, dedupe: 1h}
  - {id: look, tool: look, allow: true, unrecorded: allow}
  - {id: count, tool: count, allow: true, throttle: 100/min}
"""


def unrecorded(here: Any) -> list[tuple[Any, ...]]:
    """What the ledger tells of calls that went out without a record: how many, by whom, which."""
    with closing(sqlite3.connect(here.ledger)) as ledger:
        query = "SELECT rest FROM entries WHERE kind = 'command' AND rest ->> '$.name' = 'unrecorded' ORDER BY seq"
        told = [json.loads(rest)["data"] for (rest,) in ledger.execute(query)]
    return [(one["calls"], one["agent"], one["tool"], one["method"], one["host"], one["rules"]) for one in told]


@pytest.mark.usefixtures("quickly")
async def test_reads_go_out_while_nothing_can_be_recorded_if_a_rule_says_so_and_are_counted(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = await world(UNRECORDED)
    async with here.client() as client:
        with closing(lock(here)):
            assert await told(client) == STORE_ERROR  # at the first one, the proxy sees that it cannot record
            for n in range(5):
                assert await told(client, "GET", f"/look/{n}") == DONE
            assert await told(client, "GET", "/count/1") == STORE_ERROR
            assert await told(client) == STORE_ERROR
            assert [hit.target for hit in here.upstream.hits] == [f"/look/{n}" for n in range(5)]
            assert "calls that only read are let out without a record, as a rule says: the ledger" in caplog.text
        assert await until_recorded(client, "/count/2") == DONE
        assert await told(client, "GET", "/look/9") == DONE
    assert here.proxy.unrecorded == 5
    assert "5 calls went out without a record; that is on record now" in caplog.text
    await here.proxy.stop()
    assert unrecorded(here) == [(5, "default", "look", "GET", "localhost", ["look"])]
    assert len(recorded(here)) == 2
    assert summary(here.proxy.counts, 0, here.proxy.unrecorded).endswith("· 5 went out without a record")


@pytest.mark.usefixtures("quickly")
async def test_an_unrecorded_call_that_ends_after_the_recovery_leaves_nothing_behind(world: Any) -> None:
    here = await world(UNRECORDED)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await go_on.wait()
        return answer(500)

    async with here.client() as client:
        with closing(lock(here)):
            assert await told(client) == STORE_ERROR
            here.upstream.respond = held
            reading = asyncio.create_task(client.get("/look/1"))
            await arrived.wait()
            here.upstream.respond = None
        assert await until_recorded(client, "/count/2") == DONE
        go_on.set()
        assert (await reading).status_code == 500
    await here.proxy.stop()
    assert unrecorded(here) == [(1, "default", "look", "GET", "localhost", ["look"])]
    assert [row[:2] for row in recorded(here)] == [("allow", "done")]
    assert verify(here.ledger, None, None, lambda *_: None).finding is None


def test_of_very_many_kinds_of_calls_some_are_counted_together() -> None:
    seen = Unrecorded()
    decision = Decision("allow", "", "", ("look",), "look")
    for n in range(MAX_GROUPS + 5):
        seen.add(call("GET", host=f"h{n}.example.com"), decision, n)
    assert (seen.total, seen.owed) == (MAX_GROUPS + 5, MAX_GROUPS + 5)
    entries = []
    while (entry := seen.next(7, "ada")) is not None:
        entries.append(entry)
        seen.told(len(entries))
    assert (len(entries), seen.owed, seen.total) == (MAX_GROUPS + 1, 0, MAX_GROUPS + 5)
    assert (entries[-1].data["calls"], entries[-1].data["host"]) == (5, "")
    assert (entries[-1].data["first_ns"], entries[-1].data["last_ns"]) == (MAX_GROUPS, MAX_GROUPS + 4)
    seen.durable(1)
    seen.add(call("GET", host="h1.example.com"), decision, 9_000)
    seen.lost()
    assert seen.owed == MAX_GROUPS + 5, "all but one of the first kind, and a new one of the second"
    again = [(entry.data["calls"], entry.data["host"]) for entry in taken(seen)]
    assert again[:2] == [(2, "h1.example.com"), (1, "h2.example.com")]
    assert again[-1] == (5, "")


def taken(seen: Unrecorded) -> list[CommandEntry]:
    """Everything that is not on record yet, as it is told."""
    entries: list[CommandEntry] = []
    while (entry := seen.next(9_000, "ada")) is not None:
        entries.append(entry)
        seen.told(len(entries))
    return entries


@pytest.mark.usefixtures("quickly")
async def test_calls_without_a_record_are_told_again_when_that_entry_is_lost_too(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await world(UNRECORDED)
    write = writing.Writing.write
    failures: list[str] = []

    def fails_once(file: writing.Writing, batch: Any, *rest: Any) -> None:
        names = [entry.name for _, entry, _ in batch if isinstance(entry, CommandEntry)]
        if "unrecorded" in names and not failures:
            failures.append("injected")
            raise OSError("no space left on device")
        write(file, batch, *rest)

    monkeypatch.setattr(writing.Writing, "write", fails_once)
    async with here.client() as client:
        with closing(lock(here)):
            assert await told(client) == STORE_ERROR
            for n in range(3):
                assert await told(client, "GET", f"/look/{n}") == DONE
        await until(lambda: bool(failures))
        assert await until_recorded(client, "/count/1") == DONE
    await here.proxy.stop()
    assert [row[0] for row in unrecorded(here)] == [3]
