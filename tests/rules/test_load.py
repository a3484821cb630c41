"""Loading rule files: what they mean when they are good, and what is said about them when they are not.

Each file (or directory of files) in `bad/` stands beside a `.txt` with every message that it is answered with. After a
wanted change of messages, run with `ACCEPT=1` in the environment and read the difference.
"""

from __future__ import annotations

import os
import re
import tomllib
from itertools import permutations
from pathlib import Path
from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.load import VERSION, Loaded, Source, load, pack_file
from rules.problems import EXPLANATIONS, RuleFileError, render
from rules.ruleset import BODY_CAP_BYTES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GOOD = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/examples").iterdir())]
BAD = sorted(path for path in (HERE / "bad").iterdir() if path.suffix != ".txt")
PACKS = {
    "stripe": """
version: 1
tools:
  stripe.refund.list: GET https://api.stripe.com/v1/refunds
  stripe.refund.create: {match: POST https://api.stripe.com/v1/refunds, body: form}
rules:
  - {id: stripe-example, tool: stripe.refund.list, allow: true}
""",
    "slack": """
version: 1
tools:
  slack.message.post: POST https://slack.com/api/chat.postMessage
""",
    "github": """
version: 1
tools:
  github.read: GET|HEAD https://api.github.com/**
""",
}


def loaded(*texts: str) -> Loaded:
    files = [Source(f"{'abc'[place]}.yaml", dedent(text)) for place, text in enumerate(texts)]
    return load([Source(file.file, f"version: 1\n{file.text.lstrip()}") for file in files], PACKS)


def refused(*texts: str) -> list[str]:
    """The code and line of every problem; the line of the file as written here."""
    with pytest.raises(RuleFileError) as error:
        loaded(*texts)
    return [f"{problem.code} {problem.mark.line - 1}" for problem in error.value.problems]


# --- bad files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", BAD, ids=[path.name for path in BAD])
def test_a_bad_file_is_refused_with_these_messages(path: Path) -> None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    sources = [Source(file.name, file.read_bytes().decode()) for file in files]
    texts = {source.file: source.text for source in sources}
    with pytest.raises(RuleFileError) as error:
        load(sources, PACKS)
    said = "\n\n".join(render(problem, texts[problem.mark.file]) for problem in error.value.problems) + "\n"
    golden = path.with_suffix(".txt")
    if os.environ.get("ACCEPT"):
        golden.write_text(said, encoding="utf-8")
    assert said == golden.read_text(encoding="utf-8")
    for problem in error.value.problems:
        assert problem.code in EXPLANATIONS
        assert re.match("[a-z`]", problem.message), "messages start in lower case"


def test_there_are_bad_files_of_every_kind() -> None:
    assert len(BAD) >= 45
    golden = "".join(path.with_suffix(".txt").read_text(encoding="utf-8") for path in BAD)
    warnings = {"unlimited-writes", "broad-allow", "idle-dedupe", "approximate-rate", "chosen-key", "keyless-retry"}
    warnings |= {"optional-amount", "unmet-require", "unreachable-rule", "unnamed-field", "contradiction"}
    own = {
        "budget",
        "burst",
        "conflict",
        "method",
        "prices",
        "repeated",
        "unknown-rule",
        "until",
        "test",
    }  # of guards, cases
    assert set(re.findall(r"^error\[([a-z-]+)\]", golden, re.MULTILINE)) >= set(EXPLANATIONS) - warnings - own


def test_every_code_that_can_be_met_is_explained() -> None:
    used: set[str] = set()
    for path in (ROOT / "rules").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'(?:\bfail|\badd|\breport|Problem)\(\s*"([a-z-]+)",\s', text))
        used |= set(re.findall(r'\.(?:fail|add)\(\s*"([a-z-]+)",\s', text))
    assert used <= set(EXPLANATIONS)
    assert len(used) > 30


def example(block: str) -> list[Source]:
    """The file in an explanation, or the files, each after its name."""
    names_and_texts = re.split(r"^# (\w+\.yaml)\n", dedent(block), flags=re.MULTILINE)
    pairs = [("a.yaml", names_and_texts[0])]
    if len(names_and_texts) > 1:
        pairs = list(zip(names_and_texts[1::2], names_and_texts[2::2], strict=True))
    return [Source(name, text if "version:" in text else f"version: 1\n{text}") for name, text in pairs]


