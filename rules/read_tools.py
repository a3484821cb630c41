"""From the `tools:` of a rule file to tools: what a call is."""

from __future__ import annotations

import re
from typing import cast

from msgspec.structs import replace

from rules.expect import parse_expect
from rules.fields import parse_field
from rules.fingerprint import OPERATIONS, may_tell
from rules.params.contract import Contract
from rules.params.read import Calls, read_params
from rules.pattern import parse_pattern
from rules.protocols import PARSERS
from rules.ruleset import BODY_CAP_BYTES, DeclaredBody, Effect, Match, Tool
from rules.shape import Report
from rules.suggest import listing, suggest
from rules.units import DURATION_HELP, parse_duration
from rules.upstream_key import PLACES, RETENTION_NS, Place, UpstreamKey
from rules.vocabulary import (
    BODIES,
    EFFECTS,
    FIELD_NAME,
    HEADER_NAME,
    MATCH,
    MODES,
    NAME,
    REFUSALS,
    TOOL,
    UPSTREAM_KEY,
)
from rules.where import Condition, parse_where
from rules.yamltree import Node

CAP_LIMIT_BYTES = 256 * 1024 * 1024
"""All bodies in memory together may take this much, so one may not take more."""

_WHAT_ONLY = frozenset({"agent", "run", "tool", "credential"})
"""Places that a match may not read: a match says what a call is, not who makes it."""


def read_tool(name: Node, value: Node, report: Report) -> Tool | None:
    """The tool `name`, or None when something is wrong with it, which is in the report."""
    before = len(report.problems)
    text = str(name.scalar)
    if not re.fullmatch(NAME, text):
        report.add("name", f"`{text}` can not be the name of a tool", name, NAME_HELP)
    found = {"match": value}
    if value.kind == "map":
        found = report.keys(value, "a tool", TOOL)
        if "match" not in found:
            misplaced = any(key.scalar in MATCH for key, _ in value.entries)
            mend = "put `request` and `where` under `match`" if misplaced else "write `match: METHOD https://host/path`"
            report.add("missing-key", f"the tool `{text}` has no `match`", name, mend)
    matches = read_matches(found["match"], report) if "match" in found else ()
    effect = report.choice(found["effect"], "`effect`", EFFECTS) if "effect" in found else None
    body = report.choice(found["body"], "`body`", BODIES) if "body" in found else None
    credential = _credential(found["credential"], report) if "credential" in found else ""
    refusal = report.choice(found["refusal"], "`refusal`", REFUSALS) if "refusal" in found else None
    cap_bytes = _cap(found["cap"], report) if "cap" in found else BODY_CAP_BYTES
    upstream_key = _upstream_key(found["upstream_key"], body, credential, report) if "upstream_key" in found else None
    expect = report.attempt(lambda: parse_expect(found["expect"])) if "expect" in found else None
    polling = _flag(found["polling"], "`polling`", report) if "polling" in found else False
    matches = _without_keys(matches, credential, upstream_key)
    params = _params(found, matches, body, credential, report) if len(report.problems) == before else None
    if len(report.problems) > before:
        return None
    return Tool(
        name=text,
        matches=matches,
        effect=cast(Effect | None, effect) or _effect(matches),
        body=cast(DeclaredBody | None, body),
        credential=credential,
        cap_bytes=cap_bytes,
        refusal=refusal or "",
        upstream_key=upstream_key,
        expect=expect,
        polling=polling,
        params=params,
        source=f"{name.mark.file}:{name.mark.line}",
    )


def _without_keys(matches: tuple[Match, ...], credential: str, key: UpstreamKey | None) -> tuple[Match, ...]:
    """`matches`, where the headers that hold the secret and the key do not tell what a call is."""
    hidden = {credential.removeprefix("header."), key.name.lower() if key is not None else ""}
    telling = [tuple(name for name in match.telling if name not in hidden) for match in matches]
    return tuple(
        replace(match, telling=names) if names != match.telling else match
        for match, names in zip(matches, telling, strict=True)
    )


