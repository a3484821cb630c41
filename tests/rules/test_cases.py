"""Embedded tests: how they are written, what they run, and what they tell when they fail."""

from __future__ import annotations

import pytest

from rules.cases import START_NS, Case, CaseResult, Mismatch, parse_case, run_case
from rules.load import Source, load
from rules.problems import RuleFileError
from rules.yamltree import parse
from tests.rules.world import START, S, rules

SHOP = """
tools:
  order: {match: POST https://api.example.com/orders, credential: header.X-Key}
  find: {match: POST https://api.example.com/find, credential: query.key}
rules:
  - {id: order, tool: order, where: {body.amount: {lte: 100}}, allow: true, dedupe: 1h}
  - {id: look, match: "GET https://api.example.com/**", allow: true, throttle: 2/min}
  - {id: note, match: "PUT https://api.example.com/**", allow: true}
  - {id: find, tool: find, allow: true, dedupe: {window: 1h, by: credential}}
  - {id: slow, match: "GET https://api.example.com/**", mode: monitor, throttle: 1/min}
  - {id: asks, match: "POST https://asks.example.com/**", allow: true, approve: true}
  - {id: no, match: "DELETE https://**", deny: No.}
  - {id: hours, match: "GET https://night.example.com/**", during: {from: "22:00", to: "06:00", zone: UTC}, allow: true}
"""
GET = "request: GET https://api.example.com/x"


def run(text: str) -> CaseResult:
    return run_case(rules(SHOP), parse_case(parse(text, "test.yaml")))


PASSING = """
tests:
  - name: a call is allowed
    call: {request: POST https://api.example.com/orders, json: {amount: 100}}
    expect: {decision: allow, rule: order, tool: order}
  - name: an expectation can be one word
    call: {request: POST https://api.example.com/orders, form: {amount: 7}}
    expect: allow
  - name: numbers are exact
    call: {request: POST https://api.example.com/orders, json: {amount: 100.000000000000000001}}
    expect: {code: no-allow, rule: order}
  - name: a multipart body
    call: {request: POST https://api.example.com/orders, multipart: {amount: 7, b: [x, true]}}
    expect: allow
  - name: a text has no fields
    call: {request: POST https://api.example.com/orders, text: hello}
    expect: {decision: deny, code: no-allow, executed: no}
  - name: nothing expected of the tool's name but that there is none
    call: {request: DELETE https://x.example/}
    expect: {decision: deny, rule: no, tool: }
  - name: a duplicate is replayed
    earlier: [{request: POST https://api.example.com/orders, form: {amount: 7}}]
    call: {request: POST https://api.example.com/orders, form: {amount: 7}, at: +59m}
    expect: {decision: replay, code: replay, rule: order, executed: yes}
  - name: until the window ends
    earlier: [{request: POST https://api.example.com/orders, form: {amount: 7}}]
    call: {request: POST https://api.example.com/orders, form: {amount: 7}, at: +1h}
    expect: allow
  - name: an answer was lost
    earlier: [{request: POST https://api.example.com/orders, form: {amount: 7}, answer: lost}]
    call: {request: POST https://api.example.com/orders, form: {amount: 7}}
    expect: {code: outcome-unknown, executed: unknown}
  - name: an answer released the claim
    earlier: [{request: POST https://api.example.com/orders, form: {amount: 7}, answer: 422}]
    call: {request: POST https://api.example.com/orders, form: {amount: 7}}
    expect: allow
  - name: it is on its way until its answer comes
    calls:
      - {request: POST https://api.example.com/orders, form: {amount: 7}, ends: +9s, answer: 422}
      - {request: POST https://api.example.com/orders, form: {amount: 8}, ends: +8s}
      - request: POST https://api.example.com/orders
        form: {amount: 7}
        at: +8s
        expect: {code: duplicate-in-flight}
      - {request: POST https://api.example.com/orders, form: {amount: 8}, at: +8s, expect: replay}
      - {request: POST https://api.example.com/orders, form: {amount: 7}, at: +9s, expect: allow}
  - name: an answer with a header and a body
    earlier: [{request: GET https://api.example.com/slow, answer: {status: 429, headers: {Retry-After: 5}, json: no}}]
    call: {request: GET https://api.example.com/slow, at: +2m}
    expect: allow
  - name: an answer asks for a pause
    earlier: [{request: GET https://api.example.com/slow, answer: {status: 429, headers: {Retry-After: 300}}}]
    call: {request: GET https://api.example.com/slow, at: +2m}
    expect: {decision: throttle, code: upstream-cooldown}
  - name: a person allows it, and the next one is held again
    calls:
      - {request: POST https://asks.example.com/, approval: allow, expect: hold}
      - {request: POST https://asks.example.com/, expect: allow}
      - {request: POST https://asks.example.com/, approval: refuse, expect: {decision: hold, code: approval-required}}
      - {request: POST https://asks.example.com/, expect: {decision: deny, code: approval-refused}}
  - name: another secret in the tool's header
    earlier: [{request: POST https://api.example.com/orders, form: {amount: 7}, headers: {X-Key: a}}]
    call: {request: POST https://api.example.com/orders, form: {amount: 7}, headers: {x-key: b}}
    expect: allow
  - name: another secret in the tool's query
    earlier: [{request: POST https://api.example.com/find?key=a}]
    call: {request: POST https://api.example.com/find, query: {key: b}}
    expect: allow
  - name: a sequence
    calls:
      - {request: GET https://api.example.com/x}
      - {request: GET https://api.example.com/x, at: +1s, expect: {decision: allow, would: slow}}
      - {request: GET https://api.example.com/x, at: +59s, expect: {decision: throttle, rule: look}}
      - {request: GET https://api.example.com/x, at: +60s, expect: allow}
  - name: at night
    call: {request: GET https://night.example.com/, at: "2026-01-05T23:00Z"}
    expect: allow
  - name: by day
    call: {request: GET https://night.example.com/, at: "2026-01-05 12:00:01Z"}
    expect: deny
  - name: who asks, and an escaped path
    call: {agent: ann, run: r, request: PUT https://api.example.com/a%20b/?x=1&y=, query: {z: [1, 2]}}
    expect: allow
  - name: a port of its own, and no rule
    call: {request: GET https://api.example.com:8443/x}
    expect: {decision: deny, rule: }
"""