@pytest.mark.parametrize("code", EXPLANATIONS)
def test_an_explanation_tells_the_truth(code: str) -> None:
    _, examples = EXPLANATIONS[code].split("\n\nwrong:\n")
    wrong, right = examples.split("\n\nright:\n")
    assert load(example(right), PACKS).warnings == ()
    try:
        codes = [warning.code for warning in load(example(wrong), PACKS).warnings]
    except RuleFileError as error:
        codes = [problem.code for problem in error.problems]
    assert codes == [code]


# --- what files mean -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["2", "0", "true", '"1"', "1.0", "[1]", "null"])
def test_only_version_1_is_read(written: str) -> None:
    with pytest.raises(RuleFileError) as error:
        load([Source("a.yaml", f"version: {written}\nrules: []\n")], PACKS)
    assert [problem.code for problem in error.value.problems] == ["version"]


def test_tools_in_every_form() -> None:
    tools = loaded("""
        tools:
          plain: GET https://api.example.com/a
          list: [GET https://api.example.com/b, POST https://api.example.com/c]
          mapping:
            match: POST https://api.example.com/d
            effect: read
            body: json
            credential: header.X-Api-Key
            cap: 1MiB
          told-apart:
            match:
              - {request: POST https://api.example.com/, where: {header.x-target: {eq: Get}}}
              - GET https://api.example.com/e
        """).ruleset.tools
    assert list(tools) == ["list", "mapping", "plain", "told-apart"]
    plain, mapping = tools["plain"], tools["mapping"]
    assert [str(match.pattern) for match in plain.matches] == ["GET https://api.example.com/a"]
    assert (plain.effect, plain.body, plain.credential, plain.cap_bytes) == (None, None, "", BODY_CAP_BYTES)
    assert plain.source == "a.yaml:3"
    assert len(tools["list"].matches) == 2
    assert (mapping.effect, mapping.body, mapping.cap_bytes) == ("read", "json", 1024 * 1024)
    assert mapping.credential == "header.x-api-key"
    first, second = tools["told-apart"].matches
    assert first.where is not None
    assert first.where.describe() == 'header.x-target eq "Get"'
    assert second.where is None


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("512B", 512), ("10kB", 10_000), ("10KB", 10_000), ("10KiB", 10_240), ("10MB", 10**7), ("256MiB", 2**28)],
)
def test_sizes(written: str, size_bytes: int) -> None:
    tools = loaded(f"tools: {{up: {{match: PUT https://files.example.com/**, cap: {written}}}}}").ruleset.tools
    assert tools["up"].cap_bytes == size_bytes


def test_rules_in_every_form() -> None:
    rules = loaded("""
        tools: {a: GET https://api.example.com/a, b: POST https://api.example.com/b}
        rules:
          - id: everything
            tool: [a, b]
            agent: "docs-*"
            run: [r1, r2]
            where: {query.a: {eq: b}}
            during: {days: mon-fri, zone: UTC}
            unless: {agent: janitor, match: GET https://api.example.com/c}
            allow: true
            throttle: 10/min
            dedupe: 1h
            mode: monitor
          - {id: denied, match: "DELETE https://**", deny: Archive it instead.}
          - {id: all-denied, agent: rogue, deny: true}
        """).ruleset.rules
    all_denied, denied, everything = rules
    assert [rule.id for rule in rules] == ["all-denied", "denied", "everything"]
    select = everything.select
    assert (select.tools, select.agents, select.runs) == (frozenset("ab"), ("docs-*",), ("r1", "r2"))
    assert select.where is not None
    assert select.during is not None
    assert everything.unless is not None
    assert everything.unless.agents == ("janitor",)
    assert [str(match.pattern) for match in everything.unless.matches or ()] == ["GET https://api.example.com/c"]
    assert (everything.allow, everything.deny, everything.mode) == (True, None, "monitor")
    assert [guard.verb for guard in everything.guards] == ["dedupe", "throttle"], "in the order of their stages"
    assert everything.source == "a.yaml:4"
    assert (denied.allow, denied.deny, denied.guards, denied.unless) == (False, "Archive it instead.", (), None)
    assert all_denied.deny, "a deny without a reason has one all the same: an empty text would be no deny"
    assert (all_denied.select.tools, all_denied.select.matches) == (None, None)


