"""`borderpost demo`, the whole of it, once: the real agent, the real API, the real proxy. The API's counts tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.demo.api import rate
from proxy.demo.main import Demo, DemoError, run_demo
from proxy.demo.screen import show
from proxy.ledger.query import LedgerReader
from proxy.ledger.selecting import Filters
from proxy.report.terminal import columns_of


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    said: list[str] = []
    done = run_demo(tmp_path_factory.mktemp("demo") / "kept", said.append)
    assert len(said) == 2
    return done


def test_without_borderpost_every_mistake_reaches_the_api(demo: Demo) -> None:
    assert demo.without.refunds == 3
    assert demo.without.refunded == 3 * 4200
    assert demo.without.deletions == 1
    assert demo.without.searches == 40
    assert [step.status for step in demo.steps_without][:4] == [200, 0, 200, 200]


def test_with_borderpost_one_refund_is_made_and_the_agent_gets_its_answer(demo: Demo) -> None:
    assert demo.guarded.refunds == 1
    assert demo.guarded.refunded == 4200
    first, timed_out, again, replanned, *_ = demo.steps_guarded
    assert (first.status, timed_out.status, again.status, replanned.status) == (200, 0, 200, 200)
    assert '"id": "re_1"' in again.text
    assert again.text == replanned.text


def test_with_borderpost_nothing_is_deleted_and_the_agent_reads_why(demo: Demo) -> None:
    assert demo.guarded.deletions == 0
    assert demo.steps_guarded[-1].status == 403
    assert "no-deletes" in demo.steps_guarded[-1].text


def test_with_borderpost_searches_keep_their_pace(demo: Demo) -> None:
    assert demo.guarded.searches == 40
    assert demo.guarded.searches_per_second <= 10 < demo.without.searches_per_second


def test_every_call_is_on_record(demo: Demo) -> None:
    with LedgerReader.open(demo.ledger) as reader:
        rows = reader.list(Filters(run="demo"), limit=1000)[::-1]
    assert [(row.tool, row.decision, row.rules) for row in rows if row.tool != "search"] == [
        ("charge.read", "allow", ("read-charges",)),
        ("refund", "allow", ("refund-once",)),
        ("refund", "replay", ("refund-once",)),
        ("refund", "replay", ("refund-once",)),
        ("customer.delete", "deny", ("no-deletes",)),
    ]
    assert [row.decision for row in rows if row.tool == "search"] == ["allow"] * 40


def test_it_fits_on_one_screen(demo: Demo) -> None:
    lines = show(demo, 80, colour=False)
    assert len(lines) <= 24
    short = [line for line in lines if str(demo.directory) not in line]
    assert max(map(columns_of, short)) <= 80


def test_a_directory_that_holds_something_is_left_alone(demo: Demo) -> None:
    with pytest.raises(DemoError, match="is not empty"):
        run_demo(demo.directory, print)


@pytest.mark.parametrize(
    ("times_s", "per_second"),
    [((), 0), ((5,), 0), ((5, 6), 1), ((0, 0.1, 0.2, 0.3), 10), ((1, 1), 0)],
)
def test_a_rate_is_counted_from_the_first_to_the_last(times_s: tuple[float, ...], per_second: int) -> None:
    assert rate([round(time_s * 1e9) for time_s in times_s]) == per_second


def test_the_agent_is_a_stranger() -> None:
    source = (Path(__file__).parents[1] / "proxy" / "demo" / "agent.py").read_text()
    assert "borderpost" not in source.lower().partition('"""')[2].partition('"""')[2]
    assert all(word not in source for word in ("import proxy", "from proxy", "import rules", "from rules"))
