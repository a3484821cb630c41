"""A large upload and a large download through a proxy in a process of its own, whose memory stays as it was.

32 MiB each here; `make large` sends 1 GiB.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

MIB = 1024 * 1024
SIZE = int(os.environ.get("BORDERPOST_LARGE_MIB", "32")) * MIB
GROWTH_CAP = 16 * MIB
"""What is on its way at any time: what sockets, TLS and both ends of the proxy hold back."""
PIECE = bytes(range(256)) * 1024
HOUSE = Path(__file__).parents[2]

RULES = """
version: 1
tools: {pay: POST ORIGIN/pay}
rules:
  - {id: all, match: "ORIGIN/**", allow: true}
  - {id: pay, tool: pay, dedupe: 1h}
"""


class Upstream:
    """Takes uploads and gives downloads. `got`: how much of the last upload came, and its hash."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self.got = (0, "")

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"POST"):
                    self.got = await digest(reader, SIZE)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                elif b" /small " in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
                    await send(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def send(writer: asyncio.StreamWriter) -> None:
    for _ in range(SIZE // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def digest(reader: asyncio.StreamReader, size: int) -> tuple[int, str]:
    """How many of the next `size` bytes come, and their hash."""
    came, hashed = 0, hashlib.sha256()
    while came < size and (data := await reader.read(min(MIB, size - came))):
        came += len(data)
        hashed.update(data)
    return came, hashed.hexdigest()


def expected() -> tuple[int, str]:
    hashed = hashlib.sha256()
    for _ in range(SIZE // len(PIECE)):
        hashed.update(PIECE)
    return SIZE, hashed.hexdigest()


def resident_peak(process: Any) -> int:
    """The most memory that the process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def begin_anew(process: Any) -> int:
    """Forget the peak until now, since that of the start was higher; what the process has at present."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return resident_peak(process)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_memory_stays_flat(authority: trustme.CA, upstream: Any, tmp_path: Path) -> None:
    far = Upstream(upstream.tls)
    port = await far.start()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "borderpost.yaml").write_text(RULES.replace("ORIGIN", f"https://localhost:{port}"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "serve", "--listen", "127.0.0.1:0", "--upstream-ca", "ca.pem"),
        *("--ledger", "ledger.db", "--confdir", "confdir"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(HOUSE)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said = await asyncio.wait_for(process.stderr.readline(), 120)
        listening = re.search(rb"http://127\.0\.0\.1:(\d+)", said)
        assert listening, said
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listening[1]))
        host = b"localhost:%d" % port
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        trust = ssl.create_default_context(cafile=str(tmp_path / "confdir" / "ca.pem"))
        await writer.start_tls(trust, server_hostname="localhost")
        writer.write(b"GET /small HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        before = begin_anew(process)

        writer.write(b"POST /up HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (host, SIZE))
        await send(writer)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert far.got == expected()
        uploaded = resident_peak(process)

        writer.write(b"GET /down HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await digest(reader, SIZE) == expected()
        downloaded = resident_peak(process)
        writer.close()
    finally:
        process.terminate()
        await process.wait()
        far.stop()
    grown = [(peak - before) / MIB for peak in (uploaded, downloaded)]
    sys.stdout.write(f"{SIZE // MIB} MiB each way; the proxy's peak grew by {grown[0]:.1f} and {grown[1]:.1f} MiB\n")
    assert max(uploaded, downloaded) - before < GROWTH_CAP
