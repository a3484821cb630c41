"""budget: never more than so much, and nothing refused that fits."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules.amounts import LARGEST, ZERO, bounded, parse_amount, read_amount
from rules.call import NO_BODY, UNREAD_BODY, Body
from rules.decide import abandon, resolve, told
from rules.decision import Answer, Change
from rules.fields import ABSENT, ConditionError, Many, WireText
from rules.guard import Settled
from rules.guards.measures import Bytes
from rules.guards.spending import EXACT, IN_DOUBT, Budgets, Row, Spent
from rules.needs import needs
from rules.problems import RuleFileError
from rules.state import SetBack
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, form_body, json_body, rules

RULES = """
rules:
  - {id: pay, match: "https://api.example.com/**", allow: true, budget: %s}
"""
H = 3600


def world(budget: str) -> World:
    return World(RULES % budget)


def pay(amount: object, **given: Any) -> Any:
    return call(body=f'{{"amount": {amount}}}', **given)


DAILY = "{sum: body.amount, max: 1000, per: 24h}"


def row_of(made: World) -> Row:
    (row,) = made.state.of(Budgets).rows.values()
    return row


# --- the cap ---------------------------------------------------------------------------------------------------------


def test_what_costs_as_much_as_is_left_fits_and_one_more_does_not() -> None:
    made = world(DAILY)
    assert [made.do(pay(500)), made.do(pay(501)), made.do(pay(500)), made.do(pay(1))] == [
        "allow", "budget-exhausted", "allow", "budget-exhausted",
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [OK, answered(500), LOST, answered(302), answered(408)])
def test_three_times_half_is_too_much_whether_it_is_done_or_unknown(answer: Answer) -> None:
    made = world(DAILY)
    assert [made.do(pay(500), answer) for _ in range(3)] == ["allow", "allow", "budget-exhausted"]


@pytest.mark.parametrize(
    "answer", [answered(402), answered(429), answered(503, ("retry-after", "9")), Answer(0, False, False), WITHDRAWN]
)
def test_what_was_not_executed_costs_nothing(answer: Answer) -> None:
    made = world(DAILY)
    assert [made.do(pay(1000), answer, at=number * 100) for number in range(3)] == ["allow"] * 3
    assert made.do(pay(1000), at=300) == "allow"
    assert made.do(pay(1), at=400) == "budget-exhausted"


def test_what_is_on_its_way_is_held() -> None:
    made = world(DAILY)
    first, second = made.ask(pay(600)), made.ask(pay(400))
    assert (first.action, second.action) == ("allow", "allow")
    third = made.ask(pay(1))
    assert (third.action, third.code, third.retry_after_ns) == ("deny", "budget-exhausted", 0)
    assert "on their way" in third.next[0]
    made.end(answered(404), "call-2")
    assert made.do(pay(400)) == "allow"
    assert made.do(pay(1)) == "budget-exhausted"


def test_a_refused_call_consumes_nothing() -> None:
    made = World(RULES % DAILY + "  - {id: no, match: 'https://**', agent: bob, deny: No.}")
    refused = [made.ask(pay(400, agent="bob")), made.ask(pay(1001)), made.ask(pay(-1))]
    assert [each.changes for each in refused] == [(), (), ()]
    assert made.do(pay(1000)) == "allow"


def test_all_budgets_are_consumed_or_none() -> None:
    made = World(RULES % DAILY + "  - {id: wide, match: 'https://**', budget: {sum: count, max: 2, per: 24h}}")
    assert made.do(pay(1000)) == "allow"
    for _ in range(3):
        refused = made.ask(pay(1))
        assert [each.rule for each in refused.violations] == ["pay"]
    assert made.do(pay(0)) == "allow", "the refused calls were not counted by `wide`"
    assert [each.rule for each in made.ask(pay(1)).violations] == ["pay", "wide"]


def test_a_throttle_beside_it_consumes_nothing_either() -> None:
    made = World(RULES % DAILY + "  - {id: pace, match: 'https://**', throttle: 2/min}")
    assert made.do(pay(1000)) == "allow"
    assert [made.do(pay(1)) for _ in range(3)] == ["budget-exhausted"] * 3
    assert [made.do(pay(0)), made.do(pay(0))] == ["allow", "rate-limited"]
    both = made.ask(pay(1))
    assert (both.action, both.code) == ("deny", "budget-exhausted"), "waiting for the throttle would be in vain"


def test_what_time_does_not_mend_is_not_waited_for() -> None:
    made = World(RULES % DAILY + "  - {id: pace, match: 'https://**', throttle: 1/min}")
    made.do(pay(1))
    never = made.ask(pay(1001))
    assert (never.code, never.retry_after_ns) == ("budget-exhausted", 0)
    made.do(pay(999), at=60)
    later = made.ask(pay(999), at=61)
    assert [each.code for each in later.violations] == ["rate-limited", "budget-exhausted"][::-1]
    assert later.retry_after_ns == (60 + 24 * H - 61) * S


def test_a_call_above_the_whole_budget_is_told_so() -> None:
    refused = world("{sum: body.amount, max: 1000, per: 24h, unit: cent}").ask(pay(1001))
    assert refused.detail.startswith("This call comes to 1001 cent, and the whole budget is 1000 cent in any 24h")
    assert (refused.retry_after_ns, refused.violations[0].actual) == (0, "1001 cent")
    assert refused.violations[0].field == "body.amount"


def test_a_refusal_tells_what_is_left_and_when_there_is_room() -> None:
    made = world("{sum: body.amount, max: 1000, per: 24h, unit: cent}")
    made.do(pay(300), at=0)
    made.do(pay(500), at=H)
    made.do(pay(100), at=2 * H)
    assert made.ask(pay(400), at=3 * H).retry_after_ns == 21 * H * S, "when the 300 fall out"
    refused = made.ask(pay(401), at=3 * H)
    assert refused.retry_after_ns == 22 * H * S, "and with them the 500"
    assert "100 cent of it are left, and this call comes to 401 cent" in refused.detail
    assert refused.next == (
        "A call that comes to at most 100 cent fits now.",
        "There is room for this call again in 22 h.",
    )
    assert (refused.violations[0].limit, refused.executed) == ("1000 cent in any 24h", "no")
    assert made.do(pay(400), at=24 * H - 1e-6) == "budget-exhausted"
    assert made.do(pay(400), at=24 * H) == "allow"


def test_room_that_depends_on_calls_on_their_way_is_not_promised() -> None:
    made = world(DAILY)
    made.do(pay(100))
    made.ask(pay(900))
    assert made.ask(pay(100)).retry_after_ns == 24 * H * S
    assert made.ask(pay(101)).retry_after_ns == 0


# --- amounts ---------------------------------------------------------------------------------------------------------

WRONG = [
    ("-1", "negative"),
    ("-0.5", "negative"),
    ('"5"', "a text"),
    ("true", "true or false"),
    ("null", "no number"),
    ("[5]", "a list"),
    ("{}", "no number"),
]


@pytest.mark.parametrize(("amount", "said"), WRONG)
def test_what_is_no_amount_is_refused(amount: str, said: str) -> None:
    made = world(DAILY)
    refused = made.ask(pay(amount))
    assert (refused.action, refused.code, refused.executed) == ("deny", "parameters-invalid", "no")
    assert (refused.violations[0].field, refused.violations[0].actual) == ("body.amount", said)
    assert refused.changes == ()


@pytest.mark.parametrize("body", [NO_BODY, json_body("{}"), json_body("[]"), form_body(("other", "5"))])
def test_a_missing_amount_is_refused(body: Body) -> None:
    refused = world(DAILY).ask(call(body=body))
    assert (refused.code, refused.violations[0].actual) == ("parameters-invalid", "missing")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e3", "+5", " 5", "05", "5.", ".5", "0x5", "", "\u0665", "-5"])
def test_text_is_read_by_the_exact_grammar_of_decimals(text: str) -> None:
    assert world(DAILY).do(call(body=form_body(("amount", text)))) == "parameters-invalid"


@pytest.mark.parametrize("text", ["5", "5.0", "5.25", "0", "1000"])
def test_text_from_forms_may_be_an_amount(text: str) -> None:
    assert world(DAILY).do(call(body=form_body(("amount", text)))) == "allow"


def test_an_amount_that_stands_twice_is_refused() -> None:
    refused = world(DAILY).ask(call(body=form_body(("amount", "1"), ("amount", "2"))))
    assert (refused.code, refused.violations[0].actual) == ("parameters-invalid", "several values")
    made = world("{sum: query.n, max: 5, per: 24h}")
    assert made.do(call("GET", query=(("n", "1"), ("n", "2")))) == "parameters-invalid"
    assert made.do(call("GET", query=(("n", "5"),))) == "allow"
    assert made.do(call("GET", query=(("n", "1"),))) == "budget-exhausted"


def test_all_elements_of_a_list_count() -> None:
    made = world('{sum: "body.items[].price", max: 100, per: 24h}')
    items = '{"items": [{"price": %s}, {"price": %s}]}'
    assert made.do(call(body=items % (60, 30))) == "allow"
    assert made.do(call(body=items % (6, 5))) == "budget-exhausted"
    assert made.ask(call(body=items % (6, '"5"'))).violations[0].actual == "a list with something else in it"
    assert made.do(call(body='{"items": []}')) == "parameters-invalid"


def test_nothing_costs_nothing_but_is_no_way_round_a_budget_that_is_overdrawn() -> None:
    made = world("{sum: answer.body.total, estimate: 1, max: 10, per: 24h}")
    made.do(call(), told_total("11"))
    assert made.do(call()) == "budget-exhausted"
    free = world(DAILY)
    free.do(pay(1000))
    assert free.do(pay(0)) == "allow"
    assert row_of(free).spent[0].amount == 1000 and len(row_of(free).spent) == 1


def test_decimals_are_exact() -> None:
    made = world('{sum: body.amount, max: "0.3", per: 24h}')
    assert [made.do(pay("0.1")), made.do(pay("0.2")), made.do(pay("0.000000000001"))] == [
        "allow", "allow", "budget-exhausted",
    ]  # fmt: skip


AMOUNTS: list[tuple[Any, str | None]] = [
    (0, "0"), (5, "5"), (Decimal("5.50"), "5.50"), (Decimal("1e2"), "100"), (WireText("7.25"), "7.25"),
    (Decimal("1e-12"), "0.000000000001"), (Decimal("1e-13"), "0.000000000001"), (Decimal("1e-300"), "0.000000000001"),
    (Decimal("1.0000000000001"), "1.000000000001"), (Decimal("0.00000000000000"), "0"), (10**30, str(LARGEST)),
    (Decimal("1e300"), str(LARGEST)), (10**18, str(LARGEST)), (-1, None), (True, None), ("5", None), (None, None),
    (ABSENT, None), ([], None), (Many((1, Decimal("0.5"))), "1.5"), (Many((1, "2")), None), (Many((1,), True), None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "amount"), AMOUNTS)
def test_an_amount_is_read(value: Any, amount: str | None) -> None:
    found = read_amount(value)
    assert found == (None if amount is None else Decimal(amount))


@given(st.decimals(min_value=0, max_value=10**17, allow_nan=False, allow_infinity=False))
def test_rounding_never_makes_an_amount_smaller(amount: Decimal) -> None:
    kept = bounded(amount)
    assert 0 <= Fraction(kept) - Fraction(amount) < Fraction(1, 10**12)
    assert bounded(kept) == kept


@pytest.mark.parametrize("scalar", [0, -5, True, None, "", "5 cent", "-5", "0", "1e3", LARGEST + 1])
def test_what_is_no_maximum(scalar: Any) -> None:
    assert parse_amount(scalar) is None


# --- periods ---------------------------------------------------------------------------------------------------------


def test_a_rolling_period_holds_wherever_it_begins() -> None:
    made = world("{sum: body.amount, max: 10, per: 1h}")
    assert [made.do(pay(5), at=at) for at in (0, 1800, 1801, 3599, 3600, 5399, 5400)] == [
        "allow", "allow", "budget-exhausted", "budget-exhausted", "allow", "budget-exhausted", "allow",
    ]  # fmt: skip


def test_what_was_spent_counts_from_the_end_of_its_call_on() -> None:
    made = world("{sum: body.amount, max: 10, per: 1h}")
    made.ask(pay(10), at=0)
    assert made.do(pay(1), at=7200) == "budget-exhausted", "it is on its way still: nobody knows when it takes effect"
    made.end(OK, "call-1")
    assert made.do(pay(1), at=7200 + 3599) == "budget-exhausted"
    assert made.do(pay(1), at=7200 + 3600) == "allow"


DAYS = [  # the zone, the day in seconds after the start (2026-01-05 12:00 UTC), its length in hours
    ("UTC", 0, 24),
    ("Europe/Berlin", 83 * 86400, 23),  # 29 March
    ("Europe/Berlin", 293 * 86400, 25),  # 25 October
    ("America/New_York", 62 * 86400, 23),  # 8 March
    ("Australia/Lord_Howe", 90 * 86400, 24.5),  # 5 April: their summer time is half an hour
    ("Africa/Cairo", 109 * 86400, 23),  # 24 April: their clocks skip midnight
]


@pytest.mark.parametrize(("zone", "noon", "hours"), DAYS)
def test_a_day_is_as_long_as_the_zones_clocks_say(zone: str, noon: int, hours: float) -> None:
    """The day that holds a moment begins at one boundary and ends at the next, and nothing is spent twice in it."""
    made = world(f"{{sum: body.amount, max: 10, per: day, zone: {zone}}}")
    made.do(pay(10), at=noon)
    refused = made.ask(pay(1), at=noon)
    end = noon + refused.retry_after_ns / S
    assert made.do(pay(10), at=end - 1) == "budget-exhausted"
    assert made.do(pay(10), at=end) == "allow"
    assert (made.ask(pay(1), at=end).retry_after_ns / S, refused.code) != (0, "")
    before = world(f"{{sum: body.amount, max: 10, per: day, zone: {zone}}}")
    begin = end - hours * H
    assert before.do(pay(10), at=begin - 1) == "allow"
    assert before.do(pay(10), at=begin) == "allow", "another day has begun"
    assert before.do(pay(1), at=end - 1) == "budget-exhausted"


CALENDAR = [  # per, a moment, when its period ends
    ("day", "2026-01-05", "2026-01-06"),
    ("week", "2026-01-05", "2026-01-12"),
    ("week", "2026-01-11", "2026-01-12"),
    ("month", "2026-01-05", "2026-02-01"),
    ("month", "2026-02-28", "2026-03-01"),
    ("month", "2026-12-31", "2027-01-01"),
]


@pytest.mark.parametrize(("per", "day", "end"), CALENDAR)
def test_weeks_begin_on_mondays_and_months_on_their_first(per: str, day: str, end: str) -> None:
    def at(text: str) -> int:
        return int((rfc(text) - START) // S)

    made = world(f"{{sum: body.amount, max: 10, per: {per}}}")
    assert made.do(pay(10), at=at(day)) == "allow"
    assert made.ask(pay(1), at=at(day) + 1).retry_after_ns == (at(end) - at(day) - 1) * S
    assert made.do(pay(1), at=at(end) - 1) == "budget-exhausted"
    assert made.do(pay(1), at=at(end)) == "allow"


def rfc(day: str) -> int:
    from calendar import timegm

    year, month, date = map(int, day.split("-"))
    return timegm((year, month, date, 0, 0, 0)) * S


# --- whose -----------------------------------------------------------------------------------------------------------

BY = [
    ("", {"agent": "bob", "run": "x", "credential": "y"}, "budget-exhausted"),
    ("agent", {"agent": "bob"}, "allow"),
    ("agent", {"run": "x", "credential": "y"}, "budget-exhausted"),
    ("run", {"run": "x"}, "allow"),
    ("credential", {"credential": "y"}, "allow"),
    ("[agent, run]", {"run": "x"}, "allow"),
    ("body.team", {"body": json_body('{"amount": 10, "team": "b"}')}, "allow"),
    ("body.team", {"body": json_body('{"amount": 10, "team": "a"}')}, "budget-exhausted"),
]


@pytest.mark.parametrize(("by", "other", "then"), BY)
def test_each_key_has_a_budget_of_its_own(by: str, other: dict[str, Any], then: str) -> None:
    budget = "{sum: body.amount, max: 10, per: 24h" + (f", by: {by}}}" if by else "}")
    made = world(budget)
    assert made.do(call(body='{"amount": 10, "team": "a"}')) == "allow"
    assert made.do(msgspec.structs.replace(call(body='{"amount": 10}'), **other)) == then


def test_what_was_spent_stays_spent_when_the_numbers_of_the_rule_change() -> None:
    made = world("{sum: body.amount, max: 10, per: 24h}")
    made.do(pay(10))
    made.ruleset = rules(RULES % "{sum: body.amount, max: 15, per: 12h, unit: cent}")
    assert made.do(pay(6), at=H) == "budget-exhausted"
    assert made.do(pay(5), at=H) == "allow"


# --- what else is counted --------------------------------------------------------------------------------------------


def test_calls_are_counted() -> None:
    made = world("{sum: count, max: 2, per: 24h}")
    assert [made.do(call(), answer) for answer in (answered(404), OK, LOST, OK)] == [
        "allow", "allow", "allow", "budget-exhausted",
    ]  # fmt: skip


def told_total(total: str) -> Answer:
    body = json_body(f'{{"total": {total}}}')
    return msgspec.structs.replace(OK, body=body, size_bytes=100, headers=(("x-cost", "2.5"),))


def test_a_field_of_the_answer_settles_what_was_estimated() -> None:
    made = world("{sum: answer.body.total, estimate: 40, max: 100, per: 24h}")
    assert needs(made.ruleset, call()).answer
    assert made.do(call(), told_total("10")) == "allow"
    assert made.do(call(), told_total("50")) == "allow"
    assert made.do(call(), told_total("90")) == "allow", "60 are spent and 40 fit; that it were 90 comes out later"
    assert row_of(made).sum == 150, "what is true is recorded, though it is more than the limit"
    assert made.do(call()) == "budget-exhausted"


@pytest.mark.parametrize("total", ["-5", '"5"', "null", "true"])
def test_an_answer_that_does_not_tell_costs_the_estimate(total: str) -> None:
    made = world("{sum: answer.body.total, estimate: 40, max: 100, per: 24h}")
    assert [made.do(call(), told_total(total)) for _ in range(3)] == ["allow", "allow", "budget-exhausted"]
    unread = world("{sum: answer.body.total, estimate: 40, max: 100, per: 24h}")
    assert [unread.do(call()) for _ in range(3)] == ["allow", "allow", "budget-exhausted"]


def test_a_header_of_the_answer_may_tell() -> None:
    made = world("{sum: answer.header.X-Cost, estimate: 40, max: 100, per: 24h}")
    assert not needs(made.ruleset, call()).answer
    made.do(call(), told_total("1"))
    assert row_of(made).sum == Decimal("2.5")


def test_bytes_of_request_and_answer() -> None:
    made = world("{sum: bytes, max: 1kB, per: 24h}")
    sized = call(body=UNREAD_BODY, headers=(("content-length", "300"),))
    assert not needs(made.ruleset, sized).body, "uploads are streamed"
    made.do(call(body=Body("unread"), headers=(("content-length", "300"),)), told_total("1"))
    made.do(call(body='{"a": 1}'), told_total("1"))
    made.do(call("GET"), told_total("1"))
    assert row_of(made).sum == 300 + 8 + 3 * 100
    assert made.do(call(body=UNREAD_BODY, headers=(("content-length", "393"),))) == "budget-exhausted"
    assert made.do(call(body=UNREAD_BODY, headers=(("content-length", "392"),))) == "allow"


@pytest.mark.parametrize("headers", [(), (("content-length", "ten"),), (("content-length", "9" * 30),)])
def test_a_body_of_unknown_size_is_taken_whole(headers: tuple[tuple[str, str], ...]) -> None:
    made, asked = world("{sum: bytes, max: 1kB, per: 24h}"), call(body=UNREAD_BODY, headers=headers)
    assert needs(made.ruleset, asked).body
    assert made.ask(asked).code == "ambiguous-request"
    with pytest.raises(ConditionError, match="the size of the body is not known"):
        Bytes().actual(Settled(asked, "c1", "", (), "done", OK), ZERO, 0)


def test_an_answer_may_be_taken_to_be_large() -> None:
    made = world("{sum: bytes, estimate: 600B, max: 1kB, per: 24h}")
    made.ask(call("GET"))
    assert made.do(call("GET")) == "budget-exhausted"
    made.end(told_total("1"), "call-1")
    assert made.do(call("GET"), told_total("1")) == "allow"
    assert row_of(made).sum == 200


# --- doubt -----------------------------------------------------------------------------------------------------------


def test_a_hold_stays_while_unknown_until_a_person_says_that_nothing_was_executed() -> None:
    made = world(DAILY)
    made.do(pay(800), LOST)
    assert made.do(pay(300)) == "budget-exhausted"
    assert resolve(made.state, "call-9", False, made.at_ns) == ()
    changes = resolve(made.state, "call-1", False, made.at_ns)
    assert told(made.state, changes) == ("call-1",)
    made.record(changes)
    assert made.do(pay(1000)) == "allow"
    assert resolve(made.state, "call-1", False, made.at_ns) == (), "nothing is in doubt any more"


def test_what_a_person_says_was_executed_is_spent_when_its_call_ended() -> None:
    made = world(DAILY)
    made.do(pay(800), LOST, at=0)
    made.at_ns += 5 * H * S
    made.record(resolve(made.state, "call-1", True, made.at_ns))
    assert row_of(made).holds == {}
    assert made.do(pay(300), at=24 * H - 1) == "budget-exhausted"
    assert made.do(pay(300), at=24 * H) == "allow"


def test_what_is_unknown_counts_as_long_as_if_it_had_been_spent() -> None:
    made = world(DAILY)
    made.do(pay(800), LOST, at=0)
    refused = made.ask(pay(300), at=H)
    assert refused.retry_after_ns == 23 * H * S
    assert made.do(pay(300), at=24 * H) == "allow"
    assert row_of(made).holds == {}
    assert resolve(made.state, "call-1", False, made.at_ns) == ()


def test_there_is_nothing_to_resolve_when_the_period_is_over() -> None:
    made = world(DAILY)
    made.do(pay(800), LOST)
    assert resolve(made.state, "call-1", False, made.at_ns + 24 * H * S) == ()
    made.ask(pay(1))
    assert resolve(made.state, "call-2", False, made.at_ns) == (), "it is on its way"


def test_what_is_unknown_counts_to_the_last_moment_of_its_time() -> None:
    made = world("{sum: body.amount, max: 10, per: 1h}")
    assert made.do(pay(10), LOST) == "allow"
    made.at_ns = START + H * S - 1
    assert made.do(pay(1)) == "budget-exhausted"
    made.at_ns = START + H * S
    assert made.do(pay(10)) == "allow"


def test_after_a_crash_what_was_on_its_way_is_unknown() -> None:
    made = world(DAILY)
    made.ask(pay(800))
    made.at_ns += H * S
    made.record(abandon(made.state, made.at_ns))
    assert abandon(made.state, made.at_ns) == ()
    assert made.do(pay(300), at=24 * H) == "budget-exhausted"
    assert made.refold() == made.state
    made.record(resolve(made.state, "call-1", False, made.at_ns))
    assert made.do(pay(300), at=24 * H) == "allow"


def test_many_calls_in_doubt_count_though_not_each_can_be_resolved() -> None:
    made = world(f"{{sum: body.amount, max: {IN_DOUBT + 2}, per: 24h}}")
    for _ in range(IN_DOUBT + 1):
        made.do(pay(1), LOST)
    assert resolve(made.state, "call-1", False, made.at_ns) == ()
    assert len(resolve(made.state, "call-2", False, made.at_ns)) == 1
    assert [made.do(pay(1)), made.do(pay(1))] == ["allow", "budget-exhausted"]


KEYED = """
tools:
  pay: {match: POST https://api.example.com/orders, body: json, upstream_key: Idempotency-Key}
rules:
  - {id: pay, tool: pay, allow: true, dedupe: 48h, budget: {sum: body.amount, max: 1000, per: 24h}}
"""


def test_a_retry_under_the_first_key_is_the_same_effect_and_is_paid_once() -> None:
    made = World(KEYED)
    assert made.do(pay(800), LOST) == "allow"
    assert made.do(pay(800), answered(200)) == "allow", "though 800 are held and 200 left"
    assert row_of(made).sum == 800
    assert row_of(made).holds == {}
    assert made.do(pay(200), answered(200)) == "allow"
    assert made.do(pay(1), answered(200)) == "budget-exhausted"


def test_a_retry_that_is_refused_leaves_the_first_attempt_in_doubt() -> None:
    made = World(KEYED)
    made.do(pay(800), LOST)
    made.do(pay(800), answered(401))
    assert made.do(pay(300)) == "budget-exhausted"
    made.do(pay(800), WITHDRAWN)
    assert made.do(pay(300)) == "budget-exhausted"
    changes = resolve(made.state, "call-1", False, made.at_ns)
    assert {change.guard for change in changes} == {"budget", "dedupe"}
    assert set(told(made.state, changes)) == {"call-1", "call-2", "call-4"}
    made.record(changes)
    assert made.do(pay(1000)) == "allow"


def test_a_retry_after_the_period_is_paid_anew() -> None:
    made = World(KEYED.replace("per: 24h", "per: 1h"))
    made.do(pay(800), LOST)
    assert made.do(pay(800), at=2 * H) == "allow"
    assert row_of(made).sum == 800


def test_what_a_first_attempt_held_makes_no_room_when_it_counts_no_more() -> None:
    made = World(KEYED.replace("dedupe: 48h", "dedupe: {window: 48h, key: [body.ref]}").replace("per: 24h", "per: 1h"))
    assert made.do(call(body='{"ref": 1, "amount": 100}'), LOST, at=0) == "allow"
    assert made.ask(call(body='{"ref": 2, "amount": 900}'), at=10).action == "allow"
    made.at_ns = START + 3590 * S
    made.end(answered(200))
    assert made.do(call(body='{"ref": 1, "amount": 200}'), at=3605) == "budget-exhausted"
    assert made.do(call(body='{"ref": 1, "amount": 100}'), at=3606) == "allow"


def test_a_retry_that_risks_a_second_effect_is_paid_twice() -> None:
    forward = KEYED.replace(", upstream_key: Idempotency-Key", "").replace("48h", "{window: 48h, on_unknown: forward}")
    made = World(forward)
    made.do(pay(500), LOST)
    made.do(pay(500), OK)
    assert made.do(pay(1)) == "budget-exhausted"


def test_a_replay_costs_nothing() -> None:
    made = World(KEYED)
    assert [made.do(pay(800)) for _ in range(3)] == ["allow", "replay", "replay"]
    assert made.do(pay(200)) == "allow"


def test_double_ends_free_one() -> None:
    made = world(DAILY)
    made.do(pay(400))
    made.do(pay(300), answered(404))
    for change in [each for each in made.ledger if each.op != "hold"]:
        made.record((change,))
    assert made.state.of(Budgets).rows and row_of(made).sum == 400
    made.record((Change("budget", "pay", "no-such", "spend", {"at_ns": made.at_ns, "call": "x"}),))
    assert told(made.state, made.ledger) == ()


# --- watching, warning, remembering ----------------------------------------------------------------------------------


def test_a_watched_budget_refuses_nothing_and_counts_for_itself() -> None:
    made = World(
        RULES % DAILY + "  - {id: try, mode: monitor, match: 'https://**', budget: {sum: count, max: 1, per: 1h}}"
    )
    made.do(pay(1))
    second = made.ask(pay(1))
    assert (second.action, [each.rule for each in second.would]) == ("allow", ["try"])


def test_a_person_is_told_once_a_period_that_a_budget_runs_low() -> None:
    made = world("{sum: body.amount, max: 1000, per: 24h, by: [agent, credential], unit: cent}")
    assert made.ask(pay(799)).notices == ()
    (key,) = made.state.of(Budgets).rows
    assert made.ask(pay(1)).notices == (
        f"the budget `pay` of agent ann, credential #{key[:8]} runs low: "
        "800 cent of 1000 cent in any 24h are spent or held",
    )
    assert made.ask(pay(50)).notices == ()
    for call_id in ("call-1", "call-2", "call-3"):
        made.end(OK, call_id)
    assert made.ask(pay(100), at=24 * H - 1).notices == ()
    assert made.ask(pay(700), at=24 * H).notices != ()
    assert made.refold() == made.state


def test_the_fullest_budgets_are_told_first() -> None:
    made = World(RULES % "{sum: body.amount, max: 1000, per: 1h, by: agent}")
    made.do(pay(100), at=0)
    made.do(pay(300, agent="bob"), at=60)
    made.do(pay(200, agent="bob"), LOST, at=120)
    made.ask(pay(50, agent="eve"))
    made.do(pay(0, agent="zoe"))
    table = made.state.of(Budgets)
    told = table.fullest(made.at_ns, 9)
    assert [(each.who, int(each.spent), int(each.held)) for each in told] == [
        ("agent bob", 300, 200), ("agent ann", 100, 0), ("agent eve", 0, 50),
    ]  # fmt: skip
    assert [each.resets_ns for each in told] == [START + (60 + H) * S, START + H * S, 0]
    assert table.fullest(made.at_ns, 1) == told[:1]
    assert [each.who for each in table.fullest(START + (60 + H) * S, 9)] == ["agent bob", "agent eve"]


def test_a_day_that_is_over_tells_only_of_what_came_after_it() -> None:
    made = world("{sum: body.amount, max: 1000, per: day}")
    made.do(pay(100))
    made.ask(pay(200))
    end_ns = START + 12 * H * S
    (today,) = made.state.of(Budgets).fullest(end_ns - 1, 9)
    assert today.used == 300
    assert today.resets_ns == end_ns
    made.at_ns = end_ns + S
    made.end(OK)
    (tomorrow,) = made.state.of(Budgets).fullest(end_ns + S, 9)
    assert tomorrow.spent == 200
    assert tomorrow.held == 0


def test_what_no_longer_counts_is_forgotten() -> None:
    made = world("{sum: body.amount, max: 10, per: 1h, by: body.user}")
    for user in range(50):
        made.do(call(body=f'{{"amount": 1, "user": {user}}}'), OK if user % 2 else LOST, at=user)
    assert len(made.state.of(Budgets).rows) == 50
    for later in range(60):
        made.do(call(body='{"amount": 0, "user": "x"}'), at=2 * H + later)
    assert len(made.state.of(Budgets).rows) == 1
    assert len(made.state.of(Budgets).due.heap) == 1


def test_what_is_on_its_way_is_not_forgotten() -> None:
    made = world("{sum: body.amount, max: 10, per: 1h, by: agent}")
    made.ask(pay(10))
    for later in range(5):
        made.do(pay(0, agent="bob"), at=2 * H + 100 * later)
    assert made.do(pay(1)) == "budget-exhausted"


def test_many_amounts_take_bounded_room_and_none_counts_less() -> None:
    made = world("{sum: body.amount, max: 1000000, per: 1000h}")
    for number in range(3 * EXACT):
        made.do(pay(1), at=number)
    row = row_of(made)
    assert len(row.spent) <= 2 * EXACT
    assert row.sum == 3 * EXACT
    assert row.spent[0] == Spent(START + 2000 * S, Decimal(2001)), "an hour is a thousandth"
    made.do(pay(0), at=1000 * H)
    assert row_of(made).sum == 3 * EXACT, "the oldest fall out a thousandth of the period late, never early"
    made.do(pay(0), at=1001 * H)
    assert row_of(made).sum < 3 * EXACT


def test_a_clock_that_is_set_back_frees_nothing() -> None:
    made = world(DAILY)
    made.do(pay(500), at=100 * H)
    made.do(pay(400), LOST)
    made.ask(pay(50))
    made.record((SetBack(START + 100 * H * S, START).change(),))
    assert made.do(pay(51), at=23 * H) == "budget-exhausted"
    assert made.do(pay(950), at=24 * H) == "allow"
    assert made.refold() == made.state


# --- in both directions: a model -------------------------------------------------------------------------------------

LIMIT = 100
PERIOD = 50


class Model(RuleBasedStateMachine):
    """Any calls, ends, restarts and verdicts of people, at any times, against lists of (amount, from, until).

    What the model lets out, the guard lets out, and nothing else: never more than the limit, and no refusal that fits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = world(f"{{sum: body.amount, max: {LIMIT}, per: {PERIOD}s}}")
        self.now = 0
        self.out: dict[str, Decimal] = {}
        self.unknown: dict[str, tuple[Decimal, int]] = {}
        self.spent: list[tuple[Decimal, int]] = []

    def counted(self) -> Decimal:
        ended = [*self.spent, *self.unknown.values()]
        return sum(self.out.values(), Decimal(0)) + sum(a for a, at in ended if at + PERIOD > self.now)

    @rule(seconds=st.integers(0, 30))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(amount=st.one_of(st.integers(0, LIMIT + 5), st.decimals("0", "50", places=2)))
    def ask(self, amount: int | Decimal) -> None:
        fits = self.counted() + amount <= LIMIT
        decision = self.world.ask(pay(amount), at=self.now)
        assert (decision.action == "allow") == fits
        if fits:
            self.out[f"call-{self.world.calls}"] = Decimal(amount)
        else:
            assert decision.changes == ()
            if decision.retry_after_ns:
                free = self.now + decision.retry_after_ns // S
                before, self.now = self.now, free
                assert self.counted() + amount <= LIMIT
                self.now = free - 1
                assert self.counted() + amount > LIMIT
                self.now = before

    @precondition(lambda self: self.out)
    @rule(data=st.data(), end=st.sampled_from(["done", "refused", "lost"]))
    def end(self, data: st.DataObject, end: str) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.out)))
        self.world.at_ns = START + self.now * S
        self.world.end({"done": OK, "refused": answered(404), "lost": LOST}[end], call_id)
        amount = self.out.pop(call_id)
        if end == "done":
            self.spent.append((amount, self.now))
        elif end == "lost":
            self.unknown[call_id] = (amount, self.now)

    @precondition(lambda self: self.unknown)
    @rule(data=st.data(), executed=st.booleans())
    def resolve(self, data: st.DataObject, executed: bool) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.unknown)))
        amount, at = self.unknown[call_id]
        changes = resolve(self.world.state, call_id, executed, START + self.now * S)
        assert bool(changes) == (at + PERIOD > self.now)
        self.world.record(changes)
        if changes:
            del self.unknown[call_id]
            if executed:
                self.spent.append((amount, at))

    @rule()
    def crash(self) -> None:
        self.world.state = self.world.refold()
        self.world.record(abandon(self.world.state, START + self.now * S))
        self.unknown |= {call_id: (amount, self.now) for call_id, amount in self.out.items()}
        self.out.clear()
        self.world.out.clear()

    @invariant()
    def what_was_recorded_tells_the_same(self) -> None:
        assert self.world.refold() == self.world.state


