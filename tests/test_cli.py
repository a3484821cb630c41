"""The command line as a whole: options in every place, exit codes, and that no traceback reaches a user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cli
from proxy.agents import Agents
from proxy.cli.group import Borderpost
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.report.people import list_agents
from tests.proxy.ledger.samples import refusal

HOUSE = Path(__file__).parents[1]
RULES = "version: 1\nrules: [{id: read, match: GET https://api.example.com/**, allow: true}]\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a directory of its own, and touches nobody's ledger or keys."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BORDERPOST_CONFDIR", str(tmp_path / "confdir"))
    monkeypatch.setenv("BORDERPOST_LEDGER", str(tmp_path / "ledger.db"))


def borderpost(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost")


def program(*arguments: str, script: str = "") -> subprocess.CompletedProcess[str]:
    """The program in a process of its own; with `script`, that Python text instead."""
    command = [sys.executable, "-c", script] if script else [sys.executable, "-m", "cli"]
    environment = os.environ | {"PYTHONPATH": str(HOUSE), "NO_COLOR": "1"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, errors="replace", env=environment, timeout=60
    )


def commands(command: click.Command, name: str = "borderpost") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from commands(each, f"{name} {inner}")


COMMANDS = dict(commands(cli.cli))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    for flag in ("--help", "-h"):
        result = borderpost(*name.split()[1:], flag)
        assert result.exit_code == 0
        assert result.output.startswith(f"Usage: {name} ")
    for param in COMMANDS[name].params:
        if isinstance(param, click.Option):
            assert param.help, f"{param.name} says what it is"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    page = (HOUSE / "docs" / "cli.md").read_text()
    assert f"`{name}" in page
    options = {option for param in COMMANDS[name].params for option in param.opts if option.startswith("--")}
    assert {option for option in options if f"`{option}" not in page and f" {option}" not in page} == {
        "--help"
    } & options


def test_every_command_that_answers_does_so_in_json_too() -> None:
    """All but those that run something, ask, or print a file anyway."""
    without = {
        name.removeprefix("borderpost ")
        for name, command in COMMANDS.items()
        if not isinstance(command, click.Group) and not any("--json" in param.opts for param in command.params)
    }
    assert without == {"run", "serve", "init", "demo", "rules schema", "rules import"}


def test_the_version_is_told() -> None:
    assert borderpost("--version").output == "borderpost 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "module"),
    [(["--help"], "rules"), (["rules", "check"], "rules.load"), (["rules", "test"], "rules.cases")],
)
def test_what_needs_no_proxy_starts_without_its_libraries(arguments: list[str], module: str, tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text(RULES)
    script = "import sys, atexit, cli; atexit.register(lambda: print('\\n', *sys.modules)); cli.main()"
    done = program(*arguments, script=script)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert module in loaded
    assert loaded & {"mitmproxy", "sqlalchemy", "cryptography", "rich", "watchfiles", "asyncio"} == set()


# --- options ---


@pytest.mark.parametrize(
    ("sentence", "environment", "arguments", "rules"),
    [
        ("after the command", "", ["rules", "list", "--rules", "a.yaml"], ["a"]),
        ("before the command", "", ["--rules", "a.yaml", "rules", "list"], ["a"]),
        ("in the environment", "a.yaml", ["rules", "list"], ["a"]),
        ("several in the environment", "a.yaml:b.yaml", ["rules", "list"], ["a", "b"]),
        ("repeated", "", ["rules", "list", "--rules", "a.yaml", "--rules", "b.yaml"], ["a", "b"]),
        ("typed wins over the environment", "a.yaml", ["rules", "list", "--rules", "b.yaml"], ["b"]),
        ("typed before wins over the environment", "a.yaml", ["--rules", "b.yaml", "rules", "list"], ["b"]),
        ("the later place wins", "", ["--rules", "a.yaml", "rules", "list", "--rules", "b.yaml"], ["b"]),
    ],
)
def test_shared_options_may_stand_anywhere(
    sentence: str,
    environment: str,
    arguments: list[str],
    rules: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(RULES.replace("id: read", f"id: {name}"))
    if environment:
        monkeypatch.setenv("BORDERPOST_RULES", environment)
    result = borderpost(*arguments, "--json")
    assert [rule["id"] for rule in json.loads(result.output)] == rules, sentence


# --- exit codes and errors ---


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-command"], 2, "No such command"),
        (["log", "list", "--no-such-option"], 2, "No such option"),
        (["log", "list", "--since", "yesterday"], 2, "for --since: `yesterday` is no time: write `10m`, `2h`, `3d`"),
        (["log", "events", "--until", "soon"], 2, "Invalid value for --until: `soon` is no time"),
        (["status", "--ledger", "."], 3, "`.` is a directory: give a file with `--ledger`"),
        (["run", "--ledger", "/", "true"], 3, "`/` is a directory: give a file with `--ledger`"),
        (["halt", "--reason", "x", "--ledger", "sqlite:///."], 3, "`.` is a directory: give a file with `--ledger`"),
        (["run"], 2, "Missing argument 'COMMAND...'"),
        (["log"], 3, "error: there is no ledger at `{}/ledger.db`: nothing was recorded yet, or give `--ledger`"),
        (["--ledger", "postgresql://x", "log"], 3, "error: a PostgreSQL ledger is not supported by this version"),
        (["run", "--", "true"], 3, "error: no rules found"),
        (["serve"], 3, "`borderpost init`, or only watch with `--mode monitor`"),
        (["rules", "check"], 3, "error: no rules found"),
        (["serve", "--listen", "nowhere"], 3, "error: `nowhere` is no listening address"),
        (["run", "--mode", "monitor", "--", "no-such-program"], 3, "error: cannot run `no-such-program`"),
        (["run", "--mode", "monitor", "--agent", "a:b", "true"], 3, "error: `a:b` is no agent name"),
        (["serve", "--mode", "monitor", "--listen", "0.0.0.0:0"], 3, "`borderpost agent add NAME`"),
        (["init", "--pack", "strip"], 3, "error: there is no pack `strip` (did you mean `stripe`?)"),
        (["rules", "explain", "no-alow"], 1, "error: there is no code `no-alow`: did you mean `no-allow`?"),
        (["agent", "remove", "bob"], 1, "error: there is no agent `bob`"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    result = borderpost(*arguments)
    assert result.exit_code == code
    assert message.format(tmp_path) in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if code != 2:
        assert result.stderr.count("\n") == 1


def test_an_unforeseen_fault_is_one_line_unless_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise TypeError("unforeseen")

    group = Borderpost("borderpost", commands={"broken": broken})
    result = CliRunner().invoke(group, ["broken"])
    assert result.exit_code == 3
    assert result.stderr.startswith("error: TypeError: unforeseen (a fault of borderpost's")
    monkeypatch.setenv("BORDERPOST_DEBUG", "1")
    assert isinstance(CliRunner().invoke(group, ["broken"]).exception, TypeError)


def test_an_unwritable_ledger_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = borderpost("run", "--mode", "monitor", "--ledger", str(tmp_path / "file" / "ledger.db"), "true")
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert "file" in result.stderr


def test_a_reader_that_has_left_before_the_first_byte_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cli", "rules", "schema"]
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_error() -> None:
    script = f"{sys.executable} -m cli rules schema | head -c 1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_that_knows_few_characters_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "borderpost.yaml").write_text(RULES)
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    done = program("rules", "eval", "GET https://api.example.com/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("allow\n??")


def test_another_package_over_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "__init__.py").touch()
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rules, cli; cli.main()"
    done = program("--help", script=script)
    assert done.returncode == 3
    assert done.stderr.startswith("error: another package has taken the import name `rules`: ")


# --- completion ---


def offered(line: str, **environment: str) -> list[str]:
    """What the shell offers at the end of `line`."""
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_BORDERPOST_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", "import cli; cli.main()"], capture_output=True, text=True, timeout=60,
        env=os.environ | asked | {"PYTHONPATH": str(HOUSE)} | environment,
    )  # fmt: skip
    assert done.stderr == ""
    return [one.removeprefix("plain,") for one in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("borderpost appro", ["approvals"]),
        ("borderpost init --pack st", ["stripe"]),
        ("borderpost init --model anth", ["anthropic"]),
        ("borderpost log --rule r", ["read"]),
        ("borderpost log list --tool httpbin.ge", ["httpbin.get"]),
        ("borderpost halt --tool httpbin.ge", ["httpbin.get"]),
        ("borderpost run --agent s", ["shop", "support"]),
        ("borderpost log --agent sh", ["shop"]),
        ("borderpost agent remove s", ["support"]),
        ("borderpost log --run r", ["r_1"]),
        ("borderpost log --host api", ["api.stripe.com"]),
        ("borderpost log show c", ["c_1"]),
        ("borderpost resolve c", ["c_1"]),
        ("borderpost rules explain rate-l", ["rate-limited"]),
        ("borderpost approvals allow a", []),
        ("borderpost --ledger none.db log show c", []),
        ("borderpost --rules none.yaml log --rule r", []),
    ],
)
def test_the_shell_offers_what_is_known(line: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text(RULES.replace("version: 1", "version: 1\nuse: [httpbin]"))
    ledger = Ledger.open(tmp_path / "ledger.db", Vault(bytes(32), bytes(32)), owner="borderpost serve")
    ledger.append(refusal("c_1", agent="shop", run="r_1"))
    ledger.append(refusal("x_1", agent="", run="", host="other.example"))
    ledger.close()
    Agents(tmp_path / "confdir").add("support", 1)
    assert offered(line) == names


def test_whatever_is_wrong_the_shell_shows_no_error(tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text("version: [")
    (tmp_path / "ledger.db").write_text("no ledger")
    for line in (
        "borderpost log --rule ",
        "borderpost log show ",
        "borderpost approvals show ",
        "borderpost run --agent ",
    ):
        assert offered(line) == []


# --- agents ---


def test_agents_come_and_go(tmp_path: Path) -> None:
    added = borderpost("agent", "add", "support")
    assert added.exit_code == 0
    token = added.stdout.strip()
    assert token.startswith("bp_") and added.stdout == f"{token}\n"
    assert token not in added.stderr
    assert borderpost("agent", "add", "support").exit_code == 3
    in_json = json.loads(borderpost("agent", "add", "json", "--expires", "8h", "--json").stdout)
    assert in_json["token"].startswith("bp_") and in_json["expires_ns"] > 0
    assert json.loads(borderpost("agent", "remove", "json", "--json").stdout) == {"name": "json", "removed": True}
    again = borderpost("agent", "remove", "json", "--json")
    assert (again.exit_code, json.loads(again.stdout)["removed"]) == (1, False)
    assert borderpost("agent", "add", "support", "--replace").stdout.strip() != token
    borderpost("agent", "add", "temp", "--expires", "8h")
    assert borderpost("agent", "add", "late", "--expires", "2020-01-01").exit_code == 2
    listed = json.loads(borderpost("agent", "list", "--json").stdout)
    assert [(agent["name"], agent["expires_ns"] is None) for agent in listed] == [("support", True), ("temp", False)]
    lines = borderpost("agent", "list").stdout.splitlines()
    assert lines[0].split() == ["AGENT", "ADDED", "TOKEN", "ENDS"]
    assert lines[1].startswith("support  ") and lines[1].endswith("never")
    agents = Agents(tmp_path / "confdir").list()
    at_its_end = list_agents(agents, agents[1].expires_ns, 80, False)
    assert [line.endswith(" (over)") for line in at_its_end] == [False, False, True]
    assert borderpost("agent", "remove", "temp").exit_code == 0
    assert borderpost("agent", "remove", "support").exit_code == 0
    nobody = borderpost("agent", "list")
    assert (nobody.stdout, nobody.exit_code) == ("", 0)
    assert "no agent has a token" in nobody.stderr
