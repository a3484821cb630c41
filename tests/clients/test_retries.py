"""How often SDKs try after a refusal, and what the program sees: the table of docs/clients.md, measured again."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.conftest import HERE, HOUSE, Run
from tests.clients.upstream import Upstream

CLIENTS = ("requests", "httpx", "aiohttp", "stripe", "openai", "anthropic", "boto3")

ALLOW = "{id: all, match: 'ORIGIN/**', allow: true}"
ROWS: Mapping[str, str] = {
    "403 `policy-denied`": "{id: no-refunds, match: 'ORIGIN/**', deny: 'Refunds are made by people.'}",
    "429 `rate-limited`, room in an hour": "{id: all, match: 'ORIGIN/**', allow: true, throttle: 1/h}",
    "429 `rate-limited`, room in 3 s (`Retry-After: 3`)": (
        "{id: all, match: 'ORIGIN/**', allow: true, throttle: {rate: 1, per: 3s}}"
    ),
    "502 `upstream-failed`, not reached": ALLOW,
    "the API's 500 to a call with `dedupe`": "{id: all, match: 'ORIGIN/**', allow: true, dedupe: 1h}",
}
"""Row of the table -> the rule that makes it."""

USES_UP = ("429 `rate-limited`, room in an hour", "429 `rate-limited`, room in 3 s (`Retry-After: 3`)")
"""Rows where another call has to come before."""


def table() -> dict[tuple[str, str], str]:
    """What the docs say: (row, client) -> the cell."""
    text = (HOUSE / "docs" / "clients.md").read_text()
    lines = text[text.index("| refusal | requests, httpx, aiohttp |") :].split("\n\n")[0].splitlines()
    titles = [title.strip() for title in lines[0].strip("|").split("|")]
    found = {}
    for line in lines[2:]:
        row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for title, cell in zip(titles[1:], cells, strict=True):
            for client in title.split(", "):
                found[row, client.partition(" ")[0]] = cell
    return found


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("client", CLIENTS)
def test_how_often(
    client: str, row: str, python: Path, authority: tuple[object, Path, Path], upstream: Upstream
) -> None:
    said = table()[row, client]
    origin = upstream.origin
    if row.startswith("502"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            origin = f"https://localhost:{free.getsockname()[1]}"
    upstream.failing = row.startswith("the API's 500")
    directory = upstream.directory.parent / "run"
    directory.mkdir()
    run = Run(directory, origin, authority[1], "{version: 1, rules: [RULE]}".replace("RULE", ROWS[row]))
    earlier = ["sh", "-c", f'curl -sS -o /dev/null -d a=1 {origin}/first; exec "$0" "$@"'] if row in USES_UP else []
    name, text = json.loads(run(*earlier, python, HERE / "retries.py", client, origin))
    calls = [call for call in run.recorded if call["path"] != "/first"]
    through = not name
    counts = re.findall(r"\d+", re.sub(r", after.*", "", said))
    assert (str(len(calls)) in counts, through) == (True, "then through" in said), (len(calls), name, text)
    assert len([hit for hit in upstream.hits if hit.path != "/first"]) == (1 if through or upstream.failing else 0)
    if row.startswith("403"):
        assert "no-refunds" in text or "Refunds are made by people" in text
