"""approve: a call passes once for each word of a person, and it is the very call that was shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rules.call import Body
from rules.decide import abandon, deserted, resolve, said
from rules.decision import Answer, Change, Decision
from rules.guards import approve
from rules.guards.approve import Approve
from rules.guards.cards import SLACK, STEPS, Cards
from rules.guards.patience import LONGEST_NS, UNKNOWN_NS, patience_ns
from rules.needs import needs
from rules.problems import RuleFileError
from rules.state import SetBack
from rules.yamltree import parse
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, form_body, rules

H = 3600
RULES = """
rules:
  - {id: large, match: "https://**", allow: true, approve: %s}
"""
REFUND = call(body='{"charge": "ch_1", "amount": 9000}')


def world(approval: str = "true") -> World:
    return World(RULES % approval)


def says(made: World, ticket: str, allowed: bool = True, reason: str = "", at: float | None = None) -> bool:
    """A person's word on `ticket`. Whether the question was open."""
    if at is not None:
        made.at_ns = START + int(at * S)
    changes = said(made.state, ticket, allowed, reason, made.at_ns)
    made.record(changes)
    return bool(changes)


def held(made: World, asked: Any = REFUND, at: float | None = None) -> str:
    """The ticket of a call that is held."""
    decision = made.ask(asked, at)
    assert (decision.action, decision.code) == ("hold", "approval-required")
    assert decision.ticket
    return decision.ticket


def test_a_call_is_held_and_passes_once_when_it_is_allowed() -> None:
    made = world()
    ticket = held(made)
    assert says(made, ticket)
    assert made.do(REFUND) == "allow"
    assert held(made) != ticket, "another call is another question"


def test_what_a_held_call_is_told() -> None:
    decision = world("{title: A refund above 50.00}").ask(REFUND)
    assert (decision.executed, decision.rules, decision.retry_after_ns) == ("no", ("large",), 0)
    assert "(A refund above 50.00)" in decision.detail
    assert decision.ticket in decision.detail
    assert decision.wait is not None
    assert [(each.guard, each.op) for each in decision.changes] == [("approve", "ask")]
    assert set(decision.wait.on) == {("approve", decision.changes[0].key)}


def test_retries_find_the_question_that_was_asked_first() -> None:
    made = world()
    ticket = held(made, at=0)
    again = made.ask(REFUND, at=60)
    assert (again.ticket, again.changes) == (ticket, ())


def test_a_refusal_tells_the_agent_why_and_holds_for_a_while() -> None:
    made = world()
    ticket = held(made, at=0)
    assert says(made, ticket, False, "Refunded by hand already.", at=10)
    refused = made.ask(REFUND, at=20)
    assert (refused.action, refused.code, refused.wait, refused.ticket) == ("deny", "approval-refused", None, ticket)
    assert refused.detail == "A person has refused this call: Refunded by hand already. Nothing was executed."
    assert made.ask(REFUND, at=10 + H - 0.001).code == "approval-refused"
    assert held(made, at=10 + H) != ticket


def test_a_refusal_without_a_reason() -> None:
    made = world()
    says(made, held(made), False)
    assert made.ask(REFUND).detail == "A person has refused this call. Nothing was executed."


def test_people_can_change_their_mind_until_the_call_is_made() -> None:
    made = world()
    ticket = held(made)
    assert says(made, ticket, False, "no")
    assert says(made, ticket, True)
    assert not says(made, ticket, True), "it is allowed already"
    assert says(made, ticket, False, "no, after all")
    assert says(made, ticket, True)
    assert made.ask(REFUND).action == "allow"
    assert not says(made, ticket, False, "too late")
    assert not says(made, "a_unknown")


EDGES = [(H * S - 1, "allow"), (H * S, "approval-required")]


@pytest.mark.parametrize(("after_ns", "then"), EDGES)
def test_a_grant_is_good_until_it_expires(after_ns: int, then: str) -> None:
    made = world()
    ticket = held(made, at=0)
    says(made, ticket, at=100)
    made.at_ns += after_ns
    assert made.do(REFUND) == then


@pytest.mark.parametrize(("after_ns", "open_still"), [(2 * H * S - 1, True), (2 * H * S, False)])
def test_a_question_is_open_until_it_expires(after_ns: int, open_still: bool) -> None:
    made = world("{expires: 2h}")
    ticket = held(made, at=0)
    made.at_ns += after_ns
    assert says(made, ticket) is open_still
    assert made.do(REFUND) == ("allow" if open_still else "approval-required")


