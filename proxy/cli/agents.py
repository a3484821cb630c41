"""`agent`: who may connect from elsewhere."""

from __future__ import annotations

import time
from typing import Any

import click

from proxy.cli import completing
from proxy.cli.given import confdir_of, moment
from proxy.cli.options import as_json, shared
from proxy.cli.output import complain, print_json, print_lines, say, table_room


@click.group()
def agent() -> None:
    """Give agents tokens, and take them away.

    With its token, an agent connects to `http://NAME:TOKEN@host:port`.
    """


@agent.command("add")
@shared("confdir")
@click.option("--expires", metavar="WHEN", help="When the token ends: 8h, 30d, 2027-01-31.")
@click.option("--replace", is_flag=True, help="Give an agent that has a token a new one.")
@as_json
@click.argument("name")
@click.pass_obj
def agent_add(given: dict[str, Any], expires: str | None, replace: bool, json_wanted: bool, name: str) -> None:
    """Print a new token for agent NAME. It cannot be shown again: only its hash is kept."""
    from proxy.agents import Agents
    from proxy.confdir import Confdir

    now_ns = time.time_ns()
    expires_ns = moment(expires, "--expires", now_ns, ahead=True) or 0
    if expires is not None and expires_ns <= now_ns:
        raise click.BadParameter(f"`{expires}` is over already", param_hint="--expires")
    token = Agents(Confdir.open(confdir_of(given)).path).add(name, now_ns, expires_ns=expires_ns, replace=replace)
    if json_wanted:
        print_json({"name": name, "token": token, "expires_ns": expires_ns or None})
    else:
        click.echo(token)
    say(f"the agent uses HTTPS_PROXY=http://{name}:TOKEN@HOST:PORT; this token is not shown again")


@agent.command("list")
@shared("confdir")
@as_json
@click.pass_obj
def agent_list(given: dict[str, Any], json_wanted: bool) -> None:
    """List the agents that have a token."""
    from proxy.agents import Agents
    from proxy.report import people

    agents = Agents(confdir_of(given)).list()
    if json_wanted:
        print_json(people.plain(agents, time.time_ns()))
    elif agents:
        print_lines(people.list_agents(agents, time.time_ns(), *table_room()))
    else:
        say("no agent has a token: `borderpost agent add NAME` gives one")


@agent.command("remove")
@shared("confdir")
@as_json
@click.argument("name", shell_complete=completing.agents_with_token)
@click.pass_context
def agent_remove(ctx: click.Context, json_wanted: bool, name: str) -> None:
    """Take the token of agent NAME away.

    A running proxy refuses it from the next connection on.
    """
    from proxy.agents import Agents

    removed = Agents(confdir_of(ctx.obj)).remove(name)
    if json_wanted:
        print_json({"name": name, "removed": removed})
    if not removed:
        complain(f"there is no agent `{name}`: `borderpost agent list` shows them")
        ctx.exit(1)
    say(f"removed `{name}`")
