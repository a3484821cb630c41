"""Run by the clients' own Python: grpcio as server and as client, with bytes for messages.

`rpc.py serve LEAF` prints its port, then every method that is called; `rpc.py call PORT` makes calls, and prints what
came of each.
"""

from __future__ import annotations

import json
import sys
from concurrent import futures
from importlib import import_module
from pathlib import Path
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


def serve(leaf: Path) -> None:
    """Serve bank.Bank until killed."""
    acts = {"Pay": gone, "Refuse": refused}

    def found(details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        tell(method)
        if method == "List":
            return grpc.unary_stream_rpc_method_handler(many)
        return grpc.unary_unary_rpc_method_handler(acts.get(method, one))

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


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        call(sys.argv[2])
