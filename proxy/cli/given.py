"""What the options that were given lead to: the ledger and its owner, the confdir, the rules, a moment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.output import COULD_NOT, complain

if TYPE_CHECKING:
    from proxy.ledger.query import LedgerReader
    from proxy.report.state import Facts
    from proxy.rulefiles import RuleFiles
    from proxy.settings import Settings
    from rules.halts import Halt


def ledger_of(given: dict[str, Any]) -> Path:
    from proxy.confdir import default_ledger_path
    from proxy.settings import ledger_path

    return ledger_path(given["ledger"]) if "ledger" in given else default_ledger_path()


def confdir_of(given: dict[str, Any]) -> Path:
    from proxy.confdir import default_confdir

    return Path(given["confdir"]) if "confdir" in given else default_confdir()


def settings_of(
    given: dict[str, Any], command: Any, default_listen: str, *, reload: bool, isolated: bool = False
) -> Settings:
    from proxy.settings import DEFAULT_AGENT, Settings, parse_address, parse_upstream_proxy

    host, port = parse_address(given.get("listen", default_listen))
    return Settings(
        command=command,
        ledger=ledger_of(given),
        confdir=confdir_of(given),
        listen_host=host,
        listen_port=port,
        rules=given.get("rules", ()),
        upstream_ca=given.get("upstream_ca", ()),
        upstream_proxy=parse_upstream_proxy(given["upstream_proxy"]) if "upstream_proxy" in given else None,
        client_certs=given.get("client_certs"),
        mode=given.get("mode"),
        agent=given.get("agent", DEFAULT_AGENT),
        run=given.get("run", ""),
        reload=reload,
        isolated=isolated,
    )


def read_rules(given: dict[str, Any]) -> RuleFiles:
    """The rules; when they are broken, says all that is wrong with them and ends with `could not`."""
    from proxy import rulefiles

    try:
        return rulefiles.read(given.get("rules", ()), Path.cwd(), given.get("mode"))
    except rulefiles.RulesBroken as error:
        click.echo(error.rendered() + "\n", err=True)
        count = len(error.problems)
        complain(f"the rules cannot be used: {count} problem{'' if count == 1 else 's'}")
        raise click.exceptions.Exit(COULD_NOT) from None


def rules_if_any(given: dict[str, Any]) -> RuleFiles | None:
    """As `read_rules`; None where no rules are, unless some were named."""
    from proxy.rulefiles import RulesMissing

    try:
        return read_rules(given)
    except RulesMissing:
        if given.get("rules"):
            raise
        return None


def ask_owner(given: dict[str, Any], name: str, data: dict[str, Any]) -> Any:
    """The result of a command to whoever owns the ledger."""
    from proxy import desk
    from proxy.osuser import os_user

    return desk.command(ledger_of(given), confdir_of(given), name, data, os_user())


def halts_in_force(given: dict[str, Any]) -> tuple[Halt, ...]:
    """What people have stopped, if there is a record at all."""
    if not ledger_of(given).exists():
        return ()
    with open_reader(given) as reader:
        return reader.halts()


def open_reader(given: dict[str, Any]) -> LedgerReader:
    from proxy.ledger.query import LedgerReader

    return LedgerReader.open(ledger_of(given))


def facts_of(given: dict[str, Any]) -> Facts:
    """What is running, in force and on record."""
    from proxy.report import state

    return state.gather(ledger_of(given), confdir_of(given), time.time_ns())


def moment(text: str | None, option: str, now_ns: int, *, ahead: bool = False) -> int | None:
    """The moment that `text`, given with `option`, names; None where nothing was given."""
    from proxy.report.moments import MomentError, read_moment

    if text is None:
        return None
    try:
        return read_moment(text, now_ns, ahead=ahead)
    except MomentError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
