"""Our own, lean embedding of mitmproxy: its options set and verified, its TLS, our hooks, and nothing else.

No addon chain, no scripts, no `config.yaml`, no event bus: a hook is a function in a table (stock dispatch walks some
34 addons twice a hook, the largest cost of a request).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mitmproxy.ctx
from mitmproxy import addonmanager, certs, http, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.connection import Server
from mitmproxy.net.tls import create_proxy_server_context
from mitmproxy.proxy import mode_specs
from mitmproxy.tls import TlsData

from proxy.addon import UPSTREAM_TIMEOUT_S, Addon
from proxy.chain import UpstreamProxy
from proxy.clientcert import ClientCerts
from proxy.handler import Handler, Hooks

SECURITY_OPTIONS: dict[str, object] = {
    "allow_hosts": [],  # not an allow list: other hosts would be tunnelled raw
    "body_size_limit": None,  # tested before anything is decided; ours is per call
    "connection_strategy": "lazy",  # eager dials before any rule
    "http3": False,
    "ignore_hosts": [],
    "mode": ["regular"],
    "onboarding": False,
    "rawtcp": False,
    "ssl_insecure": False,
    "stream_large_bodies": None,  # would send a body before it is decided
    "tcp_hosts": [],
    "tcp_timeout": int(UPSTREAM_TIMEOUT_S),
    "udp_hosts": [],
    "upstream_cert": False,  # would dial upstream to make a certificate
    "validate_inbound_headers": True,
    "websocket": False,
}
"""What a deployment must not differ in. Set explicitly, and verified before the first connection is accepted."""

LEAF_CERTIFICATES = 10_000
"""mitmproxy keeps 100; a miss costs 2 ms."""


class MasterError(Exception):
    """The engine cannot start. The text is one line for the operator."""


class Master:
    """The engine: listens, and runs mitmproxy's layers with our hooks. `certificates` is the confdir with the CA.

    `client_certs`: the directory of certificates for upstreams. `through`: the proxy that everything goes through.
    """

    def __init__(
        self,
        addon: Addon,
        certificates: Path,
        upstream_ca: Path,
        client_certs: Path | None = None,
        through: UpstreamProxy | None = None,
    ) -> None:
        self._options = _options(certificates, upstream_ca, client_certs)
        self._through = through
        self._mode = mode_specs.ProxyMode.parse("regular")
        self._tls = TlsConfig()
        mitmproxy.ctx.options = self._options
        self._tls.load(addonmanager.Loader(self))
        certs.CertStore.STORE_CAP = LEAF_CERTIFICATES
        _skip_message_checks()
        self._tls.configure({"confdir"})
        self._client_certs = ClientCerts(client_certs) if client_certs is not None else None
        self._hooks = _hooks(self._tls, addon, self._renew)
        self._server: asyncio.Server | None = None
        self._elsewhere = False
        self._clients: dict[Handler, asyncio.Event] = {}
        verify(self._options)

    def _renew(self, data: TlsData) -> None:
        """Have a client certificate read again that was changed: mitmproxy keeps what it has made of one."""
        if self._client_certs is None or not isinstance(data.conn, Server) or data.conn.address is None:
            return
        if self._client_certs.changed(data.conn.sni or data.conn.address[0]):
            create_proxy_server_context.cache_clear()

    @property
    def options(self) -> options.Options:
        """For mitmproxy's addons, which register their options here."""
        return self._options

    async def listen(self, host: str, port: int, listener: socket.socket | None = None) -> tuple[str, int]:
        """Begin to accept clients. The address that we really listen on. Raises `OSError` when it is taken.

        `listener`: a socket that listens already, in a network of its own: then its address says nothing of ours.
        """
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        self._elsewhere = listener is not None
        if listener is not None:
            self._server = await asyncio.start_server(self._accept, sock=listener, backlog=1024)
        else:
            self._server = await asyncio.start_server(self._accept, host, port, backlog=1024)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    @property
    def addresses(self) -> frozenset[tuple[str, int]]:
        """The addresses that we listen on: no call may be sent there."""
        sockets: Iterable[Any] = self._server.sockets if self._server is not None and not self._elsewhere else ()
        return frozenset((str(one.getsockname()[0]), int(one.getsockname()[1])) for one in sockets)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = Handler(reader, writer, self._options, self._mode, self._hooks, self._through)
        self._clients[handler] = ended = asyncio.Event()
        try:
            await handler.handle_client()
        finally:
            ended.set()
            del self._clients[handler]

    def look(self) -> None:
        """Have everything that goes on see whether it still may: the rules have changed, or a person said something."""
        for handler in list(self._clients):
            handler.look()

    def stop_listening(self) -> None:
        """Accept no more clients; those that are connected stay."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """End every connection."""
        self.stop_listening()
        ended = list(self._clients.values())
        for handler in list(self._clients):
            handler.abort()
        for event in ended:
            await event.wait()


def _options(certificates: Path, upstream_ca: Path, client_certs: Path | None) -> options.Options:
    """mitmproxy's options, with those of the two addons that the layers read."""
    opts = options.Options()

    class _Owner:
        options = opts

    Proxyserver().load(addonmanager.Loader(_Owner))
    known = {name: value for name, value in SECURITY_OPTIONS.items() if name in opts}
    opts.update(
        **known,
        confdir=str(certificates),
        ssl_verify_upstream_trusted_ca=str(upstream_ca),
        client_certs=str(client_certs.absolute()) if client_certs is not None else None,
        add_upstream_certs_to_client_chain=False,
    )
    return opts