def test_names_that_patterns_capture_may_be_read() -> None:
    assert loaded("""
        tools:
          path.close: POST https://{region}.example.com/close/{id}
          open: POST https://{region}.example.com/open/{id}
        rules:
          - id: open
            tool: open
            where: {path.region: {in: [eu, us]}, body.note: {ne: path.nothing}}
            unless: {match: "https://eu.example.com/open/{what}", where: {path.what: x, path.id: {prefix: a}}}
            allow: true
            dedupe: {key: ["path.id|body.id"], until: path.close}
        """).ruleset.rules


GLOBS: list[tuple[str, set[str]]] = [
    ("git.*", {"git.read", "git.issue.open", "git.issue.read"}),
    ("*.read", {"git.read", "git.issue.read"}),
    ("git.*.read", {"git.issue.read"}),
    ("*", {"git.read", "git.issue.open", "git.issue.read", "gitlab"}),
    ("git*", {"git.read", "git.issue.open", "git.issue.read", "gitlab"}),
    ("git.read", {"git.read"}),
]


@pytest.mark.parametrize(("glob", "names"), GLOBS)
def test_in_globs_of_tools_a_star_crosses_dots(glob: str, names: set[str]) -> None:
    (rule,) = loaded(f"""
        tools:
          git.read: GET https://git.example.com/a
          git.issue.open: POST https://git.example.com/b
          git.issue.read: GET https://git.example.com/b
          gitlab: GET https://gitlab.example.com/
        rules: [{{id: r, tool: "{glob}", throttle: 5/s}}]
        """).ruleset.rules
    assert rule.select.tools == frozenset(names)


def test_a_pack_brings_its_tools_and_not_its_rules() -> None:
    ruleset = loaded("use: [stripe]\nrules: []").ruleset
    assert set(ruleset.tools) == {"stripe.refund.create", "stripe.refund.list"}
    assert ruleset.tools["stripe.refund.list"].source == f"{pack_file('stripe')}:4"
    assert ruleset.rules == ()
    assert loaded("use: stripe\nrules: []", "use: [stripe]").ruleset.tools == ruleset.tools


def test_a_broken_pack_is_named() -> None:
    with pytest.raises(RuleFileError) as error:
        load([Source("a.yaml", "version: 1\nuse: [odd]\n")], {"odd": "version: 1\ntools: {a: nowhere}\n"})
    assert [problem.mark.file for problem in error.value.problems] == [pack_file("odd")]


def test_rules_of_one_file_use_tools_of_another() -> None:
    ruleset = loaded(
        "rules: [{id: read, tool: files.read, allow: true}]", "tools: {files.read: GET https://a.example.com/**}"
    ).ruleset
    assert ruleset.rules[0].select.tools == frozenset({"files.read"})


def test_order_does_not_matter() -> None:
    texts = [
        "tools: {x: GET https://a.example.com/x}\nrules: [{id: one, tool: x, allow: true}]",
        "use: [stripe]\nmode: monitor",
        "rules: [{id: two, tool: 'stripe.*', deny: No.}, {id: a, tool: x, throttle: 5/s}]",
    ]
    digests = set()
    ids = set()
    for order in permutations(texts):
        ruleset = loaded(*order).ruleset
        digests.add(ruleset.digest)
        ids.add(tuple(rule.id for rule in ruleset.rules))
        assert ruleset.mode == "monitor"
    assert len(digests) == 1
    assert ids == {("a", "one", "two")}


def test_the_digest_stands_for_everything_that_was_read() -> None:
    base = "use: [stripe]\nrules: []"
    packs = {**PACKS, "stripe": PACKS["stripe"] + "# changed\n"}
    unused = {**PACKS, "slack": PACKS["slack"] + "# changed\n"}
    source = Source("a.yaml", f"version: 1\n{base}")
    digest = load([source], PACKS).ruleset.digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert load([source], unused).ruleset.digest == digest
    assert load([Source("other.yaml", source.text)], PACKS).ruleset.digest == digest
    assert load([source], packs).ruleset.digest != digest
    assert load([Source("a.yaml", source.text + "# changed\n")], PACKS).ruleset.digest != digest
    assert load([source, Source("b.yaml", "version: 1\nrules: []")], PACKS).ruleset.digest != digest


