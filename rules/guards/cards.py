"""Cards: calls that wait for a person's word, and what has been said of them.

A card is made when a call is held, and found again by what the call asks for (its fingerprint): so every retry of the
call finds the card of the first. `STEPS` is the whole theory. Until its time is over, a card is `asked`, then `granted`
or `refused` by a person. A grant is good for one call: it is `used` when one is let out, and gone when that has ended.
Only a call that never left gives it back.

Every step is a `Change` in the ledger. A step that is not in the table, or is about another card, changes nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, cast

import msgspec

from rules.decision import Change
from rules.state import Due, SetBack
from rules.units import SECOND_NS

STEPS: dict[tuple[str, str], str] = {
    ("asked", "grant"): "granted",
    ("asked", "refuse"): "refused",
    ("asked", "abandon"): "gone",
    ("granted", "use"): "used",
    ("granted", "refuse"): "refused",
    ("refused", "grant"): "granted",
    ("used", "give-back"): "granted",
    ("used", "spend"): "gone",
}
"""(state, step) -> state. `ask` makes a card in every state, in place of one whose time is over or whose grant is used.

| step | is made when |
|---|---|
| ask | a call is held, and no card tells what to do with it (any more) |
| grant, refuse | a person says so |
| abandon | the last client that was held for it has left before anybody said anything |
| use | a call is let out by the grant |
| give-back | that call was held back by ourselves, or never left: its grant is as good as before |
| spend | it has ended in any other way, or its proxy has died |
"""


SLACK = 64
"""When so many more moments than twice as many as cards are noted, those of cards that are gone are dropped."""


class Card(msgspec.Struct):
    """One card. `call`: the one that was held for it first, then the one that uses the grant.

    `until_ns`: an asked card is closed then, a word is good until then. `lasts_ns`: how long a word is good for.
    """

    id: str
    state: str
    call: str
    until_ns: int
    lasts_ns: int
    reason: str = ""
    agent: str = ""


class Cards(msgspec.Struct):
    """All cards, by fingerprint and by their id."""

    verb: ClassVar[str] = "approve"

    cards: dict[str, Card] = {}
    by_id: dict[str, str] = {}
    due: Due = msgspec.field(default_factory=Due)

    def live(self, key: str, now_ns: int) -> Card | None:
        """The card `key` if it still counts at `now_ns`. A grant that is in use counts until its call has ended."""
        card = self.cards.get(key)
        if card is None or (now_ns >= card.until_ns and card.state != "used"):
            return None
        return card

    def counting(self, now_ns: int) -> Counter[str]:
        """How many cards still count at `now_ns`, by the agents that asked."""
        return Counter(card.agent for key, card in self.cards.items() if self.live(key, now_ns) is not None)

    def apply(self, change: Change) -> None:
        data = cast(dict[str, Any], change.data)
        card = self.cards.get(change.key)
        if change.op == "ask":
            self._drop(change.key)
            card = Card(data["card"], "asked", data["call"], data["until_ns"], data["lasts_ns"])
            card.agent = data.get("agent", "")
            self._add(change.key, card)
        elif card is not None and card.id == data["card"]:
            state = STEPS.get((card.state, change.op))
            if state == "gone":
                self._drop(change.key)
            elif state is not None:
                card.state = state
                card.call = data.get("call", card.call)
                card.reason = data.get("reason", "")
                if "until_ns" in data:
                    card.until_ns = data["until_ns"]
                    self.due.add(card.until_ns, change.key)
        self._forget(data["at_ns"])

    def set_back(self, clock: SetBack) -> None:
        for card in self.cards.values():
            card.until_ns = clock.moved(card.until_ns)
        self.due.rebuild([(card.until_ns, key) for key, card in self.cards.items()])

    def said(self, card_id: str, allowed: bool, reason: str, now_ns: int) -> tuple[Change, ...]:
        """A person's word on the card: the change that it makes. None when there is no such card, or it is closed."""
        key = self.by_id.get(card_id, "")
        card = self.live(key, now_ns)
        step = "grant" if allowed else "refuse"
        if card is None or (card.state, step) not in STEPS:
            return ()
        data: dict[str, Any] = {"at_ns": now_ns, "card": card.id, "until_ns": now_ns + card.lasts_ns}
        if not allowed:
            data["reason"] = reason
        return (Change(self.verb, "", key, step, data),)

    def deserted(self, key: str, now_ns: int) -> tuple[Change, ...]:
        """Nobody is held for the card `key` any more, because they have left."""
        card = self.live(key, now_ns)
        if card is None or card.state != "asked":
            return ()
        return (Change(self.verb, "", key, "abandon", {"at_ns": now_ns, "card": card.id}),)

    def abandoned(self, now_ns: int) -> tuple[Change, ...]:
        """Whatever became of the calls of a dead proxy: the grants that they used are spent."""
        return tuple(
            Change(self.verb, "", key, "spend", {"at_ns": now_ns, "card": card.id, "call": card.call})
            for key, card in self.cards.items()
            if card.state == "used"
        )

    def resolved(self, call_id: str, executed: bool, now_ns: int) -> tuple[Change, ...]:
        """A grant is spent by a call whose outcome is unknown, too."""
        return ()

    def told(self, change: Change) -> tuple[str, ...]:
        """A card tells nothing of what became of a call."""
        return ()

    def _add(self, key: str, card: Card) -> None:
        self.cards[key] = card
        self.by_id[card.id] = key
        self.due.add(card.until_ns, key)

    def _drop(self, key: str) -> None:
        card = self.cards.pop(key, None)
        if card is not None:
            del self.by_id[card.id]

    def _forget(self, now_ns: int) -> None:
        """Drop up to two cards whose time is over: as many as one change can make, and one more."""
        if len(self.due.heap) > 2 * len(self.cards) + SLACK:
            self.due.rebuild([(card.until_ns, key) for key, card in self.cards.items()])
        for _ in range(2):
            key = self.due.pop(now_ns)
            card = None if key is None else self.cards.get(key)
            if key is None or card is None:
                continue
            if card.state == "used":
                self.due.add(now_ns + 60 * SECOND_NS, key)
            elif card.until_ns <= now_ns:  # else it has been given more time, with an entry of its own
                self._drop(key)
