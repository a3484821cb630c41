"""How SDKs react to refusals: the tables of docs/clients.md, measured. What they say is what happens, or this fails."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from tests.clients.conftest import HERE, HOUSE, Run, Tls, node, shown
from tests.clients.upstream import Upstream

DOCS = (HOUSE / "docs" / "clients.md").read_text()

PYTHON = (
    "requests", "httpx", "aiohttp", "stripe", "openai", "anthropic", "boto3", "boto3-s3", "slack_sdk",
    "twilio", "sendgrid", "PyGithub", "notion-client", "gql",
)  # fmt: skip
NODE = (
    "axios", "got", "stripe-node", "openai-node", "@anthropic-ai/sdk", "@aws-sdk", "@slack/web-api", "@octokit/rest",
    "@notionhq/client", "twilio-node",
)  # fmt: skip

RULES = """
version: 1
tools:
  api: {match: ["ORIGIN/**", "ELSEWHERE/**"]REFUSAL}
rules:
  - {id: no-refunds, match: "ORIGIN/denied/**", deny: "Refunds are made by people: ask the finance team."}
  - {id: twice, match: "ORIGIN/duplicate/**", allow: true, dedupe: {window: 1h, on_duplicate: reject}}
  - {id: hourly, match: "ORIGIN/spent/**", allow: true, throttle: 1/h}
  - {id: pace, match: "ORIGIN/pause/**", allow: true, throttle: {rate: 1, per: 5s}}
  - {id: dead, match: "ELSEWHERE/**", allow: true}
  - {id: once, match: "ORIGIN/failing/**", allow: true, dedupe: 1h}
  - {id: rest, match: ["ORIGIN/cut/**", "ORIGIN/cooldown/**"], allow: true}
"""

ROWS = {
    "denied": "`policy-denied`",
    "duplicate": "`duplicate`",
    "spent": "`rate-limited`, room in 1 h",
    "pause": "`rate-limited`, room in 5 s",
    "unreached": "`upstream-failed`, not reached",
    "cut": "`upstream-failed`, broken off",
    "failing": "the API's 500, with `dedupe`",
    "cooldown": "`upstream-cooldown`, 30 s",
}
"""Path -> column of the table."""

TWICE = ("duplicate", "spent", "pause", "cooldown")
"""Where another such call comes before, without retries of its own; the API answers it."""


def rows_of(title: str) -> list[list[str]]:
    """The table whose first line begins with `title`, cell by cell."""
    lines = DOCS[DOCS.index(title) :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def counts() -> dict[str, dict[str, str]]:
    """What the docs say: client -> column -> the cell."""
    (_, *columns), *rows = rows_of("| client | `policy-denied` | ")
    return {
        client: dict(zip(columns, cells, strict=True)) for clients, *cells in rows for client in clients.split(", ")
    }


def texts() -> dict[str, tuple[str, str]]:
    """What the docs say: client -> what is raised, and a pattern of its text."""
    message = " ".join(DOCS[DOCS.index("Blocked by policy (no-refunds)") :].split("\n```")[0].split())
    found: dict[str, tuple[str, str]] = {}
    for clients, raised, text in rows_of("| client | raises | ")[1:]:
        pattern = re.escape(text.strip("`")).replace(r"\.\.\.", ".*").replace("MESSAGE", re.escape(message))
        found |= {client: (raised.strip("`"), pattern) for client in clients.split(", ")}
    return found


def measured(run: Run, upstream: Upstream, *command: object) -> tuple[dict[str, str], str, str]:
    """What came of the refusals, row by row, and what was raised by a denied call, and its text."""
    said = {row: (raised, text) for row, raised, text in map(json.loads, run(*command).splitlines())}
    recorded = run.recorded
    sent = [call for call in recorded if call["outcome"] and call["port"] == upstream.server_port]
    assert [(call["method"], call["path"]) for call in sent] == shown(upstream.hits)
    rows = {row: list(calls) for row, calls in groupby(recorded, lambda call: str(call["path"]).split("/")[1])}
    assert list(said) == list(rows) == list(ROWS)
    cells = {}
    for row, calls in rows.items():
        through = not said[row][0]
        count = len(calls) - (row in TWICE)
        reached = sum(hit.path.startswith(f"/{row}/") or hit.path == f"/{row}" for hit in upstream.hits)
        assert reached == (row in TWICE) + through + {"cut": count, "failing": 1}.get(row, 0), (row, calls)
        cells[ROWS[row]] = f"{count}{', then through' if through else ''}"
    return cells, *said["denied"]


def agrees_with_the_docs(client: str, found: tuple[dict[str, str], str, str]) -> None:
    cells, raised, text = found
    assert cells == counts()[client]
    name, pattern = texts()[client]
    assert raised == name
    assert re.fullmatch(pattern, text, re.DOTALL), text


@pytest.fixture
def elsewhere() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"https://localhost:{free.getsockname()[1]}"


@pytest.fixture
def refusing(upstream: Upstream, tls: Tls, tmp_path: Path, elsewhere: str) -> Callable[[str], Run]:
    """`borderpost run` with the rules that make the rows, told in a dialect where the call does not show one."""

    def make(client: str) -> Run:
        dialect = next((f", refusal: {name}" for name in ("slack", "notion", "github") if name in client.lower()), "")
        rules = RULES.replace("ELSEWHERE", elsewhere).replace("REFUSAL", dialect)
        return Run(tmp_path / "run", upstream.origin, tls[0], rules)

    return make


@pytest.mark.parametrize("client", PYTHON)
def test_python(client: str, python: Path, refusing: Callable[[str], Run], upstream: Upstream, elsewhere: str) -> None:
    command = (python, HERE / "sdks.py", "refused", client, upstream.origin, elsewhere)
    agrees_with_the_docs(client, measured(refusing(client), upstream, *command))


@pytest.mark.parametrize("client", NODE)
def test_node(client: str, refusing: Callable[[str], Run], upstream: Upstream, elsewhere: str) -> None:
    run = refusing(client)
    command = ("node", node(run, "sdks.cjs"), "refused", client, upstream.origin, elsewhere)
    agrees_with_the_docs(client, measured(run, upstream, *command))


def test_every_client_of_the_table_is_measured() -> None:
    assert set(counts()) == {*PYTHON, *NODE}
    assert set(texts()) == {*PYTHON, *NODE, "grpcio"}  # test_rpc.py measures that
