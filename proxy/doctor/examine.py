"""Probes every client of a command's environment, behind a proxy that lets nothing out, and judges what it saw.

The proxy is the witness: a client comes *through* when its request arrived, whatever it made of the answer, and refused
TLS when it opened a tunnel and went no further. Of one that never came, its own process tells whether it asked for the
address of a host that does not exist: it *goes round*. What tells neither is *unclear*, and never said to be well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from proxy import child, rulefiles
from proxy.doctor.find import Interpreter, interpreters, tools
from proxy.ownhost import PROBES, Seen
from proxy.server import Proxy
from proxy.settings import Settings, new_token, reached_at

type Verdict = Literal["through", "goes round", "TLS refused", "unclear"]

TIMEOUT_S = 60.0
AT_ONCE = 4

TOOLS: dict[str, tuple[str, ...]] = {
    "curl": ("-sS", "--max-time", "15", "{url}/"),
    "wget": ("-q", "-O", "-", "--tries=1", "--timeout=15", "{url}/"),
    "git": ("ls-remote", "{url}/a.git"),
    "npm": ("ping", "--registry", "{url}/", "--fetch-retries=0"),
}
"""Program -> its arguments for one request."""

PIP = (
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--retries",
    "0",
    "--timeout",
    "15",
    "--index-url",
    "{url}/simple",
    "nothing",
)

_RESOLVING = re.compile(
    r"resolve host|resolve address|resolution|Name or service not known|nodename nor servname|ENOTFOUND|EAI_AGAIN", re.I
)


class Finding(msgspec.Struct, frozen=True):
    """What became of one client. `runs_in`: its interpreter, or its own path. `fix`: what helps, if anything does."""

    client: str
    version: str
    runs_in: str
    verdict: Verdict
    error: str
    fix: str


class Diagnosis(msgspec.Struct, frozen=True):
    """All findings, and what the preload could not do."""

    findings: tuple[Finding, ...]
    failures: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether no client goes round the proxy, refuses its certificate, or leaves it open."""
        return all(finding.verdict == "through" for finding in self.findings)


class _Probe(msgspec.Struct, frozen=True):
    client: str
    version: str
    runs_in: str
    command: tuple[str, ...]
    kind: str
    """`python` and `node` tell in JSON what happened, since the probe is ours; a `tool` says what it likes."""
    flags: frozenset[str] = frozenset()


class _Told(msgspec.Struct, frozen=True):
    error: str = ""
    resolved: bool = False


async def examine(
    confdir: Path, command: Sequence[str], *, preload: bool, tell: Callable[[int, int], None] = lambda done, total: None
) -> Diagnosis:
    """Probe the clients that `command` would find. `tell` hears how many are done, of how many.

    Raises `ChildError` when there is no such program.
    """
    logging.getLogger("borderpost").addHandler(logging.NullHandler())  # what it would say is in the findings
    if command:
        child.find_program(command, os.environ)  # whose clients are not those of a program that is not there
    with tempfile.TemporaryDirectory(prefix="borderpost-doctor-") as name:
        directory = Path(name)
        async with _proxy(confdir, directory) as (proxy, url):
            changes = child.prepare(directory, os.environ, url, proxy.ca_path.read_bytes(), preload=preload)
            environment = changes.applied(os.environ) | {"GIT_TERMINAL_PROMPT": "0", "PIP_CONFIG_FILE": os.devnull}
            probes, mute = await _probes(command, environment)
            turns = asyncio.Semaphore(AT_ONCE)
            done = 0

            async def one(probe: _Probe) -> Finding:
                nonlocal done
                async with turns:
                    host = secrets.token_hex(8) + PROBES
                    told = await _ask(probe, f"https://{host}", environment)
                    done += 1
                    tell(done, len(probes))
                    return _judge(probe, proxy.probes.get(host), told, preload)

            findings = await asyncio.gather(*map(one, probes))
        return Diagnosis((*mute, *findings), tuple(child.failures(directory)))


