"""The clock never goes back: not when it is set back, and not over a restart. Only a recorded command moves it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import desk
from proxy.clock import Clock
from proxy.gate import Gate
from proxy.ledger.commands import CommandError
from proxy.ledger.entries import LedgerError
from proxy.ledger.query import LedgerReader
from proxy.ledger.verify import verify
from proxy.runs import Runs
from rules.load import load
from rules.state import SetBack
from tests.proxy.conftest import Hit, MakeWorld, World, answer, until
from tests.proxy.ledger.samples import open_ledger, refusal

S = 1_000_000_000
MONDAY = 1_767_614_400 * S
"""2026-01-05 12:00 UTC."""

YEARS = 10 * 365 * 86400 * S

RULES = """
version: 1
rules:
  - {id: orders, match: "POST {origin}/orders", allow: true, dedupe: 1h}
  - {id: look, match: "GET {origin}/**", allow: true, throttle: 2/min}
  - {id: slow, match: "PUT {origin}/**", allow: true, throttle: {rate: 1/min, wait: 30s}}
"""


@given(st.lists(st.integers(0, 10**19), min_size=1))
def test_it_never_goes_back_and_never_lags_behind_the_wall(wall: list[int]) -> None:
    moments = iter(wall)
    clock = Clock(lambda: next(moments))
    given_ns = [clock.now_ns() for _ in wall]
    assert given_ns == sorted(given_ns)
    assert given_ns == [max(wall[: index + 1]) for index in range(len(wall))]


def test_what_is_recorded_counts_as_past() -> None:
    clock = Clock(lambda: 100)
    clock.advance(500)
    clock.advance(400)
    assert clock.now_ns() == 500
    assert clock.behind() == SetBack(500, 100)


def test_once_set_back_it_goes_on_with_the_wall() -> None:
    wall = [100]
    clock = Clock(lambda: wall[0])
    clock.advance(500)
    clock.set_back(SetBack(500, 100))
    wall[0] = 101
    assert (clock.now_ns(), clock.behind()) == (101, None)
    wall[0] = 99
    assert clock.now_ns() == 101, "and does not go back any more"


def test_moments_that_were_told_before_are_told_anew() -> None:
    clock = Clock(lambda: 100)
    clock.advance(500)
    before, told_ns = clock.times_set_back, 530
    clock.set_back(SetBack(500, 100))
    assert clock.moved(told_ns, before) == 130
    assert clock.moved(told_ns, clock.times_set_back) == told_ns


class Wall:
    """What time the computer says."""

    def __init__(self) -> None:
        self.at_ns = MONDAY

    def clock(self) -> Clock:
        return Clock(lambda: self.at_ns)


async def accept(world: World) -> Any:
    """As the command line does it, from another thread."""
    return await asyncio.to_thread(
        desk.command, world.ledger, world.settings.confdir, "clock", {"note": "was wrong"}, "ada"
    )


async def looks(client: Any, times: int) -> list[int]:
    return [(await client.get("/a")).status_code for _ in range(times)]


async def order(client: Any, number: int) -> str:
    got = await client.post("/orders", json={"n": number})
    return "replay" if got.headers.get("idempotent-replayed") else str(got.json().get("code", got.status_code))


def entries(world: World, what: str, kind: str) -> list[Any]:
    with closing(sqlite3.connect(world.ledger)) as connection:
        return connection.execute(f"SELECT {what} FROM entries WHERE kind = '{kind}' ORDER BY seq").fetchall()


def answers(world: World) -> list[int]:
    with closing(sqlite3.connect(world.ledger)) as connection:
        return [row[0] for row in connection.execute("SELECT until_ns FROM answers ORDER BY until_ns")]


async def test_small_steps_of_the_time_service_free_nothing_and_block_nothing(world: MakeWorld) -> None:
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    async with here.client() as client:
        assert [*await looks(client, 2), await order(client, 1)] == [200, 200, "200"]
        for step_s in (-2, 1, -0.5, 2, 59 - 0.5):  # at +59 s of the wall, all in all
            wall.at_ns += int(step_s * S)
            assert [*await looks(client, 1), await order(client, 1)] == [429, "replay"]
        wall.at_ns = MONDAY + 60 * S
        assert await looks(client, 3) == [200, 200, 429]
    assert len(here.upstream.hits) == 5
    times = [row[0] for row in entries(here, "at_ns", "decision")]
    assert times == sorted(times)


async def test_after_a_sleep_of_days_the_windows_are_over(world: MakeWorld) -> None:
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    async with here.client() as client:
        assert [*await looks(client, 3), await order(client, 1), await order(client, 1)] == [
            200, 200, 429, "200", "replay",
        ]  # fmt: skip
        wall.at_ns += 3 * 86400 * S
        assert [*await looks(client, 3), await order(client, 1)] == [200, 200, 429, "200"]
    with pytest.raises(CommandError, match="nothing to accept"):
        await accept(here)


async def test_a_restart_with_a_clock_that_is_behind_frees_nothing(
    world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    wall = Wall()
    first = await world(RULES, clock=wall.clock())
    async with first.client() as client:
        assert [*await looks(client, 2), await order(client, 1)] == [200, 200, "200"]
    await first.proxy.stop()
    wall.at_ns -= 3600 * S
    with caplog.at_level(logging.WARNING, "borderpost"):
        here = await world(RULES, clock=wall.clock())
    assert "the clock of this computer is 3600 s behind the record" in caplog.text
    async with here.client() as client:
        assert [*await looks(client, 1), await order(client, 1)] == [429, "replay"]
        wall.at_ns += 3659 * S
        assert [*await looks(client, 1), await order(client, 1)] == [429, "replay"]
        wall.at_ns += 1 * S
        assert [*await looks(client, 1), await order(client, 1)] == [200, "replay"]
    assert len(here.upstream.hits) == 4


@pytest.mark.parametrize("restarted", [False, True], ids=["while it runs", "and restarted then"])
async def test_a_jump_into_the_future_is_mended(world: MakeWorld, restarted: bool) -> None:
    """Nothing that was refused goes out because the clock was set back, and nothing is refused for years."""
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    async with here.client() as client:
        assert await order(client, 1) == "200"
        wall.at_ns += YEARS
        assert [*await looks(client, 2), await order(client, 2)] == [200, 200, "200"]
        wall.at_ns = MONDAY + 60 * S
        assert [*await looks(client, 1), await order(client, 2)] == [429, "replay"]
        wall.at_ns = MONDAY + 86400 * S
        assert [*await looks(client, 1), await order(client, 2)] == [429, "replay"], "no window passes"

        assert await accept(here) == {"from_ns": MONDAY + YEARS, "to_ns": MONDAY + 86400 * S}
        assert [*await looks(client, 1), await order(client, 2)] == [429, "replay"], "and nothing becomes free"
    if restarted:
        await here.proxy.stop()
        here = await world(RULES, clock=wall.clock())
    async with here.client() as client:
        wall.at_ns += 59 * S
        assert [*await looks(client, 1), await order(client, 2)] == [429, "replay"]
        wall.at_ns += 1 * S
        assert [*await looks(client, 1), await order(client, 2)] == [200, "replay"]
        assert len(here.upstream.hits) == 5
        wall.at_ns = MONDAY + (86400 + 3600) * S
        assert [*await looks(client, 1), await order(client, 2)] == [200, "200"]
    assert len(here.upstream.hits) == 7
    assert entries(here, "rest ->> '$.by', rest ->> '$.data.note', rest ->> '$.name', at_ns", "command")[0] == (
        "ada", "was wrong", "clock", MONDAY + 86400 * S,
    )  # fmt: skip


async def test_answers_are_kept_no_longer_for_it_and_the_record_verifies(world: MakeWorld) -> None:
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    async with here.client() as client:
        wall.at_ns += YEARS
        await order(client, 1)
        wall.at_ns = MONDAY
        await accept(here)
        assert answers(here) == [MONDAY + 3600 * S]
        await order(client, 2)
        await here.proxy.stop()
    assert answers(here) == [MONDAY + 3600 * S] * 2
    assert verify(here.ledger, None, None, lambda done, total: None).result == "inconclusive", "without an anchor"
    with closing(sqlite3.connect(here.ledger)) as connection, connection:
        connection.execute("UPDATE answers SET until_ns = until_ns + 1")
    assert verify(here.ledger, None, None, lambda done, total: None).result == "broken"


async def test_a_call_that_is_out_meanwhile_settles_in_the_new_time(world: MakeWorld) -> None:
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        arrived.set()
        await finish.wait()
        return answer(200)

    here.upstream.respond = respond
    wall.at_ns += YEARS
    async with here.client() as client:
        first = asyncio.create_task(client.post("/orders", json={"n": 1}))
        await arrived.wait()
        wall.at_ns = MONDAY
        await accept(here)
        wall.at_ns += 5 * S
        twin = asyncio.create_task(order(client, 1))
        finish.set()
        assert (await first).status_code == 200
        assert await twin == "replay"
    await here.proxy.stop()
    assert entries(here, "duration_ns, outcome", "outcome") == [(5 * S, "done")]
    assert answers(here) == [MONDAY + 3600 * S], "kept as long as its claim"


async def test_a_call_that_waits_meanwhile_is_sent_when_its_turn_comes(world: MakeWorld) -> None:
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    async with here.client(timeout=30) as client:
        wall.at_ns += YEARS
        assert (await client.put("/1")).status_code == 200
        wall.at_ns += 60 * S - 200_000_000
        waits = asyncio.create_task(client.put("/2"))
        await until(lambda: len(entries(here, "1", "decision")) == 2)
        wall.at_ns = MONDAY
        await accept(here)
        wall.at_ns += 200_000_000
        assert (await waits).status_code == 200
    assert [hit.target for hit in here.upstream.hits] == ["/1", "/2"]


async def test_a_step_back_that_the_disk_lost_is_none(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes back to what is recorded, and so does the clock."""
    wall = Wall()
    here = await world(RULES, clock=wall.clock())
    gate, ledger = here.proxy._gate, here.proxy._ledger
    async with here.client() as client:
        wall.at_ns += YEARS
        await looks(client, 2)
        wall.at_ns = MONDAY
        await ledger.idle()

        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(ledger._writing, "write", full)
            assert gate.set_back_clock("was wrong", "ada") is not None
            assert gate.clock.now_ns() == MONDAY
            with pytest.raises(LedgerError):
                await ledger.idle()
        assert await gate.recover("ada")
        assert gate.clock.now_ns() == MONDAY + YEARS
        assert await looks(client, 1) == [429]


