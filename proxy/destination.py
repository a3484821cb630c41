"""Which addresses a call may go to. Pure: the shell resolves names and asks here before it dials.

The danger is a public name that resolves to an inside address (server-side request forgery, DNS rebinding). So an
inside address needs a rule that names its host exactly, and link-local addresses, where clouds hand out credentials,
need to be named themselves.
Sources: the IANA special-purpose address registries (RFC 6890), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Literal

from proxy.wire.host import is_ip

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address
type Kind = Literal[
    "public", "loopback", "private", "shared", "link-local", "metadata", "multicast", "unspecified", "reserved"
]

_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, Google and most others
        "169.254.170.2",  # Amazon ECS task credentials
        "169.254.170.23",  # Amazon EKS pod identity
        "168.63.129.16",  # Azure's host agent
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle, older
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # Amazon EKS pod identity
        "fd20:ce::254",  # Google
    )
)

_NETWORKS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("shared", ("100.64.0.0/10",)),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    (
        "reserved",
        (
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("240.0.0.0/4", "::/96", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
        ),
    ),
)
_KINDS = tuple((kind, ipaddress.ip_network(text)) for kind, texts in _NETWORKS for text in texts)
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_6TO4 = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")

_INSIDE = frozenset(
    (
        *("local", "internal", "home.arpa"),  # RFC 6762; ICANN resolution 2024.07.29.06; RFC 8375
        *("intranet", "private", "corp", "home", "lan"),  # RFC 6762, appendix G
    )
)
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"})

_EXACT_ONLY: frozenset[Kind] = frozenset({"loopback", "private", "shared"})
_LITERAL_ONLY: frozenset[Kind] = frozenset({"link-local", "metadata"})


@lru_cache(maxsize=4096)
def classify(address: str) -> Kind:
    """What kind of address `address` is. One that carries an IPv4 address inside is as bad as what it carries."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    inner = _embedded(parsed)
    kinds = [_kind(one) for one in inner or (parsed,)]
    return next((kind for kind in kinds if kind != "public"), "public")


def is_public(address: str) -> bool:
    """Whether anybody's rule may lead to `address`, wildcards too."""
    return classify(address) == "public"


def refuse_reason(
    addresses: Iterable[str],
    *,
    exact_name: bool,
    literal: bool,
    port: int,
    own: Collection[tuple[str, int]],
) -> str | None:
    """Why a call must not go to `port` of what its host stands for, or None. One bad address spoils all.

    `exact_name`: the host stands literally in a rule that allows the call. `literal`: it is itself an IP address.
    `own`: where this proxy listens; a wildcard address there stands for every address of this machine.
    """
    nothing = True
    for address in addresses:
        nothing = False
        kind = classify(address)
        if _is_own(address, kind, port, own):
            return "that is this proxy itself"
        if kind in _EXACT_ONLY and not exact_name:
            return f"`{address}` is a {kind} address: a rule has to name this host exactly, without a wildcard"
        if kind in _LITERAL_ONLY and not (exact_name and literal):
            return f"`{address}` is a {kind} address: a rule has to name the address itself"
        if kind in ("multicast", "unspecified", "reserved"):
            return f"`{address}` is {'an' if kind == 'unspecified' else 'a'} {kind} address"
    return "the host has no address" if nothing else None


def refuse_name(host: str, *, exact_name: bool, port: int, own: Collection[tuple[str, int]]) -> tuple[str | None, bool]:
    """Why a call must not go to `host:port` by way of a proxy that resolves names itself, and whether it is private.

    Addresses are checked as ever. Of a name we know only what it says: that it can be nowhere but inside a network.
    """
    if is_ip(host):
        return refuse_reason((host,), exact_name=exact_name, literal=True, port=port, own=own), not is_public(host)
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 6.3
        here = ("127.0.0.1", "::1")
        return refuse_reason(here, exact_name=exact_name, literal=False, port=port, own=own), True
    if host in _METADATA_NAMES:
        return f"`{host}` is where a cloud hands out credentials", True
    labels = host.split(".")
    inside = len(labels) == 1 or labels[-1] in _INSIDE or ".".join(labels[-2:]) in _INSIDE
    if inside and not exact_name:
        return f"`{host}` is a name inside a network: a rule has to name this host exactly, without a wildcard", True
    return None, inside


def _kind(address: Address) -> Kind:
    if address in _METADATA:
        return "metadata"
    for kind, network in _KINDS:
        if address.version == network.version and address in network:
            return kind
    return "public" if address.version == 4 or address in _UNICAST_V6 else "reserved"


def _embedded(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address may lead to."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    number = int(address)
    if address in _MAPPED or any(address in network for network in _NAT64):
        return (ipaddress.IPv4Address(number & 0xFFFFFFFF),)
    if address in _6TO4:
        return (ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        server, client = number >> 64 & 0xFFFFFFFF, ~number & 0xFFFFFFFF
        return (ipaddress.IPv4Address(server), ipaddress.IPv4Address(client))
    return ()


def _is_own(address: str, kind: Kind, port: int, own: Collection[tuple[str, int]]) -> bool:
    mine = {ipaddress.ip_address(ip.partition("%")[0]) for ip, own_port in own if own_port == port}
    if not mine:
        return False
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if kind == "unspecified" or not mine.isdisjoint({parsed, *_embedded(parsed)}):
        return True
    return kind == "loopback" and any(ip.is_unspecified for ip in mine)
