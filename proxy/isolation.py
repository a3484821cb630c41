"""A command in a network namespace of its own, whose only way out is the proxy. Linux only.

The proxy stays outside and accepts on a socket that was made inside: a socket belongs to the namespace that it was made
in, whoever holds it. So nothing is relayed, and when the proxy ends, nothing is left. Inside there is a loopback device
and no route; what tries to go elsewhere fails at once, and the kernel counts it. Those counters are read through files
that were opened inside.

The user namespace around it keeps the user's id and files. It is also what keeps the command from entering another
network namespace, and from tracing processes outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ENCLOSE = Path(__file__).with_name("enclose.py")

PATIENCE_S = 10.0
"""How long a new namespace may take."""

MESSAGE_BYTES = 4096
DESCRIPTORS = 3

COUNTED = {("Ip", "OutNoRoutes"), ("Udp", "NoPorts"), ("Tcp", "AttemptFails")}
COUNTED_V6 = {"Ip6OutNoRoutes", "Udp6NoPorts"}
"""No route to there; and within the namespace, where a resolver or a service of this machine was looked for: nobody."""

_HINTS = {
    errno.EPERM: "it forbids unprivileged user namespaces (kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp profile)",
    errno.EACCES: "a security module of the kernel forbids it (kernel.apparmor_restrict_unprivileged_userns)",
    errno.ENOSPC: "user.max_user_namespaces or user.max_net_namespaces is used up",
    errno.ENOSYS: "it was built without namespaces",
    errno.EINVAL: "it was built without user or network namespaces",
}


class IsolationError(Exception):
    """The command cannot be isolated, and was not run. The text is one line."""


class Enclosure:
    """A namespace, and in it a process that waits to become the command. Made by `enclose`.

    `holds_root`: there is a user namespace around it. Without one, which only root can do, root can leave it as well.
    """

    def __init__(
        self,
        process: Process,
        talk: _Talk,
        listener: socket.socket,
        counters: list[int],
        *,
        holds_root: bool,
    ) -> None:
        self.holds_root = holds_root
        self._process = process
        self._talk = talk
        self._counters = counters
        self.listener = listener

    async def become(self, program: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Let the waiting process become `command`. The process. Raises `IsolationError` when it cannot be started."""
        await self._talk.say({"program": program, "command": list(command), "environment": dict(environment)})
        answer = await self._talk.hear()  # nothing: the socket is closed when the command begins
        if answer is not None:
            await self._process.wait()
            raise IsolationError(f"cannot run `{command[0]}`: {os.strerror(answer['errno']).lower()}")
        return self._process

    def attempts(self) -> int:
        """How often something inside tried to reach anything but the proxy, and failed."""
        return sum(count_attempts(os.pread(counter, 1 << 16, 0).decode()) for counter in self._counters)

    async def close(self) -> None:
        """Let go of everything; a process that has not become the command by now never does."""
        self._talk.close()
        if self._process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), PATIENCE_S)
        self.listener.close()
        for counter in self._counters:
            os.close(counter)
        self._counters = []


async def enclose(port: int) -> Enclosure:
    """A new namespace, in which `port` (0: any) of 127.0.0.1 is listened on. Raises `IsolationError`."""
    if sys.platform != "linux":
        raise IsolationError("cannot isolate: `--isolated` needs Linux; nothing was run")
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    talk = _Talk(ours)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(ENCLOSE), str(theirs.fileno()), pass_fds=[theirs.fileno()]
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            await talk.say({"port": port})
            has_user = _checked(await talk.hear())["user"]
            if has_user:
                _map_user(process.pid)
            await talk.say({"mapped": True})
            _checked(await talk.hear())
    except (IsolationError, TimeoutError) as error:
        talk.close()
        await process.wait()
        raise error if isinstance(error, IsolationError) else _cannot("answer in time", errno.ETIMEDOUT) from None
    listener, *counters = talk.descriptors
    return Enclosure(process, talk, socket.socket(fileno=listener), counters, holds_root=has_user)


class _Talk:
    """Lines of JSON, with what descriptors come along."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self._heard = b""
        self.descriptors: list[int] = []

    async def say(self, message: Mapping[str, object]) -> None:
        with contextlib.suppress(ConnectionError):  # then nothing will be heard either
            await asyncio.get_running_loop().sock_sendall(self._ours, json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message, or None at the end."""
        while b"\n" not in self._heard:
            await _readable(self._ours)
            try:
                piece, descriptors, _, _ = socket.recv_fds(self._ours, MESSAGE_BYTES, DESCRIPTORS)
            except ConnectionError:
                return None
            self.descriptors += descriptors
            if not piece:
                return None
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._ours.close()


async def _readable(one: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(one, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(one)


def _checked(message: dict[str, Any] | None) -> dict[str, Any]:
    if message is None:
        raise _cannot("start a process there", errno.ECHILD)
    if "error" in message:
        raise _cannot(message["error"], message["errno"])
    return message


def _cannot(what: str, number: int) -> IsolationError:
    hint = _HINTS.get(number, os.strerror(number).lower())
    return IsolationError(f"cannot isolate: the kernel did not {what}: {hint}; nothing was run")


def _map_user(pid: int) -> None:
    """Let users and groups be inside what they are outside: all of them if we are root, else ourselves alone."""
    process = Path(f"/proc/{pid}")
    try:
        if os.geteuid() == 0:
            for name in ("uid_map", "gid_map"):
                lines = [line.split() for line in Path("/proc/self", name).read_text().splitlines()]
                (process / name).write_text("".join(f"{first} {first} {count}\n" for first, _, count in lines))
            return
        (process / "setgroups").write_text("deny")
        (process / "uid_map").write_text(f"{os.geteuid()} {os.geteuid()} 1\n")
        (process / "gid_map").write_text(f"{os.getegid()} {os.getegid()} 1\n")
    except OSError as error:
        raise _cannot("map a user", error.errno or errno.EPERM) from None


def count_attempts(text: str) -> int:
    """The attempts in the text of /proc/net/snmp or snmp6 (proc_net(5))."""
    lines = [line.split() for line in text.splitlines()]
    total = 0
    for titles, numbers in pairwise(lines):
        if titles[0].endswith(":") and titles[0] == numbers[0] and not titles[1].lstrip("-").isdigit():
            kind = titles[0].rstrip(":")
            named = zip(titles[1:], numbers[1:], strict=True)
            total += sum(int(number) for title, number in named if (kind, title) in COUNTED)
    return total + sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in COUNTED_V6)
