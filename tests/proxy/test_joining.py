"""Runs that join a running `serve`: on what conditions, for how long, and what a restart knows of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import proxy.server
from proxy import beside, desk, presence
from proxy.beside import Joined
from proxy.chain import UpstreamProxy
from proxy.clock import Clock
from proxy.confdir import Confdir
from proxy.gate import Gate
from proxy.joining import Host, Wish, objections
from proxy.ledger import writing
from proxy.ledger.commands import Command, CommandError
from proxy.ledger.entries import CommandEntry, Entry, LedgerError
from proxy.ledger.memory import Memory
from proxy.ledger.query import LedgerReader
from proxy.ledger.snapshot import Snapshots
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.owner import SERVE
from proxy.report import state
from proxy.rulefiles import read
from proxy.runs import IDLE_NS, LATE_NS, JoinedRun, Runs
from proxy.settings import Settings, SettingsError, new_token, token_sha256
from rules.load import load
from tests.proxy.conftest import MakeWorld, World, until
from tests.proxy.ledger.samples import NOW_NS, boot, open_ledger
from tests.proxy.ledger.samples import refusal as refused
from tests.proxy.test_websocket import Client, SocketServer, made, refusal, server

__all__ = ["server"]  # the fixture

RULES = "version: 1\nrules: [{id: look, match: 'GET {origin}/**', allow: true, agent: [shop, mail]}]\n"


def run_of(world: World, run: str = "r_joined", agent: str = "shop", **changes: Any) -> Settings:
    """The settings of a `run` beside `world`."""
    usual = {"command": "run", "rules": (), "upstream_ca": (), "agent": agent, "run": run, "token": new_token()}
    return msgspec.structs.replace(world.settings, **(usual | changes))


@asynccontextmanager
async def joined(settings: Settings, said: list[str] | None = None, rules: Any = None) -> AsyncIterator[Joined]:
    """As `run` does it, from another thread."""
    lines: list[str] = [] if said is None else said
    joining = beside.joined(settings, rules, lines.append)
    host = await asyncio.to_thread(joining.__enter__)
    assert host is not None
    try:
        yield host
    finally:
        await asyncio.to_thread(joining.__exit__, None, None, None)


def child_of(world: World, settings: Settings, agent: str = "") -> httpx.AsyncClient:
    host, port = world.proxy.address
    return world.client(proxy=f"http://{agent or settings.agent}:{settings.token}@{host}:{port}")


async def join_as(world: World, settings: Settings) -> None:
    """Join, and never leave: as a process does that is killed."""
    confdir = world.settings.confdir
    wish = Wish(settings.run, settings.agent, token_sha256(settings.token), 1, str(confdir.resolve()))
    await asyncio.to_thread(desk.command, world.ledger, confdir, "join", msgspec.to_builtins(wish), "ada")


def commands(path: Path) -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(path)) as ledger:
        return ledger.execute(
            "SELECT rest ->> '$.name', coalesce(rest ->> '$.data.why', rest ->> '$.data.agent') FROM entries "
            "WHERE kind = 'command' ORDER BY seq"
        ).fetchall()


def questions(path: Path) -> int:
    """How many calls wait for a person."""
    with LedgerReader.open(path) as reader:
        return sum(question.state == "asked" for question in reader.questions(0))


def ask_commands(path: Path) -> list[str]:
    """The names of commands that wait at the desk."""
    with closing(sqlite3.connect(path)) as ledger:
        return [name for (name,) in ledger.execute("SELECT name FROM commands WHERE done IS NULL")]


# --- who, and for how long ---


async def test_its_child_is_in_its_run_and_only_until_its_end(world: MakeWorld) -> None:
    here = await world(RULES)
    one, two = run_of(here, "r_one"), run_of(here, "r_two", "mail")
    async with joined(one) as host, joined(two):
        assert commands(here.ledger) == [("join", "shop"), ("join", "mail")], "on record before anybody can call"
        assert (host.host, host.port) == here.proxy.address
        async with child_of(here, one) as first, child_of(here, two) as second, here.client() as nobody:
            for client, path in ((first, "/1"), (second, "/2"), (first, "/3")):
                assert (await client.get(path)).status_code == 200
            assert (await nobody.get("/4")).json()["code"] == "no-allow"
            facts = await asyncio.to_thread(state.gather, here.ledger, here.settings.confdir, 0)
            assert [(run.run, run.agent) for run in facts.runs] == [("r_one", "shop"), ("r_two", "mail")]
            shown = state.show(facts, False)
            assert any(line.startswith("joined   r_one of agent shop, process ") for line in shown)
            assert any(line.startswith("         r_two of agent mail, process ") for line in shown)
    async with child_of(here, one) as late:
        with pytest.raises(httpx.ProxyError, match="407"):
            await late.get("/5")
    assert [hit.target for hit in here.upstream.hits] == ["/1", "/2", "/3"]
    with closing(sqlite3.connect(here.ledger)) as ledger:
        found = ledger.execute("SELECT path, agent, run FROM calls WHERE decision = 'allow' ORDER BY seq").fetchall()
    assert found == [("/1", "shop", "r_one"), ("/2", "mail", "r_two"), ("/3", "shop", "r_one")]
    assert commands(here.ledger)[2:] == [("leave", "its command has ended")] * 2
    assert not any((here.settings.confdir / "runs").iterdir())


async def test_a_tunnel_that_is_open_is_shut_by_the_end_of_its_run(world: MakeWorld) -> None:
    here = await world(RULES)
    settings = run_of(here)
    async with child_of(here, settings) as child:
        async with joined(settings):
            assert (await child.get("/1")).status_code == 200
        refused = await child.get("/2")
    assert (refused.status_code, refused.json()["code"]) == (407, "proxy-auth-required")
    assert [hit.target for hit in here.upstream.hits] == ["/1"]


@pytest.mark.parametrize("told", [True, False], ids=["at once", "at its next message"])
async def test_what_is_open_ends_with_its_run(world: MakeWorld, server: SocketServer, told: bool) -> None:
    here = await made(world, server)
    settings = run_of(here)
    host, port = here.proxy.address
    if not told:
        here.proxy._gate.changed = lambda: None
    async with Client(here, server) as client:
        async with joined(settings):
            socket = await client.open(proxy=f"http://shop:{settings.token}@{host}:{port}")
            await socket.send_str("one")
            await socket.receive_str()
        if not told:
            await socket.send_str("two")
        code, why = await asyncio.wait_for(refusal(socket), 20)
    assert code == 1008
    assert why is not None
    assert why.startswith("The agent or token in the proxy URL is not known")
    assert server.got == ["one"]


async def test_a_call_that_waits_for_a_person_ends_with_its_run(world: MakeWorld) -> None:
    here = await world(RULES.replace("allow: true", "allow: true, approve: {hold: 1h}"))
    settings = run_of(here)
    async with child_of(here, settings) as child:
        async with joined(settings):
            waiting = asyncio.create_task(child.get("/1", timeout=60))
            await until(lambda: questions(here.ledger) == 1)
        refused = await waiting
    assert (refused.status_code, refused.json()["code"]) == (407, "proxy-auth-required")
    assert "has ended" in refused.json()["detail"]
    assert here.upstream.hits == []


async def test_an_upload_that_goes_on_is_cut_off_by_the_end_of_its_run(world: MakeWorld) -> None:
    here = await world("version: 1\nrules: [{id: up, match: 'PUT {origin}/**', allow: true}]\n")
    settings, go_on = run_of(here), asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"second"

    async with child_of(here, settings) as child:
        async with joined(settings):
            putting = asyncio.create_task(child.put("/1", content=parts()))
            await until(lambda: here.upstream.connections == 1)
        go_on.set()
        with contextlib.suppress(httpx.HTTPError):  # it may be answered, or its connection shut
            assert (await putting).status_code != 200
    assert here.upstream.hits == [], "it never came whole"


async def test_one_that_is_begun_anew_under_the_same_id_is_another(world: MakeWorld) -> None:
    here = await world(RULES)
    async with joined(run_of(here)):
        pass
    again = run_of(here)
    async with joined(again), child_of(here, again) as child:
        assert (await child.get("/1")).status_code == 200
    await here.proxy.stop()
    token = new_token()
    alone = await world(RULES, command="run", agent="shop", run="r_joined", token=token)
    host, port = alone.proxy.address
    async with alone.client(proxy=f"http://shop:{token}@{host}:{port}") as child:
        assert (await child.get("/2")).status_code == 200
    assert [hit.target for hit in alone.upstream.hits] == ["/1", "/2"]


async def test_its_token_is_good_for_its_own_agent_only(world: MakeWorld) -> None:
    here = await world(RULES)
    settings = run_of(here)
    async with joined(settings), child_of(here, settings, "mail") as child:
        with pytest.raises(httpx.ProxyError, match="407"):
            await child.get("/1")
    assert here.upstream.connections == 0


async def test_when_its_process_dies_its_token_is_worthless_at_once_and_that_is_recorded(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await world(RULES)
    settings = run_of(here)
    name = token_sha256(settings.token)
    looking = here.proxy._desk.end_dead_runs
    monkeypatch.setattr(here.proxy._desk, "end_dead_runs", lambda: None)  # so that the call comes first
    with presence.shown(here.settings.confdir, name):
        await join_as(here, settings)
        async with child_of(here, settings) as child:
            assert (await child.get("/1")).status_code == 200
            looking()
            assert (await child.get("/2")).status_code == 200, "it lives"
    async with child_of(here, settings) as orphan:
        with pytest.raises(httpx.ProxyError, match="407"):
            await orphan.get("/3")
    assert [hit.target for hit in here.upstream.hits] == ["/1", "/2"]
    looking()
    await until(lambda: commands(here.ledger)[-1] == ("leave", "its process has died"))
    assert here.proxy._gate.runs.joined == {}


async def test_who_cannot_be_seen_to_live_is_refused(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await world(RULES)
    settings = run_of(here)

    def no_idea(confdir: Path, name: str) -> bool:
        raise OSError(24, "Too many open files")

    async with joined(settings), child_of(here, settings) as child:
        with monkeypatch.context() as blind:
            blind.setattr(presence, "lives", no_idea)
            here.proxy._desk.end_dead_runs()
            with pytest.raises(httpx.ProxyError, match="407"):
                await child.get("/1")
        assert (await child.get("/2")).status_code == 200, "nobody took its token away"
    assert [hit.target for hit in here.upstream.hits] == ["/2"]


# --- a serve that goes, and comes again ---


async def test_a_restart_knows_the_runs_that_live_and_ends_those_that_do_not(world: MakeWorld) -> None:
    here = await world(RULES)
    lives, dies = run_of(here, "r_lives"), run_of(here, "r_dies")
    async with joined(lives):
        with presence.shown(here.settings.confdir, token_sha256(dies.token)):
            await join_as(here, dies)
            await here.proxy.stop()
        again = await world(RULES)
        async with child_of(again, lives) as child:
            assert (await child.get("/1")).status_code == 200
        async with child_of(again, dies) as orphan:
            with pytest.raises(httpx.ProxyError, match="407"):
                await orphan.get("/2")
        await until(lambda: [run.run for run in again.proxy._gate.runs.joined.values()] == ["r_lives"])
    assert [hit.target for hit in again.upstream.hits] == ["/1"]
    with closing(sqlite3.connect(here.ledger)) as ledger:
        assert ledger.execute("SELECT run FROM calls WHERE path = '/1'").fetchall() == [("r_lives",)]


async def test_the_end_is_recorded_without_a_proxy_too(world: MakeWorld) -> None:
    here = await world(RULES)
    settings, said = run_of(here), list[str]()
    async with joined(settings, said):
        await here.proxy.stop()
    assert commands(here.ledger)[-1] == ("leave", "its command has ended")
    (line,) = said
    assert line.startswith("`borderpost serve` (process ") and line.endswith("has ended: calls failed since")
    again = await world(RULES)
    assert again.proxy._gate.runs.joined == {}


async def test_an_end_that_cannot_be_recorded_is_told_and_the_token_is_worthless(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await world(RULES)
    settings, said = run_of(here), list[str]()

    def refused(*arguments: Any) -> Any:
        raise LedgerError("the disk is full")

    async with joined(settings, said):
        monkeypatch.setattr(desk, "command", refused)
    assert said == ["the end of this run could not be recorded: the disk is full"]
    async with child_of(here, settings) as orphan:
        with pytest.raises(httpx.ProxyError, match="407"):
            await orphan.get("/1")
    assert here.upstream.hits == []


async def test_what_was_not_recorded_did_not_join(world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger fails with the entry in its hands: nobody is told that it joined, and the token is forgotten."""
    monkeypatch.setattr(proxy.server, "MEND_S", 0.05)
    monkeypatch.setattr(writing, "BUSY_S", 0.01)
    here = await world(RULES)
    settings = run_of(here)
    name = token_sha256(settings.token)
    wish = Wish("r_x", "shop", name, 1, str(here.settings.confdir.resolve()))
    with presence.shown(here.settings.confdir, name):
        other = sqlite3.connect(here.ledger, isolation_level=None)
        with closing(other):
            other.execute("BEGIN IMMEDIATE")
            here.proxy._desk.carry_out(Command(1, "join", msgspec.to_builtins(wish), "ada"))
            await until(lambda: bool(here.proxy._ledger.failed))
        await until(lambda: not here.proxy._ledger.failed and not here.proxy._gate.runs.joined)
        async with child_of(here, settings) as child:
            with pytest.raises(httpx.ProxyError, match="407"):
                await child.get("/1")
    assert here.upstream.hits == []
    assert "join" not in [command for command, _ in commands(here.ledger)]