def test_the_digest_names_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_no_files_allow_nothing() -> None:
    ruleset = load([], PACKS).ruleset
    assert (ruleset.rules, ruleset.tools, ruleset.mode) == ((), {}, "enforce")


def test_the_index_finds_tools_and_rules_and_what_they_are_not_for() -> None:
    index = loaded("""
        tools: {x: ["GET https://a.example.com/y", "GET https://a.example.com/x"]}
        rules: [{id: r, match: "https://a.example.com/**", unless: {match: "https://*.example.com/x"}, deny: true}]
        """).ruleset.index
    hits = index.find("GET", "https", "a.example.com", 443, ("x",))
    targets = {(hit.target.kind, hit.target.name, hit.target.nth) for hit in hits if not hit.only_denies}
    assert targets == {("tool", "x", 1), ("rule", "r", 0), ("unless", "r", 0)}


def test_cases_are_read() -> None:
    (case,) = loaded("""
        tests:
          - name: nothing is allowed
            call: {request: GET https://files.example.com/a}
            expect: {decision: deny, code: no-allow}
        """).cases
    assert case.name == "nothing is allowed"


def test_cases_speak_of_rules_and_tools_that_there_are() -> None:
    text = """
        tools: {x: GET https://a.example.com/x}
        rules: [{id: one, tool: x, allow: true}]
        tests:
          - {name: a, call: {request: GET https://a.example.com/x}, expect: {rule: won, tool: y}}
          - {name: b, calls: [{request: GET https://a.example.com/x, expect: {would: two}}]}
          - {name: c, call: {request: GET https://a.example.com/x}, expect: {rule: one, tool: x, would: null}}
        """
    assert refused(text) == ["unknown-rule 4", "unknown-tool 4", "unknown-rule 5"]


def test_one_mistake_is_reported_once() -> None:
    assert refused("use: [strype]\nrules: [{id: a, tool: stripe.x, allow: true}]") == ["unknown-pack 1"]
    assert refused("tools: {x: nowhere}\nrules: [{id: a, tool: x, where: {path.b: c}, allow: true}]") == ["pattern 1"]
    assert refused("rules: [{id: a, tool: !t x, allow: .inf}]") == ["yaml-tag 1", "yaml-number 1"]


def test_many_unknown_names_take_no_longer_than_they_must() -> None:
    tools = "".join(f"  t{n}: GET https://a.example.com/{n}\n" for n in range(300))
    rules = "".join(f"  - {{id: r{n}, tool: u{n}, allow: true}}\n" for n in range(300))
    with pytest.raises(RuleFileError) as error:
        loaded(f"tools:\n{tools}rules:\n{rules}")
    helps = [problem.help for problem in error.value.problems]
    assert len(helps) == 300
    assert sum(map(bool, helps)) == 20


EQUAL: list[tuple[str, str, str, bool]] = [
    ("the same", "GET https://a.example.com/x", "GET https://a.example.com/x", True),
    ("other names", "GET https://a.example.com/{a}", "GET https://a.example.com/{b}", True),
    ("a method in common", "GET|POST https://a.example.com/x", "GET https://a.example.com/x", True),
    ("the default port written", "GET https://a.example.com/x", "GET https://a.example.com:443/x", True),
    ("another method", "POST https://a.example.com/x", "GET https://a.example.com/x", False),
    ("any method and one", "https://a.example.com/x", "GET https://a.example.com/x", False),
    ("another host", "GET https://a.example.com/x", "GET https://b.example.com/x", False),
    ("another scheme", "GET https://a.example.com/x", "GET http://a.example.com/x", False),
    ("a literal and a name", "GET https://a.example.com/x", "GET https://a.example.com/{a}", False),
    ("a slash more", "GET https://a.example.com/x", "GET https://a.example.com/x/", False),
    (
        "a condition more",
        "GET https://a.example.com/x",
        "{request: GET https://a.example.com/x, where: {query.a: b}}",
        False,
    ),
    (
        "the same condition",
        "{request: GET https://a.example.com/x, where: {query.a: {eq: b}}}",
        "{request: GET https://a.example.com/x, where: {query.a: b}}",
        True,
    ),
]


