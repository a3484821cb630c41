"""Agents and their tokens: added once, kept as a hash, seen by a proxy that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.agents import Agents, AgentsError

NOW_NS = 1_800_000_000_000_000_000
HOUR_NS = 3_600_000_000_000


def test_each_answer_of_check_has_its_reason(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    good = agents.add("support", NOW_NS)
    short = agents.add("temp", NOW_NS, expires_ns=NOW_NS + HOUR_NS)
    table = [
        ("the right token", "support", good, NOW_NS, None),
        ("another agent's token", "support", short, NOW_NS, "wrong token"),
        ("an empty token", "support", "", NOW_NS, "wrong token"),
        ("no such agent", "nobody", good, NOW_NS, "unknown agent"),
        ("no such agent, and the empty token", "nobody", "", NOW_NS, "unknown agent"),
        ("a token that is no text", "support", "\udcff", NOW_NS, "wrong token"),
        ("before it expires", "temp", short, NOW_NS + HOUR_NS - 1, None),
        ("from the moment it expires", "temp", short, NOW_NS + HOUR_NS, "expired"),
    ]
    for sentence, name, token, now_ns, reason in table:
        assert agents.check(name, token, now_ns) == reason, sentence


def test_only_the_hash_of_a_token_is_kept_and_only_we_can_read_it(tmp_path: Path) -> None:
    confdir = tmp_path / "not" / "there" / "yet"
    token = Agents(confdir).add("support", NOW_NS)
    path = confdir / "agents.json"
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert confdir.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["agents"][0]["name"] == "support"
    assert sorted(file.name for file in confdir.iterdir()) == ["agents.json", "agents.lock"]


def test_a_running_proxy_sees_what_the_command_line_changes(tmp_path: Path) -> None:
    proxy, command = Agents(tmp_path), Agents(tmp_path)
    assert proxy.check("support", "x", NOW_NS) == "unknown agent"
    first = command.add("support", NOW_NS)
    assert proxy.check("support", first, NOW_NS) is None
    second = command.add("support", NOW_NS, replace=True)
    assert proxy.check("support", first, NOW_NS) == "wrong token"
    assert proxy.check("support", second, NOW_NS) is None
    assert command.remove("support")
    assert proxy.check("support", second, NOW_NS) == "unknown agent"
    (tmp_path / "agents.json").unlink()
    assert proxy.list() == ()


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    token = agents.add("support", NOW_NS)
    with pytest.raises(AgentsError, match="--replace"):
        agents.add("support", NOW_NS)
    assert agents.check("support", token, NOW_NS) is None
    assert not agents.remove("nobody")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "-a", "a/b", "a@b", "x" * 65, "ä"])
def test_a_name_must_fit_into_a_url(name: str, tmp_path: Path) -> None:
    with pytest.raises(AgentsError, match="is no agent name"):
        Agents(tmp_path).add(name, NOW_NS)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"version": 2, "agents": []}', '{"version": 1, "agents": [{}]}', "\xff"]
)
def test_a_damaged_file_lets_nobody_in_and_is_not_overwritten(content: str, tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    token = agents.add("support", NOW_NS)
    (tmp_path / "agents.json").write_text(content, encoding="latin-1")
    assert agents.check("support", token, NOW_NS) == "agents.json unreadable"
    with pytest.raises(AgentsError, match="is damaged"):
        agents.add("other", NOW_NS)
    assert (tmp_path / "agents.json").read_text(encoding="latin-1") == content


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentsError, match="cannot write"):
        Agents(tmp_path / "file" / "confdir").add("support", NOW_NS)
