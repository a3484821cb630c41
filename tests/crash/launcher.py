"""Starts `borderpost serve` again and again, each time to be killed by its own hand at a named step.

A process of its own. It reads one boot a line from stdin, `{"argv": [...], "step": ..., "token": ..., "hit": n,
"busy_s": s}`, forks, and runs the real command in the child; what that says comes out between a line `pid N` and a line
`ended CODE`.
Forking after the imports makes a start ten times as quick; nothing else differs from the real thing.

The seams are here, not in the product: methods are wrapped that send SIGKILL to their own process. Most steps are a
kind of entry and how far it has come:

    deciding    it is about to be recorded
    queued      it has its sequence number, and waits for the disk
    writing     the writer has begun its transaction's batch
    committing  it is inserted, and not committed
    written     it is committed, and nobody has been told
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

import cli
import proxy.launch  # noqa: F401  imported before forking
from proxy import rulefiles, server
from proxy.addon import Addon
from proxy.admission import Admission
from proxy.gate import Gate
from proxy.layers import Stream
from proxy.ledger import snapshot, store, writing
from proxy.ledger.entries import (
    BootEntry,
    CommandEntry,
    DecisionEntry,
    Entry,
    OutcomeEntry,
    PruneEntry,
    RulesetEntry,
)
from proxy.ledger.history import History
from proxy.ledger.store import Ledger
from proxy.ledger.writing import Writing


class Seams:
    """Kills this process when `step` happens for the `hit`-th time to a call whose path holds `token`."""

    def __init__(self, step: str, token: str, hit: int) -> None:
        self.step = step
        self.token = token
        self.left = hit
        self.ids: set[str] = set()
        self.rulesets = 0
        self.in_batch: set[str] = set()

    def reach(self, step: str) -> None:
        if step != self.step:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def reach_each(self, kinds: set[str], phase: str) -> None:
        for kind in sorted(kinds):
            self.reach(f"{kind}-{phase}")

    def kind(self, entry: Entry) -> str:
        """What `entry` is in the names of steps; empty for calls of others."""
        if isinstance(entry, DecisionEntry):
            if self.token not in entry.path:
                return ""
            self.ids.add(entry.id)
            return entry.action if entry.action in ("allow", "replay") else "refusal"
        if isinstance(entry, OutcomeEntry):
            if entry.error.startswith("the proxy stopped"):
                return "abandoned"
            return "outcome" if entry.id in self.ids else ""
        if isinstance(entry, BootEntry):
            return "boot"
        if isinstance(entry, RulesetEntry):
            return "reload" if self.rulesets else "ruleset"
        if isinstance(entry, CommandEntry):
            return entry.name
        if isinstance(entry, PruneEntry):
            return "prune"
        return "checkpoint" if self.ids else ""

    def install(self) -> None:
        """Wrap what is to be wrapped. A seam that is gone from the product fails here, by name."""
        seams = self

        def append(original: Callable[..., int], ledger: Ledger, entry: Entry, *rest: Any) -> int:
            kind = seams.kind(entry)
            seams.reach(f"{kind}-deciding")
            seq = original(ledger, entry, *rest)
            seams.reach(f"{kind}-queued")
            return seq

        def write(original: Callable[..., None], file: Writing, batch: list[Any], *rest: Any) -> None:
            seams.in_batch = {seams.kind(item[1]) for item in batch}
            seams.reach_each(seams.in_batch, "writing")
            original(file, batch, *rest)
            seams.reach_each(seams.in_batch, "written")
            if any(isinstance(item[1], RulesetEntry) for item in batch):
                seams.rulesets += 1

        def prune_some(original: Callable[..., None], file: Writing, *rest: Any) -> None:
            seams.in_batch = {"giving-up"} if seams.ids else set()
            original(file, *rest)
            seams.in_batch = set()
            if seams.ids:  # else it goes on with what an earlier proxy has begun
                seams.reach("given-up")

        def commit(_: Any) -> None:
            seams.reach_each(seams.in_batch, "committing")

        async def admit(original: Any, gate: Gate, call: Any, *rest: Any) -> Admission:
            admission: Admission = await original(gate, call, *rest)
            if seams.token in call.path and admission.reply is None:
                seams.reach("admitted")
            return admission

        def settle(original: Any, gate: Gate, admission: Admission, *rest: Any, **more: Any) -> None:
            if seams.token in admission.call.path:
                seams.reach("settling")
            original(gate, admission, *rest, **more)

        def connect(original: Any, stream: Stream) -> Generator[Any, Any, Any]:
            connected = yield from original(stream)
            if seams.token in stream.flow.request.path:
                seams.reach("connected")
            return connected

        def responseheaders(original: Any, addon: Addon, flow: Any) -> None:
            original(addon, flow)
            if seams.token in flow.request.path:
                seams.reach("head-arrived")

        def answer(original: Any, ledger: Ledger, call_id: str) -> Any:
            found = original(ledger, call_id)
            seams.reach("replay-reading")
            return found

        def entries(original: Any, history: History, *rest: Any, **more: Any) -> Iterator[Any]:
            for item in original(history, *rest, **more):
                seams.reach("folding")
                yield item

        def snapshot_lines(original: Any, *rest: Any) -> Iterator[bytes]:
            for line in original(*rest):
                yield line
                seams.reach("snapshot-begun")

        def snapshot_written(original: Any, *rest: Any) -> int:
            size_bytes: int = original(*rest)
            seams.reach("snapshot-kept")
            return size_bytes

        def load(original: Any, *rest: Any) -> Any:
            if seams.rulesets:
                seams.reach("reload-loading")
            return original(*rest)

        async def drain(original: Callable[..., Any], addon: Addon, *rest: Any) -> None:
            seams.reach("stop-draining")
            await original(addon, *rest)

        def close(original: Any, ledger: Ledger) -> None:
            seams.reach("stop-closing")
            original(ledger)

        def ensure_ca(original: Any, *rest: Any) -> Any:
            seams.reach("ca-making")
            made = original(*rest)
            seams.reach("ca-made")
            return made

        store.SEAL_ENTRIES = 7  # so that there are checkpoints to be killed at
        snapshot.EVERY = 3  # and snapshots, at every start
        wrap(Ledger, "_queue", append)
        wrap(Writing, "write", write)
        wrap(Writing, "prune_some", prune_some)
        wrap(Ledger, "answer", answer)
        wrap(History, "entries", entries)
        wrap(snapshot, "_lines", snapshot_lines)
        wrap(snapshot, "_write", snapshot_written)
        wrap(Ledger, "close", close)
        wrap(Gate, "admit", admit)
        wrap(Gate, "settle", settle)
        wrap(Addon, "responseheaders", responseheaders)
        wrap(Addon, "drain", drain)
        wrap(Stream, "make_server_connection", connect)
        wrap(rulefiles, "_load", load)
        wrap(server, "ensure_ca", ensure_ca)
        event.listen(Engine, "commit", commit)
        if self.step == "ledger-making":
            event.listen(Engine, "commit", lambda _: self.reach("ledger-making"))


def wrap(owner: Any, name: str, instead: Callable[..., Any]) -> None:
    """Put `instead` before `owner.name`, which it gets as its first argument."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *rest, **more: instead(original, *rest, **more))


def boot(order: dict[str, Any]) -> int:
    """Run one proxy to its end; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115  as long as the process lives
        Seams(order["step"], order["token"], order["hit"]).install()
        writing.BUSY_S = order["busy_s"]
        sys.argv = ["borderpost", *order["argv"]]
        cli.main()
    os.write(1, f"pid {child}\n".encode())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        os.write(1, f"ended {boot(json.loads(line))}\n".encode())