@pytest.mark.parametrize(("one", "other", "equal"), [case[1:] for case in EQUAL], ids=[case[0] for case in EQUAL])
def test_two_tools_that_nothing_tells_apart_are_refused(one: str, other: str, equal: bool) -> None:
    text = f"tools:\n  one: {{match: {quoted(one)}}}\n  other: {{match: {quoted(other)}}}"
    if equal:
        assert refused(text) == ["equal-tools 3"]
    else:
        assert set(loaded(text).ruleset.tools) == {"one", "other"}


def quoted(match: str) -> str:
    return match if match.startswith("{") else f'"{match}"'


def test_one_tool_may_say_the_same_twice() -> None:
    assert loaded("tools: {x: [GET https://a.example.com/x, GET https://a.example.com/x]}").ruleset.tools


@given(st.data())
def test_no_text_breaks_the_loader(data: st.DataObject) -> None:
    """Whatever happens to a good file, it loads, or is refused with explained problems that point into a file."""
    text = data.draw(st.sampled_from(GOOD))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    other = data.draw(
        st.sampled_from(["", " ", "\n", "- ", "{", "]", ": ", '"', "null", "1e3", "[]", "*", "deny", "body."])
    )
    try:
        load([Source("a.yaml", text[:start] + other + text[end:])], PACKS)
    except RuleFileError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.code in EXPLANATIONS
            assert problem.mark.file == "a.yaml"


# --- warnings --------------------------------------------------------------------------------------------------------

