"""docs/first-hour.md, walked as a newcomer would: from an empty directory, each file saved and each command typed.

Times, numbers and ids are others each time. Where the page names one in a command, the one that was printed in its
place is meant; whatever else is printed has to be what the page shows, word by word.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.report.explained import show
from tests.test_docs import EXAMPLES, Example, commands

PAGE = "docs/first-hour.md"
PORT = "8099"
CHANGING = re.compile(
    r"(?P<seq>^ *\d+(?=  \d\d:\d\d:\d\d ))|(?P<time>\d\d:\d\d:\d\d)|(?P<left>\d+ min)|"
    r"(?P<run>\br_[0-9a-z]{26})|(?P<call>\bc_[0-9a-z]{26})|(?P<ticket>\ba_[0-9a-f]{8})",
    re.MULTILINE,
)
"""What is another each time."""

HERE = [example for example in EXAMPLES if example.page == PAGE]


def free_port() -> int:
    with closing(socket.create_server(("localhost", 0))) as listening:
        port: int = listening.getsockname()[1]
    return port


def neutral(text: str) -> str:
    """`text` with the name of its kind in place of everything that changes, and its columns as wide as they may be."""
    return re.sub(r" +", " ", CHANGING.sub(lambda found: f"<{found.lastgroup}>", text)).strip() + "\n"


def meant(shown: str, printed: str) -> dict[str, str]:
    """What stands in `printed` where the page shows its own times, numbers and ids."""
    pairs = zip(CHANGING.finditer(shown), CHANGING.finditer(printed), strict=False)
    return {ours[0].strip(): theirs[0].strip() for ours, theirs in pairs}


class Newcomer:
    """Somebody in an empty directory, who does what the page says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = str(free_port())
        self.known: dict[str, str] = {}
        self.running: list[subprocess.Popen[bytes]] = []
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        unset = ("BORDERPOST_", "COLUMNS", "PYTHONPATH")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        self.environment |= {
            "PATH": scripts, "HOME": str(directory / "home"), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "",
        }  # fmt: skip

    def save(self, example: Example) -> None:
        (name,) = re.findall(r"\A# (\S+)\n", example.text)
        path = self.directory / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.text.replace(PORT, self.port))

    def type(self, words: list[str], shown: str) -> None:
        line = shlex.join(self.known.get(word, word) for word in words).replace(PORT, self.port)
        work = self.directory / "work"
        if words[-1] == "&":
            self.running.append(subprocess.Popen(words[:-1], cwd=work, env=self.environment))
            self.wait_for_shop()
            return
        done = subprocess.run(
            ["sh", "-c", f"{line} 2>&1"], cwd=work, env=self.environment, stdout=subprocess.PIPE, text=True, timeout=60
        )
        printed = done.stdout.replace(self.port, PORT)
        checker = doctest.OutputChecker()
        same = checker.check_output(neutral(shown), neutral(printed), doctest.ELLIPSIS)
        assert same, f"{line}\nprints\n{printed}\ninstead of\n{shown}"
        self.known |= meant(shown, printed)

    def wait_for_shop(self) -> None:
        while True:
            try:
                socket.create_connection(("localhost", int(self.port))).close()
            except OSError:
                assert self.running[-1].poll() is None, "the shop has ended"
                time.sleep(0.02)
            else:
                return


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    somebody = Newcomer(tmp_path)
    yield somebody
    for process in somebody.running:
        process.kill()
        process.wait()


def test_the_first_hour_goes_as_the_page_says(newcomer: Newcomer) -> None:
    for example in HERE:
        if example.language in ("python", "yaml"):
            newcomer.save(example)
        elif example.language == "console":
            for words, shown in commands(example):
                newcomer.type(words, shown)


def test_another_answer_is_seen(newcomer: Newcomer) -> None:
    newcomer.type(["borderpost", "rules", "explain", "policy-denied"], show("policy-denied") or "")
    with pytest.raises(AssertionError, match="instead of"):
        newcomer.type(["borderpost", "rules", "explain", "policy-denied"], show("halted") or "")
