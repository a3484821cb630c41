"""Run by the clients' own Python: `generic.py CLIENT ORIGIN` makes one call for each method and body that CLIENT has.

Prints a line of JSON for each: case, method, path, status, and the digest of the body where its bytes are ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import Any

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
JSON = b'{"amount":500,"note":"\xc3\xbc"}'
BYTES = bytes(range(256)) * 400
CHUNK, CHUNKS = b"x" * 8192, 40
FORM = {"a": "1", "b": "ü"}
DIGESTS = {
    "none": hashlib.sha256().hexdigest(),
    "json": hashlib.sha256(JSON).hexdigest(),
    "bytes": hashlib.sha256(BYTES).hexdigest(),
    "stream": hashlib.sha256(CHUNK * CHUNKS).hexdigest(),
}
TYPES = {"json": {"Content-Type": "application/json"}, "bytes": {"Content-Type": "application/octet-stream"}}


def chunks() -> Iterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


async def chunks_later() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


def cases(kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for method in METHODS:
        for kind in ("none",) if method in ("GET", "HEAD") else kinds:
            yield method, kind


ALL = ("none", "json", "form", "multipart", "bytes", "stream")


def tell(client: str, method: str, kind: str, status: int) -> None:
    sys.stdout.write(json.dumps([method, path(client, kind), status, DIGESTS.get(kind)]) + "\n")


def path(client: str, kind: str) -> str:
    return f"/m/{client}/{kind}"


def with_requests(client: str, origin: str) -> None:
    with import_module("requests").Session() as session:
        for method, kind in cases(ALL):
            body: Any = {
                "none": {}, "json": {"data": JSON}, "form": {"data": FORM}, "bytes": {"data": BYTES},
                "multipart": {"files": {"f": ("f.bin", BYTES)}}, "stream": {"data": chunks()},
            }[kind]  # fmt: skip
            got = session.request(method, origin + path(client, kind), headers=TYPES.get(kind), timeout=30, **body)
            tell(client, method, kind, got.status_code)


def with_httpx(client: str, origin: str) -> None:
    with import_module("httpx").Client(http2=client.endswith("2"), timeout=30) as session:
        for method, kind in cases(ALL):
            body: Any = {
                "none": {}, "json": {"content": JSON}, "form": {"data": FORM}, "bytes": {"content": BYTES},
                "multipart": {"files": {"f": ("f.bin", BYTES)}}, "stream": {"content": chunks()},
            }[kind]  # fmt: skip
            got = session.request(method, origin + path(client, kind), headers=TYPES.get(kind), **body)
            tell(client, method, kind, got.status_code)


def with_aiohttp(client: str, origin: str) -> None:
    aiohttp = import_module("aiohttp")

    async def all_of_them() -> None:
        async with aiohttp.ClientSession() as session:
            for method, kind in cases(ALL):
                form = aiohttp.FormData()
                form.add_field("f", BYTES, filename="f.bin")
                body = {"json": JSON, "form": FORM, "bytes": BYTES, "multipart": form, "stream": chunks_later()}.get(
                    kind
                )
                async with session.request(
                    method, origin + path(client, kind), data=body, headers=TYPES.get(kind)
                ) as got:
                    await got.read()
                    tell(client, method, kind, got.status)

    asyncio.run(all_of_them())


def with_urllib3(client: str, origin: str) -> None:
    with import_module("urllib3").PoolManager(retries=False, timeout=30) as manager:
        for method, kind in cases(ALL):
            body: Any = {
                "none": {}, "json": {"body": JSON}, "bytes": {"body": BYTES},
                "stream": {"body": chunks(), "chunked": True},
                "form": {"fields": FORM, "encode_multipart": False},
                "multipart": {"fields": {"f": ("f.bin", BYTES)}},
            }[kind]  # fmt: skip
            if kind in ("form", "multipart") and method == "DELETE":
                continue  # it puts fields into the query there
            got = manager.request(method, origin + path(client, kind), headers=TYPES.get(kind), **body)
            tell(client, method, kind, got.status)


def with_urllib(client: str, origin: str) -> None:
    for method, kind in cases(("none", "json", "bytes", "stream")):
        body: Any = {"none": None, "json": JSON, "bytes": BYTES, "stream": chunks()}[kind]
        call = urllib.request.Request(origin + path(client, kind), body, TYPES.get(kind, {}), method=method)
        with urllib.request.urlopen(call, timeout=30, context=ssl.create_default_context()) as got:
            tell(client, method, kind, got.status)


def with_httplib2(client: str, origin: str) -> None:
    http = import_module("httplib2").Http(timeout=30)
    for method, kind in cases(("none", "json", "bytes")):
        body = {"none": None, "json": JSON, "bytes": BYTES}[kind]
        got, _ = http.request(origin + path(client, kind), method, body=body, headers=TYPES.get(kind))
        tell(client, method, kind, got.status)


CLIENTS = {
    "requests": with_requests,
    "httpx": with_httpx,
    "httpx-http2": with_httpx,
    "aiohttp": with_aiohttp,
    "urllib3": with_urllib3,
    "urllib": with_urllib,
    "httplib2": with_httplib2,
}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[1], sys.argv[2])
