"""What the ledger costs: entries a second against a bare SQLite `executemany` of the same rows, in the same run.

    python bench/bench_ledger.py [ENTRIES]
    python bench/bench_ledger.py read [ENTRIES]

The bare reference writes the same bytes into the same columns, without indexes, triggers, chain, redaction or encoding:
what the disk and SQLite cost alone. Only the ratios carry over to another machine. `read` fills a ledger and times the
documented questions, cold and warm, in ms.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from proxy.ledger.entries import DecisionEntry, Entry, OutcomeEntry
from proxy.ledger.ids import new_id
from proxy.ledger.query import LedgerReader
from proxy.ledger.redact import Redactor
from proxy.ledger.rows import COLUMNS, Row, row_of
from proxy.ledger.selecting import Filters
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from rules.decision import Change, Plain

VAULT = Vault(b"h" * 32, b"v" * 32)
BATCH = 500
TURNS = 5
CHUNK = 50_000


def sample(count: int, first: int = 0) -> list[Entry]:
    """`count` entries as they come: a decision that sends, its outcome, and so on; ten agents, a hundred runs.

    `first`: the number of the first call.
    """
    entries: list[Entry] = []
    for n in range(first, first + count // 2):
        at_ns = 1_767_225_600_000_000_000 + n * 1_000_000
        call_id = new_id(at_ns, n.to_bytes(10))
        claim: dict[str, Plain] = {
            "at_ns": at_ns,
            "call": call_id,
            "until_ns": at_ns + 86_400_000_000_000,
            "client_keys": [],
            "path": "",
            "until": "",
        }
        entries.append(
            DecisionEntry(
                at_ns=at_ns,
                id=call_id,
                run=f"r_{n % 100}",
                agent=f"agent-{n % 10}",
                tool="stripe.refund",
                method="POST",
                scheme="https",
                host="api.stripe.com",
                port=443,
                path="/v1/refunds",
                action="allow",
                code="",
                detail="allowed by small-refunds",
                rules=("small-refunds",),
                executed="no",
                status=0,
                ruleset="5d" * 32,
                fingerprint="ab" * 32,
                facts={"body.charge": f"ch_{n}", "body.amount": n % 5_000, "credential": "0f" * 16, "agent": "support"},
                changes=(Change("dedupe", "small-refunds", f"{n:064x}", "claim", claim),),
            )
        )
        entries.append(
            OutcomeEntry(
                at_ns=at_ns,
                id=call_id,
                outcome="done",
                status=200,
                duration_ns=40_000_000 + n % 1_000_000,
                answer_sha256=f"{n:064x}",
                answer_bytes=512,
                changes=(Change("dedupe", "small-refunds", f"{n:064x}", "done", {"at_ns": at_ns, "call": call_id}),),
            )
        )
    return entries


def write_bare(path: Path, rows: Sequence[Row]) -> None:
    """The reference: rows that are made already, into a table with nothing on it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"CREATE TABLE entries ({', '.join(COLUMNS)})")
        insert = f"INSERT INTO entries VALUES ({', '.join('?' * len(COLUMNS))})"
        for start in range(0, len(rows), BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows[start : start + BATCH])
            connection.execute("COMMIT")


async def write_ledger(ledger: Ledger, entries: Sequence[Entry]) -> None:
    """The same entries, waiting for the disk after every batch."""
    for start in range(0, len(entries), BATCH):
        seq = 0
        for entry in entries[start : start + BATCH]:
            seq = ledger.append(entry)
        await ledger.durable(seq)


async def wait_for_each(ledger: Ledger, entries: Sequence[Entry]) -> list[float]:
    """One call after the other, as an agent makes them: how long each decision waits for the disk, in ms."""
    waits = []
    for entry in entries:
        start_s = time.perf_counter()
        seq = ledger.append(entry)
        if isinstance(entry, DecisionEntry):
            await ledger.durable(seq)
            waits.append((time.perf_counter() - start_s) * 1e3)
    return waits


def measure(action: Callable[[], object], count: int) -> tuple[float, float]:
    """Wall and CPU time of `action`, in microseconds for each of `count` things that it does."""
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    action()
    return (time.perf_counter_ns() - wall_ns) / 1e3 / count, (time.process_time_ns() - cpu_ns) / 1e3 / count


