"""The child of `run`: what its environment says, how it ends, and which signals reach it, with real processes."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from proxy import child

ROOT = Path(__file__).parents[2]
URL = "http://support:bp_secret@127.0.0.1:4711"


def pem(text: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----"


OURS, CORPORATE, EXTRA = pem("OURS"), pem("CORPORATE"), pem("EXTRA")


def prepare(directory: Path, base: dict[str, str]) -> child.Environment:
    return child.prepare(directory, base, URL, OURS.encode(), preload=False)


# --- the environment ---


def test_the_environment_leads_every_client_here(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "NO_PROXY": "*", "no_proxy": "localhost", "ALL_PROXY": "socks5://x", "all_proxy": "x"}
    environment = prepare(tmp_path, base).applied(base)
    bundle = str(tmp_path / "ca-bundle.pem")
    assert environment == {
        "PATH": "/bin",
        "NO_PROXY": "", "no_proxy": "",
        "HTTPS_PROXY": URL, "https_proxy": URL, "HTTP_PROXY": URL, "http_proxy": URL,
        "WSS_PROXY": URL, "wss_proxy": URL,
        "NODE_USE_ENV_PROXY": "1", "GIT_HTTP_PROXY_AUTHMETHOD": "basic",
        "SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle, "CURL_CA_BUNDLE": bundle, "AWS_CA_BUNDLE": bundle,
        "GIT_SSL_CAINFO": bundle, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle, "HTTPLIB2_CA_CERTS": bundle,
        "PIP_CERT": bundle, "NPM_CONFIG_CAFILE": bundle, "DENO_CERT": bundle, "CARGO_HTTP_CAINFO": bundle,
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca-node.pem"),
        "WGETRC": str(tmp_path / "wgetrc"),
    }  # fmt: skip


def test_bundles_are_extended_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "corporate.pem").write_text(CORPORATE)
    (tmp_path / "extra.pem").write_text(EXTRA)
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "one.crt").write_text(pem("IN-DIRECTORY") + "\n" + OURS)
    base = {
        "SSL_CERT_FILE": str(tmp_path / "corporate.pem"),
        "PIP_CERT": str(tmp_path / "corporate.pem"),
        "REQUESTS_CA_BUNDLE": str(tmp_path / "directory"),
        "AWS_CA_BUNDLE": str(tmp_path / "missing.pem"),
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "extra.pem"),
    }
    prepare(tmp_path, base)
    bundle = (tmp_path / "ca-bundle.pem").read_text()
    for certificate in (CORPORATE, pem("IN-DIRECTORY"), OURS):
        assert bundle.count(certificate) == 1
    assert EXTRA not in bundle
    assert bundle.count("BEGIN CERTIFICATE") > 20, "the system's roots are in it"
    assert (tmp_path / "ca-node.pem").read_text() == f"{EXTRA}\n{OURS}\n", "node adds to its own roots"


def test_variables_that_win_over_ours_are_pointed_at_our_bundle(tmp_path: Path) -> None:
    base = {"NIX_SSL_CERT_FILE": "/nix/ca.crt"}
    changes = prepare(tmp_path, base).set
    assert changes["NIX_SSL_CERT_FILE"] == str(tmp_path / "ca-bundle.pem")
    assert "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE" not in changes


def test_wget_keeps_its_settings_but_for_the_way_and_the_bundle(tmp_path: Path) -> None:
    (tmp_path / ".wgetrc").write_text("tries = 3\nno_proxy = example.com")
    prepare(tmp_path, {"HOME": str(tmp_path)})
    assert (tmp_path / "wgetrc").read_text().splitlines() == [
        "tries = 3",
        "no_proxy = example.com",
        f"ca_certificate = {tmp_path}/ca-bundle.pem",
        "use_proxy = on",
        "no_proxy =",
        f"http_proxy = {URL}",
        f"https_proxy = {URL}",
    ]


def test_only_we_can_read_the_files(tmp_path: Path) -> None:
    prepare(tmp_path, {})
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "ca-bundle.pem": 0o600,
        "ca-node.pem": 0o600,
        "wgetrc": 0o600,
    }


def test_the_preload_extends_what_is_set_and_is_named_once(tmp_path: Path) -> None:
    directory = tmp_path / 'a "b'
    directory.mkdir(mode=0o700)
    base = {"PYTHONPATH": f"/theirs{os.pathsep}", "NODE_OPTIONS": "--max-old-space-size=4096"}
    once = child.prepare(directory, base, URL, OURS.encode()).applied(base)
    assert once["PYTHONPATH"] == f"{directory}/preload/python{os.pathsep}/theirs{os.pathsep}"
    assert once["NODE_OPTIONS"] == f'--max-old-space-size=4096 --require "{tmp_path}/a \\"b/preload/node.cjs"'
    assert child.prepare(directory, once, URL, OURS.encode()).applied(once) == once
    assert {path.name: path.stat().st_mode & 0o777 for path in (directory / "preload").rglob("*")} == {
        "python": 0o700,
        "sitecustomize.py": 0o600,
        "_borderpost.py": 0o600,
        "node.cjs": 0o600,
        "ca.pem": 0o600,
    }
    assert child.failures(directory) == []


@pytest.mark.parametrize(
    ("host", "agent", "token", "url"),
    [
        ("127.0.0.1", "", "", "http://127.0.0.1:80"),
        ("127.0.0.1", "support", "bp_x-y_z", "http://support:bp_x-y_z@127.0.0.1:80"),
        ("::1", "a", "b@c", "http://a:b%40c@[::1]:80"),
    ],
)
def test_the_url_carries_who_the_client_is(host: str, agent: str, token: str, url: str) -> None:
    assert child.proxy_url(host, 80, agent, token) == url


# --- the process ---


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)],
)
async def test_the_exit_code_is_passed_on(script: str, code: int) -> None:
    assert await child.run(["sh", "-c", script], os.environ) == code


async def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(child.ChildError, match="cannot run `no-such-program`: no such program"):
        await child.run(["no-such-program"], os.environ)


async def test_a_file_that_is_no_program_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o700)
    with pytest.raises(child.ChildError, match=r"cannot run `.*broken`: exec format error"):
        await child.run([str(tmp_path / "broken")], os.environ)


async def test_the_program_is_looked_up_on_the_childs_path(tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("#!/bin/sh\nexit 5\n")
    (tmp_path / "agent").chmod(0o700)
    assert await child.run(["agent"], {"PATH": str(tmp_path)}) == 5


WRAPPER = """
import asyncio, fcntl, os, sys, termios
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from proxy.child import run
sys.exit(asyncio.run(run(sys.argv[2:], os.environ, grace_s=float(sys.argv[1]))))
"""

RECORDER = """
import os, signal, sys
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)  # one byte for each signal, however fast they come
for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM"):
    if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
        signal.signal(getattr(signal, name), lambda *_: None)