async def test_when_the_serve_ends_before_it_has_answered_nobody_was_joined(world: MakeWorld, tmp_path: Path) -> None:
    here = await world(RULES)
    await here.proxy.stop()
    vault = Vault.of(Confdir.open(here.settings.confdir))
    silent = Ledger.open(here.ledger, vault, owner=SERVE)  # a serve in its last moment, which looks no more
    settings = run_of(here)
    joining = beside.joined(settings, None, list[str]().append)
    entering = asyncio.create_task(asyncio.to_thread(joining.__enter__))
    await until(lambda: ask_commands(here.ledger) == ["join"])
    silent.close()
    silent = Ledger.open(here.ledger, vault, owner=SERVE)  # another begins at once, and forgets what it was not asked
    await until(lambda: ask_commands(here.ledger) == ["join"])
    silent.close()
    assert await entering is None, "so that it gets a proxy of its own"
    await asyncio.to_thread(joining.__exit__, None, None, None)
    assert (commands(here.ledger), ask_commands(here.ledger)) == ([("shutdown", None)], [])
    assert not any((here.settings.confdir / "runs").iterdir())


# --- who may not ---


async def test_rules_and_mode_are_those_of_the_serve(world: MakeWorld) -> None:
    here = await world(RULES)
    same = read(here.settings.rules, Path.cwd())
    async with joined(run_of(here), rules=same):
        pass
    monitored = read(here.settings.rules, Path.cwd(), "monitor")
    file = here.directory / "other.yaml"
    file.write_text("version: 1\nrules: [{id: other, match: 'GET https://x.example/', allow: true}]\n")
    other = read((file,), Path.cwd())
    for rules, said in (
        (monitored, "its mode is enforce, not monitor"),
        (other, f"its rules are 1 rule, 0 tools from {here.settings.rules[0]}, those here 1 rule, .* from {file}"),
    ):
        with pytest.raises(CommandError, match=f"cannot join the running `borderpost serve`: {said}; run with what it"):
            async with joined(run_of(here), rules=rules):
                pass
    assert [command for command, _ in commands(here.ledger)] == ["join", "leave"]


