"""The shipped packs: each loads, alone and with all others, and every pattern gets calls that only its tool names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import pytest

from rules.applies import Reading
from rules.call import Body, Call, Json
from rules.cases import Case, run_case
from rules.guards.history import NO_PAST
from rules.load import Loaded, Source, load
from rules.protocols import PARSERS
from rules.ruleset import RuleSet, Selector
from rules.yamltree import Node, parse
from tests.rules.world import json_body

ROOT = Path(__file__).parents[2]
PACKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules" / "packs").glob("*.yaml"))}

SAMPLES = {"region": "eu-west-1", "number": "7", "account": "111122223333", "attachment": "10001"}
"""What stands for a `{name}` where not any text will do: the shapes that discriminators ask for."""


class Made(NamedTuple):
    """A call that one pattern of a tool describes."""

    tool: str
    pattern: str
    call: Call


def made(pack: str) -> Iterator[Made]:
    tools = parse(PACKS[pack], pack).get("tools")
    assert tools is not None
    for name, node in tools.entries:
        for pattern, where, operation in matches(node):
            for call in calls_of(pattern, where):
                for asked in asking(call, operation):
                    yield Made(str(name.scalar), f"{pattern} {operation}", asked)


def matches(node: Node) -> Iterator[tuple[str, dict[str, dict[str, Json]], str]]:
    """The patterns of a tool, each with its discriminator and what it says of the message, as written."""
    inner = node.get("match") if node.kind == "map" else node
    assert inner is not None
    for item in inner.items if inner.kind == "list" else (inner,):
        request, where = (item.get("request"), item.get("where")) if item.kind == "map" else (item, None)
        says = [(word, item.get(word)) for word in PARSERS] if item.kind == "map" else []
        assert request is not None
        yield (
            str(request.scalar),
            cast(dict[str, dict[str, Json]], where.plain() if where else {}),
            "".join(f"{word}: {said.scalar}" for word, said in says if said is not None),
        )


def asking(call: Call, operation: str) -> Iterator[Call]:
    """`call` as it is, or with the messages that `operation` speaks of: for GraphQL one for each root field."""
    protocol, _, asked = operation.partition(": ")
    if protocol == "mcp":
        yield from speaking_mcp(call, asked)
        return
    if not operation:
        yield call
        return
    kind, _, fields = asked.partition(" ")
    for field in fields.split("|") if fields else ("viewer", "__schema"):
        document = f"{kind} {{ {field.replace('*', 'Any')} {{ id }} }}"
        yield msgspec.structs.replace(call, body=json_body(json.dumps({"query": document})))


def speaking_mcp(call: Call, tool: str) -> Iterator[Call]:
    """`call` with messages that are `mcp: TOOL`, or as it is where its method takes none: a stream is opened."""
    methods = ("initialize", "notifications/initialized", "tools/list", "resources/read") if tool == "session" else ()
    if call.method != "POST":
        if tool == "session":
            yield call
        return
    for method in methods or ("tools/call",):
        message = {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if methods else {"params": {"name": tool}})
        yield msgspec.structs.replace(call, body=json_body(json.dumps(message)))


def calls_of(pattern: str, where: dict[str, dict[str, Json]]) -> Iterator[Call]:
    """Calls that fit `pattern` and `where`: one for each method, and one more where `**` can be longer."""
    methods, _, url = pattern.rpartition(" ")
    scheme, host, path = cast(re.Match[str], re.fullmatch(r"(https?|wss?)://([^/]+)(/.*)?", url)).groups("/")
    values: dict[str, list[tuple[str, str]]] = {"path": [], "query": [], "header": [], "body": []}
    for field, test in where.items():
        place, _, name = field.partition(".")
        values[place] += [(name, value) for value in passing(place, test)]
    for method in methods.split("|") if methods else ("GET", "POST"):
        for rest in ("x", "x/y.txt") if "**" in path else ("",):
            full = filled(path, rest)
            yield Call(
                agent="a",
                run="r",
                method=method,
                scheme=scheme,
                host=filled(host),
                port=443 if scheme in ("https", "wss") else 80,
                path=full,
                segments=tuple(full.split("/")[1:]),
                query=tuple(values["query"]),
                headers=tuple(values["header"]),
                body=Body("form", fields=tuple(values["body"])),
            )


def filled(text: str, rest: str = "") -> str:
    """`text` with every `{name}` and `**` filled in."""
    return re.sub(r"\{(.*?)\}", lambda hole: SAMPLES.get(hole[1], f"some-{hole[1]}"), text).replace("**", rest)


def passing(place: str, test: dict[str, Json]) -> list[str]:
    """A value that passes the operator of a discriminator; none where the field has to be absent."""
    match test:
        case {"ne": _} | {"not_in": _} | {"matches": _} if place == "path":
            return []  # the samples pass
        case {"eq": str(value)} | {"in": [str(value), *_]}:
            return [value]
        case {"exists": bool(there)}:
            return ["1"] if there else []
    raise AssertionError(f"a discriminator of a kind that this test does not know: {test}")


@cache
def using(*packs: str) -> RuleSet:
    return load([Source("rules.yaml", f"version: 1\nuse: [{', '.join(packs)}]\nrules: []\n")], PACKS).ruleset


@cache
def as_file(pack: str) -> Loaded:
    return load([Source(f"{pack}.yaml", PACKS[pack])], PACKS)


def tools_of(ruleset: RuleSet, call: Call) -> tuple[str, set[str]]:
    """The tool that names the call, and every tool under which an allow could let it out."""
    reading = Reading(ruleset, call, 0, NO_PAST)
    hit = {each.target.name for each in reading.tool_hits}
    under = {name for name in hit if reading.targets(Selector(tools=frozenset({name})), "", "allow")}
    return reading.name().name, under


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_is_a_rule_file_of_its_own(pack: str) -> None:
    loaded = as_file(pack)
    assert loaded.warnings == ()
    assert loaded.ruleset.rules
    assert len(loaded.cases) >= 8


@pytest.mark.parametrize(
    ("pack", "case"),
    [pytest.param(pack, case, id=f"{pack}: {case.name}") for pack in PACKS for case in as_file(pack).cases],
)
def test_the_tests_of_a_pack_pass(pack: str, case: Case) -> None:
    assert run_case(as_file(pack).ruleset, case).mismatches == ()


@pytest.mark.parametrize("pack", PACKS)
def test_each_example_rule_is_tested(pack: str) -> None:
    """Every rule determines the decision of some test, lest an example show what it does not do."""
    loaded = as_file(pack)
    decisions = [decision for case in loaded.cases for decision in run_case(loaded.ruleset, case).decisions]
    seen = {rule for decision in decisions for rule in decision.rules}
    assert [rule.id for rule in loaded.ruleset.rules if rule.id not in seen] == []


@pytest.mark.parametrize("pack", PACKS)
def test_using_a_pack_brings_its_tools_and_no_rule(pack: str) -> None:
    used = using(pack)
    assert used.tools.keys() == as_file(pack).ruleset.tools.keys()
    assert used.rules == ()


@pytest.mark.parametrize("pack", PACKS)
def test_names_of_tools_and_rules_start_with_the_pack(pack: str) -> None:
    """So that rules copied out of several packs can stand in one directory."""
    loaded = as_file(pack).ruleset
    assert [name for name in loaded.tools if not name.startswith(f"{pack}.")] == []
    assert [rule.id for rule in loaded.rules if not rule.id.startswith(f"{pack}-")] == []


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_starts_with_a_comment_and_has_its_parts_in_order(pack: str) -> None:
    """`init --pack` copies the text from the line `rules:` on."""
    assert PACKS[pack].startswith("# ")
    assert re.findall(r"^[a-z]+:", PACKS[pack], re.MULTILINE) == ["version:", "tools:", "rules:", "tests:"]


@pytest.mark.parametrize("pack", PACKS)
def test_every_call_has_one_tool(pack: str) -> None:
    """Each pattern of each tool names its own calls, and no other tool matches them, with or without other packs."""
    calls = list(made(pack))
    for ruleset in (using(pack), using(*PACKS)):
        wrong = {
            each.pattern: (each.tool, *found)
            for each in calls
            if (found := tools_of(ruleset, each.call)) != (each.tool, {each.tool})
        }
        assert wrong == {}
    assert {each.tool for each in calls} == using(pack).tools.keys()


def test_the_example_rules_of_all_packs_stand_together() -> None:
    """As `init` copies them, one file for each pack: all load, and every test still passes."""
    sources = [
        Source(f"{pack}.yaml", f"version: 1\nuse: [{pack}]\nrules:\n{text.partition('\nrules:\n')[2]}")
        for pack, text in PACKS.items()
    ]
    loaded = load(sources, PACKS)
    assert {case.name: run_case(loaded.ruleset, case).mismatches for case in loaded.cases} == {
        case.name: () for case in loaded.cases
    }
    assert len(loaded.cases) == sum(len(as_file(pack).cases) for pack in PACKS)


READS = (
    ("openai", ("openai.chat", "openai.response", "openai.embedding", "openai.image.generate", "openai.audio.speech")),
    ("anthropic", ("anthropic.message", "anthropic.message.count")),
    ("aws", ("aws.dynamodb.item.get", "aws.dynamodb.query", "aws.sqs.message.receive", "aws.sts.role.assume")),
    ("slack", ("slack.channel.list", "slack.user.read", "slack.auth.test")),
    ("github", ("github.git.fetch",)),
    ("stripe", ("stripe.invoice.preview",)),
    ("mcp", ("mcp.github.session", "mcp.github.issue_read", "mcp.stripe.stripe_api_read", "mcp.exa.web_search_exa")),
)


@pytest.mark.parametrize(("pack", "tools"), READS)
def test_what_only_reads_by_post_says_so(pack: str, tools: tuple[str, ...]) -> None:
    """So that dedupe never answers a question with an old answer."""
    used = using(pack)
    assert {name: used.tools[name].effect for name in tools} == dict.fromkeys(tools, "read")


@pytest.mark.parametrize("pack", PACKS)
def test_what_is_named_as_a_write_is_one(pack: str) -> None:
    used = using(pack)
    verbs = ("create", "update", "delete", "cancel", "post", "send", "put", "merge", "push", "upload", "pay", "confirm")
    begins = re.compile(rf"({'|'.join((*verbs[:-1], 'add', 'edit', 'move', 'save', 'execute', 'run'))})[_A-Z-]")
    wrong = [
        name
        for name, tool in used.tools.items()
        if tool.effect == "read" and (name.endswith(verbs) or begins.match(name.rpartition(".")[2]))
    ]
    assert wrong == []


def test_a_tool_of_an_mcp_server_is_called_as_its_server_calls_it() -> None:
    """And whoever looks for another server finds it under its own name."""
    tools = parse(PACKS["mcp"], "mcp").get("tools")
    assert tools is not None
    called = {str(name.scalar): says for name, node in tools.entries for _, _, says in matches(node)}
    assert {name: f"mcp: {name.rpartition('.')[2]}" for name in called} == called
    hosts = {
        (name.rpartition(".")[0], tool.matches[0].pattern.text.partition("//")[2].partition("/")[0])
        for name, tool in using("mcp").tools.items()
    }
    assert len(hosts) == len({server for server, _ in hosts}) == len({host for _, host in hosts})


def test_the_names_that_other_rule_files_rely_on() -> None:
    names = set(using(*PACKS).tools)
    assert {"stripe.refund.create", "stripe.charge.read", "github.pull.create", "slack.message.post"} <= names
    assert {"owner", "repo"} <= set(using("github").tools["github.pull.create"].matches[0].pattern.names)