@contextlib.asynccontextmanager
async def _proxy(confdir: Path, directory: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy with the authority of `confdir` that allows nothing, with a ledger that is thrown away."""
    settings = Settings(
        command="run",
        ledger=directory / "ledger.db",
        confdir=confdir,
        listen_host="127.0.0.1",
        listen_port=0,
        run="doctor",
        token=new_token(),
    )
    proxy = Proxy(settings, rulefiles.nothing_allowed())
    await proxy.start()
    try:
        host, port = proxy.address
        yield proxy, child.proxy_url(reached_at(host), port, settings.agent, settings.token)
    finally:
        await proxy.stop()


async def _probes(command: Sequence[str], environment: Mapping[str, str]) -> tuple[list[_Probe], list[Finding]]:
    """One for each client that there is; and the interpreters that do not tell, of which nothing can be said."""
    found: list[_Probe] = []
    mute: list[Finding] = []
    for interpreter in interpreters(command, environment):
        start = _start(interpreter)
        output = await _output(start, environment)
        clients = _last_json(output, dict[str, str])
        if clients is None:
            fix = (
                f"it has to be {'Python 3.8' if interpreter.kind == 'python' else 'Node.js 18'} or later, and to start"
            )
            error = " ".join(output.split())[-300:]
            mute.append(Finding(interpreter.kind, "", interpreter.shown, "unclear", error, fix))
            continue
        flags = frozenset(word for word in interpreter.command[1:] if word.startswith("-"))
        found += [
            _Probe(client, version, interpreter.shown, (*start, client, "{url}"), interpreter.kind, flags)
            for client, version in clients.items()
        ]
        if interpreter.kind == "python" and await _answers((*start[:-1], "-m", "pip"), environment):
            found.append(_Probe("pip", "", interpreter.shown, (*start[:-1], *PIP), "tool", flags))
    for name, path in tools(tuple(TOOLS), environment).items():
        found.append(_Probe(name, "", path, (path, *TOOLS[name]), "tool"))
    return found, mute


def _start(interpreter: Interpreter) -> tuple[str, ...]:
    """The command that runs our probe in `interpreter`. Node gets its text, since it looks for packages from there."""
    here = Path(__file__).parent
    if interpreter.kind == "python":
        return (*interpreter.command, str(here / "probe.py"))
    return (*interpreter.command, "--input-type=module", "--eval", (here / "probe.mjs").read_text())


async def _ask(probe: _Probe, url: str, environment: Mapping[str, str]) -> _Told:
    output = await _output([word.replace("{url}", url) for word in probe.command], environment)
    if probe.kind == "tool":
        text = " ".join(output.split())[-300:]
        return _Told(text, bool(_RESOLVING.search(output)))
    return _last_json(output, _Told) or _Told("the probe ended early: " + " ".join(output.split())[-300:])


async def _answers(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    return "No module named" not in await _output([*command, "--version"], environment)


async def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What `command` says on both its outputs; it is killed when it takes too long."""
    with tempfile.TemporaryFile() as said:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said, env=environment
            )
        except OSError as error:
            return str(error)
        try:
            await asyncio.wait_for(process.wait(), TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        said.seek(0)
        return said.read().decode("utf-8", "replace")


def _last_json[T](output: str, kind: type[T]) -> T | None:
    """The last line of `output` that is JSON of this kind: packages print what they like before it."""
    for line in reversed(output.splitlines()):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=kind)
    return None


def _judge(probe: _Probe, seen: Seen | None, told: _Told, preload: bool) -> Finding:
    verdict: Verdict
    if seen == "through":
        verdict = "through"
    elif seen is not None:
        verdict = "TLS refused"
    else:
        verdict = "goes round" if told.resolved else "unclear"
    error = "" if verdict == "through" else told.error
    fix = "" if verdict == "through" else _fix(probe, verdict, preload)
    return Finding(probe.client, probe.version, probe.runs_in, verdict, error, fix)


FIXES: dict[tuple[str, str], str] = {
    ("python", "aiohttp"): "`aiohttp.ClientSession(trust_env=True)`",
    ("python", "urllib3"): "a `urllib3.ProxyManager` with the proxy of HTTPS_PROXY and `ca_certs`",
    ("python", "httplib2"): "install PySocks",
    ("python", "stripe"): "`stripe.ca_bundle_path = os.environ['SSL_CERT_FILE']`",
    ("node", "fetch"): "Node.js 24",
    ("node", "node:https"): "Node.js 24",
    ("node", "ws"): "`new WebSocket(url, { agent: new HttpsProxyAgent(process.env.HTTPS_PROXY) })`",
    ("node", "undici"): "`setGlobalDispatcher(new EnvHttpProxyAgent())`",
}
"""What a program can do itself: by the kind of its interpreter, and client."""


def _fix(probe: _Probe, verdict: Verdict, preload: bool) -> str:
    if verdict == "unclear":
        return "see its error"
    ways: list[str] = []
    ignoring = {letter for flag in probe.flags for letter in flag[1:]} & set("EIsS") - {"s"}
    if ignoring:
        ways.append(f"run Python without -{''.join(sorted(ignoring))}, which leaves the preload out")
    elif not preload:
        ways.append("leave `--no-preload` out")
    ways += [FIXES[one] for one in [(probe.kind, probe.client)] if one in FIXES]
    if verdict == "TLS refused":
        ways.append("let it trust the bundle in SSL_CERT_FILE")
    if verdict == "goes round" and not ways:
        ways.append("do not use it, or have `borderpost run --isolated` stop it")
    return ", or ".join(ways)
