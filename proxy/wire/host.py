"""Host names: one canonical text for each, or a refusal.

Lower case, A-labels, no trailing dot, no brackets. Resolvers read `127.1`, `0x7f.1`, `017700000001` and `2130706433` as
127.0.0.1, so a name that ends in a number is an IPv4 address in plain dotted decimal or it is refused (the WHATWG URL
Standard's "ends in a number" check, but stricter). A trailing dot is refused: it is the same host to DNS, another one
to TLS, Host and every cache. Underscores are allowed in labels: real services use them.
"""

from __future__ import annotations

import encodings.idna
import ipaddress
import re
import unicodedata
from functools import lru_cache

from proxy.wire.error import ambiguous

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")


@lru_cache(maxsize=4096)
def canonical_host(text: str) -> str:
    """The canonical form of a host name or IP literal (IPv6 with or without brackets). Raises `WireError`."""
    if len(text) > 255:
        raise ambiguous("The host name is too long.")
    if text.startswith("[") or ":" in text:
        return _ipv6(text)
    host = text.lower() if text.isascii() else ".".join(_a_label(label) for label in text.split("."))
    if not host:
        raise ambiguous("The host name is empty.")
    if host.endswith("."):
        raise ambiguous("The host name ends in a dot: write it without.")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(host)
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ambiguous("The host is not a valid host name.")
        if label.startswith("xn--"):
            _check_a_label(label)
    if len(host) > 253:
        raise ambiguous("The host name is too long.")
    return host


def canonical_authority(text: str, default_port: int) -> tuple[str, int]:
    """Host and port of an authority such as `example.com:8443`, from Host or :authority. Raises `WireError`."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        host += bracket
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if not rest:
        return canonical_host(host), default_port
    if not rest.startswith(":") or not _PORT.fullmatch(rest[1:]) or not 0 < int(rest[1:]) < 65536:
        raise ambiguous("The port in Host or :authority is not a number from 1 to 65535.")
    return canonical_host(host), int(rest[1:])


def is_ip(host: str) -> bool:
    """Whether a canonical host is an IP literal."""
    return ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _ipv4(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise ambiguous("The host ends in a number but is not an IPv4 address in plain dotted decimal.") from None


def _ipv6(text: str) -> str:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if "%" in inner:
            raise ValueError
        return str(ipaddress.IPv6Address(inner))
    except ValueError:
        raise ambiguous("The host is not a valid IPv6 address.") from None


def _a_label(label: str) -> str:
    """The A-label of a label that may be Unicode. Where IDNA 2003 and 2008 map it differently, it is refused."""
    if label.isascii():
        return label.lower()
    folded = label.lower()
    usable = all(c == "-" or unicodedata.category(c) in ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd") for c in folded)
    try:
        if not usable or encodings.idna.nameprep(folded) != folded:
            raise UnicodeError
        return encodings.idna.ToASCII(folded).decode("ascii")
    except UnicodeError:
        raise ambiguous("The host name is not plain: write its A-label (`xn--...`).") from None


def _check_a_label(label: str) -> None:
    """An A-label decodes to letters outside ASCII, and encodes to itself again."""
    try:
        name = label[4:].encode("ascii").decode("punycode")
        if name.isascii() or "xn--" + name.encode("punycode").decode("ascii") != label:
            raise UnicodeError
    except UnicodeError:
        raise ambiguous("The host name holds an `xn--` label that is not punycode.") from None
