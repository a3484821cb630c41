"""Two servers on loopback: a shop's API that counts what reaches it, and a language model that follows a script.

The model speaks as OpenAI's chat completions do, whole or streamed, so that every framework runs without a key. What it
says next depends on the conversation alone: on the task in it, and on what its tool has answered so far.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

PATIENCE = 40
"""So often the model tries what fails, if nothing but its own patience ends it."""


class Do(NamedTuple):
    """A step: what the model wants to have done. Agents with tools for it are told to call that tool, agents with one
    tool for the whole API to send the request."""

    tool: str
    arguments: dict[str, Any]


CHARGE = Do("read_charge", {"charge": "ch_1"})
REFUND = Do("refund", {"charge": "ch_1", "amount": 500})
FORCED = Do("refund", {"charge": "ch_1", "amount": 500, "force": True})
REPORT = Do("make_report", {"month": "may"})
DELETE = Do("delete_charge", {"charge": "ch_1"})

ROUTES = {
    "read_charge": ("GET", "/v1/charges/{charge}"),
    "refund": ("POST", "/v1/refunds"),
    "make_report": ("POST", "/v1/reports"),
    "delete_charge": ("DELETE", "/v1/charges/{charge}"),
}

type Step = Do | str
"""What to do next, or the last words."""


def normal(told: list[str]) -> Step:
    """Read the charge, refund it."""
    return (CHARGE, REFUND)[len(told)] if len(told) < 2 else f"Refunded. {told[-1]}"


def twice(told: list[str]) -> Step:
    """The plan is made anew, and the refund with it."""
    return (CHARGE, REFUND, REFUND)[len(told)] if len(told) < 3 else f"Refunded. {told[-1]}"


def undefined(told: list[str]) -> Step:
    """A parameter is invented. If somebody says so, it is left out."""
    if len(told) < 2:
        return [CHARGE, FORCED][len(told)]
    return REFUND if len(told) == 2 and refused(told[1]) and "force" in told[1] else f"Refunded. {told[-1]}"


def order(told: list[str]) -> Step:
    """The refund comes first. If somebody says what has to come before it, that is done."""
    if not told:
        return REFUND
    if refused(told[0]) and len(told) < 3:
        return [CHARGE, REFUND][len(told) - 1]
    return f"Refunded. {told[-1]}"


def retry(told: list[str]) -> Step:
    """What fails is tried again, until it works or somebody says that it will not."""
    if told and ("Do not repeat" in told[-1] or "again and again" in told[-1]):
        return f"I gave up: {told[-1]}"
    return REPORT if len(told) < PATIENCE else f"I gave up: {told[-1]}"


def delete(told: list[str]) -> Step:
    """What nobody asked for is deleted. If somebody says that it may not be, that is passed on."""
    if not told:
        return DELETE
    return f"I may not: {told[0]}" if refused(told[0]) else f"Deleted. {told[0]}"


def refused(answer: str) -> bool:
    """Whether the answer says in so many words that nothing came of the call."""
    return "othing was executed" in answer


SCRIPTS: dict[str, Callable[[list[str]], Step]] = {
    "normal": normal, "twice": twice, "undefined": undefined, "order": order, "retry": retry, "delete": delete,
}  # fmt: skip
"""The word in the task -> what the model does."""


class Server(ThreadingHTTPServer):
    """The shop and the model, on one port. `counts` is what reached the shop."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.counts: Counter[str] = Counter()
        self.read: set[str] = set()
        self.lock = threading.Lock()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def begin(self) -> None:
        """Serve, in a thread."""
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Charges."""
        path = urlsplit(self.path).path
        if not path.startswith("/v1/charges/"):
            self._answer(404, {"error": "there is no such thing"})
            return
        with self.server.lock:
            self.server.counts["reads"] += 1
            self.server.read.add(path.rpartition("/")[2])
        self._answer(200, {"id": path.rpartition("/")[2], "amount": 500, "paid": True})

    def do_DELETE(self) -> None:
        """Charges, gone for good."""
        self.server.counts["deleted"] += 1
        self._answer(200, {"id": self.path.rpartition("/")[2], "deleted": True})

    def do_POST(self) -> None:
        """Refunds, reports, and what the model says."""
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("/chat/completions"):
            self._speak(json.loads(content))
        elif self.path == "/v1/refunds":
            self._refund({name: values[0] for name, values in parse_qs(content.decode()).items()})
        elif self.path == "/v1/reports":
            self.server.counts["reports"] += 1
            self._answer(500, {"error": "the report could not be made"})
        else:
            self._answer(404, {"error": "there is no such thing"})

    def _refund(self, form: dict[str, str]) -> None:
        """The money moves, whatever else is said."""
        with self.server.lock:
            self.server.counts["refunds"] += 1
            self.server.counts["unread"] += form.get("charge", "") not in self.server.read
            self.server.counts["forced"] += "force" in form
            number = self.server.counts["refunds"]
        self._answer(200, {"id": f"re_{number}", "status": "succeeded"})

    def _speak(self, asked: dict[str, Any]) -> None:
        messages = asked["messages"]
        task = next(_text(one) for one in messages if one["role"] == "user")
        script = next(script for word, script in SCRIPTS.items() if f"task: {word}" in task)
        told = [_text(one) for one in messages if one["role"] == "tool"]
        message, ending = _message(script(told), len(told), asked)
        if asked.get("stream"):
            self._stream(message, ending, asked)
            return
        choice = {"index": 0, "message": message, "finish_reason": ending}
        self._answer(200, {**_frame(asked, "chat.completion"), "choices": [choice], "usage": USAGE})

    def _stream(self, message: dict[str, Any], ending: str, asked: dict[str, Any]) -> None:
        """The message as server-sent events."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for delta, done in ((message, None), ({}, ending)):
            for call in delta.get("tool_calls") or ():
                call["index"] = 0
            choice = {"index": 0, "delta": delta, "finish_reason": done}
            self._event({**_frame(asked, "chat.completion.chunk"), "choices": [choice]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._event({**_frame(asked, "chat.completion.chunk"), "choices": [], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _answer(self, status: int, said: dict[str, Any]) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def _frame(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_767_225_600, "model": asked["model"]}


def _message(step: Step, number: int, asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What the model says: a call of a tool that it was given, or its last words."""
    if isinstance(step, str):
        return {"role": "assistant", "content": step}, "stop"
    tool, arguments = _as_called(step, [tool["function"]["name"] for tool in asked["tools"]])
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _as_called(do: Do, offered: list[str]) -> tuple[str, dict[str, Any]]:
    if do.tool in offered:
        return do
    (tool,) = offered
    method, path = ROUTES[do.tool]
    fields = json.dumps(do.arguments) if method == "POST" else ""
    return tool, {"method": method, "path": path.format(**do.arguments), "fields": fields}


def _text(message: dict[str, Any]) -> str:
    """The content of a message; some clients send it in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
