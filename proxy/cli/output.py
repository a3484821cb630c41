"""Printing: data goes to standard output, notices to standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

COULD_NOT = 3
"""The exit code when nobody can know, or nothing could be done."""


def complain(text: str) -> None:
    from proxy.report.terminal import coloured, paint

    click.echo(f"{paint('error:', 'red', coloured(sys.stderr))} {text}", err=True)


def say(text: str) -> None:
    click.echo(f"borderpost: {text}", err=True)


def print_lines(lines: str | Sequence[str]) -> None:
    text = lines if isinstance(lines, str) else "\n".join(lines)
    if text:
        click.echo(text)


def print_now(lines: str | Sequence[str]) -> None:
    print_lines(lines)
    sys.stdout.flush()


def print_json(value: object, *, line: bool = False) -> None:
    import msgspec

    encoded = msgspec.json.Encoder(decimal_format="number").encode(value)
    click.echo(encoded if line else msgspec.json.format(encoded, indent=2))


def room() -> tuple[int, bool]:
    """The width of standard output, and whether it has colour."""
    from proxy.report.terminal import coloured, width

    return width(sys.stdout), coloured(sys.stdout)


def table_room() -> tuple[int, bool]:
    """As `room`, for tables: where no terminal is, they are as wide as what is in them."""
    from proxy.report.terminal import coloured, table_width

    return table_width(sys.stdout), coloured(sys.stdout)
