"""What the server answers: as much of several APIs as their clients need, a package index, an npm registry, and git.

Paths that begin with `/failing`, `/cut` or `/cooldown` go wrong: 500, no answer at all, and 429 to the first request.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

WHEEL = "nothing-1.0-py3-none-any.whl"
JSON = (("Content-Type", "application/json"),)


class Asked(msgspec.Struct, frozen=True):
    """One whole request. `headers` have lower-case names."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    """`streamed`: its pieces go out one by one. `cut`: it breaks off instead."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON
    pieces: tuple[bytes, ...] = ()
    streamed: bool = False
    cut: bool = False


def answer(asked: Asked, directory: Path, origin: str, before: int) -> Answer:
    """What `asked` gets. `directory`: where repositories are. `before`: how many such requests there were already."""
    path = asked.path
    if path.startswith("/failing"):
        return Answer(500, pieces=(b'{"message": "it failed"}',))
    if path.startswith("/cut"):
        return Answer(cut=True)
    if path.startswith("/cooldown") and not before:
        return Answer(429, (*JSON, ("Retry-After", "30")), (b'{"message": "slow down"}',))
    if path.startswith("/git/"):
        return by_git(asked, directory)
    if path == "/simple/nothing/":
        return Answer(200, (("Content-Type", "text/html"),), (f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(),))
    if path == f"/files/{WHEEL}":
        return Answer(200, (("Content-Type", "application/octet-stream"),), (wheel(),))
    if path == "/npm/nothing":
        return Answer(pieces=(json.dumps(packument(origin)).encode(),))
    if path == "/npm/nothing/-/nothing-1.0.0.tgz":
        return Answer(200, (("Content-Type", "application/octet-stream"),), (tarball(),))
    if "uploads" in asked.query:
        document = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        return Answer(200, (("Content-Type", "application/xml"),), (document,))
    if b'"stream":true' in asked.body.replace(b" ", b"") and path.endswith(("/chat/completions", "/messages")):
        events = anthropic_events() if path.endswith("/messages") else openai_events()
        return Answer(200, (("Content-Type", "text/event-stream"),), events, streamed=True)
    return Answer(pieces=(json.dumps(reply(path)).encode(),))


def reply(path: str) -> dict[str, Any]:
    """An answer in the form that the API's own package wants."""
    if path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": "hello"}
        return {
            "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip
    if path.endswith("/messages"):
        return {
            "id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 1, "output_tokens": 1},
        }  # fmt: skip
    if "/refunds" in path:
        return {"id": "re_1", "object": "refund", "amount": 500}
    if path.endswith("/chat.postMessage"):
        return {"ok": True, "ts": "1.0"}
    if path.endswith("/graphql"):
        return {"data": {"createIssue": {"id": "1"}}}
    return {"ok": True, "path": path}


WORDS = ("Refunds", " are made", " by people.")


def openai_events() -> tuple[bytes, ...]:
    """A streamed completion, https://platform.openai.com/docs/api-reference/chat-streaming."""
    frame: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in WORDS]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [f"data: {json.dumps({**frame, 'choices': [choice]})}\n\n".encode() for choice in choices]
    return (*events, b"data: [DONE]\n\n")


def anthropic_events() -> tuple[bytes, ...]:
    """A streamed message, https://docs.anthropic.com/en/api/messages-streaming."""
    message: dict[str, Any] = {
        "id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    said: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": message}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}}) for word in WORDS),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 3}}),
        ("message_stop", {}),
    ]
    return tuple(f"event: {kind}\ndata: {json.dumps({'type': kind, **rest})}\n\n".encode() for kind, rest in said)


def by_git(asked: Asked, directory: Path) -> Answer:
    """What git's own server program says, https://git-scm.com/docs/git-http-backend; it is a CGI program (RFC 3875)."""
    environment = {
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROJECT_ROOT": str(directory),
        "PATH": os.environ["PATH"],
        "PATH_INFO": asked.path.removeprefix("/git"),
        "QUERY_STRING": asked.query,
        "REMOTE_USER": "a",
        "REQUEST_METHOD": asked.method,
        "CONTENT_TYPE": asked.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(asked.body)),
        "HTTP_CONTENT_ENCODING": asked.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": asked.headers.get("git-protocol", ""),
    }
    done = subprocess.run(["git", "http-backend"], input=asked.body, env=environment, capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    status = int(headers.pop("Status", "200").split()[0])
    return Answer(status, tuple(headers.items()), (body,))


def wheel() -> bytes:
    """A wheel with nothing in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        file.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


@cache
def tarball() -> bytes:
    """An npm package with nothing in it: one for all, since gzip writes the time into it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        text = b'{"name": "nothing", "version": "1.0.0"}'
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def packument(origin: str) -> dict[str, Any]:
    """What an npm registry says of that package."""
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball()).digest()).decode()
    dist = {"tarball": f"{origin}/npm/nothing/-/nothing-1.0.0.tgz", "integrity": integrity}
    version = {"name": "nothing", "version": "1.0.0", "dist": dist}
    return {"name": "nothing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
