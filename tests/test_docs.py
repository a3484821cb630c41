"""What README and docs show is true: every fenced example is run or loaded here, as its language says.

- `yaml`: a rule file. It must load, and its own tests must pass. Without `version:` it is a part, and is loaded as a
  further file beside the page's first whole one.
- `json` is parsed, `python` compiled.
- `sh`: every `borderpost` command exists and takes the options it is given; every `make` target exists.
- `console`: the same for the lines after `$`; and what `borderpost` prints there is what it prints, with `...` for what
  differs each time. These run in a directory where the page's first whole rule file is `borderpost.yaml`, and its first
  OpenAPI document is `openapi.json`, the first list of tools `tools.json`.
- `sql` is asked of an empty ledger.
- `text` is not checked: pictures, and what other programs print.

A page that tells a story (`STORIES`) is walked as a whole by a test of its own; here only its commands are looked at.
"""

from __future__ import annotations

import doctest
import json
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

import cli
from proxy.cli.group import DefaultGroup
from proxy.ledger.store import Ledger
from proxy.ledger.vault import Vault
from proxy.rulefiles import packs
from rules.cases import run_case
from rules.load import Source, load

HOUSE = Path(__file__).parents[1]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("**/*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
STORIES = {"docs/first-hour.md"}

RUN = {"rules", "init", "env", "agent", "--version", "--help"}
"""Commands of `console` blocks that are run: those that end by themselves and need no proxy."""


class Example(msgspec.Struct, frozen=True):
    page: str
    line: int
    language: str
    text: str


def examples(page: Path) -> Iterator[Example]:
    content = page.read_text()
    for found in FENCE.finditer(content):
        line = content.count("\n", 0, found.start()) + 1
        indent = found["indent"]
        text = "".join(one.removeprefix(indent) for one in found["text"].splitlines(keepends=True))
        yield Example(str(page.relative_to(HOUSE)), line, found["language"], text)


EXAMPLES = [example for page in PAGES for example in examples(page)]


def whole_file(page: str) -> str | None:
    """The first rule file of a page that is whole."""
    return next((one.text for one in EXAMPLES if one.page == page and one.language == "yaml" and whole(one)), None)


def whole(example: Example) -> bool:
    return re.search(r"^version:", example.text, re.MULTILINE) is not None


def commands(example: Example) -> Iterator[tuple[list[str], str]]:
    """The command lines of an example, each split into words, with what is shown below it."""
    text = example.text.replace("\\\n", " ")
    if example.language == "console":
        for shown in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            line, _, output = shown.partition("\n")
            yield shlex.split(line, comments=True), output
    else:
        for line in text.splitlines():
            yield shlex.split(line, comments=True), ""


def rule_file(example: Example, directory: Path) -> None:
    sources = [Source(f"{example.page}:{example.line}", example.text)]
    if not whole(example):
        beside = whole_file(example.page)
        sources = [Source(example.page, beside)] if beside else []
        sources.append(Source(f"{example.page}:{example.line}", f"version: 1\n{example.text}"))
    loaded = load(sources, packs())
    for case in loaded.cases:
        assert run_case(loaded.ruleset, case).mismatches == ()


def shell(example: Example, directory: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (HOUSE / "Makefile").read_text(), re.MULTILINE))
    for words, _ in commands(example):
        if words[:1] == ["make"]:
            assert set(words[1:]) <= targets
        elif words[:1] == ["borderpost"]:
            assert unknown(cli.cli, words[1:]) == []


def unknown(command: click.Command, words: list[str]) -> list[str]:
    """The words that are no command or no option of it. After `--` everything is somebody else's."""
    if isinstance(command, DefaultGroup) and not {*words[:1]} & {"--help", *command.commands}:
        command = next(iter(command.commands.values()))
    options = {"--help", *(name for param in command.params for name in (*param.opts, *param.secondary_opts))}
    wrong = []
    for index, word in enumerate(words):
        if word == "--":
            break
        if word.startswith("-") and word != "-":
            wrong += [] if word.partition("=")[0] in options else [word]
        elif isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), word)
            return wrong + ([word] if inner is None else unknown(inner, words[index + 1 :]))
    return wrong


def session(example: Example, directory: Path) -> None:
    shell(example, directory)
    rules = whole_file(example.page)
    if rules is not None:
        (directory / "borderpost.yaml").write_text(rules)
    for name, word in (("openapi.json", '"openapi":'), ("tools.json", '"inputSchema":')):
        for document in [one.text for one in EXAMPLES if one.page == example.page and word in one.text][:1]:
            (directory / name).write_text(document)
    for words, shown in commands(example):
        if words[0] == "borderpost" and len(words) > 1 and words[1] in RUN:
            printed = CliRunner().invoke(cli.cli, words[1:], prog_name="borderpost").output
            same = doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS)
            assert same, f"`{shlex.join(words)}` prints\n{printed}\ninstead of\n{shown}"


def question(example: Example, directory: Path) -> None:
    path = directory / "ledger.db"
    Ledger.open(path, Vault(bytes(32), bytes(32)), owner="docs").close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(example.text)


CHECKS: dict[str, Callable[[Example, Path], object]] = {
    "yaml": rule_file,
    "json": lambda example, _: json.loads(example.text),
    "python": lambda example, _: compile(example.text, f"{example.page}:{example.line}", "exec"),
    "sh": shell,
    "console": session,
    "sql": question,
    "text": lambda example, _: None,
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.page}:{example.line}")
def test_example(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of xdist have it
    for name in ("CONFDIR", "LEDGER"):
        monkeypatch.setenv(f"BORDERPOST_{name}", str(tmp_path / name.lower()))
    assert example.language in CHECKS, "say what the example is: its language is written after the fence"
    if example.page in STORIES and example.language in ("yaml", "console"):
        if example.language == "console":
            shell(example, tmp_path)
        return
    CHECKS[example.language](example, tmp_path)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("rules check --rules x", []),
        ("log --run r_1 --since 10m", []),
        ("run --agent a -- curl --no-such-option", []),
        ("rules chek", ["chek"]),
        ("run --no-such-option", ["--no-such-option"]),
        ("log list --sinse 10m", ["--sinse"]),
    ],
)
def test_a_wrong_command_is_seen(line: str, wrong: list[str]) -> None:
    assert unknown(cli.cli, line.split()) == wrong
