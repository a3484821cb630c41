"""Who may use the proxy, told by the credentials in its URL."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from proxy.agents import Agents
from proxy.doorman import Client, Doorman
from proxy.runs import Runs
from proxy.settings import Settings
from proxy.wire.error import WireError

RULES = "version: 1\nrules:\n  - {id: look, match: 'GET {origin}/**', allow: true, agent: support}\n"
NOW_NS = 1_000_000_000
RUNS = Runs("", lambda now_ns: "r_new")


def settings(tmp_path: Path, **changes: object) -> Settings:
    usual: dict[str, object] = {
        "command": "serve",
        "ledger": tmp_path / "ledger.db",
        "confdir": tmp_path,
        "listen_host": "127.0.0.1",
        "listen_port": 0,
    }
    return Settings(**(usual | changes))  # type: ignore[arg-type]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_client_on_this_machine_without_a_token_is_the_default_agent(tmp_path: Path) -> None:
    assert Doorman(settings(tmp_path), Agents(tmp_path), RUNS).identify(None, NOW_NS) == Client("default")


def test_an_agent_is_known_by_its_token(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    token = agents.add("support", NOW_NS)
    assert Doorman(settings(tmp_path), agents, RUNS).identify(basic("support", token), NOW_NS) == Client("support")


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (basic("support", "wrong"), "not known"),
        (basic("nobody", "wrong"), "not known"),
        ("Bearer x", "have to be Basic"),
        ("Basic !!!", "cannot be read"),
        ("Basic " + base64.b64encode(b"no colon").decode(), "cannot be read"),
        ("", "have to be Basic"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, header: str, says: str) -> None:
    agents = Agents(tmp_path)
    agents.add("support", NOW_NS)
    with pytest.raises(WireError, match=says) as refused:
        Doorman(settings(tmp_path), agents, RUNS).identify(header, NOW_NS)
    assert refused.value.code == "proxy-auth-required"


def test_an_expired_token_is_refused_from_its_last_moment_on(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    token = agents.add("support", NOW_NS, expires_ns=NOW_NS + 10)
    doorman = Doorman(settings(tmp_path), agents, RUNS)
    assert doorman.identify(basic("support", token), NOW_NS + 9) == Client("support")
    with pytest.raises(WireError, match="expired"):
        doorman.identify(basic("support", token), NOW_NS + 10)


def test_beyond_loopback_nobody_comes_in_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="wants a token"):
        Doorman(settings(tmp_path, listen_host="0.0.0.0"), Agents(tmp_path), RUNS).identify(None, NOW_NS)


def test_the_child_of_run_is_known_by_its_own_token_only(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    other = agents.add("support", NOW_NS)
    doorman = Doorman(settings(tmp_path, command="run", token="bp_own", run="r_1"), agents, RUNS)
    assert doorman.identify(basic("default", "bp_own"), NOW_NS) == Client("default")
    for header in (None, basic("support", other), basic("support", "bp_own"), basic("default", "bp_othe")):
        with pytest.raises(WireError):
            doorman.identify(header, NOW_NS)


async def test_a_wrong_token_is_answered_with_407_and_nothing_leaves(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    here = await world(RULES)
    host, port = here.proxy.address
    async with here.client(proxy=f"http://support:wrong@{host}:{port}") as client:
        with pytest.raises(httpx.ProxyError, match="407"):
            await client.get("/a")
    assert here.upstream.connections == 0


async def test_the_agent_of_a_tunnel_is_the_agent_of_its_calls_and_its_token_stays_here(world) -> None:  # type: ignore[no-untyped-def]
    here = await world(RULES)
    token = Agents(here.settings.confdir).add("support", NOW_NS)
    host, port = here.proxy.address
    async with here.client(proxy=f"http://support:{token}@{host}:{port}") as client:
        assert (await client.get("/a")).status_code == 200
    async with here.client() as client:
        assert (await client.get("/a")).json()["code"] == "no-allow"
    assert [hit.header("proxy-authorization") for hit in here.upstream.hits] == [None]


async def test_a_token_that_was_taken_away_is_refused_in_tunnels_that_are_open(world) -> None:  # type: ignore[no-untyped-def]
    here = await world(RULES)
    agents = Agents(here.settings.confdir)
    token = agents.add("support", NOW_NS)
    host, port = here.proxy.address
    async with here.client(proxy=f"http://support:{token}@{host}:{port}") as client:
        assert (await client.get("/a")).status_code == 200
        agents.remove("support")
        refused = await client.get("/a")
    assert (refused.status_code, refused.json()["code"]) == (407, "proxy-auth-required")
    assert len(here.upstream.hits) == 1
