"""What `run` and `serve` do from start to end: rules, proxy, child or waiting, and an orderly stop.

Everything that can go wrong before the first call is one line: see `proxy.server.Proxy.start` for what it raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shlex
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from proxy import beside, child, rulefiles
from proxy.confdir import default_confdir, default_ledger_path, reason
from proxy.isolation import Enclosure, enclose
from proxy.ledger.entries import LedgerError
from proxy.ledger.ids import RANDOM_BYTES, new_id
from proxy.report.checked import counted, told
from proxy.report.state import by_decision
from proxy.rulefiles import RuleFiles
from proxy.server import Proxy
from proxy.settings import DEFAULT_LISTEN, Settings, SettingsError, new_token, reached_at

type Say = Callable[[str], None]
"""Takes one line for the person in front of the terminal."""

log = logging.getLogger("borderpost")


def run(settings: Settings, rules: RuleFiles | None, command: Sequence[str], say: Say, *, preload: bool = True) -> int:
    """Run `command` behind the `serve` that owns the ledger, else behind a proxy of its own. The command's exit code.

    `rules`: None where there are none here, and a `serve` has them.
    """
    child.find_program(command, os.environ)
    settings = _named(settings)
    with beside.joined(settings, rules, say) as host:
        if host is not None:
            say(f"joined `{host.owner.command}` (process {host.owner.pid}), whose rules hold: {host.rules}")
            for line in notes_on_child(settings, rules, os.environ, joined=True):
                say(line)
            url = child.proxy_url(reached_at(host.host), host.port, settings.agent, settings.token)
            code = asyncio.run(_command_behind(url, Path(host.ca).read_bytes(), command, say, preload=preload))
    if host is None:
        rules = rules or rulefiles.read(settings.rules, Path.cwd(), settings.mode)
        return asyncio.run(run_alone(settings, rules, command, say, preload=preload))
    try:
        calls = summary(*beside.counts(settings.ledger, settings.run, host.at_ns))
    except LedgerError as error:
        calls = f"its calls cannot be counted: {error}"
    say(_ended(settings, calls))
    return code


async def run_alone(
    settings: Settings, rules: RuleFiles, command: Sequence[str], say: Say, *, preload: bool = True
) -> int:
    """Run `command` behind a proxy of its own. The command's exit code."""
    settings = _named(settings)
    async with _enclosed(settings, say) as enclosure, _started(settings, rules, say, enclosure) as proxy:
        host, port = proxy.address
        url = child.proxy_url(reached_at(host), port, settings.agent, settings.token)
        for line in notes_on_child(settings, rules, os.environ):
            say(line)
        start = child.start if enclosure is None else enclosure.become
        code = await _command_behind(url, proxy.ca_path.read_bytes(), command, say, start, preload=preload)
        attempts = enclosure.attempts() if enclosure is not None else 0
    held = f" · {counted(attempts, 'attempt')} to go round the proxy failed" if attempts else ""
    say(_ended(settings, summary(proxy.counts, proxy.unanswered, proxy.unrecorded) + held))
    return code


async def _command_behind(
    url: str, ca_pem: bytes, command: Sequence[str], say: Say, start: child.Start = child.start, *, preload: bool
) -> int:
    """Run `command`, whose clients use the proxy at `url` and trust `ca_pem`. The command's exit code."""
    with tempfile.TemporaryDirectory(prefix="borderpost-") as directory:
        changes = child.prepare(Path(directory), os.environ, url, ca_pem, preload=preload)
        code = await child.run(command, changes.applied(os.environ), start)
        failed = child.failures(Path(directory))
        if failed:
            say(f"the preload failed ({counted(len(failed), 'time')}), first: {failed[0]}")
    return code


def _ended(settings: Settings, calls: str) -> str:
    """The last line of a run, of which `calls` counts the calls."""
    ledger = "" if settings.ledger == default_ledger_path() else f" --ledger {shlex.quote(str(settings.ledger))}"
    none = calls.startswith("0 calls") and not settings.isolated
    unseen = " (a client that ignores HTTPS_PROXY goes round the proxy)" if none else ""
    return f"{calls}{unseen} · log: borderpost log --run {settings.run}{ledger}"


@contextlib.asynccontextmanager
async def _enclosed(settings: Settings, say: Say) -> AsyncIterator[Enclosure | None]:
    """The network of an isolated command within the block; None for any other. Raises `IsolationError`."""
    if not settings.isolated:
        yield None
        return
    enclosure = await enclose(settings.listen_port)
    try:
        if not enclosure.holds_root:
            say("there are no user namespaces here: the command runs as root, and root can leave its network namespace")
        yield enclosure
    finally:
        await enclosure.close()


