"""approve through a real proxy: how many calls reach the upstream is the truth."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy import desk
from proxy.clock import Clock
from proxy.ledger.asked import Question
from proxy.ledger.commands import CommandError, Data
from proxy.ledger.query import LedgerReader
from proxy.osuser import os_user
from proxy.report.approvals import plain, show_card, waiting
from proxy.rulefiles import read
from proxy.server import Proxy
from rules.decision import Plain
from tests.crash.sweep import Proxies
from tests.proxy.test_attacks import H2
from tests.proxy.test_waiting import deny_everything

HELD = """
version: 1
rules:
  - {id: large, match: "POST {origin}/**", allow: true, approve: {title: A refund, hold: 30s}}
  - {id: look, match: "GET {origin}/**", allow: true}
"""
ONCE = HELD.replace("allow: true, approve", "allow: true, dedupe: 1h, approve")
TICKETS = HELD.replace("hold: 30s", "hold: 0")
REFUND = {"charge": "ch_1", "amount": 9000}


def questions(ledger: Path) -> tuple[Question, ...]:
    with LedgerReader.open(ledger) as reader:
        return reader.questions(Clock().now_ns())


async def asked(here: Any, count: int = 1) -> list[Question]:
    """The questions that are open, when there are so many."""
    return await open_in(here.ledger, count)


async def open_in(ledger: Path, count: int = 1) -> list[Question]:
    while True:
        found = [one for one in await asyncio.to_thread(questions, ledger) if one.state == "asked"]
        if len(found) == count:
            return found
        await asyncio.sleep(0.01)


async def says(here: Any, ticket: str, allowed: bool, note: str = "", by: str = "ada") -> Any:
    """A person's answer, as the command line gives it."""
    data: Data = {"card": ticket, "allowed": allowed, "note": note}
    return await asyncio.to_thread(desk.command, here.ledger, here.settings.confdir, "answer", data, by)


