"""Patterns: what each matches and captures, which of two names a call, and what is wrong with a bad one."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Call
from rules.pattern import Pattern, decoded, match, parse_pattern
from rules.problems import Problem, RuleFileError
from rules.yamltree import Node, parse


def pattern(text: str) -> Pattern:
    return parse_pattern(parse(f"'{text}'", "rules.yaml"))


def call(text: str) -> Call:
    """`METHOD scheme://host[:port]/path`, as the wire would decode it."""
    method, url = text.split(" ", 1)
    scheme, rest = url.split("://", 1)
    authority, _, path = rest.partition("/")
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        host, port = str(ipaddress.ip_address(host)), port.removeprefix(":")
    else:
        host, _, port = authority.partition(":")
    return Call(
        agent="a",
        run="r",
        method=method,
        scheme=scheme,
        host=host,
        port=int(port or {"http": 80, "https": 443}[scheme]),
        path=f"/{path}",
        segments=tuple(unquote(segment) for segment in path.split("/")),
    )


NO = None
MATCHES: list[tuple[str, str, dict[str, str] | None]] = [
    # methods
    ("GET https://a.io/x", "GET https://a.io/x", {}),
    ("GET https://a.io/x", "HEAD https://a.io/x", NO),
    ("GET|HEAD https://a.io/x", "HEAD https://a.io/x", {}),
    ("GET|HEAD https://a.io/x", "POST https://a.io/x", NO),
    ("https://a.io/x", "DELETE https://a.io/x", {}),
    ("https://a.io/x", "BREW https://a.io/x", {}),
    # scheme and port
    ("http://a.io/x", "GET https://a.io/x", NO),
    ("https://a.io/x", "GET https://a.io:443/x", {}),
    ("https://a.io:443/x", "GET https://a.io/x", {}),
    ("https://a.io/x", "GET https://a.io:8443/x", NO),
    ("https://a.io:8443/x", "GET https://a.io:8443/x", {}),
    ("https://a.io:8443/x", "GET https://a.io/x", NO),
    ("http://a.io/x", "GET http://a.io:80/x", {}),
    # hosts
    ("https://A.io/x", "GET https://a.io/x", {}),
    ("https://a.io/x", "GET https://b.a.io/x", NO),
    ("https://s3.{region}.aws.com/x", "GET https://s3.eu-1.aws.com/x", {"region": "eu-1"}),
    ("https://s3.{region}.aws.com/x", "GET https://s3.a.b.aws.com/x", NO),
    ("https://{bucket}.s3.{region}.aws.com/", "GET https://b.s3.eu.aws.com/", {"bucket": "b", "region": "eu"}),
    ("https://*.a.io/x", "GET https://b.a.io/x", {}),
    ("https://*.a.io/x", "GET https://a.io/x", NO),
    ("https://*.a.io/x", "GET https://c.b.a.io/x", NO),
    ("https://**.a.io/x", "GET https://a.io/x", {}),
    ("https://**.a.io/x", "GET https://b.a.io/x", {}),
    ("https://**.a.io/x", "GET https://c.b.a.io/x", {}),
    ("https://**.a.io/x", "GET https://ba.io/x", NO),
    ("https://**.a.io/x", "GET https://io/x", NO),
    ("https://**.a.io/x", "GET https://a.io:8443/x", NO),
    ("https://**.{tld}/x", "GET https://a.b.io/x", {"tld": "io"}),
    ("https://bücher.example/x", "GET https://xn--bcher-kva.example/x", {}),
    ("https://xn--bcher-kva.example/x", "GET https://xn--bcher-kva.example/x", {}),
    ("https://_dmarc.a.io/x", "GET https://_dmarc.a.io/x", {}),
    # any host
    ("https://**", "GET https://a.io/", {}),
    ("https://**", "GET https://a.io:8443/b/c", {}),
    ("https://**", "GET http://a.io/", NO),
    ("https://**", "GET https://10.0.0.1/x", {}),
    ("https://**", "GET https://[::1]:1234/x", {}),
    ("https://**/", "GET https://a.io:8443/", {}),
    ("https://**/admin/**", "GET https://a.io:8443/admin/x", {}),
    ("https://**:8443/**", "GET https://a.io:8443/x", {}),
    ("https://**:8443/**", "GET https://a.io/x", NO),
    ("https://**:443/**", "GET https://a.io:8443/x", NO),
    # addresses
    ("http://127.0.0.1:6333/**", "GET http://127.0.0.1:6333/x", {}),
    ("http://127.0.0.1:6333/**", "GET http://127.0.0.2:6333/x", NO),
    ("http://[::1]:8080/x", "GET http://[::1]:8080/x", {}),
    ("http://[0:0:0:0:0:0:0:1]/x", "GET http://[::1]/x", {}),
    ("https://*.0.0.io/x", "GET https://1.0.0.io/x", {}),
    ("https://{a}.{b}.{c}.{d}/x", "GET https://10.0.0.1/x", NO),
    # literal paths
    ("https://a.io/", "GET https://a.io/", {}),
    ("https://a.io/", "GET https://a.io/x", NO),
    ("https://a.io/a", "GET https://a.io/a/", NO),
    ("https://a.io/a/", "GET https://a.io/a/", {}),
    ("https://a.io/a/", "GET https://a.io/a", NO),
    ("https://a.io/a", "GET https://a.io/A", NO),
    ("https://a.io/a//b", "GET https://a.io/a//b", {}),
    ("https://a.io/a%20b", "GET https://a.io/a%20b", {}),
    ("https://a.io/%7Bx%7D", "GET https://a.io/{x}", {}),
    ("https://a.io/ü", "GET https://a.io/%C3%BC", {}),
    # one segment
    ("https://a.io/x/{id}", "GET https://a.io/x/7", {"id": "7"}),
    ("https://a.io/x/{id}", "GET https://a.io/x/", NO),
    ("https://a.io/x/{id}", "GET https://a.io/x/7/y", NO),
    ("https://a.io/x/{id}/", "GET https://a.io/x/7/", {"id": "7"}),
    ("https://a.io/{user-id}/{n2}", "GET https://a.io/u/v", {"user-id": "u", "n2": "v"}),
    ("https://a.io/{repo}.git/info", "GET https://a.io/r.x.git/info", {"repo": "r.x"}),
    ("https://a.io/{repo}.git", "GET https://a.io/.git", NO),
    ("https://a.io/m/{model}:generate", "POST https://a.io/m/g-1:generate", {"model": "g-1"}),
    ("https://a.io/m/{model}:generate", "POST https://a.io/m/g-1:other", NO),
    ("https://a.io/v{n}-beta", "GET https://a.io/v12-beta", {"n": "12"}),
    ("https://a.io/ab{n}ba", "GET https://a.io/aba", NO),
    ("https://a.io/x/*", "GET https://a.io/x/7", {}),
    ("https://a.io/x/*", "GET https://a.io/x/", NO),
    ("https://a.io/x/v*", "GET https://a.io/x/v", {}),
    ("https://a.io/x/v*-*.txt", "GET https://a.io/x/v1-2-3.txt", {}),
    ("https://a.io/x/v*-*.txt", "GET https://a.io/x/v1.txt", NO),
    ("https://a.io/x/*ab*ab", "GET https://a.io/x/abab", {}),
    ("https://a.io/x/*ab*ab", "GET https://a.io/x/ab", NO),
    # many segments
    ("https://a.io/**", "GET https://a.io/", {}),
    ("https://a.io/a/**", "GET https://a.io/a", {}),
    ("https://a.io/a/**", "GET https://a.io/a/", {}),
    ("https://a.io/a/**", "GET https://a.io/a/b/c/", {}),
    ("https://a.io/a/**", "GET https://a.io/ab", NO),
    ("https://a.io/**/z", "GET https://a.io/z", {}),
    ("https://a.io/**/z", "GET https://a.io/z/y/z", {}),
    ("https://a.io/**/z", "GET https://a.io/z/y", NO),
    ("https://a.io/a/**/b/**/c", "GET https://a.io/a/x/b/y/b/c", {}),
    ("https://a.io/a/**/b/**/c", "GET https://a.io/a/x/c", NO),
    ("https://a.io/{o}/**/{id}", "GET https://a.io/o/1/2/i", {"o": "o", "id": "i"}),
    ("https://a.io/{o}/**/{id}", "GET https://a.io/o/i", {"o": "o", "id": "i"}),
    ("https://a.io/{o}/**/{id}", "GET https://a.io/o", NO),
    # empty segments, strict: only where the pattern has them
    ("https://a.io/**", "GET https://a.io/a//b", NO),
    ("https://a.io/a/**", "GET https://a.io/a//", NO),
    ("https://a.io/**/b", "GET https://a.io/a//b", NO),
    ("https://a.io/**//b/**", "GET https://a.io/a//b/c", {}),
    # encoded slashes, strict: only under `**` and in a capture that says so
    ("https://a.io/x/**", "GET https://a.io/x/a%2Fb", {}),
    ("https://a.io/x/{id}", "GET https://a.io/x/a%2Fb", NO),
    ("https://a.io/x/*", "GET https://a.io/x/a%2Fb", NO),
    ("https://a.io/x/v*", "GET https://a.io/x/va%2Fb", NO),
    ("https://a.io/x/{id}/{n}", "GET https://a.io/x/a%2Fb", NO),
    ("https://a.io/x/{id:encoded}", "GET https://a.io/x/a%2Fb", {"id": "a/b"}),
    ("https://a.io/x/{id:encoded}", "GET https://a.io/x/ab", {"id": "ab"}),
    ("https://a.io/x/{id:encoded}.git", "GET https://a.io/x/a%2Fb.git", {"id": "a/b"}),
    ("https://a.io/x/{id:encoded}", "GET https://a.io/x/a/b", NO),
]


@pytest.mark.parametrize(("text", "sent", "captured"), MATCHES, ids=lambda value: str(value))
def test_what_a_pattern_matches(text: str, sent: str, captured: dict[str, str] | None) -> None:
    assert match(pattern(text), call(sent)) == captured


LENIENT: list[tuple[str, str, dict[str, str] | None]] = [
    ("https://a.io/x/{id}", "GET https://a.io/x/a%2Fb", {"id": "a/b"}),
    ("https://a.io/x/{id}.git", "GET https://a.io/x/a%2Fb.git", {"id": "a/b"}),
    ("https://a.io/x/*", "GET https://a.io/x/a%2Fb", {}),
    ("https://a.io/**", "GET https://a.io/a//b", {}),
    ("https://a.io/**/b", "GET https://a.io/a//b", {}),
    ("https://a.io/x/{id}", "GET https://a.io/x/", None),
    ("https://a.io/x/y", "GET https://a.io/x%2Fy", None),
]


@pytest.mark.parametrize(("text", "sent", "captured"), LENIENT)
def test_what_a_deny_sees_besides(text: str, sent: str, captured: dict[str, str] | None) -> None:
    assert match(pattern(text), call(sent), lenient=True) == captured


def test_the_decoded_reading_splits_at_encoded_slashes() -> None:
    assert decoded(("a", "b/c", "")) == ("a", "b", "c", "")


WRONG = [
    # text, column of the culprit (the text starts at column 1), message, help
    ("5", 1, "a pattern is text", "METHOD https://host/path"),
    ("'  '", 2, "the pattern is empty", "METHOD https://host/path"),
    ("GET", 1, "`GET` names no host", "METHOD https://host/path"),
    ("GET https://a.io/x y", 20, "`y` is one word too many", "%20"),
    ("get https://a.io/x", 1, "`get` is not a method", "did you mean `GET`?"),
    ("GET|DELTE https://a.io/x", 5, "`DELTE` is not a method", "did you mean `DELETE`?"),
    ("ANY https://a.io/x", 1, "`ANY` is not a method", "leave it out"),
    ("XYZZY https://a.io/x", 1, "`XYZZY` is not a method", ""),
    ("GET|GET https://a.io/x", 5, "`GET` is named twice", "remove"),
    ("GET a.io/x", 5, "`a.io/x` has no scheme", "https://a.io/x"),
    ("GET /x", 5, "a pattern names its host", "https://HOST/x"),
    ("'*://a.io/x'", 2, "one scheme", "`https://` and one for `http://`"),
    ("ftp://a.io/x", 1, "`ftp` is not a scheme here", "`wss` or `ws` for a WebSocket"),
    ("ftp://a.io/x", 1, "`ftp` is not a scheme here", "`https` or `http`"),
    ("https://a.io/x?service=git&y=1", 15, "no query", "where: {query.service: {eq: git}}"),
    ("https://a.io?", 13, "no query", "where: {query.NAME: {eq: VALUE}}"),
    ("'https://a.io/x#top'", 16, "no fragment", "never sent"),
    ("https://u:p@a.io/x", 9, "no user and password", "`@`"),
    ("https://::1/x", 9, "`::1` is not a host", "`[::1]`"),
    ("https://{x/y", 9, "`{x` is not a host", "{name}"),
    ("https://a.io:0/x", 14, "`0` is not a port", "1 to 65535"),
    ("https://a.io:65536/x", 14, "`65536` is not a port", "1 to 65535"),
    ("https://a.io:/x", 14, "`` is not a port", "1 to 65535"),
    ("https://[::g]/x", 10, "`::g` is not an IPv6 address", "[::1]"),
    ("https://[fe80::1%eth0]/x", 10, "`fe80::1%eth0` has a zone", "`%`"),
    ("https:///x", 9, "the host is empty", "`**`"),
    ("https://a.io./x", 13, "ends with a dot", "leave it out"),
    ("https://*/x", 9, "`*` is one label", "`**`"),
    ("https://a.*.io/x", 11, "left end", "{name}"),
    ("https://a.**/x", 11, "left end", "{name}"),
    ("https://api-*.a.io/x", 9, "`api-*` is not a label", "whole label"),
    ("https://api-{x}.a.io/x", 9, "`api-{x}` is not a label", "whole label"),
    ("https://{x:encoded}.a.io/x", 9, "no encoded slash", "`{x}`"),
    ("https://a..io/x", 11, "a label of the host is empty", "dot between"),
    ("https://-a.io/x", 9, "`-a` is not a label of a host", "letters"),
    ("https://☃\u0338.io/x", 9, "is not a host name", "xn--"),
    ("https://straße.example/x", 9, "one host to some clients and another to others", "xn--"),
    ("https://" + "a" * 64 + ".io/x", 9, "is not a label of a host", "63"),
    ("https://" + "a.b." * 64 + "io/x", 9, "longer than 253", ""),
    ("https://127.1/x", 9, "`127.1` is not an IPv4 address", "all four"),
    ("https://010.0.0.1/x", 9, "`010.0.0.1` is not an IPv4 address", "leading zeros"),
    ("https://*.0.0.1/x", 9, "`*.0.0.1` is not an IPv4 address", ""),
    ("https://0x7f000001/x", 9, "`0x7f000001` is not an IPv4 address", ""),
    ("https://a.io", 13, "a pattern names its path", "`/**`"),
    ("https://**.a.io", 16, "a pattern names its path", "`/**`"),
    ("https://a.io/a/**/**", 19, "twice in a row", "one is enough"),
    ("https://a.io/**/{x}/**", 17, "`{x}` stands between two `**`", "`*`"),
    ("https://a.io/x/a**", 17, "`**` is part of a segment", "alone"),
    ("https://a.io/x/***", 16, "`***` is part of a segment", "alone"),
    ("https://a.io/{a}{b}", 17, "`{b}` is one too many in `{a}{b}`", "several ways"),
    ("https://a.io/*-{b}", 16, "`{b}` is one too many in `*-{b}`", "several ways"),
    ("https://a.io/{a}-*", 18, "`*` is one too many in `{a}-*`", "several ways"),
    ("https://a.io/{a", 14, "`{` is not closed or not opened", "{name}"),
    ("https://a.io/a}", 15, "`}` is not closed or not opened", "{name}"),
    ("https://a.io/{}", 14, "`{}` is not a capture", "{name}"),
    ("https://a.io/{+rest}", 14, "`{+rest}` is not a capture", "`**`"),
    ("https://a.io/{x:rest}", 14, "`rest` says nothing about `{x}`", "{x:encoded}"),
    ("https://{x}.a.io/{x}", 18, "`{x}` stands twice", "another name"),
    ("https://a.io/x/:id", 16, "`:id` would be literal text", "{id}"),
    ("https://a.io/x/<int:id>", 16, "`<int:id>` would be literal text", "{id}"),
    ("https://a.io/a/../b", 16, "`..` is never sent", ""),
    ("https://a.io/a/%2e", 16, "`%2e` is never sent", ""),
    ("https://a.io/a%2", 15, "`%` without two hexadecimal digits", "%25"),
    ("https://a.io/a%FF", 14, "is not UTF-8", "refused"),
    ("https://a.io/p/a%2Fb", 17, "an encoded slash is no literal text", "{name:encoded}"),
    ("https://a.io/a%5Cb", 14, "calls are always refused", "remove it"),
    ("https://a.io/a%00", 14, "calls are always refused", "remove it"),
]


def problem_of(text: str) -> Problem:
    with pytest.raises(RuleFileError) as caught:
        parse_pattern(parse(text, "rules.yaml"))
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(("text", "col", "message", "help"), WRONG)
def test_what_is_wrong_with_a_pattern(text: str, col: int, message: str, help: str) -> None:
    problem = problem_of(text)
    assert message in problem.message
    assert help in problem.help
    assert (problem.code, problem.mark.line, problem.mark.col) == ("pattern", 1, col)


SPELLINGS = [
    ("GET   https://A.io:443/x", "GET https://a.io/x"),
    ("GET|HEAD HTTPS://a.io:8443/{x}/**", "GET|HEAD https://a.io:8443/{x}/**"),
    ("https://bücher.example/ü%20", "https://xn--bcher-kva.example/ü%20"),
    ("http://[0::1]:81/", "http://[::1]:81/"),
    ("https://**", "https://**"),
    ("https://**:443/x", "https://**:443/x"),
]


@pytest.mark.parametrize(("text", "normal"), SPELLINGS)
def test_a_pattern_shows_its_normal_spelling_which_means_the_same(text: str, normal: str) -> None:
    assert str(pattern(text)) == normal
    assert pattern(normal) == pattern(text)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("http://localhost:1/**", True),
        ("http://127.0.0.1/**", True),
        ("http://[::1]/**", True),
        ("https://{x}.a.io/", False),
        ("https://*.a.io/", False),
        ("https://**.a.io/", False),
        ("https://**", False),
    ],
)
def test_only_an_exact_host_may_have_a_private_address(text: str, exact: bool) -> None:
    assert pattern(text).exact_host is exact


def test_a_pattern_tells_which_names_it_captures() -> None:
    assert pattern("https://{a}.io/{b}/{c}.git/**/{d}").names == ("a", "b", "c", "d")


ORDER = [
    # of the calls that both match, the first names them
    ("https://a.io/**", "https://{x}.io/x"),
    ("https://{x}.a.io/**", "https://*.a.io/x"),
    ("https://*.a.io/**", "https://**.a.io/x"),
    ("https://**.b.a.io/**", "https://*.a.io/x"),
    ("https://**.a.io/**", "https://**/x"),
    ("https://**:8443/**", "https://**/x"),
    ("https://a.io/x/**", "https://a.io/{x}/y"),
    ("https://a.io/x{n}/**", "https://a.io/{x}/y"),
    ("https://a.io/{x}", "https://a.io/{x:encoded}"),
    ("https://a.io/{x:encoded}", "https://a.io/**"),
    ("https://a.io/x", "https://a.io/x/**"),
    ("https://a.io/**/x", "https://a.io/**"),
    ("https://a.io/x/{y}", "GET https://a.io/{x}/y"),
    ("GET https://a.io/x", "https://a.io/x"),
]


@pytest.mark.parametrize(("more", "less"), ORDER)
def test_the_more_specific_names_the_call(more: str, less: str) -> None:
    assert pattern(more).specificity < pattern(less).specificity


RIVALS = [
    ("GET https://a.io/{x}", "GET https://a.io/{y}", True),
    ("GET https://a.io/{x}", "GET https://a.io/*", True),
    ("GET|HEAD https://a.io/x", "GET https://a.io/x", True),
    ("https://a.io/x", "https://a.io/%78", True),
    ("https://{a}.io/x", "https://{b}.io/x", True),
    ("HEAD https://a.io/x", "GET https://a.io/x", False),
    ("GET https://a.io/x", "https://a.io/x", False),
    ("https://a.io/{x}.git", "https://a.io/a{x}", False),
    ("https://a.io/x", "https://a.io/y", False),
    ("https://a.io/x", "http://a.io/x", False),
]


@pytest.mark.parametrize(("one", "other", "rivals"), RIVALS)
def test_patterns_are_rivals_when_nothing_tells_which_names_a_call(one: str, other: str, rivals: bool) -> None:
    assert pattern(one).rivals(pattern(other)) is rivals
    assert pattern(other).rivals(pattern(one)) is rivals


def test_a_pattern_in_a_block_scalar_is_blamed_as_a_whole() -> None:
    problem = problem_of(">\n  GET https://a.io/x?y=1\n")
    assert (problem.mark.line, problem.mark.col) == (1, 1)


def fits(own: tuple[str, ...], segments: tuple[str, ...], lenient: bool) -> bool:
    """The meaning of `**`, tried out in every way."""
    if not own:
        return not segments
    if own[0] == "**":
        swallowed = [
            at for at in range(len(segments) + 1) if lenient or "" not in segments[: min(at, len(segments) - 1)]
        ]
        return any(fits(own[1:], segments[at:], lenient) for at in swallowed)
    if not segments:
        return False
    text = segments[0]
    one = text == own[0] or (own[0] == "*" and text != "" and (lenient or "/" not in text))
    return one and fits(own[1:], segments[1:], lenient)


@given(
    st.lists(st.sampled_from(["a", "b", "", "*", "**"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "", "a/b"]), min_size=1, max_size=7),
    st.booleans(),
)
def test_taking_as_few_segments_as_can_be_finds_a_way_if_there_is_one(
    own: list[str], segments: list[str], lenient: bool
) -> None:
    squeezed = [part for place, part in enumerate(own) if (part, own[place - 1 : place]) != ("**", ["**"])]
    parsed = parse_pattern(Node("scalar", parse("x", "f").mark, "https://a.io/" + "/".join(squeezed)))
    assert parsed.fits_path(segments, lenient) is fits(tuple(squeezed), tuple(segments), lenient)
