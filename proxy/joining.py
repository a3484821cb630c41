"""What a `run` asks for that wishes to join a `serve`, and why it may not: nothing that it was told is passed over."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from proxy.chain import UpstreamProxy
from proxy.settings import ANY_PORT, Settings, check_name, format_address
from rules.ruleset import RuleSet

HASH = re.compile("[0-9a-f]{64}")


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that wishes to join: who it is, the hash of its child's token, and what it was told.

    `digest` and `rules`: its rules, for the machine and for people; empty where it has none. All others are empty where
    nothing was said. Paths are absolute; `upstream_proxy` is a keyed hash.
    """

    run: str
    agent: str
    hash: str
    pid: int
    confdir: str
    digest: str = ""
    rules: str = ""
    mode: str = ""
    listen: str = ""
    upstream_ca: tuple[str, ...] = ()
    upstream_proxy: str = ""
    client_certs: str = ""

    def check(self) -> None:
        """Raise `SettingsError` where the agent's name or the run's id is none."""
        check_name(self.agent, "agent name")
        check_name(self.run, "run id")


class Host(msgspec.Struct, frozen=True):
    """A `serve` that takes runs in. `rules` describes the rules in force."""

    settings: Settings
    address: tuple[str, int]
    confdir: Path
    ca_path: Path
    hash_secret: Callable[[bytes], str]
    rules: Callable[[], str]


def wish_of(settings: Settings, confdir: Path, token_hash: str, pid: int, hash_secret: Callable[[bytes], str]) -> Wish:
    """What `settings` of a `run` come to; not yet its rules."""
    return Wish(
        run=settings.run,
        agent=settings.agent,
        hash=token_hash,
        pid=pid,
        confdir=str(confdir.resolve()),
        mode=settings.mode or "",
        listen="" if settings.listen == ANY_PORT else settings.listen,
        upstream_ca=_paths(settings),
        upstream_proxy=_way_out(settings.upstream_proxy, hash_secret),
        client_certs=_certificates(settings),
    )


def objections(wish: Wish, host: Host, ruleset: RuleSet) -> Iterator[str]:
    """Why this run cannot join, a few words each: what it was told is not so at `host`, where `ruleset` is in force."""
    settings = host.settings
    if wish.confdir != str(host.confdir.resolve()):
        yield f"its `--confdir` is `{host.confdir}`"
    if wish.digest and wish.digest != ruleset.digest:
        yield f"its rules are {host.rules()}, those here {wish.rules}"
    if wish.mode and wish.mode != ruleset.mode:
        yield f"its mode is {ruleset.mode}, not {wish.mode}"
    if wish.listen and wish.listen not in (settings.listen, format_address(*host.address)):
        yield f"it listens on {format_address(*host.address)}, not on {wish.listen}"
    if wish.upstream_ca and set(wish.upstream_ca) != set(_paths(settings)):
        yield f"it trusts {_listed(_paths(settings), 'no further authority')} (`--upstream-ca`)"
    if wish.upstream_proxy and wish.upstream_proxy != _way_out(settings.upstream_proxy, host.hash_secret):
        yield f"it goes out through {settings.upstream_proxy or 'no other proxy'} (`--upstream-proxy`)"
    if wish.client_certs and wish.client_certs != _certificates(settings):
        yield f"its certificates are in {_listed([_certificates(settings)], 'no directory')} (`--client-certs`)"


def _paths(settings: Settings) -> tuple[str, ...]:
    return tuple(str(path.resolve()) for path in settings.upstream_ca)


def _certificates(settings: Settings) -> str:
    return "" if settings.client_certs is None else str(settings.client_certs.resolve())


def _way_out(through: UpstreamProxy | None, hash_secret: Callable[[bytes], str]) -> str:
    """The proxy that is gone through, with its password, as something that equals only itself."""
    return "" if through is None else hash_secret(msgspec.json.encode(through))


def _listed(words: list[str] | tuple[str, ...], none: str) -> str:
    return ", ".join(f"`{word}`" for word in words if word) or none
