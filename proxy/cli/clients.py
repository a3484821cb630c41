"""`doctor` and `env`: do clients come through the proxy, and how are they pointed at it?"""

from __future__ import annotations

import datetime
import os
from typing import Any

import click

from proxy.cli.given import confdir_of, facts_of
from proxy.cli.options import as_json, shared, without_preload
from proxy.cli.output import print_json, print_lines, say, table_room


@click.command(context_settings={"allow_interspersed_args": False})
@shared("confdir")
@without_preload
@as_json
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def doctor(ctx: click.Context, no_preload: bool, json_wanted: bool, command: tuple[str, ...]) -> None:
    """Try which clients come through the proxy.

    They are curl and the like, and those of the Python and Node.js that COMMAND would run with.

    Each makes one request as under `run`, to a host that the proxy answers itself; nothing leaves this machine. Ends
    with 1 when one goes round the proxy, or does not trust it.

    \b
    Examples:
      borderpost doctor
      borderpost doctor -- .venv/bin/python agent.py
    """
    import asyncio

    from proxy.doctor.examine import examine
    from proxy.report import diagnosed
    from proxy.report.progress import Progress

    with Progress("probing") as progress:
        found = asyncio.run(examine(confdir_of(ctx.obj), command, preload=not no_preload, tell=progress.tell))
    if json_wanted:
        print_json(found)
    else:
        print_lines(diagnosed.show(found, *table_room()))
    ctx.exit(0 if found.well else 1)


@click.command()
@shared("confdir", "listen", "agent", "ledger")
@click.option(
    "--shell",
    "language",
    type=click.Choice(["sh", "bash", "fish", "powershell"]),
    default="sh",
    show_default=True,
    help="Whose words to print.",
)
@without_preload
@as_json
@click.pass_obj
def env(given: dict[str, Any], language: str, no_preload: bool, json_wanted: bool) -> None:
    """Print the variables that point an agent at a running `serve`.

    The token of an agent elsewhere is read from BORDERPOST_TOKEN.

    \b
    Examples:
      eval "$(borderpost env)"
      borderpost env --shell fish | source
      borderpost env --shell powershell | Out-String | Invoke-Expression
    """
    from proxy import child
    from proxy.ca import ensure_ca
    from proxy.confdir import Confdir
    from proxy.report import shell
    from proxy.settings import DEFAULT_LISTEN, is_loopback, parse_address, reached_at

    facts = facts_of(given)
    serving = facts.running and facts.command == "borderpost serve"  # that of `run` is for its command alone
    if not serving:
        say("no proxy is running: `borderpost serve` starts one")
    confdir = Confdir.open(confdir_of(given)).path
    listening, port = parse_address(given.get("listen") or (facts.listen if serving else "") or DEFAULT_LISTEN)
    name, token = given.get("agent", ""), os.environ.get("BORDERPOST_TOKEN", "")
    if token and not name:
        raise click.UsageError("BORDERPOST_TOKEN is set: say with `--agent NAME` whose token it is")
    if not token and not is_loopback(listening):
        say("this proxy wants a token: set BORDERPOST_TOKEN, and say with `--agent NAME` whose it is")
    url = child.proxy_url(reached_at(listening), port, name, token)
    ca = ensure_ca(confdir, datetime.datetime.now(datetime.UTC))
    changes = child.prepare(confdir, os.environ, url, ca.read_bytes(), preload=not no_preload)
    if json_wanted:
        print_json({"set": changes.set, "unset": changes.unset})
    else:
        print_lines(shell.statements(changes, language))
