"""The crash sweep: kill, look at what is on the disk, start again, have the client repeat its call, compare.

What a repeated call must be answered follows from the ledger as the dead process left it, and from nothing else:

    the last decision that lets the call out    its outcome       the repeated call
    none is recorded                            -                 is forwarded: nothing can have left
    recorded                                    none, `unknown`   409 `outcome-unknown`: it may have been sent
    recorded                                    `done`            the first answer, byte for byte
    recorded                                    `not_executed`    is forwarded
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import httpx
import trustme

from proxy.confdir import Confdir
from proxy.ledger import snapshot, writing
from proxy.ledger.commands import CommandError, submit
from proxy.ledger.vault import Vault
from proxy.ledger.verify import verify
from proxy.owner import owner_of
from tests.crash.upstream import Upstream

HOUSE = Path(__file__).parents[2]

QUOTA = 20
"""How many calls of `/quota` an hour may leave; no sweep takes an hour."""

RULES = """\
version: 1
tools:
  pay: POST {origin}/pay/{{call}}
  quota: GET {origin}/quota
rules:
  - {{id: pay, tool: pay, allow: true, dedupe: 24h}}
  - {{id: quota, tool: quota, allow: true, throttle: {quota}/h}}
"""

PHASES = ("deciding", "queued", "writing", "committing", "written")


def of(kind: str) -> tuple[str, ...]:
    return tuple(f"{kind}-{phase}" for phase in PHASES)


ON_THE_WAY = (*of("allow"), "admitted", "connected", "head-arrived", "settling", *of("outcome"))
AT_THE_UPSTREAM = ("first-byte", "acted", "half-answered")
REPLAYING = ("replay-reading", *of("replay"))
REFUSING = of("refusal")
STARTING = ("folding", "snapshot-begun", "snapshot-kept", *of("abandoned"), *of("boot"), *of("ruleset"))
RELOADING = ("reload-loading", *of("reload"))
SEALING = of("checkpoint")
PRUNING = (*of("prune"), "giving-up-committing", "given-up")
STOPPING = ("stop-draining", "stop-closing", *of("shutdown"))
FIRST_START = ("ca-making", "ca-made", "ledger-making")
STEPS = (*ON_THE_WAY, *AT_THE_UPSTREAM, *REPLAYING, *REFUSING, *STARTING, *RELOADING, *SEALING, *PRUNING, *STOPPING)
"""Every step there is."""

FEW_STEPS = tuple(
    step
    for step in STEPS
    if step.partition("-")[0] in ("allow", "outcome") or not step.endswith(PHASES) or step.endswith("committing")
)
"""The steps for everyday: every phase of what lets a call out and of its outcome, one of all other entries."""


class Proxies:
    """One `serve` after the other on the same ledger, and an upstream that outlives them.

    `disk`: where the ledger is; `within`: the words of a command that runs the proxies in surroundings of its own.
    """

    def __init__(
        self, directory: Path, quota: int = QUOTA, *, disk: Path | None = None, within: Sequence[str] = ()
    ) -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
        authority.cert_pem.write_to_path(str(directory / "upstream.pem"))
        self.upstream = Upstream(tls)
        self.directory = directory
        self.disk = disk or directory
        self.within = within
        self.quota = quota
        self.url = ""
        self.pid = 0
        self._launcher: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Proxies:
        await self.upstream.start()
        self.write_rules("")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BORDERPOST_")}
        self._launcher = await asyncio.create_subprocess_exec(
            *(*self.within, sys.executable, "-m", "tests.crash.launcher"),
            cwd=HOUSE,
            env=environment | {"HOME": str(self.directory), "COVERAGE_PROCESS_START": ""},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        assert self._launcher is not None and self._launcher.stdin is not None
        self.kill()
        self._launcher.stdin.close()
        await self._launcher.wait()
        self.upstream.stop()

    def write_rules(self, more: str) -> None:
        """Put the rules, and `more` at their end, in place at once."""
        rules = RULES.format(origin=f"https://localhost:{self.upstream.port}", quota=self.quota)
        scratch = self.directory / "scratch"
        scratch.write_text(rules + more)
        scratch.replace(self.directory / "rules.yaml")

    async def start(self, step: str = "", token: str = "-", hit: int = 1, busy_s: float = writing.BUSY_S) -> bool:
        """Start a proxy that kills itself at `step`. False when it died before it listened.

        `busy_s`: how long it waits for somebody else who has locked the ledger.
        """
        arguments = {"--rules": "rules.yaml", "--confdir": "confdir", "--upstream-ca": "upstream.pem"}
        argv = ["serve", "--listen", "127.0.0.1:0", "--ledger", str(self.disk / "ledger.db")]
        for name, file in arguments.items():
            argv += [name, str(self.directory / file)]
        assert self._launcher is not None and self._launcher.stdin is not None
        order = {"argv": argv, "step": step, "token": token, "hit": hit, "busy_s": busy_s}
        self._launcher.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = int((await self.told(r"pid (\d+)"))[1])
        found = await self.told(r"borderpost: listening on (http://\S+)|ended -9")
        self.url = found[1] or ""
        if not self.url:
            self.pid = 0
        return bool(self.url)

    async def told(self, pattern: str) -> re.Match[str]:
        """The next line of the proxy that matches. What it says otherwise must not be an error of ours."""
        assert self._launcher is not None and self._launcher.stdout is not None
        seen: list[str] = []
        async with asyncio.timeout(60):
            while line := (await self._launcher.stdout.readline()).decode():
                if found := re.match(pattern, line):
                    return found
                seen.append(line)
                assert not line.startswith("ended"), "".join(seen)
        raise AssertionError(f"the launcher ended: {''.join(seen)}")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def dead(self) -> None:
        """Return when the proxy was killed."""
        await self.told("ended -9")
        self.pid = 0

    def client(self) -> httpx.AsyncClient:
        trust = ssl.create_default_context(cafile=str(self.directory / "confdir" / "ca.pem"))
        origin = f"https://localhost:{self.upstream.port}"
        return httpx.AsyncClient(proxy=self.url, verify=trust, base_url=origin, timeout=60, trust_env=False)

    def seen_from_here(self, path: Path) -> Path:
        """Where we find what is at `path` in the surroundings of the proxies."""
        assert self._launcher is not None
        return Path(f"/proc/{self._launcher.pid}/root") / path.relative_to("/") if self.within else path

    def prune(self) -> None:
        """Have the proxy give up all that is sealed. It may die of that."""
        path = self.seen_from_here(self.disk) / "ledger.db"
        owner = owner_of(path)
        with suppress(CommandError):
            submit(path, "prune", {"before_ns": 1 << 62}, "sweep", lambda: owner_of(path) == owner)

    def ledger(self) -> Ledger:
        """What the dead process left on the disk; the original is not touched."""
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in self.seen_from_here(self.disk).glob("ledger.db*"):
            shutil.copy(file, copy)
        return Ledger(copy / "ledger.db")


class Ledger:
    """A ledger as it lies on the disk: `rows` of (seq, hash), and what it says of calls by their path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[int, bytes]] = []
        self.allowed: Counter[str] = Counter()
        self.standing: dict[str, str] = {}
        if not path.exists() or not path.stat().st_size:
            return
        with closing(sqlite3.connect(path)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if not application:
                return
            paths: dict[int, str] = {}
            query = "SELECT seq, hash, call_seq, path, decision, outcome FROM entries ORDER BY seq"
            for seq, digest, call_seq, where, decision, outcome in connection.execute(query):
                self.rows.append((seq, digest))
                if decision == "allow":
                    paths[seq] = where
                    self.allowed[where] += 1
                    self.standing[where] = "unknown"
                elif outcome is not None:
                    self.standing[paths[call_seq]] = outcome

    def check_chain(self) -> str:
        """What the lines in `docs/ledger.md` say of it; empty when all is well."""
        page = (HOUSE / "docs" / "ledger.md").read_text()
        (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "prev != last" in block)
        assert '"ledger.db"' in code
        try:
            exec(code.replace('"ledger.db"', repr(str(self.path))), {})
        except SystemExit as error:
            return str(error)
        return ""

    def check_snapshot(self, confdir: Path) -> str:
        """Why the snapshot is not what the entries come to; empty when it is, or when there is none."""
        if not self.rows:
            return ""
        verdict = verify(self.path, None, None, lambda *_: None)
        checked = snapshot.check(verdict, Vault.of(Confdir.open(confdir)), lambda *_: None)
        if checked.finding is not None:
            return checked.finding.what
        return "" if not checked.snapshot or checked.snapshot.startswith("what the entries 1 to") else checked.snapshot


class Sweep:
    """Kills at one step after the other. `violations` is what must stay empty; `kills` counts by step."""

    def __init__(self, proxies: Proxies) -> None:
        self.proxies = proxies
        self.kills: Counter[str] = Counter()
        self.violations: list[str] = []
        self.repeated = Counter[str]()
        self._left: list[tuple[int, bytes]] = []
        self._ledger: Ledger | None = None
        self._latest: list[str] = []
        self._calls = 0

    async def kill_at(self, step: str) -> None:
        """Start (which repeats what was called before), get killed at `step`, and look at what is left."""
        if step in STARTING:
            await self._die("admitted")  # so that there is a call whose outcome is unknown
            hit = 1 + self._calls % 3 if step == "folding" else 1  # the last boot has left at least three
            if await self.proxies.start(step, hit=hit):
                await self.proxies.dead()
            self._look(step)
        else:
            await self._die(step)

    async def _die(self, step: str) -> None:
        token = self._new_call("large" if step == "first-byte" else "token")
        bystanders = [self._new_call("other") for _ in range(2)]
        assert await self.proxies.start(step, token)
        async with self.proxies.client() as client:
            await self._repeat(client)
            await asyncio.gather(self._call(client, token, step), *(self._post(client, path) for path in bystanders))
        self._latest = [token, *bystanders]
        self._look(step)

    def _new_call(self, name: str) -> str:
        self._calls += 1
        return f"/pay/{name}-{self._calls}-"

    async def _call(self, client: httpx.AsyncClient, path: str, step: str) -> None:
        """Have the proxy reach `step` with the call to `path`, and wait until it is dead."""
        proxies = self.proxies
        if step in AT_THE_UPSTREAM:
            await self._kill_from_outside(client, path, step)
        elif step in REPLAYING:
            await self._post(client, path)
            await asyncio.gather(self._post(client, path), proxies.dead())
        elif step in REFUSING:
            with suppress(httpx.HTTPError):
                await client.delete(path)
            await proxies.dead()
        elif step in RELOADING:
            proxies.write_rules(f"  - {{id: r{self._calls}, match: 'PUT https://example.com/a', allow: true}}\n")
            await asyncio.gather(self._post(client, path), proxies.dead())
        elif step in SEALING:
            dead = asyncio.create_task(proxies.dead())
            while not dead.done():
                await self._post(client, path)
                path = self._new_call("more")
            await dead
        elif step in PRUNING:
            dead = asyncio.create_task(proxies.dead())
            while not dead.done():
                await self._post(client, path)
                await asyncio.to_thread(proxies.prune)
                path = self._new_call("more")
            await dead
        elif step in STOPPING:
            await self._stop(client, path, step)
        else:
            await asyncio.gather(self._post(client, path), proxies.dead())

    async def _kill_from_outside(self, client: httpx.AsyncClient, path: str, moment: str) -> None:
        async def kill() -> None:
            self.proxies.kill()

        async def read_half() -> None:
            await half_read.wait()
            self.proxies.kill()

        half_read = asyncio.Event()
        self.proxies.upstream.moments[moment, path] = read_half if moment == "half-answered" else kill
        with suppress(httpx.HTTPError):
            async with client.stream("POST", path, content=_body(path)) as answer:
                async for _ in answer.aiter_raw():
                    half_read.set()
        await self.proxies.dead()

    async def _stop(self, client: httpx.AsyncClient, path: str, step: str) -> None:
        """SIGTERM while the call is at the upstream; then it may end."""
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            arrived.set()
            await go_on.wait()

        self.proxies.upstream.moments["acted", path] = hold
        call = asyncio.create_task(self._post(client, path))
        await arrived.wait()
        self.proxies.kill(signal.SIGTERM)
        if step != "stop-draining":
            go_on.set()
        await self.proxies.dead()
        go_on.set()
        await call

    async def _post(self, client: httpx.AsyncClient, path: str) -> httpx.Response | None:
        try:
            answer = await client.post(path, content=_body(path))
        except httpx.HTTPError:
            return None  # the proxy died
        told = answer.json()["executed"] if answer.status_code != 200 else "yes"
        if told != "unknown" and self.proxies.upstream.effects[path] != (told == "yes"):
            self._violated(f"told executed: {told}, and {self.proxies.upstream.effects[path]} effects", path)
        return answer

    # -- what must hold

    async def _repeat(self, client: httpx.AsyncClient) -> None:
        """The calls that the last proxy died of, with the same bytes; and one more that counts towards a quota."""
        ledger = self._ledger
        if ledger is None:
            return
        await asyncio.gather(*(self._check_repeated(client, path, ledger) for path in self._latest))
        answer = await client.get("/quota")
        expected = 200 if ledger.allowed["/quota"] < self.proxies.quota else 429
        if answer.status_code != expected:
            self._violated(f"{answer.status_code} instead of {expected}", "/quota")

    async def _check_repeated(self, client: httpx.AsyncClient, path: str, ledger: Ledger) -> None:
        effects = self.proxies.upstream.effects
        before = effects[path]
        first = self.proxies.upstream.answers.get(path, b"")
        answer = await self._post(client, path)
        if answer is None:
            self._violated("no answer", path)
            return
        standing = ledger.standing.get(path, "none")
        replayed = answer.headers.get("idempotent-replayed") == "true"
        code = answer.json()["code"] if answer.status_code != 200 else ""
        self.repeated[standing] += 1
        if standing == "unknown":
            good = (answer.status_code, code, effects[path]) == (409, "outcome-unknown", before)
        elif standing == "done":
            good = (replayed, answer.content, effects[path]) == (True, first, 1)
        else:
            good = (answer.status_code, replayed, before, effects[path]) == (200, False, 0, 1)
        if not good:
            self._violated(f"{standing}: {answer.status_code} {code} {replayed} {before} {effects[path]}", path)

    def _look(self, step: str) -> None:
        """What the dead process left: nothing is missing, nothing is doubled, every effect is on record."""
        self.kills[step] += 1
        ledger = self._ledger = self.proxies.ledger()
        if ledger.rows[: len(self._left)] != self._left:
            self._violated("entries were lost or changed", step)
        for broken in (ledger.check_chain(), ledger.check_snapshot(self.proxies.directory / "confdir")):
            if broken:
                self._violated(broken, step)
        for path, effects in self.proxies.upstream.effects.items():
            if effects > (self.proxies.quota if path == "/quota" else 1):
                self._violated(f"{effects} effects", path)
            if effects > ledger.allowed[path]:
                self._violated(f"{effects} effects, {ledger.allowed[path]} decisions", path)
        if ledger.allowed["/quota"] > self.proxies.quota:
            self._violated(f"{ledger.allowed['/quota']} were let out", "/quota")
        self._left = ledger.rows

    def _violated(self, what: str, where: str) -> None:
        self.violations.append(f"kill {self.kills.total()}, {where}: {what}")

    def report(self) -> str:
        """Kills by step, what repeated calls had to be, and how much was violated."""
        lines = [f"{count:6} {step}" for step, count in self.kills.items()]
        repeated = ", ".join(f"{count} {standing}" for standing, count in sorted(self.repeated.items()))
        effects = self.proxies.upstream.effects
        lines += [
            f"{self.kills.total():6} kills, {len(self._left)} entries",
            f"{effects.total():6} effects of {len(effects)} calls; repeated calls stood at: {repeated}",
            f"{len(self.violations):6} violations",
        ]
        return "\n".join(lines) + "\n"


def _body(path: str) -> bytes:
    """The same bytes for the same call, however often it is made; more than fit into buffers if it is `large`."""
    return json.dumps({"call": path, "padding": "x" * 16_000_000 if "large" in path else ""}).encode()
