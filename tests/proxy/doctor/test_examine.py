"""`doctor` with real clients: those of this Python and Node.js, and programs that behave in every way there is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from proxy.child import ChildError
from proxy.doctor.examine import Diagnosis, Verdict, examine

CURL = shutil.which("curl")
NODE = shutil.which("node")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    (tmp_path / "confdir").mkdir(mode=0o700)
    return tmp_path / "confdir"


def verdicts(diagnosis: Diagnosis) -> dict[str, Verdict]:
    return {finding.client: finding.verdict for finding in diagnosis.findings}


PYTHON_CLIENTS = ["aiohttp", "httpx", "httpx, HTTP/2", "httpx2", "pip", "requests", "urllib", "urllib3"]


async def test_every_python_client_comes_through(path: Path, confdir: Path) -> None:
    told: list[tuple[int, int]] = []
    found = await examine(
        confdir, [sys.executable, "x.py"], preload=True, tell=lambda done, total: told.append((done, total))
    )
    assert verdicts(found) == dict.fromkeys(PYTHON_CLIENTS, "through"), found
    assert found.well and found.failures == ()
    assert told == [(done, len(PYTHON_CLIENTS)) for done in range(1, len(PYTHON_CLIENTS) + 1)]
    assert all(finding.version for finding in found.findings if finding.client not in ("pip", "urllib"))
    assert {finding.fix for finding in found.findings} == {""}


@pytest.mark.parametrize(("flags", "preload"), [(["-I"], True), ([], False)], ids=["python -I", "--no-preload"])
async def test_those_that_need_the_preload_go_round_without_it(
    path: Path, confdir: Path, flags: list[str], preload: bool
) -> None:
    found = await examine(confdir, [sys.executable, *flags, "x.py"], preload=preload)
    round_ = {"aiohttp", "urllib3"}
    assert {name for name, verdict in verdicts(found).items() if verdict == "goes round"} == round_
    assert {name for name, verdict in verdicts(found).items() if verdict == "through"} == set(PYTHON_CLIENTS) - round_
    assert not found.well
    fixes = {finding.client: finding.fix for finding in found.findings if finding.fix}
    assert all(("without -I" if flags else "leave `--no-preload` out") in fix for fix in fixes.values())
    assert "trust_env=True" in fixes["aiohttp"]


@pytest.mark.skipif(NODE is None, reason="there is no Node.js")
@pytest.mark.parametrize("preload", [True, False])
async def test_node(path: Path, confdir: Path, preload: bool) -> None:
    assert NODE is not None
    (path / "node").symlink_to(NODE)
    found = verdicts(await examine(confdir, [], preload=preload))
    assert set(found) == {"fetch", "node:https", "https.Agent"}
    assert found["https.Agent"] == ("through" if preload else "goes round"), "no Node.js does this by itself"
    assert not preload or set(found.values()) == {"through"}


BEHAVING: dict[str, tuple[str, Verdict]] = {
    "comes": ('exec {curl} "$@"', "through"),
    "comes, and likes no answer": ('{curl} "$@"; echo "could not resolve host" >&2; exit 1', "through"),
    "trusts nothing": ('exec {curl} --cacert /dev/null "$@"', "TLS refused"),
    "goes by itself": ("exec {curl} --noproxy '*' \"$@\"", "goes round"),
    "does nothing": ("exit 0", "unclear"),
    "breaks": ("echo broken >&2; exit 3", "unclear"),
}


@pytest.mark.skipif(CURL is None, reason="there is no curl")
@pytest.mark.parametrize(("script", "verdict"), BEHAVING.values(), ids=list(BEHAVING))
async def test_a_program_that(script: str, verdict: Verdict, path: Path, confdir: Path) -> None:
    (path / "curl").write_text("#!/bin/sh\n" + script.format(curl=CURL) + "\n")
    (path / "curl").chmod(0o700)
    found = await examine(confdir, [], preload=True)
    assert verdicts(found) == {"curl": verdict}, found
    assert found.well == (verdict == "through") == (found.findings[0].fix == "")
    assert not script.startswith("echo broken") or "broken" in found.findings[0].error


async def test_an_interpreter_that_does_not_start_is_no_good_news(path: Path, confdir: Path) -> None:
    (path / "python3").write_text("#!/bin/sh\necho cannot >&2\nexit 1\n")
    (path / "python3").chmod(0o700)
    found = await examine(confdir, ["python3", "agent.py"], preload=True)
    assert verdicts(found) == {"python": "unclear"} and not found.well
    assert found.findings[0].error == "cannot" and "Python 3.8 or later" in found.findings[0].fix


async def test_the_clients_of_a_program_that_is_not_there_are_not_guessed(path: Path, confdir: Path) -> None:
    with pytest.raises(ChildError, match="cannot run `agnet`: no such program"):
        await examine(confdir, ["agnet"], preload=True)


@pytest.mark.skipif(CURL is None, reason="there is no curl")
def test_what_people_see_of_it(path: Path, confdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    (path / "curl").write_text(f"#!/bin/sh\nexec {CURL} --noproxy '*' \"$@\"\n")
    (path / "curl").chmod(0o700)
    done = CliRunner().invoke(cli.cli, ["--confdir", str(confdir), "doctor"], obj={})
    assert done.exit_code == 1
    assert [" ".join(line.split()) for line in done.output.splitlines()] == [
        "CLIENT VERSION RUNS IN COMES",
        f"curl {path / 'curl'} goes round",
        "",
        "curl, goes round: do not use it, or have `borderpost run --isolated` stop it",
        "1 client: 1 not through",
    ]
