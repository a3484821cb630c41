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

CALLS = ("Get", "List", "Close", "Pay", "Pay", "Refuse", "Refuse")

grpc = import_module("grpc")


def tell(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def one(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-cost", "5"),))
    return request[::-1]


def many(request: bytes, context: Any) -> Any:
    yield from (request, request[::-1], request)


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


def serve(leaf: Path) -> None:
    """Serve bank.Bank until killed."""
    made = {
        "List": grpc.unary_stream_rpc_method_handler(many),
        "Pay": grpc.unary_unary_rpc_method_handler(gone),
        "Refuse": grpc.unary_unary_rpc_method_handler(refused),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Once": grpc.stream_stream_rpc_method_handler(chat),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Arrived": grpc.unary_unary_rpc_method_handler(wait),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Listen": grpc.stream_stream_rpc_method_handler(watch),
    }
    usual = grpc.unary_unary_rpc_method_handler(one)

    def found(details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        tell(method)
        return made.get(method, usual)

    handler = type("Bank", (grpc.GenericRpcHandler,), {"service": lambda self, details: found(details)})()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(handler,))
    pem = leaf.read_bytes()
    tell(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)])))
    server.start()
    server.wait_for_termination()


def call(port: str) -> None:
    """Make every call of `CALLS`."""
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials()) as channel:
        for method in CALLS:
            path, said = f"/bank.Bank/{method}", []
            try:
                if method == "List":
                    got = channel.unary_stream(path)(b"abc", timeout=30)
                    said, code = [each.decode() for each in got], got.code().name
                else:
                    answer, made = channel.unary_unary(path).with_call(b"abc", timeout=30)
                    said, code = [answer.decode(), *map(list, made.trailing_metadata())], made.code().name
            except grpc.RpcError as error:
                code = error.code().name
            tell(json.dumps([method, code, said]))


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
