"""`rules eval`: one call, decoded as the proxy would decode it, the decision on it, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from proxy.report.terminal import OF_DECISION, Style, columns_of, paint, visible, wrap
from proxy.settings import DEFAULT_AGENT
from proxy.wire.request import Head, WireError, as_websocket, read_body, read_head, with_credential
from rules.codes import CODES
from rules.decide import apply
from rules.decision import Decision
from rules.explain import Explanation, RuleSeen, explain
from rules.halts import Halt
from rules.needs import needs
from rules.pattern import PLAIN, PORTS
from rules.ruleset import RuleSet
from rules.state import State

FORM = "application/x-www-form-urlencoded"
FEW = 3
"""So many tools that share an address are named one by one; of an API that has but one, hundreds may do."""


class RequestError(Exception):
    """What was asked for is no request. The text is one line."""


class Asked(msgspec.Struct, frozen=True):
    """A request as an agent would send it. `websocket`: it opens one, or is sent in one."""

    head: Head
    body: bytes
    agent: str
    run: str
    websocket: bool = False


class Node(msgspec.Struct, frozen=True):
    """A line of a tree and what hangs below it."""

    text: str
    style: Style = ""
    below: tuple[Node, ...] = ()


def asked_of(
    request: str,
    *,
    form: Sequence[str] = (),
    headers: Sequence[str] = (),
    json_texts: Sequence[str] = (),
    agent: str | None = None,
    run: str | None = None,
) -> Asked:
    """The request that `POST https://host/path` with these parts means. Raises `RequestError`."""
    if len(json_texts) > 1 or (json_texts and form):
        raise RequestError("a call has one body: give either `--form` fields or one `--json` body")
    body, media_type = b"", ""
    if form:
        body, media_type = urlencode([_pair(field, "=", "--form") for field in form]).encode(), FORM
    elif json_texts:
        body, media_type = _json(json_texts[0]), "application/json"
    method, _, url = request.strip().rpartition(" ")
    method = method.strip() or ("POST" if body else "GET")
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if not port or not parts.hostname or parts.username is not None or parts.fragment:
        raise RequestError(f"`{request}` is no request: write one such as `POST https://api.example.com/orders`")
    given = [_pair(header, ":", "--header") for header in headers]
    names = {name.lower() for name, _ in given}
    usual = [("Host", parts.netloc)]
    if body:
        usual += [("Content-Type", media_type), ("Content-Length", str(len(body)))]
    pairs = [*((name, value) for name, value in usual if name.lower() not in names), *given]
    # What stands in a shell as one word may hold characters that a client would encode; everything else stays raw.
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~") + (f"?{parts.query}" if parts.query else "")
    head = Head(
        method=method.encode(),
        scheme=PLAIN.get(parts.scheme, parts.scheme),
        host=parts.hostname,
        port=port,
        target=target.encode(),
        authority=b"",
        http_version="HTTP/1.1",
        headers=tuple((name.encode(), value.encode()) for name, value in pairs),
        sni=parts.hostname if parts.scheme in ("https", "wss") else None,
    )
    return Asked(head, body, agent or DEFAULT_AGENT, run or "r_eval", parts.scheme in PLAIN)


def evaluate(ruleset: RuleSet, asked: Asked, now_ns: int, halt: Halt | None = None) -> Explanation:
    """What the proxy would decide on `asked` at this moment, had nothing happened before but perhaps `halt`."""
    state = State()
    if halt is not None:
        apply(state, (halt.begun(),))
    try:
        call = read_head(asked.head, asked.agent, asked.run, _hashed)
        if asked.websocket:
            call = as_websocket(call)
        wanted = needs(ruleset, call)
        if wanted.body and call.body.kind == "unread":
            call = read_body(call, asked.body, wanted.cap_bytes)
        if wanted.credential:
            call = with_credential(call, wanted.credential, _hashed)
    except WireError as error:
        refusal = Decision("deny", error.code, error.detail, (), "")
        return Explanation(refusal, True, (), (), "")
    return explain(ruleset, state, call, now_ns)


def show(found: Explanation, room: int, colour: bool) -> list[str]:
    """The decision as a tree."""
    decision = found.decision
    status = f", status {CODES[decision.code].status}" if decision.code in CODES else ""
    code = f" ({decision.code}{status})" if decision.code else ""
    below = [Node(decision.detail)] if decision.detail else []
    if decision.tool or found.tools:
        below.append(_tools(found))
    below += [_rule(rule, found) for rule in found.rules if rule.near]
    others = sum(not rule.near for rule in found.rules)
    if others:
        other = " other" if others < len(found.rules) else ""
        below.append(Node(f"{others}{other} rule{' is' if others == 1 else 's are'} not about this call", "dim"))
    below += [Node(f"would be refused by {one.rule or one.code}: {one.detail}", "yellow") for one in decision.would]
    if decision.next:
        below.append(Node("what to do", "", tuple(Node(text) for text in decision.next)))
    return _tree(Node(decision.action + code, OF_DECISION.get(decision.action, ""), tuple(below)), room, colour)


def plain(found: Explanation) -> dict[str, object]:
    """What `rules eval --json` prints."""
    decision = found.decision
    return {
        "decision": decision.action,
        "code": decision.code,
        "status": CODES[decision.code].status if decision.code in CODES else None,
        "detail": decision.detail,
        "rules": decision.rules,
        "tool": decision.tool,
        "writes": found.writes,
        "nearest_allow": found.nearest or None,
        "violations": decision.violations,
        "would": decision.would,
        "next": decision.next,
        "tools_seen": found.tools,
        "rules_seen": [
            {
                "id": rule.id,
                "source": rule.source,
                "verbs": rule.verbs,
                "mode": rule.mode,
                "applies": rule.applies,
                "misses": rule.why_not,
                "error": rule.error,
            }
            for rule in found.rules
            if rule.near
        ],
    }


def _tools(found: Explanation) -> Node:
    name = found.decision.tool
    effect = "writes" if found.writes else "only reads"
    others: dict[str, list[str]] = {}
    for tool in found.tools:
        if tool.why_not:
            others.setdefault(tool.why_not, []).append(tool.name)
    below = tuple(
        Node(f"{each} too: {why_not}", "dim")
        for why_not, names in others.items()
        for each in (
            [f"{tool} matches" for tool in names] if len(names) <= FEW else [f"{len(names)} other tools match"]
        )
    )
    return Node(f"tool {name}, which {effect}" if name else f"no tool names it; it {effect}", "", below)


def _rule(rule: RuleSeen, found: Explanation) -> Node:
    what = f"rule {rule.id} ({', '.join(rule.verbs)}{', monitor' if rule.mode == 'monitor' else ''})"
    if rule.error:
        return Node(f"{what} cannot be decided", "red", (Node(rule.error),))
    if rule.applies:
        style: Style = "red" if "deny" in rule.verbs else "green"
        return Node(f"{what} applies · {rule.source}", style)
    misses = tuple(
        Node(f"{miss.field} {miss.limit}: it is {miss.actual}" if miss.field else miss.limit) for miss in rule.why_not
    )
    nearest = ", the nearest allow," if rule.id == found.nearest else ""
    return Node(f"{what}{nearest} does not apply · {rule.source}", "", misses)


def _tree(node: Node, room: int, colour: bool, head: str = "", indent: str = "") -> list[str]:
    first, *more = wrap(visible(node.text), room - columns_of(head))
    lines = [head + paint(first, node.style, colour)]
    trunk = "│  " if node.below else ""
    lines += [indent + trunk + paint(line, node.style, colour) for line in more]
    for child in node.below:
        last = child is node.below[-1]
        lines += _tree(child, room, colour, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
    return lines


def _pair(text: str, sign: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name:
        raise RequestError(f"`{text}` given as {option} has no `{sign}`: write `NAME{sign}VALUE`")
    return name.strip(), value.strip() if sign == ":" else value


def _json(text: str) -> bytes:
    try:
        json.loads(text)
    except ValueError as error:
        raise RequestError(f"the body given as --json is no JSON: {error}") from None
    return text.encode()


def _hashed(secret: bytes) -> str:
    """In place of the keyed hash: nothing of it is kept."""
    return hashlib.sha256(secret).hexdigest()[:32]
