"""`approvals watch`: one question after the other, answered with one key. Works in any terminal, also over ssh.

Where standard input is no terminal, a line is an answer: `a`, `r REASON`, `s`, `q`.
"""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from proxy.ledger.commands import CommandError
from proxy.ledger.entries import LedgerError
from proxy.report.approvals import Asked

LOOK_S = 0.5
ASK = "allow (a), refuse (r), skip (s), quit (q)? "


class Keys:
    """What is typed on `stream`: single keys on a terminal, lines elsewhere. A context manager."""

    def __init__(self, stream: TextIO) -> None:
        self._fd = stream.fileno()
        self._terminal = stream.isatty()
        self._before: list[Any] = []
        self._typed = b""

    def __enter__(self) -> Keys:
        if self._terminal:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def forget(self) -> None:
        """Forget what was typed so far on the terminal: it was not meant for what is shown now."""
        if self._terminal:
            termios.tcflush(self._fd, termios.TCIFLUSH)

    def key(self, timeout_s: float) -> str | None:
        """The next key, or the next line where no terminal is; None when nothing was typed. `q` at the end."""
        if b"\n" not in self._typed:
            if not select.select([self._fd], [], [], timeout_s)[0]:
                return None
            read = os.read(self._fd, 1024)
            if not read:
                return "q"
            if self._terminal:
                return read.decode("utf-8", "replace")[0]
            self._typed += read
            if b"\n" not in self._typed:
                return None
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode("utf-8", "replace").strip()

    def line(self, prompt: str) -> str:
        """A line, typed on the terminal as usual."""
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        try:
            return input(prompt).strip()
        except EOFError:
            return ""
        finally:
            tty.setcbreak(self._fd)

    @property
    def terminal(self) -> bool:
        """Whether somebody sits there."""
        return self._terminal


def watch(
    cards: Callable[[], Sequence[Asked]],
    answer: Callable[[str, bool, str], str],
    keys: Keys,
    say: Callable[[str | Sequence[str]], object],
    show: Callable[[Asked], Sequence[str]],
    print_json: Callable[[Asked], None] | None,
) -> None:
    """Ask about every question that is open, the oldest first, until somebody says `q`.

    With `print_json`: only print each as it opens, until interrupted.
    """
    passed: set[str] = set()
    if print_json is None:
        say("watching for calls that wait for you; q ends")
    while True:
        new = [card for card in cards() if card.question.id not in passed]
        if not new:
            if keys.key(LOOK_S) == "q":
                return
            continue
        card = new[0]
        passed.add(card.question.id)
        if print_json is not None:
            print_json(card)
        elif not _ask(card, cards, answer, keys, say, show):
            return


def _ask(
    card: Asked,
    cards: Callable[[], Sequence[Asked]],
    answer: Callable[[str, bool, str], str],
    keys: Keys,
    say: Callable[[str | Sequence[str]], object],
    show: Callable[[Asked], Sequence[str]],
) -> bool:
    """Ask about one. False when somebody said `q`."""
    ticket = card.question.id
    say(["", *show(card), ""])
    keys.forget()  # before the question is asked: what is typed after it is an answer
    say(ASK)
    while True:
        typed = keys.key(LOOK_S)
        if typed is None:
            if all(one.question.id != ticket for one in cards()):
                say(f"{ticket} is closed: it was answered elsewhere, its time is over, or its client has left")
                return True
            continue
        word, _, reason = typed.partition(" ")
        if word == "q":
            return False
        if word == "s":
            say(f"skipped {ticket}: it goes on waiting")
            return True
        if word == "r" and keys.terminal:
            reason = keys.line("reason, for the agent to read: ")
        if word == "r" and not reason:
            say(f"not refused: a reason is needed. {ASK}")
        elif word in ("a", "r"):
            try:
                answer(ticket, word == "a", reason)
                say(f"allowed {ticket}" if word == "a" else f"refused {ticket}")
            except (CommandError, LedgerError) as error:
                say(str(error))
            return True
