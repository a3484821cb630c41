"""Destinations: which addresses a call may go to, and why not to others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.destination import Kind, classify, is_public, refuse_reason

KINDS: list[tuple[str, Kind]] = [
    ("8.8.8.8", "public"),
    ("1.1.1.1", "public"),
    ("9.255.255.255", "public"),
    ("11.0.0.0", "public"),
    ("100.63.255.255", "public"),
    ("100.128.0.0", "public"),
    ("126.255.255.255", "public"),
    ("128.0.0.0", "public"),
    ("169.253.255.255", "public"),
    ("169.255.0.0", "public"),
    ("172.15.255.255", "public"),
    ("172.32.0.0", "public"),
    ("192.167.255.255", "public"),
    ("192.169.0.0", "public"),
    ("198.17.255.255", "public"),
    ("198.20.0.0", "public"),
    ("223.255.255.255", "public"),
    ("2606:4700::1111", "public"),
    ("2001:4860:4860::8888", "public"),
    ("2a00:1450::1", "public"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("::1", "loopback"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.0.1", "private"),
    ("fc00::1", "private"),
    ("fdff::1", "private"),
    ("fec0::1", "private"),
    ("100.64.0.0", "shared"),
    ("100.127.255.255", "shared"),
    ("169.254.0.1", "link-local"),
    ("169.254.255.255", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("febf::1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("168.63.129.16", "metadata"),
    ("100.100.100.200", "metadata"),
    ("192.0.0.192", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("ff02::1", "multicast"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("192.0.0.1", "reserved"),
    ("192.0.2.1", "reserved"),
    ("198.18.0.1", "reserved"),
    ("198.19.255.255", "reserved"),
    ("198.51.100.1", "reserved"),
    ("203.0.113.1", "reserved"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::2", "reserved"),
    ("::7f00:1", "reserved"),
    ("100::1", "reserved"),
    ("2001:db8::1", "reserved"),
    ("2001:2::1", "reserved"),
    ("3fff::1", "reserved"),
    ("4000::1", "reserved"),
    ("5f00::1", "reserved"),
    # IPv4 inside IPv6
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:7f00:1", "loopback"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:0.0.0.0", "unspecified"),
    ("::ffff:8.8.8.8", "public"),
    ("64:ff9b::127.0.0.1", "loopback"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b::10.0.0.1", "private"),
    ("64:ff9b::8.8.8.8", "public"),
    ("64:ff9b:1::192.168.0.1", "private"),
    ("64:ff9b:2::1", "reserved"),
    ("2002:7f00:1::1", "loopback"),
    ("2002:a00:1::", "private"),
    ("2002:a9fe:a9fe::", "metadata"),
    ("2002:808:808::", "public"),
    ("2001:0:808:808::80ff:fffe", "loopback"),  # Teredo: the client's address is inverted
    ("2001:0:a00:1::f7f7:f7f7", "private"),  # Teredo: the server's address is not
    ("2001:0:808:808::f7f7:f7f7", "public"),
]


@pytest.mark.parametrize(("address", "kind"), KINDS)
def test_an_address_has_a_kind(address: str, kind: Kind) -> None:
    assert classify(address) == kind
    assert is_public(address) is (kind == "public")


NONE: frozenset[tuple[str, int]] = frozenset()

DECIDED: list[tuple[str, list[str], bool, bool, str | None]] = [
    ("a public address, by a wildcard", ["8.8.8.8"], False, False, None),
    ("a public address, by name", ["8.8.8.8", "2606:4700::1111"], True, False, None),
    ("a public literal", ["8.8.8.8"], True, True, None),
    ("loopback, by a wildcard", ["127.0.0.1"], False, False, "`127.0.0.1` is a loopback address: a rule has to name"),
    ("loopback, by a literal under a wildcard", ["127.0.0.1"], False, True, "is a loopback address"),
    ("loopback, by name", ["127.0.0.1", "::1"], True, False, None),
    ("loopback, by a literal", ["127.0.0.1"], True, True, None),
    ("a private address, by a wildcard", ["10.1.2.3"], False, False, "is a private address"),
    ("a private address, by name", ["10.1.2.3"], True, False, None),
    ("a carrier's address, by a wildcard", ["100.64.0.1"], False, False, "is a shared address"),
    ("a carrier's address, by name", ["100.64.0.1"], True, False, None),
    ("mapped loopback, by a wildcard", ["::ffff:127.0.0.1"], False, False, "is a loopback address"),
    ("a link-local address, by a wildcard", ["169.254.1.1"], False, False, "is a link-local address"),
    ("a link-local address, by name", ["169.254.1.1"], True, False, "name the address itself"),
    ("a link-local address, by a literal", ["169.254.1.1"], True, True, None),
    ("metadata, by name", ["169.254.169.254"], True, False, "`169.254.169.254` is a metadata address"),
    ("metadata, by a literal under a wildcard", ["169.254.169.254"], False, True, "is a metadata address"),
    ("metadata, by a literal", ["169.254.169.254"], True, True, None),
    ("metadata in IPv6, by name", ["fd00:ec2::254"], True, False, "is a metadata address"),
    ("metadata through NAT64, by name", ["64:ff9b::a9fe:a9fe"], True, False, "is a metadata address"),
    ("the unspecified address is never anybody's", ["0.0.0.0"], True, True, "is an unspecified address"),
    ("multicast is never anybody's", ["224.0.0.1"], True, True, "is a multicast address"),
    ("reserved is never anybody's", ["240.0.0.1"], True, True, "is a reserved address"),
    ("one bad address among good ones, first", ["10.0.0.1", "8.8.8.8"], False, False, "`10.0.0.1`"),
    ("one bad address among good ones, last", ["8.8.8.8", "10.0.0.1"], False, False, "`10.0.0.1`"),
    ("no address", [], True, True, "no address"),
]


@pytest.mark.parametrize(
    ("addresses", "exact_name", "literal", "reason"), [row[1:] for row in DECIDED], ids=[row[0] for row in DECIDED]
)
def test_inside_addresses_need_a_rule_that_names_them(
    addresses: list[str], exact_name: bool, literal: bool, reason: str | None
) -> None:
    found = refuse_reason(addresses, exact_name=exact_name, literal=literal, port=443, own=NONE)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found


OWN: list[tuple[str, str, int, tuple[str, int], bool]] = [
    ("our own address", "127.0.0.1", 8080, ("127.0.0.1", 8080), True),
    ("another port", "127.0.0.1", 8081, ("127.0.0.1", 8080), False),
    ("another address", "127.0.0.2", 8080, ("127.0.0.1", 8080), False),
    ("our own address, mapped", "::ffff:127.0.0.1", 8080, ("127.0.0.1", 8080), True),
    ("our own address, through NAT64", "64:ff9b::7f00:1", 8080, ("127.0.0.1", 8080), True),
    ("our own IPv6 address", "::1", 8080, ("::1", 8080), True),
    ("our own IPv6 address, spelled out", "0:0:0:0:0:0:0:1", 8080, ("::1", 8080), True),
    ("the unspecified address reaches us", "0.0.0.0", 8080, ("127.0.0.1", 8080), True),
    ("the unspecified IPv6 address reaches us", "::", 8080, ("127.0.0.1", 8080), True),
    ("listening everywhere, we are on every loopback", "127.0.0.2", 8080, ("0.0.0.0", 8080), True),
    ("listening everywhere in IPv6, we are on IPv4 too", "127.0.0.1", 8080, ("::", 8080), True),
    ("listening everywhere, others may use our port", "10.0.0.7", 8080, ("0.0.0.0", 8080), False),
    ("our own private address", "10.0.0.5", 8080, ("10.0.0.5", 8080), True),
    ("our own public address", "8.8.8.8", 8080, ("8.8.8.8", 8080), True),
]


@pytest.mark.parametrize(("address", "port", "own", "ours"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
def test_the_proxy_never_calls_itself(address: str, port: int, own: tuple[str, int], ours: bool) -> None:
    found = refuse_reason([address], exact_name=True, literal=True, port=port, own={own})
    assert (found == "that is this proxy itself") is ours


@given(st.ip_addresses())
def test_every_address_has_a_kind_and_an_inside_one_needs_to_be_named(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    reason = refuse_reason([str(address)], exact_name=False, literal=False, port=443, own=NONE)
    assert (reason is None) is (classify(str(address)) == "public")


@given(st.ip_addresses(v=4))
def test_what_carries_an_ipv4_address_is_as_bad_as_that(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for outer in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert classify(str(ipaddress.IPv6Address(outer))) == classify(str(inner))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(network="2000::/4")))
def test_nothing_public_is_special_to_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """But for the IPv6 addresses that carry an IPv4 address: see above."""
    carries = isinstance(address, ipaddress.IPv6Address) and (address.sixtofour or address.teredo)
    if classify(str(address)) == "public" and not carries:
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)
        assert not (address.is_reserved or address.is_unspecified)
