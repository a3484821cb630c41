"""Which run a call belongs to. A client never chooses its run: `run` names one, else it is an agent's activity."""

from __future__ import annotations

from collections.abc import Callable

IDLE_NS = 30 * 60 * 1_000_000_000
"""Under `serve`, an agent that was idle this long begins a new run."""


class Runs:
    """The current run of each agent. `fixed` is the run's id under `run`, empty under `serve`."""

    def __init__(self, fixed: str, new_run_id: Callable[[int], str]) -> None:
        self._fixed = fixed
        self._new_run_id = new_run_id
        self._current: dict[str, tuple[str, int]] = {}

    def recorded(self, agent: str, run: str, at_ns: int) -> None:
        """The ledger says that `agent` was active in `run` at `at_ns`: keeps runs over a restart."""
        self._current[agent] = (run, at_ns)

    def run_of(self, agent: str, now_ns: int) -> str:
        """The run that a call of `agent` at `now_ns` belongs to."""
        if self._fixed:
            return self._fixed
        run, last_ns = self._current.get(agent, ("", 0))
        if not run or now_ns - last_ns >= IDLE_NS:
            run = self._new_run_id(now_ns)
        self._current[agent] = (run, now_ns)
        return run
