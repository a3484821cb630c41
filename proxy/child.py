"""The agent as our child: the environment that leads its clients through the proxy, and its process.

Which variables: `HTTPS_PROXY` and its kin for the way, and for trust those that each client reads, measured client by
client. Most of the trust variables *replace* a client's own roots, so they name one file that holds the system's roots,
whatever bundle was named before, and our authority. Node adds to its roots, so it gets ours (and what was added) alone.
What no variable reaches is reached by the preload: code that Python and Node.js run in the agent before its program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import ssl
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from proxy.confdir import reason
from proxy.settings import format_address

PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "WSS_PROXY", "wss_proxy")
"""Both cases: wget and grpc read only lower case."""

CLEARED = ("NO_PROXY", "no_proxy")
UNSET = ("ALL_PROXY", "all_proxy", "grpc_proxy", "no_grpc_proxy", "BORDERPOST_UPSTREAM_PROXY")
"""These would lead a client round the proxy: SOCKS for all, what gRPC reads before `https_proxy`, and the proxy that is
behind ours, whose credentials are none of the agent's business."""

BUNDLE_VARIABLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS", "PIP_CERT", "NPM_CONFIG_CAFILE", "DENO_CERT",
    "CARGO_HTTP_CAINFO",
)  # fmt: skip
"""Each replaces the roots of the client that reads it."""

BUNDLE_VARIABLES_IF_SET = ("NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "npm_config_cafile")
"""Where they are set they win over the ones above, so they are pointed at our bundle too; else they stay unset."""

SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS, FreeBSD
)

PRELOAD = Path(__file__).parent / "preload"
"""The code of the preload. It is copied to where the certificates are, since it finds them beside itself."""

NO_PRELOAD = "BORDERPOST_NO_PRELOAD"
"""Set to anything, in the agent or around us, it turns the preload off."""

FAILURES = "failures"
"""Where the preload writes down, in its directory, what it could not do: a line each."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GRACE_S = 30.0
"""A child that was told to end by SIGTERM or SIGHUP and does not is killed after this."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class ChildError(Exception):
    """The child cannot be started. The text is one line."""


