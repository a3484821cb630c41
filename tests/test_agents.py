"""The agent without a framework, as it is and behind Borderpost; `make agents` runs those of every framework."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def load_runner() -> Any:
    spec = importlib.util.spec_from_file_location("examples_run", ROOT / "examples" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


RUNNER = load_runner()
ALONE = {"normal": 1, "twice": 2, "undefined": 1, "order": 1, "delete": 1, "retry": 40}
"""What reaches the shop without Borderpost, by task: `examples.run.COUNTED` says of what."""


@pytest.mark.parametrize("task", RUNNER.TASKS)
def test_the_mistake_reaches_the_shop_of_an_agent_alone_and_not_behind_borderpost(task: str) -> None:
    python = Path(sys.executable)
    borderpost = python.with_name("borderpost")
    alone = RUNNER.run_agent(python, "plain", task, behind=False, borderpost=borderpost)
    assert (alone.code, alone.counts[RUNNER.COUNTED[task]]) == (0, ALONE[task])
    behind = RUNNER.run_agent(python, "plain", task, behind=True, borderpost=borderpost)
    assert RUNNER.problem_of(task, behind) == "", behind


def test_every_agent_has_its_file() -> None:
    assert {path.stem for path in (ROOT / "examples" / "agents").glob("*.py")} == set(RUNNER.AGENTS)


def test_no_agent_knows_of_borderpost() -> None:
    for path in (ROOT / "examples" / "agents").glob("*.py"):
        assert "borderpost" not in path.read_text().lower()


def test_an_agent_that_is_not_there_is_named_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        RUNNER.main(["plain", "langgraf"])
    assert ended.value.code == 2
    assert f"there is no agent `langgraf`; there are {', '.join(RUNNER.AGENTS)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ran", "problem"),
    [
        ({"words": "Refunded. 200"}, ""),
        ({"code": 1}, "it ended with exit code 1"),
        ({"counts": {"refunds": 2}}, "2 refunds reached the shop"),
        ({"counts": {"refunds": 1, "forced": 1}}, "the mistake reached the shop"),
        ({"words": "It went wrong."}, "it came to no sensible end"),
        ({"hosts": frozenset({"127.0.0.1", "telemetry.example.com"})}, "it called telemetry.example.com"),
    ],
)
def test_what_went_wrong_behind_borderpost_is_said(ran: dict[str, Any], problem: str) -> None:
    good = {"words": "Refunded.", "counts": {"refunds": 1}, "code": 0, "errors": "", "hosts": frozenset({"127.0.0.1"})}
    assert RUNNER.problem_of("twice", RUNNER.Ran(**(good | ran))) == problem
