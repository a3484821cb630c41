"""The command line, put together. What it says and asks stands in `proxy.cli`, by theme; what is done, elsewhere.

Data goes to standard output, notices to standard error. Exit codes: 0 yes or done, 1 the answer is no, 2 usage,
3 could not. `run` passes the code of its command on.
"""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import NoReturn

import click


def _check_house() -> None:
    """End when another package has been installed over ours: our import names are common words."""
    home = Path(__file__).parent
    for name in ("proxy", "rules"):
        module = importlib.import_module(name)
        if module.__file__ is None or Path(module.__file__).parent != home / name or not hasattr(module, "BORDERPOST"):
            click.echo(
                f"error: another package has taken the import name `{name}`: install Borderpost in an environment of "
                "its own, such as with `uv tool install borderpost`",
                err=True,
            )
            sys.exit(3)


_check_house()

from proxy.cli import agents, approvals, clients, group, log, options, rules, running, starting, state  # noqa: E402


@click.group(
    cls=group.Borderpost,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": None},
    no_args_is_help=True,
)
@options.shared(*options.SHARED)
@click.version_option(package_name="borderpost", message="%(prog)s %(version)s")
def cli() -> None:
    """Decides, de-duplicates, throttles and records what AI agents send to APIs.

    \b
      borderpost init                 write rules to begin with
      borderpost run -- COMMAND       run an agent under them
      borderpost log                  what it did, and why

    The options below may stand before or after a command's name, and each can be set in the environment:
    BORDERPOST_RULES for --rules, and so on.
    """


for command in (
    *(running.run, running.serve, starting.init, starting.demo, clients.doctor, clients.env),
    *(state.status, state.halt, state.resume, state.clock),
    *(agents.agent, rules.rules, log.log, log.resolve, approvals.approvals),
):
    cli.add_command(command)


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without `·` and `├` is no reason to fail
    cli.main(prog_name="borderpost")


if __name__ == "__main__":
    main()
