"""Certificates that we show to upstreams which ask who we are: `DIR/HOST.pem`, each for its host alone.

mitmproxy reads them when it connects; here they are tried first, so that a mistake is told at the start.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from proxy.confdir import reason
from proxy.wire.error import WireError
from proxy.wire.host import canonical_host


class ClientCertError(Exception):
    """A client certificate cannot be used. The text is one line."""


def check(directory: Path) -> tuple[str, ...]:
    """The hosts that `directory` holds a certificate with its key for. Raises `ClientCertError`."""
    try:
        files = sorted(file for file in directory.iterdir() if file.suffix == ".pem")
    except OSError as error:
        raise ClientCertError(f"cannot read `{directory}` given as --client-certs: {reason(error)}") from None
    if not files:
        raise ClientCertError(
            f"`{directory}` given as --client-certs holds no `HOST.pem`: a certificate, its chain and its key"
        )
    return tuple(_check(file) for file in files)


def _check(file: Path) -> str:
    host = file.stem
    try:
        canonical = canonical_host(host)
    except WireError:
        canonical = ""
    if host != canonical:
        raise ClientCertError(f"`{file}` is not called after a host: name it as in `api.example.com.pem`")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file, password=_no_password)
    except ssl.SSLError as error:
        raise ClientCertError(
            f"`{file}` cannot be used as a client certificate: it has to hold a certificate and its key, in PEM and "
            f"without a password ({(error.reason or 'no certificate').lower().replace('_', ' ')})"
        ) from None
    except OSError as error:
        raise ClientCertError(f"cannot read `{file}`: {reason(error)}") from None
    return host


def _no_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    return ""
