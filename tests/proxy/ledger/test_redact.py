"""What of a call is written: what an audit needs to read, and of secrets only whether they are equal."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.entries import DecisionEntry, Entry
from proxy.ledger.redact import SECRET, Redactor, escape, shortened
from rules.decision import Plain, Violation
from tests.proxy.ledger.samples import VAULT, boot, decision, outcome, refusal, ruleset

redactor = Redactor(VAULT.hash_secret)


def hashed(text: str) -> str:
    return f"hash:{VAULT.hash_secret(text.encode())}"


WRITTEN_AS_IS: list[tuple[str, Plain]] = [
    ("agent", "support"),
    ("body.amount", 500),
    ("body.reason", "duplicate"),
    ("body.confirmed", True),
    ("body.note", None),
    ("body.to[].email", ["a@example.com", "b@example.com"]),
    ("body.max_tokens", 1024),
    ("body.next_page_token", "CAUQAA"),
    ("body.ClientToken", "550e8400-e29b-41d4-a716-446655440000"),
    ("body.metadata.key", "PROJ-1"),
    ("body.keyboard", "de"),
    ("body.author", "ada"),
    ("path.id", "1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms"),
    ("query.sha", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ("header.content-type", "application/json"),
    ("header.User-Agent", "curl/8.5.0"),
    ("header.idempotency-key", "550e8400-e29b-41d4-a716-446655440000"),
    ("credential", "00112233445566778899aabbccddeeff"),
]


@pytest.mark.parametrize(("field", "value"), WRITTEN_AS_IS, ids=[field for field, _ in WRITTEN_AS_IS])
def test_what_is_no_secret_is_written_as_it_is(field: str, value: Plain) -> None:
    assert redactor.facts({field: value}) == {field: value}


HASHED_FOR_ITS_NAME = [
    "header.authorization",
    "header.Cookie",
    "header.x-api-key",
    "header.x-anything-that-is-not-on-the-list",
    "query.key",
    "query.access_token",
    "query.X-Amz-Signature",
    "body.password",
    "body.client_secret",
    "body.apiKey",
    "body.card.cvc",
    "body.user.sessionId",
    "body.accessToken",
    "body.privateKey",
    "body.auth.token",
]


@pytest.mark.parametrize("field", HASHED_FOR_ITS_NAME)
def test_a_value_is_hashed_for_the_name_of_its_field(field: str) -> None:
    assert redactor.facts({field: "swordfish"}) == {field: hashed("swordfish")}
    assert redactor.facts({field: 1234}) == {field: hashed("1234")}
    assert redactor.facts({field: ["swordfish"]}) == {field: [hashed("swordfish")]}


def test_names_inside_a_value_count_too() -> None:
    value: Plain = {"user": "ada", "credentials": {"user": "ada", "pin": 1234}, "list": [{"token": "t-1"}]}
    assert redactor.facts({"body": value}) == {
        "body": {
            "user": "ada",
            "credentials": {"user": hashed("ada"), "pin": hashed("1234")},
            "list": [{"token": hashed("t-1")}],
        }
    }


def fake(*parts: str) -> str:
    """A text that looks like a secret, in pieces, so that no scanner of repositories takes this file for a leak."""
    return "".join(parts)


SECRETS = {
    "Stripe": fake("sk_", "live_", "4eC39HqLyjWDarjtT1zdp7dc"),
    "Stripe, restricted": fake("rk_", "test_", "4eC39HqLyjWD"),
    "Stripe webhook": fake("whsec_", "4eC39HqLyjWD"),
    "OpenAI": fake("sk-", "proj-abcdefghijklmnopqrstuvwxyz0123"),
    "Anthropic": fake("sk-", "ant-api03-abcdefghijklmnopqrstu_vwx"),
    "GitHub": fake("ghp_", "abcdefghijklmnopqrstuvwxyz0123456789"),
    "GitHub, fine-grained": fake("github_pat_", "11ABCDEFG0abcdefghijklmn"),
    "GitLab": fake("glpat-", "abcdefghij0123456789"),
    "Slack": fake("xoxb-", "123456789012-abcdefghijkl"),
    "AWS": fake("AKIA", "IOSFODNN7EXAMPLE"),
    "Google key": fake("AIza", "SyA1234567890abcdefghijklmnopqrstuv"),
    "Google token": fake("ya29.", "a0AfH6SMBx1234567890"),
    "JWT": fake("eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxMjM0NTY3ODkwIn0", ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
    "SendGrid": fake("SG.", "abcdefghijklmnop.", "abcdefghijklmnopqrstuv"),
    "Twilio": fake("SK", "0123456789abcdef0123456789abcdef"),
    "npm": fake("npm_", "abcdefghijklmnopqrstuvwxyz0123456789"),
    "Hugging Face": fake("hf_", "abcdefghijklmnopqrstuvwxyz"),
    "Shopify": fake("shpat_", "0123456789abcdef0123456789abcdef"),
    "DigitalOcean": fake("dop_v1_", "0123456789abcdef0123456789abcdef"),
    "PyPI": fake("pypi-", "AgEIcHlwaS5vcmcCJDAwMDAw"),
    "ours": fake("bp_", "abcdefghijklmnopqrstuvwxyz0123456789-_abcde"),
    "Telegram": fake("123456789:", "AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc"),
    "Bearer": "Bearer abcdefghijkl",
    "Basic": "basic dXNlcjpwYXNzd29yZA==",
    "private key": "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=list(SECRETS))
def test_a_value_is_hashed_for_what_it_looks_like(secret: str) -> None:
    assert redactor.facts({"body.x": secret}) == {"body.x": hashed(secret)}
    assert redactor.text(f"the value is {secret}").startswith(f"the value is {hashed(secret)}")


@given(st.text(max_size=20), st.sampled_from(sorted(SECRETS.values())), st.text(max_size=20))
def test_the_quick_look_overlooks_nothing(before: str, secret: str, after: str) -> None:
    """A text is left alone only where the whole pattern finds nothing in it."""
    text = before + secret + after
    for match in SECRET.finditer(text):
        assert match.group() not in redactor.text(text, limit=10_000)


def test_user_and_password_in_a_url_are_hashed() -> None:
    assert redactor.text("http://ada:swordfish@proxy.example:8080/x") == (
        f"http://{hashed('ada:swordfish')}@proxy.example:8080/x"
    )


PATHS = [
    ("/v1/refunds", "/v1/refunds"),
    ("/repos/o/r/git/blobs/da39a3ee5e6b4b0d3255bfef95601890afd80709", None),
    ("/" + "long/" * 200, None),
    ("/bot123456:AAEhBOweik6ad9rQXMEN/sendMessage", f"/bot{hashed('123456:AAEhBOweik6ad9rQXMEN')}/sendMessage"),
    ("/services/T0ABC/B0DEF/abcdefghijkl", f"/services/{hashed('T0ABC/B0DEF/abcdefghijkl')}"),
    (f"/api/webhooks/42/{'x' * 60}", f"/api/webhooks/{hashed('42/' + 'x' * 60)}"),
    (f"/keys/{SECRETS['Stripe']}/x", f"/keys/{hashed(SECRETS['Stripe'])}/x"),
]


@pytest.mark.parametrize(("path", "written"), PATHS)
def test_a_path_is_whole_but_for_secrets(path: str, written: str | None) -> None:
    assert redactor.path(path) == (path if written is None else written)


def test_what_was_hashed_as_a_fact_is_hashed_in_every_text_of_the_entry() -> None:
    entry = refusal(
        detail="`body.password` is `swordfish`, which is not long enough.",
        facts={"body.password": "swordfish", "body.card.cvc": 7},
        violations=(Violation("r", "c", "was swordfish", "body.password", "swordfish", "8 characters"),),
        would=(Violation("r", "c", "not swordfish", "body.card.cvc", "7", "3 digits"),),
    )
    written = redactor.entry(entry)
    assert b"swordfish" not in msgspec.json.encode(written)
    assert isinstance(written, type(entry))
    assert written.detail == f"`body.password` is `{hashed('swordfish')}`, which is not long enough."
    assert [violation.actual for violation in written.violations + written.would] == [hashed("swordfish"), hashed("7")]
    assert written.violations[0].limit == "8 characters"


def test_long_values_are_cut_and_told_apart() -> None:
    one, other = (redactor.facts({"body.text": "x" * 5_000 + end})["body.text"] for end in "ab")
    assert one != other
    assert re.fullmatch(r"x{256}\.\.\. \(5001 characters, hash:[0-9a-f]{32}\)", str(one))


def nested(depth: int) -> Plain:
    value: Plain = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [list(range(1_000)), nested(100), {str(n): [n] for n in range(300)}], ids=len)
def test_large_values_are_told_apart_but_not_written(value: Plain) -> None:
    written = redactor.facts({"body": value})["body"]
    assert re.fullmatch(r"too large to be recorded \(\d+ characters of JSON, hash:[0-9a-f]{32}\)", str(written))
    assert written != redactor.facts({"body": [value]})["body"]


def test_numbers_of_any_size_can_be_written() -> None:
    numbers: Plain = [2**63 - 1, -(2**63), 2**63, 10**400]
    written = redactor.facts({"body.n": numbers})["body.n"]
    assert isinstance(written, list)
    assert written[:3] == [2**63 - 1, -(2**63), "9223372036854775808"]
    assert str(written[3]).startswith("1000")


def test_nothing_can_move_the_cursor_of_who_reads_it() -> None:
    assert redactor.text("a\x1b[2Jb\r\n\u2028\u202e\ud800c") == r"a\x1b[2Jb\x0d\x0a\u2028\u202e\ud800c"
    assert escape("naïve 日本 🙂 ") == "naïve 日本 🙂 "


EVERY_ENTRY: list[tuple[Entry, str]] = [
    (decision(path="/" + SECRETS["AWS"]), "path"),
    (outcome(error=f"refused {SECRETS['AWS']}"), "error"),
    (boot(command=f"borderpost run -- x --key {SECRETS['AWS']}"), "command"),
]


@pytest.mark.parametrize(("entry", "field"), EVERY_ENTRY)
def test_every_kind_of_entry_is_redacted(entry: Entry, field: str) -> None:
    written = getattr(redactor.entry(entry), field)
    assert SECRETS["AWS"] not in written
    assert hashed(SECRETS["AWS"]) in written


def test_the_problem_of_a_reload_keeps_its_lines() -> None:
    entry = ruleset(problem="error[x]: bad\n --> a.yaml:1:1\x1b")
    assert redactor.entry(entry) == ruleset(problem="error[x]: bad\n --> a.yaml:1:1\\x1b")


def test_the_digest_of_an_answer_is_keyed() -> None:
    written = redactor.entry(outcome(answer_sha256="ab" * 32))
    assert written == outcome(answer_sha256=hashed("ab" * 32))
    assert redactor.entry(outcome(answer_sha256="", streamed_sha256="ab" * 32)) == outcome(
        answer_sha256="", streamed_sha256=hashed("ab" * 32)
    )


plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(), max_size=400)
    | st.sampled_from([*SECRETS.values()]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
fields = st.sampled_from(["body", "body.a", "body.token", "header.x", "query.q", "path.id"])


@given(st.dictionaries(fields, plain, max_size=4))
def test_redacting_is_total_and_can_be_repeated(facts: dict[str, Plain]) -> None:
    """Whatever an agent sends can be written, and redacting what is redacted changes nothing."""
    once = redactor.facts(facts)
    assert len(msgspec.json.encode(once)) < 100_000
    assert redactor.facts(once) == once
    assert not any(secret in str(once) for secret in SECRETS.values())


def test_more_is_kept_of_what_a_person_has_to_see() -> None:
    facts: dict[str, Plain] = {"body": {"text": "x" * 4096, "password": "tuna", "key": "y" * 5_000}}
    held = redactor.entry(decision(action="hold", facts=facts))
    assert isinstance(held, DecisionEntry)
    body = held.facts["body"]
    assert isinstance(body, dict)
    assert body["text"] == "x" * 4096
    assert str(body["password"]).startswith("hash:")
    assert redactor.entry(held) == held
    usual = redactor.entry(decision(action="deny", facts=facts))
    assert isinstance(usual, DecisionEntry)
    assert shortened(usual.facts["body"])


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("x" * 5_000, True),
        ({"a": [1, "x" * 5_000]}, True),
        ({"x" * 5_000: 1}, True),
        (list(range(1_000)), True),
        ({"a": [1, "x", None]}, False),
        ("... (5 characters, hash:x)", False),
    ],
)
def test_what_was_shortened_can_be_told(value: Plain, short: bool) -> None:
    assert shortened(redactor.facts({"body": value})["body"]) is short