def verify(opts: options.Options) -> None:
    """Raise `MasterError` unless every security option that this mitmproxy knows has the value that it must have."""
    for name, wanted in SECURITY_OPTIONS.items():
        if name in opts and getattr(opts, name) != wanted:
            raise MasterError(f"refusing to start: mitmproxy's option `{name}` is not {wanted!r}")


def _hooks(tls: TlsConfig, addon: Addon, renew: Callable[[TlsData], None]) -> Hooks:
    """Every hook that runs, in order. mitmproxy's TLS gets its three; its own `request` hook is left out on purpose.

    `renew`: sees to it that client certificates are those of the moment.
    """
    return {
        "http_connect": (addon.http_connect,),
        "requestheaders": (addon.requestheaders,),
        "request": (addon.request,),
        "responseheaders": (addon.responseheaders,),
        "response": (addon.response,),
        "error": (addon.error,),
        "goes_on": (addon.goes_on,),
        "socket_message": (addon.socket_message,),
        "socket_end": (addon.socket_end,),
        "server_connect": (addon.server_connect,),
        "client_disconnected": (addon.client_disconnected,),
        "layers_failed": (addon.give_up,),
        "next_layer": (addon.next_layer,),
        "tls_clienthello": (tls.tls_clienthello,),
        "tls_start_client": (tls.tls_start_client, _prefer_http2),
        "tls_start_server": (_offer_http, renew, tls.tls_start_server),
        "tls_failed_client": (addon.tls_failed_client,),
    }


def _prefer_http2(data: TlsData) -> None:
    """Choose HTTP/2 whenever a client offers it, as servers do; mitmproxy would take what the client names first."""
    if data.ssl_conn is not None:
        data.ssl_conn.set_app_data({**data.ssl_conn.get_app_data(), "server_alpn": b"h2"})


def _offer_http(data: TlsData) -> None:
    """Offer upstreams HTTP only, whatever a client offers: what another protocol reads in a request, nobody decided."""
    offers = data.context.client.alpn_offers
    if offers and isinstance(data.conn, Server):
        data.conn.alpn_offers = tuple(one for one in offers if one in (b"h2", b"http/1.1")) or (b"http/1.1",)


def _skip_message_checks() -> None:
    """mitmproxy checks the types of every message that it makes: 190 us a request, for mistakes of addons only."""
    http.MessageData.__post_init__ = lambda self: None  # type: ignore[method-assign]
