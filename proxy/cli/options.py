"""The options that several commands have, which mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from proxy.cli import completing

TYPED = "borderpost.typed"
"""Where a context keeps the shared options that were typed, rather than taken from the environment."""

type Command = Callable[..., Any]
type Decorator = Callable[[Command], Command]


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember a shared option. It may stand before or after the command's name; the later place wins."""
    given = ctx.ensure_object(dict)
    name = str(param.name)
    typed = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    if value not in (None, ()) and (typed or name not in given):
        given[name] = value
    if value is not None and typed:
        ctx.meta.setdefault(TYPED, {})[name] = value


def _option(*names: str, **attributes: Any) -> Decorator:
    env = f"BORDERPOST_{names[0].removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, callback=_keep, expose_value=False, envvar=env, **attributes)


SHARED: dict[str, Decorator] = {
    "rules": _option(
        "--rules",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Rule file, or directory of them; repeatable. Default: ./borderpost.yaml, else ./rules/*.yaml.",
    ),
    "ledger": _option("--ledger", metavar="FILE", help="The record of calls. Default: in your data directory."),
    "confdir": _option(
        "--confdir", type=click.Path(path_type=Path), metavar="DIR", help="CA, keys and agents, for you alone (0700)."
    ),
    "listen": _option("--listen", metavar="HOST:PORT", help="Where the proxy listens."),
    "upstream_ca": _option(
        "--upstream-ca",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Further authorities to trust upstream (PEM); repeatable.",
    ),
    "upstream_proxy": _option(
        "--upstream-proxy",
        metavar="URL",
        help="Go out through this proxy alone: http://[USER:PASSWORD@]HOST:PORT.",
    ),
    "client_certs": _option(
        "--client-certs",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Certificates for APIs that ask for one: DIR/HOST.pem, with its key.",
    ),
    "mode": _option(
        "--mode",
        type=click.Choice(["enforce", "monitor"]),
        help="monitor: record what would be refused, and refuse nothing for it.",
    ),
    "agent": _option(
        "--agent", metavar="NAME", help="The agent's name in rules and record.", shell_complete=completing.agents
    ),
    "run": _option("--run", metavar="ID", help="The run's id."),
}


def shared(*names: str) -> Decorator:
    """Give a command the shared options of these names."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = SHARED[name](command)
        return command

    return decorate


def without_preload(command: Command) -> Command:
    """Give a command `--no-preload`."""
    text = "Set variables only: run no code of ours in the agent's Python and Node.js."
    return click.option("--no-preload", is_flag=True, envvar="BORDERPOST_NO_PRELOAD", help=text)(command)


def as_json(command: Command) -> Command:
    """Give a reading command `--json`."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")(command)
