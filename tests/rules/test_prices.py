"""Costs: the tokens of models by their prices. How many tokens is tested with them; here is what they come to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from rules import prices
from rules.call import Body
from rules.decision import Answer
from rules.guards.spending import Budgets
from rules.usage import Usage
from tests.rules.world import LOST, OK, START, S, World, answered, call, form_body, json_body

OPENAI = "https://api.openai.com/v1/chat/completions"
MILLION = 1_000_000
RULES = """
rules:
  - {id: pay, match: "https://**", allow: true, budget: %s}
"""


def dollars(usage: Usage, model: str, url: str = "") -> str:
    found = prices.cost(usage, model, url, START)
    assert found is not None
    return f"{found.normalize():f}"


def test_the_price_of_a_million_tokens_is_as_published() -> None:
    """https://openai.com/api/pricing and https://www.anthropic.com/pricing, as of 2025."""
    assert dollars(Usage("", MILLION, 0), "gpt-4o") == "2.5"
    assert dollars(Usage("", 0, MILLION), "gpt-4o") == "10"
    assert dollars(Usage("", MILLION, 0, cache_read=MILLION), "gpt-4o") == "1.25"
    assert dollars(Usage("", 100_000, 0, cache_write=100_000), "claude-sonnet-4-5") == "0.375"
    assert dollars(Usage("", 100_000, 0, cache_write=100_000, cache_write_1h=100_000), "claude-sonnet-4-5") == "0.6"
    assert dollars(Usage("", 100_000, 0, cache_read=100_000), "claude-sonnet-4-5") == "0.03"


def test_a_model_is_known_by_its_address_or_else_by_its_name() -> None:
    assert dollars(Usage("", 100, 10), "gpt-4o-2024-08-06", OPENAI) == dollars(Usage("", 100, 10), "gpt-4o")
    assert dollars(Usage("", 100, 10), "gpt-4o", "https://gateway.example.com/v1") == "0.00035"


@pytest.mark.parametrize("model", ["no-such-model", "", "x" * 10_000])
def test_what_nobody_knows_is_not_guessed(model: str) -> None:
    assert prices.cost(Usage("", 100, 10), model, OPENAI, START) is None
    assert not prices.known(model, "")


def test_other_terms_have_other_prices() -> None:
    def cost(tier: str) -> Decimal | None:
        return prices.cost(Usage("", MILLION, 0, tier=tier), "gpt-5", OPENAI, START + 300 * 86400 * S)

    assert [cost(tier) for tier in ("", "priority", "flex", "no-such-tier")] == [
        Decimal("1.25"), Decimal("2.5"), Decimal("0.625"), Decimal("1.25"),
    ]  # fmt: skip


def test_the_library_does_not_remember_what_it_is_asked_for() -> None:
    """Names come from agents, who may ask for a new one with every call."""
    from genai_prices.data_snapshot import get_snapshot

    for number in range(50):
        prices.cost(Usage("", 1, 1), f"no-such-model-{number}", "", START)
    kept = get_snapshot()
    assert len(kept._provider_misses) + len(kept._provider_cache) + len(kept._lookup_cache) == 0


# --- the budget ------------------------------------------------------------------------------------------------------


def ask(body: str, **given: Any) -> Any:
    path = "/v1/chat/completions"
    given.setdefault("host", "api.openai.com")
    return call(path=path, body=body, **given)


def spent(made: World) -> Decimal:
    (row,) = made.state.of(Budgets).rows.values()
    return row.sum


def held(made: World) -> Decimal:
    (row,) = made.state.of(Budgets).rows.values()
    return row.held_since(0)


def said(**usage: Any) -> Answer:
    body = Body("json", "application/json", json={"model": "gpt-4o-2024-08-06", "usage": usage})
    return msgspec.structs.replace(OK, body=body)


def test_tokens_are_estimated_from_the_bytes_of_the_question_and_the_maximum_of_the_answer() -> None:
    for body, estimate in [
        ('{"model": "m", "max_tokens": 100}', 11 + 100),
        ('{"max_completion_tokens": 50, "max_tokens": 70}', 16 + 70),
        ('{"max_output_tokens": 7}', 8 + 7),
        ('{"max_tokens": null}', 7 + 4096),
        ('{"a": "bc"}', 4 + 4096),
        ('{"n": 3, "max_tokens": 10.0}', 10 + 30),
        ('{"n": 2}', 3 + 2 * 4096),
        ('{"n": 0, "max_tokens": 0}', 9),
    ]:
        made = World(RULES % "{sum: tokens, max: 1000000, per: day}")
        made.ask(ask(body))
        assert held(made) == estimate, body
    fewer = World(RULES % "{sum: tokens, max: 1000000, per: day, output: 5}")
    fewer.ask(ask("{}"))
    assert held(fewer) == 1 + 5


@pytest.mark.parametrize("most", ['"5"', "-1", "1.5", "true", "[1]", "1000000000000000000000"])
@pytest.mark.parametrize("name", ["max_tokens", "n"])
def test_a_maximum_that_is_none_is_refused(name: str, most: str) -> None:
    refused = World(RULES % "{sum: tokens, max: 1000000, per: day}").ask(ask(f'{{"{name}": {most}}}'))
    assert (refused.code, refused.violations[0].field) == ("parameters-invalid", f"body.{name}")


