"""The walls of the house: rules decides, proxy acts, cli speaks; data flows one way; one library has one place.

Everything here is read from the source text, so that an import inside a function counts as well.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import msgspec
import pytest

import rules.load

HOUSE = Path(__file__).parents[1]
ROOMS = ("rules", "proxy", "cli")
"""The top level; `proxy.cli` belongs to the room `cli`."""

FORBIDDEN = {
    "rules": {"proxy", "cli", "tests", "bench"},
    "proxy": {"cli", "tests", "bench"},
    "cli": {"tests", "bench"},
}
"""Which rooms a room may not look into."""

ONE_PLACE = {
    "mitmproxy": r"proxy\.(addon|commands|flows|handler|http1|http2|layers|master|websocket)",
    "wsproto": r"proxy\.websocket",
    "sqlalchemy": r"proxy\.ledger(\..*)?",
    "sqlite3": r"proxy\.ledger(\..*)?",
    "click": r"cli|proxy\.cli\..*",
    "watchfiles": r"proxy\.rulefiles",
    "graphql": r"rules\.protocols\.document",
    "genai_prices": r"rules\.prices",
    "yaml": r"rules\.(yamltree|openapi\.document)",
    "jsonschema_rs": r"rules\.((params|openapi)\.)?\w+",
}
"""Library -> the modules that may import it."""

WORLD = {
    "asyncio", "concurrent", "ctypes", "fcntl", "getpass", "glob", "http", "importlib", "io", "locale", "logging",
    "multiprocessing", "os", "pathlib", "platform", "random", "secrets", "select", "shutil", "signal", "socket",
    "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid",
}  # fmt: skip
"""Parts of the standard library that touch the world: files, clocks, chance, processes."""

WORLDLY_CALLS = {"open", "print", "input", "eval", "exec", "compile", "__import__"}
WORLDLY_METHODS = {"now", "today", "utcnow"}


class Module(msgspec.Struct, frozen=True):
    """One source file. `imports` are dotted names; `eager` are those among them that run when it is imported."""

    name: str
    path: Path
    tree: ast.Module
    imports: frozenset[str]
    eager: frozenset[str]

    @property
    def room(self) -> str:
        return room_of(self.name)


def parse(name: str, path: Path, text: str) -> Module:
    tree = ast.parse(text)
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING")
        for inner in ast.walk(outer)
    }
    found = {node: set(imported(node)) for node in ast.walk(tree)}
    return Module(
        name,
        path,
        tree,
        frozenset().union(*found.values()),
        frozenset().union(*(names for node, names in found.items() if node not in lazy)),
    )


def imported(node: ast.AST) -> Iterator[str]:
    """The names that an import statement brings in: `from a import b` may mean the module `a.b` or a name in `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources() -> Iterator[Module]:
    for room in ROOMS:
        single = HOUSE / f"{room}.py"
        for path in [single] if single.exists() else sorted((HOUSE / room).rglob("*.py")):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield parse(name, path, path.read_text())


MODULES = {module.name: module for module in sources()}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(name: str) -> str:
    return "cli" if within(name, "proxy.cli") else name.partition(".")[0]


def looks_into_forbidden_rooms(module: Module) -> set[str]:
    return {name for name in module.imports if room_of(name) in FORBIDDEN[module.room]}


def out_of_place(module: Module) -> set[str]:
    return {
        library
        for library, place in ONE_PLACE.items()
        if any(within(name, library) for name in module.imports) and not re.fullmatch(place, module.name)
    }


def touches_the_world(module: Module) -> set[str]:
    names = {name for name in module.imports if any(within(name, part) for part in WORLD)}
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in WORLDLY_CALLS:
            names.add(f"{node.func.id}()")
        if isinstance(node.func, ast.Attribute) and node.func.attr in WORLDLY_METHODS:
            names.add(f".{node.func.attr}()")
    return names


def ours(names: frozenset[str], modules: Mapping[str, Module]) -> set[str]:
    """The modules of ours that these imports load; `a.b` is the module `a.b` if there is one, else a name in `a`."""
    return {name if name in modules else name.rpartition(".")[0] for name in names} & modules.keys()


def circle(modules: Mapping[str, Module]) -> list[str]:
    """A circle of imports, or nothing."""
    graph = {module.name: ours(module.imports, modules) - {module.name} for module in modules.values()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.mark.parametrize("module", MODULES.values(), ids=list(MODULES))
def test_every_room_keeps_to_itself(module: Module) -> None:
    assert looks_into_forbidden_rooms(module) == set()
    assert out_of_place(module) == set()


@pytest.mark.parametrize("module", [m for m in MODULES.values() if m.room == "rules"], ids=lambda m: m.name)
def test_the_core_is_pure(module: Module) -> None:
    assert touches_the_world(module) == set()


def test_imports_make_no_circle() -> None:
    assert circle(MODULES) == []


def test_help_loads_neither_mitmproxy_nor_sqlalchemy() -> None:
    """`borderpost --help` answers at once, because nothing slow is imported before it is needed."""
    seen: set[str] = set()
    waiting = {"cli"} & MODULES.keys()
    libraries: set[str] = set()
    while waiting:
        module = MODULES[waiting.pop()]
        seen.add(module.name)
        libraries |= {name.partition(".")[0] for name in module.eager}
        waiting |= ours(module.eager, MODULES) - seen
    assert libraries & {"mitmproxy", "sqlalchemy", "rich", "watchfiles", "cryptography"} == set()


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    """An installed Borderpost has its declared dependencies and no others, least of all those for development."""
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    declared = {distribution(re.split(r"[^A-Za-z0-9._-]", text)[0]) for text in texts}
    places = packages_distributions()
    imported_from = {
        distribution(places.get(package, [package])[0])
        for module in MODULES.values()
        for package in {name.partition(".")[0] for name in module.imports}
        if package not in sys.stdlib_module_names and package not in ROOMS
    }
    assert imported_from - declared == set()
    assert declared - imported_from == {"tzdata"}  # read by zoneinfo


def test_there_is_one_version() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    assert project["version"] == rules.load.VERSION
    assert f"## {project['version']}" in (HOUSE / "CHANGELOG.md").read_text()


def distribution(name: str) -> str:
    """A distribution's name in its normal form (PyPA, names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_file_says_what_it_is_for() -> None:
    others = [path for room in ("tests", "bench", "examples") for path in (HOUSE / room).rglob("*.py")]
    files = [*(module.path for module in MODULES.values()), *others]
    silent = [path for path in files if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_python_stands_in_its_rooms_only() -> None:
    rooms = {"cli.py", "proxy", "rules", "tests", "bench", "examples", "docs", "build", "dist"}
    others = [path for path in HOUSE.iterdir() if path.name not in rooms and not path.name.startswith(".")]
    assert [path for path in others if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))] == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("rules.x", "from proxy.gate import Gate", "proxy.gate.Gate"),
        ("rules.x", "def f():\n    import proxy", "proxy"),
        ("proxy.x", "import cli", "cli"),
        ("proxy.x", "from proxy.cli.output import say", "proxy.cli.output.say"),
        ("proxy.x", "import click", "click"),
        ("proxy.x", "from sqlalchemy.sql import text", "sqlalchemy"),
        ("proxy.wire.x", "import mitmproxy.http", "mitmproxy"),
        ("rules.x", "import os.path", "os.path"),
        ("rules.x", "from datetime import datetime\nat = datetime.now()", ".now()"),
        ("rules.x", "text = open('x').read()", "open()"),
    ],
)
def test_a_breach_is_seen(name: str, text: str, fault: str) -> None:
    module = parse(name, Path(f"{name}.py"), text)
    faults = looks_into_forbidden_rooms(module) | out_of_place(module)
    assert fault in faults | (touches_the_world(module) if module.room == "rules" else set())


def test_a_circle_is_seen() -> None:
    texts = {
        "rules.a": "from rules import b",
        "rules.b": "def f():\n    from rules.c import g",
        "rules.c": "import rules.a",
    }
    modules = {name: parse(name, Path(name), text) for name, text in texts.items()}
    assert set(circle(modules)) == set(texts)
