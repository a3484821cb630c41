"""`rules import`: the files and options around the pure import of what an API says of itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from rules.openapi.tools import Imported, Options, tools_of
from rules.vocabulary import NAME

SIZE_CAP_BYTES = 256 * 1024 * 1024


class ImportingError(Exception):
    """It can not be done as asked. The text is one line."""


def checked(prefix: str, only: tuple[str, ...], server: str, params: bool) -> Options:
    """The options as the import takes them."""
    if prefix and not re.fullmatch(NAME, prefix):
        raise ImportingError(f"`{prefix}` can not begin the name of a tool: use letters, digits, `.`, `_` and `-`")
    if server and not re.match(r"https?://[^/]", server):
        raise ImportingError(f"`{server}` is no URL: write `https://HOST/PATH`")
    return Options(prefix=prefix.rstrip("."), only=only, server=server, params=params)


def check_output(output: Path | None, force: bool) -> None:
    """Nothing is overwritten unasked: somebody may have made the file their own."""
    if output is not None and output.exists() and not force:
        raise ImportingError(f"`{output}` is there already: name another file, or overwrite it with `--force`")


def read(document: Path, options: Options, tell: Callable[[int, int], None]) -> Imported:
    """The import of the file `document`; `-` is standard input."""
    raw = sys.stdin.buffer.read(SIZE_CAP_BYTES + 1) if str(document) == "-" else document.read_bytes()
    if len(raw) > SIZE_CAP_BYTES:
        raise ImportingError(f"`{document}` is larger than {SIZE_CAP_BYTES // 1024 // 1024} MiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ImportingError(f"`{document}` is not UTF-8") from None
    return tools_of(text, document.name, options, tell)


def write(output: Path, text: str) -> None:
    """Write the tools into `output`, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    new = output.with_name(f"{output.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(output)
