"""Which Python and Node.js a command would run with."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.doctor.find import Interpreter, interpreters


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs that are on PATH, and a virtual environment that is not."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "venv").mkdir()
    texts = {
        "bin/python3": "",
        "bin/node": "",
        "bin/uv": "",
        "bin/agent": f"#!{tmp_path}/venv/python -sE\n",
        "bin/script": "#!/usr/bin/env python3\n",
        "bin/tool": "#!/usr/bin/env node\n",
        "bin/shell": "#!/bin/sh\n",
        "venv/python": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    return tmp_path


CASES = {
    "nothing is named": ([], ["python3", "node"]),
    "a Python by its path": (["{}/venv/python", "agent.py"], ["{}/venv/python", "node"]),
    "its options count": (["python3", "-u", "-I", "-S", "x.py", "-E"], ["python3 -I -S", "node"]),
    "options with a value end them": (["python3", "-W", "error", "-I", "x.py"], ["python3", "node"]),
    "a script of a virtual environment": (["agent"], ["{}/venv/python -sE", "node"]),
    "a script that asks env": (["script"], ["python3", "node"]),
    "a tool of Node.js": (["tool"], ["node", "python3"]),
    "a shell script": (["shell"], ["python3", "node"]),
    "uv run": (["uv", "run", "agent.py"], ["uv run python", "node"]),
    "no such program": (["nowhere"], ["python3", "node"]),
}


@pytest.mark.parametrize(("command", "found"), CASES.values(), ids=list(CASES))
def test_the_interpreters_of(command: list[str], found: list[str], programs: Path) -> None:
    words = [word.replace("{}", str(programs)) for word in command]
    got = interpreters(words, {"PATH": str(programs / "bin")})
    assert [one.shown.replace(f"{programs}/bin/", "") for one in got] == [
        one.replace("{}", str(programs)) for one in found
    ]


def test_where_there_is_nothing_nothing_is_found(tmp_path: Path) -> None:
    assert interpreters(["x"], {"PATH": str(tmp_path)}) == []
    assert Interpreter("node", ("a",), "a").kind == "node"
