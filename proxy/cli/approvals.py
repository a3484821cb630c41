"""`approvals`: decide calls that wait for a person."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from proxy.cli import completing
from proxy.cli.given import ask_owner, open_reader
from proxy.cli.group import DefaultGroup
from proxy.cli.options import as_json, shared
from proxy.cli.output import print_json, print_lines, print_now, room, say, table_room


@click.group(cls=DefaultGroup)
def approvals() -> None:
    """Decide calls that wait for a person.

    `borderpost approvals` alone lists them.
    """


@approvals.command("list")
@shared("ledger")
@as_json
@click.pass_obj
def approvals_list(given: dict[str, Any], json_wanted: bool) -> None:
    """List what waits for an answer, the oldest first."""
    from proxy.report import approvals as shown

    with open_reader(given) as reader:
        cards = shown.waiting(reader, time.time_ns())
    if json_wanted:
        print_json([shown.plain(card) for card in cards])
    elif cards:
        print_lines(shown.list_cards(cards, time.time_ns(), *table_room()))
        say("next: `borderpost approvals show ID`, then `allow ID` or `refuse ID --reason TEXT`")
    else:
        say("no call waits for you")


@approvals.command("show")
@shared("ledger")
@as_json
@click.argument("id", shell_complete=completing.tickets)
@click.pass_obj
def approvals_show(given: dict[str, Any], id: str, json_wanted: bool) -> None:
    """Show what would be sent. ID is the ticket, or its beginning."""
    from proxy.report import approvals as shown

    with open_reader(given) as reader:
        card = shown.find(reader, id, time.time_ns())
    if json_wanted:
        print_json(shown.plain(card))
    else:
        print_lines(shown.show_card(card, time.time_ns(), *room()))


@approvals.command("allow")
@click.option("--note", default="", metavar="TEXT", help="Why; it is recorded with your name.")
@shared("ledger", "confdir")
@as_json
@click.argument("id", shell_complete=completing.tickets)
@click.pass_obj
def approvals_allow(given: dict[str, Any], note: str, json_wanted: bool, id: str) -> None:
    """Let this call pass, once. ID is the ticket, or its beginning.

    \b
    Example:
      borderpost approvals allow a_3f
    """
    card = _answer(given, id, True, note)
    if json_wanted:
        print_json({"card": card, "allowed": True})
    say(f"allowed {card}: the identical call passes, once")


@approvals.command("refuse")
@click.option("--reason", required=True, metavar="TEXT", help="What the agent is told.")
@shared("ledger", "confdir")
@as_json
@click.argument("id", shell_complete=completing.tickets)
@click.pass_obj
def approvals_refuse(given: dict[str, Any], reason: str, json_wanted: bool, id: str) -> None:
    """Refuse this call, and tell the agent why. ID is the ticket, or its beginning.

    \b
    Example:
      borderpost approvals refuse a_3f --reason "this customer was refunded by hand"
    """
    card = _answer(given, id, False, reason)
    if json_wanted:
        print_json({"card": card, "allowed": False})
    say(f"refused {card}: the agent is told why")


@approvals.command("watch")
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def approvals_watch(given: dict[str, Any], json_wanted: bool) -> None:
    """Show each call as it begins to wait, and answer with one key. With --json: only print them, one a line."""
    from proxy.report import approvals as shown
    from proxy.report import watch

    with open_reader(given) as reader, watch.Keys(sys.stdin) as keys:
        watch.watch(
            cards=lambda: shown.waiting(reader, time.time_ns()),
            answer=lambda card, allowed, note: _answer(given, card, allowed, note),
            keys=keys,
            say=print_now,
            show=lambda card: shown.show_card(card, time.time_ns(), *room()),
            print_json=(lambda card: print_json(shown.plain(card), line=True)) if json_wanted else None,
        )


def _answer(given: dict[str, Any], id: str, allowed: bool, note: str) -> str:
    """Give an answer; the whole id of the card that it was given to."""
    from proxy.report import approvals as shown

    with open_reader(given) as reader:
        card = shown.find(reader, id, time.time_ns()).question.id
    ask_owner(given, "answer", {"card": card, "allowed": allowed, "note": note})
    return card
