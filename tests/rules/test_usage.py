"""Usage: how many tokens an answer says were used, in each format, whole and in events."""

from __future__ import annotations

from typing import Any

import pytest

from rules.call import Body
from rules.usage import MOST, Reading, Usage, usage_of

CHAT = {
    "id": "c1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "service_tier": "default",
    "choices": [{"message": {"role": "assistant", "content": "usage"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}
EMBEDDING = {"object": "list", "data": [], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8}}
RESPONSE = {
    "object": "response",
    "model": "gpt-5",
    "usage": {"input_tokens": 50, "input_tokens_details": {"cached_tokens": 10}, "output_tokens": 7},
}
MESSAGE = {
    "type": "message",
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 40,
    },
}

WHOLE: list[tuple[Any, Usage | None]] = [
    (CHAT, Usage("gpt-4o-2024-08-06", 100, 20, cache_read=60, tier="default")),
    (EMBEDDING, Usage("text-embedding-3-small", 8, 0)),
    (RESPONSE, Usage("gpt-5", 50, 7, cache_read=10)),
    (MESSAGE, Usage("claude-sonnet-4-5", 1310, 40, cache_read=1000, cache_write=300, cache_write_1h=100)),
    ({"usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": None}}, Usage("", 1, 2)),
    ({"model": "m" * 201, "usage": {"prompt_tokens": 1}}, Usage("", 1, 0)),
    ({"model": 5, "service_tier": None, "usage": {"prompt_tokens": 1}}, Usage("", 1, 0)),
    ({}, None),
    ([], None),
    (None, None),
    ({"usage": None}, None),
    ({"usage": {}}, None),
    ({"usage": {"prompt_tokens": "8"}}, None),
    ({"usage": {"prompt_tokens": True}}, None),
    ({"usage": {"prompt_tokens": -1}}, None),
    ({"usage": {"prompt_tokens": MOST + 1}}, None),
    ({"usage": {"prompt_tokens": 8, "completion_tokens": 1.5}}, None),
    ({"usage": {"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": 9}}}, None),
    ({"usage": {"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": -1}}}, None),
    ({"usage": {"input_tokens": 8, "cache_read_input_tokens": "1"}}, None),
    ({"usage": {"input_tokens": 8, "cache_creation_input_tokens": "1"}}, None),
    ({"usage": {"input_tokens": 8, "cache_creation": {"ephemeral_1h_input_tokens": 1}}}, None),
    ({"usage": {"input_tokens": 8, "cache_creation": {"ephemeral_1h_input_tokens": "1"}}}, None),
]


@pytest.mark.parametrize(("answer", "usage"), WHOLE)
def test_a_whole_answer(answer: Any, usage: Usage | None) -> None:
    assert usage_of(Body("json", json=answer)) == usage


def test_what_is_no_json_tells_nothing() -> None:
    assert usage_of(Body("text", text="usage")) is None


STREAMS: list[tuple[list[Any], Usage | None]] = [
    (  # OpenAI chat, with stream_options.include_usage
        [
            {"model": "gpt-4o", "choices": [{"delta": {"content": "a"}}], "usage": None},
            {"model": "gpt-4o", "choices": [], "usage": CHAT["usage"]},
        ],
        Usage("gpt-4o", 100, 20, cache_read=60),
    ),
    ([{"model": "gpt-4o", "choices": [{"delta": {"content": "a"}}]}], None),  # without it
    (  # OpenAI responses
        [
            {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
            {"type": "response.output_text.delta", "delta": "a"},
            {"type": "response.completed", "response": RESPONSE},
        ],
        Usage("gpt-5", 50, 7, cache_read=10),
    ),
    ([{"type": "response.created", "response": {"model": "gpt-5", "usage": None}}], None),
    (  # Anthropic
        [
            {"type": "message_start", "message": MESSAGE | {"usage": MESSAGE["usage"] | {"output_tokens": 1}}},  # type: ignore[operator]
            {"type": "content_block_delta", "delta": {"text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}},
            {"type": "message_stop"},
        ],
        Usage("claude-sonnet-4-5", 1310, 40, cache_read=1000, cache_write=300, cache_write_1h=100),
    ),
    ([{"type": "message_start", "message": MESSAGE}], None),  # broken off: what the answer has is not known
]


@pytest.mark.parametrize(("events", "usage"), STREAMS)
def test_a_stream_of_events(events: list[Any], usage: Usage | None) -> None:
    reading = Reading()
    for event in events:
        reading.take(event)
    assert reading.usage == usage