def rows(ledger: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


async def test_a_call_that_is_held_goes_when_it_is_allowed(world: Any) -> None:
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        assert (question.title, question.rule) == ("A refund", "large")
        assert here.upstream.hits == []
        assert (await client.get("/charges")).status_code == 200, "others are not held up"
        await says(here, question.id, True, "I know about it")
        assert (await call).status_code == 200
    assert [hit.target for hit in here.upstream.hits] == ["/charges", "/refunds"]
    await here.proxy.stop()
    entries = rows(here.ledger, "select decision, calls, path from entries where path = '/refunds' order by seq")
    assert entries == [("hold", 0, "/refunds"), ("allow", 1, "/refunds")]
    with LedgerReader.open(here.ledger) as reader:
        assert [(call.decision, call.path) for call in reader.list()] == [("allow", "/refunds"), ("allow", "/charges")]
        assert reader.status().totals["hold"] == 0
        assert [row.key for row in reader.stats()] == ["allow"]


async def test_an_allow_is_on_record_with_its_answer_before_the_call_leaves(world: Any) -> None:
    here = await world(HELD)
    recorded: list[Any] = []

    async def respond(hit: Any, writer: asyncio.StreamWriter) -> bytes:
        recorded.extend(await asyncio.to_thread(rows, here.ledger, "select kind, decision from entries order by seq"))
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    here.upstream.respond = respond
    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        await says(here, question.id, True)
        await call
    assert recorded[-3:] == [("decision", "hold"), ("command", None), ("decision", "allow")]


@pytest.mark.parametrize(("by", "own_user"), [("ada", False), (os_user(), True)])
async def test_who_answered_is_on_record_and_whether_the_agent_may_be_the_same(
    world: Any, by: str, own_user: bool
) -> None:
    here = await world(TICKETS)
    async with here.client(timeout=30) as client:
        ticket = (await client.post("/refunds", json=REFUND)).json()["ticket"]
        await says(here, ticket, True, "fine", by)
    found = rows(here.ledger, "select rest ->> '$.by', rest ->> '$.data' from entries where kind = 'command'")
    assert found == [(by, f'{{"allowed":true,"card":"{ticket}","note":"fine","own_user":{str(own_user).lower()}}}')]
    assert [(one.state, one.by, one.own_user) for one in questions(here.ledger)] == [("granted", by, own_user)]


async def test_a_refusal_reaches_the_agent_with_its_reason(world: Any) -> None:
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        await says(here, question.id, False, "Refunded by\x1b[31m hand")
        got = await call
        again = await client.post("/refunds", json=REFUND)
    for each in (got, again):
        assert (each.status_code, each.json()["code"], each.json()["executed"]) == (403, "approval-refused", "no")
        assert "A person has refused this call: Refunded by\\x1b[31m hand." in each.json()["message"]
        assert each.headers["x-should-retry"] == "false"
    assert here.upstream.hits == []


async def test_a_ticket_lets_the_identical_call_pass_once(world: Any) -> None:
    here = await world(HELD.replace("hold: 30s", "hold: 100ms"))
    async with here.client(timeout=30) as client:
        late = [await client.post("/refunds", json=REFUND) for _ in range(2)]
        assert [(each.status_code, each.json()["code"]) for each in late] == [(403, "approval-required")] * 2
        ticket = late[0].json()["ticket"]
        assert late[1].json()["ticket"] == ticket, "one question for all retries"
        assert "retry-after" not in late[0].headers
        assert late[0].json()["retry"]["when"] == "the identical call, after approval"
        await says(here, ticket, True)
        other = await client.post("/refunds", json={**REFUND, "amount": 9001})
        assert other.json()["code"] == "approval-required"
        assert (await client.post("/refunds", json=REFUND)).status_code == 200
        assert (await client.post("/refunds", json=REFUND)).json()["code"] == "approval-required"
    assert len(here.upstream.hits) == 1
    await here.proxy.stop()
    with LedgerReader.open(here.ledger) as reader:
        assert [call.decision for call in reader.list()] == ["hold", "allow", "hold", "hold", "hold"]
        assert [call.status for call in reader.list() if call.decision == "hold"] == [403] * 4


async def test_a_second_retry_is_replayed_where_a_dedupe_stands_beside(world: Any) -> None:
    here = await world(ONCE.replace("hold: 30s", "hold: 0"))
    async with here.client(timeout=30) as client:
        ticket = (await client.post("/refunds", json=REFUND)).json()["ticket"]
        await says(here, ticket, True)
        got = [await client.post("/refunds", json=REFUND) for _ in range(3)]
    assert [each.status_code for each in got] == [200] * 3
    assert ["idempotent-replayed" in each.headers for each in got] == [False, True, True]
    assert len(here.upstream.hits) == 1


async def test_twins_of_a_held_call_share_its_question_and_its_answer(world: Any) -> None:
    here = await world(ONCE)
    async with here.client(timeout=30) as client:
        calls = [asyncio.create_task(client.post("/refunds", json=REFUND)) for _ in range(8)]
        while len(here.proxy._gate._room._waiters) < 8:  # noqa: ASYNC110  nothing tells when somebody sits down
            await asyncio.sleep(0.005)
        (question,) = await asked(here)
        await says(here, question.id, True)
        got = await asyncio.gather(*calls)
    assert {(each.status_code, each.content) for each in got} == {(200, b'{"n":1}')}
    assert len(here.upstream.hits) == 1


async def test_one_word_lets_one_of_two_identical_calls_pass(world: Any) -> None:
    """Without a dedupe they are two acts: the second is another question."""
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        calls = [asyncio.create_task(client.post("/refunds", json=REFUND)) for _ in range(2)]
        while len(here.proxy._gate._room._waiters) < 2:  # noqa: ASYNC110  nothing tells when somebody sits down
            await asyncio.sleep(0.005)
        (first,) = await asked(here)
        await says(here, first.id, True)
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result().status_code for each in done] == [200]
        (second,) = await asked(here)
        assert second.id != first.id
        assert len(here.upstream.hits) == 1
        await says(here, second.id, True)
        assert [(await each).status_code for each in waiting] == [200]
    assert len(here.upstream.hits) == 2


