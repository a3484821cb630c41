"""`rules` and `init` on the command line: what people read, what programs read, and the exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

import cli
from proxy import rulefiles, starter
from proxy.report.refused import MEANINGS
from rules.codes import CODES

HOUSE = Path(__file__).parents[1]
SHOP = "https://shop.example"
RULES = """\
version: 1
tools:
  orders.create: POST https://shop.example/orders
  orders.read: GET https://shop.example/orders/{order}
rules:
  - id: small-orders
    tool: orders.create
    where: {body.total: {lte: 100}}
    allow: true
    dedupe: 24h
  - {id: look, tool: orders.read, allow: true}
  - {id: no-deletes, match: "DELETE https://**", deny: Deleting is not permitted.}
  - {id: only-shops, agent: shop, match: "GET https://shop.example/**", deny: Not for shops., mode: monitor}
tests:
  - name: small orders are sent
    call: {request: POST https://shop.example/orders, json: {total: 5}}
    expect: {decision: allow, rule: small-orders}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BORDERPOST_"):
            monkeypatch.delenv(name)
    (tmp_path / "borderpost.yaml").write_text(RULES)


def borderpost(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, list(arguments), prog_name="borderpost")


# --- check ---


def test_right_files_are_counted() -> None:
    result = borderpost("rules", "check")
    assert (result.output, result.exit_code) == ("1 file: 4 rules, 2 tools, 1 test, no problems\n", 0)


def test_bounds_of_the_ledger_are_told() -> None:
    Path("borderpost.yaml").write_text(f"{RULES}\nledger: {{max_size: 2GiB, keep: 90d}}\n")
    said = "1 file: 4 rules, 2 tools, 1 test, a ledger of at most 2.0 GiB, data kept for 90 d, no problems\n"
    assert borderpost("rules", "check").output == said
    told = json.loads(borderpost("rules", "check", "--json").output)
    assert told["ledger"] == {"max_bytes": 2 << 30, "keep_ns": 90 * 86_400_000_000_000}


def test_wrong_files_are_shown_with_their_lines_and_summed_up() -> None:
    Path("borderpost.yaml").write_text(
        RULES.replace("dedupe: 24h", "dedup: 24h").replace("orders.read, allow", "order.read, allow")
    )
    result = borderpost("rules", "check")
    assert result.exit_code == 1
    assert result.stdout == (
        "error[unknown-key]: `dedup` is not a key of a rule\n"
        "  --> borderpost.yaml:10:5\n"
        "   |\n"
        "10 |     dedup: 24h\n"
        "   |     ^\n"
        "   |\n"
        "help: did you mean `dedupe`?\n"
        "\n"
        "error[unknown-tool]: no tool is named `order.read`\n"
        "  --> borderpost.yaml:11:22\n"
        "   |\n"
        "11 |   - {id: look, tool: order.read, allow: true}\n"
        "   |                      ^\n"
        "   |\n"
        "help: did you mean `orders.read`?\n"
        "\n"
        "2 problems in 1 file\n"
    )
    told = json.loads(borderpost("rules", "check", "--json").stdout)
    assert told["ok"] is False
    assert [(one["code"], one["line"], one["col"]) for one in told["problems"]] == [
        ("unknown-key", 10, 5),
        ("unknown-tool", 11, 22),
    ]


def test_warnings_are_shown_and_stop_nothing() -> None:
    Path("borderpost.yaml").write_text(RULES.replace("    dedupe: 24h\n", ""))
    result = borderpost("rules", "check")
    assert result.exit_code == 0
    assert result.stdout.startswith("warning[unlimited-writes]: `small-orders` allows writes that nothing limits")
    assert result.stdout.endswith("\n\n1 file: 4 rules, 2 tools, 1 test, 1 warning\n")
    told = json.loads(borderpost("rules", "check", "--json").stdout)
    assert (told["ok"], told["rules"], told["problems"][0]["level"]) == (True, 4, "warning")


def test_paths_can_be_named_as_arguments(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text("version: 1\nrules: []\n")
    assert borderpost("rules", "check", "more", "borderpost.yaml").output.startswith("2 files: 4 rules,")


# --- test ---


def test_a_failed_test_says_what_was_expected() -> None:
    Path("borderpost.yaml").write_text(RULES.replace("rule: small-orders}", "rule: look}"))
    result = borderpost("rules", "test")
    assert result.exit_code == 1
    assert result.stdout == (
        "FAIL small orders are sent\n"
        "     borderpost.yaml:15\n"
        "     rule was expected to be `look` and is `small-orders`\n"
        "\n"
        "1 test: 0 passed, 1 failed\n"
    )
    told = json.loads(borderpost("rules", "test", "--json").stdout)
    assert (told["passed"], told["failed"], told["tests"][0]["passed"]) == (0, 1, False)


def test_passing_tests_are_named_when_asked() -> None:
    assert borderpost("rules", "test").output == "1 test: 1 passed\n"
    assert borderpost("rules", "test", "-v").output == "pass small orders are sent\n\n1 test: 1 passed\n"


MORE = """\
  - name: Large orders are refused
    call: {request: POST https://shop.example/orders, json: {total: 500}}
    expect: {decision: deny, code: policy-denied}
"""


def test_tests_are_chosen_by_words_of_their_names() -> None:
    Path("borderpost.yaml").write_text(RULES + MORE)
    assert borderpost("rules", "test").output.endswith("2 tests: 1 passed, 1 failed\n")
    assert borderpost("rules", "test", "-k", "small").output == "1 test: 1 passed\n"
    assert borderpost("rules", "test", "-k", "orders LARGE").output.endswith("1 test: 0 passed, 1 failed\n")
    none = borderpost("rules", "test", "-k", "small refused")
    assert none.exit_code == 2
    assert "no test has `small refused` in its name" in none.output
    Path("borderpost.yaml").write_text(RULES[: RULES.index("tests:")])
    assert borderpost("rules", "test", "-k", "small").exit_code == 0


def test_coverage_tells_which_side_of_a_rule_no_test_has_seen() -> None:
    result = borderpost("rules", "test", "--coverage")
    assert result.exit_code == 0
    assert result.output == (
        "1 test: 1 passed\n"
        "\n"
        "RULE          LETS THROUGH  REFUSES  FROM\n"
        "look                 never        -  borderpost.yaml:11\n"
        "no-deletes               -    never  borderpost.yaml:12\n"
        "only-shops           never    never  borderpost.yaml:13\n"
        "small-orders             1    never  borderpost.yaml:6\n"
        "\n"
        "4 rules: 0 tested on every side, 1 on one, 3 on none\n"
    )
    told = json.loads(borderpost("rules", "test", "--coverage", "--json").stdout)
    assert told["coverage"][0] == {
        "rule": "look",
        "source": "borderpost.yaml:11",
        "lets_through": 0,
        "refuses": None,
    }
    assert "coverage" not in json.loads(borderpost("rules", "test", "--json").stdout)


def test_coverage_that_is_complete() -> None:
    Path("borderpost.yaml").write_text(
        """\
version: 1
rules: [{id: look, match: GET https://shop.example/, allow: true}]
tests: [{name: it may look, call: {request: GET https://shop.example/}, expect: allow}]
"""
    )
    assert borderpost("rules", "test", "--coverage").output.endswith("\n1 rule: 1 tested on every side\n")
    Path("borderpost.yaml").write_text("version: 1\nrules: []\n")
    assert borderpost("rules", "test", "--coverage").output == "no tests: add `tests:` to a rule file\n"


def test_results_are_written_as_junit_xml() -> None:
    Path("borderpost.yaml").write_text(RULES + MORE.replace("Large orders", "Large <b> & orders"))
    result = borderpost("rules", "test", "--junit", "out.xml")
    assert result.exit_code == 1
    assert result.output.endswith("2 tests: 1 passed, 1 failed\n")
    suites = ElementTree.parse("out.xml").getroot()
    assert (suites.tag, suites.get("tests"), suites.get("failures")) == ("testsuites", "2", "1")
    passed, failed = suites.findall("testsuite/testcase")
    assert (passed.get("name"), passed.get("classname"), passed.get("line")) == (
        "small orders are sent",
        "borderpost.yaml",
        "15",
    )
    assert list(passed) == []
    assert failed.get("name") == "Large <b> & orders are refused"
    (failure,) = failed
    assert failure.get("message") == "code was expected to be `policy-denied` and is `no-allow`"
    assert "No rule allows this call" in str(failure.text)
    assert borderpost("rules", "test", "--junit", "nowhere/out.xml").exit_code == 3


@pytest.mark.parametrize("command", ["test", "list", "eval"])
def test_broken_rules_are_shown_and_the_exit_code_is_could_not(command: str) -> None:
    Path("borderpost.yaml").write_text("version: 1\nrulez: []\n")
    result = borderpost("rules", command, *(["GET https://shop.example/"] if command == "eval" else []))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error[unknown-key]" in result.stderr
    assert result.stderr.endswith("error: the rules cannot be used: 1 problem\n")


# --- eval ---


@pytest.mark.parametrize(
    ("sentence", "arguments", "decision", "why"),
    [
        ("a body within the limit", [f"POST {SHOP}/orders", "--json", '{"total": 5}'], "allow", "small-orders"),
        ("a form reads alike", [f"POST {SHOP}/orders", "--form", "total=5"], "allow", "small-orders"),
        ("a body makes it a POST", [f"{SHOP}/orders", "--form", "total=5"], "allow", "small-orders"),
        ("a body above", [f"POST {SHOP}/orders", "--json", '{"total": 500}'], "deny", "no-allow"),
        ("no method is GET", [f"{SHOP}/orders/7"], "allow", "look"),
        ("a deny", [f"DELETE {SHOP}/orders/7"], "deny", "policy-denied"),
        ("a duplicate key", [f"POST {SHOP}/orders", "--json", '{"total": 5, "total": 6}'], "deny", "ambiguous-request"),
        ("two readings of the path", [f"GET {SHOP}/a/../b"], "deny", "ambiguous-request"),
        ("two hosts", [f"GET {SHOP}/orders/7", "--header", "Host: x.example"], "deny", "ambiguous-request"),
    ],
)
def test_one_call_is_decided_as_the_proxy_would(sentence: str, arguments: list[str], decision: str, why: str) -> None:
    result = borderpost("rules", "eval", *arguments, "--json")
    told = json.loads(result.stdout)
    assert (told["decision"], told["code"] or told["rules"][0]) == (decision, why), sentence
    assert result.exit_code == (0 if decision == "allow" else 1)


def test_the_tree_says_why_and_what_came_nearest() -> None:
    result = borderpost("rules", "eval", "POST https://shop.example/orders", "--json", '{"total": 500}')
    assert result.stdout == (
        "deny (no-allow, status 403)\n"
        "├─ No rule allows this call: the nearest, `small-orders`, wants `body.total` to\n"
        "│  be at most 100, and it is 500. It was decided by policy, and nothing was\n"
        "│  executed.\n"
        "├─ tool orders.create, which writes\n"
        "├─ rule small-orders (allow, dedupe), the nearest allow, does not apply ·\n"
        "│  │  borderpost.yaml:6\n"
        "│  └─ body.total lte 100: it is 500\n"
        "├─ 3 other rules are not about this call\n"
        "└─ what to do\n"
        "   ├─ Do not repeat this call unchanged.\n"
        "   └─ Change it so that a rule allows it, or ask a person.\n"
    )


def test_an_allow_that_is_excused_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text(
        "version: 1\nrules: [{id: web, match: GET https://shop.example/, unless: {agent: shop}, allow: true}]"
    )
    told = borderpost("rules", "eval", "GET https://shop.example/", "--agent", "shop").stdout
    assert "  └─ its `unless` holds\n" in told
    assert "\n├─ 1 rule is not about this call\n" in borderpost("rules", "eval", "GET https://other.example/").stdout


def test_tools_that_share_an_address_are_counted_where_they_are_many(tmp_path: Path) -> None:
    (tmp_path / "borderpost.yaml").write_text("version: 1\nuse: [linear]\nrules: []\n")
    told = borderpost(
        "rules", "eval", "POST https://api.linear.app/graphql", "--json", '{"query": "{ viewer { id } }"}'
    )
    assert (
        "├─ tool linear.query, which only reads\n"
        "│  └─ 57 other tools match too: its `graphql` does not fit the message\n"
    ) in told.stdout
    few = borderpost("rules", "eval", "GET https://uploads.linear.app/a").stdout
    assert "match too" not in few


def test_who_asks_counts_and_monitored_rules_are_told() -> None:
    asked = ["rules", "eval", "GET https://shop.example/orders/7"]
    assert "would be refused" not in borderpost(*asked).stdout
    told = borderpost(*asked, "--agent", "shop")
    assert told.exit_code == 0
    assert "would be refused by only-shops: Not for shops." in told.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "`nonsense` is no request"),
        (["GET ftp://shop.example/"], "is no request"),
        (["GET https://user@shop.example/"], "is no request"),
        (["POST https://shop.example/", "--json", "{"], "is no JSON"),
        (["POST https://shop.example/", "--json", "{}", "--form", "a=b"], "a call has one body"),
        (["POST https://shop.example/", "--form", "a"], "has no `=`"),
        (["POST https://shop.example/", "--header", "a"], "has no `:`"),
    ],
)
def test_what_is_no_request_is_wrong_usage(arguments: list[str], message: str) -> None:
    result = borderpost("rules", "eval", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# --- list, explain, schema ---


def test_rules_and_tools_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert borderpost("rules", "list").stdout == (
        "RULE          SAYS            CALLS                           FROM\n"
        "look          allow           orders.read                     borderpost.yaml:11\n"
        "no-deletes    deny            DELETE https://**               borderpost.yaml:12\n"
        "only-shops    deny (monitor)  GET https://shop.example/**     borderpost.yaml:13\n"
        "small-orders  allow dedupe    orders.create where body.tota…  borderpost.yaml:6\n"
    )
    assert borderpost("rules", "list", "--tools").stdout == (
        "TOOL           EFFECT  RULES  CALLS\n"
        "orders.create  write       1  POST https://shop.example/orders\n"
        "orders.read    read        1  GET https://shop.example/orders/{order}\n"
    )
    rules = {rule["id"]: rule for rule in json.loads(borderpost("rules", "list", "--json").stdout)}
    assert rules["small-orders"]["guards"] == ["dedupe"]
    assert rules["small-orders"]["tools"] == ["orders.create"]
    assert rules["no-deletes"]["match"] == ["DELETE https://**"]
    assert rules["only-shops"]["mode"] == "monitor"
    tools = json.loads(borderpost("rules", "list", "--tools", "--json").stdout)
    assert [(tool["name"], tool["effect"], tool["rules"]) for tool in tools] == [
        ("orders.create", "write", ["small-orders"]),
        ("orders.read", "read", ["look"]),
    ]


@pytest.mark.parametrize("code", ["unknown-tool", "no-allow", rulefiles.UNREADABLE])
def test_every_kind_of_code_is_explained_and_listed(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(borderpost("rules", "explain", code).stdout) > 50
    listed = borderpost("rules", "explain").stdout
    assert any(line.startswith(f"{code} ") for line in listed.splitlines())
    assert max(map(len, listed.splitlines())) <= 80


def test_a_code_is_explained_in_json_too() -> None:
    assert borderpost("rules", "explain", "no-such", "--json").exit_code == 1
    told = json.loads(borderpost("rules", "explain", "rate-limited", "--json").stdout)
    assert (told["code"], told["problem"]) == ("rate-limited", None)
    assert {**told["refusal"], "meaning": ""} == {
        "title": "Rate limited", "status": 429, "retry": "yes", "final": False, "meaning": "",
    }  # fmt: skip
    listed = json.loads(borderpost("rules", "explain", "--json").stdout)
    assert {one["code"] for one in listed if one["refusal"]} == set(CODES)
    assert next(one for one in listed if one["code"] == rulefiles.UNREADABLE)["problem"].startswith("The file could")


def test_a_code_of_a_problem_and_of_a_refusal_is_explained_as_both() -> None:
    told = borderpost("rules", "explain", "concurrency").stdout
    assert "right:" in told and "Too many at the same time: a refusal, answered with status 429." in told


def test_every_refusal_says_what_it_means_and_what_to_do() -> None:
    assert set(MEANINGS) == set(CODES)
    told = borderpost("rules", "explain", "rate-limited").stdout
    assert told.startswith("Rate limited: a refusal, answered with status 429.\n\nA `throttle` had no room.")
    assert max(map(len, told.splitlines())) <= 100


def test_the_schema_is_json_schema() -> None:
    assert json.loads(borderpost("rules", "schema").stdout)["$schema"] == "http://json-schema.org/draft-07/schema#"


# --- init ---


def test_init_with_everything_is_right_from_the_first_moment(tmp_path: Path) -> None:
    models = [word for name in starter.MODELS for word in ("--model", name)]
    packs = [word for name in rulefiles.packs() for word in ("--pack", name)]
    made = borderpost("init", "new", *models, *packs, "--allow", "POST http://localhost:6333/**")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines()[0] == "new/rules/main.yaml"
    assert made.stdout.splitlines()[-1] == "new/rules/rules.schema.json"
    checked = borderpost("rules", "check", "--rules", "new/rules")
    assert (checked.exit_code, checked.stdout.rpartition(", ")[2]) == (0, "no problems\n")
    assert borderpost("rules", "test", "--rules", "new/rules").exit_code == 0
    assert (
        (tmp_path / "new/rules/main.yaml")
        .read_text()
        .startswith("# yaml-language-server: $schema=./rules.schema.json\n")
    )


@pytest.mark.parametrize("model", starter.MODELS)
def test_the_model_is_reached_and_nothing_else(model: str) -> None:
    assert borderpost("init", "new", "--model", model).exit_code == 0
    assert borderpost("rules", "check", "new/rules").stdout.endswith("no problems\n")
    assert borderpost("rules", "test", "--rules", "new/rules").stdout == "2 tests: 2 passed\n"


@pytest.mark.parametrize("pack", rulefiles.packs())
def test_each_pack_is_a_beginning_by_itself(pack: str) -> None:
    assert borderpost("init", "new", "--pack", pack).exit_code == 0
    assert borderpost("rules", "check", "new/rules").stdout.endswith("no problems\n")
    assert borderpost("rules", "test", "--rules", "new/rules").exit_code == 0


def test_init_that_asks_nothing_allows_nothing() -> None:
    assert borderpost("init", "new", "--yes").exit_code == 0
    assert borderpost("rules", "check", "new/rules").exit_code == 0
    assert borderpost("rules", "eval", "GET https://example.com/", "--rules", "new/rules").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "--model", "opanai"], "there is no model `opanai` (did you mean `openai`?)"),
        (["new", "--allow", "everything"], "cannot allow `everything`: "),
        (["new", "--pack", "stripe", "--allow", "GET https://**"], "what is allowed is too wide: the test `"),
        (["."], "exists, and is read instead of `rules`: move it there first"),
    ],
)
def test_init_refuses_in_one_line_and_writes_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = borderpost("init", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (3, 1)
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["borderpost.yaml"]


def test_init_overwrites_only_by_force(tmp_path: Path) -> None:
    borderpost("init", "new", "--yes")
    (tmp_path / "new/rules/main.yaml").write_text("mine")
    refused = borderpost("init", "new", "--yes")
    assert refused.exit_code == 3
    assert "`new/rules/main.yaml` exists already: edit it, or write it anew with `--force`" in refused.stderr
    assert (tmp_path / "new/rules/main.yaml").read_text() == "mine"
    assert borderpost("init", "new", "--yes", "--force").exit_code == 0
    assert (tmp_path / "new/rules/main.yaml").read_text() != "mine"


def test_init_adds_a_pack_to_rules_that_are_there(tmp_path: Path) -> None:
    borderpost("init", "new", "--pack", "stripe")
    mine = tmp_path / "new" / "rules" / "main.yaml"
    mine.write_text("version: 1\nrules: [{id: mine, match: GET https://shop.example/, allow: true}]\n")
    added = borderpost("init", "new", "--pack", "github")
    assert added.stdout.splitlines() == ["new/rules/github.yaml", "new/rules/rules.schema.json"]
    assert "id: mine" in mine.read_text()
    assert borderpost("rules", "test", "--rules", "new/rules").exit_code == 0
    again = borderpost("init", "new", "--pack", "github")
    assert (again.exit_code, again.stdout) == (3, "")
    assert "`new/rules/github.yaml` exists already" in again.stderr


def test_init_asks_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, b"openai, olama\nopenai ollama\nstripe\nnonsense\nPOST http://localhost:6333/**\n\n")
    environment = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run(
        [sys.executable, "-m", "cli", "init", "new"],
        stdin=theirs,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "not known: olama" in done.stderr
    assert "`nonsense` names no host" in done.stderr
    assert done.stdout.splitlines() == ["new/rules/main.yaml", "new/rules/stripe.yaml", "new/rules/rules.schema.json"]
    main = (tmp_path / "new/rules/main.yaml").read_text()
    for part in ("use: [openai]", "id: model-ollama", '"POST http://localhost:6333/**"'):
        assert part in main
