"""Patterns: `METHOD[|METHOD] scheme://host[:port]/path`, the way rule files say where a call goes.

    host   api.example.com       exactly this host; an IP literal too, IPv6 in brackets
           s3.{region}.aws.com   one label, captured as `path.region`
           *.example.com         exactly one label more
           **.example.com        this host and every host under it
           **                    any host, and any port unless one is written
    path   /a/b                  exactly this; `/a/` is another path
           /a/{id}               one segment, not empty, captured as `path.id`
           /a/{id}.json          with literal text around it
           /a/v*-*               `*` is any part of a segment; alone it is one segment, not empty
           /a/**                 zero or more segments: matches `/a`, `/a/`, `/a/b/c`
           /a/{id:encoded}       one segment that may hold an encoded slash

`wss://` and `ws://` are WebSockets: the request that opens one (GET), and by the method MESSAGE what is sent in it. No
`https://` pattern allows one, since it lets the client write; a deny or a guard with such a pattern sees it.

No method is any method, no port is the scheme's own. Every other encoded slash matches under `**` only, and `**`
does not reach over empty segments (`/a//b`): that is the *strict* reading, the only one that allows anything. Denies
also see the *lenient* one, where neither matters, and the path as it reads with its encoded slashes decoded.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final, Literal, NoReturn, cast
from urllib.parse import quote, unquote_to_bytes

import idna
import msgspec

from rules.call import Call
from rules.problems import Problem, RuleFileError
from rules.segment import Segment
from rules.yamltree import Node

METHODS: Final = (
    *("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR", "ACL"),
    *("BIND", "UNBIND", "REBIND", "CHECKIN", "CHECKOUT", "UNCHECKOUT", "VERSION-CONTROL", "MERGE", "LABEL", "UPDATE"),
    *("MKACTIVITY", "MKWORKSPACE", "BASELINE-CONTROL", "ORDERPATCH", "MKREDIRECTREF", "UPDATEREDIRECTREF"),
    *("LINK", "UNLINK", "PURGE", "MESSAGE"),
)
"""The methods that patterns may name: IANA's registry of HTTP methods, PURGE, and what is sent in a WebSocket."""

MESSAGE: Final = "MESSAGE"

PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

PLAIN: Final = {"ws": "http", "wss": "https"}
"""The scheme of a WebSocket -> that of the request that opens it."""


class Pattern(msgspec.Struct, frozen=True, dict=True):
    """A parsed pattern. `str()` gives its normal spelling.

    `methods`: empty is any. `host`: lower-case A-labels, or a canonical IP literal without brackets, as calls have it.
    `port`: 0 is any. `labels`: the host's, from the left; an IP literal is one. `named_labels` and `named_segments`:
    where captures stand, counted from the right behind a wildcard. `specificity`: of two patterns that match a call,
    the one with the lesser value names it.
    """

    text: str
    methods: tuple[str, ...]
    scheme: Literal["http", "https", "ws", "wss"]
    host: str
    port: int
    labels: tuple[str, ...]
    segments: tuple[Segment, ...]
    named_labels: tuple[tuple[str, int], ...]
    named_segments: tuple[tuple[Segment, int], ...]
    specificity: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return self.text

    @cached_property
    def exact_host(self) -> bool:
        """Whether it names one host: only then may that host have a private address."""
        return not any(label[0] in "{*" for label in self.labels)

    def rivals(self, other: Pattern) -> bool:
        """Whether both match just the same calls of some method, and neither is the more specific: none names them."""
        if self.specificity != other.specificity or self.shape != other.shape:
            return False
        return not self.methods or bool(set(self.methods) & set(other.methods))

    @property
    def shape(self) -> tuple[object, ...]:
        labels = tuple("{}" if label[0] == "{" else label for label in self.labels)
        segments = tuple(segment.nameless for segment in self.segments)
        return self.scheme, self.port, labels, segments

    def fits_host(self, host: str) -> bool:
        if self.exact_host or self.host == "**":
            return self.host in (host, "**")
        labels = host.split(".")
        if ":" in host or labels[-1].isdigit():
            return False  # an IP literal has no labels
        own = self.labels
        if own[0] == "**":
            own = own[1:]
            labels = labels[max(len(labels) - len(own), 0) :]
        pairs = zip(own, labels, strict=False)
        return len(own) == len(labels) and all(mine[0] in "{*" or mine == label for mine, label in pairs)

    def fits_path(self, segments: Sequence[str], lenient: bool) -> bool:
        """Whether its segments are these. Each `**` takes as few as can be: that finds a way if there is one."""
        own = self.segments
        last = len(segments) - 1
        mine = at = 0
        back = (-1, 0)  # the last `**`, and where what follows it was tried
        while True:
            if mine < len(own) and own[mine].rest:
                back = (mine, at)
                mine += 1
            elif mine < len(own) and at <= last and own[mine].fits(segments[at], lenient):
                mine, at = mine + 1, at + 1
            elif mine == len(own) and at > last:
                return True
            else:
                rest, at = back
                if rest < 0 or at > last or (not lenient and not segments[at] and at != last):
                    return False
                mine, at = rest + 1, at + 1
                back = (rest, at)

    def bind(self, host: str, segments: Sequence[str]) -> dict[str, str]:
        """What its `{names}` hold, for a host and path that it fits."""
        bound = {}
        if self.named_labels:
            labels = host.split(".")
            bound = {name: labels[place] for name, place in self.named_labels}
        for segment, place in self.named_segments:
            bound[segment.name] = segment.held(segments[place])
        return bound

    @property
    def names(self) -> tuple[str, ...]:
        """What it captures: the fields `path.NAME` that it gives."""
        return (*(name for name, _ in self.named_labels), *(segment.name for segment, _ in self.named_segments))


