"""Writing rule files that somebody watches."""

from __future__ import annotations

from pathlib import Path


def save(path: Path, text: str) -> None:
    """Write as editors do: nobody ever sees half of it."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)
