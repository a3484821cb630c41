"""The life of a claim: which steps there are, what ends an unknown outcome, and under which key a retry goes out."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from rules.decide import abandon, apply, keep_until_ns, resolve, told
from rules.decision import Answer, Change, Decision
from rules.guards.claims import STEPS, Claims
from tests.rules.world import LOST, OK, START, WITHDRAWN, S, World, answered, call, json_body, of_guards, rules

HOUR = 3600
TOOLS = """
tools:
  pay: {match: POST https://api.example.com/pay, upstream_key: Idempotency-Key}
  say: POST https://api.example.com/say
"""
PAY, SAY = call(path="/pay", body='{"n": 1, "m": 1}'), call(path="/say", body='{"n": 1, "m": 1}')
REFUSED = Answer(402, complete=True, sent=True, stored=True, replayed=True)


def world_of(*dedupes: str, tool: str = "[pay, say]") -> World:
    """A world in which a rule for each of `dedupes` is about both tools."""
    lines = [f"  - {{id: r{n}, tool: {tool}, allow: true, dedupe: {each}}}\n" for n, each in enumerate(dedupes)]
    return World(f"{TOOLS}rules:\n{''.join(lines)}")


def sent(decision: Decision) -> str:
    assert decision.action == "allow"
    return "".join(value for _, _, value in decision.send)


def own(key: str, **given: Any) -> Any:
    return msgspec.structs.replace(PAY, headers=(("idempotency-key", key),), **given)


# --- the table -------------------------------------------------------------------------------------------------------

OPS = ("claim", "retry", "done", "release", "unknown", "end", "a step of a later version")
HOW: dict[str, tuple[str, ...]] = {
    "free": (),
    "claimed": ("claim",),
    "unknown": ("claim", "unknown"),
    "retrying": ("claim", "unknown", "retry"),
    "done": ("claim", "done"),
}
"""How a claim comes into a state."""


def step(op: str, latest: str, call_id: str) -> Change:
    data: dict[str, Any] = {"at_ns": START, "call": latest}
    if op == "claim":
        data = {"at_ns": START, "call": call_id, "until_ns": START + S, "client_keys": [], "path": "", "until": ""}
    if op == "retry":
        data = {"at_ns": START, "call": call_id, "of": latest, "until_ns": START + S}
    return Change("dedupe", "r", "key", op, data)


def state_after(*ops: str) -> tuple[str, str]:
    """The state of the claim after these steps, and its latest call."""
    world, latest = World("rules: []"), "none"
    for number, op in enumerate(ops):
        apply(world.state, [step(op, latest, f"call-{number}")])
        claim = world.state.of(Claims).claims.get("key")
        latest = claim.call if claim is not None else latest
    return (claim.state if claim is not None else "free"), latest


@pytest.mark.parametrize(("state", "op"), product(HOW, OPS))
def test_a_step_that_is_not_in_the_table_changes_nothing(state: str, op: str) -> None:
    before = state_after(*HOW[state]) if HOW[state] else ("free", "none")
    assert before[0] == state
    after, latest = state_after(*HOW[state], op)
    assert after == STEPS.get((state, op), state)
    moved = (state, op) in STEPS and op in ("claim", "retry")
    assert latest == (f"call-{len(HOW[state])}" if moved else before[1])


@pytest.mark.parametrize("op", ["retry", "done", "release", "unknown", "end"])
def test_a_step_of_another_call_changes_nothing(op: str) -> None:
    world = World("rules: []")
    for each in (step("claim", "", "mine"), step("unknown", "mine", "")):
        apply(world.state, [each])
    apply(world.state, [step(op, "another", "third")])
    assert (world.state.of(Claims).claims["key"].state, world.state.of(Claims).claims["key"].call) == (
        "unknown",
        "mine",
    )


# --- what ends an unknown outcome ------------------------------------------------------------------------------------

ANSWERS = [
    ("2xx", answered(204), "replay"),
    ("the stored success", Answer(303, complete=True, sent=True, stored=True, replayed=True), "replay"),
    ("the stored refusal: nothing was executed", REFUSED, "allow anew"),
    ("the stored failure", Answer(500, complete=True, sent=True, replayed=True), "allow"),
    ("a redirection", answered(303), "allow"),
    ("400", answered(400), "allow back"),
    ("401", answered(401), "allow back"),
    ("409", answered(409), "allow"),
    ("a marked 409: still on its way", Answer(409, complete=True, sent=True, replayed=True), "allow"),
    ("503 with Retry-After", answered(503, ("retry-after", "1")), "allow back"),
    ("500", answered(500), "allow"),
    ("nothing", LOST, "allow"),
    ("half of a success", Answer(200, complete=False, sent=True), "allow"),
    ("no connection", Answer(0, complete=False, sent=False), "allow back"),
    ("held back", WITHDRAWN, "allow back"),
]


@pytest.mark.parametrize(("answer", "then"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_the_answer_to_a_retry(answer: Answer, then: str) -> None:
    world = world_of("24h")
    key = sent(world.ask(PAY))
    world.end(LOST)
    assert sent(world.ask(PAY)) == key
    outcome = world.end(answer)
    assert outcome.told == (("call-1",) if then in ("replay", "allow anew") else ())
    decision = world.ask(PAY, at=HOUR)
    if then == "replay":
        assert (decision.action, decision.replay_of) == ("replay", "call-2")
    else:
        assert (sent(decision) == key) is (then != "allow anew")
        unknown = {"allow": "call-2", "allow back": "call-1", "allow anew": ""}
        assert decision.replay_of == unknown[then], "a retry that was refused is not in doubt itself"
    assert world.refold() == world.state


def test_a_success_tells_the_outcome_of_all_attempts() -> None:
    world = world_of("24h", "{key: body.n}")
    for answer in (LOST, LOST, answered(401)):
        assert world.do(PAY, answer) == "allow"
        assert world.refold() == world.state
    world.ask(PAY)
    outcome = world.end(OK)
    assert (outcome.kind, outcome.told) == ("done", ("call-1", "call-2"))


def test_what_is_only_watched_tells_nothing() -> None:
    """A rule in monitor mode counts a retry that had no key: its success says nothing about the first call."""
    watched = "{id: w, tool: [pay, say], mode: monitor, dedupe: 24h}"
    world = World(f"{TOOLS}rules: [{{id: go, tool: [pay, say], allow: true}}, {watched}]")
    world.do(PAY, LOST)
    world.ask(PAY)
    assert world.end(OK).told == ()


def test_a_first_call_that_meets_a_conflict_may_have_company_on_its_way() -> None:
    """409 of a keyed tool: the same key is being worked on. Of others it says that nothing was executed."""
    world = world_of("24h")
    world.do(own("k"), answered(409))
    assert world.ask(PAY).replay_of == "call-1"
    assert world.do(SAY, answered(409)) == "allow"
    assert world.ask(SAY).replay_of == ""


def test_what_has_no_claim_is_told_by_its_answer_alone() -> None:
    world = World(f"{TOOLS}rules: [{{id: pay, tool: pay, allow: true}}]")
    assert world.ask(PAY).send == ()
    assert world.end(answered(409)).kind == "not_executed"


def test_a_duplicate_of_a_retry_waits_for_it() -> None:
    world = world_of("24h")
    world.do(PAY, LOST)
    retry = world.ask(PAY)
    twin = world.ask(PAY)
    assert (twin.code, twin.replay_of) == ("duplicate-in-flight", "call-2")
    assert keep_until_ns(retry) == START + 24 * HOUR * S, "its answer is kept as long as the claim counts"
    world.end(OK, "call-2")
    assert world.ask(PAY).replay_of == "call-2"


def test_a_retry_blocks_beyond_the_window() -> None:
    world = world_of("1h")
    world.do(PAY, LOST)
    world.ask(PAY, at=HOUR - 1)
    world.do(call(path="/pay"), at=2 * HOUR)
    assert world.ask(PAY, at=2 * HOUR).code == "duplicate-in-flight"


WHO = [("call-1", True), ("call-2", True), ("call-4", True), ("call-3", False), ("call-9", False)]


@pytest.mark.parametrize(("named", "known"), WHO)
@pytest.mark.parametrize("executed", [True, False])
def test_a_person_resolves_by_any_call_that_is_in_doubt(named: str, known: bool, executed: bool) -> None:
    world = world_of("24h", "{key: body.n}")
    for answer in (LOST, answered(500), answered(401), LOST):
        assert world.do(PAY, answer) == "allow"
    changes = resolve(world.state, named, executed, world.at_ns)
    assert len(changes) == (2 if known else 0)
    assert told(world.state, changes) == (("call-1", "call-2", "call-4") if known else ())
    world.record(changes)
    decision = world.ask(PAY)
    if not known:
        assert decision.replay_of == "call-4"
    elif executed:
        assert (decision.code, decision.executed) == ("duplicate-not-replayable", "yes")
    else:
        assert (decision.action, decision.replay_of) == ("allow", "")
    assert world.refold() == world.state


def test_there_is_nothing_to_resolve_while_a_retry_is_out_or_after_the_window() -> None:
    world = world_of("24h")
    world.do(PAY, LOST)
    world.ask(PAY)
    assert resolve(world.state, "call-1", True, world.at_ns) == ()
    world.end(LOST)
    assert resolve(world.state, "call-1", True, START + 24 * HOUR * S - 1) != ()
    assert resolve(world.state, "call-1", True, START + 24 * HOUR * S) == ()


def test_what_was_executed_can_be_rejected_like_any_duplicate() -> None:
    world = world_of("{on_duplicate: reject}")
    world.do(SAY, LOST)
    world.record(resolve(world.state, "call-1", True, world.at_ns))
    assert world.ask(SAY).code == "duplicate"


TIMES = [
    ("24h", 24 * HOUR - 1, 24 * HOUR),
    ("{unknown_after: 30m}", 1799, 1800),
    ("{unknown_after: 30m, on_unknown: keyed}", 1799, 1800),
    ("{window: 10m, unknown_after: 30m}", 599, 600),
]


@pytest.mark.parametrize(("dedupe", "still", "over"), TIMES)
def test_time_ends_it_where_a_rule_says_so(dedupe: str, still: int, over: int) -> None:
    world = world_of(dedupe)
    world.do(SAY, LOST)
    assert world.do(SAY, at=still) == "outcome-unknown"
    anew = world.ask(SAY, at=over)
    assert (anew.action, anew.replay_of) == ("allow", "")
    assert world.refold() == world.state


def test_the_time_counts_from_the_moment_when_it_became_unknown() -> None:
    world = world_of("{unknown_after: 30m}")
    world.ask(SAY, at=0)
    world.at_ns += 600 * S
    world.end(LOST)
    assert world.do(SAY, at=600 + 1799) == "outcome-unknown"
    assert world.do(SAY, at=600 + 1800) == "allow"


def test_a_retry_under_the_first_key_goes_before_giving_up_on_it() -> None:
    world = world_of("{window: 7d, unknown_after: 30m}")
    key = sent(world.ask(PAY))
    world.end(LOST)
    assert sent(world.ask(PAY, at=HOUR)) == key
    world.end(LOST)
    assert sent(world.ask(PAY, at=22 * HOUR)) != key, "the API may have forgotten it, and the rule says to go on"


# --- which duplicates of it go out -----------------------------------------------------------------------------------

MODES = [
    ("24h", PAY, "keyed"),
    ("24h", SAY, "refused"),
    ("{on_unknown: keyed}", PAY, "keyed"),
    ("{on_unknown: keyed}", SAY, "refused"),
    ("{on_unknown: block}", PAY, "refused"),
    ("{on_unknown: block}", SAY, "refused"),
    ("{on_unknown: forward}", PAY, "keyed"),
    ("{on_unknown: forward}", SAY, "bare"),
]


@pytest.mark.parametrize(("dedupe", "asked", "then"), MODES)
def test_on_unknown(dedupe: str, asked: Any, then: str) -> None:
    world = world_of(dedupe)
    key = sent(world.ask(asked))
    world.end(answered(500))
    again = world.ask(asked)
    if then == "refused":
        assert (again.code, again.executed, again.replay_of) == ("outcome-unknown", "unknown", "call-1")
    else:
        assert (sent(again), again.replay_of) == (key, "call-1")
        assert bool(key) is (then == "keyed")


def test_forward_goes_on_until_an_answer_says_that_it_is_done() -> None:
    world = world_of("{on_unknown: forward}")
    assert [world.do(SAY, answer) for answer in (LOST, answered(422), answered(500), OK)] == ["allow"] * 4
    assert world.do(SAY) == "replay"


def test_forward_does_not_end_with_the_time_of_the_key() -> None:
    world = world_of("{window: 7d, on_unknown: forward}")
    key = sent(world.ask(PAY))
    world.end(LOST)
    assert sent(world.ask(PAY, at=30 * HOUR)) == key, "the old one does no harm, and may still help"


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("upstream_key: Idempotency-Key", "allow"),
        ("upstream_key: idempotency-key", "allow"),
        ("upstream_key: X-Key", "outcome-unknown"),
        ("effect: write", "outcome-unknown"),
        ("upstream_key: {header: Idempotency-Key, retention: 1h}", "outcome-unknown"),
        ("upstream_key: {header: Idempotency-Key, retention: 2h}", "allow"),
    ],
)
def test_the_rules_of_now_decide_whether_the_key_is_relied_on(now: str, then: str) -> None:
    world = world_of("24h")
    world.do(PAY, LOST)
    world.ruleset = rules(
        f"{TOOLS}rules: [{{id: r0, tool: pay, allow: true, dedupe: 24h}}]".replace("upstream_key: Idempotency-Key", now)
    )
    assert world.do(PAY, at=HOUR) == then


def test_a_key_is_relied_on_for_nine_tenths_of_its_time() -> None:
    world = world_of("7d")
    world.do(PAY, LOST)
    assert world.do(PAY, LOST, at=24 * HOUR * 0.9 - 1e-6) == "allow"
    assert world.do(PAY, at=24 * HOUR * 0.9) == "outcome-unknown", "counted from the first call, not from the retry"


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_clients_own_key_is_the_key_of_the_claim() -> None:
    world = world_of("24h")
    assert sent(world.ask(own("mine"))) == "mine"
    world.end(LOST)
    assert sent(world.ask(own("fresh"))) == "mine"
    world.end(LOST)
    assert sent(world.ask(PAY)) == "mine"


@pytest.mark.parametrize(
    "headers",
    [
        (("idempotency-key", "a"), ("idempotency-key", "b")),
        (("idempotency-key", ""), ("idempotency-key", "b")),
        (("idempotency-key", "x" * 256),),
        (("idempotency-key", "caf\xe9"),),
    ],
)
def test_a_key_that_could_not_be_sent_again_is_left_alone(headers: tuple[tuple[str, str], ...]) -> None:
    world = world_of("24h")
    assert sent(world.ask(msgspec.structs.replace(PAY, headers=headers))) == ""
    world.end(LOST)
    assert world.do(PAY) == "outcome-unknown"


def test_an_empty_key_is_none() -> None:
    assert sent(world_of("24h").ask(own(""))) == sent(world_of("24h").ask(PAY)) != ""


def test_the_key_is_on_record_with_the_claim_before_the_call_leaves() -> None:
    decision = world_of("24h").ask(PAY)
    ((_, name, value),) = decision.send
    (claim,) = of_guards(decision.changes)
    assert claim.op == "claim"
    assert claim.data["upstream_key"] == {"header": "Idempotency-Key", "value": value, "since_ns": START}
    assert (name, decision.facts["send.Idempotency-Key"]) == ("Idempotency-Key", value)


def test_claims_of_one_call_have_one_key() -> None:
    world = world_of("24h", "{key: body.n}")
    key = sent(world.ask(PAY))
    world.end(LOST)
    assert sent(world.ask(PAY)) == key


@pytest.mark.parametrize("dedupes", [("24h", "{window: 7d, key: body.n}"), ("{window: 7d, key: body.n}", "24h")])
def test_a_claim_that_is_made_by_a_retry_has_the_key_of_the_retry(dedupes: tuple[str, str]) -> None:
    """One rule sees a retry, the other a new act: the call goes out under the first key, and both remember that."""
    world = world_of(*dedupes)
    key = sent(world.ask(PAY))
    world.end(LOST)
    alike = msgspec.structs.replace(PAY, body=json_body('{"n": 1, "m": 2}'))
    assert sent(world.ask(alike, at=20 * HOUR)) == key
    world.end(LOST)
    assert world.ask(alike, at=22 * HOUR).code == "outcome-unknown", "the key is as old as its first call"


@pytest.mark.parametrize("modes", [("{key: body.n}", "{key: body.m}"), ("{key: body.m}", "{key: body.n}")])
@pytest.mark.parametrize("mode", ["keyed", "forward"])
def test_a_call_that_retries_two_goes_out_under_no_key(modes: tuple[str, str], mode: str) -> None:
    world = world_of(*[each.replace("}", f", on_unknown: {mode}}}") for each in modes])
    one, other = json_body('{"n": 1, "m": 2}'), json_body('{"n": 2, "m": 1}')
    for body in (one, other):
        world.do(msgspec.structs.replace(PAY, body=body), LOST)
    refused = world.ask(PAY)
    assert (refused.code, refused.executed, refused.changes) == ("outcome-unknown", "unknown", ())


@pytest.mark.parametrize("order", [1, -1])
def test_a_claim_without_a_key_goes_along_where_its_rule_takes_the_risk(order: int) -> None:
    dedupes = ["{key: body.n, on_unknown: forward}", "{key: body.m}"][::order]
    world = world_of(*dedupes)
    two_keys = (("idempotency-key", "a"), ("idempotency-key", "b"))
    world.do(msgspec.structs.replace(PAY, body=json_body('{"n": 1, "m": 2}'), headers=two_keys), LOST)
    key = sent(world.ask(msgspec.structs.replace(PAY, body=json_body('{"n": 2, "m": 1}'))))
    world.end(LOST)
    assert sent(world.ask(PAY)) == key


def test_watching_sends_no_key() -> None:
    only = f"{TOOLS}rules: [{{id: go, tool: pay, allow: true}}, {{id: w, tool: pay, mode: monitor, dedupe: 24h}}]"
    for ruleset in (
        rules(only),
        rules(f"mode: monitor\n{TOOLS}rules: [{{id: go, tool: pay, allow: true, dedupe: 24h}}]"),
    ):
        world = World(ruleset)
        for end in (LOST, OK):
            decision = world.ask(PAY)
            assert (decision.action, decision.send, decision.would) == ("allow", (), ())
            world.end(end)
        assert [each.code for each in world.ask(PAY).would] == ["duplicate"]


def test_a_claim_of_before_there_were_keys_is_read() -> None:
    world = world_of("24h")
    world.ask(SAY)
    assert "upstream_key" not in world.ledger[0].data
    world.state = world.refold()
    world.record(abandon(world.state, world.at_ns))
    assert world.do(SAY) == "outcome-unknown"
