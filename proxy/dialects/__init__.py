"""Dialects: how a refusal is told so that the clients of one API understand it. One file each.

A tool names its dialect (`refusal: slack`); where it does not, the call itself tells. A new one is a file here, a line
in each of the tables below, and its word in `rules.vocabulary`.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.dialects import aws_json, aws_query, github, graphql, grpc, mcp, notion, plain, s3, slack
from proxy.reply import Reply, Told
from rules.call import Call

WRITERS: dict[str, Callable[[Told], Reply]] = {
    "json": plain.write,
    "s3": s3.write,
    "aws-query": aws_query.write,
    "aws-json": aws_json.write,
    "slack": slack.write,
    "grpc": grpc.write,
    "mcp": mcp.write,
    "graphql": graphql.write,
    "github": github.write,
    "notion": notion.write,
}
"""Dialect -> how it is written."""

SIGNS: dict[str, Callable[[Call], bool]] = {
    "grpc": grpc.spoken_in,
    "mcp": mcp.spoken_in,
    "s3": s3.spoken_in,
    "aws-query": aws_query.spoken_in,
    "aws-json": aws_json.spoken_in,
    "slack": slack.spoken_in,
    "graphql": graphql.spoken_in,
    "github": github.spoken_in,
    "notion": notion.spoken_in,
}
"""Dialect -> whether a call shows that its client speaks it; the first that does counts."""


def write(told: Told, declared: str = "") -> Reply:
    """The refusal in the dialect that its tool declared, else in the one that the call shows, else in plain JSON."""
    dialect = declared
    if not dialect and told.call is not None:
        dialect = next((name for name, shows in SIGNS.items() if shows(told.call)), "")
    return WRITERS[dialect or "json"](told)
