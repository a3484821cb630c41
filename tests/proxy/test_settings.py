"""Settings: which are accepted, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.settings import Settings, SettingsError, is_loopback, new_token, parse_address


def settings(**changes: Any) -> Settings:
    usual: dict[str, Any] = {"command": "serve", "ledger": Path("l"), "confdir": Path("c"), "listen_host": "127.0.0.1"}
    return Settings(**usual | {"listen_port": 8080} | changes)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":9000", ("127.0.0.1", 9000)),
        ("9000", ("127.0.0.1", 9000)),
        ("[::1]:80", ("::1", 80)),
        ("proxy.example:0", ("proxy.example", 0)),
    ],
)
def test_an_address_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no listening address"),
        ("localhost", "no listening address"),
        ("localhost:", "no listening address"),
        ("localhost:65536", "no listening address"),
        ("localhost:-1", "no listening address"),
        ("localhost:٣", "no listening address"),
        ("::1:80", "in brackets"),
    ],
)
def test_what_is_no_address_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "yes"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True)]
    + [(host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "proxy.example", "")],
)
def test_which_hosts_only_this_machine_reaches(host: str, yes: bool) -> None:
    assert is_loopback(host) is yes


def test_listening_beyond_this_machine_needs_agents() -> None:
    public = settings(listen_host="0.0.0.0")
    with pytest.raises(SettingsError, match="borderpost agent add"):
        public.check(agents=0)
    public.check(agents=1)
    settings().check(agents=0)
    settings(command="run", run="r_1", token="t", listen_host="0.0.0.0").check(agents=0)


def test_who_needs_a_token() -> None:
    assert not settings().token_required
    assert settings(listen_host="0.0.0.0").token_required
    assert settings(command="run", token="t").token_required


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "a:b"}, "`a:b` is no agent name"),
        ({"run": "r 1", "token": "t"}, "`r 1` is no run id"),
        ({"command": "run"}, "needs a token"),
        ({"upstream_ca": (Path("/nowhere.pem"),)}, "cannot read `/nowhere.pem`"),
        ({"upstream_ca": (Path(__file__),)}, "holds no certificate"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        settings(**changes).check(agents=0)
    assert "\n" not in str(raised.value)


def test_tokens_are_fresh_and_fit_into_a_url() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert all(character.isascii() and (character.isalnum() or character in "-_") for character in new_token())
