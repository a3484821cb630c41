"""How long the first event of a stream takes: through Borderpost, bare mitmproxy, and stock `mitmdump` told to stream.

A POST over HTTPS with 1,000 rules, `dedupe` and `throttle`, as in `bench_proxy`; answered by an event at once, and a
second one a little later. One call after another, the proxies in turns, each on a kept connection. Measured is the
time from the request to the first event; only the differences mean something elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trustme

from bench.bench_proxy import BARE, OURS, REFERENCE, authority, commands, free_port, running, wait_for

PROXIES = (REFERENCE, BARE, OURS)
DIRECT = "direct"
STREAM_ALL = "def responseheaders(flow):\n    flow.response.stream = True\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"d\r\ndata: hello\n\n\r\n"
END = b"0\r\n\r\n"
PAUSE_S = 0.002
WARM_UP = 20


def disk_ms() -> float:
    """How long the disk takes to keep a page, at the median: what every decision of Borderpost waits for."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


async def serve(chain: str) -> None:
    """The upstream, in a process of its own. Prints its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(HEAD + EVENT)
                await asyncio.sleep(PAUSE_S)
                writer.write(EVENT + END)
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Client:
    """One connection to the upstream, through the proxy on `port` or directly."""

    def __init__(self, port: int, upstream_port: int, ca: Path) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._host = f"localhost:{upstream_port}"
        if port != upstream_port:
            plain.sendall(f"CONNECT {self._host} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
            assert b" 200 " in plain.recv(65536)
        self._socket = ssl.create_default_context(cafile=str(ca)).wrap_socket(plain, server_hostname="localhost")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def first_event_ms(self) -> float:
        """Make a call; how long its first event took."""
        body = b'{"n": %d}' % random.getrandbits(60)  # no two calls are duplicates
        head = f"POST /v1/things HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        begun = time.perf_counter()
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = b""
        while b"data: hello\n\n" not in got:
            got += (data := self._socket.recv(65536))
            assert data, "the connection was closed"
        took = time.perf_counter() - begun
        assert got.startswith(b"HTTP/1.1 200 "), got
        assert END not in got, "the stream was held back until its end"
        while END not in got:
            got += self._socket.recv(65536)
        return took * 1000


def measure(calls: int) -> dict[str, list[float]]:
    """The time of every call, by proxy."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="borderpost-bench-")))
        made = trustme.CA()
        made.cert_pem.write_to_path(directory / "upstream-ca.pem")
        made.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(directory / "upstream.pem")
        serving = [sys.executable, "-m", "bench.bench_stream", "--serve", str(directory / "upstream.pem")]
        upstream = stack.enter_context(running(serving, stdout=subprocess.PIPE))
        assert upstream.stdout is not None
        ports = {name: free_port() for name in PROXIES} | {DIRECT: int(upstream.stdout.readline())}
        started = commands(directory, ports[DIRECT], directory / "upstream-ca.pem", ports)
        (directory / "stream_all.py").write_text(STREAM_ALL)
        started[REFERENCE] += ["-s", str(directory / "stream_all.py")]
        log = stack.enter_context((directory / "log").open("w"))
        for name in PROXIES:
            process = stack.enter_context(running(started[name], stdout=log, stderr=log))
            wait_for(ports[name], process)
        clients = {name: Client(ports[name], ports[DIRECT], authority(directory, name)) for name in PROXIES}
        clients[DIRECT] = Client(ports[DIRECT], ports[DIRECT], directory / "upstream-ca.pem")
        took: dict[str, list[float]] = {name: [] for name in clients}
        for number in range(WARM_UP + calls):
            for name, client in clients.items():
                one = client.first_event_ms()
                if number >= WARM_UP:
                    took[name].append(one)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="through each (%(default)s)")
    parser.add_argument("--serve", metavar="CHAIN", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve))
        return
    took = measure(args.calls)
    print(f"{'first event':<12}{'p50 ms':>9}{'p99 ms':>9}   load {os.getloadavg()[0]:.1f}")
    for name, each in took.items():
        print(f"{name:<12}{statistics.median(each):>9.2f}{statistics.quantiles(each, n=100)[98]:>9.2f}")
    over = {
        name: statistics.median(our - their for our, their in zip(took[OURS], took[name], strict=True))
        for name in (REFERENCE, BARE)
    }
    for name, added in over.items():
        print(f"Borderpost's comes {added:+.2f} ms after that of {name}, at the median of {args.calls} pairs")
    print(f"of which the disk takes {disk_ms():.2f} ms: the decision is on it before the call leaves")


if __name__ == "__main__":
    main()