TestABudgetIsExactInBothDirections = Model.TestCase


class Truth(RuleBasedStateMachine):
    """What takes effect at any moment between its decision and its end: no period holds more than the limit of it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world(f"{{sum: body.amount, max: {LIMIT}, per: {PERIOD}s}}")
        self.now = 0
        self.out: dict[str, tuple[int, int]] = {}
        self.effects: list[tuple[int, int]] = []

    @rule(seconds=st.integers(0, 40))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(amount=st.integers(1, LIMIT))
    def ask(self, amount: int) -> None:
        if self.world.ask(pay(amount), at=self.now).action == "allow":
            self.out[f"call-{self.world.calls}"] = (amount, self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), answer=st.sampled_from([OK, LOST]))
    def end(self, data: st.DataObject, answer: Answer) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.out)))
        amount, since = self.out.pop(call_id)
        self.world.at_ns = START + self.now * S
        self.world.end(answer, call_id)
        self.effects.append((data.draw(st.integers(since, self.now)), amount))

    @invariant()
    def no_period_holds_more(self) -> None:
        for begin, _ in self.effects:
            assert sum(amount for at, amount in self.effects if begin <= at < begin + PERIOD) <= LIMIT


TestNoPeriodHoldsMoreWhereverInItsCallAnEffectTookPlace = Truth.TestCase


# --- rule files ------------------------------------------------------------------------------------------------------

GOOD = [
    "{sum: count, max: 5, per: day}",
    '{sum: body.amount, max: "20.00", per: month, zone: Europe/Berlin, by: [agent, body.team], unit: EUR}',
    "{sum: query.n, max: 0.5, per: 30s}",
    "{sum: args.amount, max: 5, per: 24h}",
    "{sum: header.x-amount, max: 5, per: week}",
    "{sum: bytes, max: 10GB, per: day, estimate: 1MiB}",
    "{sum: bytes, max: 5000, per: day}",
    "{sum: answer.header.x-cost, max: 5, per: 24h, estimate: 1}",
    "{sum: tokens, max: 1000000, per: day, output: 2000}",
    "{sum: cost, max: 20, per: day, unit: usd}",
    "{sum: cost, max: 20, per: day, assume: gpt-4o}",
    '{sum: cost, max: 20, per: day, assume: {input: "0.10", output: 0.4}}',
]


@pytest.mark.parametrize("budget", GOOD)
def test_a_budget_loads(budget: str) -> None:
    assert rules(RULES % budget).rules[0].guards[0].verb == "budget"


BAD = [
    ("50000", "budget", "`budget` needs to know what is summed up, how much of it, and in what time"),
    ("{max: 5, per: 24h}", "missing-key", "the budget has no `sum`"),
    ("{sum: count, per: 24h}", "missing-key", "the budget has no `max`"),
    ("{sum: count, max: 5}", "missing-key", "the budget has no `per`"),
    ("{sum: 5, max: 5, per: 24h}", "budget", "`5` is nothing to sum up"),
    ("{sum: coust, max: 5, per: 24h}", "budget", "`coust` is nothing to sum up"),
    ("{sum: amount, max: 5, per: 24h}", "budget", "`amount` is nothing to sum up"),
    ("{sum: agent, max: 5, per: 24h}", "budget", "`agent` is no number"),
    ("{sum: answer.total, max: 5, per: 24h}", "field", "`total` is not a field of an answer"),
    ("{sum: answer.body.total, max: 5, per: 24h}", "missing-key",
     "`answer.body.total` is known only afterwards, and the budget has no `estimate`"),
    ("{sum: count, max: 0, per: 24h}", "budget", "`0` is no amount"),
    ("{sum: count, max: [5], per: 24h}", "budget", "`max` is no amount"),
    ("{sum: count, max: 10GB, per: 24h}", "budget", "`10GB` is no amount"),
    ("{sum: bytes, max: 10 GB, per: 24h}", "budget", "`10 GB` is no amount"),
    ("{sum: count, max: 5, per: year}", "duration", "`year` is no period"),
    ("{sum: count, max: 5, per: day, zone: Berlin}", "during", "`Berlin` is not a time zone"),
    ("{sum: count, max: 5, per: 24h, zone: UTC}", "conflict", "a rolling period is the same in every zone"),
    ("{sum: count, max: 5, per: 24h, unit: 5}", "budget", "`5` is no unit"),
    ("{sum: cost, max: 5, per: 24h, unit: eur}", "budget", "costs are in USD, not in `eur`"),
    ("{sum: count, max: 5, per: 24h, estimate: 5}", "conflict", "`count` is estimated from the call itself"),
    ("{sum: count, max: 5, per: 24h, output: 5}", "conflict", "`output` is about tokens and cost"),
    ("{sum: tokens, max: 5, per: 24h, output: 0}", "budget", "`0` is no number of tokens"),
    ("{sum: tokens, max: 5, per: 24h, assume: gpt-4o}", "conflict", "`assume` is about cost"),
    ("{sum: cost, max: 5, per: 24h, assume: no-such-model}", "prices", "what `no-such-model` costs is not known"),
    ("{sum: cost, max: 5, per: 24h, assume: 7}", "prices", "what `7` costs is not known"),
    ("{sum: cost, max: 5, per: 24h, assume: {input: 5}}", "missing-key", "`assume` has no `output`"),
    ("{sum: count, limit: 5, per: 24h}", "unknown-key", "`budget` has no key `limit`"),
    ("{sum: count, max: 5, per: 24h, maximum: 7}", "unknown-key", "`budget` has no key `maximum`"),
]  # fmt: skip


@pytest.mark.parametrize(("budget", "code", "message"), BAD)
def test_a_budget_that_says_nothing_sensible_is_refused(budget: str, code: str, message: str) -> None:
    with pytest.raises(RuleFileError) as error:
        rules(RULES % budget)
    (problem,) = error.value.problems
    assert (problem.code, problem.message) == (code, message)
    assert problem.help


def test_without_the_extra_costs_can_not_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "genai_prices", None)
    with pytest.raises(RuleFileError) as error:
        rules(RULES % "{sum: cost, max: 5, per: 24h}")
    (problem,) = error.value.problems
    assert (problem.code, problem.message) == ("prices", "`sum: cost` needs prices, which are not installed")
    assert "borderpost[prices]" in problem.help


def test_what_it_needs_to_know_of_a_call() -> None:
    def needed(budget: str) -> tuple[bool, bool, bool]:
        found = needs(rules(RULES % budget), call(body=NO_BODY))
        return found.body, found.answer, found.claim

    assert needed(DAILY) == (True, False, False)
    assert needed("{sum: query.n, max: 5, per: 24h}") == (False, False, False)
    assert needed("{sum: count, max: 5, per: 24h, by: body.team}") == (True, False, False)
    assert needed("{sum: tokens, max: 5, per: 24h}") == (True, True, False)
    assert needed("{sum: cost, max: 5, per: 24h}") == (True, True, False)


def test_changes_are_plain() -> None:
    made = world("{sum: body.amount, max: 1000, per: 24h, by: agent, unit: cent}")
    made.do(pay("0.5"))
    assert json.loads(msgspec.json.encode([change.data for change in made.ledger])) == [
        {
            "at_ns": START,
            "call": "call-1",
            "retry_of": "",
            "amount": "0.5",
            "since_ns": START - 24 * H * S + 1,
            "keep_ns": 24 * H * S,
            "ends_ns": 0,
            "warned_ns": 0,
            "who": "agent ann",
            "limit": "1000",
            "unit": "cent",
            "per": "in any 24h",
        },
        {"at_ns": START, "call": "call-1", "amount": "0.5", "spent_ns": START},
    ]
