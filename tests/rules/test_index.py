"""The index finds just what matching every pattern by itself would find, at once."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import Call
from rules.index import REMEMBERED, Hit, Index, TargetId
from rules.pattern import Pattern, decoded, match, parse_pattern
from rules.problems import Mark
from rules.yamltree import Node
from tests.rules.world import call


def pattern(text: str) -> Pattern:
    return parse_pattern(Node("scalar", Mark("rules.yaml", 1, 1), text))


def index(*texts: str) -> Index:
    return Index.build([(TargetId("tool", text), pattern(text)) for text in texts])


def found(hits: tuple[Hit, ...]) -> set[tuple[str, str, bool]]:
    return {(hit.target.name, str(dict(hit.bindings)), hit.only_denies) for hit in hits}


FINDS = [
    ("nothing without patterns", [], "https", "a.io", 443, "x", {}),
    (
        "every pattern that matches, with its own bindings",
        ["GET https://a.io/{x}/{y}", "https://a.io/x/**", "https://**", "https://a.io/x/z", "POST https://a.io/x/{y}"],
        *("https", "a.io", 443, "x/y"),
        {"GET https://a.io/{x}/{y}": {"x": "x", "y": "y"}, "https://a.io/x/**": {}, "https://**": {}},
    ),
    (
        "hosts by label, from exact to any",
        ["https://b.a.io/", "https://{h}.a.io/", "https://*.a.io/", "https://**.a.io/", "https://**/", "https://*.io/"],
        *("https", "b.a.io", 443, ""),
        {
            "https://b.a.io/": {},
            "https://{h}.a.io/": {"h": "b"},
            "https://*.a.io/": {},
            "https://**.a.io/": {},
            "https://**/": {},
        },
    ),
    (
        "another port only where any port is meant",
        ["https://a.io/x", "https://a.io:8443/x", "https://**.a.io/x", "https://**.a.io:8443/x", "https://**"],
        *("https", "a.io", 8443, "x"),
        {"https://a.io:8443/x": {}, "https://**.a.io:8443/x": {}, "https://**": {}},
    ),
    (
        "an address only by itself or as any host",
        ["https://10.0.0.1/x", "https://{a}.{b}.{c}.{d}/x", "https://**", "https://*.b.{c}.{d}/x"],
        *("https", "10.0.0.1", 443, "x"),
        {"https://10.0.0.1/x": {}, "https://**": {}},
    ),
    (
        "mixed segments, whatever their captures are called",
        ["https://a.io/{x}.git", "https://a.io/{y}.git", "https://a.io/r*", "https://a.io/{z}.svn"],
        *("https", "a.io", 443, "r.git"),
        {"https://a.io/{x}.git": {"x": "r"}, "https://a.io/{y}.git": {"y": "r"}, "https://a.io/r*": {}},
    ),
    (
        "a path that a pattern can match in several ways, once",
        ["https://a.io/**/b/**", "https://a.io/**/b/**/b", "https://a.io/**/b/**/{y}"],
        *("https", "a.io", 443, "b/b/b/b"),
        {"https://a.io/**/b/**": {}, "https://a.io/**/b/**/b": {}, "https://a.io/**/b/**/{y}": {"y": "b"}},
    ),
]


@pytest.mark.parametrize(("case", "patterns", "scheme", "host", "port", "path", "expected"), FINDS)
def test_find(
    case: str, patterns: list[str], scheme: str, host: str, port: int, path: str, expected: dict[str, dict[str, str]]
) -> None:
    hits = index(*patterns).find("GET", scheme, host, port, tuple(path.split("/")))
    assert {hit.target.name: dict(hit.bindings) for hit in hits} == expected, case
    assert len(hits) == len(expected)
    assert not any(hit.only_denies for hit in hits)


def test_a_hit_names_its_target_and_its_pattern() -> None:
    text = "https://a.io/{x}"
    target = TargetId("rule", "no-deletes", 2)
    (hit,) = Index.build([(target, pattern(text))]).find("GET", "https", "a.io", 443, ("1",))
    assert hit == Hit(target, pattern(text), {"x": "1"}, only_denies=False)


def test_one_target_may_be_hit_by_several_of_its_patterns() -> None:
    texts = ("https://a.io/**", "https://a.io/x")
    both = Index.build([(TargetId("tool", "t", nth), pattern(text)) for nth, text in enumerate(texts)])
    assert {hit.target.nth for hit in both.find("GET", "https", "a.io", 443, ("x",))} == {0, 1}


DENIES = [
    (
        "an encoded slash is read both ways",
        ["https://a.io/x/**", "https://a.io/x/{id}", "https://a.io/x/a/b", "https://a.io/x/{e:encoded}"],
        ("x", "a/b"),
        {
            ("https://a.io/x/**", "{}", False),
            ("https://a.io/x/{id}", "{'id': 'a/b'}", True),
            ("https://a.io/x/a/b", "{}", True),
            ("https://a.io/x/{e:encoded}", "{'e': 'a/b'}", False),
        },
    ),
    (
        "a capture that says encoded is read decoded, too",
        ["https://a.io/x/**", "https://a.io/x/{e:encoded}/c", "https://a.io/x/{e:encoded}/**"],
        ("x", "a/b", "c"),
        {
            ("https://a.io/x/**", "{}", False),
            ("https://a.io/x/{e:encoded}/c", "{'e': 'a/b'}", False),
            ("https://a.io/x/{e:encoded}/**", "{'e': 'a/b'}", False),
            ("https://a.io/x/{e:encoded}/**", "{'e': 'a'}", True),
        },
    ),
    (
        "no `**` that allows reaches over an empty segment",
        ["https://a.io/x/**", "https://a.io/x//b", "https://a.io/x/b"],
        ("x", "", "b"),
        {("https://a.io/x/**", "{}", True), ("https://a.io/x//b", "{}", False)},
    ),
    (
        "a trailing slash is no empty segment",
        ["https://a.io/x/**", "https://a.io/x/b"],
        ("x", "b", ""),
        {("https://a.io/x/**", "{}", False)},
    ),
]


@pytest.mark.parametrize(("case", "patterns", "segments", "expected"), DENIES)
def test_denies_see_more_readings_than_allows(
    case: str, patterns: list[str], segments: tuple[str, ...], expected: set[tuple[str, str, bool]]
) -> None:
    assert found(index(*patterns).find("GET", "https", "a.io", 443, segments)) == expected, case


HOSTS = ["a.io", "b.a.io", "c.b.a.io", "10.0.0.1", "localhost", "::1"]
OWN_HOSTS = [
    "a.io",
    "b.a.io",
    "*.a.io",
    "**.a.io",
    "{h}.a.io",
    "**.b.a.io",
    "**",
    "**.{t}",
    "10.0.0.1",
    "[::1]",
    "**:81",
]
OWN_SEGMENTS = ["a", "b", "", "*", "a*", "*b", "**", "{%}", "{%}.b", "a{%}", "{%:encoded}"]


@st.composite
def patterns(draw: st.DrawFn) -> str:
    parts: list[str] = []
    stars = draw(st.integers(0, 2))
    for place, part in enumerate(draw(st.lists(st.sampled_from(OWN_SEGMENTS), min_size=1, max_size=4))):
        if part == "**":
            if not stars or parts[-1:] == ["**"]:
                continue
            stars -= 1
        between = part.replace("{%}", "*").replace("{%:encoded}", "*").replace("**", "*")
        parts.append(between if "{" in part and "**" in parts else part.replace("%", f"p{place}"))
    method = draw(st.sampled_from(["", "GET ", "GET|POST "]))
    scheme = draw(st.sampled_from(["http", "https"]))
    return f"{method}{scheme}://{draw(st.sampled_from(OWN_HOSTS))}/{'/'.join(parts)}"


@given(
    st.lists(patterns(), min_size=1, max_size=12, unique=True),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from([80, 81, 443]),
    st.lists(st.sampled_from(["a", "b", "ab", "a.b", "", "a/b", "a/"]), min_size=1, max_size=5),
)
def test_the_index_finds_what_a_scan_finds(
    texts: list[str], method: str, scheme: str, host: str, port: int, segments: list[str]
) -> None:
    expected = set()
    for text in texts:
        for reading, lenient in ((segments, False), (segments, True), (decoded(segments), True)):
            call = Call("a", "r", method, scheme, host, port, "/", tuple(reading))
            bound = match(pattern(text), call, lenient=lenient)
            if bound is not None and (text, str(bound), False) not in expected:
                expected.add((text, str(bound), lenient))
    hits = index(*texts).find(method, scheme, host, port, segments)
    assert found(hits) == expected
    assert len(hits) == len(expected), "each once"
    strict = [hit.only_denies for hit in hits]
    assert strict == sorted(strict), "what allows comes first"


def test_finding_takes_the_same_time_for_ten_patterns_and_for_ten_thousand() -> None:
    def cost(size: int) -> float:
        texts = [f"GET https://a.io/repos/r{n}/issues/{{id}}" for n in range(size)]
        texts += [f"GET https://h{n}.io/**" for n in range(size)]
        find = index(*texts, "GET https://**").find
        segments = ("repos", "r7", "issues", "1")
        assert len(find("GET", "https", "a.io", 443, segments)) == 2
        return min(timeit.repeat(lambda: find("GET", "https", "a.io", 443, segments), number=300, repeat=7))

    few, many = cost(10), cost(2_000)
    assert many < 4 * few  # a scan would take two hundred times as long


def test_a_long_path_does_not_make_it_backtrack() -> None:
    find = index("https://a.io/**/a/**/a/**/a/**/b").find
    segments = ("a",) * 2_000
    assert find("GET", "https", "a.io", 443, segments) == ()
    assert min(timeit.repeat(lambda: find("GET", "https", "a.io", 443, segments), number=1, repeat=3)) < 1


def test_more_hosts_than_are_remembered_are_found_every_time() -> None:
    built = index("GET https://**/a", "GET https://*.example.com/a", "GET https://h7.example.com/a")
    for _ in range(2):
        for number in range(REMEMBERED + 10):
            hits = built.find("GET", "https", f"h{number}.example.com", 443, ("a",))
            assert len(hits) == (3 if number == 7 else 2)
            assert not built.find("GET", "https", f"h{number}.example.com", 443, ("b",))


def test_a_websocket_is_seen_by_the_denies_of_its_scheme_and_allowed_by_its_own() -> None:
    own, opening, other = TargetId("tool", "own"), TargetId("tool", "opening"), TargetId("tool", "other")
    built = Index.build(
        [
            (own, pattern("GET wss://a.io/x")),
            (opening, pattern("https://**")),
            (other, pattern("http://a.io/x")),
        ]
    )
    hits = built.find("GET", "wss", "a.io", 443, ("x",))
    assert [(hit.target, hit.only_denies) for hit in hits] == [(own, False), (opening, True)]
    assert [hit.target for hit in built.find("GET", "https", "a.io", 443, ("x",))] == [opening]


def test_the_reference_sees_websockets_alike() -> None:
    asked = call("GET", "/x", scheme="wss", host="a.io")
    assert match(pattern("https://**"), asked) is None
    assert match(pattern("https://**"), asked, lenient=True) == {}
    assert match(pattern("wss://a.io/x"), asked) == {}
    assert match(pattern("wss://a.io/x"), call("GET", "/x", host="a.io"), lenient=True) is None
