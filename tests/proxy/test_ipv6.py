"""IPv6 on both sides: a proxy that listens on it, and upstreams by address and by name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest
import trustme

from proxy.ledger.query import LedgerReader
from proxy.settings import parse_address
from tests.proxy.conftest import MakeWorld, World
from tests.proxy.test_attacks import Wire, recorded


@pytest.fixture(autouse=True)
def spoken() -> None:
    """IPv6 has to be there."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.fixture
async def there(authority: trustme.CA) -> Any:
    """An upstream on [::1], and nowhere else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("six.example", "::1").configure_cert(context)
    one = Wire(context)
    server = await asyncio.start_server(one._serve, "::1", 0, ssl=context)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()


def allow(host: str, port: int) -> str:
    return f'version: 1\nrules: [{{id: all, match: "https://{host}:{port}/**", allow: true}}]'


async def ask(here: World, target: bytes, host: bytes, *, tls: bool = False) -> bytes:
    """The answer to GET `target`, by hand: httpx leaves out the brackets. In a tunnel to `host` with `tls`."""
    reader, writer = await asyncio.open_connection(*here.proxy.address)
    here.opened.append(writer)
    if tls:
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host))
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        await writer.start_tls(ssl.create_default_context(cafile=str(here.proxy.ca_path)), server_hostname="::1")
    writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, host))
    return await asyncio.wait_for(reader.read(), 5)


@pytest.mark.parametrize("listen", ["::1", "127.0.0.1"])
async def test_an_upstream_by_its_address(world: MakeWorld, there: Wire, listen: str) -> None:
    here = await world(allow("[::1]", there.port), listen_host=listen)
    for host in (b"[::1]:%d" % there.port, b"[0:0:0:0:0:0:0:1]:%d" % there.port):
        assert (await ask(here, b"/a", host, tls=True)).startswith(b"HTTP/1.1 200 ")
    assert there.lines == [b"GET /a HTTP/1.1"] * 2
    assert b"no-allow" in await ask(here, b"http://[::2]/a", b"[::2]")
    assert await recorded(here) == [*[("GET /a", "allow", "done")] * 2, ("GET /a", "no-allow", None)]
    with LedgerReader.open(here.ledger) as reader:
        boot = reader.status().boot
    assert boot is not None and parse_address(str(boot["listen"])) == here.proxy.address
    assert here.proxy.address[0] == listen


@pytest.mark.parametrize("family", ["::1 alone", "::1 after an address where nobody listens"])
async def test_an_upstream_by_its_name(
    world: MakeWorld, there: Wire, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    resolve = socket.getaddrinfo

    def answered(host: Any, *rest: Any, **hints: Any) -> Any:
        if host != "six.example":
            return resolve(host, *rest, **hints)
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", there.port, 0, 0))
        four = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", there.port))
        return [six] if family == "::1 alone" else [four, six]

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    here = await world(allow("six.example", there.port))
    async with here.client() as client:
        assert (await client.get(f"https://six.example:{there.port}/a")).text == "ok"
    assert there.lines == [b"GET /a HTTP/1.1"]


async def test_a_wildcard_does_not_reach_this_machine(
    world: MakeWorld, there: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", there.port, 0, 0))
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **hints: [six] if "six" in str(host) else resolve(host, *rest, **hints),
    )
    here = await world(allow("*.example", there.port))
    async with here.client() as client:
        got = await client.get(f"https://six.example:{there.port}/a")
    assert (got.status_code, got.json()["code"]) == (403, "destination-refused")
    assert there.connections == 0


async def test_our_own_address_is_refused(world: MakeWorld) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
        own = probe.getsockname()[1]
    here = await world(f'version: 1\nrules: [{{id: all, match: "http://[::1]:{own}/**", allow: true}}]',
                       listen_host="::1", listen_port=own)  # fmt: skip
    assert b"destination-refused" in await ask(here, b"http://[::1]:%d/a" % own, b"[::1]:%d" % own)
    assert [row[1:] for row in await recorded(here)] == [("allow", "not_executed")]
