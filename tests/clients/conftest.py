"""The clients' own environments, kept in the user's cache; a server that counts; and `borderpost run` between them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.clients.upstream import Hit, Upstream

HERE = Path(__file__).parent
HOUSE = HERE.parents[1]
WANTED = "BORDERPOST_CLIENTS"
"""Set by `make clients`; without it, these tests are passed over: they install packages."""

RULES = "{version: 1, rules: [{id: all, match: 'ORIGIN/**', allow: true}]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get(WANTED):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="`make clients` runs it"))


def _kept(kind: str, *sources: bytes) -> Path:
    """Where an environment made of `sources` is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "borderpost-clients" / f"{kind}-{hashlib.sha256(b'|'.join(sources)).hexdigest()[:16]}"


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of a virtual environment with what `python.txt` names."""
    wanted = HERE / "python.txt"
    place = _kept("python", wanted.read_bytes(), sys.version.encode())
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "python", "-m", "pip", "install", "-q", "-r", wanted], check=True)
        (place / "ready").touch()
    return place / "bin" / "python"


@pytest.fixture(scope="session")
def node_path() -> Path:
    """The directory of packages that `package.json` names."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no Node.js")
    wanted = HERE / "package.json"
    place = _kept("node", wanted.read_bytes())
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        shutil.copy(wanted, place)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True)
        (place / "ready").touch()
    return place / "node_modules"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path, Path]:
    """TLS for servers on localhost; its authority and its certificate with key, as files."""
    made = trustme.CA()
    directory = tmp_path_factory.mktemp("tls")
    made.cert_pem.write_to_path(str(directory / "ca.pem"))
    leaf = made.issue_cert("localhost", "127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(directory / "leaf.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(tls)
    return tls, directory / "ca.pem", directory / "leaf.pem"


class Run:
    """One `borderpost run`, what it said, and what it recorded."""

    def __init__(self, directory: Path, origin: str, ca: Path, rules: str = RULES) -> None:
        self._directory = directory
        self._origin = origin
        self._places = ["--ledger", str(directory / "ledger.db"), "--confdir", str(directory / "confdir")]
        self._ca = ca
        (directory / "borderpost.yaml").write_text(rules.replace("ORIGIN", origin))

    def __call__(self, *command: object, **environment: str) -> str:
        """What `command` prints, run in an empty directory; it has to end well."""
        done = self._borderpost(
            "--upstream-ca", str(self._ca), "run", "--", *map(str, command), environment=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _borderpost(self, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "npm_", "NPM_"))}
        return subprocess.run(
            [sys.executable, "-m", "cli", *self._places, *arguments],
            capture_output=True,
            text=True,
            cwd=self._directory,
            env=clean | {"PYTHONPATH": str(HOUSE)} | environment,
            timeout=300,
        )

    @property
    def recorded(self) -> list[dict[str, Any]]:
        """The calls in the ledger, oldest first."""
        done = self._borderpost("log", "list", "-n", "100000", "--json", environment={})
        assert done.returncode == 0, done.stderr
        calls: list[dict[str, Any]] = json.loads(done.stdout)
        return calls[::-1]


@pytest.fixture
def upstream(authority: tuple[ssl.SSLContext, Path, Path], tmp_path: Path) -> Iterator[Upstream]:
    (tmp_path / "served").mkdir()
    with Upstream(authority[0], tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(upstream: Upstream, authority: tuple[ssl.SSLContext, Path, Path], tmp_path: Path) -> Run:
    """`borderpost run` with rules that let everything out to `upstream`."""
    (tmp_path / "run").mkdir()
    return Run(tmp_path / "run", upstream.origin, authority[1])


def shown(hits: list[Hit]) -> list[tuple[str, str]]:
    return [(hit.method, hit.path) for hit in hits]
