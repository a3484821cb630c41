"""Which programs a command's environment has: its Python and its Node.js, with the flags it gives them, and tools."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

RUNNERS = ("uv", "poetry", "pdm", "hatch", "pipenv", "rye")
"""`uv run X` and its like: their Python is not that of PATH."""

PYTHON_FLAGS = frozenset("bBdEiIOPqsSuvVx")
"""Options of one letter without a value. Those with one are passed on too, but end what is read."""

FIRST_LINE_BYTES = 256


class Interpreter(msgspec.Struct, frozen=True):
    """How to start an interpreter. `kind` is `python` or `node`; `shown` is what people call it."""

    kind: str
    command: tuple[str, ...]
    shown: str


def interpreters(command: Sequence[str], environment: Mapping[str, str]) -> list[Interpreter]:
    """The interpreters that `command` would run with, the most certain first; without one, those of PATH."""
    found = [one for one in (_named(command, environment), _runner(command, environment)) if one is not None]
    for name, kind in (("python3", "python"), ("python", "python"), ("node", "node")):
        path = _which(name, environment)
        if path is not None and not any(one.kind == kind for one in found):
            found.append(Interpreter(kind, (path,), path))
    return found


def tools(names: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Where those of the programs `names` are that there are."""
    return {name: path for name in names if (path := _which(name, environment)) is not None}


def _named(command: Sequence[str], environment: Mapping[str, str]) -> Interpreter | None:
    """The interpreter that `command` names itself, or that its script does in its first line."""
    path = _which(command[0], environment) if command else None
    if path is None:
        return None
    words, arguments = [path], list(command[1:])
    kind = _kind(path)
    if kind is None:
        words, arguments = _shebang(Path(path)), []
        if len(words) > 1 and Path(words[0]).name == "env":
            program = _which(words[1], environment)
            words = [program, *words[2:]] if program is not None else []
        kind = _kind(words[0]) if words else None
        arguments, words = words[1:], words[:1]
    if kind is None:
        return None
    flags = _python_flags(arguments) if kind == "python" else []
    return Interpreter(kind, (*words, *flags), " ".join([*words, *flags]))


def _runner(command: Sequence[str], environment: Mapping[str, str]) -> Interpreter | None:
    if len(command) < 2 or Path(command[0]).name not in RUNNERS or command[1] != "run":
        return None
    path = _which(command[0], environment)
    return Interpreter("python", (path, "run", "python"), f"{command[0]} run python") if path is not None else None


def _kind(path: str) -> str | None:
    name = Path(path).name
    if name.startswith(("python", "pypy")):
        return "python"
    return "node" if name in ("node", "nodejs") else None


def _python_flags(arguments: Sequence[str]) -> list[str]:
    """The options before the script, those that change what Python starts with."""
    flags = []
    for argument in arguments:
        if not argument.startswith("-") or len(argument) < 2 or not set(argument[1:]) <= PYTHON_FLAGS:
            break
        flags.append(argument)
    return [flag for flag in flags if set(flag[1:]) & set("EIsS")]


def _shebang(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            line = file.readline(FIRST_LINE_BYTES)
    except OSError:
        return []
    return line[2:].decode("utf-8", "replace").split() if line.startswith(b"#!") else []


def _which(name: str, environment: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=environment.get("PATH", os.defpath))
