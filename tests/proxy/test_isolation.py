"""A command with no other way out than the proxy: real namespaces, an upstream outside that counts, and no network."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy import child
from proxy.isolation import IsolationError, count_attempts, enclose

PROBE = "import os; os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)"
CAN = (
    sys.platform == "linux" and subprocess.run([sys.executable, "-c", PROBE], stderr=subprocess.DEVNULL).returncode == 0
)

pytestmark = pytest.mark.skipif(not CAN, reason="no user and network namespaces here")


async def run_inside(*command: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """The exit code of `command` in an enclosure, and how many attempts to go round were counted."""
    enclosure = await enclose(0)
    try:
        code = await child.run(command, environment, enclosure.become)
        return code, enclosure.attempts()
    finally:
        await enclosure.close()


CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("192.0.2.1", 443, "ENETUNREACH"),
        ("2001:db8::1", 443, "ENETUNREACH"),
        ("10.0.0.1", 80, "ENETUNREACH"),
        ("169.254.169.254", 80, "ENETUNREACH"),
    ],
)
async def test_there_is_no_route_and_attempts_are_counted(host: str, port: int, reason: str) -> None:
    code, attempts = await run_inside(sys.executable, "-c", CONNECT, host, str(port))
    assert (code, attempts) == (getattr(errno, reason), 1)


async def test_a_name_cannot_be_asked_for(tmp_path: Path) -> None:
    program = "import socket; socket.getaddrinfo('www.example.com', 443)"
    code, attempts = await run_inside("sh", "-c", f'{sys.executable} -c "{program}" 2>/dev/null')
    assert code == 1 and attempts >= 1


async def test_what_listens_outside_is_not_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.setblocking(False)
        port = str(outside.getsockname()[1])
        code, attempts = await run_inside(sys.executable, "-c", CONNECT, "127.0.0.1", port)
        with pytest.raises(BlockingIOError):
            outside.accept()
    assert code != 0 and attempts == 1


async def test_what_listens_inside_is_accepted_outside() -> None:
    enclosure = await enclose(0)
    try:
        port = enclosure.listener.getsockname()[1]
        enclosure.listener.setblocking(False)
        running = asyncio.create_task(
            child.run([sys.executable, "-c", CONNECT, "127.0.0.1", str(port)], os.environ, enclosure.become)
        )
        accepted, _ = await asyncio.get_running_loop().sock_accept(enclosure.listener)
        accepted.close()
        assert await running == 0
        assert enclosure.attempts() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 30)
    finally:
        await enclosure.close()


async def test_the_user_and_its_files_are_what_they_were(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    code, _ = await run_inside(
        "sh", "-c", f'test "$(id -u) $(id -g)" = "{os.geteuid()} {os.getegid()}" && touch {mine}'
    )
    assert code == 0
    assert (mine.stat().st_uid, mine.stat().st_gid) == (os.geteuid(), os.getegid())


async def test_no_other_network_can_be_entered() -> None:
    program = """
import os, sys
try:
    os.setns(os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY), os.CLONE_NEWNET)
except PermissionError:
    sys.exit(9)
"""
    assert (await run_inside(sys.executable, "-c", program, str(os.getpid())))[0] == 9


LIBC = 0b11 << 31
"""Signals 32 and 33 are the C library's own: what it does with them depends on how a process was started."""


def seen(looked: Path) -> list[str]:
    """What a command has seen of itself, but for those."""
    lines = [line.partition(":\t") for line in looked.read_text().splitlines()]
    return [f"{name}: {int(mask, 16) & ~LIBC:x}" if tab else name for name, tab, mask in lines]


async def test_the_command_is_started_as_any_other(tmp_path: Path) -> None:
    """The same descriptors are open in it, the same signals ignored or blocked."""

    def command(name: str) -> list[str]:
        look = "ls /proc/self/fd; grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status"
        return ["sh", "-c", f"exec > {tmp_path / name}; {look}"]

    assert await child.run(command("plain"), os.environ) == 0
    assert (await run_inside(*command("isolated")))[0] == 0
    assert len(seen(tmp_path / "plain")) > 5
    assert seen(tmp_path / "isolated") == seen(tmp_path / "plain")


async def test_the_environment_is_exactly_what_was_given() -> None:
    environment = {"PATH": os.environ["PATH"], "ODD": "a\udcffb ü \n", "EMPTY": ""}
    program = f"import os, sys; sys.exit(0 if os.environ.get('ODD') == {environment['ODD']!r} else 8)"
    assert (await run_inside(sys.executable, "-X", "utf8", "-c", program, environment=environment))[0] == 0
    assert (await run_inside("sh", "-c", 'test "$(env | grep -c BORDERPOST)" = 0', environment=environment))[0] == 0


async def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o700)
    with pytest.raises(IsolationError, match=r"cannot run `.*broken`: exec format error"):
        await run_inside(str(tmp_path / "broken"))


async def test_a_signal_ends_it_as_any_other() -> None:
    assert (await run_inside("sh", "-c", "kill -TERM $$"))[0] == 128 + signal.SIGTERM
    script = f"trap 'exit 5' TERM; kill -TERM {os.getpid()}; while :; do sleep 0.01; done"
    assert (await run_inside("sh", "-c", script))[0] == 5


async def test_nothing_runs_unless_it_is_told_to() -> None:
    enclosure = await enclose(0)
    await enclosure.close()
    assert enclosure._process.returncode is not None


FORBIDDEN = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --inh-caps=-all --bounding-set=-all "$@"'


@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("setpriv")), reason="needs util-linux")
def test_where_the_kernel_forbids_it_nothing_is_run(tmp_path: Path) -> None:
    house = Path(__file__).parents[2]
    ran = tmp_path / "ran"
    (tmp_path / "borderpost.yaml").write_text("{version: 1, rules: []}")
    places = ["--ledger", str(tmp_path / "ledger.db"), "--confdir", str(tmp_path / "confdir")]
    command = [sys.executable, "-m", "cli", *places, "run", "--isolated", "--", "touch", str(ran)]
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", FORBIDDEN, "sh", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(house)},
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot isolate: the kernel did not make a user and a network namespace: ")
    assert done.stderr.endswith("; nothing was run\n") and done.stderr.count("\n") == 1
    assert not ran.exists() and not (tmp_path / "ledger.db").exists()


def test_counters_are_read_by_their_names() -> None:
    snmp = (
        "Ip: Forwarding OutNoRoutes InReceives\nIp: 2 3 900\n"
        "Icmp: InMsgs OutMsgs\nIcmp: 1 1\n"
        "Tcp: RtoAlgorithm MaxConn AttemptFails\nTcp: 1 -1 20\n"
        "Udp: InDatagrams NoPorts\nUdp: 7 100\nUdpLite: InDatagrams NoPorts\nUdpLite: 7 1000\n"
    )
    assert count_attempts(snmp) == 123
    assert count_attempts("Ip6InReceives 9\nIp6OutNoRoutes 4\nUdp6NoPorts 50\n") == 54
    assert count_attempts("") == 0
