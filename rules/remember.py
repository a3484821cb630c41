"""What is remembered of a call, for rules that ask about the past of its run (`rules.guards.history`).

Every tool that matches the call counts, not only the one that names it: a more specific tool can hide nothing. What
narrows later calls (`sent`) is read leniently, what permits them (`done`, `met`) strictly.
"""

from __future__ import annotations

from functools import partial

from rules.answers import read_answer
from rules.applies import Bindings, Reading
from rules.decision import Change
from rules.earlier import Earlier, spelled
from rules.fields import ConditionError
from rules.guard import Settled
from rules.guards import history
from rules.state import State


def let_out(reading: Reading, state: State, call_id: str) -> tuple[Change, ...]:
    """What is remembered of a call that is let out, or answered by a replay."""
    run, now_ns = reading.call.run, reading.now_ns
    if not history.sent(state, run, call_id, [hit.target.name for hit in reading.tool_hits], now_ns):
        return ()  # nothing that the call may be of is new: the usual case, and a quick one
    return history.sent(state, run, call_id, tuple(reading.matching("deny")), now_ns)


def completed(reading: Reading, state: State, settled: Settled) -> tuple[Change, ...]:
    """What is remembered of a call that came to its end, or whose kept answer was given again."""
    if not settled.answer.complete:
        return ()
    reading.tool_name = settled.tool
    tools = reading.matching("allow")
    met = [
        key
        for tool in tools
        for earlier in reading.ruleset.earlier.get(tool, ())
        if (key := _key(reading, tool, tools[tool].bindings, earlier, settled))
    ]
    return history.done(
        state, reading.call.run, settled.call_id, tuple(tools) if settled.succeeded else (), met, reading.now_ns
    )


def _key(reading: Reading, tool: str, bindings: Bindings, earlier: Earlier, settled: Settled) -> str | None:
    """The key under which this call meets `earlier`; None when it does not, or that can not be told."""
    if not settled.succeeded and not earlier.any_status:
        return None
    try:
        fits = earlier.answer is None or earlier.answer.holds(partial(read_answer, settled.answer), "allow")
        values = [spelled(reading.read(there, bindings)) for _, there in earlier.same]
    except ConditionError:
        return None
    known = [value for value in values if value is not None]
    return earlier.key(reading.call, tool, known) if fits and len(known) == len(values) else None
