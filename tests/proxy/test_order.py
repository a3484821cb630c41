"""What has to come before and what may not come after, through a real proxy. The upstream's counts are the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from proxy.clock import Clock
from tests.proxy.conftest import Hit, answer

MINUTE_NS = 60_000_000_000
START_NS = 1_800_000_000_000_000_000

REFUNDS = """
version: 1
tools:
  charge: GET {origin}/charges/{charge}
  refund: {match: POST {origin}/refunds, body: form}
rules:
  - {id: look, tool: charge, allow: true}
  - id: refund
    tool: refund
    allow: true
    dedupe: 24h
    require: {after: charge, same: {body.charge: path.charge}, within: 30m}
"""


class Wall:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.clock = Clock(lambda: self.now_ns)

    def at(self, minutes: float) -> None:
        self.now_ns = START_NS + int(minutes * MINUTE_NS)


def sent(here: Any, method: str = "POST") -> list[str]:
    """What reached the upstream by `method`."""
    return [f"{hit.target} {hit.body.decode()}".strip() for hit in here.upstream.hits if hit.method == method]


async def refund(client: httpx.AsyncClient, charge: str) -> httpx.Response:
    return await client.post("/refunds", data={"charge": charge})


async def test_a_refund_without_a_look_is_refused_and_told_what_to_do(world: Any) -> None:
    here = await world(REFUNDS)
    async with here.client() as client:
        refused = await refund(client, "ch_9")
        assert (refused.status_code, refused.json()["code"]) == (403, "prerequisite-missing")
        assert refused.json()["executed"] == "no"
        url = f"{here.origin}/charges/ch_9"
        assert refused.json()["next"][0] == f'First call `charge` (GET {url}) with path.charge "ch_9".'
        assert f"a completed call of `charge` (GET {url})" in refused.json()["detail"]
        assert refused.headers["x-should-retry"] == "false"
        assert sent(here) == []
        await client.get("/charges/ch_9")
        assert (await refund(client, "ch_9")).status_code == 200
    assert sent(here) == ["/refunds charge=ch_9"]


async def test_another_charge_a_failed_look_and_an_old_one_do_not_count(world: Any) -> None:
    wall = Wall()
    here = await world(REFUNDS, clock=wall.clock)

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(404 if hit.target == "/charges/ch_4" else 200)

    here.upstream.respond = respond
    async with here.client() as client:
        await client.get("/charges/ch_1")
        await client.get("/charges/ch_4")
        assert (await refund(client, "ch_2")).status_code == 403
        assert (await refund(client, "ch_4")).status_code == 403
        wall.at(20)
        await client.get("/charges/ch_3")  # so that the run goes on
        wall.at(31)
        assert (await refund(client, "ch_1")).status_code == 403
        assert (await refund(client, "ch_3")).status_code == 200
    assert sent(here) == ["/refunds charge=ch_3"]


async def test_a_look_of_another_run_does_not_count(world: Any) -> None:
    wall = Wall()
    here = await world(REFUNDS.replace(", within: 30m", ""), clock=wall.clock)
    async with here.client() as client:
        await client.get("/charges/ch_1")
        wall.at(30)  # idle for so long, the agent begins a new run
        assert (await refund(client, "ch_1")).status_code == 403
        await client.get("/charges/ch_1")
        assert (await refund(client, "ch_1")).status_code == 200
    assert sent(here) == ["/refunds charge=ch_1"]


async def test_what_was_done_is_known_after_a_restart(world: Any) -> None:
    wall = Wall()
    here = await world(REFUNDS, clock=wall.clock)
    async with here.client() as client:
        await client.get("/charges/ch_1")
    await here.proxy.stop()
    wall.at(5)
    again = await world(REFUNDS, clock=Clock(lambda: wall.now_ns))
    async with again.client() as client:
        assert (await refund(client, "ch_2")).status_code == 403
        assert (await refund(client, "ch_1")).status_code == 200
    assert sent(again) == ["/refunds charge=ch_1"]


async def test_in_monitor_mode_it_is_sent_and_told(world: Any) -> None:
    here = await world(REFUNDS, mode="monitor")
    async with here.client() as client:
        assert (await refund(client, "ch_1")).status_code == 200
    assert sent(here) == ["/refunds charge=ch_1"]


PAID = """
version: 1
tools:
  invoice: GET {origin}/invoices/{invoice}
  ship: POST {origin}/ship
rules:
  - {id: look, tool: invoice, allow: true}
  - id: ship
    tool: ship
    allow: true
    dedupe: 24h
    require: {after: invoice, same: {body.invoice: path.invoice}, answer: {body.paid: true}}