OTHERS = {
    "agent": {"agent": "bob"},
    "credential": {"credential": "beef"},
    "method": {"method": "PUT"},
    "host": {"host": "other.example"},
    "port": {"port": 8443},
    "path": {"path": "/other", "segments": ("other",)},
    "query": {"query": (("force", "1"),)},
    "body": {"body": call(body='{"charge": "ch_1", "amount": 9001}').body},
    "operation": {"headers": (("x-amz-target", "DynamoDB_20120810.DeleteItem"),)},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
def test_a_grant_is_for_no_other_call(other: dict[str, Any]) -> None:
    made = world()
    says(made, held(made))
    held(made, msgspec.structs.replace(REFUND, **other))
    assert made.do(REFUND) == "allow"


SAME = {
    "another run": {"run": "run-2"},
    "another trace id": {"headers": (("traceparent", "x"), ("idempotency-key", "k"))},
    "keys in another order, numbers spelled otherwise": {
        "body": call(body='{"amount": 9.0e3, "charge": "ch_1"}').body,
    },
}


@pytest.mark.parametrize("same", SAME.values(), ids=list(SAME))
def test_a_grant_is_for_the_same_call_however_it_is_written(same: dict[str, Any]) -> None:
    made = world()
    says(made, held(made))
    assert made.do(msgspec.structs.replace(REFUND, **same)) == "allow"


def test_a_grant_is_for_the_same_call_whatever_key_its_client_draws_for_the_api() -> None:
    made = World(
        """
tools:
  pay: {match: "POST https://api.example.com/**", upstream_key: {body: key}}
rules:
  - {id: large, tool: pay, allow: true, approve: true}
"""
    )
    says(made, held(made, call(body='{"amount": 1, "key": "first"}')))
    assert made.do(call(body='{"amount": 1, "key": "second"}')) == "allow"


def test_a_grant_is_decided_again_like_any_call() -> None:
    made = world()
    says(made, held(made))
    made.ruleset = rules(RULES % "true" + "  - {id: no, match: 'https://**', deny: No.}")
    assert made.do(REFUND) == "policy-denied"
    made.ruleset = rules(RULES % "true")
    assert made.do(REFUND) == "allow", "what is refused uses no grant"


def test_a_grant_is_not_used_by_what_is_refused_behind_it() -> None:
    made = World(RULES % "true" + "  - {id: pace, match: 'https://**', throttle: 1/min}")
    first = call(body='{"n": 1}')
    says(made, held(made, first, at=0))
    says(made, held(made))
    assert made.do(first) == "allow"
    assert made.do(REFUND, at=1) == "rate-limited"
    assert made.do(REFUND, at=60) == "allow"


ENDS: list[tuple[Answer, str]] = [
    (OK, "approval-required"),
    (LOST, "approval-required"),
    (answered(422), "approval-required"),
    (answered(503), "approval-required"),
    (WITHDRAWN, "allow"),
    (Answer(0, complete=False, sent=False, error="connection refused"), "allow"),
]


@pytest.mark.parametrize(("end", "then"), ENDS)
def test_only_a_call_that_never_left_gives_its_grant_back(end: Answer, then: str) -> None:
    made = world()
    says(made, held(made))
    assert made.do(REFUND, end) == "allow"
    assert made.do(REFUND) == then
    assert made.refold() == made.state


def test_a_grant_that_is_in_use_is_used() -> None:
    """Two identical calls at the same time, and one word: the second is another question."""
    made = world()
    ticket = held(made)
    says(made, ticket)
    assert made.ask(REFUND).action == "allow"
    second = held(made)
    assert second != ticket
    made.end(WITHDRAWN)
    assert made.ask(REFUND).ticket == second, "what the first gives back is no answer to the second"


def test_a_grant_that_a_dead_proxy_used_is_spent() -> None:
    made = world()
    ticket = held(made)
    says(made, ticket)
    made.ask(REFUND)
    changes = abandon(made.state, made.at_ns)
    assert [(each.guard, each.op, each.data["call"]) for each in changes] == [("approve", "spend", "call-2")]
    made.record(changes)
    assert held(made) != ticket
    assert made.refold() == made.state


def test_a_question_survives_a_restart_and_so_does_its_answer() -> None:
    made = world()
    ticket = held(made)
    made.state = made.refold()
    assert abandon(made.state, made.at_ns) == ()
    assert made.ask(REFUND).ticket == ticket
    assert says(made, ticket)
    made.state = made.refold()
    assert made.do(REFUND) == "allow"


def test_a_question_whose_asker_has_left_is_closed_unless_it_was_answered() -> None:
    made = world()
    decision = made.ask(REFUND)
    assert decision.wait is not None
    on = decision.wait.on
    made.record(deserted(made.state, (*on, ("dedupe", "x")), made.at_ns))
    assert not says(made, decision.ticket)
    again = held(made)
    says(made, again)
    assert deserted(made.state, on, made.at_ns) == ()
    assert made.do(REFUND) == "allow"
    assert deserted(made.state, on, made.at_ns) == ()


def test_a_duplicate_of_an_approved_call_is_replayed_without_asking() -> None:
    made = World("rules: [{id: large, match: 'https://**', allow: true, dedupe: 1h, approve: true}]")
    says(made, held(made))
    assert [made.do(REFUND) for _ in range(3)] == ["allow", "replay", "replay"]


def test_a_person_tells_nothing_of_unknown_outcomes() -> None:
    made = World("rules: [{id: large, match: 'https://**', allow: true, dedupe: 1h, approve: true}]")
    says(made, held(made))
    made.do(REFUND, LOST)
    assert [change.guard for change in resolve(made.state, "call-2", True, made.at_ns)] == ["dedupe"]
    assert Cards().told(made.ledger[0]) == ()


def test_two_rules_ask_two_questions() -> None:
    made = World(RULES % "true" + "  - {id: legal, match: 'https://**', approve: {hold: 5s, expires: 2h}}")
    decision = made.ask(REFUND)
    assert decision.wait is not None
    assert (decision.rules, decision.wait.at_most_ns, len(decision.changes)) == (("large", "legal"), 5 * S, 2)
    first, second = [str(change.data["card"]) for change in decision.changes]
    assert decision.ticket == first
    says(made, first)
    assert made.ask(REFUND).ticket == second
    says(made, second)
    assert made.do(REFUND) == "allow"


def test_a_rule_that_only_watches_asks_nobody() -> None:
    made = World(RULES % "true, mode: monitor" + "  - {id: all, match: 'https://**', allow: true}")
    decision = made.ask(REFUND)
    assert (decision.action, decision.changes) == ("allow", ())
    assert [each.code for each in decision.would] == ["approval-required"]


def test_in_monitor_mode_nobody_is_asked() -> None:
    decision = World("mode: monitor" + RULES % "true").ask(REFUND)
    assert (decision.action, decision.wait, decision.changes) == ("allow", None, ())
    assert [each.code for each in decision.would] == ["approval-required"]


# --- what a person sees ---


def facts(asked: Any) -> dict[str, Any]:
    decision: Decision = world().ask(asked)
    return {
        name: value for name, value in decision.facts.items() if name.split(".")[0] in ("body", "query", "operation")
    }


SHOWN: list[tuple[Any, dict[str, Any]]] = [
    (REFUND, {"body": {"charge": "ch_1", "amount": 9000}}),
    (call(body=form_body(("charge", "ch_1"), ("tags[]", "a"))), {"body": {"charge": "ch_1", "tags": ["a"]}}),
    (call(body=Body("text", "text/plain", text="delete all", size_bytes=10)), {"body": "delete all"}),
    (
        call(body=Body("binary", "", sha256=b"\x01", size_bytes=3)),
        {"body": "unknown type, 3 bytes, SHA-256 01"},
    ),
    (call("DELETE", "/a", query=(("force", "1"), ("x", "2"))), {"query.force": "1", "query.x": "2"}),
    (
        call(headers=(("x-amz-target", "Orders.Cancel"), ("x-trace", "1"), ("x-action", "a"))),
        {"operation.x-amz-target": "Orders.Cancel"},
    ),
]


@pytest.mark.parametrize(("asked", "shown"), SHOWN)
def test_what_would_be_sent_is_on_record(asked: Any, shown: dict[str, Any]) -> None:
    assert facts(asked) == shown


def test_headers_that_tell_tools_apart_are_on_record_and_the_secret_of_a_tool_is_not() -> None:
    tool = "{match: {request: 'POST https://api.example.com/**', where: {header.x-action: {exists: true}}}"
    made = World(f"{RULES % 'true'}tools: {{order: {tool}, credential: query.k}}}}")
    asked = call(query=(("k", "tuna"), ("a", "1")), headers=(("x-action", "cancel"), ("soapaction", "urn:x")))
    found = made.ask(asked).facts
    assert {name: value for name, value in found.items() if name.split(".")[0] in ("query", "operation")} == {
        "query.a": "1",
        "operation.soapaction": "urn:x",
        "operation.x-action": "cancel",
    }
    twice = made.ask(call(headers=(("x-action", "cancel"), ("x-action", "now"))))
    assert twice.facts["operation.x-action"] == "cancel, now"


def test_the_body_is_always_needed() -> None:
    found = needs(rules(RULES % "true"), REFUND)
    assert (found.body, found.claim, found.answer) == (True, False, False)


# --- how long it is held ---

CLIENTS = [
    ("python-httpx/0.28.1", 4 * S),
    ("PyGithub/Python", 13.5 * S),
    ("Bolt/1.2 Python/3.12 slackclient/3.35", 27 * S),
    ("Boto3/1.35 md/Botocore#1.35", 54 * S),
    ("google-api-python-client/2 (gzip)", 54 * S),
    ("Stripe/v1 PythonBindings/12.0", 72 * S),
    ("Python/3.12 aiohttp/3.11", 270 * S),
    ("OpenAI/Python 1.60", 540 * S),
    ("AsyncAnthropic/Python 0.40", 540 * S),
    ("python-requests/2.32", LONGEST_NS),
    ("curl/8.5.0", LONGEST_NS),
    ("something else", UNKNOWN_NS),
    ("", UNKNOWN_NS),
]


@pytest.mark.parametrize(("user_agent", "hold_ns"), CLIENTS)
def test_a_call_is_held_a_little_less_long_than_its_client_waits(user_agent: str, hold_ns: float) -> None:
    assert patience_ns(user_agent) == hold_ns
    headers = (("user-agent", user_agent),) if user_agent else ()
    decision = world().ask(msgspec.structs.replace(REFUND, headers=headers))
    assert decision.wait is not None
    assert decision.wait.at_most_ns == hold_ns


def test_two_user_agents_are_none() -> None:
    twice = (("user-agent", "curl/8"), ("user-agent", "curl/8"))
    decision = world().ask(msgspec.structs.replace(REFUND, headers=twice))
    assert decision.wait is not None
    assert decision.wait.at_most_ns == UNKNOWN_NS


def test_a_rule_can_say_how_long() -> None:
    decision = world("{hold: 90s}").ask(REFUND)
    assert decision.wait is not None
    assert decision.wait.at_most_ns == 90 * S


# --- forms, and the table ---

PARSED = {
    "true": Approve("r"),
    "{}": Approve("r"),
    "{hold: 0}": Approve("r", hold_ns=0),
    "{hold: 0s}": Approve("r", hold_ns=0),
    "{title: x, hold: 10s, expires: 7d}": Approve("r", "x", 10 * S, 7 * 24 * H * S),
}


@pytest.mark.parametrize(("text", "guard"), PARSED.items())
def test_forms(text: str, guard: Approve) -> None:
    assert Approve.parse(parse(text, "test.yaml"), "r") == guard


WRONG = ["1h", "false", "[]", "{hold: false}", "{hold: 2h}", "{expires: 8d}", "{expires: 0}", "{title: [x]}", "{by: x}"]


@pytest.mark.parametrize("text", [*WRONG, f"{{title: {'x' * 201}}}"])
def test_wrong_forms(text: str) -> None:
    with pytest.raises(RuleFileError):
        Approve.parse(parse(text, "test.yaml"), "r")


def test_a_ticket_is_never_that_of_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approve, "TICKET_DIGITS", 0)
    made = world()
    tickets = [held(made, call(body=f'{{"n": {n}}}')) for n in range(40)]
    assert len(set(tickets)) == 40


