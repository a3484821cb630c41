"""How long clients wait for an answer by themselves, told by their User-Agent.

A call that is held for longer loses its client, which then takes it for failed. The times are the default read
timeouts of the libraries; whoever has set another one says `hold:` in the rule.
"""

from __future__ import annotations

from rules.units import SECOND_NS

PATIENCE_S: tuple[tuple[str, int], ...] = (
    ("openai/", 600),
    ("anthropic/", 600),
    ("pygithub", 15),
    ("slackclient", 30),
    ("boto", 60),
    ("google-api-python-client", 60),
    ("httplib2", 60),
    ("stripe/", 80),
    ("aiohttp/", 300),
    ("httpx/", 5),
    ("okhttp/", 10),
    ("python-requests/", 0),
    ("python-urllib/", 0),
    ("curl/", 0),
    ("wget/", 900),
)
"""A part of the User-Agent, in lower case, and the seconds (0: for ever). The first that fits counts: libraries that
are built on others stand before those."""

UNKNOWN_NS = 25 * SECOND_NS
"""So long a client is held of which nothing is known: many are given 30 s by those who use them."""

LONGEST_NS = 300 * SECOND_NS
"""So long one is held that would wait for ever."""


def patience_ns(user_agent: str) -> int:
    """How long to hold such a client: a tenth less than it would wait, and at least a second."""
    text = user_agent.lower()
    for part, seconds in PATIENCE_S:
        if part in text:
            return seconds * SECOND_NS - max(SECOND_NS, seconds * SECOND_NS // 10) if seconds else LONGEST_NS
    return UNKNOWN_NS
