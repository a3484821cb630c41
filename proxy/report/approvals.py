"""Calls that wait for a person, as people read them: what is asked, by whom, and what exactly would be sent.

All that an agent chose is shown without what a terminal would obey, and with secrets as the ledger keeps them.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from proxy.ledger.asked import Question
from proxy.ledger.entries import LedgerError
from proxy.ledger.query import LedgerReader
from proxy.ledger.redact import MAX_HELD_TEXT, shortened
from proxy.ledger.told import CallDetail
from proxy.report.moments import show_span
from proxy.report.terminal import Cell, Column, Style, clip, columns_of, hung, paint, table, visible

STYLES: dict[str, Style] = {"asked": "blue", "granted": "green", "refused": "red", "closed": "dim"}
BODY_LINES = 60
"""A body is shown up to so many lines."""


class Asked(msgspec.Struct, frozen=True):
    """A question, and the call that it is about."""

    question: Question
    detail: CallDetail


def waiting(reader: LedgerReader, now_ns: int) -> tuple[Asked, ...]:
    """What waits for an answer, the oldest first."""
    return tuple(_asked(reader, one) for one in reader.questions(now_ns) if one.state == "asked")


def find(reader: LedgerReader, card_id: str, now_ns: int) -> Asked:
    """The question whose id is or begins with `card_id`. Raises `LedgerError` when that is none, or several."""
    every = reader.questions(now_ns)
    found = [one for one in every if one.id == card_id] or [one for one in every if one.id.startswith(card_id)]
    found = [one for one in found if one.state == "asked"] or found
    if not found:
        raise LedgerError(f"there is no ticket `{card_id}`: `borderpost approvals` lists what waits for you")
    if len(found) > 1:
        some = ", ".join(f"`{one.id}`" for one in found[:3])
        raise LedgerError(f"`{card_id}` is not unique ({some}...): give more of the ticket")
    return _asked(reader, found[0])


def _asked(reader: LedgerReader, question: Question) -> Asked:
    return Asked(question, reader.decided(question.seq))


def plain(asked: Asked) -> dict[str, Any]:
    """As `--json` prints it."""
    one, call = asked.question, asked.detail.call
    return {
        "id": one.id,
        "state": one.state,
        "at": call.at,
        "until_ns": one.until_ns,
        "title": one.title,
        "rule": one.rule,
        "agent": call.agent,
        "run": call.run,
        "tool": call.tool,
        "method": call.method,
        "url": _url(asked),
        "headers": _named(asked, "operation."),
        "query": _named(asked, "query."),
        "body": asked.detail.facts.get("body"),
        "call": call.id,
        "by": one.by,
        "note": one.note,
        "own_user": one.own_user,
    }


def list_cards(cards: tuple[Asked, ...], now_ns: int, room: int, colour: bool) -> list[str]:
    """One line a question."""
    columns = [
        Column("ID", 10),
        Column("LEFT", 4, right=True),
        Column("AGENT", 6),
        Column("CALL", 24, gives=True),
        Column("WHAT", 12, gives=True),
    ]
    rows = [
        [
            Cell(card.question.id, "bold"),
            Cell(_left(card.question, now_ns)),
            Cell(card.detail.call.agent or "-"),
            Cell(f"{card.detail.call.method} {_url(card)}"),
            Cell(card.question.title or _short(card) or card.question.rule),
        ]
        for card in cards
    ]
    return table(columns, rows, room, colour)


def show_card(asked: Asked, now_ns: int, room: int, colour: bool) -> list[str]:
    """Everything that a person has to know to answer."""
    one, call = asked.question, asked.detail.call
    lines = [paint(visible(one.title), "bold", colour)] if one.title else []
    lines += hung("", f"{call.method} {_url(asked)}", room)
    answered = f"by {one.by}{', the user who runs the proxy' if one.own_user else ''}" if one.by else ""
    state = {
        "asked": f"waits for you, {_left(one, now_ns)} left",
        "granted": f"allowed {answered}; good for one call, {_left(one, now_ns)} left unless it was made",
        "refused": f"refused {answered}",
        "closed": f"closed{f'; it was answered {answered}' if answered else ''}",
    }[one.state]
    pairs: list[tuple[str, str, Style]] = [
        ("state", state, STYLES[one.state]),
        ("said", one.note, ""),
        ("agent", call.agent, ""),
        ("run", call.run, ""),
        ("tool", call.tool, ""),
        ("rule", one.rule, ""),
        ("ticket", f"{one.id}, call {call.id}", "dim"),
    ]
    for name, text, style in pairs:
        if text:
            first, *more = hung(f"  {name:<7} ", text, room)
            lines += [paint(line, style, colour) for line in (first, *more)]
    if asked.detail.pruned:
        lines += ["", "what it would send was given up by `log prune`"]
    for word, place in (("header", "operation."), ("query", "query.")):
        for name, value in _named(asked, place).items():
            lines += hung(f"  {word} ", f"{name} = {_text(value)}", room)
    if "body" in asked.detail.facts:
        lines += ["", paint("body", "dim", colour), *_body(asked.detail.facts["body"], room)]
    if any(shortened(value) for name, value in asked.detail.facts.items() if name.startswith(_SENT)):
        lines += ["", *hung("", SHORT, room)]
    return lines


_SENT = ("body", "query.", "operation.")
SHORT = (
    f"This is not all of it: of a longer text the first {MAX_HELD_TEXT} characters are on record, and of a very large "
    "body none. To see the rest, ask whoever runs the agent, before you allow it."
)


def _body(body: object, room: int) -> list[str]:
    """The body, indented as it reads best; a long line is broken, never cut."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, indent=2)
    lines: list[str] = []
    for line in text.split("\n"):
        shown = "  " + visible(line)
        while columns_of(shown) > room:
            head = clip(shown, room).removesuffix("…")
            lines.append(head)
            shown = "    " + shown[len(head) :]
        lines.append(shown)
    if len(lines) > BODY_LINES:
        more = f"  ... {len(lines) - BODY_LINES} more lines: `borderpost approvals show ID --json` has them"
        return [*lines[:BODY_LINES], more]
    return lines


def _named(asked: Asked, place: str) -> dict[str, Any]:
    """What the call has in a place, by name."""
    return {name[len(place) :]: value for name, value in asked.detail.facts.items() if name.startswith(place)}


def _short(asked: Asked) -> str:
    body = asked.detail.facts.get("body")
    return "" if body is None else _text(body)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _url(asked: Asked) -> str:
    call = asked.detail.call
    port = "" if call.port == {"https": 443, "http": 80}.get(call.scheme) else f":{call.port}"
    host = f"[{call.host}]" if ":" in call.host else call.host
    return f"{call.scheme}://{host}{port}{call.path}"


def _left(question: Question, now_ns: int) -> str:
    return show_span(max(question.until_ns - now_ns, 0))