def test_nobody_is_asked_more_than_can_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approve, "MOST_QUESTIONS", 2)
    monkeypatch.setattr(approve, "MOST_OF_ONE", 2)
    made = world()
    tickets = [held(made, call(body=f'{{"n": {n}}}'), at=0) for n in range(2)]
    crowded = made.ask(REFUND)
    assert (crowded.action, crowded.code, crowded.ticket) == ("hold", "approval-required", "")
    assert (crowded.wait, crowded.changes) == (None, ())
    assert made.ask(call(body='{"n": 0}')).ticket == tickets[0], "retries of those that were asked find their question"
    assert held(made, at=H)


def test_no_agent_keeps_the_others_from_being_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approve, "MOST_QUESTIONS", 3)
    monkeypatch.setattr(approve, "MOST_OF_ONE", 2)
    made = world()
    for n in range(2):
        held(made, call(body=f'{{"n": {n}}}'), at=0)
    assert made.ask(REFUND).ticket == ""
    held(made, call(agent="bob"))
    assert made.ask(call(agent="eve")).ticket == "", "together they are too many"
    assert made.refold() == made.state


def test_cards_are_forgotten_when_their_time_is_over() -> None:
    made = world("{expires: 1m}")
    for n in range(300):
        held(made, call(body=f'{{"n": {n}}}'), at=n)
    cards = made.state.of(Cards)
    assert len(cards.cards) == len(cards.by_id) <= 62
    assert made.refold() == made.state


