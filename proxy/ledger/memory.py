"""What is remembered of a ledger: a fold over its entries, in their order, and nothing else."""

from __future__ import annotations

import msgspec

from proxy.ledger.entries import CommandEntry, DecisionEntry, Entry, OutcomeEntry
from proxy.runs import JOIN, LEAVE, JoinedRun, lately
from rules import decide
from rules.state import State


class Memory(msgspec.Struct):
    """The fold over the entries up to `seq`. Equal for equal entries, however it came about.

    `last_ns`: the latest time in them since the clock was set back. `unsettled`: the calls that were let out and have
    no outcome, with when that was (ns). `runs`: the run of each agent, with when it was active last (ns). `joined`: the
    runs that have joined and not left, by the hash of their token. `left`: those that have left lately, with when (ns).
    """

    seq: int = 0
    last_ns: int = 0
    state: State = msgspec.field(default_factory=State)
    unsettled: dict[str, int] = {}
    runs: dict[str, tuple[str, int]] = {}
    joined: dict[str, JoinedRun] = {}
    left: dict[str, int] = {}

    def fold(self, seq: int, entry: Entry) -> None:
        """Fold `entry`, which has the number `seq`: the one after the last."""
        self.seq = seq
        self.last_ns = max(self.last_ns, entry.at_ns)
        if isinstance(entry, DecisionEntry):
            if not self._is_of_joined(entry.run):  # nobody else goes on with that one
                self.runs[entry.agent] = (entry.run, entry.at_ns)
            decide.apply(self.state, entry.changes)
            if entry.action == "allow":
                self.unsettled[entry.id] = entry.at_ns
        elif isinstance(entry, OutcomeEntry):
            decide.apply(self.state, entry.changes)
            self.unsettled.pop(entry.id, None)
        elif isinstance(entry, CommandEntry):
            decide.apply(self.state, entry.changes)
            if entry.set_back is not None:
                self.last_ns = entry.at_ns
            if entry.name == JOIN:
                joined = JoinedRun.told(entry.data, entry.at_ns)
                self.joined[joined.hash] = joined
                self.left.pop(joined.run, None)
            elif entry.name == LEAVE:
                self.joined.pop(str(entry.data["hash"]), None)
                self.left = lately(self.left, entry.at_ns) | {str(entry.data["run"]): entry.at_ns}

    def _is_of_joined(self, run: str) -> bool:
        return run in self.left or any(joined.run == run for joined in self.joined.values())
