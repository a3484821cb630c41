"""Globs in rule files: `*` is any text, of agents, runs, and names in protocols."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(glob: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, glob.split("*"))), re.DOTALL)


def glob_fits(glob: str, text: str) -> bool:
    """`*` is any text; everything else is itself."""
    return glob == text or ("*" in glob and _compiled(glob).fullmatch(text) is not None)