@pytest.mark.parametrize("way", ["http/1.1", "http/2", "stream"])
async def test_a_question_whose_client_has_left_is_closed(world: Any, way: str) -> None:
    here = await world(HELD)
    if way == "stream":
        client = await H2.to(here)
        stream = await client.begin(b"POST", b"/refunds", (b"content-length", b"2"))
        await client.data(stream, b"{}")
        (question,) = await asked(here)
        client.connection.reset_stream(stream)
        await client.flush()
        await asked(here, 0)
        other = await client.begin(b"GET", b"/charges", end=True)
        assert (await client.answer(other))[0] == 200, "its connection lives"
        client.tunnel.leave()
    else:
        async with here.client(timeout=30, http2=way == "http/2") as hasty:
            call = asyncio.create_task(hasty.post("/refunds", json=REFUND))
            (question,) = await asked(here)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await asked(here, 0)
    with pytest.raises(CommandError, match="waits for no answer"):
        await says(here, question.id, True)
    assert [hit.method for hit in here.upstream.hits] == (["GET"] if way == "stream" else [])


async def test_a_question_stays_open_while_another_client_waits_for_it(world: Any) -> None:
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        stays = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        async with here.client(timeout=httpx.Timeout(20, read=0.2)) as hasty:
            with pytest.raises(httpx.ReadTimeout):
                await hasty.post("/refunds", json=REFUND)
        while len(here.proxy._gate._room._waiters) > 1:  # noqa: ASYNC110  nothing tells when somebody rises
            await asyncio.sleep(0.005)
        await says(here, question.id, True)
        assert (await stays).status_code == 200
    assert len(here.upstream.hits) == 1


async def test_a_deny_that_comes_into_force_refuses_what_is_held(world: Any) -> None:
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        deny_everything(here)
        assert (await call).json()["code"] == "policy-denied"
        await says(here, question.id, True)
        assert (await client.post("/refunds", json=REFUND)).json()["code"] == "policy-denied"
    assert here.upstream.hits == []


async def test_a_halt_refuses_what_is_held_and_leaves_its_question_open(world: Any) -> None:
    here = await world(HELD)

    async def orders(name: str, **data: Plain) -> None:
        await asyncio.to_thread(desk.command, here.ledger, here.settings.confdir, name, data, "ada")

    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        await orders("halt", agent="", tool="", reason="Stop.")
        assert (await call).json()["code"] == "halted"
        await says(here, question.id, True)
        assert (await client.post("/refunds", json=REFUND)).json()["code"] == "halted"
        await orders("resume", agent="", tool="")
        assert (await client.post("/refunds", json=REFUND)).status_code == 200
    assert len(here.upstream.hits) == 1


