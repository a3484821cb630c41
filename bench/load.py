"""The load generator of the benchmark: keep-alive connections through a proxy, each with one request at a time.

Every request is a POST of 200 bytes that no other request equals. A process of its own. Usage:
`python load.py PROXY_PORT UPSTREAM_PORT CA_FILE CONNECTIONS SECONDS`. Prints a line when it begins to measure, and then
one `Load` as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import ssl
import sys
import time

import msgspec

BODY_BYTES = 200
WARM_UP_S = 0.4


class Load(msgspec.Struct, frozen=True):
    """What was measured, after warming up. `failures` are answers other than 200."""

    requests: int
    failures: int
    seconds: float
    p50_us: int
    p99_us: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class Client:
    """Everything that the connections share."""

    def __init__(self, proxy_port: int, upstream_port: int, ca_file: str) -> None:
        self._proxy_port = proxy_port
        self._authority = f"localhost:{upstream_port}"
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._numbers = itertools.count()
        self._run = secrets.token_hex(8)
        self.begin_ns = 0
        self.end_ns = sys.maxsize
        self.taken_ns: list[int] = []
        self.failures = 0

    def request(self) -> bytes:
        body = f'{{"run":"{self._run}","number":{next(self._numbers)},"text":"'.encode()
        body = body.ljust(BODY_BYTES - 2, b"x") + b'"}'
        return (
            f"POST /v1/things HTTP/1.1\r\nHost: {self._authority}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy_port)
        writer.write(f"CONNECT {self._authority} HTTP/1.1\r\nHost: {self._authority}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        await writer.start_tls(self._tls, server_hostname="localhost")
        return reader, writer

    async def drive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            began_ns = time.perf_counter_ns()
            if began_ns >= self.end_ns:
                break
            writer.write(self.request())
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
            ended_ns = time.perf_counter_ns()
            if self.begin_ns <= began_ns and ended_ns <= self.end_ns:
                self.taken_ns.append(ended_ns - began_ns)
                self.failures += not head.startswith(b"HTTP/1.1 200")
        writer.close()


async def main(proxy_port: int, upstream_port: int, ca_file: str, connections: int, seconds: float) -> None:
    client = Client(proxy_port, upstream_port, ca_file)
    streams = [await client.connect() for _ in range(connections)]
    asyncio.get_running_loop().call_later(WARM_UP_S, lambda: print("measuring", flush=True))
    client.begin_ns = time.perf_counter_ns() + int(WARM_UP_S * 1e9)
    client.end_ns = client.begin_ns + int(seconds * 1e9)
    await asyncio.gather(*(client.drive(*stream) for stream in streams))
    taken = sorted(client.taken_ns)
    load = Load(
        requests=len(taken),
        failures=client.failures,
        seconds=seconds,
        p50_us=taken[len(taken) // 2] // 1000,
        p99_us=taken[len(taken) * 99 // 100] // 1000,
    )
    print(msgspec.json.encode(load).decode())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
