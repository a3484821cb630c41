"""The agents that have a token, as `agent list` shows them."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.agents import Agent
from proxy.report.moments import show_minute
from proxy.report.terminal import Cell, Column, table


def plain(agents: Sequence[Agent], now_ns: int) -> list[dict[str, object]]:
    """What `agent list --json` prints: no hashes."""
    return [
        {
            "name": agent.name,
            "created_ns": agent.created_ns,
            "expires_ns": agent.expires_ns or None,
            "expired": agent.expired(now_ns),
        }
        for agent in agents
    ]


def list_agents(agents: Sequence[Agent], now_ns: int, room: int, colour: bool) -> list[str]:
    """One line an agent."""
    rows = [
        [
            Cell(agent.name, "bold"),
            Cell(show_minute(agent.created_ns)),
            _end(agent, now_ns),
        ]
        for agent in agents
    ]
    return table([Column("AGENT", 12), Column("ADDED", 16), Column("TOKEN ENDS", 16)], rows, room, colour)


def _end(agent: Agent, now_ns: int) -> Cell:
    if not agent.expires_ns:
        return Cell("never", "dim")
    minute = show_minute(agent.expires_ns)
    return Cell(f"{minute} (over)", "red") if agent.expired(now_ns) else Cell(minute)