async def test_of_two_runs_that_live_none_has_the_id_of_the_other(world: MakeWorld) -> None:
    here = await world(RULES)
    async with joined(run_of(here)):
        with pytest.raises(CommandError, match="a run `r_joined` has joined already"):
            async with joined(run_of(here)):
                pass
    async with joined(run_of(here)):
        pass  # one after the other may


async def test_nobody_joins_the_run_of_an_agent_of_the_serve(world: MakeWorld) -> None:
    here = await world(RULES)
    async with here.client() as client:
        await client.get("/1")
    own = here.proxy._gate.runs.run_of("", here.proxy._clock.now_ns())
    with pytest.raises(CommandError, match=f"an agent of this serve is in the run `{own}`"):
        async with joined(run_of(here, own)):
            pass


async def test_nobody_joins_with_the_token_of_another(world: MakeWorld) -> None:
    """Its hash is on record, for everybody to read."""
    here = await world(RULES)
    settings = run_of(here)
    async with joined(settings), child_of(here, settings) as child:
        stranger = msgspec.structs.replace(settings, run="r_other", agent="mail")
        with pytest.raises(CommandError, match="its process is not seen to live"):
            await join_as(here, stranger)
        assert (await child.get("/1")).status_code == 200
    assert commands(here.ledger) == [("join", "shop"), ("leave", "its command has ended")]