WARNED: list[tuple[str, str, list[str]]] = [
    ("a write that nothing limits", "{id: a, match: POST https://x.example.com/a, allow: true}", ["unlimited-writes"]),
    ("a tool that writes", "{id: a, tool: write, allow: true}", ["unlimited-writes"]),
    ("a tool that reads by POST", "{id: a, tool: search, allow: true}", []),
    ("a tool that writes by GET", "{id: a, tool: trigger, allow: true}", ["unlimited-writes"]),
    ("reads", "{id: a, match: GET|HEAD https://x.example.com/**, allow: true}", []),
    ("any method", '{id: a, match: "https://x.example.com/a", allow: true}', ["unlimited-writes"]),
    ("a throttle", "{id: a, tool: write, allow: true, throttle: 5/s}", []),
    ("a dedupe", "{id: a, tool: write, allow: true, dedupe: 1h}", []),
    ("a throttle in another rule", "{id: a, tool: write, allow: true}, {id: b, tool: '*', throttle: 5/s}", []),
    (
        "a throttle on the host",
        "{id: a, tool: write, allow: true}, {id: b, match: 'https://x.example.com/**', throttle: 5/s}",
        [],
    ),
    ("a throttle on everything", "{id: a, tool: write, allow: true}, {id: b, throttle: 5/s}", []),
    (
        "a throttle that only watches",
        "{id: a, tool: write, allow: true}, {id: b, mode: monitor, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "guards that bound nothing",
        "{id: a, tool: write, allow: true, concurrency: 1, loop: true, breaker: true, require: search},"
        "{id: b, tool: search, allow: true}",
        ["unlimited-writes"],
    ),
    ("a budget", "{id: a, tool: write, allow: true, budget: {sum: count, max: 5, per: 1h}}", []),
    ("a person", "{id: a, tool: write, allow: true, approve: true}", []),
    (
        "one call at a time in another rule",
        "{id: a, tool: write, allow: true}, {id: b, tool: write, concurrency: 1}",
        ["unlimited-writes"],
    ),
    (
        "a dedupe of another method in another rule",
        "{id: a, match: PUT https://x.example.com/a, allow: true},"
        "{id: b, match: 'https://x.example.com/**', dedupe: 1h}",
        ["unlimited-writes"],
    ),
    (
        "a dedupe of this method in another rule",
        "{id: a, match: PUT https://x.example.com/a, allow: true},"
        "{id: b, match: 'https://x.example.com/**', dedupe: {methods: [PUT]}}",
        [],
    ),
    (
        "a throttle under a condition",
        "{id: a, tool: write, allow: true}, {id: b, tool: write, where: {body.n: 1}, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "a throttle with an exception",
        "{id: a, tool: write, allow: true}, {id: b, tool: write, unless: {agent: x}, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "a throttle at times",
        "{id: a, tool: write, allow: true}, {id: b, tool: write, during: {days: mon-fri, zone: UTC}, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "a throttle of another agent",
        "{id: a, tool: write, agent: x, allow: true}, {id: b, tool: write, agent: y, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "a throttle of one of the agents",
        "{id: a, tool: write, allow: true}, {id: b, tool: write, agent: y, throttle: 5/s}",
        ["unlimited-writes"],
    ),
    (
        "a throttle of the same agent",
        "{id: a, tool: write, agent: x, run: r, allow: true}, {id: b, tool: write, agent: x, throttle: 5/s}",
        [],
    ),
    ("an allow that only watches", "{id: a, tool: write, mode: monitor, allow: true}", []),
    ("writes to everywhere", '{id: a, match: "https://**", allow: true}', ["broad-allow"]),
    ("posts to everywhere", '{id: a, match: "POST https://**", allow: true}', ["broad-allow"]),
    ("reads from everywhere", '{id: a, match: "GET https://**", allow: true}', []),
    ("writes to everywhere, throttled", '{id: a, match: "https://**", allow: true, throttle: 5/s}', []),
    ("a dedupe of PUT alone", "{id: a, match: PUT https://x.example.com/a, allow: true, dedupe: 1h}", ["idle-dedupe"]),
    (
        "a dedupe of PUT by name",
        "{id: a, match: PUT https://x.example.com/a, allow: true, dedupe: {methods: [PUT]}}",
        [],
    ),
    ("a dedupe of reads", "{id: a, tool: search, allow: true, dedupe: 1h}", ["idle-dedupe"]),
    ("a dedupe of everything", "{id: a, dedupe: 1h}", []),
    ("a rate of stamps", "{id: a, throttle: 1000/h}", []),
    ("a rate beyond stamps", "{id: a, throttle: 1001/h}", ["approximate-rate"]),
    ("a pace of any size", "{id: a, throttle: {pace: 5000/h}}", []),
    ("a key of the agent's choice", "{id: a, throttle: {rate: 5/s, by: [agent, body.channel]}}", ["chosen-key"]),
    (
        "a key of the agent's choice beside one that is not",
        "{id: a, tool: write, throttle: {rate: 5/s, by: body.channel}, allow: true},"
        "{id: b, tool: write, throttle: {rate: 50/s, by: agent}}",
        [],
    ),
    (
        "a key of the agent's choice beside another",
        "{id: a, tool: write, throttle: {rate: 5/s, by: body.channel}, allow: true},"
        "{id: b, tool: write, throttle: {rate: 50/s, by: query.to}}",
        ["chosen-key", "chosen-key"],
    ),
    (
        "a key of the agent's choice beside a limit of some of its calls",
        "{id: a, tool: [write, keyed], throttle: {rate: 5/s, by: body.channel}, allow: true},"
        "{id: b, tool: write, throttle: 50/s}",
        ["chosen-key"],
    ),
    (
        "a key of the agent's choice beside a limit of its host",
        "{id: a, match: POST https://x.example.com/a, throttle: {rate: 5/s, by: body.channel}, allow: true},"
        "{id: b, match: https://x.example.com/**, throttle: 50/s}",
        [],
    ),
    (
        "a key of the agent's choice beside a limit of all",
        "{id: a, throttle: {rate: 5/s, by: args.to}}, {id: b, throttle: 9/s}",
        [],
    ),
    (
        "a key of the agent's choice beside a limit that only watches",
        "{id: a, throttle: {rate: 5/s, by: args.to}}, {id: b, throttle: 9/s, mode: monitor}",
        ["chosen-key"],
    ),
    (
        "a budget of the agent's choice beside one of something else",
        "{id: a, budget: {sum: count, max: 5, per: 1h, by: query.user}},"
        "{id: b, budget: {sum: bytes, max: 5MB, per: 1h}}, {id: c, throttle: 9/s}",
        ["chosen-key"],
    ),
    (
        "a budget of the agent's choice beside one of the same",
        "{id: a, budget: {sum: count, max: 5, per: 1h, by: query.user}},{id: b, budget: {sum: count, max: 9, per: 1h}}",
        [],
    ),
    (
        "a budget of the agent's choice",
        "{id: a, budget: {sum: count, max: 5, per: 1h, by: query.user}}",
        ["chosen-key"],
    ),
    (
        "a budget of what may be left out",
        "{id: a, tool: told, allow: true, budget: {sum: body.n, max: 5, per: 1h}}",
        ["optional-amount"],
    ),
    (
        "a budget of what has to be there",
        "{id: a, tool: told, allow: true, budget: {sum: body.m, max: 5, per: 1h}}",
        [],
    ),
    (
        "a budget of a parameter that nobody tells",
        "{id: a, tool: write, allow: true, budget: {sum: body.n, max: 5, per: 1h}}",
        [],
    ),
    ("a budget of calls", "{id: a, tool: told, allow: true, budget: {sum: count, max: 5, per: 1h}}", []),
    ("a budget of a header", "{id: a, tool: told, allow: true, budget: {sum: header.n, max: 5, per: 1h}}", []),
    ("a retry under a key", "{id: a, tool: keyed, allow: true, dedupe: {on_unknown: keyed}}", []),
    ("a retry without a key", "{id: a, tool: write, allow: true, dedupe: {on_unknown: keyed}}", ["keyless-retry"]),
    ("a retry of whatever has a key", "{id: a, dedupe: {on_unknown: keyed}}", []),
    ("a limit of what nothing allows", "{id: a, tool: [write, told], throttle: 5/s}", ["unreachable-rule"]),
    (
        "a limit of what some rule may allow",
        "{id: a, tool: write, throttle: 5/s}, {id: b, match: https://x.example.com/**, allow: true, dedupe: 1h}",
        [],
    ),
    (
        "an allow of what is always denied",
        "{id: a, tool: write, allow: true, dedupe: 1h}, {id: b, tool: [write, told], deny: No.}",
        ["unreachable-rule"],
    ),
    (
        "an allow of what some are denied",
        "{id: a, tool: write, allow: true, dedupe: 1h}, {id: b, tool: write, agent: x, deny: No.}",
        [],
    ),
    (
        "a condition on what params refuse",
        "{id: a, tool: told, where: {any: [{body.nn: {lte: 5}}, {not: {body.nn: 1, query.n: 2}}]}, allow: true,"
        " dedupe: 1h}",
        ["unnamed-field", "unnamed-field"],
    ),
    (
        "a key that params refuse",
        "{id: a, tool: told, allow: true, dedupe: {key: [body.n, 'query.z|body.m'], by: agent}}",
        ["unnamed-field"],
    ),
    (
        "a key that params refuse, alone",
        "{id: a, tool: told, allow: true, dedupe: {key: body.nm, by: [agent, body.m]}}",
        ["unnamed-field"],
    ),
    (
        "a sum of what params refuse",
        "{id: a, tool: told, allow: true, budget: {sum: body.nm, max: 5, per: 1h}}",
        ["unnamed-field"],
    ),
    (
        "a comparison of what params refuse",
        "{id: a, tool: told, allow: true, dedupe: 1h, require: {after: search, same: {body.nm: query.q}}}, "
        "{id: b, tool: search, allow: true}",
        ["unnamed-field"],
    ),
    (
        "a condition on what one of two tools takes",
        "{id: a, tool: [told, write], where: {body.nn: 1}, allow: true, dedupe: 1h}",
        [],
    ),
    (
        "a condition on what params watch or leave open",
        "{id: a, tool: [watched], where: {body.z: 1}, allow: true, dedupe: 1h},"
        "{id: b, tool: [open], where: {body.z: 1}, allow: true, dedupe: 1h}",
        [],
    ),
    (
        "bounds that contradict",
        "{id: a, tool: search, where: {body.n: {gt: 10, lt: 5}}, allow: true}",
        ["contradiction"],
    ),
    (
        "a method that the pattern excludes",
        "{id: a, match: GET https://x.example.com/a, where: {method: POST}, allow: true}",
        ["contradiction"],
    ),
    (
        "a method that a tool excludes",
        "{id: a, tool: [write, search], where: {method: {not_in: [POST]}}, deny: No.}",
        ["contradiction"],
    ),
    ("a method that one of two tools has", "{id: a, tool: [trigger, search], where: {method: GET}, deny: No.}", []),
    ("a method of any", "{id: a, where: {method: POST}, deny: No.}", []),
    (
        "a host that the pattern excludes",
        "{id: a, tool: write, where: {host: y.example.com}, deny: No.}",
        ["contradiction"],
    ),
    (
        "a host that a wildcard may be",
        "{id: a, match: 'https://*.example.com/', where: {host: y.example.com}, deny: No.}",
        [],
    ),
    (
        "another agent",
        "{id: a, tool: search, agent: [ann, ben], where: {agent: {eq: eve}}, allow: true}",
        ["contradiction"],
    ),
    ("an agent that a glob may be", "{id: a, tool: search, agent: 'a*', where: {agent: {eq: eve}}, allow: true}", []),
    (
        "a match of a rule that no call meets",
        "{id: a, match: {request: GET https://x.example.com/a, where: {method: POST}}, deny: No.},"
        "{id: b, match: GET https://x.example.com/a, deny: No.,"
        " unless: {match: {request: GET https://x.example.com/a, where: {query.a: {gt: 2, lt: 1}}}}}",
        ["contradiction", "contradiction"],
    ),
    (
        "an exception that never excuses",
        "{id: a, tool: write, unless: {where: {method: GET}}, deny: No.},"
        "{id: b, tool: write, unless: {tool: trigger, where: {method: POST}}, deny: No.},"
        "{id: c, tool: write, unless: {where: {body.n: {eq: 1, ne: 1}}}, deny: No.}",
        ["contradiction", "contradiction", "contradiction"],
    ),
    ("a key of the proxy's", "{id: a, throttle: {rate: 5/s, by: [agent, host, credential]}}", []),
]