def bench_writing(directory: Path, count: int) -> None:
    """Append `count` entries to both, in turns, and print the medians."""
    entries = sample(count)
    rows = [row_of(entry, seq, seq, bytes(32)) for seq, entry in enumerate(entries, 1)]
    bare, ours = [], []
    for turn in range(TURNS):
        bare.append(measure(functools.partial(write_bare, directory / f"bare-{turn}.db", rows), count))
        ledger = Ledger.open(directory / f"ledger-{turn}.db", VAULT, owner="bench")
        ours.append(measure(lambda ledger=ledger: asyncio.run(write_ledger(ledger, entries)), count))  # type: ignore[misc]
        ledger.close()
    redactor = Redactor(VAULT.hash_secret)
    redact = measure(lambda: [redactor.entry(entry) for entry in entries], count)
    encode = measure(lambda: [row_of(entry, 1, 1, bytes(32)) for entry in entries], count)
    ledger = Ledger.open(directory / "appended.db", VAULT, owner="bench")
    some = entries[:1_000]
    append = measure(lambda: [ledger.append(entry) for entry in some], len(some))
    waits = asyncio.run(wait_for_each(ledger, sample(1_000)))
    history = measure(lambda: sum(1 for _ in ledger.history.entries()), len(some) * 2)
    ledger.close()

    print(f"{count:,} entries, {BATCH} to a transaction, medians of {TURNS} turns; us an entry")
    print(f"{'':28}{'wall':>10}{'CPU':>10}")
    for name, figures in (("bare executemany", bare), ("ledger", ours)):
        wall_us, cpu_us = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:28}{wall_us:10.1f}{cpu_us:10.1f}")
    ratio = statistics.median(one[0] / other[0] for one, other in zip(ours, bare, strict=True))
    cpu_ratio = statistics.median(one[1] / other[1] for one, other in zip(ours, bare, strict=True))
    print(f"{'ledger / bare':28}{ratio:9.2f}x{cpu_ratio:9.2f}x")
    for name, (wall_us, cpu_us) in {
        "  of that, redacting": redact,
        "  of that, row and chain": encode,
        "append, for its caller": append,
        "history": history,
    }.items():
        print(f"{name:28}{wall_us:10.1f}{cpu_us:10.1f}")
    p50, p95 = statistics.median(waits), statistics.quantiles(waits, n=20)[-1]
    print(f"a decision waits for the disk: p50 {p50:.2f} ms, p95 {p95:.2f} ms (one call after the other)")


def bench_reading(directory: Path, count: int) -> None:
    """Make a ledger of `count` entries and print how long every documented question takes, in ms."""
    ledger = Ledger.open(directory / "ledger.db", VAULT, owner="bench")
    for start in range(0, count, CHUNK):
        asyncio.run(write_ledger(ledger, sample(min(CHUNK, count - start), start // 2)))
    ledger.close()
    size_bytes = (directory / "ledger.db").stat().st_size
    print(f"{count:,} entries, {size_bytes / 2**20:,.0f} MiB ({size_bytes / count:,.0f} bytes an entry)")
    end_ns = sample(2, count // 2)[0].at_ns
    rare = Filters(agent="agent-3", rule="small-refunds", status=200, host="api.stripe.com", tool="stripe.refund")
    with LedgerReader.open(directory / "ledger.db") as reader:
        middle = reader.list(limit=1)[0].seq // 2
        some_id = reader.list(limit=1, before=middle)[0].id
        questions: dict[str, Callable[[], object]] = {
            "list": reader.list,
            "list, from the middle": lambda: reader.list(before=middle),
            "list --agent": lambda: reader.list(Filters(agent="agent-3")),
            "list --run": lambda: reader.list(Filters(run="r_42")),
            "list --tool": lambda: reader.list(Filters(tool="stripe.refund")),
            "list --decision allow": lambda: reader.list(Filters(decision="allow")),
            "list --decision deny (none)": lambda: reader.list(Filters(decision="deny")),
            "list --rule": lambda: reader.list(Filters(rule="small-refunds")),
            "list --host": lambda: reader.list(Filters(host="api.stripe.com")),
            "list --host (none)": lambda: reader.list(Filters(host="example.com")),
            "list --status 200": lambda: reader.list(Filters(status=200)),
            "list --status 500 (none)": lambda: reader.list(Filters(status=500)),
            "list --since, --until": lambda: reader.list(Filters(since_ns=end_ns // 2, until_ns=end_ns)),
            "list, five filters": lambda: reader.list(rare),
            "tail": lambda: reader.tail(middle, limit=50),
            "show": lambda: reader.show(some_id),
            "runs": reader.runs,
            "status": reader.status,
            "stats of the last minute": lambda: reader.stats("agent", Filters(since_ns=end_ns - 60_000_000_000)),
            "stats of everything": reader.stats,
        }
        for name, question in questions.items():
            once_ms = measure(question, 1)[0] / 1e3
            again_ms = min(measure(question, 1)[0] / 1e3 for _ in range(3))
            print(f"{name:28}{once_ms:10.2f}{again_ms:10.2f}")


def main() -> None:
    """`bench_ledger.py [ENTRIES]` writes, `bench_ledger.py read [ENTRIES]` reads."""
    words = sys.argv[1:]
    reads = words[:1] == ["read"]
    counts = [int(word) for word in words[reads:]]
    with tempfile.TemporaryDirectory() as directory:
        if reads:
            bench_reading(Path(directory), counts[0] if counts else 1_000_000)
        else:
            bench_writing(Path(directory), counts[0] if counts else 20_000)


if __name__ == "__main__":
    main()
