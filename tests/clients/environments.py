"""The clients' own environments: made of `python.txt` and `package.json` once, and kept in the user's cache.

A registry may be slow, or gone for a moment: installing is tried several times, as far as patience goes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PYTHON_PATIENCE_S = 600
NODE_PATIENCE_S = 240
PAUSE_S = 5
TRIES = 5
OLDEST_NODE = 20


class Unreachable(Exception):
    """The registry of npm gives no answer, or there is no Node.js to ask it."""


def python() -> Path:
    """The Python of a virtual environment with what `python.txt` names."""
    wanted = HERE / "python.txt"

    def make(place: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip: list[str | Path] = [
            place / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-compile",
        ]
        _patiently([*pip, "--timeout", "60", "-r", wanted], place, PYTHON_PATIENCE_S)

    return _made("python", make, wanted.read_bytes(), sys.version.encode()) / "bin" / "python"


def node() -> Path:
    """The directory `node_modules` with what `package.json` names. Raises Unreachable."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise Unreachable("there is no Node.js")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version[1:].partition(".")[0]) < OLDEST_NODE:
        raise Unreachable(f"Node.js {version} is older than {OLDEST_NODE}, which the packages need")
    wanted = HERE / "package.json"

    def make(place: Path) -> None:
        place.mkdir(parents=True)
        shutil.copy(wanted, place)
        npm: list[str | Path] = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        _patiently([*npm, "--fetch-timeout=60000", "--fetch-retry-mintimeout=1000"], place, NODE_PATIENCE_S)

    return _made("node", make, wanted.read_bytes()) / "node_modules"


def _made(kind: str, make: Callable[[Path], None], *sources: bytes) -> Path:
    """Where the environment made of `sources` is; made now if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "borderpost-clients"
    place = cache / f"{kind}-{hashlib.sha256(b'|'.join(sources)).hexdigest()[:16]}"
    with _alone(cache, kind):
        if not (place / "ready").exists():
            shutil.rmtree(place, ignore_errors=True)
            make(place)
            (place / "ready").touch()
    return place


@contextmanager
def _alone(cache: Path, kind: str) -> Iterator[None]:
    """One process at a time makes a kind; the others wait for it."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


UNREACHED = ("ETIMEDOUT", "ECONNRE", "ENOTFOUND", "EAI_AGAIN", "ENETUNREACH", "ERR_SOCKET_TIMEOUT", "FETCH_ERROR")
"""What npm says when there is no registry to talk to."""


def _patiently(command: list[str | Path], directory: Path, patience_s: float) -> None:
    """Run an installer until it succeeds. Raises Unreachable where npm reaches nothing, RuntimeError for all else."""
    end, said = time.monotonic() + patience_s, ""
    for _ in range(TRIES):
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=max(1, end - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = f"it took longer than {patience_s} s: ETIMEDOUT"
            break
        if done.returncode == 0:
            return
        said = done.stderr
        time.sleep(PAUSE_S)
    if command[0] == "npm" and any(code in said for code in UNREACHED):
        raise Unreachable(f"npm reaches no registry ({said.strip().splitlines()[0]})")
    raise RuntimeError(f"cannot install the clients: {said}")


if __name__ == "__main__":
    python()
    try:
        node()
    except Unreachable as error:
        sys.stderr.write(f"{error}: the clients of Node.js are left out\n")