CASES = load([Source("test.yaml", f"version: 1{SHOP}{PASSING}")], {})


@pytest.mark.parametrize("case", CASES.cases, ids=lambda case: case.name)
def test_a_case_that_passes(case: Case) -> None:
    result = run_case(CASES.ruleset, case)
    assert result.mismatches == ()
    assert result.passed


def test_a_word_on_a_call_that_is_not_held_is_a_failure() -> None:
    result = run(f"{{name: x, call: {{{GET}, approval: allow}}, expect: allow}}")
    assert result.mismatches == (Mismatch(1, "decision", "hold", "allow"),)


def test_a_case_that_fails_says_what_was_expected_and_what_came() -> None:
    result = run(
        f"{{name: x, calls: [{{{GET}, expect: deny}}, {{request: DELETE https://x.example/, "
        "expect: {decision: allow, rule: look, code: no-allow, tool: order, would: slow}}]}"
    )
    assert not result.passed
    assert result.mismatches == (
        Mismatch(1, "decision", "deny", "allow"),
        Mismatch(2, "decision", "allow", "deny"),
        Mismatch(2, "code", "no-allow", "policy-denied"),
        Mismatch(2, "rule", "look", "no"),
        Mismatch(2, "tool", "order", "none"),
        Mismatch(2, "would", "slow", "none"),
    )
    assert [each.action for each in result.decisions] == ["allow", "deny"]


def test_what_a_call_says_is_what_is_decided() -> None:
    text = (
        "{name: x, expect: deny, call: {agent: ann, run: r, request: 'PUT https://API.example.com/a%2Fb/c?x=1&y=', "
        "headers: {X-A: [1, 2]}, query: {z: true}, multipart: {a: 1}, at: +0s}}"
    )
    case = parse_case(parse(text, "test.yaml"))
    (step,) = case.steps
    asked = step.call
    assert (asked.agent, asked.run, asked.method, asked.host, asked.port) == ("ann", "r", "PUT", "api.example.com", 443)
    assert (asked.path, asked.segments) == ("/a%2Fb/c", ("a/b", "c"))
    assert asked.query == (("x", "1"), ("y", ""), ("z", "true"))
    assert asked.headers == (("x-a", "1"), ("x-a", "2"))
    assert [(part.name, part.text) for part in asked.body.parts] == [("a", "1")]
    assert (case.name, case.mark.file, case.mark.line, step.at_ns, START_NS) == ("x", "test.yaml", 1, START, START)


def test_time_goes_on_from_call_to_call() -> None:
    text = f"{{name: x, calls: [{{{GET}, expect: allow}}, {{{GET}, at: +5s}}, {{{GET}}}, {{{GET}, at: +6s}}]}}"
    assert [step.at_ns - START for step in parse_case(parse(text, "t")).steps] == [0, 5 * S, 5 * S, 6 * S]


