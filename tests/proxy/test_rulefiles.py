"""Rule files: which are found, that they are read as a whole, and that a watcher sees every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from proxy import rulefiles
from proxy.rulefiles import RuleFiles, RulesBroken, RulesMissing, find, read, watch

RULE = 'version: 1\nrules: [{id: %s, match: "GET https://api.example.com/**", allow: true}]\n'


def write(directory: Path, **files: str) -> None:
    """Write files, given as `rules__a="..."` for `rules/a.yaml`."""
    for name, text in files.items():
        path = directory / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def found(directory: Path, *given: str) -> list[str]:
    return [str(path.relative_to(directory)) for path in find([directory / name for name in given], directory)]


def ids(files: RuleFiles) -> list[str]:
    return [rule.id for rule in files.loaded.ruleset.rules]


# --- finding ---


def test_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "rules" / "packs").mkdir(parents=True)
    for name in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "a.yaml~", "packs/deep.yaml"):
        (tmp_path / "rules" / name).touch()
    assert found(tmp_path) == ["rules/a.yml", "rules/b.yaml"]
    (tmp_path / "borderpost.yaml").touch()
    assert found(tmp_path) == ["borderpost.yaml"]


def test_what_is_given_counts_alone(tmp_path: Path) -> None:
    write(tmp_path, borderpost="", rules__a="", team__x="", team__y="", single="")
    assert found(tmp_path, "team", "single.yaml") == ["team/x.yaml", "team/y.yaml", "single.yaml"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "no rules found: .*`borderpost init`.*`--mode monitor`"),
        (("nowhere",), "no rules at `.*nowhere`: there is no such file or directory"),
        (("empty",), r"no rules in `.*empty`: the directory holds no `\*.yaml`"),
    ],
)
def test_nothing_found_says_what_to_do(given: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RulesMissing, match=message) as raised:
        found(tmp_path, *given)
    assert "\n" not in str(raised.value)


# --- reading ---


def test_files_are_merged_and_named_as_people_see_them(tmp_path: Path) -> None:
    write(tmp_path, rules__one=RULE % "one", rules__two=RULE % "two")
    files = read([], tmp_path)
    assert ids(files) == ["one", "two"]
    assert files.files == ("rules/one.yaml", "rules/two.yaml")
    assert files.loaded.ruleset.mode == "enforce"
    assert read([], tmp_path, "monitor").loaded.ruleset.mode == "monitor"


def test_no_files_are_an_empty_rule_set_in_monitor_mode_only(tmp_path: Path) -> None:
    assert ids(read([], tmp_path, "monitor")) == []
    with pytest.raises(RulesMissing):
        read([], tmp_path)
    with pytest.raises(RulesMissing):
        read([tmp_path / "nowhere"], tmp_path, "monitor")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"version: 1\n# \xff\n", "is not UTF-8: byte 13 is 0xff"), (b"#" * (16 << 20) + b"#", "is larger than 16 MiB")],
)
def test_a_file_that_cannot_be_read_is_a_problem(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_bytes(content)
    with pytest.raises(RulesBroken) as raised:
        read([], tmp_path)
    assert [problem.code for problem in raised.value.problems] == [rulefiles.UNREADABLE]
    assert message in raised.value.rendered()
    assert str(raised.value).startswith("borderpost.yaml:1:1: `borderpost.yaml` is")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text(RULE % "one", encoding="utf-8-sig")
    assert ids(read([], tmp_path)) == ["one"]


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, rules__one=RULE % "one")
    (tmp_path / "rules" / "two.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(RulesBroken, match=r"rules/two.yaml:1:1: cannot read `rules/two.yaml`: no such file"):
        read([], tmp_path)


def test_all_problems_of_all_files_are_shown_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path, rules__one="version: 1\nrulez: []\n", rules__two="version: 1\nruels: []\n")
    with pytest.raises(RulesBroken, match=r"^rules/one.yaml:2:1: .* \(and 1 more\)$") as raised:
        read([], tmp_path)
    rendered = raised.value.rendered()
    assert rendered.count("error[") == 2
    assert "2 | rulez: []" in rendered
    assert "2 | ruels: []" in rendered


def test_packs_come_with_the_program() -> None:
    assert {"stripe", "github", "openai"} <= rulefiles.packs().keys()
    assert "stripe.refund.create" in rulefiles.packs()["stripe"]


# --- watching ---


@asynccontextmanager
async def watching(
    directory: Path, *given: Path
) -> AsyncIterator[AsyncIterator[RuleFiles | RulesBroken | RulesMissing]]:
    stop = asyncio.Event()
    states = watch(given, directory, None, stop, in_force=read(given, directory))
    try:
        yield states
    finally:
        stop.set()
        async for _ in states:
            pass


async def following(states: AsyncIterator[RuleFiles | RulesBroken | RulesMissing]) -> list[str] | str:
    async with asyncio.timeout(30):
        state = await anext(states)
    return ids(state) if isinstance(state, RuleFiles) else f"{type(state).__name__}: {state}"


async def test_each_change_is_seen_once_good_or_bad(tmp_path: Path) -> None:
    write(tmp_path, rules__one=RULE % "one")
    async with watching(tmp_path) as states:
        write(tmp_path, rules__two=RULE % "two")
        assert await following(states) == ["one", "two"]
        write(tmp_path, rules__two="version: 1\nrules: [")
        assert cast(str, await following(states)).startswith("RulesBroken: rules/two.yaml:2:")
        write(tmp_path, rules__two=RULE % "two")
        (tmp_path / "rules" / "new").write_text(RULE % "three")
        (tmp_path / "rules" / "new").rename(tmp_path / "rules" / "one.yaml")
        assert await following(states) == ["three", "two"]
        for path in (tmp_path / "rules").iterdir():
            path.unlink()
        assert cast(str, await following(states)).startswith("RulesMissing: no rules found")


async def test_a_single_file_is_watched_through_replacement(tmp_path: Path) -> None:
    write(tmp_path, single=RULE % "one")
    single = tmp_path / "single.yaml"
    async with watching(tmp_path, single) as states:
        for name in ("two", "three"):
            (tmp_path / "scratch").write_text(RULE % name)
            (tmp_path / "scratch").replace(single)
            assert await following(states) == [name]


async def test_watching_ends_when_it_is_told_to(tmp_path: Path) -> None:
    write(tmp_path, rules__one=RULE % "one")
    async with asyncio.timeout(30), watching(tmp_path) as states:
        write(tmp_path, rules__one=RULE % "two")
        assert await following(states) == ["two"]
