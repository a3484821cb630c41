"""`run` beside a running `serve`: it joins, and its command goes through that proxy until it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from proxy import desk, presence
from proxy.confdir import Confdir, ConfdirError
from proxy.joining import wish_of
from proxy.ledger.commands import CommandError, submit
from proxy.ledger.entries import LedgerError
from proxy.ledger.query import LedgerReader
from proxy.ledger.selecting import Filters
from proxy.osuser import os_user
from proxy.owner import Owner, apart, owner_of, serving
from proxy.report.checked import told
from proxy.rulefiles import RuleFiles
from proxy.runs import JOIN, LEAVE
from proxy.settings import Settings, SettingsError, token_sha256


class Joined(msgspec.Struct, frozen=True):
    """The proxy that a run has joined, where it is, and since when. `rules` describes those in force."""

    owner: Owner
    host: str
    port: int
    ca: str
    rules: str
    at_ns: int


@contextlib.contextmanager
def joined(settings: Settings, rules: RuleFiles | None, say: Callable[[str], None]) -> Iterator[Joined | None]:
    """Within the block, a client with the agent and token of `settings` belongs to its run; None: there is no `serve`.

    `rules`: those here, if there are any. Raises `CommandError`, `SettingsError`, `ConfdirError` or `OSError`.
    """
    owner = serving(settings.ledger)
    if owner is None:
        yield None
        return
    confdir = Confdir.open(settings.confdir)
    token_hash = token_sha256(settings.token)
    wish = wish_of(settings, confdir.path, token_hash, os.getpid(), confdir.hash_secret)
    if rules is not None and rules.files:
        wish = msgspec.structs.replace(
            wish,
            digest=rules.loaded.ruleset.digest,
            rules=told(rules, whole_paths=True),
            mode=rules.loaded.ruleset.mode,
        )
    wish.check()
    with presence.shown(confdir.path, token_hash):
        answer = None
        while answer is None:
            _check(settings, owner)
            answer = _ask(settings.ledger, owner, msgspec.to_builtins(wish))
            if answer is None:  # that one has ended in this moment; another may have begun
                owner = serving(settings.ledger)
                if owner is None:
                    yield None
                    return
        try:
            yield msgspec.convert(answer | {"owner": owner}, Joined)
        finally:
            _leave(settings, owner, token_hash, say)


def _ask(ledger: Path, owner: Owner, wish: dict[str, Any]) -> dict[str, Any] | None:
    """What `owner` answers to a run that wishes to join; None when it ended before. Raises `CommandError`."""
    return submit(ledger, JOIN, wish, os_user(), lambda: owner_of(ledger) == owner)


def _check(settings: Settings, owner: Owner) -> None:
    """Raise `SettingsError` for what a `serve` can do for nobody who joins it, and `CommandError` for an agent."""
    for wanted, option in ((settings.isolated, "--isolated"), (settings.reload, "--reload")):
        if wanted:
            raise SettingsError(
                f"`{option}` needs a proxy of its own, and `{owner.command}` (process {owner.pid}) owns the ledger: "
                "leave it out to join that one, or give this run another ledger with `--ledger FILE`"
            )
    if apart(owner):
        raise CommandError("this is for people; it runs within `borderpost run --isolated`, where the agent is")


def _leave(settings: Settings, owner: Owner, token_hash: str, say: Callable[[str], None]) -> None:
    """The command has ended. Its token is worth nothing any more, whether or not that can be recorded."""
    now = owner_of(settings.ledger)
    if now is None:
        say(f"`{owner.command}` (process {owner.pid}), which this run had joined, has ended: calls failed since")
    try:
        desk.command(settings.ledger, settings.confdir, LEAVE, {"hash": token_hash}, os_user())
    except (CommandError, LedgerError, ConfdirError) as error:
        say(f"the end of this run could not be recorded: {error}")


def counts(ledger: Path, run: str, since_ns: int) -> tuple[dict[str, int], int, int]:
    """How the calls of `run` were decided since then, how many that were let out got no answer, and how many went out
    without a record that is there by now."""
    filters = Filters(run=run, since_ns=since_ns)
    with LedgerReader.open(ledger) as reader:
        by_decision = {row.key: row.calls for row in reader.stats("decision", filters)}
        return by_decision, reader.unanswered(filters), reader.unrecorded(filters)