async def serve(settings: Settings, rules: RuleFiles, say: Say) -> None:
    """Run a proxy until SIGINT, SIGTERM or SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup is obeyed. But shells let background jobs ignore SIGINT, and that must not make us unstoppable.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop.set)
                undo.callback(loop.remove_signal_handler, number)
        async with _started(settings, rules, say) as proxy:
            host, port = proxy.address
            say(f"listening on {child.proxy_url(host, port)} · {told(rules)}")
            if settings.upstream_proxy is not None:
                say(f"calls go out through {settings.upstream_proxy}")
            say(how_to_reach(msgspec.structs.replace(settings, listen_port=port)))
            await stop.wait()
            say("stopping: calls in flight may end")
    say(summary(proxy.counts, proxy.unanswered, proxy.unrecorded))


def summary(counts: Mapping[str, int], unanswered: int = 0, unrecorded: int = 0) -> str:
    """What became of the calls, in one line: `12 calls · 9 allowed · 2 replayed · 1 blocked · 1 got no answer`."""
    total = sum(counts.values())
    failed = [f"{unanswered} got no answer"] if unanswered else []
    failed += [f"{unrecorded} went out without a record"] if unrecorded else []
    return " · ".join([f"{total} call" + ("" if total == 1 else "s"), *by_decision(counts), *failed])


def how_to_reach(settings: Settings) -> str:
    """How an agent is pointed at this proxy."""
    if settings.token_required:
        ca = settings.confdir / "ca.pem"
        return f"agents use HTTPS_PROXY=http://NAME:TOKEN@HOST:{settings.listen_port} and trust {ca}"
    listen = "" if settings.listen == DEFAULT_LISTEN else f" --listen {shlex.quote(settings.listen)}"
    return f'in the shell of an agent: eval "$(borderpost env{listen}{_elsewhere(settings)})"'


def _elsewhere(settings: Settings) -> str:
    """The options that name ledger and confdir from any directory, where they are not the usual ones."""
    places = {"--ledger": (settings.ledger, default_ledger_path()), "--confdir": (settings.confdir, default_confdir())}
    return "".join(
        f" {option} {shlex.quote(str(path.absolute()))}" for option, (path, usual) in places.items() if path != usual
    )


def notes_on_child(
    settings: Settings, rules: RuleFiles | None, environment: Mapping[str, str], *, joined: bool = False
) -> Iterator[str]:
    """What the person should know of the child: what it could write, and which proxy is passed over.

    `joined`: how calls go out is the business of the proxy that it has joined.
    """
    places = {
        "the rules": [Path(file) for file in rules.files] if rules is not None else [],
        "the ledger": [settings.ledger],
        "the keys": [settings.confdir],
    }
    writable = [what for what, paths in places.items() if any(os.access(path, os.W_OK) for path in paths)]
    if writable:
        yield f"the command runs as you and could write {_listed(writable)}: this guards against mistakes, not malice"
    upstream = next((name for name in ("HTTPS_PROXY", "https_proxy") if environment.get(name)), None)
    if joined:
        pass
    elif settings.upstream_proxy is not None:
        yield f"calls go out through {settings.upstream_proxy}"
    elif upstream:
        yield f"{upstream} is set but not used: upstreams are reached directly, unless you say `--upstream-proxy URL`"
    bypass = next((name for name in child.CLEARED if environment.get(name)), None)
    if bypass:
        hosts = environment[bypass]
        yield f"{bypass} is emptied for the command, so that {hosts} is reached through the proxy too"


@contextlib.asynccontextmanager
async def _started(
    settings: Settings, rules: RuleFiles, say: Say, enclosure: Enclosure | None = None
) -> AsyncIterator[Proxy]:
    """A proxy that runs within the block, in `enclosure` where there is one."""
    with _log_to(say):
        proxy = Proxy(settings, rules, enclosure=enclosure)
        try:
            await proxy.start()
        except OSError as error:
            raise _cannot_start(settings, error) from error
        try:
            yield proxy
        finally:
            await proxy.stop()


def _cannot_start(settings: Settings, error: OSError) -> SettingsError:
    """The line for an address that cannot be had, or for whatever else the system refuses."""
    if error.errno == errno.EADDRINUSE:
        return SettingsError(f"`{settings.listen}` is in use: choose another address with `--listen HOST:PORT`")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EACCES) and error.filename is None:
        return SettingsError(f"cannot listen on `{settings.listen}`: {reason(error)}; choose another with `--listen`")
    return SettingsError(f"cannot start: {reason(error)}" + (f": `{error.filename}`" if error.filename else ""))


@contextlib.contextmanager
def _log_to(say: Say) -> Iterator[None]:
    """Within the block, what the proxy logs goes to `say`."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    handler = Handler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _named(settings: Settings) -> Settings:
    """`settings` with a run's id and a token for its child."""
    run = settings.run or new_id(time.time_ns(), secrets.token_bytes(RANDOM_BYTES), "r")
    return msgspec.structs.replace(settings, run=run, token=settings.token or new_token())


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
