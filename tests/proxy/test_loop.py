"""Agents that are stuck, through a real proxy: how often the upstream is asked, and what they are told."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from proxy.agents import Agents
from proxy.clock import Clock
from tests.proxy.conftest import Hit, answer

RULES = """
version: 1
tools:
  act: {match: "POST {origin}/act/{what}"}
  say: {match: "POST {origin}/say", expect: {body.ok: true}}
  job: "GET {origin}/jobs/{id}"
  once: "POST {origin}/once"
rules:
  - {id: work, tool: "*", allow: true, loop: true}
  - {id: once, tool: once, dedupe: 1h}
"""


class Hand(Clock):
    """A clock that goes where the test puts it."""

    def __init__(self) -> None:
        self.at_ns = 1_800_000_000 * 10**9
        super().__init__(lambda: self.at_ns)


def always(here: Any, reply: bytes) -> None:
    async def respond(hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        if not reply:
            writer.transport.abort()
        return reply

    here.upstream.respond = respond


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/act/a", answer(500)),
        ("/act/a", answer(422, b'{"error": "no such charge"}')),
        ("/say", answer(200, b'{"ok": false}')),
        ("/act/a", b""),
    ],
    ids=["500", "422", "a failure behind a 200", "a broken connection"],
)
async def test_200_retries_of_a_failing_call_reach_the_upstream_three_times(
    world: Any, path: str, reply: bytes
) -> None:
    here = await world(RULES)
    always(here, reply)
    async with here.client() as client:
        got = [await client.post(path, json={"n": 1}) for _ in range(200)]
        assert len(here.upstream.hits) == 3
        assert {each.json()["code"] for each in got[3:]} == {"loop-detected"}
        other = await client.post(path, json={"n": 2})
    assert len(here.upstream.hits) == 4, "another call is not affected"
    refused = got[-1]
    assert (refused.status_code, refused.headers.get("retry-after")) == (403, None)
    assert refused.headers["x-should-retry"] == "false"
    assert "This same call was made 3 times, each time with the same result" in refused.json()["message"]
    assert "Do not repeat this call" in refused.json()["message"]
    assert other.status_code != 403


async def test_a_poll_whose_answer_changes_is_never_broken(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        got = [await client.get("/jobs/7") for _ in range(50)]
    assert [each.status_code for each in got] == [200] * 50
    assert len(here.upstream.hits) == 50


async def test_a_poll_that_gets_nowhere_is_broken(world: Any) -> None:
    here = await world(RULES)
    always(here, answer(200, b'{"state": "waiting"}'))
    async with here.client() as client:
        got = [await client.get("/jobs/7") for _ in range(50)]
    assert len(here.upstream.hits) == 10
    assert got[-1].json()["code"] == "loop-detected"


async def test_replays_count_and_the_agent_is_told_that_it_was_executed(world: Any) -> None:
    here = await world(RULES)
    async with here.client() as client:
        got = [await client.post("/once", json={"amount": 5}) for _ in range(20)]
    assert len(here.upstream.hits) == 1
    assert [each.status_code for each in got] == [200] * 5 + [403] * 15
    assert (got[-1].json()["code"], got[-1].json()["executed"]) == ("loop-detected", "yes")


async def test_it_holds_over_a_restart_and_ends_when_something_else_comes_of_it(world: Any) -> None:
    clock = Hand()
    here = await world(RULES, clock)
    always(here, answer(503))
    async with here.client() as client:
        for _ in range(5):
            await client.post("/act/a")
    await here.proxy.stop()
    again = await world(RULES, clock)
    async with again.client() as client:
        assert (await client.post("/act/a")).json()["code"] == "loop-detected"
        assert len(again.upstream.hits) == 3
        clock.at_ns += 60 * 10**9
        always(again, answer(200))
        assert [(await client.post("/act/a")).status_code for _ in range(2)] == [200, 200]
    assert len(again.upstream.hits) == 5


async def test_two_runs_at_the_same_time_do_not_stop_each_other(world: Any) -> None:
    here = await world(RULES)
    always(here, answer(500))
    agents = Agents(here.settings.confdir)
    urls = [here.proxy_url.replace("//", f"//{name}:{agents.add(name, time.time_ns())}@", 1) for name in ("ann", "bob")]

    async def retry(proxy: str) -> list[int]:
        async with here.client(proxy=proxy) as client:
            return [(await client.post("/act/a", json={"n": 1})).status_code for _ in range(20)]

    got = await asyncio.gather(*map(retry, urls))
    assert got == [[500] * 3 + [403] * 17] * 2
    assert len(here.upstream.hits) == 6


MCP_RULES = """
version: 1
tools:
  report: {match: {request: "POST {origin}/mcp", mcp: make_report}}
rules:
  - {id: work, tool: report, allow: true, loop: true}
"""


@pytest.mark.parametrize("form", ["application/json", "gzip", "text/event-stream"])
@pytest.mark.parametrize(("failed", "reached"), [(True, 3), (False, 5)])
async def test_an_mcp_tool_that_answers_the_same_under_every_new_id_is_stopped(
    world: Any, form: str, failed: bool, reached: int
) -> None:
    here = await world(MCP_RULES)

    async def respond(hit: Hit, _: asyncio.StreamWriter) -> bytes:
        result = {"content": [{"type": "text", "text": "the report could not be made"}], "isError": failed}
        said = json.dumps({"jsonrpc": "2.0", "id": json.loads(hit.body)["id"], "result": result}).encode()
        if form == "gzip":
            return answer(200, gzip.compress(said), ("content-encoding", "gzip"))
        if form == "text/event-stream":
            streamed = answer(200, b"event: message\r\ndata: %s\r\n\r\n" % said)
            return streamed.replace(b"application/json", b"text/event-stream")
        return answer(200, said)

    here.upstream.respond = respond
    async with here.client() as client:
        for number in range(8):
            asked = {"name": "make_report", "arguments": {"month": "may"}}
            message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": asked}
            got = (await client.post("/mcp", json=message)).text
    assert len(here.upstream.hits) == reached
    assert json.loads(got)["id"] == 7
    assert "Do not repeat this call" in json.loads(got)["result"]["content"][0]["text"]
