"""Replays to a client that speaks JSON-RPC: the same answer, under the id of its own request."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest

from proxy.envelope import readdressed, unaddressed
from proxy.ledger.entries import StoredAnswer
from proxy.replay import reply
from rules.call import Call
from tests.rules.world import call

RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50,"content":[{"type":"text","text":"done \\u00e9"}]}}'


def asked(own_id: object = 2, method: str = "tools/call") -> Call:
    message: dict[str, object] = {"jsonrpc": "2.0", "id": own_id, "method": method, "params": {"name": "pay"}}
    return call(path="/mcp", body=json.dumps({key: value for key, value in message.items() if value is not None}))


@pytest.mark.parametrize("own_id", [2, "two", 'a "quoted" one'])
def test_only_the_id_is_another(own_id: object) -> None:
    assert readdressed(RESULT, asked(own_id)) == RESULT.replace(b'"id":1', b'"id":' + json.dumps(own_id).encode())


def test_an_error_is_an_answer_too() -> None:
    assert json.loads(readdressed(b'{"jsonrpc":"2.0","id":1,"error":{}}', asked()))["id"] == 2


def test_in_a_stream_the_answer_gets_the_id_and_nothing_else_does() -> None:
    progress = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"id":1}}\n\n'
    stream = b": hello\n" + progress + b"event: message\r\nid: 7\r\ndata:" + RESULT + b"\r\n\r\n"
    wanted = RESULT.replace(b'"id":1,"r', b'"id":2,"r')
    assert readdressed(stream, asked()) == stream.replace(b"data:" + RESULT, b"data: " + wanted)


@pytest.mark.parametrize(
    ("body", "to"),
    [
        (b"", asked()),
        (b"[1]", asked()),
        (b"{broken", asked()),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}", asked()),
        (b'{"id":1}', asked()),
        (b'{"jsonrpc":"2.0","id":1,"method":"roots/list"}', asked()),
        (RESULT, asked(own_id=None)),
        (RESULT, call(body='{"id": 2}')),
        (RESULT, call(body='{"jsonrpc": "2.0", "id": 2, "result": {}}')),
    ],
)
def test_all_else_goes_out_as_it_was_stored(body: bytes, to: Call) -> None:
    assert readdressed(body, to) == body


@pytest.mark.parametrize("form", [b"%s", b"event: message\r\ndata: %s\r\n\r\n"])
def test_equal_answers_are_equal_without_their_ids(form: bytes) -> None:
    first, second, other = RESULT, RESULT.replace(b'"id":1', b'"id":"two"'), RESULT.replace(b"done", b"gone")
    assert unaddressed(form % first) == unaddressed(form % second) != unaddressed(form % other)


@pytest.mark.parametrize("accept", ["identity", "gzip"])
def test_a_coded_answer_is_decoded_for_it(accept: str) -> None:
    headers = ((b"content-type", b"application/json"), (b"content-encoding", b"gzip"))
    stored = StoredAnswer("c_0", 0, 200, b"OK", "HTTP/1.1", headers, gzip.compress(RESULT))
    sent = reply(stored, msgspec.structs.replace(asked(), headers=(("accept-encoding", accept),)))
    assert json.loads(sent.body)["id"] == 2
    assert "content-encoding" not in dict(sent.headers)
    assert dict(sent.headers)["content-length"] == str(len(sent.body))
