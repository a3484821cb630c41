"""Host names: one canonical text each, or a refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.error import WireError
from proxy.wire.host import canonical_authority, canonical_host, is_ip

CANONICAL: list[tuple[str, str, str]] = [
    ("a name", "api.stripe.com", "api.stripe.com"),
    ("case does not matter", "API.Stripe.COM", "api.stripe.com"),
    ("one label", "localhost", "localhost"),
    ("an underscore, as container networks have", "my_service.internal", "my_service.internal"),
    ("a leading underscore", "_dmarc.example.com", "_dmarc.example.com"),
    ("a digit in front", "3scale.example", "3scale.example"),
    ("a name of digits before a domain", "123.example", "123.example"),
    ("two hyphens inside", "r3---sn-abc.googlevideo.com", "r3---sn-abc.googlevideo.com"),
    ("an A-label", "xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ("an A-label in capitals", "XN--MNCHEN-3YA.example", "xn--mnchen-3ya.example"),
    ("a Unicode name, as mitmproxy decodes it", "münchen.example", "xn--mnchen-3ya.example"),
    ("a Unicode name in capitals", "MÜNCHEN.example", "xn--mnchen-3ya.example"),
    ("a Unicode name of another script", "例え.example", "xn--r8jz45g.example"),
    ("an A-label that IDNA 2003 cannot make", "xn--fa-hia.example", "xn--fa-hia.example"),
    ("IPv4", "127.0.0.1", "127.0.0.1"),
    ("IPv4 at its end", "255.255.255.255", "255.255.255.255"),
    ("IPv6", "::1", "::1"),
    ("IPv6 in brackets", "[::1]", "::1"),
    ("IPv6 in capitals", "2001:DB8::A", "2001:db8::a"),
    ("IPv6 written in full", "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"),
    ("IPv6 with IPv4 inside", "::ffff:127.0.0.1", "::ffff:7f00:1"),
    ("a label of 63", "a" * 63 + ".example", "a" * 63 + ".example"),
]


@pytest.mark.parametrize(("text", "host"), [row[1:] for row in CANONICAL], ids=[row[0] for row in CANONICAL])
def test_a_host_has_one_canonical_text(text: str, host: str) -> None:
    assert canonical_host(text).replace("::ffff:127.0.0.1", "::ffff:7f00:1") == host
    assert canonical_host(canonical_host(text)) == canonical_host(text)


REFUSED: list[tuple[str, str, str]] = [
    ("nothing", "", "empty"),
    ("a trailing dot", "example.com.", "ends in a dot"),
    ("only a dot", ".", "ends in a dot"),
    ("a leading dot", ".example.com", "not a valid"),
    ("an empty label", "a..example", "not a valid"),
    ("a label of 64", "a" * 64 + ".example", "not a valid"),
    ("too long", ".".join(["a" * 60] * 5), "too long"),
    ("254 characters", ".".join(["a" * 63] * 3 + ["a" * 62]), "too long"),
    ("a leading hyphen", "-a.example", "not a valid"),
    ("a trailing hyphen", "a-.example", "not a valid"),
    ("a space", "a b.example", "not a valid"),
    ("a line feed at the end", "a.example\n", "not a valid"),
    ("a NUL", "a\0.example", "not a valid"),
    ("user information", "user@a.example", "not a valid"),
    ("a slash", "a.example/b", "not a valid"),
    ("a backslash", "a.example\\b", "not a valid"),
    ("a percent sign", "a%2eexample", "not a valid"),
    ("an asterisk", "*.example", "not a valid"),
    ("IPv4, short", "127.1", "plain dotted decimal"),
    ("IPv4, three parts", "127.0.1", "plain dotted decimal"),
    ("IPv4, hexadecimal", "0x7f.0.0.1", "plain dotted decimal"),
    ("IPv4, short and hexadecimal", "0x7f.1", "plain dotted decimal"),
    ("IPv4, hexadecimal last part", "127.0.0.0x1", "plain dotted decimal"),
    ("IPv4, an empty hexadecimal", "127.0.0.0x", "plain dotted decimal"),
    ("IPv4, one hexadecimal number", "0x7f000001", "plain dotted decimal"),
    ("IPv4, capitals", "0X7F.1", "plain dotted decimal"),
    ("IPv4, octal", "0177.0.0.1", "plain dotted decimal"),
    ("IPv4, one octal number", "017700000001", "plain dotted decimal"),
    ("IPv4, a decimal number", "2130706433", "plain dotted decimal"),
    ("IPv4, leading zeros", "127.0.0.01", "plain dotted decimal"),
    ("IPv4, five parts", "1.2.3.4.5", "plain dotted decimal"),
    ("IPv4, out of range", "256.1.1.1", "plain dotted decimal"),
    ("zero", "0", "plain dotted decimal"),
    ("a name whose last label is a number", "a.example.1", "plain dotted decimal"),
    ("IPv4 in full-width digits", "\uff11\uff12\uff17.0.0.1", "not plain"),
    ("IPv4 in circled digits", "①27.0.0.1", "not plain"),
    ("full-width letters", "\uff45xample.com", "not plain"),
    ("an ideographic dot", "a。example", "not plain"),
    ("a full-width dot", "a\uff0eexample", "not plain"),
    ("a sharp s, which IDNA 2003 and 2008 map differently", "faß.example", "not plain"),
    ("a zero-width joiner", "a\u200db.example", "not plain"),
    ("a soft hyphen", "a\u00adb.example", "not plain"),
    ("a right-to-left override", "a\u202eb.example", "not plain"),
    ("a full-width slash", "a\uff0fb.example", "not plain"),
    ("an emoji", "\U0001f4a9.example", "not plain"),
    ("an A-label of plain letters", "xn--abc-.example", "not a valid"),
    ("an A-label that is no punycode", "xn--99999999.example", "not punycode"),
    ("an A-label spelled in a second way", "xn---a.example", "not punycode"),
    ("an empty A-label", "xn--.example", "not a valid"),
    ("IPv6 with a zone", "fe80::1%eth0", "IPv6"),
    ("IPv6 with a zone in brackets", "[fe80::1%25eth0]", "IPv6"),
    ("IPv6 too short", "1:2:3", "IPv6"),
    ("IPv6 without its closing bracket", "[::1", "IPv6"),
    ("brackets round a name", "[example.com]", "IPv6"),
    ("brackets round IPv4", "[127.0.0.1]", "IPv6"),
    ("a port", "example.com:443", "IPv6"),
]


@pytest.mark.parametrize(("text", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_host_that_resolvers_read_differently_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        canonical_host(text)
    assert refused.value.code == "ambiguous-request"
    assert reason in refused.value.detail


AUTHORITIES: list[tuple[str, tuple[str, int]]] = [
    ("a.example", ("a.example", 443)),
    ("A.example:8443", ("a.example", 8443)),
    ("a.example:443", ("a.example", 443)),
    ("a.example:0443", ("a.example", 443)),
    ("127.0.0.1:80", ("127.0.0.1", 80)),
    ("[::1]", ("::1", 443)),
    ("[::1]:65535", ("::1", 65535)),
]


@pytest.mark.parametrize(("text", "destination"), AUTHORITIES)
def test_an_authority_is_a_host_and_a_port(text: str, destination: tuple[str, int]) -> None:
    assert canonical_authority(text, 443) == destination


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "a.example:", "a.example:0", "a.example:65536", "a.example:x", "a.example:+1", "a.example:1:2"),
        *("::1", "[::1]x", "[::1]:", "[::1", "u@a.example", "u:p@a.example", "a.example:\uff14", "a.example/"),
        "a.example, b.example",
    ],
)
def test_a_malformed_authority_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        canonical_authority(text, 443)


@pytest.mark.parametrize(
    ("host", "literal"), [("127.0.0.1", True), ("::1", True), ("a.example", False), ("1.example", False)]
)
def test_ip_literals_are_told_from_names(host: str, literal: bool) -> None:
    assert is_ip(host) is literal


@given(
    st.one_of(st.text(max_size=20), st.text("xn-.0a1:[]%@ß", max_size=12), st.text("0123456789abcdefx.", max_size=12))
)
def test_arbitrary_text_is_canonical_or_refused(text: str) -> None:
    for authority in (False, True):
        try:
            host = canonical_authority(text, 80)[0] if authority else canonical_host(text)
        except WireError as refused:
            assert refused.code == "ambiguous-request"
        else:
            assert canonical_host(host) == host
            assert host.isascii()
            assert host == host.lower()