async def test_nobody_joins_while_nobody_can_see_whether_they_live(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await world(RULES)

    def no_idea(confdir: Path, name: str) -> bool:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as blind:
        blind.setattr(presence, "lives", no_idea)
        with pytest.raises(CommandError, match="nobody can see whether its process lives: too many open files"):
            async with joined(run_of(here)):
                pass
    async with joined(run_of(here)):
        pass


ODD = [
    ("join", "[" * 100_000),
    ("leave", "null"),
    ("resume", '{"agent": {}, "tool": [1]}'),
    ("prune", '{"before_ns": 18446744073709551615}'),
    ("resolve", '{"call": "\x00\x1b[2J", "executed": true, "note": ""}'),
    ("\x1b[31m" * 1000, "{}"),
]


async def test_odd_commands_are_refused_and_the_desk_goes_on(world: MakeWorld) -> None:
    here = await world(RULES)
    with closing(sqlite3.connect(here.ledger)) as ledger, ledger:
        ledger.executemany("INSERT INTO commands (name, data, by) VALUES (?, ?, 'eve')", ODD)
    with closing(sqlite3.connect(here.ledger)) as ledger:
        query = "SELECT count(*) FROM commands WHERE done = 0"
        await until(lambda: ledger.execute(query).fetchone() == (len(ODD),))
    async with joined(run_of(here)) as host:
        assert host.port == here.proxy.address[1]
    assert [name for name, _ in commands(here.ledger)] == ["join", "leave"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"isolated": True}, "`--isolated` needs a proxy of its own, and `borderpost serve` .process "),
        ({"reload": True}, "`--reload` needs a proxy of its own"),
        ({"agent": "no name"}, "`no name` is no agent name"),
        ({"run": "no/run"}, "`no/run` is no run id"),
    ],
)
async def test_what_no_serve_can_do_is_refused(world: MakeWorld, changes: dict[str, Any], said: str) -> None:
    here = await world(RULES)
    with pytest.raises(SettingsError, match=said):
        async with joined(run_of(here, **changes)):
            pass
    assert commands(here.ledger) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hash": "../../x"}, "its process is not seen to live"),
        ({"hash": "0" * 64}, "its process is not seen to live"),
        ({"agent": "no name"}, "`no name` is no agent name"),
        ({"run": ""}, "`` is no run id"),
        ({"pid": "1"}, "Expected `int`, got `str`"),
        ({"more": 1}, "unknown field `more`"),
    ],
)
async def test_what_somebody_else_left_at_the_desk_joins_nobody(
    world: MakeWorld, changes: dict[str, Any], said: str
) -> None:
    here = await world(RULES)
    confdir = str(here.settings.confdir.resolve())
    data: dict[str, Any] = {"run": "r_x", "agent": "shop", "hash": "0" * 64, "pid": 1, "confdir": confdir} | changes
    with pytest.raises(CommandError, match=said):
        here.proxy._desk.carry_out(Command(1, "join", data, "ada"))
    assert here.proxy._gate.runs.joined == {}