def match(pattern: Pattern, call: Call, *, lenient: bool = False) -> dict[str, str] | None:
    """What `pattern` captures from `call`, or None when it does not match. Slow and plain: the index's reference."""
    if pattern.methods and call.method not in pattern.methods:
        return None
    schemes = {call.scheme, PLAIN.get(call.scheme)} if lenient else {call.scheme}
    if pattern.scheme not in schemes or pattern.port not in (0, call.port) or not pattern.fits_host(call.host):
        return None
    if not pattern.fits_path(call.segments, lenient):
        return None
    return pattern.bind(call.host, call.segments)


def decoded(segments: Sequence[str]) -> tuple[str, ...]:
    """The path as it reads with its encoded slashes decoded."""
    return tuple("/".join(segments).split("/"))


def parse_pattern(node: Node) -> Pattern:
    """The pattern that `node` says. Raises `RuleFileError` pointing at the culprit inside it."""
    if not isinstance(node.scalar, str):
        node.fail("pattern", "a pattern is text", "write `METHOD https://host/path`")
    return _Parser(node, node.scalar).pattern()


_WORDS = re.compile(r"\s*(?:(\S+)\s+)?(\S+)\s*(.*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|(?:\{[^}]*\}|[^:{])*)(?::(.*))?", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_DEVIATIONS = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")  # IDNA 2003 and 2008 encode them differently (UTS 46)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_TOKEN = re.compile(r"\{([^{}]*)\}|(\*+)|([^{}*]+)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)(?::(.*))?")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NEVER_SENT = re.compile(r"[\x00-\x1f\x7f\\]")
_EXPRESS = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_BRACKETS = re.compile(r"[\[\]^]")
"""Signs of regular expressions that no path holds as they are."""
_ANGLES = re.compile(r"<(?:\w+:)?(\w+)>")