@pytest.mark.parametrize(("rules", "codes"), [case[1:] for case in WARNED], ids=[case[0] for case in WARNED])
def test_warnings(rules: str, codes: list[str]) -> None:
    found = loaded(f"""
        tools:
          write: POST https://x.example.com/write
          search: {{match: POST https://x.example.com/search, effect: read}}
          trigger: {{match: GET https://x.example.com/trigger, effect: write}}
          keyed: {{match: POST https://x.example.com/keyed, upstream_key: Idempotency-Key}}
          told:
            match: POST https://x.example.com/told
            body: json
            params: {{n: {{type: integer}}, m: {{type: integer, required: true}}}}
          watched: {{match: POST https://x.example.com/watched, params: {{}}, params_mode: monitor}}
          open: {{match: POST https://x.example.com/open, params: {{$body: {{}}}}}}
        rules: [{rules}]
        """).warnings
    assert [warning.code for warning in found] == codes
    assert all(warning.code in EXPLANATIONS and warning.help for warning in found)


def test_a_warning_names_a_few_tools_and_counts_the_rest() -> None:
    tools = indent("\n".join(f"t{n}: POST https://x.example.com/{n}" for n in range(6)), "  ")
    (warning,) = loaded(f"tools:\n{tools}\nrules: [{{id: a, tool: '*', allow: true}}]").warnings
    assert warning.message == "`a` allows writes that nothing limits: `t0`, `t1`, `t2` and 3 more tools"