async def test_the_proxy_of_a_run_takes_nobody_in(world: MakeWorld) -> None:
    here = await world(RULES, command="run", agent="shop", run="r_own", token=new_token())
    with pytest.raises(CommandError, match="only `borderpost serve` can be joined"):
        here.proxy._desk.carry_out(
            Command(1, "join", {"run": "r", "agent": "a", "hash": "0" * 64, "pid": 1, "confdir": ""}, "ada")
        )
    with beside.joined(run_of(here), None, list[str]().append) as host:
        assert host is None
    with pytest.raises(LedgerError, match=r"start `borderpost serve` once, .* every `borderpost run` joins it"):
        await world(RULES, command="run", agent="shop", run="r_second", token=new_token())


def wish(**changes: Any) -> Wish:
    return msgspec.structs.replace(Wish("r", "a", "0" * 64, 1, "/conf"), **changes)


PROXY = UpstreamProxy("proxy.example", 3128, "Basic bTpz")


def keyed(secret: bytes) -> str:
    return f"keyed {secret.decode()}"


@pytest.mark.parametrize(
    ("asked", "has", "said"),
    [
        ({}, {"upstream_proxy": PROXY, "upstream_ca": (Path("/a"),), "client_certs": Path("/c")}, []),
        ({"confdir": "/other"}, {}, ["its `--confdir` is `/conf`"]),
        ({"digest": "d" * 64, "rules": "5 rules"}, {}, ["its rules are 2 rules, those here 5 rules"]),
        ({"mode": "enforce"}, {}, []),
        ({"mode": "monitor"}, {}, ["its mode is enforce, not monitor"]),
        ({"listen": "127.0.0.1:8080"}, {}, []),
        ({"listen": "localhost:8080"}, {"listen_host": "localhost"}, []),
        ({"listen": "127.0.0.1:1"}, {}, ["it listens on 127.0.0.1:8080, not on 127.0.0.1:1"]),
        ({"upstream_ca": ("/b", "/a")}, {"upstream_ca": (Path("/a"), Path("/b"))}, []),
        ({"upstream_ca": ("/a",)}, {}, ["it trusts no further authority (`--upstream-ca`)"]),
        ({"upstream_ca": ("/a",)}, {"upstream_ca": (Path("/b"),)}, ["it trusts `/b` (`--upstream-ca`)"]),
        ({"upstream_proxy": keyed(msgspec.json.encode(PROXY))}, {"upstream_proxy": PROXY}, []),
        ({"upstream_proxy": "x"}, {}, ["it goes out through no other proxy (`--upstream-proxy`)"]),
        (
            {"upstream_proxy": "x"},
            {"upstream_proxy": PROXY},
            ["it goes out through http://proxy.example:3128 (`--upstream-proxy`)"],
        ),
        ({"client_certs": "/c"}, {"client_certs": Path("/c")}, []),
        ({"client_certs": "/c"}, {}, ["its certificates are in no directory (`--client-certs`)"]),
        (
            {"mode": "monitor", "listen": "127.0.0.1:1"},
            {},
            ["its mode is enforce, not monitor", "it listens on 127.0.0.1:8080, not on 127.0.0.1:1"],
        ),
    ],
)
def test_nothing_that_a_run_was_told_is_passed_over(
    asked: dict[str, Any], has: dict[str, Any], said: list[str]
) -> None:
    usual: dict[str, Any] = {"command": "serve", "ledger": Path("/l"), "confdir": Path("/conf")}
    settings = Settings(**(usual | {"listen_host": "127.0.0.1", "listen_port": 8080} | has))
    host = Host(settings, ("127.0.0.1", 8080), Path("/conf"), Path("/conf/ca.pem"), keyed, lambda: "2 rules")
    assert list(objections(wish(**asked), host, load([], {}).ruleset)) == said


