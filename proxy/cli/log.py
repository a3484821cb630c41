"""`log` and `resolve`: look at the record of calls, keep it, and say what became of one."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import completing
from proxy.cli.given import ask_owner, confdir_of, ledger_of, moment, open_reader
from proxy.cli.group import DefaultGroup
from proxy.cli.options import TYPED, Command, as_json, shared
from proxy.cli.output import print_json, print_lines, room, say, table_room

if TYPE_CHECKING:
    from proxy.ledger.selecting import Filters

DECISIONS = ("allow", "deny", "throttle", "replay", "hold")
GROUPINGS = ("decision", "tool", "agent", "code", "rule")


def filtered(command: Command) -> Command:
    """Give a command of `log` the filters, as one argument `filters`."""
    options = [
        click.option("--since", metavar="WHEN", help="From then on: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00."),
        click.option("--until", metavar="WHEN", help="Before then."),
        click.option("--agent", metavar="NAME", help="Of this agent.", shell_complete=completing.agents),
        click.option(
            "--run", metavar="ID", help="Of this run; the beginning of its id will do.", shell_complete=completing.runs
        ),
        click.option("--tool", metavar="NAME", help="To this tool.", shell_complete=completing.tools),
        click.option("--decision", type=click.Choice(DECISIONS), help="Decided so."),
        click.option(
            "--rule",
            metavar="ID",
            help="Determined by this rule, or would be in monitor mode.",
            shell_complete=completing.rules,
        ),
        click.option("--host", metavar="HOST", help="To this host.", shell_complete=completing.hosts),
        click.option("--status", type=click.IntRange(100, 599), metavar="CODE", help="Answered with this status."),
    ]

    def gather(ctx: click.Context, /, **arguments: Any) -> Any:
        from proxy.ledger.selecting import Filters

        now_ns = time.time_ns()
        since, until = (moment(arguments.pop(name), f"--{name}", now_ns) for name in ("since", "until"))
        names = ("agent", "run", "tool", "decision", "rule", "host", "status")
        wanted = {name: arguments.pop(name) for name in names}
        for name in ("agent", "run"):  # `borderpost --run ID log` too; but what the environment says filters nothing
            wanted[name] = wanted[name] or ctx.meta.get(TYPED, {}).get(name)
        return ctx.invoke(command, filters=Filters(since_ns=since, until_ns=until, **wanted), **arguments)

    decorated: Command = functools.update_wrapper(click.pass_context(gather), command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@click.group(cls=DefaultGroup)
def log() -> None:
    """Look at the record of calls.

    `borderpost log` alone is `borderpost log list`, whose -h shows how to filter.
    """


@log.command("list")
@filtered
@shared("ledger")
@click.option(
    "-n", "limit", metavar="COUNT", type=click.IntRange(1), default=50, show_default=True, help="At most so many."
)
@as_json
@click.pass_obj
def log_list(given: dict[str, Any], filters: Filters, limit: int, json_wanted: bool) -> None:
    """List calls, newest first.

    \b
    Examples:
      borderpost log --since 1h --decision deny
      borderpost log list --tool stripe.refund.create -n 5 --json
    """
    from proxy.report import calls

    with open_reader(given) as reader:
        whole = calls.with_whole_run(reader, filters)
        rows = reader.list(whole, limit=limit)
        unrecorded = calls.unrecorded_beside(reader, whole, rows if len(rows) == limit else ())
    if json_wanted:
        print_json(rows)
    elif rows:
        print_lines(calls.list_calls(rows, *table_room()))
    elif not unrecorded:
        say(_nothing(filters))
    _tell_unrecorded(unrecorded)


def _tell_unrecorded(count: int) -> None:
    """Say that calls are missing which went out without a record."""
    if count:
        say(f"{count} call{'' if count == 1 else 's'} went out without a record: `borderpost log events` tells of them")


def _nothing(filters: Filters) -> str:
    return "no calls on record" if filters == type(filters)() else "no calls fit"


@log.command("tail")
@filtered
@shared("ledger")
@click.option(
    "-n", "limit", metavar="COUNT", type=click.IntRange(0), default=10, show_default=True, help="Begin with so many."
)
@as_json
@click.pass_obj
def log_tail(given: dict[str, Any], filters: Filters, limit: int, json_wanted: bool) -> None:
    """Follow calls as they come to their end."""
    from proxy.report import calls

    with open_reader(given) as reader:
        for rows in calls.follow(reader, filters, limit):
            if json_wanted:
                for row in rows:
                    print_json(row, line=True)
            else:
                print_lines(calls.tail_calls(rows, *table_room()))
            sys.stdout.flush()


@log.command("show")
@shared("ledger")
@as_json
@click.argument("id", shell_complete=completing.calls)
@click.pass_obj
def log_show(given: dict[str, Any], id: str, json_wanted: bool) -> None:
    """Show everything about one call. ID may be its beginning, or the call's number in the list."""
    from proxy.report import calls

    with open_reader(given) as reader:
        detail = calls.find(reader, id)
    if json_wanted:
        print_json(detail)
    else:
        print_lines(calls.show_call(detail, *room()))


