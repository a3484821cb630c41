"""Which secret the upstream sees, as a keyed hash: two calls with the same credential are the same party to the API.

What a client makes anew for every request (signatures, nonces) does not count, or no two calls would be equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from rules.call import Call

type Pairs = tuple[tuple[str, str], ...]

KEY_HEADERS = (
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "apikey",
    "private-token",
    "x-auth-token",
    "x-access-token",
    "api_key",
)
KEY_QUERIES = ("key", "api_key", "apikey", "access_token", "token")
SIGNED_QUERIES = ("X-Amz-Credential", "X-Goog-Credential", "AWSAccessKeyId", "GoogleAccessId")

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)")
_PARAMETER = re.compile(r'(oauth_consumer_key|oauth_token|username|realm)="([^"]*)"')


def find_credential(headers: Pairs, query: Pairs, hash_secret: Callable[[bytes], str]) -> str:
    """The keyed hash of the secret in the usual places, in this order: Authorization, an API-key header, a pre-signed
    query's access key id, an API-key query, Cookie. Empty when there is none."""
    sent: dict[str, str] = {}
    for name, value in headers:
        sent.setdefault(name, value)
    if "authorization" in sent:
        return _hashed("header.authorization", _stable(sent["authorization"]), hash_secret)
    for name in KEY_HEADERS:
        if name in sent:
            return _hashed("header." + name, sent[name], hash_secret)
    if query:
        asked = dict(reversed(query))
        for name in SIGNED_QUERIES:
            if name in asked:
                return _hashed("signed", asked[name].partition("/")[0], hash_secret)
        for name in KEY_QUERIES:
            if name in asked:
                return _hashed("query." + name, asked[name], hash_secret)
    cookies = [value for name, value in headers if name == "cookie"]
    return _hashed("header.cookie", "; ".join(cookies), hash_secret) if cookies else ""


def with_credential(call: Call, field: str, hash_secret: Callable[[bytes], str]) -> Call:
    """`call` with the credential that stands in `field` (`header.x-key`, `query.key`).

    Empty when the field is absent: what a tool names is the only place that counts for it.
    """
    place, _, name = field.partition(".")
    value = ""
    if place == "header":
        value = call.header(name.lower()) or ""
        if name.lower() == "authorization":
            value = _stable(value)
    elif place == "query":
        value = next((text for sent, text in call.query if sent == name), "")
    return msgspec.structs.replace(call, credential=_hashed(f"{place}.{name.lower()}", value, hash_secret))


def _hashed(place: str, secret: str, hash_secret: Callable[[bytes], str]) -> str:
    return hash_secret(f"{place}\0{secret}".encode()) if secret else ""


def _stable(authorization: str) -> str:
    """The part of an Authorization value that stays the same from call to call, with its scheme."""
    scheme, _, rest = authorization.partition(" ")
    scheme = scheme.lower()
    if scheme.startswith(("aws4-", "goog4-")):
        found = _CREDENTIAL.search(rest)
        return f"{scheme} {found[1]}" if found else f"{scheme} {rest}"
    if scheme in ("aws", "goog1", "sharedkey", "sharedkeylite"):
        return f"{scheme} {rest.partition(':')[0]}"
    if scheme in ("oauth", "digest"):
        stable = sorted(f"{name}={value}" for name, value in _PARAMETER.findall(rest))
        return f"{scheme} {' '.join(stable)}" if stable else f"{scheme} {rest}"
    return f"{scheme} {rest.strip()}"