def test_a_tool_that_names_no_call_is_warned_of() -> None:
    found = loaded("""
        tools:
          a: {match: {request: GET https://x.example.com/a, where: {method: POST}}}
          b: {match: {request: GET https://x.example.com/a, where: {query.n: {lt: 1, gte: 1}}}}
          c: {match: {request: GET https://x.example.com/a, where: {query.n: {lte: 1, gte: 1}}}}
        rules: []
        """).warnings
    assert [(each.code, each.message, each.mark.line) for each in found] == [
        ("contradiction", "`a` names no call: `method` is `GET` where its pattern matches", 3),
        ("contradiction", "no value of `query.n` is `lt 1` and also `gte 1`", 4),
    ]


@pytest.mark.parametrize("key", ["tolls", "tool", "Tools", "ruels", "rule"])
def test_a_misspelled_key_at_the_top_is_told_and_nothing_that_follows_from_it(key: str) -> None:
    meant = "tools" if key[0] in "tT" else "rules"
    text = """
        tools: {a: GET https://x.example.com/a}
        rules: [{id: a, tool: a, allow: true}, {id: b, tool: [a, 'a*'], unless: {tool: a}, deny: No.}]
        tests: [{name: a, call: {request: GET https://x.example.com/a}, expect: {decision: deny, rule: b, tool: a}}]
        """.replace(f"{meant}:", f"{key}:")
    (problem,) = refused(text)
    assert problem.startswith("unknown-key")
