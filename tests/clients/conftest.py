"""A server that counts, `borderpost run` between it and the clients, and their own environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.clients import environments
from tests.clients.upstream import Hit, Upstream

HERE = Path(__file__).parent
HOUSE = HERE.parents[1]
WANTED = "BORDERPOST_CLIENTS"
"""Set by `make clients` to `all` or `short`; without it, these tests are passed over: they install packages."""

RULES = "{version: 1, rules: [{id: all, match: ['ORIGIN/**', 'SOCKETS/**'], allow: true}]}"

type Tls = tuple[Path, Path]
"""An authority, and a certificate of it with its key."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = os.environ.get(WANTED)
    for item in items:
        if HERE in item.path.parents and (not wanted or (wanted == "short" and item.get_closest_marker("long"))):
            item.add_marker(pytest.mark.skip(reason="`make clients` runs it"))


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of the clients' environment."""
    return environments.python()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """TLS for servers on localhost."""
    made = trustme.CA()
    directory = tmp_path_factory.mktemp("tls")
    made.cert_pem.write_to_path(str(directory / "ca.pem"))
    leaf = made.issue_cert("localhost", "127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(directory / "leaf.pem"))
    return directory / "ca.pem", directory / "leaf.pem"


class Run:
    """One `borderpost run`, what it said, and what it recorded."""

    def __init__(self, directory: Path, origin: str, ca: Path, rules: str = RULES) -> None:
        directory.mkdir()
        self.directory = directory
        self._places = ["--ledger", str(directory / "ledger.db"), "--confdir", str(directory / "confdir")]
        self._ca = ca
        sockets = origin.replace("https", "wss")
        (directory / "borderpost.yaml").write_text(rules.replace("ORIGIN", origin).replace("SOCKETS", sockets))

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
            cwd=self.directory,
            env=clean | {"PYTHONPATH": str(HOUSE)} | environment,
            timeout=300,
        )

    @property
    def recorded(self) -> list[dict[str, Any]]:
        """The calls in the ledger, oldest first."""
        calls: list[dict[str, Any]] = self._log("list", "-n", "100000")
        return calls[::-1]

    def details(self, call: str) -> Any:
        """All that the ledger has about one call."""
        return self._log("show", call)

    def _log(self, *arguments: str) -> Any:
        done = self._borderpost("log", *arguments, "--json", environment={})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def node(run: Run, script: str) -> Path:
    """A script of this directory, put beside the packages of Node.js; skips the test where they cannot be had."""
    try:
        packages = environments.node()
    except environments.Unreachable as error:
        pytest.skip(str(error))
    (run.directory / "node_modules").symlink_to(packages)
    return Path(shutil.copy(HERE / script, run.directory))


@pytest.fixture
def upstream(request: pytest.FixtureRequest, tls: Tls, tmp_path: Path) -> Iterator[Upstream]:
    """With HTTP/1.1; a test that is parametrized with `upstream` says what else it speaks."""
    (tmp_path / "served").mkdir()
    with Upstream(tls[1], tmp_path / "served", getattr(request, "param", ("http/1.1",))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(upstream: Upstream, tls: Tls, tmp_path: Path) -> Run:
    """`borderpost run` with rules that let everything out to `upstream`."""
    return Run(tmp_path / "run", upstream.origin, tls[0])


def shown(hits: list[Hit]) -> list[tuple[str, str]]:
    return [(hit.method, hit.path) for hit in hits]