def _effect(matches: tuple[Match, ...]) -> Effect | None:
    """What a tool does that says nothing of it: where every message only reads, so does the tool."""
    return "read" if all(match.says is not None and match.says.reads_only for match in matches) else None


NAME_HELP = "use letters, digits, `.`, `_` and `-`, at most 80, and start with a letter or digit"


def read_matches(node: Node, report: Report) -> tuple[Match, ...]:
    """The value of `match`: a pattern, a mapping with `request` and `where`, or a list of either."""
    found = [_match(item, report) for item in report.some(node, "patterns")]
    return tuple(match for match in found if match is not None)


def _match(node: Node, report: Report) -> Match | None:
    where, condition, says = None, None, None
    if node.kind == "map":
        found = report.keys(node, "a match", MATCH)
        if "request" not in found:
            mend = "write `request: METHOD https://host/path`"
            report.add("missing-key", "the match has no `request`", node, mend)
            return None
        words = [word for word in PARSERS if word in found]
        if len(words) > 1:
            report.add("conflict", f"`{words[0]}` and `{words[1]}` stand side by side", found[words[1]], "use one")
        said = found[words[0]] if words else None
        says = report.attempt(lambda: PARSERS[words[0]](said)) if said is not None else None
        where = found.get("where")
        condition = report.attempt(lambda: parse_where(where)) if where is not None else None
        for field in condition.fields if condition else ():
            if field.place in _WHAT_ONLY and where is not None:
                message = f"`{field}` can not be part of a match, which says what a call is, not who makes it"
                report.add("field", message, where, "put it into the `where` of a rule")
        node = found["request"]
    pattern = report.attempt(lambda: parse_pattern(node))
    if pattern is None:
        return None
    if condition is not None and where is not None:
        unset = [str(field.steps[0]) for field in condition.fields if field.place == "path"]
        for name in (name for name in unset if name not in pattern.names):
            captured = listing((f"{{{each}}}" for each in pattern.names), "and") if pattern.names else "no name"
            message = f"`path.{name}` is never set: the pattern captures {captured}"
            report.add("unknown-path-name", message, where, suggest(name, pattern.names))
    return Match(pattern, condition, says, _telling(condition))


def _telling(condition: Condition | None) -> tuple[str, ...]:
    """The headers by which `condition` tells one call from another."""
    names = {str(field.steps[0]) for field in condition.fields if field.place == "header"} if condition else set()
    return tuple(sorted(name for name in names if name not in OPERATIONS and may_tell(name)))


def _credential(node: Node, report: Report) -> str:
    text = report.text(node, "`credential`")
    if text is not None and text not in ("header", "query") and re.fullmatch(r"[A-Za-z0-9_-]+", text):
        report.add("field", f"`{text}` does not say where the credential is", node, f"write `header.{text}`")
        return ""
    field = report.attempt(lambda: parse_field(text, node)) if text is not None else None
    if field is None:
        return ""
    if field.place not in ("header", "query") or len(field.steps) != 1:
        message = f"`{field}` can not be where a credential is"
        report.add("field", message, node, "write `header.NAME` or `query.NAME`")
    return field.text


NO_KEYS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "host", "content-length", "content-type",
        "content-encoding", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer",
        "upgrade", "expect", "x-api-key", "api-key", "apikey", "api_key", "x-goog-api-key", "private-token",
        "x-auth-token", "x-access-token",
    }
)  # fmt: skip
"""Headers that mean something else: a key in one of these would break the call, or put its secret on record."""


KEY_HOLDERS = {"header": "header", "query": "parameter", "body": "field"}


