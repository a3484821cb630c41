"""Which run a call belongs to."""

from __future__ import annotations

from proxy.runs import IDLE_NS, Runs

START_NS = 1_700_000_000_000_000_000


def runs(fixed: str = "") -> Runs:
    return Runs(fixed, lambda now_ns: f"r_{now_ns - START_NS}")


def test_under_run_every_call_belongs_to_its_run() -> None:
    fixed = runs("r_mine")
    assert {fixed.run_of("a", START_NS), fixed.run_of("b", START_NS + 2 * IDLE_NS)} == {"r_mine"}


def test_an_agent_that_was_idle_for_half_an_hour_begins_a_new_run() -> None:
    serve = runs()
    first = serve.run_of("a", START_NS)
    assert serve.run_of("a", START_NS + IDLE_NS - 1) == first
    assert serve.run_of("a", START_NS + 2 * IDLE_NS - 2) == first
    assert serve.run_of("a", START_NS + 3 * IDLE_NS - 2) != first


def test_each_agent_has_runs_of_its_own() -> None:
    serve = runs()
    assert serve.run_of("a", START_NS) != serve.run_of("b", START_NS + 1)


def test_a_restart_goes_on_with_the_run_that_is_recorded() -> None:
    serve = runs()
    serve.recorded("a", "r_before", START_NS)
    assert serve.run_of("a", START_NS + IDLE_NS - 1) == "r_before"
    assert serve.run_of("a", START_NS + 3 * IDLE_NS) != "r_before"
