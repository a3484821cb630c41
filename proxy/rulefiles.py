"""Rule files on disk: where they are, reading them as a whole, and watching them for changes.

What they mean is `rules.load`'s business. Here a set of files is read so that all of them are from one moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from proxy.confdir import reason
from rules.problems import Mark, Problem, RuleFileError, render

if TYPE_CHECKING:
    import asyncio

    from rules.load import Loaded

UNREADABLE = "unreadable-file"
"""The code of a problem with the file as such, before anything in it is looked at."""

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 16 * 1024 * 1024
ATTEMPTS = 5
"""A set of files that keeps changing while it is read is read this often."""

DEBOUNCE_MS = 300
"""A change is read when nothing more has changed for a moment, at the latest after this."""

POLL_MS = 2000

type Mode = Literal["enforce", "monitor"]


class RulesMissing(Exception):
    """There are no rule files. The text is one line that says what to do."""


class RulesBroken(Exception):
    """The rule files cannot be used. `texts` holds what was read, by file, to show the lines in question."""

    def __init__(self, problems: tuple[Problem, ...], texts: Mapping[str, str]) -> None:
        super().__init__(summary(problems))
        self.problems = problems
        self.texts = texts

    def rendered(self) -> str:
        """All problems for a terminal, with a blank line between them."""
        return "\n\n".join(render(problem, self.texts.get(problem.mark.file, "")) for problem in self.problems)


class RuleFiles(msgspec.Struct, frozen=True):
    """What was read: the texts by file (named as shown to people), and what they mean."""

    texts: dict[str, str]
    loaded: Loaded

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(self.texts)

    def warnings(self) -> str:
        """All warnings for a terminal, with a blank line between them."""
        return "\n\n".join(
            render(problem, self.texts.get(problem.mark.file, ""), "warning") for problem in self.loaded.warnings
        )


def summary(problems: Sequence[Problem]) -> str:
    """`problems` in one line: the first with its place, and how many more there are."""
    first = problems[0]
    place = f"{first.mark.file}:{first.mark.line}:{first.mark.col}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {first.message}{more}"


def find(given: Sequence[Path], directory: Path) -> tuple[Path, ...]:
    """The rule files: those `given` (files, or directories of them), else the usual ones in `directory`.

    Directories are not searched deeper, and names that begin with a dot are passed over. Raises `RulesMissing`.
    """
    if given:
        return tuple(file for path in given for file in _files_at(path))
    single = directory / "borderpost.yaml"
    if single.is_file():
        return (single,)
    found = _yaml_in(directory / "rules")
    if not found:
        raise RulesMissing(
            "no rules found: there is no `./borderpost.yaml` and no `./rules/*.yaml`; write some with "
            "`borderpost init`, or only watch with `--mode monitor`"
        )
    return found


def read(given: Sequence[Path], directory: Path, mode: Mode | None = None) -> RuleFiles:
    """Read and load the rule files. `mode`, where given, overrules what they say.

    Without any file, `mode` monitor gives an empty rule set, which only watches. Raises `RulesMissing`, `RulesBroken`.
    """
    return _load(_read_all(given, directory, mode), mode)


def nothing_allowed() -> RuleFiles:
    """Rules that allow nothing, without any file."""
    return _load({}, "enforce")


async def watch(
    given: Sequence[Path], directory: Path, mode: Mode | None, stop: asyncio.Event, *, in_force: RuleFiles
) -> AsyncIterator[RuleFiles | RulesBroken | RulesMissing]:
    """Each new state of the rule files after `in_force`, good or not, until `stop` is set."""
    import asyncio  # here: `rules check` does not need it, and should start at once

    last: object = in_force.texts
    async for _ in _ticks(_places(given, directory), stop):
        state: RuleFiles | RulesBroken | RulesMissing
        seen: object
        try:
            texts = await asyncio.to_thread(_read_all, given, directory, mode)
            if texts == last:
                continue
            seen = texts
            state = await asyncio.to_thread(_load, texts, mode)
        except RulesMissing as error:
            seen, state = str(error), error
        except RulesBroken as error:
            seen, state = error.texts or str(error), error
        if seen != last:
            last = seen
            yield state


@cache
def packs() -> dict[str, str]:
    """The shipped packs: name -> text."""
    shipped = resources.files("rules") / "packs"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(shipped.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def _load(texts: dict[str, str], mode: Mode | None) -> RuleFiles:
    from rules.load import Source, load

    try:
        loaded = load([Source(file, text) for file, text in texts.items()], packs())
    except RuleFileError as error:
        raise RulesBroken(error.problems, texts) from None
    if mode is not None:
        ruleset = msgspec.structs.replace(loaded.ruleset, mode=mode)
        loaded = msgspec.structs.replace(loaded, ruleset=ruleset)
    return RuleFiles(texts, loaded)


def _read_all(given: Sequence[Path], directory: Path, mode: Mode | None) -> dict[str, str]:
    """The texts of all rule files, by the name to show, from one moment: read again if one changed meanwhile."""
    for _ in range(ATTEMPTS):
        try:
            files = find(given, directory)
        except RulesMissing:
            if given or mode != "monitor":
                raise
            return {}
        before = [_signature(file) for file in files]
        texts = {_shown(file, directory): _text(file, _shown(file, directory)) for file in files}
        if before == [_signature(file) for file in files]:
            break
    return texts


def _text(file: Path, shown: str) -> str:
    def broken(message: str, help: str) -> RulesBroken:
        return RulesBroken((Problem(UNREADABLE, message, Mark(shown, 1, 1), help),), {})

    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"cannot read `{shown}`: {reason(error)}"
        raise broken(message, "check its path and permissions") from None
    if len(content) > MAX_BYTES:
        raise broken(f"`{shown}` is larger than 16 MiB", "is this a rule file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"`{shown}` is not UTF-8: byte {error.start} is {content[error.start]:#04x}"
        raise broken(message, "save it as UTF-8") from None


def _files_at(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        if not path.exists():
            raise RulesMissing(f"no rules at `{path}`: there is no such file or directory")
        return (path,)
    found = _yaml_in(path)
    if not found:
        raise RulesMissing(
            f"no rules in `{path}`: the directory holds no `*.yaml`; `borderpost init {path}` writes some"
        )
    return found


def _yaml_in(directory: Path) -> tuple[Path, ...]:
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return ()
    return tuple(e for e in entries if e.suffix in SUFFIXES and not e.name.startswith(".") and not e.is_dir())


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _shown(file: Path, directory: Path) -> str:
    return str(file.relative_to(directory) if file.is_relative_to(directory) else file)


def _places(given: Sequence[Path], directory: Path) -> set[Path]:
    """The directories to watch. Files rather than directories would miss replacement by renaming, as editors do it."""
    if not given:
        return {path for path in (directory, directory / "rules") if path.is_dir()}
    return {path if path.is_dir() else path.parent for path in given} | {path.resolve().parent for path in given}


async def _ticks(places: set[Path], stop: asyncio.Event) -> AsyncIterator[None]:
    """Whenever something may have changed: at once where the system tells of changes, and every two seconds.

    The clock finds what is not told: changes before the watching began, on network file systems, behind links.
    """
    import asyncio

    from watchfiles import awatch

    changes = awatch(
        *places,
        watch_filter=None,
        debounce=DEBOUNCE_MS,
        stop_event=stop,
        rust_timeout=POLL_MS,
        yield_on_timeout=True,
        recursive=False,
    )
    first = asyncio.ensure_future(anext(changes, None))
    try:
        await asyncio.sleep(0)  # after this, changes are seen; a look now finds those that came before
        yield
        if await first is not None:
            yield
            async for _ in changes:
                yield
    except OSError:  # no such directory any more, or no watches left: the clock alone then
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_MS / 1000)
            yield
    finally:
        first.cancel()