class Environment(msgspec.Struct, frozen=True):
    """What to change in an environment so that its clients go through the proxy and trust it."""

    set: dict[str, str]
    unset: tuple[str, ...]

    def applied(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with the changes made."""
        return {name: value for name, value in base.items() if name not in self.unset} | self.set


def proxy_url(host: str, port: int, agent: str = "", token: str = "") -> str:
    """The URL for clients, with the agent's name and token where there is one."""
    userinfo = f"{quote(agent, safe='')}:{quote(token, safe='')}@" if token else ""
    return f"http://{userinfo}{format_address(host, port)}"


def prepare(directory: Path, base: Mapping[str, str], url: str, ca_pem: bytes, *, preload: bool = True) -> Environment:
    """The changes to environment `base` for proxy `url` and authority `ca_pem`; writes the files they name, 0600.

    The files live as long as the clients may run: a directory that is removed after the child, or the configuration
    directory for a proxy that stays.
    """
    named = [base[name] for name in (*BUNDLE_VARIABLES, *BUNDLE_VARIABLES_IF_SET) if base.get(name)]
    bundle = _write(directory / "ca-bundle.pem", _join([_system_roots(), *map(_certificates, named), ca_pem]))
    node = _write(directory / "ca-node.pem", _join([_certificates(base.get("NODE_EXTRA_CA_CERTS", "")), ca_pem]))
    wgetrc = _write(directory / "wgetrc", _wgetrc(base, url, bundle))
    changes = dict.fromkeys(PROXY_VARIABLES, url)
    changes |= dict.fromkeys(CLEARED, "")
    changes |= dict.fromkeys(BUNDLE_VARIABLES, str(bundle))
    changes |= {name: str(bundle) for name in BUNDLE_VARIABLES_IF_SET if base.get(name)}
    changes |= {"NODE_EXTRA_CA_CERTS": str(node), "NODE_USE_ENV_PROXY": "1", "WGETRC": str(wgetrc)}
    changes |= {"GIT_HTTP_PROXY_AUTHMETHOD": "basic"}  # else git asks once without the token, and is refused
    if preload:
        changes |= _preload(directory / "preload", base, ca_pem)
    return Environment(changes, UNSET)


def _preload(directory: Path, base: Mapping[str, str], ca_pem: bytes) -> dict[str, str]:
    """Put the preload into `directory`; the variables, extended, by which Python and Node.js run it."""
    for source in (*PRELOAD.glob("python/*.py"), PRELOAD / "node.cjs"):
        target = directory / source.relative_to(PRELOAD)
        for made in (directory, target.parent):
            made.mkdir(mode=0o700, exist_ok=True)
        _write(target, source.read_bytes())
    _write(directory / "ca.pem", ca_pem)
    ours = str(directory / "python")
    theirs = [path for path in [base.get("PYTHONPATH", "")] if path]
    if theirs and theirs[0].split(os.pathsep)[0] == ours:
        theirs = [theirs[0].partition(os.pathsep)[2]]
    # In double quotes and with escapes, as Node reads NODE_OPTIONS: directories may have spaces.
    escaped = str(directory / "node.cjs").replace("\\", "\\\\").replace('"', '\\"')
    require = f'--require "{escaped}"'
    options = base.get("NODE_OPTIONS", "").replace(require, "").strip()
    return {
        "PYTHONPATH": os.pathsep.join([ours, *filter(None, theirs)]),
        "NODE_OPTIONS": f"{options} {require}".strip(),
    }


def failures(directory: Path) -> list[str]:
    """What the preload in `directory`, as given to `prepare`, could not do."""
    try:
        return (directory / "preload" / FAILURES).read_text(errors="replace").splitlines()
    except OSError:
        return []


def find_program(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Where the program of `command` is. Raises `ChildError` when it cannot be started."""
    found = shutil.which(command[0], path=environment.get("PATH", os.defpath))
    if found is None:
        raise ChildError(f"cannot run `{command[0]}`: no such program")
    return found


type Start = Callable[[str, Sequence[str], Mapping[str, str]], Awaitable[Process]]
"""Starts a command: its program, its words, its environment."""


async def start(program: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start `command` as a child of ours. Raises `ChildError`."""
    try:
        return await asyncio.create_subprocess_exec(*command, executable=program, env=dict(environment))
    except OSError as error:
        raise ChildError(f"cannot run `{command[0]}`: {reason(error)}") from None


async def run(
    command: Sequence[str], environment: Mapping[str, str], start: Start = start, *, grace_s: float = GRACE_S
) -> int:
    """Run `command` in our terminal session until it ends. Its exit code, or 128 + n when signal n ended it.

    Signals that we get are passed on to it. Must run on the main thread: only that may set signal handlers.
    """
    program = find_program(command, environment)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        forward = _Forward(loop, grace_s)
        # Before the start, so that a signal that comes in between is kept. What was ignored when we started (nohup,
        # a background job of sh) stays ignored, and the child inherits that.
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, forward, number)
                undo.callback(loop.remove_signal_handler, number)
        process = await start(program, command, environment)
        undo.callback(forward.stop)
        forward.start(process)
        if os.getpid() == 1:  # of a container: who loses its parent becomes ours
            loop.add_signal_handler(signal.SIGCHLD, bury_orphans, process.pid)
            undo.callback(loop.remove_signal_handler, signal.SIGCHLD)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            raise
    return 128 - code if code < 0 else code


def bury_orphans(child_pid: int) -> None:
    """Take note of the end of every child of ours but `child_pid`, as the first process of a container has to."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == child_pid:
                return  # its end is waited for elsewhere
            os.waitpid(ended.si_pid, 0)


class _Forward:
    """Passes signals on to the child, and ends it when it was told to end and does not."""

    def __init__(self, loop: asyncio.AbstractEventLoop, grace_s: float) -> None:
        self._loop = loop
        self._grace_s = grace_s
        self._process: Process | None = None
        self._early: list[signal.Signals] = []
        self._deadline: asyncio.TimerHandle | None = None

    def __call__(self, number: signal.Signals) -> None:
        if self._process is None:
            self._early.append(number)
        elif self._process.returncode is None and not _comes_from_terminal(number):
            self._send(number)
            if number in (signal.SIGTERM, signal.SIGHUP) and self._deadline is None:
                self._deadline = self._loop.call_later(self._grace_s, self._send, signal.SIGKILL)

    def start(self, process: Process) -> None:
        self._process = process
        for number in self._early:
            self(number)

    def stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _comes_from_terminal(number: signal.Signals) -> bool:
    """Whether the child has got this signal by itself: Ctrl-C and Ctrl-\\ go to the whole foreground group.

    A handler is not told who sent a signal. While we are in the foreground of a terminal, it was the keyboard.
    """
    if number not in (signal.SIGINT, signal.SIGQUIT):
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _system_roots() -> bytes:
    """The certificates that this machine trusts, as PEM."""
    for path in (ssl.get_default_verify_paths().openssl_cafile, *SYSTEM_BUNDLES):
        found = _certificates(path)
        if found:
            return found
    import certifi  # the last resort: a container without roots

    return Path(certifi.where()).read_bytes()


def _certificates(path: str) -> bytes:
    """The PEM text of a file, or of the files in a directory (requests takes one). Empty when it cannot be read."""
    place = Path(path)
    try:
        if path and place.is_dir():
            return b"\n".join(file.read_bytes() for file in sorted(place.iterdir()) if file.is_file())
        return place.read_bytes() if path else b""
    except OSError:
        return b""


def _join(texts: Sequence[bytes]) -> bytes:
    """The certificates of all `texts`, each once, in order."""

    def blocks() -> Iterator[bytes]:
        for text in texts:
            yield from _CERTIFICATE.findall(text)

    return b"\n".join(dict.fromkeys(blocks())) + b"\n"


def _wgetrc(base: Mapping[str, str], url: str, bundle: Path) -> bytes:
    """wget's settings: what the user has, then ours, since a later line wins. wget has no variable for a bundle."""
    theirs = base.get("WGETRC") or str(Path(base.get("HOME", "~")).expanduser() / ".wgetrc")
    lines = [
        f"ca_certificate = {bundle}",
        "use_proxy = on",
        "no_proxy =",
        f"http_proxy = {url}",
        f"https_proxy = {url}",
    ]
    return _certificates(theirs) + b"\n" + "\n".join(lines).encode() + b"\n"


def _write(path: Path, content: bytes) -> Path:
    """Write `content` so that only we can read it, and whoever reads it meanwhile sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
    return path