print("ready", flush=True)
while True:
    for number in os.read(reading, 100):
        print("got", signal.Signals(number).name, flush=True)
        if number == signal.SIGTERM and "stubborn" not in sys.argv:
            sys.exit(7)
"""


class Wrapped:
    """A wrapper process with a recording child; `output` is a stream of what the child says."""

    def __init__(self, process: subprocess.Popen[str], terminal: int, lines: Iterator[str]) -> None:
        self.process = process
        self.terminal = terminal
        self._lines = lines

    def said(self, until: str) -> list[str]:
        """What the child says next, up to and with the line `until`."""
        found: list[str] = []
        while until not in found:
            found += re.findall(r"got \w+|ready", next(self._lines))
        return found


@contextmanager
def wrapped(*arguments: str, on_terminal: bool = False, grace_s: float = 60, ignore: str = "") -> Iterator[Wrapped]:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", WRAPPER, str(grace_s), sys.executable, "-c", RECORDER, *arguments]
    if ignore:
        command = ["sh", "-c", f'trap "" {ignore}; exec "$@"', "sh", *command]
    stdin = theirs if on_terminal else subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        made = Wrapped(process, ours, iter(process.stdout))
        made.said("ready")
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: nothing of a failed test lives on
        process.communicate()
        os.close(ours)
        os.close(theirs)


FIRST = ["unshare", "-Urpf", "--mount-proc"]
ORPHANS = """
sh -c 'for n in 1 2 3; do (exit 0) & done; sh -c "exit 0" & exit 0'
for n in $(seq 2000); do
    if ! grep -qs '^State:.Z' /proc/[0-9]*/status; then test "$(ls -d /proc/[0-9]* | wc -l)" -le 4 && exit 6; fi
    sleep 0.01
done
"""


@pytest.mark.skipif(subprocess.run([*FIRST, "true"], stderr=subprocess.DEVNULL).returncode != 0, reason="no namespaces")
def test_the_first_process_of_a_container_leaves_no_zombies() -> None:
    run = "import asyncio, os, sys; from proxy.child import run; sys.exit(asyncio.run(run(sys.argv[1:], os.environ)))"
    done = subprocess.run([*FIRST, sys.executable, "-c", run, "sh", "-c", ORPHANS], cwd=ROOT, timeout=60)
    assert done.returncode == 6


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT", "SIGHUP"])
def test_a_signal_sent_to_us_reaches_the_child_once(name: str) -> None:
    with wrapped() as running:
        running.process.send_signal(getattr(signal, name))
        assert running.said(f"got {name}") == [f"got {name}"]
        running.process.send_signal(signal.SIGTERM)
        assert running.said("got SIGTERM") == ["got SIGTERM"]
        assert running.process.wait(30) == 7


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
def test_a_key_on_the_terminal_reaches_the_child_once(key: bytes, name: str) -> None:
    with wrapped(on_terminal=True) as running:
        os.write(running.terminal, key)
        assert running.said(f"got {name}") == [f"got {name}"]
        # Ours are handled in order: had the key been passed on too, it would stand before this.
        running.process.send_signal(signal.SIGTERM)
        assert running.said("got SIGTERM") == ["got SIGTERM"]
        assert running.process.wait(30) == 7


def test_a_child_that_does_not_end_is_killed() -> None:
    with wrapped("stubborn", grace_s=0.01) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 128 + signal.SIGKILL


def test_what_was_ignored_stays_ignored() -> None:
    with wrapped(ignore="HUP") as running:
        running.process.send_signal(signal.SIGHUP)
        running.process.send_signal(signal.SIGTERM)
        assert running.said("got SIGTERM") == ["got SIGTERM"]
        assert running.process.wait(30) == 7