class _Parser:
    """Reads one pattern from left to right; `at` in its methods is an offset into the text."""

    def __init__(self, node: Node, text: str) -> None:
        self.node = node
        self.text = text
        self.names: set[str] = set()

    def fail(self, at: int, message: str, help: str = "") -> NoReturn:
        raise RuleFileError((Problem("pattern", message, self.node.at(at), help),))

    def pattern(self) -> Pattern:
        words = _WORDS.fullmatch(self.text)
        if not words:
            self.fail(0, "the pattern is empty", "write `METHOD https://host/path`")
        listed = re.match(r"[A-Z]+(?:\s*,\s*[A-Z]+)+(?=\s)", self.text)
        if listed:
            help = f"write `{'|'.join(re.findall('[A-Z]+', listed[0]))}`"  # noqa: A001 -- as in Problem
            self.fail(0, f"`{listed[0]}` is not a method", help)
        if words[3]:
            self.fail(words.start(3), f"`{words[3]}` is one word too many", "in a path, write a space as `%20`")
        if not words[1] and "." in words[2] and "/" not in words[2]:
            self.fail(words.start(2), f"`{words[2]}` has no scheme", f"write `https://{words[2]}/**`")
        if not words[1] and "/" not in words[2]:
            self.fail(words.start(2), f"`{words[2]}` names no host", "write `METHOD https://host/path`")
        methods = self.methods(words[1], words.start(1)) if words[1] else ()
        url, at = words[2], words.start(2)
        scheme = self.scheme(url, at)
        start = len(scheme) + 3
        split = re.search(r"[/?#]", url[start:])
        end = start + split.start() if split else len(url)
        query = re.search(r"[?#]", url)
        if query:
            self.no_query(url[query.start() :], at + query.start())
        host, labels, written_port = self.authority(url[start:end], at + start)
        port = written_port or (0 if host == "**" else PORTS[scheme])
        path = url[end:]
        if not path and host != "**":
            self.fail(at + end, "a pattern names its path", "append `/**` for every path, `/` for the root alone")
        segments = self.path(path or "/**", at + end)
        stars = [place for place, segment in enumerate(segments) if segment.rest]
        named_segments = []
        for place, segment in enumerate(segments):
            if segment.name:
                named_segments.append((segment, place - len(segments) if stars and place > stars[0] else place))
        shown = f"[{host}]" if ":" in host else host
        shown += f":{port}" if port not in (0, PORTS[scheme]) or (host == "**" and port) else ""
        return Pattern(
            text=f"{'|'.join(methods)} {scheme}://{shown}{path}".lstrip(),
            methods=methods,
            scheme=cast(Literal["http", "https", "ws", "wss"], scheme),
            host=host,
            port=port,
            labels=labels,
            segments=segments,
            named_labels=tuple(
                (label[1:-1], place - len(labels)) for place, label in enumerate(labels) if label[0] == "{"
            ),
            named_segments=tuple(named_segments),
            specificity=_specificity(methods, labels, port, segments),
        )

    def methods(self, text: str, at: int) -> tuple[str, ...]:
        found: list[str] = []
        for method in text.split("|"):
            if method not in METHODS:
                near = [method.upper()] if method.upper() in METHODS else difflib.get_close_matches(method, METHODS, 1)
                any_method = "leave it out to match any method" if method in ("*", "ANY", "ALL") else ""
                help = f"did you mean `{near[0]}`?" if near else any_method  # noqa: A001 -- as in Problem
                self.fail(at, f"`{method}` is not a method", help)
            if method in found:
                self.fail(at, f"`{method}` is named twice", "remove one of the two")
            found.append(method)
            at += len(method) + 1
        return tuple(found)

    def scheme(self, url: str, at: int) -> str:
        found = _SCHEME.match(url)
        if not found:
            if url.startswith("*://"):
                self.fail(at, "a pattern has one scheme", "write one pattern for `https://` and one for `http://`")
            if url.startswith("/"):
                self.fail(at, "a pattern names its host", f"write `https://HOST{url}`")
            if "|http" in url:
                self.fail(at + url.find("|http"), "`|` stands between methods only", "write a space before the scheme")
            self.fail(at, f"`{url}` has no scheme", f"write `https://{url}`")
        scheme = found[1].lower()
        if scheme not in PORTS:
            self.fail(at, f"`{scheme}` is not a scheme here", "write `https` or `http`; `wss` or `ws` for a WebSocket")
        return scheme

    def no_query(self, text: str, at: int) -> NoReturn:
        if text[0] == "#":
            self.fail(at, "a pattern has no fragment", "leave it out: fragments are never sent")
        name, _, value = text[1:].partition("&")[0].partition("=")
        self.fail(at, "a pattern has no query", f"use `where: {{query.{name or 'NAME'}: {{eq: {value or 'VALUE'}}}}}`")

    def authority(self, text: str, at: int) -> tuple[str, tuple[str, ...], int]:
        if "@" in text:
            self.fail(at, "a pattern has no user and password", "leave out everything up to the `@`")
        found = _AUTHORITY.fullmatch(text)
        if text.count(":") > 1 and not re.search(r"[\[{]", text):
            self.fail(at, f"`{text}` is not a host", f"IPv6 addresses stand in brackets: `[{text}]`")
        if not found:
            self.fail(at, f"`{text}` is not a host", "`{name}` is one whole label, `[::1]` an IPv6 address")
        port = 0
        if found[2] is not None:
            if not _PORT.fullmatch(found[2]) or int(found[2]) > 65535:
                self.fail(at + found.start(2), f"`{found[2]}` is not a port", "write a number from 1 to 65535")
            port = int(found[2])
        if found[1].startswith("["):
            return *self.ipv6(found[1][1:-1], at + 1), port
        return *self.host(found[1], at), port

    def ipv6(self, text: str, at: int) -> tuple[str, tuple[str, ...]]:
        try:
            address = ipaddress.IPv6Address(text)
        except ValueError:
            self.fail(at, f"`{text}` is not an IPv6 address", "write for example `[::1]`")
        if address.scope_id is not None:
            self.fail(at, f"`{text}` has a zone", "leave out the `%` and what follows")
        return address.compressed, (address.compressed,)

    def host(self, text: str, at: int) -> tuple[str, tuple[str, ...]]:
        if not text:
            self.fail(at, "the host is empty", "write `**` for any host")
        if text.endswith("."):
            self.fail(at + len(text) - 1, f"`{text}` ends with a dot", "leave it out")
        if text == "*":
            self.fail(at, "`*` is one label, not any host", "write `**` for any host")
        labels = []
        here = at
        for place, label in enumerate(text.split(".")):
            labels.append(self.label(label, place, here))
            here += len(label) + 1
        host = ".".join(labels)
        if len(host) > 253:
            self.fail(at, "the host is longer than 253 characters")
        if _NUMERIC.fullmatch(labels[-1]):
            try:
                ipaddress.IPv4Address(host)
            except ValueError:
                help = "write all four numbers, each without leading zeros"  # noqa: A001 -- as in Problem
                self.fail(at, f"`{host}` is not an IPv4 address", help)
            return host, (host,)
        return host, tuple(labels)

    def label(self, text: str, place: int, at: int) -> str:
        if text in ("*", "**"):
            if place:
                self.fail(at, f"`{text}` stands at the left end of a host only", "use `{name}` for a label elsewhere")
            return text
        if "*" in text:
            self.fail(at, f"`{text}` is not a label", "in a host, `*` is one whole label at the left end")
        if "{" in text or "}" in text:
            if not (text.startswith("{") and text.endswith("}")):
                self.fail(at, f"`{text}` is not a label", "in a host, `{name}` is one whole label")
            name, encoded = self.name(text[1:-1], at)
            if encoded:
                self.fail(at, "a host holds no encoded slash", f"write `{{{name}}}`")
            return text
        label = text.lower()
        if not label.isascii():
            if _DEVIATIONS.search(text):
                self.fail(at, f"`{text}` is one host to some clients and another to others", "write its `xn--` form")
            try:
                label = idna.encode(text, uts46=True).decode()
            except idna.IDNAError as error:
                self.fail(at, f"`{text}` is not a host name: {error}".lower(), "write its `xn--` form")
        if not _LABEL.fullmatch(label):
            named = f"`{text}` is not a label of a host" if text else "a label of the host is empty"
            self.fail(at, named, "labels are letters, digits, `-` and `_`, up to 63, with a dot between")
        return label

    def path(self, text: str, at: int) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        at += 1
        for part in text[1:].split("/"):
            segment = self.segment(part, at)
            if segment.rest and segments and segments[-1].rest:
                self.fail(at, "`**` stands twice in a row", "one is enough")
            segments.append(segment)
            at += len(part) + 1
        stars = [place for place, segment in enumerate(segments) if segment.rest]
        if stars:
            for segment in segments[stars[0] : stars[-1]]:
                if segment.name:
                    named = f"`{{{segment.name}}}` stands between two `**`: which segment it is can not be told"
                    self.fail(self.text.find(f"{{{segment.name}"), named, "write `*` in its place")
        return tuple(segments)

    def segment(self, part: str, at: int) -> Segment:
        if part == "**":
            return Segment(rest=True)
        texts = [""]
        names: list[tuple[str, bool]] = []
        here = 0
        while here < len(part):
            token = _TOKEN.match(part, here)
            if not token:
                self.fail(at + here, f"`{part[here]}` is not closed or not opened", "`{name}` is one segment")
            if token[3]:
                texts[-1] = self.literal(token[3], at + here)
            elif token[2] and len(token[2]) > 1:
                self.fail(at + here, f"`{token[2]}` is part of a segment", "`**` stands alone between slashes")
            elif len(texts) > 1 and (token[1] is not None or names):
                which = "one `{name}`, and then no `*`, in a segment: else it can be read in several ways"
                self.fail(at + here, f"`{token[0]}` is one too many in `{part}`", which)
            else:
                if not token[2]:
                    names.append(self.name(token[1], at + here))
                texts.append("")
            here = token.end()
        if len(texts) == 1:
            express = _EXPRESS.fullmatch(part)
            if express:
                help = f"write `{{{express[1]}}}` for any segment, `%3A{express[1]}` for this text"  # noqa: A001
                self.fail(at, f"`{part}` would be literal text", help)
            if texts[0] in (".", ".."):
                self.fail(at, f"`{part}` is never sent as a segment", "write the path that it leads to")
        return Segment(tuple(texts), *(names[0] if names else ()))

    def name(self, text: str, at: int) -> tuple[str, bool]:
        """The name in `{text}`, whose brace stands at `at`, and whether it may hold an encoded slash."""
        found = _NAME.fullmatch(text)
        if not found:
            rest = "write `**` for the rest of the path" if set(text) & set("+*=.") else ""
            self.fail(at, f"`{{{text}}}` is not a capture", rest or "write `{name}`: letters, digits, `_` and `-`")
        name, says = found.groups()
        if says not in (None, "encoded"):
            help = f"write `{{{name}}}` or `{{{name}:encoded}}`; limit it by `where: {{path.{name}: {{matches: ...}}}}`"  # noqa: A001
            self.fail(at, f"`{says}` says nothing about `{{{name}}}`", help)
        if name in self.names:
            self.fail(at, f"`{{{name}}}` stands twice", "give the second another name")
        self.names.add(name)
        return name, says == "encoded"

    def literal(self, text: str, at: int) -> str:
        angles = _ANGLES.search(text)
        if angles:
            self.fail(at + angles.start(), f"`{angles[0]}` would be literal text", f"write `{{{angles[1]}}}`")
        brackets = _BRACKETS.search(text)
        if brackets:
            mend = f"write `{{name}}` for any segment, `{quote(brackets[0])}` for the sign itself"
            self.fail(at + brackets.start(), f"`{text}` would be literal text, not a regular expression", mend)
        bad = _BAD_PERCENT.search(text)
        if bad:
            self.fail(at + bad.start(), "`%` without two hexadecimal digits", "write `%25` for the sign itself")
        try:
            literal = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            self.fail(at, f"`{text}` is not UTF-8", "calls with such a path are always refused")
        if "/" in literal:
            help = "capture it with `{name:encoded}`, and compare it under `where`"  # noqa: A001 -- as in Problem
            self.fail(at + text.lower().find("%2f"), "an encoded slash is no literal text", help)
        if _NEVER_SENT.search(literal):
            self.fail(at, f"`{text}` holds a sign with which calls are always refused", "remove it")
        return literal


def _specificity(
    methods: tuple[str, ...], labels: tuple[str, ...], port: int, segments: tuple[Segment, ...]
) -> tuple[tuple[int, ...], ...]:
    """Host (literal, `{label}`, wildcard; labels from the right), port, segments from the left, method."""
    ranks = tuple({"{": 1, "*": 2}.get(label[0], 0) + (label == "**") for label in reversed(labels))
    path = tuple(segment.rank for segment in segments)
    # Where one pattern ends and the other goes on: the end is the more specific, but not behind a `**`.
    end = 5 if segments[-1].rest else -1
    return (min(max(ranks), 2),), ranks if max(ranks) else (), (int(port == 0),), (*path, end), (int(not methods),)
