"""Upstream keys in the query and in bodies, through a real proxy: what the upstream sees, byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.proxy.conftest import Hit, answer

RULES = """
version: 1
tools:
  pay: {match: POST {origin}/pay, upstream_key: {body: idempotency_key}}
  item: {match: "POST {origin}/items/{id}", upstream_key: {body: k}}
  form: {match: POST {origin}/form, body: form, upstream_key: {body: request_id}}
  move: {match: POST {origin}/move, upstream_key: {query: requestId}}
rules:
  - {id: once, tool: [pay, form, move], allow: true, dedupe: 1h}
  - {id: item, tool: item, allow: true, dedupe: {window: 1h, key: path.id}}
"""
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
ODD = b'{ "z" : 1.50e2, "a":"\\u00e9", "n": [1, 2] }'
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Bank:
    """An API that does each act once for a key, and loses the first answer to each."""

    def __init__(self, here: Any, read_key: Any) -> None:
        self.acts: dict[str, int] = {}
        self.read_key = read_key
        here.upstream.respond = self.respond

    async def respond(self, hit: Hit, writer: asyncio.StreamWriter) -> bytes:
        key = self.read_key(hit)
        self.acts[key] = self.acts.get(key, 0) + 1
        if self.acts[key] == 1:
            writer.transport.abort()
            return b""
        return answer(200, json.dumps({"done_under": key}).encode())


def of_json(name: str = "idempotency_key") -> Any:
    return lambda hit: json.loads(hit.body)[name]


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_a_lost_payment_is_asked_for_again_under_its_key(world: Any, http2: bool) -> None:
    here = await world(RULES)
    bank = Bank(here, of_json())
    async with here.client(http2=http2) as client:
        got = [await client.post("/pay", content=ODD, headers=JSON) for _ in range(3)]
    assert [each.status_code for each in got] == [502, 200, 200]
    assert got[1].http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    (key,) = bank.acts
    assert re.fullmatch(UUID, key)
    assert bank.acts == {key: 2}, "one act, asked for twice"
    assert got[2].headers["idempotent-replayed"] == "true"
    for hit in here.upstream.hits:
        assert hit.body == b'{"idempotency_key":"%b", "z" : 1.50e2, "a":"\\u00e9", "n": [1, 2] }' % key.encode()
        assert hit.header("content-length") == str(len(hit.body))


async def test_a_key_of_the_client_stays_and_its_next_one_gives_way(world: Any) -> None:
    here = await world(RULES)
    Bank(here, of_json())
    bodies = [b'{"n": 5,  "idempotency_key": "%b" }' % key for key in (b"first", b"second-and-longer", b"third")]
    async with here.client() as client:
        got = [await client.post("/pay", content=body, headers=JSON) for body in bodies]
    assert [each.status_code for each in got] == [502, 200, 200]
    assert [hit.body for hit in here.upstream.hits] == [b'{"n": 5,  "idempotency_key": "first" }'] * 2


async def test_a_body_that_arrives_in_chunks_carries_it_too(world: Any) -> None:
    here = await world(RULES)
    bank = Bank(here, of_json())

    async def chunks() -> Any:
        yield b'{"n":'
        yield b" 5}"

    async with here.client() as client:
        got = [await client.post("/pay", content=chunks(), headers=JSON) for _ in range(2)]
    assert [each.status_code for each in got] == [502, 200]
    (key,) = bank.acts
    assert [hit.body for hit in here.upstream.hits] == [b'{"idempotency_key":"%b","n": 5}' % key.encode()] * 2


async def test_a_rule_that_reads_no_body_has_it_buffered_for_the_key(world: Any) -> None:
    """`key: path.id` alone would have the body streamed."""
    here = await world(RULES)
    bank = Bank(here, of_json("k"))
    async with here.client() as client:
        got = [await client.post("/items/7", json={"n": number}) for number in range(2)]
    assert [each.status_code for each in got] == [502, 200]
    assert list(bank.acts.values()) == [2]
    assert [json.loads(hit.body)["n"] for hit in here.upstream.hits] == [0, 1]


async def test_a_form_carries_it(world: Any) -> None:
    here = await world(RULES)
    bank = Bank(here, lambda hit: parse_qs(hit.body.decode())["request_id"][0])
    async with here.client() as client:
        sent = [b"a=1&b=%41+c", b"a=1&request_id=mine&b=A%20c"]
        got = [await client.post("/form", content=body, headers=FORM) for body in sent]
    assert [each.status_code for each in got] == [502, 200]
    (key,) = bank.acts
    assert [hit.body.decode() for hit in here.upstream.hits] == [
        f"a=1&b=%41+c&request_id={key}",
        f"a=1&request_id={key}&b=A%20c",
    ]
    assert [hit.header("content-length") for hit in here.upstream.hits] == [
        str(len(hit.body)) for hit in here.upstream.hits
    ]


async def test_a_body_that_reads_as_json_is_no_form_whatever_else_its_media_type_says(world: Any) -> None:
    here = await world(RULES)
    bank = Bank(here, of_json())
    headers = {"Content-Type": "application/json; also=x-www-form-urlencoded"}
    async with here.client() as client:
        got = [await client.post("/pay", content=b'{"a":1}', headers=headers) for _ in range(2)]
    assert [each.status_code for each in got] == [502, 200]
    (key,) = bank.acts
    assert {hit.body for hit in here.upstream.hits} == {b'{"idempotency_key":"%b","a":1}' % key.encode()}


async def test_a_query_carries_it(world: Any) -> None:
    here = await world(RULES)
    bank = Bank(here, lambda hit: parse_qs(urlsplit(hit.target).query)["requestId"][0])
    async with here.client() as client:
        got = [
            await client.post(target, json={"n": 1})
            for target in ("/move?a=%7E&b", "/move?a=~&requestId=mine&b", "/move?a=~&b=&requestId=other&requestId=last")
        ]
    assert [each.status_code for each in got] == [502, 200, 200]
    (key,) = bank.acts
    assert [hit.target for hit in here.upstream.hits] == [
        f"/move?a=%7E&b&requestId={key}",
        f"/move?a=~&requestId={key}&b",
    ]


@pytest.mark.parametrize(
    ("content", "headers", "why_not"),
    [
        (b"[1]", JSON, "its body is no JSON object and no form"),
        (b"", {}, "its body is no JSON object and no form"),
        (b"{}", {"Content-Type": "text/plain"}, "its body is no JSON object and no form"),
        (gzip.compress(b"{}"), JSON | {"Content-Encoding": "gzip"}, "its body is compressed"),
        (b"{}", JSON | {"Content-MD5": "mZFLkyvTelC5g8XnyQrpOw=="}, "its header `content-md5` says what the body is"),
        (b"{}", JSON | {"Authorization": "AWS4-HMAC-SHA256 x"}, "it is signed as a whole"),
    ],
    ids=["a list", "no body", "text", "compressed", "digested", "signed"],
)
async def test_a_call_that_cannot_carry_it_is_not_sent(
    world: Any, content: bytes, headers: dict[str, str], why_not: str
) -> None:
    here = await world(RULES)
    async with here.client() as client:
        got = await client.post("/pay", content=content, headers=headers)
    assert (got.status_code, got.json()["code"], got.json()["executed"]) == (422, "parameters-invalid", "no")
    assert got.json()["detail"] == (
        "The API tells repetitions by `body.idempotency_key`, which cannot be put into this call: "
        f"{why_not}. Nothing was executed."
    )
    assert here.upstream.hits == []


async def test_a_call_whose_key_cannot_be_put_in_after_all_is_not_sent(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had been let out: its claim is free again, for nothing has left."""
    here = await world(RULES)

    def fails(*_: object) -> bytes:
        raise MemoryError("injected")

    async with here.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr("proxy.flows.in_object", fails)
            refused = await client.post("/pay", json={"n": 1})
        assert (refused.status_code, refused.json()["code"]) == (503, "policy-error")
        assert here.upstream.hits == []
        assert (await client.post("/pay", json={"n": 1})).status_code == 200
    assert len(here.upstream.hits) == 1
