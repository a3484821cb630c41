"""A whole session of the official MCP client with a server of the official package, under the rules of the pack.

What the server does is what the server counted; the pack's GitHub stands in for it, at another address.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import HERE, HOUSE, Run, Tls

SCRIPT = HERE / "mcp_session.py"
PUBLISHED = '"https://api.githubcopilot.com/mcp/**"'


def rules_at(origin: str) -> str:
    """The pack's tools and example rules, with GitHub's server at `origin`."""
    pack = (HOUSE / "rules" / "packs" / "mcp.yaml").read_text(encoding="utf-8")
    assert PUBLISHED in pack
    return pack.partition("\ntests:\n")[0].replace(PUBLISHED, f"{origin}/mcp")


@pytest.mark.parametrize(
    ("form", "mode", "opening"),
    [
        ("json", "auto", ["POST", "POST"]),
        ("events", "auto", ["POST", "POST"]),
        ("json", "legacy", ["DELETE", "GET", "POST", "POST", "POST"]),
        ("events", "legacy", ["DELETE", "GET", "POST", "POST", "POST"]),
    ],
)
def test_a_session_does_each_thing_once(
    form: str, mode: str, opening: list[str], python: Path, tls: Tls, tmp_path: Path
) -> None:
    with subprocess.Popen([python, SCRIPT, "serve", form], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        run = Run(tmp_path / "run", f"http://127.0.0.1:{port}", tls[0], rules_at(f"http://127.0.0.1:{port}"))
        said = [json.loads(line) for line in run(python, SCRIPT, "talk", port, mode).splitlines()]
        server.kill()
        reached = server.stdout.read().splitlines()

    listed, *told = said
    assert listed == ["tools/list", False, ["delete_file", "issue_write", "list_issues"]]
    assert [(name, failed) for name, failed, _ in told] == [
        ("list_issues", False),
        ("list_issues", False),
        ("issue_write", False),
        ("issue_write", False),
        ("issue_write", False),
        ("issue_write", True),
        ("list_issues", True),
        ("delete_file", True),
    ]
    assert [text for _, _, text in told[2:5]] == ["opened #1", "opened #1", "opened #2"]
    assert "`mcp-github-open`" in told[5][2]
    assert '`args.owner` to be one of ["acme"]' in told[6][2]
    assert "Deleting is not permitted" in told[7][2]
    assert reached == [
        "list_issues acme",
        "list_issues acme",
        "issue_write create It breaks",
        "issue_write create It breaks again",
    ]
    calls = [(call["tool"], call["decision"]) for call in run.recorded if call["tool"] != "mcp.github.session"]
    assert calls == [
        ("mcp.github.list_issues", "allow"),
        ("mcp.github.list_issues", "allow"),
        ("mcp.github.issue_write", "allow"),
        ("mcp.github.issue_write", "replay"),
        ("mcp.github.issue_write", "allow"),
        ("mcp.github.issue_write", "deny"),
        ("mcp.github.list_issues", "deny"),
        ("mcp.github.delete_file", "deny"),
    ]
    session = [call for call in run.recorded if call["tool"] == "mcp.github.session"]
    assert {call["decision"] for call in session} == {"allow"}
    assert sorted(call["method"] for call in session) == opening