@log.command("stats")
@filtered
@shared("ledger")
@click.option("--by", "groupings", type=click.Choice(GROUPINGS), multiple=True, help="Group by this; repeatable.")
@as_json
@click.pass_obj
def log_stats(given: dict[str, Any], filters: Filters, groupings: tuple[Any, ...], json_wanted: bool) -> None:
    """Count calls by decision, tool and rule."""
    from proxy.report import calls

    with open_reader(given) as reader:
        whole = calls.with_whole_run(reader, filters)
        stats = {by: reader.stats(by, whole) for by in groupings or ("decision", "tool", "rule")}
        unrecorded = reader.unrecorded(whole)
    if json_wanted:
        print_json(stats)
    elif any(stats.values()):
        tables = (calls.list_stats(by, rows, *table_room()) for by, rows in stats.items() if rows)
        print_lines("\n\n".join("\n".join(table) for table in tables))
    elif not unrecorded:
        say(_nothing(filters))
    _tell_unrecorded(unrecorded)


@log.command("events")
@click.option("--since", metavar="WHEN", help="From then on: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00.")
@click.option("--until", metavar="WHEN", help="Before then.")
@shared("ledger")
@click.option(
    "-n", "limit", metavar="COUNT", type=click.IntRange(1), default=50, show_default=True, help="At most so many."
)
@as_json
@click.pass_obj
def log_events(given: dict[str, Any], since: str | None, until: str | None, limit: int, json_wanted: bool) -> None:
    """List what is on record besides calls, newest first.

    Proxies began and stopped, rules came into force, people stopped or allowed something, runs joined, calls went out
    without a record.
    """
    from proxy.ledger.selecting import Filters
    from proxy.report import events

    now_ns = time.time_ns()
    filters = Filters(since_ns=moment(since, "--since", now_ns), until_ns=moment(until, "--until", now_ns))
    with open_reader(given) as reader:
        found = reader.events(filters, limit=limit)
    if json_wanted:
        print_json(events.plain(found))
    elif found:
        print_lines(events.show(found, *table_room()))
    else:
        say("nothing is on record" if filters == Filters() else "nothing fits")


@log.command("verify")
@click.option(
    "--anchor",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A checkpoint that was exported and kept elsewhere.",
)
@click.option("--key", metavar="KEY", help="The ledger's public key. Default: that of the confdir.")
@shared("ledger", "confdir")
@as_json
@click.pass_context
def log_verify(ctx: click.Context, anchor: Path | None, key: str | None, json_wanted: bool) -> None:
    """Check that the record is as it was written.

    Ends with 0 when it is, 1 when it is not, and 3 when nobody can know: without an anchor, nothing shows that no entry
    was cut off the end.

    \b
    Examples:
      borderpost log checkpoint --export monday.note     (keep it elsewhere)
      borderpost log verify --anchor monday.note
    """
    from proxy import anchors
    from proxy.ledger import snapshot
    from proxy.ledger.verify import verify
    from proxy.report import verified
    from proxy.report.progress import Progress

    note = anchors.read(anchor) if anchor else None
    public = anchors.public_key(key, confdir_of(ctx.obj))
    with Progress("verifying") as progress:
        verdict = verify(ledger_of(ctx.obj), note, public, progress.tell)
    with Progress("checking the snapshot") as progress:
        verdict = snapshot.check(verdict, anchors.vault(confdir_of(ctx.obj)), progress.tell)
    if json_wanted:
        print_json(verdict)
    else:
        print_lines(verified.show(verdict, *room()))
    ctx.exit(verified.EXIT_CODES[verdict.result])


