"""The preload: clients that read no proxy variable come here all the same, with real interpreters of both kinds.

A client that went round the proxy would fail: it does not trust the upstream's own certificate.
"""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy import child

RULES = """
version: 1
tools:
  look: "GET|POST {origin}/**"
rules:
  - {id: look, tool: look, allow: true}
"""

NODE = shutil.which("node")

AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get(sys.argv[1] + "/a") as got: print(got.status)
    async with aiohttp.ClientSession(base_url=sys.argv[1]) as session:
        async with session.post("/b", data={"a": "b"}) as got: print(got.status)
asyncio.run(main())
"""

URLLIB3 = """
import sys, urllib3
with urllib3.PoolManager(headers={"x-one": "1"}, timeout=30) as manager:
    print(manager.request("GET", sys.argv[1] + "/a").status)
    print(manager.request("POST", sys.argv[1] + "/b", fields={"a": "b"}, redirect=False).status)
"""

PINNED = """
import certifi, ssl, sys, urllib.request
for bundle in (certifi.where(), None):
    trust = ssl.create_default_context(cafile=bundle)
    with urllib.request.urlopen(sys.argv[1] + "/a", b"{}" if bundle is None else None, context=trust) as got:
        print(got.status)
"""

NOTHING_TRUSTED = """
import ssl, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1] + "/a", context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).status)
"""

FETCH = """
const ask = (path, options) => fetch(process.argv[1] + path, options).then(got => console.log(got.status))
ask('/a').then(() => ask('/b', {method: 'POST', body: '{}'}))
"""

HTTPS = """
const https = require('node:https')
function ask (path, options) {
  return new Promise((resolve, reject) => {
    const asked = https.request(process.argv[1] + path, options, got => {
      got.resume().on('end', () => { console.log(got.statusCode); resolve() })
    })
    asked.on('error', reject).end(options.method === 'POST' ? '{}' : undefined)
  })
}
ask('/a', OPTIONS).then(() => ask('/b', {...OPTIONS, method: 'POST'}))
"""

HTTP2 = """
const session = require('node:http2').connect(process.argv[1])
const ask = (method, path) => new Promise((resolve, reject) => session.request({':method': method, ':path': path})
  .on('response', got => resolve(got[':status'])).on('error', reject).resume().end())
// What nobody waits for any more must not keep the program running.
ask('GET', '/a').then(console.log).then(() => ask('POST', '/b')).then(console.log).then(() => session.unref())
"""

SUBCLASS = """
class Own extends require('node:https').Agent {
  createConnection (options) { const socket = super.createConnection(options); socket.setNoDelay(); return socket }
}
"""

AS_WS = """
function tlsConnect (options) { return require('node:tls').connect({...options, path: undefined}) }
"""


class Preloaded:
    """Programs behind a proxy, in the environment that `run` gives them."""

    def __init__(self, here: Any, directory: Path, **base: str) -> None:
        directory.mkdir(exist_ok=True)
        self.here = here
        self.directory = directory
        base = {"PATH": os.environ["PATH"]} | base
        changes = child.prepare(directory, base, here.proxy_url, here.proxy.ca_path.read_bytes())
        self.environment = changes.applied(base)

    async def run(self, *command: str, **more: str) -> tuple[list[str], str]:
        """What `command` prints, and what it complains about."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment | more,
        )
        out, complaints = await asyncio.wait_for(process.communicate(), 60)
        return out.decode().splitlines(), complaints.decode()

    @property
    def reached(self) -> list[tuple[str, str]]:
        return [(hit.method, hit.target) for hit in self.here.upstream.hits]


@pytest.fixture
async def preloaded(world: Any, tmp_path: Path) -> Preloaded:
    return Preloaded(await world(RULES), tmp_path / "with space")


# --- Python ---


@pytest.mark.parametrize("program", [AIOHTTP, URLLIB3, PINNED], ids=["aiohttp", "urllib3", "pinned-bundle"])
async def test_a_python_client_that_reads_no_variable_comes_through(preloaded: Preloaded, program: str) -> None:
    lines, complaints = await preloaded.run(sys.executable, "-W", "error", "-c", program, preloaded.here.origin)
    assert (lines, complaints) == (["200", "200"], "")
    assert preloaded.reached == [("GET", "/a"), ("POST", "/b" if program is not PINNED else "/a")]
    assert preloaded.here.proxy.counts == {"allow": 2}
    assert child.failures(preloaded.directory) == []


@pytest.mark.parametrize(
    ("flags", "variables"), [(["-I"], {}), (["-S"], {}), ([], {"BORDERPOST_NO_PRELOAD": "1"})], ids=["-I", "-S", "off"]
)
async def test_it_can_be_turned_off(preloaded: Preloaded, flags: list[str], variables: dict[str, str]) -> None:
    program = "import urllib3, sys; urllib3.PoolManager(retries=False).request('GET', sys.argv[1] + '/a')"
    places = {"PYTHONPATH": preloaded.environment["PYTHONPATH"] + os.pathsep + os.pathsep.join(sys.path)}
    program = f"import sys; sys.path += {sys.path!r}; {program}"
    _, complaints = await preloaded.run(
        sys.executable, *flags, "-c", program, preloaded.here.origin, **places, **variables
    )
    assert "CERTIFICATE_VERIFY_FAILED" in complaints, "it went to the upstream itself"
    assert preloaded.here.proxy.counts == {}