def _upstream_key(node: Node, body: str | None, credential: str, report: Report) -> UpstreamKey | None:
    """`Idempotency-Key`, or a mapping of `header`, `query` or `body`, and `retention`."""
    retention_ns: int | None = RETENTION_NS
    place: Place = "header"
    if node.kind == "map":
        found = report.keys(node, "an upstream key", UPSTREAM_KEY)
        if "retention" in found:
            retention_ns = parse_duration(found["retention"].scalar)
            if retention_ns is None:
                report.add("duration", "`retention` is no duration", found["retention"], DURATION_HELP)
        places = [each for each in PLACES if each in found]
        if len(places) != 1:
            mend = "write one of `header`, `query` and `body`, such as `header: Idempotency-Key`"
            said = "stands in two places" if places else "has no `header`, `query` or `body`"
            report.add("upstream-key" if places else "missing-key", f"the upstream key {said}", node, mend)
            return None
        (place,) = places
        node = found[place]
    if isinstance(node.scalar, bool):
        mend = "name the field by which the API knows a repetition, such as `upstream_key: Idempotency-Key`"
        report.add("wrong-type", "`upstream_key` is the name of a header, not `true`", node, mend)
        return None
    name = report.text(node, "`upstream_key`")
    if name is None or retention_ns is None:
        return None
    if place == "header" and not re.fullmatch(HEADER_NAME, name):
        mend = "write the name alone, such as `upstream_key: Idempotency-Key`"
        report.add("upstream-key", f"`{name}` is not the name of a header", node, mend)
    elif place != "header" and not re.fullmatch(FIELD_NAME, name):
        mend = "write the name alone, such as `idempotency_key`: the field has to be an outermost one"
        report.add("upstream-key", f"`{name}` is not the name of a field", node, mend)
    elif name.lower() in NO_KEYS or f"{place}.{name}".lower() == credential.lower():
        mend = f"name the {KEY_HOLDERS[place]} that the API's documentation gives for idempotency keys"
        report.add("upstream-key", f"`{name}` has another meaning, so it can not hold a key", node, mend)
    elif place == "body" and body not in (None, "json", "form"):
        mend = "say `body: json` or `body: form` for the tool, or where else the key stands"
        report.add("upstream-key", f"the tool says `body: {body}`, which has no field for a key", node, mend)
    return UpstreamKey(name, retention_ns, place)


def _params(
    found: dict[str, Node], matches: tuple[Match, ...], body: str | None, credential: str, report: Report
) -> Contract | None:
    mode = report.choice(found["params_mode"], "`params_mode`", MODES) if "params_mode" in found else "enforce"
    if "params" not in found:
        if "params_mode" in found:
            mend = "add `params`, or remove it"
            report.add("params", "`params_mode` stands without `params`", found["params_mode"], mend)
        return None
    says = [match.says for match in matches if match.says is not None]
    if says and not all(match.says is not None and match.says.has_arguments for match in matches):
        session = next((one.text for one in says if not one.has_arguments), "")
        message = f"`{session}` has no arguments" if session else "some matches of this tool have arguments, others not"
        other = "remove `params`, or name the tool that they are of: `mcp: NAME`"
        mend = other if session else "give what has arguments a tool of its own"
        report.add("params", message, found["params"], mend)
        return None
    patterns = [match.pattern for match in matches]
    methods = {method for pattern in patterns for method in pattern.methods}
    calls = Calls(
        methods=frozenset(methods) if all(pattern.methods for pattern in patterns) else frozenset(),
        names=tuple(dict.fromkeys(name for pattern in patterns for name in pattern.names)),
        body=body,
        messages=bool(says),
        beside=frozenset().union(*(one.in_query for one in says), _secret_in_query(credential)),
    )
    return read_params(found["params"], calls, mode == "monitor", report)


def _secret_in_query(credential: str) -> tuple[str, ...]:
    """The query parameter that holds the caller's secret, which is no parameter of the operation."""
    return (credential.removeprefix("query."),) if credential.startswith("query.") else ()


def _flag(node: Node, what: str, report: Report) -> bool:
    if not isinstance(node.scalar, bool):
        report.wrong_type(node, what, "`true` or `false`")
    return node.scalar is True


def _cap(node: Node, report: Report) -> int:
    size_bytes = report.size(node)
    if size_bytes > CAP_LIMIT_BYTES:
        report.add("size", f"`{node.scalar}` is too large", node, "the largest cap is `256MiB`")
    return size_bytes
