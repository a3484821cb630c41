"""How many tokens a model has used: read from its answer, as OpenAI and Anthropic tell it.

    OpenAI chat, embeddings   usage: {prompt_tokens, completion_tokens, prompt_tokens_details: {cached_tokens}}
    OpenAI responses          usage: {input_tokens, output_tokens, input_tokens_details: {cached_tokens}}
    Anthropic messages        usage: {input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens}

What Anthropic has read from or written to a cache comes on top of its `input_tokens`; what OpenAI has read from one is
part of them. A stream tells the same in its events: OpenAI in the last (for chat only where the call says
`stream_options: {include_usage: true}`), Anthropic in `message_start` and, of the answer, in `message_delta`.
"""

from __future__ import annotations

import msgspec

from rules.call import Body, Json

MOST = 10**12
"""A number of tokens above this is no number of tokens."""


NAME_LENGTH = 200


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one call. `input` holds those read from caches and written to them, `cache_write_1h` those that
    are kept for an hour.

    `model`: the name by which the model answered; `tier`: at which terms, such as `priority`. Empty when it does not
    say.
    """

    model: str
    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    tier: str = ""


class Reading(msgspec.Struct):
    """What an answer has told so far. `final`: the answer itself has been counted, too."""

    model: str = ""
    tier: str = ""
    counts: dict[str, Json] = {}
    final: bool = False

    def take(self, event: Json) -> None:
        """Take note of an event of a stream, or of a whole answer."""
        for part in (event, _member(event, "response"), _member(event, "message")):
            model, tier, counts = _member(part, "model"), _member(part, "service_tier"), _member(part, "usage")
            self.model = model if isinstance(model, str) and len(model) <= NAME_LENGTH else self.model
            self.tier = tier if isinstance(tier, str) and len(tier) <= NAME_LENGTH else self.tier
            if isinstance(counts, dict):
                self.counts |= {name: count for name, count in counts.items() if count is not None}
                self.final = _member(event, "type") != "message_start"

    @property
    def usage(self) -> Usage | None:
        """The usage, once it is known to the end and can be read."""
        if not self.final:
            return None
        counts = self.counts
        prompt = "prompt_tokens" in counts
        own = _count(counts.get("prompt_tokens" if prompt else "input_tokens"))
        answer = counts.get("completion_tokens" if prompt else "output_tokens", 0)
        output = _count(answer)
        details = counts.get("prompt_tokens_details" if prompt else "input_tokens_details")
        cached = _count(_member(details, "cached_tokens") or 0)
        beside = _count(counts.get("cache_read_input_tokens", 0))
        write = _count(counts.get("cache_creation_input_tokens", 0))
        hour = _count(_member(counts.get("cache_creation"), "ephemeral_1h_input_tokens") or 0)
        if own is None or output is None or cached is None or beside is None or write is None or hour is None:
            return None
        if cached > own or hour > write:
            return None
        return Usage(self.model, own + beside + write, output, cached + beside, write, hour, self.tier)


def usage_of(body: Body) -> Usage | None:
    """The usage that a whole answer in JSON tells, or None."""
    reading = Reading()
    reading.take(body.json)
    return reading.usage


def _member(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None


def _count(value: Json) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST else None