async def test_a_sitecustomize_of_the_users_own_still_runs(world: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("MINE = 1\nprint('hello')\n")
    preloaded = Preloaded(await world(RULES), tmp_path / "run", PYTHONPATH=str(tmp_path / "theirs"))
    lines, complaints = await preloaded.run(sys.executable, "-c", "import sitecustomize; print(sitecustomize.MINE)")
    assert (lines, complaints) == (["hello", "1"], "")
    (tmp_path / "theirs" / "sitecustomize.py").write_text("raise ValueError('of theirs')\n")
    lines, complaints = await preloaded.run(sys.executable, "-c", "print('started')")
    assert lines == ["started"] and "ValueError: of theirs" in complaints


async def test_a_run_within_a_run_starts_once(preloaded: Preloaded, tmp_path: Path) -> None:
    inner = Preloaded(preloaded.here, tmp_path / "inner", **preloaded.environment)
    lines, complaints = await inner.run(sys.executable, "-c", "import _borderpost; print(_borderpost.__file__)")
    assert (lines, complaints) == ([str(tmp_path / "inner" / "preload" / "python" / "_borderpost.py")], "")


async def test_what_it_cannot_do_is_written_down_and_the_program_runs(preloaded: Preloaded) -> None:
    (preloaded.directory / "preload" / "ca.pem").unlink()
    lines, complaints = await preloaded.run(sys.executable, "-c", "import ssl; print('started')")
    assert (lines, complaints) == (["started"], "")
    (failure,) = child.failures(preloaded.directory)
    version = ".".join(map(str, sys.version_info[:3]))
    assert failure.startswith(f"python {version}: ssl: FileNotFoundError: ")


async def test_a_server_does_not_come_to_trust_clients_of_ours(preloaded: Preloaded) -> None:
    program = """
import ssl
def count(protocol, **side):
    context = ssl.SSLContext(protocol); context.verify_mode = ssl.CERT_REQUIRED
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), **side); print(len(context.get_ca_certs()))
count(ssl.PROTOCOL_TLS_SERVER, server_side=True)
count(ssl.PROTOCOL_TLS_CLIENT, server_hostname="a")
"""
    lines, _ = await preloaded.run(sys.executable, "-W", "error", "-c", program)
    assert lines == ["0", "1"]


def pythons() -> list[str]:
    """Other Pythons of this machine, old ones too."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    on_path = [shutil.which(f"python{version}") for version in ("2.7", *(f"3.{minor}" for minor in range(6, 16)))]
    return sorted({*map(str, root.glob("*/bin/python")), *filter(None, on_path)})


@pytest.mark.parametrize("python", pythons() or [sys.executable])
async def test_every_python_starts_in_silence(preloaded: Preloaded, python: str) -> None:
    lines, complaints = await preloaded.run(python, "-c", "import ssl, sys; print(sys.version_info >= (3, 8))")
    assert lines in (["True"], ["False"]) or "No module named" in complaints or "not found" in complaints
    assert "sitecustomize" not in complaints
    assert child.failures(preloaded.directory) == []
    if lines == ["True"]:
        assert await preloaded.run(python, "-c", NOTHING_TRUSTED, preloaded.here.origin) == (["200"], "")


@pytest.mark.parametrize("name", ["sitecustomize", "_borderpost"])
def test_python_3_8_can_read_it(name: str) -> None:
    ast.parse((child.PRELOAD / "python" / f"{name}.py").read_text(), feature_version=(3, 8))


# --- Node.js ---


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FETCH, id="fetch"),
        pytest.param(HTTPS.replace("OPTIONS", "{}"), id="https"),
        pytest.param(
            HTTPS.replace("OPTIONS", "{agent: new https.Agent({keepAlive: true, maxSockets: 1})}"), id="agent"
        ),
        pytest.param(HTTPS.replace("OPTIONS", "{agent: false}"), id="no-agent"),
        pytest.param(HTTPS.replace("OPTIONS", "{ca: require('node:tls').rootCertificates[0]}"), id="own-ca"),
        pytest.param(AS_WS + HTTPS.replace("OPTIONS", "{createConnection: tlsConnect}"), id="as-ws"),
        pytest.param(HTTP2, id="http2"),
        pytest.param(SUBCLASS + HTTPS.replace("OPTIONS", "{agent: new Own()}"), id="subclass"),
    ],
)
async def test_a_node_client_that_reads_no_variable_comes_through(preloaded: Preloaded, program: str) -> None:
    assert NODE is not None
    lines, complaints = await preloaded.run(NODE, "-e", program, preloaded.here.origin)
    assert (lines, complaints) == (["200", "200"], "")
    assert preloaded.reached == [("GET", "/a"), ("POST", "/b")]
    assert preloaded.here.proxy.counts == {"allow": 2}
    assert child.failures(preloaded.directory) == []


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
async def test_node_options_are_extended_and_no_proxy_holds_if_the_program_sets_it(world: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs.cjs").write_text("console.log('theirs')")
    preloaded = Preloaded(await world(RULES), tmp_path / "run", NODE_OPTIONS=f"--require {tmp_path}/theirs.cjs")
    assert NODE is not None
    program = "process.env.NO_PROXY = 'localhost'; fetch(process.argv[1]).catch(e => console.log(e.cause.code))"
    lines, _ = await preloaded.run(NODE, "-e", program, preloaded.here.origin)
    assert lines[0] == "theirs" and lines[1] in ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "SELF_SIGNED_CERT_IN_CHAIN")
    assert preloaded.here.proxy.counts == {}


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
async def test_node_starts_although_the_preload_fails(preloaded: Preloaded) -> None:
    assert NODE is not None
    (preloaded.directory / "preload" / "ca.pem").unlink()
    assert await preloaded.run(NODE, "-e", "console.log('started')") == (["started"], "")
    (failure,) = child.failures(preloaded.directory)
    assert failure.startswith("node ") and ": start: Error: ENOENT" in failure
