"""expect: what an answer says, beyond its status, about success and about the effect."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.call import NO_BODY, UNREAD_BODY, Body
from rules.cases import parse_case, run_case
from rules.decision import Answer, OutcomeKind
from rules.expect import effect, judge, parse_expect
from rules.needs import needs
from rules.problems import RuleFileError
from rules.yamltree import parse
from tests.rules.world import LOST, WITHDRAWN, World, call, json_body, rules

HTML = Body("text", "text/html", text="<html>", size_bytes=6)
BROKEN = Body("undecodable", "application/json", problem="its JSON is broken at character 3")


def answer(body: Body | str = "{}", status: int = 200, **given: Any) -> Answer:
    made = json_body(body) if isinstance(body, str) else body
    return Answer(status, complete=True, sent=True, stored=True, digest="d", body=made, **given)


def judged(expect: str, given: Answer) -> str:
    return judge(parse_expect(parse(expect, "rules.yaml")), given)[0]


JUDGED: list[tuple[str, str, Answer, str]] = [
    ("ok is true", "{body.ok: true}", answer('{"ok": true}'), "met"),
    ("ok is false", "{body.ok: true}", answer('{"ok": false}'), "failed"),
    ("ok is missing", "{body.ok: true}", answer(), "failed"),
    ("ok is a text", "{body.ok: true}", answer('{"ok": "true"}'), "failed"),
    ("no errors", "{body.errors: {exists: false}}", answer('{"data": {}}'), "met"),
    ("errors", "{body.errors: {exists: false}}", answer('{"data": {}, "errors": [{}]}'), "failed"),
    ("a page is not JSON without errors", "{body.errors: {exists: false}}", answer(HTML), "unclear"),
    ("nothing is not JSON without errors", "{body.errors: {exists: false}}", answer(NO_BODY), "unclear"),
    ("too large to be kept", "{body.ok: true}", answer(UNREAD_BODY), "unclear"),
    ("broken JSON", "{body.ok: true}", answer(BROKEN), "unclear"),
    ("the status is enough to fail", "{body.ok: true, status: 2xx}", answer(HTML, 500), "failed"),
    ("in any order", "{status: 2xx, body.ok: true}", answer(HTML, 500), "failed"),
    ("the status is not enough to succeed", "{status: 2xx, body.ok: true}", answer(HTML), "unclear"),
    ("one of two is enough", "{any: [{body.ok: true}, {status: 204}]}", answer(NO_BODY, 204), "met"),
    ("not", "{not: {any: [{body.error: {exists: true}}, {status: 5xx}]}}", answer(HTML, 500), "failed"),
    ("not, and it is unclear", "{not: {body.error: {exists: true}}}", answer(HTML), "unclear"),
    ("a header", "{header.x-failed: {exists: false}}", answer(HTML, headers=(("x-failed", "1"),)), "failed"),
    ("no answer", "{status: 2xx}", LOST, "unclear"),
    ("half an answer", "{status: 2xx}", Answer(200, complete=False, sent=True), "unclear"),
    ("never sent", "{status: 2xx}", WITHDRAWN, ""),
]


@pytest.mark.parametrize(("case", "expect", "given", "expected"), JUDGED, ids=[row[0] for row in JUDGED])
def test_what_is_expected(case: str, expect: str, given: Answer, expected: str) -> None:
    assert judged(expect, given) == expected


def test_the_reason_names_the_field_and_never_its_value() -> None:
    expect = parse_expect(parse("{body.ok: true, status: 2xx}", "rules.yaml"))
    assert judge(expect, answer('{"ok": "s3cret"}')) == ("failed", "not as expected: body.ok eq true")
    assert judge(expect, answer(HTML, 500)) == ("failed", "not as expected: body.ok eq true and status lte 299")
    assert judge(expect, answer(BROKEN))[1].endswith("its JSON is broken at character 3")


KINDS: tuple[OutcomeKind, ...] = ("done", "not_executed", "unknown")
EFFECTS: list[tuple[str, str, list[str]]] = [
    # expected, otherwise -> what a status of done, not_executed, unknown comes to
    ("met", "unknown", ["done", "not_executed", "unknown"]),
    ("failed", "unknown", ["unknown", "not_executed", "unknown"]),
    ("failed", "not_executed", ["not_executed", "not_executed", "unknown"]),
    ("failed", "done", ["done", "not_executed", "unknown"]),
    ("unclear", "unknown", ["unknown", "not_executed", "unknown"]),
    ("unclear", "not_executed", ["unknown", "not_executed", "unknown"]),
    ("unclear", "done", ["done", "not_executed", "unknown"]),
]


@pytest.mark.parametrize(("expected", "otherwise", "then"), EFFECTS)
def test_what_a_failure_says_about_the_effect(expected: Any, otherwise: str, then: list[str]) -> None:
    expect = parse_expect(parse(f"{{status: 200, otherwise: {otherwise}}}", "rules.yaml"))
    assert [effect(expect, answer(), expected, kind) for kind in KINDS] == then


SLACK = """
tools:
  say: {match: POST https://api.example.com/say, expect: {body.ok: true%s}%s}
rules:
  - {id: once, tool: say, allow: true, dedupe: 1h}
"""
SAY = call(path="/say", body='{"text": "hello"}')
NO = answer('{"ok": false}')
YES = answer('{"ok": true}')


@pytest.mark.parametrize(
    ("otherwise", "first", "again"),
    [
        ("", NO, "outcome-unknown"),
        (", otherwise: not_executed", NO, "allow"),
        (", otherwise: done", NO, "replay"),
        (", otherwise: not_executed", YES, "replay"),
        (", otherwise: not_executed", answer(HTML), "outcome-unknown"),
        (", otherwise: not_executed", answer(NO.body, 500), "outcome-unknown"),
        ("", answer(NO.body, 400), "allow"),
    ],
)
def test_what_a_duplicate_of_a_failed_call_gets(otherwise: str, first: Answer, again: str) -> None:
    world = World(SLACK % (otherwise, ""))
    assert world.do(SAY, first) == "allow"
    assert world.do(SAY, YES) == again
    assert world.refold() == world.state


PROVED = "{body.ok: true, not_executed_if: {body.error: {not_in: [internal_error]}}%s}"
PROOFS: list[tuple[str, str, Answer, list[str]]] = [
    # otherwise, the answer -> what a status of done, not_executed, unknown comes to
    ("the API says why it did nothing", "", answer('{"ok": false, "error": "not_in_channel"}'), ["not_executed"]),
    ("it does not know itself", "", answer('{"ok": false, "error": "internal_error"}'), ["unknown"]),
    ("it says nothing", "", answer('{"ok": false}'), ["unknown"]),
    ("it says two things", "", answer('{"ok": false, "error": ["a", "internal_error"]}'), ["unknown"]),
    ("the rest is done", ", otherwise: done", answer('{"ok": false, "error": "internal_error"}'), ["done"]),
    ("but for what is proved", ", otherwise: done", answer('{"ok": false, "error": "a"}'), ["not_executed"]),
    ("a success proves nothing", "", answer('{"ok": true, "error": "a"}'), ["done"]),
    ("a page proves nothing", "", answer(HTML), ["unknown"]),
]


@pytest.mark.parametrize(("case", "otherwise", "given", "then"), PROOFS, ids=[row[0] for row in PROOFS])
def test_what_proves_that_nothing_was_done(case: str, otherwise: str, given: Answer, then: list[str]) -> None:
    expect = parse_expect(parse(PROVED % otherwise, "rules.yaml"))
    expected, _ = judge(expect, given)
    assert [effect(expect, given, expected, kind) for kind in KINDS] == [*then, "not_executed", "unknown"]


def test_a_proof_beside_a_promise_for_all_is_refused() -> None:
    with pytest.raises(RuleFileError, match="adds nothing to `otherwise: not_executed`"):
        parse_expect(parse(PROVED % ", otherwise: not_executed", "rules.yaml"))


@given(st.sampled_from(JUDGED), st.sampled_from(["", ", otherwise: unknown"]))
def test_only_the_rule_file_can_say_that_a_2xx_did_nothing(row: Any, otherwise: str) -> None:
    expect = parse_expect(parse(row[1][:-1] + otherwise + "}", "rules.yaml"))
    expected, _ = judge(expect, row[2])
    assert effect(expect, row[2], expected, "done") != "not_executed"


def test_a_retry_that_fails_does_not_end_the_doubt() -> None:
    """With a key, an unknown call is sent again; that this fails says nothing about the first attempt."""
    world = World(SLACK % (", otherwise: not_executed", ", upstream_key: Idempotency-Key"))
    assert [world.do(SAY, given) for given in (LOST, NO, NO, YES, YES)] == ["allow"] * 4 + ["replay"]
    replayed = answer('{"ok": false}', replayed=True)
    other = World(SLACK % (", otherwise: not_executed", ", upstream_key: Idempotency-Key"))
    assert [other.do(SAY, given) for given in (LOST, replayed)] == ["allow", "allow"]
    assert other.ask(SAY).replay_of == "", "the API itself said that the first attempt did nothing"


def test_the_outcome_says_it() -> None:
    world = World(SLACK % (", show_as: 422", ""))
    world.ask(SAY)
    outcome = world.end(NO)
    assert (outcome.expected, outcome.reason, outcome.show_as) == ("failed", "not as expected: body.ok eq true", 422)
    world.ask(call(path="/say", body='{"text": "again"}'))
    outcome = world.end(YES)
    assert (outcome.kind, outcome.expected, outcome.reason, outcome.show_as) == ("done", "met", "", 0)


@pytest.mark.parametrize(
    ("expect", "read", "hold"),
    [
        ("status: 2xx", False, False),
        ("status: 2xx, not_executed_if: {body.error: full}", True, False),
        ("body.ok: true", True, False),
        ("body.ok: true, show_as: 422", True, True),
    ],
)
def test_the_answer_is_kept_only_where_it_is_read(expect: str, read: bool, hold: bool) -> None:
    made = rules(f"tools: {{a: {{match: POST https://api.example.com/a, expect: {{{expect}}}}}}}\nrules: []")
    asked = needs(made, call(path="/a"))
    assert (asked.answer, asked.show_as) == (read, hold)
    assert not needs(made, call(path="/b")).answer


def test_tests_in_rule_files_say_what_the_api_answers() -> None:
    case = parse_case(
        parse(
            """
name: a failed message goes out again
calls:
  - {request: POST https://api.example.com/say, json: {a: 1}, answer: {json: {ok: false}}, expect: allow}
  - {request: POST https://api.example.com/say, json: {a: 1}, answer: {status: 201, headers: {X: [a, b]}}}
""",
            "rules.yaml",
        )
    )
    assert [(step.answer.status, step.answer.body.json) for step in case.steps] == [(200, {"ok": False}), (201, None)]
    assert case.steps[1].answer.headers == (("x", "a"), ("x", "b"))
    result = run_case(rules(SLACK % (", otherwise: not_executed", "")), case)
    assert [decision.action for decision in result.decisions] == ["allow", "allow"]


def test_two_verdicts_that_can_be_told_are_never_unclear() -> None:
    """`verdict` is `holds`, wherever nothing that it reads is unreadable."""
    texts = ("{body.a: 1}", "{status: 2xx}", "{not: {body.a: 1}}", "{any: [{body.a: 1}, {status: 404}]}")
    for text, status, body in itertools.product(texts, (200, 404), ('{"a": 1}', '{"a": 2}', "{}")):
        expect, given_answer = parse_expect(parse(text, "rules.yaml")), answer(body, status)
        assert judge(expect, given_answer)[0] in ("met", "failed")
