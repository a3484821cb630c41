"""Questions to people, as the ledger tells of them: which calls wait for a word, and what has been said.

Read from the file alone, so that anybody who may read it can look: a proxy need not run, and is not disturbed. What a
call that was let out did with its grant is not looked up: that would take every call since.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, text

from rules.decide import apply
from rules.decision import Change
from rules.guards.approve import LONGEST_EXPIRES_NS
from rules.guards.cards import Cards
from rules.state import CLOCK, State

LOOK_BACK_NS = 2 * LONGEST_EXPIRES_NS
"""Nothing that was asked before then counts any more, whatever has been said of it since."""

FIRST = "SELECT coalesce(min(seq), 0) FROM entries WHERE at_ns >= :since"
STEPS = """
    SELECT seq, at_ns, kind, rest FROM entries
    WHERE decision = 'hold' AND seq >= :first AND rest ->> '$.changes' IS NOT NULL
    UNION ALL
    SELECT seq, at_ns, kind, rest FROM entries WHERE kind = 'command' AND call_seq IS NULL AND seq >= :first
    ORDER BY seq
"""

type Standing = Literal["asked", "granted", "refused", "closed"]


class Question(msgspec.Struct, frozen=True):
    """One question. `seq` is the entry in which the call was held first, `key` what the call asks for.

    `state`: `asked` waits for an answer; `granted` and `refused` have one that is good until `until_ns`; all others are
    `closed`. `by` and `note`: who answered last, and what was said. `own_user`: that was the proxy's own user.
    """

    id: str
    state: Standing
    seq: int
    key: str
    rule: str
    title: str
    until_ns: int
    by: str = ""
    note: str = ""
    own_user: bool = False


def questions(connection: Connection, now_ns: int) -> tuple[Question, ...]:
    """Every question that can still count, and some that no longer do; the newest last."""
    first = connection.execute(text(FIRST), {"since": now_ns - LOOK_BACK_NS}).scalar()
    state = State()
    found: dict[str, Question] = {}
    for row in connection.execute(text(STEPS), {"first": first}):
        rest = msgspec.json.decode(row.rest)
        for told in rest.get("changes", ()):
            change = Change(**told)
            if change.guard not in (Cards.verb, CLOCK):
                continue
            apply(state, (change,))
            _take_note(found, change, row.seq, rest)
    cards = state.of(Cards)
    return tuple(_as_it_stands(question, cards, now_ns) for question in found.values())


def _take_note(found: dict[str, Question], change: Change, seq: int, rest: dict[str, Any]) -> None:
    data: dict[str, Any] = change.data
    if change.op == "ask":
        card = data["card"]
        found[card] = Question(card, "asked", seq, change.key, change.rule, data["title"], data["until_ns"])
    elif change.op in ("grant", "refuse") and data["card"] in found:
        said = rest["data"]
        found[data["card"]] = msgspec.structs.replace(
            found[data["card"]], by=rest["by"], note=said["note"], own_user=said["own_user"]
        )


def _as_it_stands(question: Question, cards: Cards, now_ns: int) -> Question:
    card = cards.live(question.key, now_ns)
    if card is None or card.id != question.id:
        return msgspec.structs.replace(question, state="closed")
    return msgspec.structs.replace(question, state=card.state, until_ns=card.until_ns)
