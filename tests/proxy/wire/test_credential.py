"""Which secret a call carries: equal for every call of the same party, whatever is made anew for each request."""

from __future__ import annotations

import base64

import pytest

from proxy.wire.credential import find_credential, with_credential
from rules.call import Call

SIGNED = "AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature={sum}"
OAUTH = 'OAuth oauth_consumer_key="{key}", oauth_nonce="{n}", oauth_signature="{n}", oauth_token="t", realm="r"'
DIGEST = 'Digest username="{user}", realm="r", nonce="{n}", uri="/", response="{n}"'

type Pairs = tuple[tuple[str, str], ...]


def plain(secret: bytes) -> str:
    """No hash at all, so that a test shows what would be hashed."""
    return secret.decode().replace("\0", " = ")


FOUND: list[tuple[str, Pairs, Pairs, str]] = [
    ("nothing", (), (), ""),
    ("nothing that is a secret", (("accept", "a/b"),), (("q", "1"),), ""),
    ("a bearer token", (("authorization", "Bearer t"),), (), "header.authorization = bearer t"),
    ("the scheme in any case", (("authorization", "BEARER t"),), (), "header.authorization = bearer t"),
    ("the token in its case", (("authorization", "Bearer T"),), (), "header.authorization = bearer T"),
    ("Basic", (("authorization", "Basic dTpw"),), (), "header.authorization = basic dTpw"),
    ("a scheme of one's own", (("authorization", "Token token=x"),), (), "header.authorization = token token=x"),
    ("an API key of Anthropic", (("x-api-key", "k"),), (), "header.x-api-key = k"),
    ("an API key of Azure", (("api-key", "k"),), (), "header.api-key = k"),
    ("an API key of Google", (("x-goog-api-key", "k"),), (), "header.x-goog-api-key = k"),
    ("an API key of Supabase", (("apikey", "k"),), (), "header.apikey = k"),
    ("a token of GitLab", (("private-token", "k"),), (), "header.private-token = k"),
    ("a token of others", (("x-auth-token", "k"),), (), "header.x-auth-token = k"),
    ("Authorization before an API key", (("x-api-key", "k"), ("authorization", "Bearer t")), (),
     "header.authorization = bearer t"),
    ("an API key before a query", (("x-api-key", "k"),), (("key", "q"),), "header.x-api-key = k"),
    ("an empty header is none", (("x-api-key", ""),), (), ""),
    ("a key in the query", (), (("key", "k"),), "query.key = k"),
    ("an api_key in the query", (), (("api_key", "k"),), "query.api_key = k"),
    ("an access token in the query", (), (("access_token", "k"),), "query.access_token = k"),
    ("a token in the query", (), (("token", "k"),), "query.token = k"),
    ("the first of two", (), (("key", "a"), ("key", "b")), "query.key = a"),
    ("a pre-signed query of AWS", (), (("X-Amz-Signature", "s"), ("X-Amz-Credential", "AKIA1/2026/eu/s3/aws4_request")),
     "signed = AKIA1"),
    ("a pre-signed query of Google", (), (("X-Goog-Credential", "sa@p/2026/auto/storage/goog4_request"),),
     "signed = sa@p"),
    ("a cookie, as the last resort", (("cookie", "s=1"),), (), "header.cookie = s=1"),
    ("a query before a cookie", (("cookie", "s=1"),), (("key", "k"),), "query.key = k"),
    ("cookies in crumbs are one", (("cookie", "a=1"), ("cookie", "b=2")), (), "header.cookie = a=1; b=2"),
    ("SigV4: the access key id", (("authorization", SIGNED.format(key="AKIA1", sum="x")),), (),
     "header.authorization = aws4-hmac-sha256 AKIA1"),
    ("SigV4 without a credential", (("authorization", "AWS4-HMAC-SHA256 x"),), (),
     "header.authorization = aws4-hmac-sha256 x"),
    ("SigV2: the access key id", (("authorization", "AWS AKIA1:sum"),), (), "header.authorization = aws AKIA1"),
    ("Azure's shared key: the account", (("authorization", "SharedKey acc:sum"),), (),
     "header.authorization = sharedkey acc"),
    ("OAuth 1: consumer and token", (("authorization", OAUTH.format(key="c", n="1")),), (),
     "header.authorization = oauth oauth_consumer_key=c oauth_token=t realm=r"),
    ("Digest: user and realm", (("authorization", DIGEST.format(user="u", n="1")),), (),
     "header.authorization = digest realm=r username=u"),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "query", "hashed"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_the_secret_is_found_in_the_usual_places(headers: Pairs, query: Pairs, hashed: str) -> None:
    assert find_credential(headers, query, plain) == hashed


@pytest.mark.parametrize(
    ("one", "again", "other"),
    [
        (SIGNED.format(key="A", sum="1"), SIGNED.format(key="A", sum="2"), SIGNED.format(key="B", sum="1")),
        (OAUTH.format(key="A", n="1"), OAUTH.format(key="A", n="2"), OAUTH.format(key="B", n="1")),
        (DIGEST.format(user="A", n="1"), DIGEST.format(user="A", n="2"), DIGEST.format(user="B", n="1")),
        ("AWS A:1", "AWS A:2", "AWS B:1"),
    ],
)
def test_a_signature_that_rotates_does_not_count(one: str, again: str, other: str) -> None:
    def found(value: str) -> str:
        return find_credential((("authorization", value),), (), plain)

    assert found(one) == found(again)
    assert found(one) != found(other)


def call(**fields: Pairs) -> Call:
    made = Call("agent", "run", "POST", "https", "a.example", 443, "/", ("",))
    return Call(**{name: getattr(made, name) for name in made.__struct_fields__} | fields)


NAMED: list[tuple[str, str, Call, str]] = [
    ("a header", "header.X-Shop-Key", call(headers=(("x-shop-key", "k"),)), "header.x-shop-key = k"),
    ("Authorization", "header.Authorization", call(headers=(("authorization", "AWS A:1"),)),
     "header.authorization = aws A"),
    ("a query name", "query.sig", call(query=(("a", "b"), ("sig", "k"))), "query.sig = k"),
    ("an absent header, though another is there", "header.x-shop-key", call(headers=(("authorization", "Bearer t"),)),
     ""),
    ("an absent query name", "query.sig", call(), ""),
    ("another place", "body.token", call(), ""),
]  # fmt: skip


@pytest.mark.parametrize(("field", "sent", "hashed"), [row[1:] for row in NAMED], ids=[row[0] for row in NAMED])
def test_a_tool_can_name_the_place(field: str, sent: Call, hashed: str) -> None:
    assert with_credential(sent, field, plain).credential == hashed


def test_the_same_secret_in_two_places_is_two_credentials() -> None:
    assert find_credential((("x-api-key", "k"),), (), plain) != find_credential((), (("key", "k"),), plain)


def test_only_the_hash_leaves() -> None:
    secret = base64.b64encode(b"user:password").decode()
    found = find_credential((("authorization", f"Basic {secret}"),), (), lambda raw: f"hash of {len(raw)} bytes")
    assert found == f"hash of {len('header.authorization') + 1 + len('basic ') + len(secret)} bytes"