def test_who_asks_and_leaves_again_and_again_leaves_nothing_behind() -> None:
    made = world("{expires: 7d}")
    for n in range(500):
        made.ask(call(body=f'{{"n": {n}}}'), at=n)
        (key,) = made.state.of(Cards).cards
        made.record(deserted(made.state, [("approve", key)], made.at_ns))
    cards = made.state.of(Cards)
    assert (len(cards.cards), len(cards.by_id)) == (0, 0)
    assert len(cards.due.heap) <= SLACK
    assert made.refold() == made.state


def test_a_grant_in_use_is_not_forgotten_before_its_call_has_ended() -> None:
    made = world("{expires: 1m}")
    says(made, held(made, at=0))
    made.ask(REFUND, at=30)
    for n in range(10):
        held(made, call(body=f'{{"n": {n}}}'), at=100 + 100 * n)
    made.end(WITHDRAWN)
    assert made.refold() == made.state
    held(made)  # its time is over meanwhile


def test_steps_that_are_not_in_the_table_change_nothing() -> None:
    made = world()
    ticket = held(made)
    (ask,) = made.ledger
    card = made.state.of(Cards).cards[ask.key]
    for op in {op for _, op in STEPS} - {op for state, op in STEPS if state == card.state} | {"dance"}:
        made.record((Change("approve", "", ask.key, op, {"at_ns": made.at_ns, "card": ticket}),))
    made.record((Change("approve", "", "no such card", "grant", {"at_ns": made.at_ns, "card": ticket}),))
    assert card.state == "asked"
    assert made.refold() == made.state