def test_without_a_proxy_the_command_line_does_it(tmp_path: Any) -> None:
    ledger = open_ledger(tmp_path)
    ledger.append(refusal(at_ns=2**62))
    ledger.close()
    result = desk.command(ledger.path, tmp_path / "conf", "clock", {"note": "was wrong"}, "ada")
    assert result["from_ns"] == 2**62
    with LedgerReader.open(ledger.path) as reader:
        assert reader.status().last_ns == result["to_ns"]
    with pytest.raises(CommandError, match="nothing to accept"):
        desk.command(ledger.path, tmp_path / "conf", "clock", {"note": "again"}, "ada")
    with pytest.raises(CommandError, match="needs a note"):
        desk.command(ledger.path, tmp_path / "conf", "clock", {}, "ada")


def test_refusals_that_were_only_counted_are_recorded_before_it(tmp_path: Any) -> None:
    wall = [MONDAY + YEARS]
    ledger = open_ledger(tmp_path)
    gate = Gate(load([], {}).ruleset, ledger, Clock(lambda: wall[0]), Runs("", lambda now_ns: ""))
    for number in range(150):
        gate._record(refusal(f"c_{number}", at_ns=gate.clock.now_ns()))
    wall[0] = MONDAY
    gate.set_back_clock("was wrong", "ada")
    ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        rows = connection.execute("SELECT kind, sum(calls), max(at_ns) FROM entries GROUP BY kind ORDER BY max(seq)")
        assert rows.fetchall() == [
            ("decision", 150, MONDAY + YEARS), ("checkpoint", None, MONDAY + YEARS), ("command", None, MONDAY),
        ]  # fmt: skip
