"""Ids of calls and runs: sortable by time, so that an index on them grows at its end only."""

from __future__ import annotations

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, lower case: no i, l, o or u, which are misread."""

_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]

RANDOM_BYTES = 10
TIME_BITS = 48
DIGITS = 26


def new_id(now_ns: int, random_bytes: bytes, prefix: str = "c") -> str:
    """An id such as `c_01k9...`: milliseconds since the epoch, then 80 random bits, in 26 digits (as a ULID).

    `prefix` is `c` for a call, `r` for a run. `random_bytes` has 10 bytes, from a cryptographic source.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"an id takes {RANDOM_BYTES} random bytes, not {len(random_bytes)}")
    number = (now_ns // 1_000_000 & (1 << TIME_BITS) - 1) << 80 | int.from_bytes(random_bytes)
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(5 * (DIGITS - 2), -1, -10)]
    return f"{prefix}_{''.join(pairs)}"