def test_a_clock_that_is_set_back_leaves_a_question_as_long_as_it_had() -> None:
    made = world()
    ticket = held(made, at=24 * H)
    made.at_ns = START
    made.record((SetBack(START + 24 * H * S, START).change(),))
    made.at_ns = START + H * S - 1
    assert made.ask(REFUND).ticket == ticket
    made.at_ns = START + H * S
    assert held(made) != ticket
    assert made.refold() == made.state


NUMBERS = st.integers(0, 2)


class Words(RuleBasedStateMachine):
    """Calls, people and crashes in any order: never more calls than words, and a word that is good lets one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world("{expires: 10m}")
        self.good: dict[int, int] = {}
        self.tickets: dict[int, str] = {}
        self.numbers: dict[str, int] = {}

    def body(self, number: int) -> Any:
        return call(body=f'{{"n": {number}}}')

    @rule(number=NUMBERS)
    def comes(self, number: int) -> None:
        decision = self.world.ask(self.body(number))
        until_ns = self.good.pop(number, 0)
        assert (decision.action == "allow") == (self.world.at_ns < until_ns)
        if decision.action == "allow":
            self.tickets.pop(number)
        elif decision.code == "approval-required":
            self.tickets[number] = decision.ticket
            self.numbers.update({change.key: number for change in decision.changes})

    @rule(number=NUMBERS, allowed=st.booleans())
    def word(self, number: int, allowed: bool) -> None:
        if number in self.tickets and says(self.world, self.tickets[number], allowed, "no"):
            self.good[number] = self.world.at_ns + 600 * S if allowed else 0

    @precondition(lambda self: self.world.out)
    @rule(back=st.booleans(), data=st.data())
    def ends(self, back: bool, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.world.out)))
        _, decision = self.world.out[call_id]
        (used,) = [change for change in decision.changes if change.op == "use"]
        card = self.world.state.of(Cards).cards.get(used.key)
        self.world.end(WITHDRAWN if back else OK, call_id)
        if back and card is not None and card.id == used.data["card"]:
            self.good[self.numbers[used.key]] = card.until_ns
            self.tickets[self.numbers[used.key]] = card.id

    @rule(seconds=st.sampled_from([1, 299, 300, 600]))
    def passes(self, seconds: int) -> None:
        self.world.at_ns += seconds * S

    @rule()
    def dies(self) -> None:
        self.world.record(abandon(self.world.state, self.world.at_ns))
        self.world.out.clear()

    @invariant()
    def folds_again(self) -> None:
        assert self.world.refold() == self.world.state


TestWords = Words.TestCase
