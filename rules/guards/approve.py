"""approve: a person decides.

The call is held until somebody says yes or no, for as long as its client waits. Then it is refused with a ticket: when
a person has said yes meanwhile, the identical call passes, once, after being decided again like any other. Identical is
what a duplicate is to `dedupe`: the same agent and credential, method, host, path, query and body.

What becomes of cards is in `rules.guards.cards`, how long clients wait in `rules.guards.patience`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, ClassVar

import msgspec

from rules.call import Call
from rules.canonical import frame
from rules.decision import Change
from rules.fields import Field
from rules.fingerprint import WHO
from rules.guard import Pass, Refuse, Settled, Verdict, View, Wait
from rules.guards.cards import Card, Cards
from rules.guards.patience import patience_ns
from rules.guards.reading import DURATION_SCHEMA, read_duration, read_map
from rules.state import State
from rules.units import SECOND_NS
from rules.yamltree import Node

EXPIRES_NS = 3600 * SECOND_NS
LONGEST_EXPIRES_NS = 7 * 24 * 3600 * SECOND_NS
LONGEST_HOLD_NS = 3600 * SECOND_NS
TITLE = 200
MOST_QUESTIONS = 1000
"""More than these nobody answers: a call that would ask another one is refused, until some are answered or over."""

MOST_OF_ONE = 200
"""And no more than these of one agent: none can keep the others from being heard."""

TICKET_DIGITS = 8

_BODY = Field("body", "body")
_USER_AGENT = Field("header.user-agent", "header", ("user-agent",))


class Approve(msgspec.Struct, frozen=True):
    """The guard. `hold_ns` is None where it depends on the client; `expires_ns`: how long a card or a word is good."""

    verb: ClassVar[str] = "approve"
    stage: ClassVar[int] = 7
    SCHEMA: ClassVar[dict[str, Any]] = {
        "description": "A person has to say yes to each of these calls (`borderpost approvals`).",
        "oneOf": [
            {"const": True},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "title": {
                        "description": "What the person reads first, such as `A refund above 50.00`.",
                        "type": "string",
                        "minLength": 1,
                        "maxLength": TITLE,
                    },
                    "hold": {
                        "description": "How long the call is held for an answer before it is refused with a ticket. "
                        "Default: a little less than its client waits.",
                        "oneOf": [DURATION_SCHEMA, {"const": 0}],
                    },
                    "expires": {
                        **DURATION_SCHEMA,
                        "description": "How long a question waits for an answer, and an answer for its call. "
                        "Default: 1h; at most 7d.",
                    },
                },
            },
        ],
    }

    rule: str
    title: str = ""
    hold_ns: int | None = None
    expires_ns: int = EXPIRES_NS

    @classmethod
    def parse(cls, node: Node, rule_id: str) -> Approve:
        """`true`, or the long form."""
        if node.scalar is True:
            return cls(rule_id)
        if node.kind != "map":
            mend = "remove it: nothing is on by default" if node.scalar is False else "write `approve: true`"
            node.fail("approve", "`approve` is neither `true` nor a mapping", mend)
        entries = read_map(node, "approve", ("title", "hold", "expires"))
        title = entries["title"].scalar if "title" in entries else ""
        if not isinstance(title, str) or len(title) > TITLE:
            entries["title"].fail("approve", "`title` is no short text", f"write at most {TITLE} characters")
        hold_ns = None
        if "hold" in entries:
            hold = entries["hold"]
            hold_ns = 0 if hold.scalar in (0, "0s") and hold.scalar is not False else read_duration(hold, "hold")
            if hold_ns > LONGEST_HOLD_NS:
                hold.fail("approve", "`hold` is longer than any client waits", "write at most `1h`")
        expires_ns = read_duration(entries["expires"], "expires") if "expires" in entries else EXPIRES_NS
        if expires_ns > LONGEST_EXPIRES_NS:
            entries["expires"].fail("approve", "`expires` is too long for an answer to be good", "write at most `7d`")
        return cls(rule_id, title, hold_ns, expires_ns)

    def needs_body(self, call: Call, writes: bool) -> bool:
        return True

    def claims(self, method: str, writes: bool) -> bool:
        return False

    def needs_answer(self, messages: bool) -> bool:
        return False

    def check(self, view: View, state: State, now_ns: int) -> Verdict:
        identity = view.fingerprint(WHO)
        view.note(f"approve.{self.rule}", identity)
        key = view.key(frame(b"approve", frame(self.rule.encode())), identity.encode())
        cards = state.of(Cards)
        card = cards.live(key, now_ns)
        if card is None or card.state == "used":
            return self._ask(view, cards, key, now_ns)
        if card.state == "asked":
            return Wait(key, self._hold_ns(view), self._held(card.id))
        if card.state == "refused":
            return _refused(card)
        data: dict[str, Any] = {"at_ns": now_ns, "card": card.id, "call": view.call_id}
        return Pass((Change(self.verb, self.rule, key, "use", data),))

    def settle(self, settled: Settled, state: State, now_ns: int) -> tuple[Change, ...]:
        never_left = settled.answer.withdrawn or not (settled.answer.sent or settled.answer.status)
        step = "give-back" if never_left else "spend"
        return tuple(
            Change(self.verb, self.rule, used.key, step, {"at_ns": now_ns, "card": used.data["card"]})
            for used in settled.claimed
        )

    def _ask(self, view: View, cards: Cards, key: str, now_ns: int) -> Verdict:
        """Make a card, and put on record what the person has to see of the call; unless there are too many."""
        if len(cards.cards) >= MOST_OF_ONE:
            agents = cards.counting(now_ns)
            if agents.total() >= MOST_QUESTIONS or agents[view.call.agent] >= MOST_OF_ONE:
                return _crowded()
        ticket = _ticket(view.call_id, self.rule, cards)
        data: dict[str, Any] = {
            "at_ns": now_ns,
            "card": ticket,
            "call": view.call_id,
            "until_ns": now_ns + self.expires_ns,
            "lasts_ns": self.expires_ns,
            "title": self.title,
            "agent": view.call.agent,
        }
        _show(view)
        ask = Change(self.verb, self.rule, key, "ask", data)
        return Wait(key, self._hold_ns(view), self._held(ticket), changes=(ask,))

    def _hold_ns(self, view: View) -> int:
        if self.hold_ns is not None:
            return self.hold_ns
        told = view.read(_USER_AGENT)
        return patience_ns(told if isinstance(told, str) else "")

    def _held(self, ticket: str) -> Refuse:
        about = f" ({self.title})" if self.title else ""
        return Refuse(
            "approval-required",
            f"A person has to approve this call{about}, and has not answered yet. Nothing was executed. "
            f"The ticket is {ticket}.",
            ticket=ticket,
            next=(
                "When it is approved, repeat the identical call: it passes once.",
                "Do not change it: another call is another question.",
            ),
        )


def _crowded() -> Refuse:
    return Refuse(
        "approval-required",
        "A person has to approve this call, and too many others wait for an answer. Nothing was executed.",
        next=("Ask a person to answer what is waiting.", "Then repeat the call."),
    )


def _refused(card: Card) -> Refuse:
    reason = f": {card.reason}" if card.reason else ""
    return Refuse(
        "approval-refused",
        f"A person has refused this call{reason.rstrip('.')}. Nothing was executed.",
        ticket=card.id,
        next=("Do not repeat this call.", "Do what the person says instead, or do without it."),
    )


def _ticket(call_id: str, rule: str, cards: Cards) -> str:
    """The id of a new card: short, since people type it; longer when it would be that of another one."""
    digest = sha256(frame(call_id.encode(), rule.encode())).hexdigest()
    digits = TICKET_DIGITS
    while f"a_{digest[:digits]}" in cards.by_id:
        digits += 1
    return f"a_{digest[:digits]}"


def _show(view: View) -> None:
    """Put on record what tells the call apart: query and body as a whole, and the headers that name its operation."""
    call = view.call
    for name in dict.fromkeys(name for name, _ in call.query):
        if f"query.{name}" != view.credential:
            view.read(Field(f"query.{name}", "query", (name,)))
    for name in view.telling:
        sent = [value for header, value in call.headers if header == name]
        if sent:
            view.note(f"operation.{name}", ", ".join(sent))
    if call.body.kind == "text":
        view.note("body", call.body.text)
    elif call.body.kind == "binary":
        about = f"{call.body.media_type or 'unknown type'}, {call.body.size_bytes} bytes"
        view.note("body", f"{about}, SHA-256 {call.body.sha256.hex()}")
    elif call.body.kind != "none":
        view.read(_BODY)
