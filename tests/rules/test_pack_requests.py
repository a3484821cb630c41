"""Requests as the SDKs and documentations send them: each is named by its tool, and what is nearly it is not.

`requests/PACK.txt` holds one a line: tool, method, URL, and where it matters a JSON object of headers and body. They
come from what the APIs publish: OpenAPI and discovery documents, paths and methods in the official SDKs, for AWS the
requests that botocore builds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from rules.call import Call
from rules.load import Source, load
from rules.yamltree import parse
from tests.rules.test_packs import PACKS, matches, tools_of, using

REQUESTS = Path(__file__).parent / "requests"


@cache
def requests(pack: str) -> tuple[tuple[str, Call], ...]:
    """Each request of the pack's file, and the tool that has to name it."""
    tests = []
    for number, line in enumerate((REQUESTS / f"{pack}.txt").read_text(encoding="utf-8").splitlines()):
        if line and not line.startswith("#"):
            tool, method, url, *more = line.split(" ", 3)
            call = {"request": f"{method} {url}"} | (json.loads(more[0]) if more else {})
            tests.append({"name": str(number), "call": call, "expect": {"tool": tool}})
    file = {"version": 1, "use": [pack], "rules": [], "tests": tests}
    cases = load([Source("requests.yaml", json.dumps(file))], PACKS).cases
    return tuple((str(step.expect and step.expect.tool), step.call) for case in cases for step in case.steps)


def moved(call: Call, path: str) -> Call:
    segments = tuple(unquote(segment) for segment in path.split("/")[1:])
    return msgspec.structs.replace(call, path=path, segments=segments)


def near_misses(call: Call) -> Iterator[tuple[str, Call]]:
    """What an attacker or a typing mistake makes of `call`, and says of it which rule of patterns is at stake."""
    plain = {"https": ("http", 80), "http": ("https", 8443), "wss": ("ws", 80)}
    scheme, port = plain[call.scheme]
    yield "another scheme", msgspec.structs.replace(call, scheme=scheme, port=port)
    yield "another port", msgspec.structs.replace(call, port=call.port + 1)
    yield "a host that only begins so", msgspec.structs.replace(call, host=f"{call.host}.evil.example")
    yield "a host that only ends so", msgspec.structs.replace(call, host=f"evil-{call.host.partition('.')[2]}")
    yield "another method", msgspec.structs.replace(call, method="PURGE")
    if call.path != "/":
        yield "a slash at its end", moved(call, f"{call.path}/")
        yield "two parts more", moved(call, f"{call.path}/more/more")
        yield "another beginning", moved(call, f"/v0{call.path}")
        yield "upper case", moved(call, call.path.swapcase())
    version = re.sub(r"/(v\d|2010-04-01|3)(?=/)", "/v99", call.path, count=1)
    if version != call.path:
        yield "another version", moved(call, version)
    head, _, tail = call.path.rpartition("/")
    if head:
        yield "an encoded slash", moved(call, f"{head}%2F{tail}")


OPEN = {
    "another scheme": ("http://httpbin.org",),
    "another method": ("httpbin.org/anything", "status/{", "delay/{"),
    "a slash at its end": ("**",),
    "two parts more": ("**",),
    "another beginning": ("{bucket}/{prefix}/**", ".com/{prefix}/**", ".com/{owner}/{repo}/**", ".app/**"),
    "another version": ("{version}", "{bucket}", "{prefix}", ".com/upload/**"),
    "upper case": ("amazonaws.com", "githubusercontent.com", "codeload.github.com", ".app/**", "/{transport}"),
    "an encoded slash": ("**", ":encoded}"),
}
"""A near miss -> what stands in the patterns of tools that it does not miss."""


@pytest.mark.parametrize("pack", PACKS)
def test_each_tool_is_named_by_a_request_of_the_real_api(pack: str) -> None:
    assert using(pack).tools.keys() - {tool for tool, _ in requests(pack)} == set()


@pytest.mark.parametrize("pack", PACKS)
def test_each_request_is_named_by_its_tool_alone(pack: str) -> None:
    everything = using(*PACKS)
    wrong = {
        f"{call.method} {call.host}{call.path}": (tool, *found)
        for tool, call in requests(pack)
        if (found := tools_of(everything, call)) != (tool, {tool})
    }
    assert wrong == {}


@pytest.mark.parametrize("pack", PACKS)
def test_what_is_nearly_a_request_is_not_its_tool(pack: str) -> None:
    used, written = using(pack), as_written(pack)
    wrong = [
        f"{what}: {tool} {call.method} {call.host} {miss.path}"
        for tool, call in requests(pack)
        for what, miss in near_misses(call)
        if not any(part in written[tool] for part in OPEN.get(what, ()))
        and (tool in (found := tools_of(used, miss))[1] or found[0] == tool)
    ]
    assert wrong == []


@cache
def as_written(pack: str) -> dict[str, str]:
    """The patterns of each tool, as they stand in the pack."""
    tools = parse(PACKS[pack], pack).get("tools")
    assert tools is not None
    return {str(name.scalar): " ".join(pattern for pattern, _, _ in matches(node)) for name, node in tools.entries}
