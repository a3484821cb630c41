"""The host that the proxy answers itself: its certificate, with instructions, and probes of `borderpost doctor`.

`borderpost.invalid`, because names under `.invalid` never exist (RFC 2606, RFC 6761 6.4): no real host is hidden by it,
a client that goes round the proxy fails at once, and nobody else is asked. `.local` would be asked for in the network
(RFC 6762), and browsers take `.localhost` for this machine, past every proxy.

Nothing of it leaves, so nothing of it is on record: it is no call of an agent to anybody.
"""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from string import Template
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from proxy.refusal import Reply
from rules.call import Call

NAME = "borderpost.invalid"

PROBES = f".probe.{NAME}"
"""Hosts under it answer every request."""

PROBES_CAP = 10_000

PAGE = Path(__file__).with_name("ownhost.html")

type Seen = Literal["connected", "refused", "through"]
"""How far a client came: a tunnel was opened, its TLS ended before a request, or a request came."""

_HARMLESS = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)


class OwnHost:
    """Answers for `NAME`, and remembers which probes came how far: `probes`, by host."""

    def __init__(self, ca_pem: bytes) -> None:
        self._ca = x509.load_pem_x509_certificate(ca_pem)
        self.probes: dict[str, Seen] = {}

    def connected(self, host: str) -> None:
        """A client opened a tunnel to `host`."""
        self._note(host, "connected")

    def refused(self, host: str) -> None:
        """A client broke TLS with `host` off."""
        self._note(host, "refused")

    def answer(self, call: Call) -> Reply | None:
        """The answer to `call`, or None when it is for another host."""
        if call.host.endswith(PROBES):
            self._note(call.host, "through")
            return _reply(call, 200, "application/json", msgspec.json.encode({"probe": call.host}))
        if call.host != NAME:
            return None
        if call.method not in ("GET", "HEAD"):
            return _reply(call, 405, "text/plain; charset=utf-8", b"Only GET and HEAD.\n", ("allow", "GET, HEAD"))
        if call.path == "/":
            return _reply(call, 200, "text/html; charset=utf-8", self._page())
        if call.path == "/ca.pem":
            pem = self._ca.public_bytes(serialization.Encoding.PEM)
            return _reply(call, 200, "application/x-pem-file", pem, _file("borderpost-ca.pem"))
        if call.path == "/ca.crt":
            der = self._ca.public_bytes(serialization.Encoding.DER)
            return _reply(call, 200, "application/x-x509-ca-cert", der, _file("borderpost-ca.crt"))
        return _reply(call, 404, "text/plain; charset=utf-8", f"Nothing is here: see http://{NAME}/\n".encode())

    def _page(self) -> bytes:
        digest = hashlib.sha256(self._ca.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
        filled = {
            "name": NAME,
            "subject": html.escape(self._ca.subject.rfc4514_string()),
            "fingerprint": ":<wbr>".join(digest[at : at + 2] for at in range(0, len(digest), 2)),
            "until": f"{self._ca.not_valid_after_utc:%d %B %Y}",
        }
        return Template(PAGE.read_text()).substitute(filled).encode()

    def _note(self, host: str, seen: Seen) -> None:
        known = self.probes.get(host)
        if host.endswith(PROBES) and known != "through" and (known or len(self.probes) < PROBES_CAP):
            self.probes[host] = seen


def _file(name: str) -> tuple[str, str]:
    return ("content-disposition", f'attachment; filename="{name}"')


def _reply(call: Call, status: int, media_type: str, body: bytes, *more: tuple[str, str]) -> Reply:
    reason = {200: "OK", 404: "Not Found", 405: "Method Not Allowed"}[status]
    headers = (("content-type", media_type), ("content-length", str(len(body))), *_HARMLESS, *more)
    return Reply(status, reason, headers, b"" if call.method == "HEAD" else body)
