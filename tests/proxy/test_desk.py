"""Commands to a proxy that runs, and without one: who carries them out, and what is on record then."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy import desk
from proxy.ledger.commands import CommandError
from proxy.ledger.entries import LedgerError
from proxy.ledger.query import LedgerReader
from proxy.owner import lock_path
from tests.proxy.conftest import Hit, MakeWorld, World, answer
from tests.proxy.ledger.samples import open_ledger, refusal

RULES = """
version: 1
rules: [{id: orders, match: "POST {origin}/**", allow: true, dedupe: 1h}]
"""


def ask(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def command(world: World, name: str, **data: Any) -> Any:
    """As the command line does it, from another thread."""
    return await asyncio.to_thread(desk.command, world.ledger, world.settings.confdir, name, data, "ada")


async def unknown(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
    return answer(500)


async def test_a_proxy_that_runs_makes_the_checkpoint(world: MakeWorld) -> None:
    running = await world(RULES)
    seq = (await command(running, "checkpoint"))["seq"]
    assert ask(running.ledger, f"SELECT kind FROM entries WHERE seq = {seq}") == [("checkpoint",)]
    assert await command(running, "checkpoint") == {"seq": seq}


async def test_a_command_is_carried_out_before_the_next_decision(world: MakeWorld) -> None:
    """Left by hand, so that nobody waits for it: the call that is made next comes after it."""
    running = await world(RULES)
    async with running.client() as client:
        await client.post("/first")
        with closing(sqlite3.connect(running.ledger)) as connection, connection:
            connection.execute("INSERT INTO commands (name, data, by) VALUES ('checkpoint', '{}', 'ada')")
        os.utime(lock_path(running.ledger))
        await client.post("/second")
    found = ask(
        running.ledger,
        "SELECT (SELECT max(seq) FROM entries WHERE kind = 'checkpoint'), "
        "(SELECT seq FROM entries WHERE path = '/second')",
    )
    assert found[0][0] < found[0][1]


async def test_without_a_proxy_the_command_line_owns_the_ledger_itself(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal())
    ledger.close()

    def run(name: str, **data: Any) -> Any:
        return desk.command(ledger.path, tmp_path / "conf", name, data, "ada")

    assert await asyncio.to_thread(run, "checkpoint") == {"seq": 2}
    assert await asyncio.to_thread(run, "prune", before_ns=2**62) == {"through": 1, "entries": 1}
    assert ask(ledger.path, "SELECT kind FROM entries ORDER BY seq")[2:] == [("prune",)]
    assert ask(ledger.path, "SELECT * FROM payloads") == []
    with pytest.raises(CommandError, match="does not know `dance`"):
        await asyncio.to_thread(run, "dance")
    with pytest.raises(CommandError, match="`prune` needs a time"):
        await asyncio.to_thread(run, "prune", before_ns="x")


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        desk.command(tmp_path / "ledger.db", tmp_path / "conf", "checkpoint", {}, "ada")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("executed", "status", "code", "reached", "outcome"),
    [(True, 409, "duplicate-not-replayable", 1, "done"), (False, 200, None, 2, "not_executed")],
    ids=["executed: it is not sent again", "not executed: the next one is sent"],
)
async def test_a_person_resolves_an_unknown_outcome(
    world: MakeWorld, executed: bool, status: int, code: str | None, reached: int, outcome: str
) -> None:
    running = await world(RULES)
    running.upstream.respond = unknown
    async with running.client() as client:
        await client.post("/orders", json={"n": 1})
        blocked = await client.post("/orders", json={"n": 1})
        assert (blocked.status_code, blocked.json()["code"]) == (409, "outcome-unknown")
        with LedgerReader.open(running.ledger) as reader:
            call_id = reader.list()[-1].id
        running.upstream.respond = None
        await command(running, "resolve", call=call_id, executed=executed, note="looked it up")
        again = await client.post("/orders", json={"n": 1})
    assert again.status_code == status
    assert again.json().get("code", None) == code
    assert len(running.upstream.hits) == reached
    with LedgerReader.open(running.ledger) as reader:
        last = reader.show(call_id).outcomes[-1]
    assert (last.outcome, last.error) == (outcome, "resolved by ada: looked it up")
    recorded = ask(running.ledger, "SELECT rest ->> '$.by', rest ->> '$.data.note' FROM entries WHERE kind = 'command'")
    assert recorded == [("ada", "looked it up")]
    with pytest.raises(CommandError, match="nothing waits for the outcome of"):
        await command(running, "resolve", call=call_id, executed=executed, note="again")


async def test_what_a_dead_proxy_left_unknown_is_resolved_without_one(world: MakeWorld) -> None:
    running = await world(RULES)
    running.upstream.respond = unknown
    async with running.client() as client:
        await client.post("/orders", json={"n": 1})
    await running.proxy.stop()
    with LedgerReader.open(running.ledger) as reader:
        call_id = reader.list()[-1].id
    assert await command(running, "resolve", call=call_id, executed=False, note="x") == {
        "call": call_id,
        "executed": False,
    }
    running.upstream.respond = None
    again = await world(RULES)
    async with again.client() as client:
        assert (await client.post("/orders", json={"n": 1})).status_code == 200
