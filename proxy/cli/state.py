"""`status`, `halt`, `resume` and `clock`: what is so now, and people's orders to whatever proxy is running."""

from __future__ import annotations

import functools
import time
from typing import Any

import click

from proxy.cli import completing
from proxy.cli.given import ask_owner, facts_of, ledger_of
from proxy.cli.options import TYPED, Command, as_json, shared
from proxy.cli.output import print_json, print_lines, room, say


@click.command()
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def status(given: dict[str, Any], json_wanted: bool) -> None:
    """Tell what is running, in force and on record."""
    from proxy.report import state

    facts = facts_of(given)
    if json_wanted:
        print_json(facts)
    else:
        print_lines(state.show(facts, room()[1]))


def stopping(command: Command) -> Command:
    """Give `halt` and `resume` what they choose calls by, as one argument `chosen`. The environment chooses nothing."""
    options = [
        click.option(
            "--agent",
            metavar="NAME",
            help="Of this agent; * stands for any text. Default: of all.",
            shell_complete=completing.agents,
        ),
        click.option(
            "--tool",
            metavar="NAME",
            help="To this tool; * stands for any text. Default: to all.",
            shell_complete=completing.tools,
        ),
    ]

    def gather(ctx: click.Context, /, agent: str | None, tool: str | None, **arguments: Any) -> Any:
        agent = ctx.meta.get(TYPED, {}).get("agent") if agent is None else agent
        for name, value in (("--agent", agent), ("--tool", tool)):
            if value == "":
                raise click.UsageError(f"`{name}` is empty: leave it out if you mean all")
        return ctx.invoke(command, chosen={"agent": agent or "", "tool": tool or ""}, **arguments)

    decorated: Command = functools.update_wrapper(click.pass_context(gather), command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@click.command()
@stopping
@click.option("--reason", metavar="TEXT", required=True, help="Why: the agent reads it, and it is recorded.")
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def halt(given: dict[str, Any], chosen: dict[str, str], reason: str, json_wanted: bool) -> None:
    """Stop all calls at once, until `resume`.

    Or only those of an agent, or to a tool.

    A running proxy refuses the very next one; calls that are out come to their end. It also holds over restarts, and
    in monitor mode.

    \b
    Examples:
      borderpost halt --reason "Refunds went wrong this morning."
      borderpost halt --agent "support-*" --tool "stripe.*" --reason "No payments today."
    """
    result = ask_owner(given, "halt", {**chosen, "reason": reason})
    if json_wanted:
        print_json({"calls": result["calls"], **chosen, "tools": result["tools"]})
    say(f"stopped {result['calls']}")
    if chosen["tool"] and result["rules"]:
        if result["tools"]:
            say(f"tools so called: {', '.join(result['tools'])}")
        else:
            say("but no tool of the rules in force is called so: `borderpost rules list --tools` shows their names")


@click.command()
@stopping
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def resume(given: dict[str, Any], chosen: dict[str, str], json_wanted: bool) -> None:
    """Let calls go on that `halt` has stopped.

    Say the same --agent and --tool as there.

    \b
    Examples:
      borderpost resume
      borderpost resume --agent "support-*" --tool "stripe.*"
    """
    result = ask_owner(given, "resume", dict(chosen))
    if json_wanted:
        print_json({"calls": result["calls"], **chosen, "reason": result["reason"]})
    say(f"{result['calls']} may go on")


@click.command()
@shared("ledger", "confdir")
@click.option("--accept", is_flag=True, help="This computer's clock is right: go on from it.")
@click.option("--note", metavar="TEXT", help="With --accept: what happened; it is recorded with your name.")
@as_json
@click.pass_context
def clock(ctx: click.Context, accept: bool, note: str | None, json_wanted: bool) -> None:
    """Compare this computer's clock with the record.

    Or, with --accept, mend what a jump into the future has done.

    Time never goes back by itself: a clock that is set back frees no quota. So when the clock had run ahead, no window
    passes until it is as far again, unless somebody accepts that it was wrong. Nothing becomes free by accepting.
    Without --accept, ends with 1 when the clock is more than a minute behind the record.

    \b
    Examples:
      borderpost clock
      borderpost clock --accept --note "the year was set wrongly on Monday"
    """
    from proxy.report import moments, times

    if accept != (note is not None):
        raise click.UsageError("`--accept` and `--note TEXT` belong together")
    if accept:
        result = ask_owner(ctx.obj, "clock", {"note": note})
        if json_wanted:
            print_json(result)
        say(f"recorded: time went on from {moments.show_second(result['to_ns'])}")
        return
    found = times.gather(ledger_of(ctx.obj), time.time_ns())
    if json_wanted:
        print_json(found)
    else:
        print_lines(times.show(found, room()[1]))
    ctx.exit(0 if found.good else 1)
