"""`.ci/bootstrap`: which interpreter it takes, when it makes a new .venv, and when it has nothing to do.

The interpreters here are scripts that write down how they were called: one that is usable, one that is too old (or
without ensurepip), and one that is found but does not run, as pyenv's shims are.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

BOOTSTRAP = Path(__file__).parents[1] / ".ci" / "bootstrap"

USABLE = """#!/bin/sh
echo "$0 $*" >>"$CALLS"
case "$*" in "-m venv"*)
    rm -rf .venv
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python ;;
esac
"""
OLD = "#!/bin/sh\nexit 1\n"
DEAD = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


class House(msgspec.Struct):
    """A project directory and a home with fake interpreters, on a PATH that has no others."""

    root: Path
    project: Path

    def interpreter(self, place: str, content: str = USABLE) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)

    def bootstrap(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / ".ci" / "bootstrap"],
            env={
                "PATH": f"{self.root}/bin:{self.root}/tools",
                "HOME": f"{self.root}/home",
                "CALLS": f"{self.root}/calls",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def calls(self, word: str) -> list[str]:
        """The interpreters that were called with `word` so far, by their path below the root."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[0].removeprefix(f"{self.root}/") for line in lines if word in line]


@pytest.fixture
def house(tmp_path: Path) -> House:
    project = tmp_path / "project"
    (project / ".ci").mkdir(parents=True)
    shutil.copy(BOOTSTRAP, project / ".ci" / "bootstrap")
    (project / ".ci" / "lock.txt").write_text("click==8.5.1\n")
    (project / "pyproject.toml").write_text("[project]\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "cksum", "cat", "head", "rm", "mkdir", "cp"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    return House(tmp_path, project)


@pytest.mark.parametrize(
    ("interpreters", "taken"),
    [
        pytest.param({"bin/python3": USABLE}, "bin/python3", id="python3 is good enough"),
        pytest.param({"bin/python": USABLE}, "bin/python", id="python alone is good enough"),
        pytest.param({"bin/python3": OLD, "bin/python3.13": USABLE}, "bin/python3.13", id="python3 is too old"),
        pytest.param(
            {"bin/python3.12": DEAD, "bin/python3.14": USABLE}, "bin/python3.14", id="python3.12 is a dead shim"
        ),
        pytest.param(
            {"bin/python3": DEAD, "home/.pyenv/versions/3.11.7/bin/python3": OLD}
            | {"home/.pyenv/versions/3.13.0/bin/python3": USABLE},
            "home/.pyenv/versions/3.13.0/bin/python3",
            id="only pyenv has one, not on PATH",
        ),
        pytest.param(
            {"home/.local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3": USABLE},
            "home/.local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu/bin/python3",
            id="only uv has one, and uv is not there",
        ),
    ],
)
def test_an_interpreter_has_to_run(house: House, interpreters: dict[str, str], taken: str) -> None:
    for place, content in interpreters.items():
        house.interpreter(place, content)
    done = house.bootstrap()
    assert done.returncode == 0, done.stderr
    assert [Path(call).name for call in house.calls("-m venv")] == [Path(taken).name]
    assert (house.root / taken).samefile(house.root / house.calls("-m venv")[0])
    assert len(house.calls("-m pip install")) == 2


def test_pyenv_root_is_searched(house: House) -> None:
    house.interpreter("elsewhere/versions/3.12.1/bin/python3")
    assert house.bootstrap(PYENV_ROOT=f"{house.root}/elsewhere").returncode == 0
    assert house.calls("-m venv") == ["elsewhere/versions/3.12.1/bin/python3"]


def test_no_interpreter_says_in_one_line_what_to_install(house: House) -> None:
    house.interpreter("bin/python3.12", DEAD)
    done = house.bootstrap(PYTHON="python3.12")
    assert done.returncode == 3
    assert done.stderr.startswith("no usable Python found at `python3.12`: install Python 3.12 or later")
    assert done.stderr.count("\n") == 1
    assert not (house.project / ".venv").exists()


def test_a_second_time_there_is_nothing_to_do(house: House) -> None:
    house.interpreter("bin/python3")
    house.bootstrap()
    before = house.calls("-m")
    assert house.bootstrap().stderr == ""
    assert house.calls("-m") == before


def test_a_new_lock_file_is_installed_into_the_same_environment(house: House) -> None:
    house.interpreter("bin/python3")
    house.bootstrap()
    (house.project / ".ci" / "lock.txt").write_text("click==8.5.2\n")
    house.bootstrap()
    assert len(house.calls("-m venv")) == 1
    assert len(house.calls("-m pip install")) == 4


def test_an_environment_that_was_moved_is_made_again(house: House) -> None:
    house.interpreter("bin/python3")
    house.bootstrap()
    house.project = house.project.rename(house.root / "moved")
    house.bootstrap()
    assert len(house.calls("-m venv")) == 2


def test_an_environment_whose_interpreter_is_gone_is_made_again(house: House) -> None:
    house.interpreter("bin/python3")
    house.bootstrap()
    house.interpreter("project/.venv/bin/python", DEAD)
    house.bootstrap()
    assert len(house.calls("-m venv")) == 2


def test_an_install_that_failed_is_tried_again(house: House) -> None:
    house.interpreter("bin/python3", USABLE + 'case "$*" in *"pip install"*) [ -e ready ] ;; esac\n')
    assert house.bootstrap().returncode != 0
    (house.project / "ready").touch()
    assert house.bootstrap().returncode == 0
    assert len(house.calls("-m venv")) == 1
