"""`halt` and `resume` over a real proxy: what reaches the upstream from the moment of the command on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy import desk, dial
from proxy.agents import Agents
from proxy.ledger.commands import CommandError
from proxy.ledger.query import LedgerReader
from proxy.ledger.store import Ledger
from tests.proxy.conftest import Hit, MakeWorld, World, answer, until
from tests.proxy.ledger.samples import open_ledger, refusal

RULES = """
version: 1
tools:
  shop.order: POST {origin}/orders
  shop.look: GET {origin}/**
rules:
  - {id: orders, tool: shop.order, allow: true, dedupe: 1h}
  - {id: look, tool: shop.look, allow: true}
  - {id: closed, match: "GET {origin}/b", deny: Closed.}
  - {id: slow, match: "PUT {origin}/**", allow: true, throttle: {rate: 1/h, wait: 2h}}
"""
MONDAY = "Refunds went wrong on Monday."


async def command(world: World, name: str, **data: str) -> Any:
    """As the command line does it, from another thread."""
    chosen: dict[str, Any] = {"agent": "", "tool": ""} | data
    return await asyncio.to_thread(desk.command, world.ledger, world.settings.confdir, name, chosen, "ada")


async def halt(world: World, **chosen: str) -> Any:
    return await command(world, "halt", reason=MONDAY, **chosen)


async def order(client: Any, number: int) -> str:
    got = await client.post("/orders", json={"n": number})
    return "replay" if got.headers.get("idempotent-replayed") else str(got.json().get("code", got.status_code))


async def look(client: Any, path: str = "/a") -> str:
    got = await client.get(path)
    return str(got.json().get("code", got.status_code))


async def test_the_very_next_call_is_refused_until_it_is_lifted(world: MakeWorld) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert [await order(client, 1), await look(client)] == ["200", "200"]
        assert (await halt(here))["calls"] == "all calls"
        assert [await order(client, 2), await look(client)] == ["halted", "halted"]
        assert await order(client, 1) == "halted", "not even the answer that is kept"
        refused = await client.get("/a")
        assert len(here.upstream.hits) == 2
        assert await command(here, "resume") == {"calls": "all calls", "reason": MONDAY}
        assert [await order(client, 1), await order(client, 2), await look(client)] == ["replay", "200", "200"]
    assert len(here.upstream.hits) == 4
    told = refused.json()
    assert (refused.status_code, refused.reason_phrase) == (403, "Stopped by a person")
    assert told["detail"] == (
        f"{MONDAY} A person has stopped such calls until further notice, and nothing was executed."
    )
    assert (told["executed"], told["retry"]["when"]) == ("no", "never")
    assert (refused.headers["x-should-retry"], "retry-after" in refused.headers) == ("false", False)


async def test_one_agent_is_stopped_and_others_are_not(world: MakeWorld) -> None:
    here = await world(RULES)
    agents = Agents(here.settings.confdir)
    tokens = {name: agents.add(name, 0) for name in ("support-1", "support-2", "sales")}
    assert (await halt(here, agent="support-*"))["calls"] == "calls of agent `support-*`"
    seen = {}
    for name, token in tokens.items():
        async with here.client(proxy=here.proxy_url.replace("//", f"//{name}:{token}@")) as client:
            seen[name] = await look(client)
    assert seen == {"support-1": "halted", "support-2": "halted", "sales": "200"}
    assert len(here.upstream.hits) == 1


async def test_one_tool_is_stopped_and_others_are_not(world: MakeWorld) -> None:
    here = await world(RULES)
    result = await halt(here, tool="shop.o*")
    assert (result["calls"], result["tools"]) == ("calls to `shop.o*`", ["shop.order"])
    async with here.client() as client:
        assert [await order(client, 1), await look(client)] == ["halted", "200"]
    assert (await halt(here, tool="bank.*"))["tools"] == []
    assert [hit.method for hit in here.upstream.hits] == ["GET"]


async def test_monitor_mode_stops_nothing_but_what_a_person_stops(world: MakeWorld) -> None:
    here = await world(RULES, mode="monitor")
    async with here.client() as client:
        assert await look(client, "/b") == "200"
        await halt(here)
        assert await look(client, "/b") == "halted"
    assert len(here.upstream.hits) == 1


async def test_it_outlives_a_restart(world: MakeWorld) -> None:
    first = await world(RULES)
    async with first.client() as client:
        assert await look(client) == "200"
    await halt(first, tool="shop.look")
    await first.proxy.stop()
    here = await world(RULES)
    async with here.client() as client:
        assert [await look(client), await order(client, 1)] == ["halted", "200"]
        await command(here, "resume", tool="shop.look")
        await here.proxy.stop()
    again = await world(RULES)
    async with again.client() as client:
        assert await look(client) == "200"
    assert [hit.method for hit in here.upstream.hits] == ["GET", "POST", "GET"]


async def test_with_no_proxy_the_command_line_records_it(world: MakeWorld) -> None:
    first = await world(RULES)
    await first.proxy.stop()
    await halt(first)
    with pytest.raises(CommandError, match="there is no such halt: stopped are all calls"):
        await command(first, "resume", agent="ann")
    here = await world(RULES)
    async with here.client() as client:
        assert await look(client) == "halted"
    await here.proxy.stop()
    await command(here, "resume")
    with pytest.raises(CommandError, match="there is no such halt: nothing is stopped"):
        await command(here, "resume")
    again = await world(RULES)
    async with again.client() as client:
        assert await look(client) == "200"
    assert len(here.upstream.hits) == 1


async def test_a_call_that_is_out_comes_to_its_end_and_its_twin_is_refused(world: MakeWorld) -> None:
    here = await world(RULES)
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await finish.wait()
        return answer(200)

    here.upstream.respond = respond
    async with here.client() as client:
        first = asyncio.create_task(order(client, 1))
        await arrived.wait()
        twin = asyncio.create_task(order(client, 1))
        await until(lambda: len(here.proxy._gate._room._waiters) == 1)
        await halt(here)
        assert await twin == "halted"
        assert not first.done()
        finish.set()
        assert await first == "200"
        await command(here, "resume")
        assert await order(client, 1) == "replay", "its outcome is known"
    assert len(here.upstream.hits) == 1


async def test_a_call_that_waits_its_turn_is_refused_at_once(world: MakeWorld) -> None:
    """Its turn would come in an hour."""
    here = await world(RULES)
    async with here.client(timeout=30) as client:
        assert (await client.put("/1")).status_code == 200
        waits = asyncio.create_task(client.put("/2"))
        await until(lambda: len(here.proxy._gate._room._waiters) == 1)
        await halt(here)
        assert (await waits).json()["code"] == "halted"
    assert [hit.target for hit in here.upstream.hits] == ["/1"]


async def test_it_is_on_record_with_who_when_and_why(world: MakeWorld) -> None:
    here = await world(RULES)
    async with here.client() as client:
        await halt(here, agent="d*", tool="shop.*")
        assert await look(client) == "halted"
        await here.proxy._ledger.idle()
    with LedgerReader.open(here.ledger) as reader:
        (refused,) = reader.list()
        (stopped,) = reader.status().halts
        assert (refused.decision, refused.code, refused.tool) == ("deny", "halted", "shop.look")
        assert (stopped.calls, stopped.reason, stopped.by) == ("calls of agent `d*` to `shop.*`", MONDAY, "ada")
        assert stopped.at <= refused.at
        await command(here, "resume", agent="d*", tool="shop.*")
        assert reader.status().halts == ()


@pytest.mark.parametrize("reason", ["", " ", "x" * 301], ids=["none", "blank", "a page"])
def test_the_reason_is_a_sentence(tmp_path: Any, reason: str) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal())
    ledger.close()
    with pytest.raises(CommandError, match="write a sentence of at most 300 characters"):
        desk.command(ledger.path, tmp_path / "conf", "halt", {"agent": "", "tool": "", "reason": reason}, "ada")
    with pytest.raises(CommandError, match="`halt` needs an agent, a tool and a reason"):
        desk.command(ledger.path, tmp_path / "conf", "halt", {"reason": reason}, "ada")
    with LedgerReader.open(ledger.path) as reader:
        assert (reader.status().entries, reader.status().halts) == (1, ())


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("stage", ["the disk", "the connection"])
async def test_what_waits_to_leave_when_a_halt_comes_does_not_leave(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch, method: str, stage: str
) -> None:
    """It is decided and recorded already; not one byte of it has gone out."""
    here = await world(RULES)
    waits, go_on = asyncio.Event(), asyncio.Event()
    place, name = (Ledger, "durable") if stage == "the disk" else (dial, "check")
    usual = getattr(place, name)

    async def slow(*given: Any, **options: Any) -> Any:
        waits.set()
        await go_on.wait()
        return await usual(*given, **options)

    async with here.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(place, name, slow)
            call = asyncio.ensure_future(client.request(method, "/orders"))
            await waits.wait()
            await halt(here)
            go_on.set()
            got = await call
        told = got.json()
        assert (got.status_code, told["code"], told["executed"]) == (403, "halted", "no")
        assert (
            told["detail"]
            == f"{MONDAY} A person has stopped such calls until further notice, and nothing was executed."
        )
        assert here.upstream.hits == []
        await command(here, "resume")
        assert (await client.request(method, "/orders")).status_code == 200, "it holds nothing"
    assert len(here.upstream.hits) == 1
    await here.proxy.stop()
    with LedgerReader.open(here.ledger) as reader:
        assert reader.unanswered() == 0
        calls = [(call.decision, call.outcome) for call in reversed(reader.list())]
    assert calls == [("allow", "not_executed"), ("allow", "done")]