# --- what the ledger tells ---


def joins(run: str, at_ns: int = NOW_NS) -> Entry:
    return CommandEntry(at_ns, "join", "ada", JoinedRun(run, "shop", f"{run}-hash", 7, at_ns).data())


def leaves(run: str, at_ns: int = NOW_NS) -> Entry:
    data: Any = {"run": run, "agent": "shop", "hash": f"{run}-hash", "why": "its command has ended"}
    return CommandEntry(at_ns, "leave", "ada", data)


def fold(*entries: Entry) -> Memory:
    memory = Memory()
    for seq, entry in enumerate(entries, 1):
        memory.fold(seq, entry)
    return memory


def test_who_has_joined_is_a_fold_of_the_entries() -> None:
    assert fold(joins("r_a"), joins("r_b"), leaves("r_a")).joined == {
        "r_b-hash": JoinedRun("r_b", "shop", "r_b-hash", 7, NOW_NS)
    }
    assert fold(leaves("r_never")).joined == {}


def told() -> Iterator[tuple[str, tuple[Entry, ...], str]]:
    own = refused("c_1", agent="shop", run="r_own")
    of_joined = refused("c_2", agent="shop", run="r_a")
    yield "its own activity goes on", (own,), "r_own"
    yield "not in a run that has joined", (own, joins("r_a"), of_joined), "r_own"
    yield "nor in one that has left", (own, joins("r_a"), leaves("r_a"), of_joined), "r_own"
    yield "others leave later", (own, joins("r_a"), leaves("r_a"), leaves("r_b", NOW_NS + IDLE_NS), of_joined), "r_own"


@pytest.mark.parametrize(("sentence", "entries", "run"), told(), ids=[sentence for sentence, *_ in told()])
def test_an_agent_goes_on_in_its_own_run_after_a_restart(sentence: str, entries: tuple[Entry, ...], run: str) -> None:
    assert fold(*entries).runs["shop"] == (run, NOW_NS)


def test_runs_that_left_long_ago_are_forgotten() -> None:
    assert list(fold(leaves("r_a"), leaves("r_b", NOW_NS + LATE_NS)).left) == ["r_b"]


def test_a_snapshot_knows_who_has_joined(tmp_path: Path) -> None:
    entries = [boot(), joins("r_a"), joins("r_b"), leaves("r_a")]
    ledger = open_ledger(tmp_path)
    for entry in entries:
        ledger.append(entry)
    ledger.close()
    ledger = open_ledger(tmp_path)
    Snapshots(ledger).take()
    assert Snapshots(ledger).recall() == fold(*entries)
    gate = Gate(load([], {}).ruleset, ledger, Clock(lambda: 0), Runs("", lambda now_ns: "new"))
    gate.remember()
    assert [run.run for run in gate.runs.joined.values()] == ["r_b"]
    ledger.close()