BAD = [
    ("x", "wrong-type", "a test has to be a mapping"),
    ("{call: {}}", "missing-key", "the test has no `name`"),
    ("{name: x, cal: {}}", "unknown-key", "a test has no key `cal`"),
    ("{name: x}", "test", "a test has either `call` or `calls`"),
    ("{name: x, call: {$GET}, calls: []}", "test", "a test has either `call` or `calls`"),
    ("{name: x, call: {$GET}}", "missing-key", "the test expects nothing"),
    ("{name: x, calls: [{$GET}]}", "missing-key", "the test expects nothing"),
    ("{name: x, calls: [{$GET}], expect: allow}", "test", "`expect` stands beside `calls`"),
    ("{name: x, call: y, expect: allow}", "wrong-type", "a call has to be a mapping"),
    ("{name: x, call: {}, expect: allow}", "missing-key", "the call has no `request`"),
    ("{name: x, call: {requst: y}, expect: allow}", "unknown-key", "a call has no key `requst`"),
    ("{name: x, call: {request: https://a.b/}, expect: allow}", "test", "`request` is no request"),
    ("{name: x, call: {request: 5}, expect: allow}", "test", "`request` is no request"),
    ("{name: x, call: {request: GET https://a:b/}, expect: allow}", "test", "`a:b/` is no URL"),
    ("{name: x, call: {request: GET https://a/%ff}, expect: allow}", "test", "`a/%ff` is no URL"),
    ("{name: x, call: {request: GET https://u@a/}, expect: allow}", "test", "`u@a/` is no URL of a request"),
    ("{name: x, call: {request: 'GET https://a/#b'}, expect: allow}", "test", "`a/#b` is no URL of a request"),
    ("{name: x, call: {request: GET https:///a}, expect: allow}", "test", "`/a` is no URL of a request"),
    ("{name: x, call: {$GET, json: 1, text: x}, expect: allow}", "test", "`json` and `text` are two bodies"),
    ("{name: x, call: {$GET, form: [a]}, expect: allow}", "wrong-type", "`form` has to be a mapping"),
    ("{name: x, call: {$GET, form: {a: {b: 1}}}, expect: allow}", "wrong-type", "a value in `form` is no text"),
    ("{name: x, call: {$GET, agent: }, expect: allow}", "wrong-type", "a value in `agent` is no text"),
    ("{name: x, call: {$GET, at: 59s}, expect: allow}", "test", "`59s` is no moment"),
    ("{name: x, call: {$GET, at: +x}, expect: allow}", "test", "`+x` is no moment"),
    ("{name: x, call: {$GET, at: '2026-13-05T12Z'}, expect: allow}", "test", "`2026-13-05T12Z` is no moment"),
    ("{name: x, calls: [{$GET}, {$GET, at: '2026-01-05T11:59Z'}]}", "test", "`at` is before the call before it"),
    ("{name: x, calls: [{$GET}, {$GET, at: +5s, ends: +4s}]}", "test", "`ends` is before the call"),
    ("{name: x, call: {$GET, approval: yes}, expect: hold}", "choice", "`yes` is no value of `approval`"),
    ("{name: x, call: {$GET, answer: 99}, expect: allow}", "test", "`answer` is no status"),
    ("{name: x, call: {$GET, answer: gone}, expect: allow}", "test", "`answer` is no status"),
    ("{name: x, call: {$GET, answer: {status: 99}}, expect: allow}", "test", "`answer` is no status"),
    ("{name: x, call: {$GET, answer: {code: 200}}, expect: allow}", "unknown-key", "`answer` has no key `code`"),
    ("{name: x, call: {$GET}, expect: alow}", "choice", "`alow` is no value of `expect`"),
    ("{name: x, call: {$GET}, expect: {}}", "wrong-type", "`expect` has to be a mapping"),
    ("{name: x, call: {$GET}, expect: {decison: deny}}", "unknown-key", "`expect` has no key `decison`"),
    ("{name: x, call: {$GET}, expect: {code: nope}}", "choice", "`nope` is no value of `code`"),
    ("{name: x, call: {$GET}, expect: {decision: }}", "wrong-type", "a value in `decision` is no text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "message"), BAD)
def test_mistakes_are_named(text: str, code: str, message: str) -> None:
    with pytest.raises(RuleFileError) as caught:
        parse_case(parse(text.replace("$GET", GET), "test.yaml"))
    assert [(problem.code, problem.message) for problem in caught.value.problems] == [(code, message)]
