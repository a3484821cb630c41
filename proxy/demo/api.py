"""A small payments and search API on loopback, with real TLS. It counts what reaches it: that count is the truth.

HTTP/1.1 with keep-alive, as much of it as ordinary clients use. Refunds take their time, as they do elsewhere: the
money moves when the request arrives, the answer comes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

REFUND_TAKES_S = 0.8


class Counts(msgspec.Struct, frozen=True):
    """What reached the API. Amounts are in cents; `searches_per_second` is from the first search to the last."""

    refunds: int
    refunded: int
    deletions: int
    searches: int
    searches_per_second: int


class Api:
    """The API, for as long as an `async with` lasts. `authority` is the certificate that its clients have to trust."""

    def __init__(self, directory: Path) -> None:
        self.authority = directory / "api-ca.pem"
        self.port = 0
        self._tls = _tls(directory, self.authority)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._refunds: list[int] = []
        self._deletions: list[str] = []
        self._searches_ns: list[int] = []

    @property
    def counts(self) -> Counts:
        """What has reached the API so far."""
        return Counts(
            refunds=len(self._refunds),
            refunded=sum(self._refunds),
            deletions=len(self._deletions),
            searches=len(self._searches_ns),
            searches_per_second=rate(self._searches_ns),
        )

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1, and on the same of ::1 where there is one: `localhost` may be either."""
        first = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._servers.append(first)
        self.port = first.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):
            self._servers.append(await asyncio.start_server(self._serve, "::1", self.port, ssl=self._tls))
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close everything."""
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the demo is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. False when it was the last on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ")
        status, answer = await self._answer(method, target, body.decode())
        content = json.dumps(answer).encode() + b"\n"
        keep = headers.get("connection", "").lower() != "close"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return keep

    async def _answer(self, method: str, target: str, body: str) -> tuple[str, dict[str, object]]:
        parts = urlsplit(target)
        match method, parts.path.split("/")[2:]:
            case "GET", ["charges", charge]:
                return "200 OK", {"id": charge, "amount": 4200, "customer": "cus_42"}
            case "POST", ["refunds"]:
                form = parse_qs(body)
                self._refunds.append(int(form["amount"][0]))
                number = len(self._refunds)
                await asyncio.sleep(REFUND_TAKES_S)
                return "200 OK", {"id": f"re_{number}", "charge": form["charge"][0], "status": "succeeded"}
            case "GET", ["search"]:
                self._searches_ns.append(time.monotonic_ns())
                return "200 OK", {"query": parse_qs(parts.query)["q"][0], "results": []}
            case "DELETE", ["customers", customer]:
                self._deletions.append(customer)
                return "200 OK", {"id": customer, "deleted": True}
        return "404 Not Found", {"error": "no such thing"}


def rate(times_ns: Sequence[int]) -> int:
    """How many a second, from the first of `times_ns` (ascending) to the last; 0 where there are not two."""
    took_ns = times_ns[-1] - times_ns[0] if times_ns else 0
    return round((len(times_ns) - 1) * 1e9 / took_ns) if took_ns else 0


def _tls(directory: Path, authority: Path) -> ssl.SSLContext:
    """A server's context for `localhost`, its certificate made for this one run; writes the authority's file."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = _name("Borderpost demo API CA"), _name("localhost")
    ca_key_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _certificate(ca_name, ca_name, ca_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(ca_key_id, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _certificate(name, ca_name, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key_id), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority.write_bytes(ca.public_bytes(pem))
    chain = directory / "api.pem"
    chain.touch(mode=0o600)
    chain.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + leaf.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    """A certificate for this day, still to be given its extensions and signed."""
    day = datetime.timedelta(days=1)
    return x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