async def test_the_terminal_tells_of_a_question_once(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    here = await world(TICKETS)
    with caplog.at_level(logging.WARNING, "borderpost"):
        async with here.client(timeout=30) as client:
            tickets = {(await client.post("/refunds", json=REFUND)).json()["ticket"] for _ in range(3)}
    (ticket,) = tickets
    (said,) = [record.getMessage() for record in caplog.records if "waits for you" in record.getMessage()]
    assert f"borderpost approvals show {ticket} --ledger {here.ledger}" in said


async def test_the_terminal_says_what_is_asked_for_without_secrets(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tool = 'tools: {order: {match: "POST {origin}/orders", credential: query.k}}'
    here = await world(TICKETS.replace("rules:", f"{tool}\nrules:"))
    secret = "sk_live_0123456789abcdef"
    url = f"/orders?for=c1&api_key=swordfish&k=tuna&note={secret}"
    asked_for = {"x-amz-target": "Orders.Cancel"}
    with caplog.at_level(logging.WARNING, "borderpost"):
        async with here.client(timeout=30) as client:
            await client.post(url, json=REFUND, headers=asked_for)
            await client.post(f"/services/T0/B0/{'x' * 20}", json=REFUND)
    first, second = [record.getMessage() for record in caplog.records if "waits for you" in record.getMessage()]
    assert re.search(
        r"default asks for POST localhost/orders\?for=c1&api_key=hash:\w{32}&note=hash:\w{32} \(Orders\.Cancel\) · ",
        first,
    )
    assert "asks for POST localhost/services/hash:" in second
    await here.proxy.stop()
    written = b"".join(path.read_bytes() for path in here.ledger.parent.glob("ledger.db*"))
    for hidden in ("swordfish", "tuna", secret, "x" * 20):
        assert hidden not in first + second
        assert hidden.encode() not in written


async def test_a_person_sees_what_they_allow(world: Any) -> None:
    """What names the operation, and long texts: whole as far as they are kept, and it is said where they are not."""
    tool = "tools: {order: {match: {request: 'POST {origin}/orders', where: {header.x-action: {exists: true}}}}}"
    here = await world(TICKETS.replace("rules:", f"{tool}\nrules:"))
    mail = "dear customer, " * 100
    async with here.client(timeout=30) as client:
        for body in ({"mail": mail}, {"mail": mail * 3}, {"mail": ["x"] * 300}):
            await client.post("/orders", json=body, headers={"x-action": "cancel", "soapaction": "urn:x"})
    await asked(here, 3)
    now_ns = Clock().now_ns()
    with LedgerReader.open(here.ledger) as reader:
        cards = waiting(reader, now_ns)
    shown = ["\n".join(show_card(card, now_ns, 100, False)) for card in cards]
    assert [each.count("  header soapaction = urn:x\n  header x-action = cancel\n") for each in shown] == [1, 1, 1]
    assert plain(cards[0])["headers"] == {"soapaction": "urn:x", "x-action": "cancel"}
    assert plain(cards[0])["body"] == {"mail": mail}
    assert ["To see the rest, ask whoever runs the agent" in " ".join(each.split()) for each in shown] == [
        False,
        True,
        True,
    ]


@asynccontextmanager
async def started(here: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Another proxy on the same ledger, and a client of it."""
    proxy = Proxy(here.settings, read(here.settings.rules, here.directory))
    await proxy.start()
    try:
        async with here.client(proxy=f"http://127.0.0.1:{proxy.address[1]}", timeout=30) as client:
            yield client
    finally:
        await proxy.stop()


async def test_a_stop_tells_those_who_are_held_and_leaves_their_questions_open(world: Any) -> None:
    """Then a person answers while no proxy runs, and the retry passes the next one, once."""
    here = await world(HELD)
    async with here.client(timeout=30) as client:
        call = asyncio.create_task(client.post("/refunds", json=REFUND))
        (question,) = await asked(here)
        await here.proxy.stop()
        got = await call
    assert (got.json()["code"], got.json()["ticket"]) == ("approval-required", question.id)
    await says(here, question.id, True)
    async with started(here) as client:
        assert (await client.post("/refunds", json=REFUND)).status_code == 200
        again = asyncio.create_task(client.post("/refunds", json=REFUND))
        (second,) = await asked(here)
        await says(here, second.id, False, "once is enough")
        assert (await again).json()["code"] == "approval-refused"
    assert len(here.upstream.hits) == 1


async def test_a_question_and_its_answer_survive_a_kill(tmp_path: Path) -> None:
    async with Proxies(tmp_path) as proxies:
        proxies.write_rules("  - {id: large, match: 'https://**', approve: {hold: 0}}\n")

        def says_yes(ticket: str) -> None:
            data: Data = {"card": ticket, "allowed": True, "note": ""}
            desk.command(tmp_path / "ledger.db", tmp_path / "confdir", "answer", data, "ada")

        async def call() -> httpx.Response:
            async with proxies.client() as client:
                return await client.post("/pay/1", content=b"{}")

        async def kill_and_start() -> None:
            proxies.kill()
            await proxies.dead()
            assert await proxies.start()

        assert await proxies.start()
        ticket = (await call()).json()["ticket"]
        assert [one.id for one in await open_in(tmp_path / "ledger.db")] == [ticket]
        await kill_and_start()
        assert (await call()).json()["ticket"] == ticket
        await asyncio.to_thread(says_yes, ticket)
        await kill_and_start()
        assert (await call()).status_code == 200
        proxies.kill()
        await proxies.dead()
    assert proxies.upstream.effects.total() == 1


async def test_a_word_is_good_until_it_expires(world: Any) -> None:
    wall = [10**18]
    here = await world(TICKETS, Clock(lambda: wall[0]))
    async with here.client(timeout=30) as client:
        first = (await client.post("/refunds", json=REFUND)).json()["ticket"]
        await says(here, first, True)
        wall[0] += 3600 * 10**9
        second = await client.post("/refunds", json=REFUND)
        assert (second.json()["code"], here.upstream.hits) == ("approval-required", [])
        await says(here, second.json()["ticket"], True)
        wall[0] += 3600 * 10**9 - 1
        assert (await client.post("/refunds", json=REFUND)).status_code == 200
    assert len(here.upstream.hits) == 1