"""


async def test_what_the_earlier_call_was_answered_is_read(world: Any) -> None:
    here = await world(PAID)
    bodies = [b'{"paid": false}', b'{"paid": tr', b'{"paid": true}']

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(200, bodies.pop(0) if hit.method == "GET" else b"{}")

    here.upstream.respond = respond
    statuses = []
    async with here.client() as client:
        for _ in range(3):
            assert (await client.get("/invoices/7")).status_code == 200
            statuses.append((await client.post("/ship", json={"invoice": 7})).status_code)
    assert statuses == [403, 403, 200]
    assert len(sent(here)) == 1


QUOTES = """
version: 1
tools:
  quote: POST {origin}/quotes
  buy: POST {origin}/buy
rules:
  - {id: quote, tool: quote, allow: true, dedupe: {window: 24h, by: agent}}
  - id: buy
    tool: buy
    allow: true
    dedupe: {window: 24h, by: run}
    require: {after: quote, answer: {body.open: true}}
"""


async def test_a_replayed_answer_counts_for_the_run_that_gets_it(world: Any) -> None:
    wall = Wall()
    here = await world(QUOTES, clock=wall.clock)

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(200, b'{"open": true}')

    here.upstream.respond = respond
    async with here.client() as client:
        await client.post("/quotes", json={"item": "pen"})
        wall.at(60)  # another run
        assert (await client.post("/buy", json={"item": "pen"})).status_code == 403
        again = await client.post("/quotes", json={"item": "pen"})
        assert again.headers["idempotent-replayed"] == "true"
        assert (await client.post("/buy", json={"item": "pen"})).status_code == 200
    assert [each.split()[0] for each in sent(here)] == ["/quotes", "/buy"]


TAINT = """
version: 1
tools:
  page: GET {origin}/pages/**
  notes: POST {origin}/notes
  outward: POST|PUT {origin}/**
rules:
  - {id: browse, tool: page, allow: true}
  - {id: send, tool: outward, allow: true}
  - {id: tainted, tool: outward, unless: {tool: notes}, after: page, deny: "After reading, nothing is sent out."}
"""


async def test_after_reading_nothing_is_sent_out(world: Any) -> None:
    here = await world(TAINT)
    async with here.client() as client:
        assert (await client.post("/send", json={"n": 1})).status_code == 200
        await client.get("/pages/a")
        refused = await client.post("/send", json={"n": 2})
        assert (refused.status_code, refused.json()["code"]) == (403, "policy-denied")
        assert "After reading, nothing is sent out." in refused.json()["detail"]
        assert (await client.post("/notes", json={"n": 3})).status_code == 200
    assert [each.split()[0] for each in sent(here)] == ["/send", "/notes"]


async def test_a_page_that_is_on_its_way_has_tainted_already(world: Any) -> None:
    here = await world(TAINT)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        if hit.method == "GET":
            asked.set()
            await go_on.wait()
        return answer(200)

    here.upstream.respond = respond
    async with here.client() as client, here.client() as other:
        reading = asyncio.ensure_future(client.get("/pages/a"))
        await asked.wait()
        assert (await other.post("/send", json={"n": 1})).status_code == 403
        go_on.set()
        assert (await reading).status_code == 200
    assert sent(here) == []


async def test_of_many_at_once_none_is_sent_that_was_decided_after_the_page(world: Any) -> None:
    here = await world(TAINT)
    async with here.client() as client:
        calls = [client.post("/send", json={"n": n}) for n in range(10)]
        calls.insert(5, client.get("/pages/a"))
        got = await asyncio.gather(*calls)
        allowed = sum(each.status_code == 200 for each in got) - 1
        assert len(sent(here)) == allowed
        assert (await client.post("/send", json={"n": 99})).status_code == 403
    assert len(sent(here)) == allowed


async def test_taint_outlives_a_restart(world: Any) -> None:
    here = await world(TAINT)
    async with here.client() as client:
        await client.get("/pages/a")
    await here.proxy.stop()
    again = await world(TAINT)
    async with again.client() as client:
        assert (await client.post("/send", json={"n": 1})).status_code == 403
    assert sent(again) == []


async def test_rules_that_are_put_in_force_later_know_the_past(world: Any) -> None:
    here = await world(TAINT.replace("after: page, ", "agent: nobody, "))
    async with here.client() as client:
        await client.get("/pages/a")
        assert (await client.post("/send", json={"n": 1})).status_code == 200
    await here.proxy.stop()
    again = await world(TAINT)
    async with again.client() as client:
        assert (await client.post("/send", json={"n": 2})).status_code == 403
    assert len(sent(again)) == 1


async def test_what_monitor_mode_lets_out_taints(world: Any) -> None:
    here = await world(TAINT, mode="monitor")
    async with here.client() as client:
        await client.get("/pages/a")
        assert (await client.post("/send", json={"n": 1})).status_code == 200
    await here.proxy.stop()
    again = await world(TAINT)
    async with again.client() as client:
        assert (await client.post("/send", json={"n": 2})).status_code == 403
    assert len(sent(again)) == 1
