"""Certificates that we show to upstreams which ask who we are: `DIR/HOST.pem`, each for its host alone.

mitmproxy reads each once, when it connects. Here they are tried first, so that a mistake is told at the start; and it
is seen when one has changed: in some places they are renewed every few hours.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from proxy.confdir import reason
from proxy.wire.error import WireError
from proxy.wire.host import canonical_host

log = logging.getLogger("borderpost")

type State = tuple[int, int, int]
"""By which a file that was replaced or written to is known."""


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


class ClientCerts:
    """Sees when the certificates in `directory` are changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = {file.stem: _state(file) for file in directory.glob("*.pem")}

    def changed(self, host: str) -> bool:
        """Whether that for `host` is another since it was last asked for, and can be used.

        One that cannot is no change: what was read before goes on to be shown, and that is said.
        """
        file = self._directory / f"{host}.pem"
        state = _state(file)
        if state is None or state == self._seen.get(host):
            return False
        self._seen[host] = state
        try:
            _check(file)
        except ClientCertError as error:
            log.error("a changed client certificate is not used: %s", error)
            return False
        log.warning("read the changed client certificate for %s", host)
        return True


def _state(file: Path) -> State | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


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