@log.command("checkpoint")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write the signed checkpoint here.")
@click.option("--public-key", is_flag=True, help="Print the key that checks it, instead of the checkpoint.")
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def log_checkpoint(given: dict[str, Any], export: Path | None, public_key: bool, json_wanted: bool) -> None:
    """Sign what is on record, and print or export the signature.

    \b
    Examples:
      borderpost log checkpoint
      borderpost log checkpoint --export monday.note
      borderpost log checkpoint --public-key
    """
    from proxy import anchors

    result = ask_owner(given, "checkpoint", {})
    with open_reader(given) as reader:
        made = reader.checkpoint(result["seq"])
    if export is not None:
        anchors.write(export, made.note)
        say(f"wrote {export}: keep it where whoever can change the ledger cannot change it")
    if json_wanted:
        print_json({"seq": result["seq"], "note": made.note, "key": made.key})
    elif public_key:
        click.echo(made.key)
    elif export is None:
        click.echo(made.note, nl=False)


@log.command("prune")
@click.option("--older-than", metavar="SPAN", required=True, help="Such as 90d, 12w.")
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def log_prune(given: dict[str, Any], older_than: str, json_wanted: bool) -> None:
    """Give up what was read of old calls, and what was said of it. The decisions themselves stay.

    \b
    Example:
      borderpost log prune --older-than 90d
    """
    from proxy.report.moments import MomentError, read_span
    from proxy.report.progress import Progress

    try:
        before_ns = time.time_ns() - read_span(older_than)
    except MomentError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    result = ask_owner(given, "prune", {"before_ns": before_ns})
    through, entries = result["through"], result["entries"]
    with open_reader(given) as reader, Progress("pruning") as progress:
        # A proxy goes on deciding meanwhile, so it gives them up bit by bit.
        while (first := reader.first_payload()) is not None and first <= through:
            progress.tell(first, through)
            time.sleep(0.05)
    if json_wanted:
        print_json({"through": through, "entries": entries})
    none = "nothing is that old, or no checkpoint has signed it yet"
    say(f"pruned entries up to {through}: {entries} of them now" if entries else none)


@click.command()
@click.option("--executed/--not-executed", default=None, help="Whether it took effect.")
@click.option("--note", required=True, metavar="TEXT", help="How you know; it is recorded with your name.")
@shared("ledger", "confdir")
@as_json
@click.argument("id", shell_complete=completing.calls)
@click.pass_obj
def resolve(given: dict[str, Any], executed: bool | None, note: str, json_wanted: bool, id: str) -> None:
    """Say what became of a call whose outcome is unknown.

    Then its repetitions are no longer held up: executed, they are refused as duplicates; not executed, the next one is
    sent. ID may be its beginning, or the call's number in the list.

    \b
    Example:
      borderpost resolve c_01k --not-executed --note "no such refund at Stripe"
    """
    from proxy.report import calls

    if executed is None:
        raise click.UsageError("say whether it took effect: `--executed` or `--not-executed`")
    with open_reader(given) as reader:
        call_id = calls.find(reader, id).call.id
    result = ask_owner(given, "resolve", {"call": call_id, "executed": executed, "note": note})
    if json_wanted:
        print_json(result)
    say(f"recorded: {call_id} was {'executed' if executed else 'not executed'}")
