"""Budgets at the level of HTTP: what reaches the upstream is the truth."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from proxy.clock import Clock
from proxy.desk import command
from proxy.ledger.query import LedgerReader
from proxy.report.calls import show_call
from proxy.report.state import gather, show
from rules.decision import Plain
from rules.guards.spending import Budgets
from tests.proxy.conftest import Hit, MakeWorld, Upstream, World, answer, until

RULES = """
version: 1
rules:
  - {id: pay, match: "{origin}/**", allow: true, budget: %s}
"""


def budget(text: str) -> str:
    return RULES.replace("%s", text)


def pay(amount: object) -> dict[str, Any]:
    return {"content": f'{{"amount": {amount}}}', "headers": {"content-type": "application/json"}}


async def statuses(world: World, *amounts: object) -> list[int]:
    async with world.client() as client:
        return [(await client.post("/pay", **pay(amount))).status_code for amount in amounts]


DAILY = "{sum: body.amount, max: 1000, per: 24h, unit: cent}"


async def test_limit_1000_and_three_500s(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget(DAILY))
    assert await statuses(made, 500, 500, 500) == [200, 200, 403]
    assert len(upstream.hits) == 2


async def test_a_cost_equal_to_the_cap_is_allowed_and_one_over_is_refused(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget(DAILY))
    assert await statuses(made, 1001, 1000, 1) == [403, 200, 403]
    assert [hit.body for hit in upstream.hits] == [b'{"amount": 1000}']


@pytest.mark.parametrize(
    ("amount", "status"), [("-1", 422), ("NaN", 400), ("Infinity", 400), ('"5"', 422), ("null", 422), ("true", 422)]
)
async def test_what_is_no_amount_never_leaves(world: MakeWorld, upstream: Upstream, amount: str, status: int) -> None:
    made = await world(budget(DAILY))
    assert await statuses(made, amount) == [status]
    async with made.client() as client:
        assert (await client.post("/pay", json={})).status_code == 422
        assert (await client.get("/pay")).status_code == 422
    assert upstream.hits == []


async def test_30_calls_at_once_of_5_against_100(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget("{sum: body.amount, max: 100, per: 24h}"))
    async with made.client(limits=httpx.Limits(max_connections=30)) as client:
        answers = await asyncio.gather(*(client.post(f"/pay?n={n}", **pay(5)) for n in range(30)))
    assert sorted(each.status_code for each in answers) == [200] * 20 + [403] * 10
    assert len(upstream.hits) == 20


async def test_what_is_refused_consumes_nothing(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget(DAILY) + "  - {id: no, match: 'POST {origin}/no', deny: No.}\n")
    async with made.client() as client:
        assert [(await client.post("/no", **pay(900))).status_code for _ in range(3)] == [403] * 3
    assert await statuses(made, 5000, 1000) == [403, 200]
    assert len(upstream.hits) == 1


async def test_what_the_api_refuses_costs_nothing(world: MakeWorld, upstream: Upstream) -> None:
    async def refuse(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(402)

    upstream.respond = refuse
    made = await world(budget(DAILY))
    assert await statuses(made, 1000, 1000, 1000) == [402] * 3


async def test_a_refusal_says_what_is_left_and_when_it_resets_but_never_retry_after(
    world: MakeWorld, upstream: Upstream
) -> None:
    start_ns = 1_767_614_400 * 10**9
    made = await world(budget(DAILY), Clock(lambda: start_ns))
    await statuses(made, 800)
    async with made.client() as client:
        refused = await client.post("/pay", **pay(300))
    told = refused.json()
    assert (refused.status_code, told["code"], told["executed"]) == (403, "budget-exhausted", "no")
    assert told["resets_at"] == "2026-01-06T12:00:00Z"
    assert told["retry"] == {"when": "after the reset", "after_s": 86400}
    assert "retry-after" not in refused.headers
    assert refused.headers["x-should-retry"] == "false"
    assert "200 cent of it are left" in told["message"]
    assert "at most 200 cent fits now" in told["message"]


async def test_a_budget_that_runs_low_is_told_once(
    world: MakeWorld, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    made = await world(budget(DAILY))
    with caplog.at_level(logging.WARNING, "borderpost"):
        await statuses(made, 700, 100, 100, 100)
    assert [record.getMessage() for record in caplog.records] == [
        "the budget `pay` runs low: 800 cent of 1000 cent in any 24h are spent or held"
    ]


async def test_status_shows_the_fullest_budgets(world: MakeWorld, upstream: Upstream) -> None:
    rules = budget(DAILY) + "  - {id: calls, match: '{origin}/**', budget: {sum: count, max: 10, per: day, by: host}}\n"
    made = await world(rules, Clock(lambda: 1_767_614_400 * 10**9))
    assert (await asyncio.to_thread(gather, made.ledger, made.settings.confdir, 0)).budgets == ()
    await statuses(made, 800)
    upstream.respond = lose
    await statuses(made, 150)
    facts = await asyncio.to_thread(gather, made.ledger, made.settings.confdir, 0)
    assert [msgspec.structs.astuple(each) for each in facts.budgets] == [
        ("pay", "", "in any 24h", "cent", "1000", "800", "150", 95, "2026-01-06T12:00:00.000Z"),
        ("calls", "host localhost", "in a day", "calls", "10", "1", "1", 20, "2026-01-06T00:00:00.000Z"),
    ]
    shown = [line for line in show(facts, False) if "spent" in line]
    assert shown == [
        "budgets  pay: 95 % of 1000 cent in any 24h, 800 spent, 150 held, free again from 2026-01-06T12:00:00.000Z",
        "         calls of host localhost: 20 % of 10 calls in a day, 1 spent, 1 held",
    ]
    await made.proxy.stop()
    stopped = await asyncio.to_thread(gather, made.ledger, made.settings.confdir, 0)
    assert stopped.budgets == (), "who counts is not there to tell"


async def test_of_many_budgets_some_are_shown(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget("{sum: count, max: 10, per: day, by: query.n}"))
    async with made.client() as client:
        for number in range(7):
            await client.get(f"/?n={number}")
    facts = await asyncio.to_thread(gather, made.ledger, made.settings.confdir, 0)
    assert len(facts.budgets) == 7
    assert sum("spent" in line for line in show(facts, False)) == 5
    assert any("and 2 more: borderpost status --json" in line for line in show(facts, False))


# --- scenario 28 -----------------------------------------------------------------------------------------------------


async def lose(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
    writer.close()
    return b""


async def test_a_hold_stays_while_unknown_and_resolve_not_executed_frees_it(
    world: MakeWorld, upstream: Upstream
) -> None:
    made = await world(budget(DAILY))
    upstream.respond = lose
    async with made.client() as client:
        failed = await client.post("/pay", **pay(800))
    assert failed.status_code == 502
    upstream.respond = None
    assert await statuses(made, 300) == [403]
    wanted: dict[str, Plain] = {"call": failed.headers["borderpost-call"], "executed": False, "note": "I looked"}
    await asyncio.to_thread(command, made.ledger, made.settings.confdir, "resolve", wanted, "me")
    assert await statuses(made, 1000, 1) == [200, 403]
    assert len(upstream.hits) == 2


async def test_the_record_shows_what_a_call_has_cost(world: MakeWorld, upstream: Upstream) -> None:
    async def say(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        if hit.target == "/lost":
            writer.close()
        return answer(402 if hit.target == "/refused" else 200, b'{"total": 30}')

    upstream.respond = say
    made = await world(budget("{sum: answer.body.total, estimate: 80, max: 1000, per: 24h, unit: cent}"))
    async with made.client() as client:
        for path in ("/paid", "/refused", "/lost"):
            await client.get(path)
    await made.proxy._ledger.idle()
    with LedgerReader.open(made.ledger) as reader:
        shown = {row.path: show_call(reader.show(row.id), 100, False) for row in reader.list()}
    costs = {path: next(line.split() for line in lines if " held" in line) for path, lines in shown.items()}
    assert costs == {
        "/paid": ["pay", "80", "cent", "held,", "30", "spent"],
        "/refused": ["pay", "80", "cent", "held,", "nothing", "spent"],
        "/lost": ["pay", "80", "cent", "held"],
    }


async def test_a_restart_forgets_nothing(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget(DAILY))
    assert await statuses(made, 600) == [200]
    upstream.respond = lose
    assert await statuses(made, 300) == [502]
    upstream.respond = None
    await made.proxy.stop()
    again = await world(budget(DAILY))
    assert await statuses(again, 101, 100) == [403, 200]
    assert len(upstream.hits) == 3


# --- models ----------------------------------------------------------------------------------------------------------


def events(*data: object) -> list[bytes]:
    return [f"data: {json.dumps(each) if not isinstance(each, str) else each}\n\n".encode() for each in data]


CHAT = events(
    {"model": "gpt-4o", "choices": [{"delta": {"content": "Hello"}}], "usage": None},
    {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 12}},
    "[DONE]",
)
MESSAGE = events(
    {
        "type": "message_start",
        "message": {"model": "claude-sonnet-4-5", "usage": {"input_tokens": 25, "output_tokens": 1}},
    },
    {"type": "content_block_delta", "delta": {"text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}},
    {"type": "message_stop"},
)


class Streaming:
    """Sends the head, then event after event, each when it is told to go on."""

    def __init__(self, upstream: Upstream, sent: list[bytes], go_on: asyncio.Event | None = None) -> None:
        self.sent = sent
        self.go_on = go_on
        upstream.respond = self.respond

    async def respond(self, hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, event in enumerate(self.sent):
            if number == 1 and self.go_on is not None:
                await self.go_on.wait()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        return b"0\r\n\r\n"


def spent(made: World) -> Decimal:
    (row,) = made.proxy._gate._state.of(Budgets).rows.values()
    return row.sum


def held(made: World) -> Decimal:
    (row,) = made.proxy._gate._state.of(Budgets).rows.values()
    return row.held_since(0)


ASKED = {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": []}


@pytest.mark.parametrize(("stream", "tokens"), [(CHAT, 42), (MESSAGE, 40)])
async def test_a_stream_settles_at_the_usage_that_its_events_tell(
    world: MakeWorld, upstream: Upstream, stream: list[bytes], tokens: int
) -> None:
    Streaming(upstream, stream)
    made = await world(budget("{sum: tokens, max: 500, per: day}"))
    async with made.client() as client:
        answered = await client.post("/v1/messages", json=ASKED)
        assert answered.content == b"".join(stream)
        assert spent(made) == tokens
        assert held(made) == 0
        assert (await client.post("/v1/messages", json=ASKED)).status_code == 200
        assert spent(made) == 2 * tokens
        assert (await client.post("/v1/messages", json=ASKED)).status_code == 403
    assert len(upstream.hits) == 2


async def test_a_stream_that_is_longer_than_what_is_kept_is_read_to_its_end(
    world: MakeWorld, upstream: Upstream
) -> None:
    filler = [f"data: {json.dumps({'choices': [{'delta': {'content': 'a' * 60_000}}]})}\n\n".encode()] * 40
    Streaming(upstream, [*CHAT[:1], *filler, *CHAT[1:]])
    made = await world(budget("{sum: cost, max: 5, per: day}"))
    async with made.client() as client:
        answered = await client.post("/v1/chat/completions", json=ASKED)
    assert len(answered.content) > 2 << 20
    assert spent(made) == (Decimal("2.5") * 30 + Decimal(10) * 12) / 1_000_000


async def test_a_stream_that_tells_no_usage_costs_what_was_held(world: MakeWorld, upstream: Upstream) -> None:
    Streaming(upstream, CHAT[:1] + CHAT[2:])
    made = await world(budget("{sum: tokens, max: 500, per: day}"))
    async with made.client() as client:
        await client.post("/v1/chat/completions", json=ASKED)
    assert spent(made) > 400


async def test_a_whole_answer_tells_its_usage_too(world: MakeWorld, upstream: Upstream) -> None:
    async def say(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        return answer(200, json.dumps({"model": "gpt-4o", "usage": {"input_tokens": 8, "output_tokens": 3}}).encode())

    upstream.respond = say
    made = await world(budget("{sum: tokens, max: 500, per: day}"))
    async with made.client() as client:
        assert (await client.post("/v1/responses", json=ASKED)).status_code == 200
    assert spent(made) == 11


async def test_when_the_client_leaves_in_the_middle_of_a_stream_what_was_held_stays_held(
    world: MakeWorld, upstream: Upstream
) -> None:
    Streaming(upstream, CHAT, go_on=asyncio.Event())
    made = await world(budget("{sum: tokens, max: 500, per: day}"))
    async with made.client() as client, client.stream("POST", "/v1/chat/completions", json=ASKED) as answered:
        async for chunk in answered.aiter_raw():
            assert chunk == CHAT[0]
            break
    (row,) = made.proxy._gate._state.of(Budgets).rows.values()
    await until(lambda: any(hold.unknown for hold in row.holds.values()))
    assert spent(made) == 0
    assert held(made) > 400
    async with made.client() as client:
        assert (await client.post("/v1/chat/completions", json=ASKED)).status_code == 403
    assert len(upstream.hits) == 1


async def test_the_boot_names_the_version_of_the_prices(world: MakeWorld) -> None:
    from importlib import metadata

    made = await world(budget("{sum: cost, max: 5, per: day}"))
    await made.proxy._ledger.idle()
    with LedgerReader.open(made.ledger) as reader:
        boot = reader.status().boot
    assert boot is not None
    assert boot["versions"]["genai-prices"] == metadata.version("genai-prices")


async def test_uploads_are_streamed_and_counted(world: MakeWorld, upstream: Upstream) -> None:
    made = await world(budget("{sum: bytes, max: 20MB, per: day}"))
    async with made.client() as client:
        assert (await client.put("/a", content=b"a" * 17_000_000)).status_code == 200, "more than is buffered"
        assert (await client.put("/b", content=b"a" * 3_000_000)).status_code == 403

        async def pieces() -> Any:
            yield b"a"

        assert (await client.put("/c", content=pieces())).status_code == 200, "taken whole: it does not say its length"
    assert spent(made) == 17_000_001 + 2 * len(b'{"n":1}')
    assert len(upstream.hits) == 2
