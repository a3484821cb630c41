"""What the shell offers when somebody presses Tab: names that are known here. If anything goes wrong, nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.given import confdir_of, ledger_of, open_reader

if TYPE_CHECKING:
    from rules.ruleset import RuleSet

type Complete = Callable[[click.Context, click.Parameter, str], list[str]]

RECENT = 50
"""So many calls and runs are offered."""


def complete(names: Callable[[dict[str, Any]], Iterable[str]]) -> Complete:
    """Offers those of `names` that begin so. They get the shared options that were typed."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            return [name for name in names(ctx.find_object(dict) or {}) if name and name.startswith(incomplete)]
        except Exception:  # noqa: BLE001  the shell would print it in the middle of the line that is being typed
            return []

    return offer


@complete
def packs(given: dict[str, Any]) -> Iterable[str]:
    from proxy import rulefiles

    return rulefiles.packs()


@complete
def models(given: dict[str, Any]) -> Iterable[str]:
    from proxy import starter

    return starter.MODELS


@complete
def codes(given: dict[str, Any]) -> Iterable[str]:
    from proxy.report import explained

    return explained.codes()


@complete
def rules(given: dict[str, Any]) -> Iterable[str]:
    return sorted(_ruleset(given).by_id)


@complete
def tools(given: dict[str, Any]) -> Iterable[str]:
    return sorted(_ruleset(given).tools)


@complete
def agents(given: dict[str, Any]) -> Iterable[str]:
    """Those that have a token, and those that were heard of."""
    return sorted({*_with_token(given), *_heard_of(given)})


@complete
def agents_with_token(given: dict[str, Any]) -> Iterable[str]:
    return _with_token(given)


@complete
def runs(given: dict[str, Any]) -> Iterable[str]:
    with open_reader(given) as reader:
        return [row.run for row in reader.runs(limit=RECENT)]


@complete
def calls(given: dict[str, Any]) -> Iterable[str]:
    with open_reader(given) as reader:
        return [row.id for row in reader.list(limit=RECENT)]


@complete
def hosts(given: dict[str, Any]) -> Iterable[str]:
    with open_reader(given) as reader:
        return sorted({row.host for row in reader.list(limit=RECENT)})


@complete
def tickets(given: dict[str, Any]) -> Iterable[str]:
    import time

    with open_reader(given) as reader:
        return [question.id for question in reader.questions(time.time_ns()) if question.state == "asked"]


def _ruleset(given: dict[str, Any]) -> RuleSet:
    from proxy import rulefiles

    return rulefiles.read(given.get("rules", ()), Path.cwd()).loaded.ruleset


def _with_token(given: dict[str, Any]) -> Iterator[str]:
    from proxy.agents import Agents

    yield from (agent.name for agent in Agents(confdir_of(given)).list())


def _heard_of(given: dict[str, Any]) -> Iterator[str]:
    if ledger_of(given).exists():
        with open_reader(given) as reader:
            yield from (row.agent for row in reader.runs(limit=RECENT))
