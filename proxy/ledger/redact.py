"""What may be written of a call: facts stay readable, secrets become keyed hashes, nothing is without bound.

Three questions, in this order: is the field a header that is not on the list; does its name say secret; does the value
look like one? A hash `hash:...` still tells equal from different, which is all that an audit needs of a secret.
Redacting twice changes nothing.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import msgspec

from proxy.ledger.entries import (
    BootEntry,
    CheckpointEntry,
    CommandEntry,
    DecisionEntry,
    Entry,
    OutcomeEntry,
    PruneEntry,
    RulesetEntry,
)
from rules.decision import Plain, Violation

PLAIN_HEADERS = frozenset(
    {
        "accept", "accept-language", "content-type", "content-length", "content-encoding", "user-agent",
        "idempotency-key", "x-request-id", "traceparent", "if-match", "if-none-match", "x-amz-target",
        "x-amzn-trace-id", "stripe-version", "anthropic-version", "x-github-api-version", "openai-organization",
        "mcp-protocol-version",
    }
)  # fmt: skip
"""The headers whose values are written. Every other one is hashed."""

SECRET_WORDS = frozenset(
    {
        "authorization", "bearer", "cookie", "credential", "credentials", "csrf", "cvc", "cvv", "jwt", "otp",
        "passphrase", "passwd", "password", "pin", "pwd", "secret", "secrets", "session", "sessionid", "signature",
        "ssn", "token", "apikey", "accesskey", "privatekey", "secretkey", "authtoken", "accesstoken", "refreshtoken",
    }
)  # fmt: skip
SECRET_PAIRS = frozenset({"api key", "access key", "private key", "secret key", "signing key", "encryption key"})
HARMLESS_PAIRS = frozenset(
    {"page token", "next token", "continuation token", "sync token", "token type", "client token", "idempotency token",
     "token count", "token limit"}
)  # fmt: skip
"""Names with `token` in them that say where one is in a list, or how many tokens, or are idempotency keys."""

MAX_TEXT = 256
MAX_HELD_TEXT = 4096
"""So much of a text is kept where a person has to see what they allow."""

MAX_NODES = 200
MAX_DEPTH = 12
MIN_HIDDEN = 4
"""A secret shorter than this is hashed where it stands, but not looked for in other texts: it is everywhere."""

INT64 = 1 << 63

HASHED = re.compile(r"hash:[0-9a-f]{32}")
SHORTENED = re.compile(r"\.\.\. \([0-9]+ characters, hash:[0-9a-f]{32}\)$")
TOO_LARGE = re.compile(r"too large to be recorded \([0-9]+ characters of JSON, hash:[0-9a-f]{32}\)")
SHORTENED_BYTES = 80
"""More than `SHORTENED` ever takes."""

SECRET = re.compile(
    r"""
      \b(?:sk|rk)_(?:live|test)_\w{8,} | \bwhsec_\w{8,}                       # Stripe
    | \bsk-[\w-]{20,}                                                         # OpenAI, Anthropic
    | \bgh[opsur]_\w{20,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{16,}         # GitHub, GitLab
    | \bxox[a-z]-[\w-]{8,} | \bxapp-[\w-]{8,}                                 # Slack
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                           # AWS
    | \bAIza[\w-]{30,} | \bya29\.[\w-]{16,}                                   # Google
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                                       # a JSON Web Token
    | \bSG\.[\w-]{16,}\.[\w-]{16,} | \bSK[0-9a-f]{32}\b                       # SendGrid, Twilio
    | \b(?:npm|hf|shpat|shpss|dop_v1|pypi)[_-][\w-]{20,}                      # npm, Hugging Face, Shopify, ...
    | \bbp_[\w-]{32,}                                                         # ours
    | \b\d{6,}:[\w-]{30,}                                                     # Telegram
    | \b(?:[Bb]earer|BEARER|[Bb]asic|BASIC)\s+[\w.~+/=-]{12,}
    | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----[\s\S]*
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                                         # user and password in a URL
    """,
    re.VERBOSE,
)
"""What looks like a secret wherever it stands."""

MIN_SECRET = 12
RUN = re.compile(r"[\w.:+/=~-]{%d}" % MIN_SECRET)  # noqa: UP031  braces are the pattern's
HINTS = (
    "sk_", "rk_", "whsec_", "sk-", "gh", "glpat-", "xox", "xapp-", "AKIA", "ASIA", "AIza", "ya29.", "eyJ", "SG.", "SK",
    "npm_", "hf_", "shp", "dop_", "pypi-", "bp_", ":", "earer", "EARER", "asic", "ASIC", "-----B",
)  # fmt: skip
"""Every match of `SECRET` has such a run of characters and one of these: they rule out most texts in a twentieth."""

SECRET_SEGMENTS = {
    "/bot": re.compile(r"(?<=/bot)\d+:[\w-]{20,}"),  # https://api.telegram.org/bot<token>/sendMessage
    "/services/": re.compile(r"(?<=/services/)T\w+/B\w+/\w+"),  # https://hooks.slack.com/services/...
    "/webhooks/": re.compile(r"(?<=/webhooks/)\d+/[\w-]{40,}"),  # https://discord.com/api/webhooks/...
}
"""What is a secret at its place in a path, by what stands before it."""


class Redactor:
    """Redacts with one key: equal secrets become equal hashes."""

    def __init__(self, hash_secret: Callable[[bytes], str]) -> None:
        self._hash_secret = hash_secret

    def entry(self, entry: Entry) -> Entry:
        """`entry` as it may be written. Changes are left as they are: their keys are digests already."""
        if isinstance(entry, DecisionEntry):
            return self._decision(entry)
        if isinstance(entry, OutcomeEntry):
            if not entry.error and not entry.answer_sha256 and not entry.streamed_sha256:
                return entry
            return msgspec.structs.replace(
                entry,
                error=self.text(entry.error),
                answer_sha256=self._body_digest(entry.answer_sha256),
                streamed_sha256=self._body_digest(entry.streamed_sha256),
            )
        if isinstance(entry, CheckpointEntry | PruneEntry):
            return entry
        if isinstance(entry, CommandEntry):
            return msgspec.structs.replace(entry, data=self.facts(entry.data))
        if isinstance(entry, BootEntry):
            return msgspec.structs.replace(entry, command=self.text(entry.command, limit=4 * MAX_TEXT))
        return _ruleset(entry)

    def facts(self, facts: dict[str, Plain]) -> dict[str, Plain]:
        """`facts` with what is secret hashed. Names are fields such as `header.x`, `body.card.number`, `query.q`."""
        return self._facts(facts, [])

    def path(self, path: str) -> str:
        """`path` with what is secret in it hashed. It is not shortened."""
        for before, pattern in SECRET_SEGMENTS.items():
            if before in path:
                path = pattern.sub(self._hash_match, path)
        return escape(self._without_secrets(path))

    def text(self, text: str, hidden: Iterable[str] = (), limit: int = 2 * MAX_TEXT) -> str:
        """Free text with what looks like a secret hashed, and every one of `hidden`."""
        for secret in hidden:
            if secret in text:
                text = text.replace(secret, self._hash(secret))
        return self._shorten(self._without_secrets(text), limit)

    def _decision(self, entry: DecisionEntry) -> DecisionEntry:
        hidden: list[str] = []
        facts = self._facts(entry.facts, hidden, MAX_HELD_TEXT if entry.action == "hold" else MAX_TEXT)
        return msgspec.structs.replace(
            entry,
            method=escape(entry.method),
            host=escape(entry.host),
            path=self.path(entry.path),
            detail=self.text(entry.detail, hidden),
            facts=facts,
            violations=self._violations(entry.violations, hidden),
            would=self._violations(entry.would, hidden),
        )

    def _violations(self, violations: tuple[Violation, ...], hidden: list[str]) -> tuple[Violation, ...]:
        return tuple(
            msgspec.structs.replace(
                violation,
                detail=self.text(violation.detail, hidden),
                actual=self._hash(violation.actual)
                if violation.actual and _field(violation.field)[1]
                else self.text(violation.actual, hidden, MAX_TEXT),
            )
            for violation in violations
        )

    def _facts(self, facts: dict[str, Plain], hidden: list[str], limit: int = MAX_TEXT) -> dict[str, Plain]:
        """As `facts`; adds to `hidden` the texts that were hashed for their name. Texts over `limit` are shortened."""
        redacted: dict[str, Plain] = {}
        for field, value in facts.items():
            name, secret = _field(field)
            if isinstance(value, list | dict) and _weight(value, MAX_NODES, MAX_DEPTH) < 0:
                redacted[name] = self._digest(value)
            else:
                redacted[name] = self._value(value, secret, hidden, limit)
        return redacted

    def _value(self, value: Any, secret: bool, hidden: list[str], limit: int) -> Plain:
        if isinstance(value, str):
            if not secret:
                return self.text(value, limit=limit)
            if len(value) >= MIN_HIDDEN and HASHED.fullmatch(value) is None:
                hidden.append(value)
            return self._hash(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | Decimal):
            if secret:
                return self._hash(str(value))
            if isinstance(value, Decimal) or not -INT64 <= value < INT64:
                return self._shorten(str(value), MAX_TEXT)
            return value
        if isinstance(value, dict):
            return {
                self._shorten(name, MAX_TEXT): self._value(item, secret or _is_secret_name(name), hidden, limit)
                for name, item in value.items()
            }
        return [self._value(item, secret, hidden, limit) for item in value]

    def _without_secrets(self, text: str) -> str:
        """`text` with what looks like a secret hashed."""
        if len(text) < MIN_SECRET or RUN.search(text) is None or not _has_hint(text):
            return text
        return SECRET.sub(self._hash_match, text)

    def _shorten(self, text: str, limit: int) -> str:
        """`text` on one line, and what is over `limit` replaced by its length and digest."""
        if len(text) <= limit or (len(text) <= limit + SHORTENED_BYTES and SHORTENED.search(text)):
            return escape(text)
        return f"{escape(text[:limit])[:limit]}... ({len(text)} characters, {self._hash(text)})"

    def _digest(self, value: Plain) -> str:
        """What stands for a value that is too large to be written."""
        content = json.dumps(value, sort_keys=True, default=str)
        return f"too large to be recorded ({len(content)} characters of JSON, {self._hash(content)})"

    def _body_digest(self, sha256: str) -> str:
        """The digest of a body, keyed: without the key nobody can try contents until one fits."""
        return self._hash(sha256) if sha256 else ""

    def _hash(self, secret: str) -> str:
        if HASHED.fullmatch(secret) is not None:
            return secret
        return f"hash:{self._hash_secret(secret.encode('utf-8', 'surrogatepass'))}"

    def _hash_match(self, match: re.Match[str]) -> str:
        return self._hash(match.group())


def _has_hint(text: str) -> bool:
    for hint in HINTS:  # noqa: SIM110  a loop takes half the time of `any`, and this runs for every fact
        if hint in text:
            return True
    return False


def shortened(value: Plain) -> bool:
    """Whether something in `value`, as it was written, is not all that it was."""
    if isinstance(value, str):
        return SHORTENED.search(value) is not None or TOO_LARGE.fullmatch(value) is not None
    if isinstance(value, dict):
        return any(map(shortened, value.values())) or any(map(shortened, value))
    return isinstance(value, list) and any(map(shortened, value))


def escape(text: str) -> str:
    """`text` without control characters, lone surrogates and other things that do not print: `\\x1b`, `\\u2028`."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _ruleset(entry: RulesetEntry) -> RulesetEntry:
    """The problem of a failed reload keeps its lines: it is shown as it was printed."""
    return msgspec.structs.replace(entry, problem="\n".join(escape(line) for line in entry.problem.split("\n")))


@functools.lru_cache(1024)
def _field(field: str) -> tuple[str, bool]:
    """The field as it is written, and whether its value is hashed for its name."""
    where, _, name = field.partition(".")
    if where == "header":
        return escape(field), name.lower() not in PLAIN_HEADERS
    return escape(field), bool(name) and _is_secret_name(name)


@functools.lru_cache(4096)
def _is_secret_name(name: str) -> bool:
    """Whether `name` (`apiKey`, `client_secret`, `card.cvc`) says that its value is a secret."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    parts = re.findall(r"[a-z0-9]+", words.lower())
    pairs = {f"{first} {second}" for first, second in itertools.pairwise(parts)}
    if not pairs.isdisjoint(SECRET_PAIRS):
        return True
    if not pairs.isdisjoint(HARMLESS_PAIRS):
        return False
    return not SECRET_WORDS.isdisjoint(parts) or (parts[-1:] == ["key"] and len(parts) == 1)


def _weight(value: Plain, left: int, depth: int) -> int:
    """`left` less the number of values in `value`; negative when they are too many or nested too deep."""
    if depth == 0:
        return -1
    left -= 1
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            left = _weight(item, left, depth - 1)
            if left < 0:
                return left
    return left
