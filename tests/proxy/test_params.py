"""Parameter contracts through a real proxy, byte by byte: what does not fit never reaches the upstream."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.proxy.conftest import MakeWorld

RULES = """
version: 1
tools:
  pay:
    match: POST {origin}/pay
    body: json
    params:
      to: {type: string, pattern: "^acct_[0-9]+$", required: true}
      amount: {type: integer, minimum: 1, required: true}
      query.dry_run: boolean
      password: string
  refund:
    match: POST {origin}/refunds
    body: form
    params: {charge: {type: string, required: true}, metadata: {type: object, additionalProperties: string}}
  upload:
    match: POST {origin}/files
    body: multipart
    params: {name: {type: string, required: true}, file: {format: binary}}
  report:
    match: {request: "POST {origin}/mcp", mcp: send_report}
    params: {customer: {type: string, required: true}, copies: integer, password: string}
  watched:
    match: POST {origin}/watched
    params: {a: integer}
    params_mode: monitor
rules:
  - {id: all, match: "{origin}/**", allow: true}
"""
GOOD = b'{"to": "acct_1", "amount": 5}'
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}


def tool_call(arguments: str) -> bytes:
    params = f'{{"name": "send_report", "arguments": {arguments}}}'
    return f'{{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {params}}}'.encode()


def part(name: str, content: str, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'.encode()


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/pay", JSON, GOOD),
        ("/pay?dry_run=true", JSON, GOOD),
        ("/pay", {**JSON, "content-encoding": "gzip"}, gzip.compress(GOOD, mtime=0)),
        ("/pay", {"content-type": "application/vnd.api+json"}, GOOD),
        ("/refunds", FORM, b"charge=ch_1&metadata[a]=b&metadata%5Bc%5D=d"),
        ("/files", MULTIPART, part("name", "x") + part("file", "%PDF", '; filename="a.pdf"') + b"--b--\r\n"),
        ("/mcp", JSON, tool_call('{"customer": "c1", "copies": 2}')),
        ("/watched", JSON, b'{"b": 1}'),
        ("/watched", JSON, b'{"b": '),
    ],
)
async def test_a_call_that_fits_is_sent_as_it_is(
    world: MakeWorld, target: str, headers: dict[str, str], body: bytes
) -> None:
    here = await world(RULES)
    async with here.client() as client:
        assert (await client.post(target, headers=headers, content=body)).status_code == 200
    assert [(hit.target, hit.body) for hit in here.upstream.hits] == [(target, body)]


@pytest.mark.parametrize(
    ("target", "headers", "body", "said"),
    [
        (
            "/pay",
            JSON,
            b'{"to": "acct_1", "amount": 5, "amuont": 6}',
            "`amuont` is no parameter (did you mean `amount`?)",
        ),
        (
            "/pay",
            JSON,
            b'{"to": "acct_1", "amount": "5"}',
            '`amount` has to be a whole number of at least 1, and it is "5"',
        ),
        (
            "/pay",
            JSON,
            b'{"to": "acct_1", "amount": 5, "amount": 6}',
            "the body cannot be read: its JSON has a key twice",
        ),
        ("/pay", JSON, b"\xef\xbb\xbf" + GOOD, "begins with a byte order mark"),
        ("/pay", JSON, GOOD + b"{}", "the body cannot be read: its JSON is broken"),
        ("/pay", JSON, b'{"to": "acct_1\xff", "amount": 5}', "not UTF-8"),
        ("/pay", {**JSON, "content-encoding": "rot13"}, GOOD, "content-coding"),
        ("/pay", {**JSON, "content-encoding": "gzip"}, gzip.compress(GOOD, mtime=0) + b"x", "content-coding"),
        ("/pay", FORM, b"to=acct_1&amount=5", "the body has to be JSON (application/json)"),
        ("/pay", {"content-type": "text/plain"}, GOOD, "and it is text/plain"),
        ("/pay", {}, GOOD, "without a media type"),
        ("/pay", JSON, b"", "`amount` is missing"),
        ("/pay?to=acct_1", JSON, GOOD, "`query.to` is no parameter here: it belongs into the body"),
        ("/pay?dry_run=true&dry_run=false", JSON, GOOD, "`query.dry_run` stands more than once"),
        ("/pay?dry_run=1", JSON, GOOD, "has to be `true` or `false`"),
        ("/refunds", FORM, b"charge=ch_1&charge=ch_2", "`charge` stands more than once"),
        ("/refunds", FORM, b"charge=ch_1&metadata[a][b]=c", "`metadata.a` has to be a text"),
        ("/refunds", FORM, b"charge=ch_1&metadata=x", "`metadata` has to be an object"),
        ("/files", MULTIPART, part("name", "x") + part("nmae", "y") + b"--b--\r\n", "`nmae` is no parameter"),
        ("/files", MULTIPART, part("name", "x", '; filename="x"') + b"--b--\r\n", "`name` has to be a text"),
    ],
)
async def test_a_call_that_does_not_fit_never_leaves(
    world: MakeWorld, target: str, headers: dict[str, str], body: bytes, said: str
) -> None:
    here = await world(RULES)
    async with here.client() as client:
        reply = await client.post(target, headers=headers, content=body)
    assert (reply.status_code, reply.json()["code"], reply.json()["executed"]) == (422, "parameters-invalid", "no")
    assert said in reply.json()["detail"]
    assert reply.headers["x-should-retry"] == "false"
    assert here.upstream.hits == []


async def test_arguments_that_do_not_fit_are_told_as_the_result_of_the_tool(world: MakeWorld) -> None:
    here = await world(RULES)
    async with here.client() as client:
        reply = await client.post("/mcp", headers=JSON, content=tool_call('{"custmer": "c1", "copies": "2"}'))
        answer = reply.json()
        assert (reply.status_code, answer["id"], answer["result"]["isError"]) == (200, 7, True)
        assert (
            '`copies` has to be a whole number, and it is "2"; `custmer` is no argument '
            "(did you mean `customer`?); `customer` is missing: it has to be a text"
            in answer["result"]["content"][0]["text"]
        )
        twice = await client.post("/mcp", headers=JSON, content=tool_call('{"customer": "c1", "customer": "c2"}'))
        assert "its JSON has a key twice" in twice.text
    assert here.upstream.hits == []


async def test_the_status_line_names_the_parameters(world: MakeWorld) -> None:
    """The exceptions of many clients show nothing else."""
    here = await world(RULES)
    async with here.client() as client:
        reply = await client.post("/pay", json={"to": "acct_1", "amuont": 5})
        with pytest.raises(httpx.HTTPStatusError, match=r"Parameters invalid: body\.amount, body\.amuont"):
            reply.raise_for_status()


async def test_a_streamed_body_is_held_back_until_it_is_checked(world: MakeWorld) -> None:
    here = await world(RULES)

    async def pieces() -> Any:
        yield b'{"to": "acct_1", '
        yield b'"amount": 5, "extra": 1}'

    async with here.client() as client:
        assert (await client.post("/pay", headers=JSON, content=pieces())).status_code == 422
    assert here.upstream.hits == []


async def test_what_was_read_is_on_record_without_its_secrets(world: MakeWorld) -> None:
    here = await world(RULES)
    secret = "correct-horse-battery"
    async with here.client() as client:
        await client.post("/pay", json={"to": "acct_1", "amount": 0, "password": secret})
        await client.post("/pay", json={"to": "acct_1", "amount": 1, "password": [secret]})
        await client.post("/mcp", headers=JSON, content=tool_call(f'{{"password": "{secret}"}}'))
    await here.proxy.stop()
    written = b"".join(path.read_bytes() for path in here.ledger.parent.glob("ledger.db*"))
    assert b"acct_1" in written
    assert secret.encode() not in written
    with closing(sqlite3.connect(f"file:{here.ledger}?mode=ro", uri=True)) as connection:
        assert connection.execute("select count(*) from calls where code = 'parameters-invalid'").fetchone() == (3,)
