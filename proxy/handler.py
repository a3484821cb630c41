"""One client connection: mitmproxy's connection handler with our hook table, and with fewer tasks and system calls.

mitmproxy makes a task and an event of its own for every hook, and a system call for every piece that it sends. Here a
hook is done when it returns, and what one event gives to send to a peer leaves in one piece.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from mitmproxy import options
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy import server as live
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.server_hooks import ServerConnectHook, ServerConnectionHookData

from proxy.chain import UpstreamProxy, open_tunnel
from proxy.commands import GoneOn, Look, LookLater, Wait, WaitCompleted
from proxy.layers import Http, http_of

type Hooks = dict[str, tuple[Callable[..., Awaitable[None] | None], ...]]
"""Hook name -> the functions that run, in order; only the last may be async. What is not in the table does not run."""

HELD_CAP_BYTES = 1024 * 1024
"""How much of what one peer sends may wait in memory for another."""

OWN_CAP_BYTES = 1024 * 1024
"""How much of what one peer brings about may wait for itself, such as answers to its pings."""

log = logging.getLogger("borderpost")


class Handler(live.LiveConnectionHandler):
    """One client connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        opts: options.Options,
        mode: mode_specs.ProxyMode,
        hooks: Hooks,
        through: UpstreamProxy | None,
    ) -> None:
        super().__init__(reader, writer, opts, mode)
        self._hooks = hooks
        self._through = through
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._aborted = False
        self._tunnelled = False
        self._granting: set[Connection] = set()
        self.client.borderpost_room = self._has_room  # type: ignore[attr-defined]
        self.layer: layer.Layer = Http(self.layer.context, HTTPMode.regular)

    async def server_event(self, event: events.Event) -> None:
        """Hand `event` to the layers and do what they say, with nothing awaited on the way.

        A layer that raises ends the connection.
        """
        async with self._server_event_lock:
            self.timeout_watchdog.register_activity()
            self._moved.set()
            unsent: dict[Connection, list[bytes]] = {}
            try:
                for command in self.layer.handle_event(event):
                    self._do(command, unsent)
                for connection in list(unsent):
                    self._send(connection, unsent)
                if not self._tunnelled:
                    self._enter_tunnel()
            except Exception:
                log.exception("a connection was closed, because mitmproxy's layers failed")
                self._give_up()

    def _enter_tunnel(self) -> None:
        """Once a tunnel is open, hand its events to what is in it: the layers outside only pass them on."""
        assert isinstance(self.layer, Http)
        inside = self.layer.inside_tunnel()
        if inside is not None:
            self.layer = inside
            self._tunnelled = True

    def _do(self, command: commands.Command, unsent: dict[Connection, list[bytes]]) -> None:
        """Carry one command out. What is to be sent is gathered in `unsent`."""
        if isinstance(command, commands.StartHook):
            self._run_hook(command)
        elif isinstance(command, Wait):
            self._start(self._wait(command))
        elif isinstance(command, LookLater):
            asyncio.get_running_loop().call_later(command.after_s, self.look)
        elif isinstance(command, commands.OpenConnection):
            assert command.connection not in self.transports
            handler = self._start(self.open_connection(command))
            self.transports.setdefault(command.connection, live.ConnectionIO()).handler = handler
        elif isinstance(command, commands.RequestWakeup):
            self.wakeup_timer.add(self._start(self.wakeup(command)))
        elif isinstance(command, commands.Log):
            self.log(command.message, command.level)
        elif isinstance(command, commands.ConnectionCommand):
            if command.connection not in self.transports:
                return  # it is closed already
            if isinstance(command, commands.SendData):
                unsent.setdefault(command.connection, []).append(command.data)
            elif isinstance(command, commands.CloseConnection):
                self._send(command.connection, unsent)
                half = isinstance(command, commands.CloseTcpConnection) and command.half_close
                half = half and command.connection is not self.client
                self.close_connection(command.connection, half)
        else:
            raise RuntimeError(f"unexpected command: {command}")

    def _send(self, connection: Connection, unsent: dict[Connection, list[bytes]]) -> None:
        transport = self.transports.get(connection)
        pieces = unsent.pop(connection, None)
        if pieces and transport is not None and transport.writer is not None and not transport.writer.is_closing():
            transport.writer.write(b"".join(pieces))

    def _start(self, work: Any) -> asyncio.Task[None]:
        """Do `work` now, as far as it goes without waiting; the rest later."""
        task: asyncio.Task[None] = asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    def _run_hook(self, hook: commands.StartHook) -> None:
        """Run a hook. If it has to wait, what it waits for is left on it as `waiting`."""
        waiting = self._run(hook)
        if waiting is not None:
            task = self._start(waiting)
            if task.done():
                task.result()
            else:
                hook.waiting = task  # type: ignore[attr-defined]

    async def _wait(self, command: Wait) -> None:
        """Tell the layer that waits when its task has ended well."""
        try:
            with self.timeout_watchdog.disarm():
                await command.task
        except Exception:
            log.exception("a connection was closed, because of an error of ours")
            self._give_up()
            return
        await self.server_event(WaitCompleted(command))

    def look(self) -> None:
        """Have everything that goes on in this connection see whether it still may."""
        if self.client.state is ConnectionState.OPEN and not self._aborted:
            self._start(self.server_event(Look()))

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Run a hook that mitmproxy's own code waits for: clients that come and go, connections that are dialled."""
        try:
            waiting = self._run(hook)
            if waiting is not None:
                with self.timeout_watchdog.disarm():
                    await waiting
        except Exception:
            log.exception("a connection was closed, because of an error of ours in `%s`", hook.name)
            self._give_up()
            raise

    def _run(self, hook: commands.StartHook) -> Awaitable[None] | None:
        """Call the functions that stand in the table for this hook; what the last one has to wait for, if anything."""
        waiting: Awaitable[None] | None = None
        for act in self._hooks.get(hook.name, ()):
            assert waiting is None
            waiting = act(*hook.args())
        return waiting

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """Dial: the one place from which anything is dialled. Behind another proxy, nothing but that proxy ever is."""
        server = command.connection
        address = server.address
        assert address is not None
        await self.handle_hook(ServerConnectHook(ServerConnectionHookData(client=self.client, server=server)))
        if server.error:
            await self.server_event(events.OpenConnectionCompleted(command, f"Connection killed: {server.error}"))
            return
        host, port = address[:2]
        async with self.max_conns[address]:
            try:
                server.timestamp_start = time.time()
                if self._through is None:
                    reader, writer = await asyncio.open_connection(host, port)
                else:
                    reader, writer = await open_tunnel(self._through, host, port)
            except (OSError, asyncio.CancelledError) as error:
                server.error = str(error) or "connection cancelled"
                await self.server_event(events.OpenConnectionCompleted(command, server.error))
                if isinstance(error, asyncio.CancelledError):
                    raise
                return
            server.timestamp_tcp_setup = time.time()
            server.state = ConnectionState.OPEN
            server.peername = writer.get_extra_info("peername")
            server.sockname = writer.get_extra_info("sockname")
            self.transports[server] = live.ConnectionIO(asyncio.current_task(), reader, writer)
            await self.server_event(events.OpenConnectionCompleted(command, None))
            try:
                await self.handle_connection(server)
            finally:
                server.timestamp_end = time.time()

    async def handle_connection(self, connection: Connection) -> None:
        """mitmproxy forgets to close a connection whose task is cancelled while it waits to hand on data."""
        try:
            await super().handle_connection(connection)
        except asyncio.CancelledError:
            if connection in self.transports:
                connection.state = ConnectionState.CLOSED
                await self.server_event(events.ConnectionClosed(connection))
                self._close(self.transports.pop(connection))
            raise

    async def drain_writers(self) -> None:
        """Take no more from a peer while much of what it sent cannot go on: it would all be kept in memory.

        From one that speaks HTTP/1, no more is read. One that speaks HTTP/2 gets no leave to send more, and is read on:
        it may say that it can take more of what goes the other way. mitmproxy waits for sockets only, and for all of
        them, also for that of the peer itself.
        """
        task = asyncio.current_task()
        reading = next((one for one, transport in self.transports.items() if transport.handler is task), None)
        http = http_of(self.client)
        if reading is None or http is None:
            return
        owes = http.owes(reading)
        if owes is None:
            await self._wait_for_room(reading)
        else:
            await self._drain(reading, OWN_CAP_BYTES)
            if owes and reading not in self._granting:
                self._granting.add(reading)
                self._start(self._grant(reading))

    async def _grant(self, reading: Connection) -> None:
        """Let a peer that speaks HTTP/2 send more, when what it sent has gone on."""
        try:
            await self._wait_for_room(reading)
        finally:
            self._granting.discard(reading)
        await self.server_event(GoneOn(reading))

    async def _wait_for_room(self, reading: Connection) -> None:
        """Wait until what came from `reading` has gone on, but for a little."""
        http = http_of(self.client)
        while True:
            for connection in list(self._others(reading)):
                await self._drain(connection, 0)
            over = self.client.state is not ConnectionState.OPEN or self._aborted
            if http is None or over or http.held_bytes(reading) <= HELD_CAP_BYTES:
                return
            self._moved.clear()
            await self._moved.wait()

    async def _drain(self, connection: Connection, unless_bytes: int) -> None:
        """Wait until what is to be sent to `connection` is sent, unless that is little."""
        transport = self.transports.get(connection)
        if transport is None or transport.writer is None or _unsent_bytes(transport) <= unless_bytes:
            return
        try:
            await transport.writer.drain()
        except OSError as error:
            if transport.handler is not None:
                transport.handler.cancel(f"Error sending data: {error}")

    def _has_room(self, reading: Connection) -> bool:
        """Whether what comes from `reading` goes on at present."""
        http = http_of(self.client)
        if http is None or http.held_bytes(reading) > HELD_CAP_BYTES:
            return False
        return all(_unsent_bytes(self.transports[one]) <= HELD_CAP_BYTES for one in self._others(reading))

    def _others(self, reading: Connection) -> Iterator[Connection]:
        """Those that get what comes from `reading`."""
        return (one for one in self.transports if (one is self.client) is not (reading is self.client))

    async def on_timeout(self) -> None:
        """Nothing has moved for too long. mitmproxy would close the client; if an upstream is waited for, it is that
        which has failed, and the client gets to read so."""
        handlers = [one.handler for connection, one in self.transports.items() if connection is not self.client]
        upstreams = [handler for handler in handlers if handler is not None and not handler.done()]
        for handler in upstreams:
            handler.cancel("timeout")
        if not upstreams:
            await super().on_timeout()
            return
        self.timeout_watchdog.register_activity()
        self._start(self.timeout_watchdog.watch())

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        """mitmproxy's layers log here; when one of them has crashed, the connection must not hang."""
        if level >= logging.ERROR:
            log.error("%s", message, exc_info=exc_info)
            self._give_up()

    def _give_up(self) -> None:
        """Something failed: the layers may wait for ever now, so whatever they were at ends here."""
        for act in self._hooks.get("layers_failed", ()):
            act(self.client, "an error of ours")
        self.abort()

    def abort(self) -> None:
        """Close every connection of this client, at once."""
        self._aborted = True
        self._moved.set()
        for transport in self.transports.values():
            if transport.writer is None and transport.handler is not None:
                transport.handler.cancel("aborted while it was dialled")
            self._close(transport)

    @staticmethod
    def _close(transport: live.ConnectionIO) -> None:
        if transport.writer is not None:
            transport.writer.close()


def _unsent_bytes(transport: live.ConnectionIO) -> int:
    """How much of what was written to a peer it has not taken yet."""
    writer = transport.writer
    return writer.transport.get_write_buffer_size() if isinstance(writer, asyncio.StreamWriter) else 0
