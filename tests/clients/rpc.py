"""Run by the clients' own Python: grpcio as server and as client, with bytes for messages.

`rpc.py serve LEAF` prints its port, then every method that is called, and every message of the streams of its client;
`rpc.py call PORT` makes calls and `rpc.py talk PORT` holds streams open, and they print what came of each.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

CALLS = ("Get", "List", "Sum", "Echo", "Close", "Pay", "Pay", "Refuse", "Refuse")
"""A call of every kind, one that no rule allows, and writes that fail, twice."""

grpc = import_module("grpc")


def tell(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def get(request: bytes, context: Any) -> bytes:
    asked = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-asked-by", asked["x-agent"]),))
    context.set_trailing_metadata((("x-cost", "5"), ("x-raw-bin", b"\x00\xff")))
    return request[::-1]


def listed(request: bytes, context: Any) -> Any:
    yield from (request, request[::-1], request)


def summed(requests: Any, context: Any) -> bytes:
    return b"".join(requests)


def echoed(requests: Any, context: Any) -> Any:
    for request in requests:
        yield request[::-1]


def gone(request: bytes, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def refused(request: bytes, context: Any) -> None:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")


def chat(requests: Iterator[bytes], context: Any) -> Any:
    """Answers each message before the next one comes."""
    context.set_trailing_metadata((("x-cost", "5"),))
    for request in requests:
        tell(request.decode())
        yield request[::-1]


arrived = threading.Event()


def upload(requests: Iterator[bytes], context: Any) -> bytes:
    """Lets `Arrived` know of the first message before it reads the next."""
    got = []
    for request in requests:
        got.append(request)
        arrived.set()
    return b"+".join(got)


def wait(request: bytes, context: Any) -> bytes:
    return b"yes" if arrived.wait(30) else b"no"


def watch(requests: Any, context: Any) -> Any:
    """Says one thing and then nothing, until its client leaves."""
    left = threading.Event()
    context.add_callback(left.set)
    yield b"watching"
    left.wait(30)
    tell("left")


HANDLERS = {
    "Get": grpc.unary_unary_rpc_method_handler(get),
    "List": grpc.unary_stream_rpc_method_handler(listed),
    "Sum": grpc.stream_unary_rpc_method_handler(summed),
    "Echo": grpc.stream_stream_rpc_method_handler(echoed),
    "Pay": grpc.unary_unary_rpc_method_handler(gone),
    "Refuse": grpc.unary_unary_rpc_method_handler(refused),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Once": grpc.stream_stream_rpc_method_handler(chat),
    "Upload": grpc.stream_unary_rpc_method_handler(upload),
    "Arrived": grpc.unary_unary_rpc_method_handler(wait),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Listen": grpc.stream_stream_rpc_method_handler(watch),
}


def serve(leaf: Path) -> None:
    """Serve bank.Bank until killed."""

    def found(details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        tell(method)
        return HANDLERS.get(method)

    handler = type("Bank", (grpc.GenericRpcHandler,), {"service": lambda self, details: found(details)})()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(handler,))
    pem = leaf.read_bytes()
    tell(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)])))
    server.start()
    server.wait_for_termination()


def call(port: str) -> None:
    """Make every call of `CALLS`: method, code, details, answers, metadata."""
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials()) as channel:
        for method in CALLS:
            tell(json.dumps([method, *made(channel, method)]))


def made(channel: Any, method: str) -> tuple[str, str, list[str], dict[str, str]]:
    path, options = f"/bank.Bank/{method}", {"timeout": 30, "metadata": (("x-agent", "ada"),)}
    three = iter([b"abc", b"def", b"ghi"])
    try:
        if method == "List":
            got = channel.unary_stream(path)(b"abc", **options)
            said = list(got)
        elif method == "Sum":
            answer, got = channel.stream_unary(path).with_call(three, **options)
            said = [answer]
        elif method == "Echo":
            got = channel.stream_stream(path)(three, **options)
            said = list(got)
        else:
            answer, got = channel.unary_unary(path).with_call(b"abc", **options)
            said = [answer]
    except grpc.RpcError as error:
        return error.code().name, error.details(), [], {}
    metadata = {**dict(got.initial_metadata()), **dict(got.trailing_metadata())}
    kept = {name: value if isinstance(value, str) else value.hex() for name, value in metadata.items()}
    return got.code().name, got.details(), [each.decode() for each in said], kept


class Turns:
    """The requests of a client that says each thing only when it is told to."""

    def __init__(self) -> None:
        self._said: SimpleQueue[bytes | None] = SimpleQueue()

    def say(self, message: bytes | None) -> None:
        """None ends it."""
        self._said.put(message)

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._said.get()) is not None:
            yield message


def talk(port: str) -> None:
    """Streams, in turns."""
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials()) as channel:
        turns = Turns()
        made = channel.stream_stream("/bank.Bank/Chat")(iter(turns), timeout=30)
        heard = []
        for message in (b"one", b"two", b"three"):
            turns.say(message)
            heard.append(next(made).decode())
        turns.say(None)
        rest = [each.decode() for each in made]
        tell(json.dumps(["Chat", made.code().name, heard + rest, [list(each) for each in made.trailing_metadata()]]))

        turns = Turns()
        answer = channel.stream_unary("/bank.Bank/Upload").future(iter(turns), timeout=30)
        turns.say(b"first")
        said = channel.unary_unary("/bank.Bank/Arrived")(b"", timeout=30)
        turns.say(b"second")
        turns.say(None)
        tell(json.dumps(["Upload", answer.code().name, [said.decode(), answer.result().decode()]]))

        watching = channel.unary_stream("/bank.Bank/Watch")(b"", timeout=30)
        first = next(watching).decode()
        watching.cancel()
        tell(json.dumps(["Watch", watching.code().name, first]))

        listening = channel.stream_stream("/bank.Bank/Listen")(iter(Turns()), timeout=2)
        first = next(listening).decode()
        try:
            next(listening)
        except grpc.RpcError as error:
            tell(json.dumps(["Listen", error.code().name, first]))

        once = channel.stream_stream("/bank.Bank/Once")(iter([b"all", b"at once"]), timeout=30)
        tell(json.dumps(["Once", [each.decode() for each in once], once.code().name]))
        turns = Turns()
        turns.say(b"in turns")
        made = channel.stream_stream("/bank.Bank/Once")(iter(turns), timeout=30)
        try:
            next(made)
        except grpc.RpcError as error:
            tell(json.dumps(["Once", error.code().name, error.details()]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    elif sys.argv[1] == "call":
        call(sys.argv[2])
    else:
        talk(sys.argv[2])
