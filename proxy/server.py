"""A running proxy, put together: confdir, ledger, gate, engine. `run` and `serve` start one and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import logging
import os
import secrets
import shlex
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

import certifi

from proxy import dial, rulefiles
from proxy.addon import Addon
from proxy.agents import Agents
from proxy.ca import ensure_ca
from proxy.clock import TOLERATED_NS, Clock
from proxy.confdir import Confdir, default_ledger_path
from proxy.desk import Desk
from proxy.doorman import Doorman
from proxy.gate import Gate
from proxy.isolation import Enclosure
from proxy.joining import Host
from proxy.ledger.entries import BootEntry, CommandEntry
from proxy.ledger.ids import RANDOM_BYTES, new_id
from proxy.ledger.store import Ledger, LedgerError
from proxy.ledger.vault import Vault
from proxy.master import Master
from proxy.osuser import os_user
from proxy.ownhost import OwnHost, Seen
from proxy.report.checked import told
from proxy.report.moments import show_size
from proxy.rulefiles import RuleFiles
from proxy.runs import Runs
from proxy.settings import Settings, format_address
from rules.decision import Plain

DRAIN_S = 10.0
"""How long calls in flight are given to end when the proxy stops."""

FLUSH_S = 10.0

MEND_S = 1.0
"""How often a ledger that has failed is tried again."""

GIVE_WAY_S = 0.001

VERSIONED = ("borderpost", "mitmproxy", "jsonschema-rs", "tzdata")
EXTRA = ("genai-prices",)
"""What decisions may depend on, if it is installed."""

log = logging.getLogger("borderpost")


class Proxy:
    """One proxy. `start` it, use `address` and `ca_pem`, and `stop` it; it cannot be started again.

    `enclosure`: the network that it listens in, where that is not ours.
    """

    def __init__(
        self,
        settings: Settings,
        rules: RuleFiles,
        clock: Clock | None = None,
        enclosure: Enclosure | None = None,
    ) -> None:
        self._enclosure = enclosure
        self._settings = settings
        self._rules = rules
        self._clock = clock or Clock()
        self._following: asyncio.Task[None] | None = None
        self._stop_following = asyncio.Event()
        self.address = ("", 0)
        self.ca_path = Path()
        self._stopped = False
        self._clock_told = False
        self._room_told = False
        self.reloaded = 0
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Open the ledger, take up where it ends, and listen.

        Raises `ConfdirError`, `LedgerError`, `AgentsError`, `SettingsError` or `OSError`, each with one clear line;
        nothing listens then.
        """
        settings = self._settings
        confdir = Confdir.open(settings.confdir)
        agents = Agents(confdir.path)
        settings.check(agents=len(agents.list()))
        self.ca_path = ensure_ca(confdir.path, datetime.datetime.now(datetime.UTC))
        self._own_host = OwnHost(self.ca_path.read_bytes())
        vault = Vault.of(confdir)
        self._ledger = Ledger.open(settings.ledger, vault, owner=f"borderpost {settings.command}")
        with contextlib.ExitStack() as undo:
            undo.callback(self._ledger.close)
            runs = Runs(settings.run, lambda now_ns: new_id(now_ns, secrets.token_bytes(RANDOM_BYTES), "r"))
            self._gate = Gate(self._rules.loaded.ruleset, self._ledger, self._clock, runs)
            self._gate.remember()
            self._desk = Desk(self._ledger, self._clock, self._gate)
            undo.callback(self._desk.close)
            self._gate.look = self._desk.listen
            if settings.ledger != default_ledger_path():
                self._gate.ledger_option = f" --ledger {shlex.quote(str(settings.ledger))}"
            self._addon = Addon(
                self._gate,
                Doorman(settings, agents, runs),
                vault.hash_secret,
                lambda now_ns: new_id(now_ns, secrets.token_bytes(RANDOM_BYTES)),
                lambda: self._master.addresses,
                self._own_host,
                settings.upstream_proxy,
            )
            self._master = Master(
                self._addon,
                confdir.path,
                _upstream_roots(confdir.path, settings.upstream_ca),
                settings.client_certs,
                settings.upstream_proxy,
            )
            self._gate.changed = self._master.look
            dial.pin(asyncio.get_running_loop())
            listener = self._enclosure.listener if self._enclosure is not None else None
            self.address = await self._master.listen(settings.listen_host, settings.listen_port, listener)
            self._ledger.append(
                BootEntry(
                    at_ns=self._clock.now_ns(),
                    boot=new_id(self._clock.now_ns(), secrets.token_bytes(RANDOM_BYTES), "b"),
                    command=settings.command,
                    pid=os.getpid(),
                    listen=format_address(*self.address),
                    versions=_versions() | vault.key_ids,
                    isolated=self._enclosure is not None,
                )
            )
            self._gate.use(self._rules.loaded.ruleset, self._rules.files)
            if settings.command == "serve":
                self._desk.host = Host(
                    settings,
                    self.address,
                    confdir.path,
                    self.ca_path,
                    confdir.hash_secret,
                    lambda: told(self._rules, whole_paths=True),
                )
            undo.pop_all()
        self._tell_clock()
        self._flushing = asyncio.create_task(self._flush())
        self._mending = asyncio.create_task(self._mend())
        self._looking = asyncio.create_task(self._desk.keep_looking())
        if settings.reload:
            self._following = asyncio.create_task(self._follow())

    async def _flush(self) -> None:
        """Now and then: seal what is recorded, give up what is to be, record refusals that were only counted, and take
        a snapshot."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self._tell_clock()
            self._tell_room()
            now_ns = self._clock.now_ns()
            for act in (
                partial(self._ledger.checkpoint_if_due, now_ns),
                partial(self._ledger.keep_bounds, now_ns),
                self._gate.flush,
                partial(self._gate.tell_unrecorded, os_user()),
            ):
                try:
                    act()
                except LedgerError as error:
                    log.error("a checkpoint, what is given up, or refusals could not be recorded: %s", error)
            if self._gate.snapshots.due:
                await asyncio.to_thread(self._gate.snapshots.take, give_way)

    def _tell_room(self) -> None:
        """Say that the ledger will be full, though all that could be was given up: once, until it is not any more."""
        room = self._ledger.room
        if room.near and not self._room_told:
            log.warning(
                "the ledger has used %s of its `max_size` of %s; when it is full, calls are refused: raise `max_size` "
                "in the rules, or begin a new ledger with `--ledger`",
                show_size(room.used_bytes),
                show_size(room.bounds.max_bytes),
            )
        self._room_told = room.near

    def _tell_clock(self) -> None:
        """Say that the wall clock is far behind: once, until it is not any more."""
        behind_ns = self._clock.behind_ns()
        if behind_ns <= TOLERATED_NS:
            self._clock_told = False
        elif not self._clock_told:
            self._clock_told = True
            log.warning(
                "the clock of this computer is %d s behind the record, so no window passes: see `borderpost clock`",
                behind_ns // 1_000_000_000,
            )

    async def _mend(self) -> None:
        """While the ledger cannot be written, try again and again."""
        while True:
            await asyncio.sleep(MEND_S)
            if self._ledger.failed:
                try:
                    if await self._gate.recover(os_user()):
                        self._gate.use(self._rules.loaded.ruleset, self._rules.files)
                        log.warning("the ledger can be written again: calls are let out")
                except LedgerError as error:
                    log.error("the ledger failed again: %s", error)

    @staticmethod
    async def _recorded(act: Callable[[], None]) -> None:
        """Do `act` when it can be recorded. While it cannot, no call is let out anyway."""
        while True:
            try:
                return act()
            except LedgerError:
                await asyncio.sleep(MEND_S)

    async def _follow(self) -> None:
        """Put every new good state of the rule files in force; keep the last good one when they are broken."""
        settings = self._settings
        states = rulefiles.watch(settings.rules, Path.cwd(), settings.mode, self._stop_following, in_force=self._rules)
        async for state in states:
            if isinstance(state, RuleFiles):
                await self._recorded(partial(self._gate.use, state.loaded.ruleset, state.files))
                self._rules = state
                log.warning("reloaded the rules: %d in force", len(state.loaded.ruleset.rules))
            else:
                await self._recorded(partial(self._gate.keep, str(state), self._rules.files))
                log.error("kept the rules in force, because the changed ones cannot be used: %s", state)
            self.reloaded += 1
            self.changed.set()
            self.changed.clear()

    @property
    def counts(self) -> dict[str, int]:
        """How many calls were allowed, denied, throttled and replayed since the start, by action."""
        return dict(self._gate.counts)

    @property
    def unanswered(self) -> int:
        """How many calls that were allowed got no whole answer: the API could not be reached, or broke off."""
        return self._gate.unanswered

    @property
    def unrecorded(self) -> int:
        """How many calls went out without a record, since nothing could be recorded and a rule lets them."""
        return self._gate.unrecorded.total

    @property
    def probes(self) -> dict[str, Seen]:
        """How far clients came with the hosts of probes, by host."""
        return dict(self._own_host.probes)

    async def stop(self) -> None:
        """Refuse new calls, let those in flight end (for a while), record the end, and close the ledger. Once."""
        if self._stopped:
            return
        self._stopped = True
        self._master.stop_listening()
        self._gate.hold_nobody()
        if self._following is not None:
            self._stop_following.set()
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._addon.drain(DRAIN_S)
        await self._master.close()
        for task in (self._flushing, self._mending, self._looking):
            task.cancel()
        await asyncio.gather(self._flushing, self._mending, self._looking, return_exceptions=True)
        self._desk.close()
        try:
            self._gate.flush(everything=True)
            self._gate.tell_unrecorded(os_user())
            end: dict[str, Plain] = {} if self._enclosure is None else {"direct_attempts": self._enclosure.attempts()}
            self._ledger.append(CommandEntry(self._clock.now_ns(), "shutdown", os_user(), end))
            await self._ledger.durable(self._ledger.checkpoint(self._clock.now_ns()))
            await asyncio.to_thread(self._gate.snapshots.take)
        finally:
            self._ledger.close()


def give_way() -> None:
    """Let the event loop work: a thread that computes would make each of its turns wait for milliseconds."""
    time.sleep(GIVE_WAY_S)


def _versions() -> dict[str, str]:
    """The versions of what decides, for the record."""
    found = {name: metadata.version(name) for name in VERSIONED}
    for name in EXTRA:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _upstream_roots(directory: Path, further: tuple[Path, ...]) -> Path:
    """The file of authorities that upstreams are checked against: the usual ones, and those given."""
    usual = Path(certifi.where())
    if not further:
        return usual
    bundle = b"\n".join(path.read_bytes() for path in (usual, *further))
    # Named by what it holds: proxies that trust the same share it, and no run leaves another one behind.
    file = directory / f"upstream-ca.{hashlib.sha256(bundle).hexdigest()[:16]}.pem"
    if not file.exists() or file.read_bytes() != bundle:
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(bundle)
        fresh.replace(file)
    return file
