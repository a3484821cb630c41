"""How one proxy is set up: frozen values that the command line fills in, and what makes them acceptable."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from proxy import chain, clientcert
from proxy.confdir import reason

DEFAULT_LISTEN = "127.0.0.1:8080"
ANY_PORT = "127.0.0.1:0"
"""Where `run` listens when nobody says."""

DEFAULT_AGENT = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of agents and ids of runs: they stand in proxy URLs, in rule files and in the ledger."""


class SettingsError(Exception):
    """The settings cannot be used. The text is one line for the person who started us."""


class Settings(msgspec.Struct, frozen=True):
    """What `run` and `serve` need to know, checked.

    `rules`: the paths given with `--rules`; empty means the usual places. `mode`: None where the rule files say it.
    `listen_port`: 0 takes any free port. `upstream_ca`: PEM files of further authorities to trust upstream.
    `upstream_proxy`: what everything goes through. `client_certs`: the directory of certificates for upstreams.
    `agent`: who the child of `run` is, and under `serve` a client on this machine that sends no token.
    `run`, `token`: the run of that child and what it authenticates with; both empty under `serve`.
    `reload`: follow changes of the rule files. `isolated`: the child of `run` has no other way out than the proxy.
    """

    command: Literal["run", "serve"]
    ledger: Path
    confdir: Path
    listen_host: str
    listen_port: int
    rules: tuple[Path, ...] = ()
    upstream_ca: tuple[Path, ...] = ()
    upstream_proxy: chain.UpstreamProxy | None = None
    client_certs: Path | None = None
    mode: Literal["enforce", "monitor"] | None = None
    agent: str = DEFAULT_AGENT
    run: str = ""
    token: str = ""
    reload: bool = False
    isolated: bool = False

    @property
    def token_required(self) -> bool:
        """Whether a client without a token is refused: always under `run`, and wherever others can connect."""
        return bool(self.token) or not is_loopback(self.listen_host)

    @property
    def listen(self) -> str:
        """The listening address as text, `host:port`."""
        return format_address(self.listen_host, self.listen_port)

    def check(self, *, agents: int) -> None:
        """Raise `SettingsError` when these settings must not be used. `agents`: how many agents have a token."""
        for word, what in ((self.agent, "agent name"), (self.run or "r", "run id")):
            check_name(word, what)
        if self.command == "run" and not self.token:
            raise SettingsError("`run` needs a token for its child")
        if self.isolated and self.listen_host != "127.0.0.1":
            raise SettingsError(
                f"`{self.listen_host}` is not in the network of an isolated command: use 127.0.0.1:PORT"
            )
        if not is_loopback(self.listen_host) and not self.token and not agents:
            raise SettingsError(
                f"refusing to listen on `{self.listen_host}` without agents: anybody who reaches it could use it; "
                "give each agent a token with `borderpost agent add NAME`, or listen on 127.0.0.1"
            )
        for path in self.upstream_ca:
            _check_pem(path)
        if self.client_certs is not None:
            try:
                clientcert.check(self.client_certs)
            except clientcert.ClientCertError as error:
                raise SettingsError(str(error)) from None


def check_name(text: str, what: str) -> str:
    """`text`, or `SettingsError` when it cannot be the name of an agent or the id of a run."""
    if NAME.fullmatch(text) is None:
        raise SettingsError(f"`{text}` is no {what}: use up to 64 letters, digits, `.`, `_` and `-`")
    return text


def ledger_path(text: str) -> Path:
    """The file that `--ledger` names: a path, or `sqlite:///PATH`."""
    scheme, found, rest = text.partition("://")
    if not found:
        return _named(Path(text))
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return _named(
            Path(rest[1:])
        )  # as SQLAlchemy has it: three slashes and a relative path, four and an absolute one
    if scheme.startswith("postgres"):
        raise SettingsError("a PostgreSQL ledger is not supported by this version: give a file")
    raise SettingsError(f"`{text}` is no ledger: give a file, or `sqlite:///FILE`")


def _named(path: Path) -> Path:
    """`path`, if a file can be there: `.` and `/` have no name that a file beside them could be called by."""
    if not path.name:
        raise SettingsError(f"`{path}` is a directory: give a file with `--ledger`")
    return path


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT`, `:PORT` or `PORT` as (host, port); without a host it is 127.0.0.1."""
    host, colon, port = text.rpartition(":")
    host = host if colon else ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SettingsError(f"`{text}` is ambiguous: write an IPv6 address in brackets, `[::1]:8080`")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise SettingsError(f"`{text}` is no listening address: write `HOST:PORT`, such as `{DEFAULT_LISTEN}`")
    return host or "127.0.0.1", int(port)


def parse_upstream_proxy(url: str) -> chain.UpstreamProxy:
    """The proxy that `--upstream-proxy` names. The URL is not repeated: it may hold a password."""
    try:
        return chain.parse(url)
    except ValueError as error:
        raise SettingsError(f"cannot use what is given as --upstream-proxy: {error}") from None


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reached_at(host: str) -> str:
    """Where clients of this machine reach a listener on `host`: one on all addresses, at a loopback one."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  asked, not bound


@lru_cache
def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A fresh token: 256 random bits in characters that a proxy URL takes as they are."""
    return "bp_" + secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """What is kept of a token: its SHA-256 (hex). It has 256 random bits, so that nobody finds it by trying."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _check_pem(path: Path) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read `{path}` given as --upstream-ca: {reason(error)}") from None
    if b"-----BEGIN CERTIFICATE-----" not in text:
        raise SettingsError(f"`{path}` given as --upstream-ca holds no certificate: it has to be a PEM file")
