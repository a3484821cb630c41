"""What a gRPC answer says: by its status at the end, and when in doubt nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules import grpc
from rules.decision import Answer
from tests.rules.world import LOST, OK, World, call

RPC = call(path="/bank.Transfers/Pay", headers=(("content-type", "application/grpc+proto"),))
TYPE = (("content-type", "application/grpc"),)


def said(grpc_status: str | None, size_bytes: int = 0, **other: Any) -> Answer:
    """An answer whose trailers say `grpc_status`."""
    trailers = (("grpc-status", grpc_status),) if grpc_status is not None else ()
    return msgspec.structs.replace(OK, headers=TYPE, trailers=trailers, size_bytes=size_bytes, **other)


CASES = [
    ("it succeeded", RPC, said("0", 12), "done", ""),
    ("status in the head alone", RPC, msgspec.structs.replace(OK, headers=(*TYPE, ("grpc-status", "7"))),
     "not_executed", "gRPC status 7 (PERMISSION_DENIED)"),
    ("it was refused", RPC, said("3"), "not_executed", "gRPC status 3 (INVALID_ARGUMENT)"),
    ("it was refused, in the body", RPC, said("3", 20, only_trailers=True), "not_executed",
     "gRPC status 3 (INVALID_ARGUMENT)"),
    ("no such method", RPC, said("12"), "not_executed", "gRPC status 12 (UNIMPLEMENTED)"),
    ("it was refused after it had said something", RPC, said("3", 5), "unknown", "gRPC status 3 (INVALID_ARGUMENT)"),
    ("it was called off", RPC, said("1"), "unknown", "gRPC status 1 (CANCELLED)"),
    ("its time ran out", RPC, said("4"), "unknown", "gRPC status 4 (DEADLINE_EXCEEDED)"),
    ("the answer may have been too large", RPC, said("8"), "unknown", "gRPC status 8 (RESOURCE_EXHAUSTED)"),
    ("the server was away", RPC, said("14"), "unknown", "gRPC status 14 (UNAVAILABLE)"),
    ("no status", RPC, said(None), "unknown", "there is no gRPC status that can be read"),
    ("a status that gRPC does not know", RPC, said("17"), "unknown", "there is no gRPC status that can be read"),
    ("a status written oddly", RPC, said("00"), "unknown", "there is no gRPC status that can be read"),
    ("two", RPC, msgspec.structs.replace(said("0"), headers=(*TYPE, ("grpc-status", "14"))), "unknown",
     "there is no gRPC status that can be read"),
    ("a page of something in between", RPC, OK, "unknown", "there is no gRPC status that can be read"),
    ("the answer alone says that it is gRPC", call(), said("14"), "unknown", "gRPC status 14 (UNAVAILABLE)"),
    ("HTTP says that it was refused", RPC, said("0", status=403), "not_executed", ""),
    ("HTTP says that it failed", RPC, said(None, status=500), "unknown", ""),
    ("no answer", RPC, LOST, "unknown", "connection reset"),
    ("no gRPC at all", call(), msgspec.structs.replace(OK, trailers=(("grpc-status", "14"),)), "done", ""),
]  # fmt: skip
PAY = "rules: [{id: pay, match: 'POST https://api.example.com/**', allow: true, dedupe: 1h}]"


@pytest.mark.parametrize(("case", "asked", "answer", "kind", "reason"), CASES, ids=[case[0] for case in CASES])
def test_what_became_of_a_call(case: str, asked: Any, answer: Answer, kind: str, reason: str) -> None:
    world = World(PAY)
    world.ask(asked)
    outcome = world.end(answer)
    assert (outcome.kind, outcome.reason or answer.error) == (kind, reason)
    again = world.ask(asked)
    expected = {"done": "replay", "not_executed": "allow", "unknown": "deny"}
    assert again.action == expected[kind]
    assert kind != "unknown" or again.code == "outcome-unknown"


@given(st.integers(1, 40), st.integers(0, 3))
def test_only_ok_is_done(number: int, size_bytes: int) -> None:
    assert grpc.judge(RPC, said(str(number), size_bytes), "done")[0] != "done"


TIMEOUTS = [("1H", 3600 * 10**9), ("2S", 2 * 10**9), ("100m", 10**8), ("5u", 5000), ("7n", 7), ("1", None), ("S", None),
            ("1x", None), ("123456789S", None), ("", None), ("-1S", None)]  # fmt: skip


@pytest.mark.parametrize(("value", "found_ns"), TIMEOUTS)
def test_how_long_a_client_waits(value: str, found_ns: int | None) -> None:
    assert grpc.timeout_ns((("te", "trailers"), ("grpc-timeout", value))) == found_ns


def test_a_client_that_does_not_say_so_waits_for_any_time() -> None:
    assert grpc.timeout_ns(TYPE) is None


def test_rules_read_the_status_where_it_stands() -> None:
    world = World(
        "tools: {pay: {match: 'POST https://api.example.com/**', expect: {header.grpc-status: '0'}}}\n"
        "rules: [{id: pay, tool: pay, allow: true}]"
    )
    for answer, expected in ((said("0"), "met"), (said("14"), "failed")):
        world.ask(RPC)
        assert world.end(answer).expected == expected