def test_a_packed_question_counts_unpacked() -> None:
    made = World(RULES % "{sum: tokens, max: 1000000, per: day, output: 1}")
    packed = msgspec.structs.replace(json_body('{"text": "%s"}' % ("a" * 2989)), size_bytes=50)
    made.ask(call(body=packed, headers=(("content-encoding", "gzip"),)))
    assert held(made) == 1000 + 1


def test_tokens_settle_at_what_the_answer_tells() -> None:
    made = World(RULES % "{sum: tokens, max: 5000, per: day}")
    assert made.do(ask("{}"), said(prompt_tokens=10, completion_tokens=5)) == "allow"
    assert spent(made) == 15
    streamed = msgspec.structs.replace(OK, usage=Usage("gpt-4o", 30, 20))
    assert made.do(ask("{}"), streamed) == "allow"
    assert spent(made) == 65
    assert made.do(ask("{}"), OK) == "allow"
    assert spent(made) == 65 + 4097, "an answer that tells nothing costs what was held for it"
    assert made.do(ask("{}")) == "budget-exhausted"


def test_a_stream_that_broke_off_stays_held() -> None:
    made = World(RULES % "{sum: tokens, max: 5000, per: day}")
    made.do(ask("{}"), LOST)
    assert held(made) == 4097
    made.do(ask('{"max_tokens": 1}'), answered(400))
    assert held(made) == 4097
    assert spent(made) == 0


def test_a_call_without_a_body_asks_no_model() -> None:
    for what in ("tokens", "cost"):
        made = World(RULES % f"{{sum: {what}, max: 1, per: day}}")
        for _ in range(2):
            assert made.do(call("GET", "/v1/responses/r1"), said(input_tokens=10**6, output_tokens=10**6)) == "allow"
        assert spent(made) == 0


def test_costs_are_held_and_settled_in_dollars() -> None:
    made = World(RULES % '{sum: cost, max: "0.03", per: day}')
    body = '{"model": "gpt-4o", "max_tokens": 1000}'
    made.ask(ask(body))
    assert held(made) == Decimal("2.5") * 13 / MILLION + Decimal("0.01")
    assert made.ask(ask(body)).action == "allow"
    refused = made.ask(ask(body))
    assert (refused.code, refused.violations[0].limit) == ("budget-exhausted", "0.03 USD in a day")
    made.end(said(prompt_tokens=100, completion_tokens=10), "call-1")
    made.end(said(prompt_tokens=100, completion_tokens=10, prompt_tokens_details={"cached_tokens": 100}), "call-2")
    assert spent(made) == Decimal("0.00035") + Decimal("0.000225")


UNPRICED = [
    ('{"model": "no-such-model"}', "no-such-model"),
    ('{"model": 5}', "missing"),
    ('{"model": ["gpt-4o"]}', "missing"),
    ('{"max_tokens": 5}', "missing"),
    ('{"model": "%s"}' % ("x" * 201), "missing"),
]


@pytest.mark.parametrize(("body", "actual"), UNPRICED)
def test_a_model_without_a_price_is_refused(body: str, actual: str) -> None:
    refused = World(RULES % "{sum: cost, max: 20, per: day}").ask(ask(body))
    assert (refused.code, refused.violations[0].field) == ("parameters-invalid", "body.model")
    assert refused.violations[0].actual == actual


@pytest.mark.parametrize("assume", ["gpt-4o", '{input: "2.50", output: "10.00"}'])
def test_a_rule_may_say_what_to_assume(assume: str) -> None:
    made = World(RULES % f"{{sum: cost, max: 20, per: day, assume: {assume}}}")
    used = Body("json", "application/json", json={"usage": {"prompt_tokens": 100, "completion_tokens": 10}})
    assert made.do(ask('{"model": "ours", "max_tokens": 1000}'), msgspec.structs.replace(OK, body=used)) == "allow"
    assert spent(made) == Decimal("0.00035")


def test_what_answers_is_paid_or_else_what_was_asked() -> None:
    for named, paid in [("gpt-4o-mini", "0.000021"), ("no-such-model", "0.00035")]:
        made = World(RULES % "{sum: cost, max: 20, per: day}")
        body = Body("json", json={"model": named, "usage": {"prompt_tokens": 100, "completion_tokens": 10}})
        made.do(ask('{"model": "gpt-4o"}'), msgspec.structs.replace(OK, body=body))
        assert spent(made) == Decimal(paid)


def test_what_can_not_be_priced_in_the_end_costs_what_was_held() -> None:
    made = World(RULES % "{sum: cost, max: 20, per: day}")
    made.do(ask('{"model": "gpt-4o", "max_tokens": 1000}'), OK)
    assert spent(made) == Decimal("2.5") * 13 / MILLION + Decimal("0.01")
    made.ask(ask('{"model": "gpt-4o", "max_tokens": 1000}'))
    made.end(OK)


def test_a_model_may_be_named_in_a_form() -> None:
    made = World(RULES % "{sum: cost, max: 20, per: day}")
    assert made.do(call(body=form_body(("model", "gpt-4o"), ("max_tokens", "10")))) == "allow"
    assert made.do(call(body=form_body(("model", "gpt-4o"), ("max_tokens", "ten")))) == "parameters-invalid"
