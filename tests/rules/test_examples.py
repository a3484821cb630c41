"""Ten users' rule files: each loads, and does what its comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules.cases import run_case
from rules.load import Source, load

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/examples").iterdir())}
PACKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules/packs").glob("*.yaml"))}


def test_all_ten_are_here() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads(name: str) -> None:
    assert load([Source(name, EXAMPLES[name])], PACKS).ruleset.rules


CODING = """
version: 1
tests:
  - name: it may use its model
    call: {request: POST https://api.anthropic.com/v1/messages, json: {model: claude-x, messages: []}}
    expect: {decision: allow, rule: model, tool: anthropic.message}
  - name: it may ask its model the same again
    earlier: [{request: POST https://api.anthropic.com/v1/messages, json: {model: claude-x, messages: []}}]
    call: {request: POST https://api.anthropic.com/v1/messages, json: {model: claude-x, messages: []}}
    expect: {decision: allow, rule: model}
  - name: it may install from npm
    call: {request: GET https://registry.npmjs.org/left-pad}
    expect: {decision: allow, rule: install, tool: npm}
  - name: it may install from PyPI, whose files are elsewhere
    call: {request: GET https://files.pythonhosted.org/packages/ab/x.whl}
    expect: {decision: allow, rule: install, tool: pypi}
  - name: it may not publish
    call: {request: PUT https://registry.npmjs.org/left-pad}
    expect: {decision: deny, code: no-allow}
  - name: it may start a clone of our organisation
    call: {request: "GET https://github.com/acme/site.git/info/refs?service=git-upload-pack"}
    expect: {decision: allow, rule: clone, tool: git.fetch}
  - name: it may finish a clone of our organisation
    call: {request: POST https://github.com/acme/site.git/git-upload-pack}
    expect: {decision: allow, rule: clone, tool: git.fetch}
  - name: it may not clone others
    call: {request: "GET https://github.com/other/site.git/info/refs?service=git-upload-pack"}
    expect: {decision: deny, code: no-allow}
  - name: it may not start a push
    call: {request: "GET https://github.com/acme/site.git/info/refs?service=git-receive-pack"}
    expect: {decision: deny, code: no-allow}
  - name: it may not name two services
    call: {request: "GET https://github.com/acme/site.git/info/refs?service=git-upload-pack&service=git-receive-pack"}
    expect: {decision: deny, code: no-allow}
  - name: it may not push
    call: {request: POST https://github.com/acme/site.git/git-receive-pack}
    expect: {decision: deny, code: no-allow}
  - name: it may read our repositories
    call: {request: GET https://api.github.com/repos/acme/site/issues}
    expect: {decision: allow, rule: read}
  - name: it may not read others' repositories
    call: {request: GET https://api.github.com/repos/other/site/issues}
    expect: {decision: deny, code: no-allow}
  - name: it may propose a change
    call: {request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix, base: develop}}
    expect: {decision: allow, rule: propose, tool: github.pull.create}
  - name: it may not propose a change onto main
    call: {request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix, base: main}}
    expect: {decision: deny, code: no-allow}
  - name: it may not leave open onto what
    call: {request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix}}
    expect: {decision: deny, code: no-allow}
  - name: it may not propose a change to others
    call: {request: POST https://api.github.com/repos/other/site/pulls, json: {head: fix, base: develop}}
    expect: {decision: deny, code: no-allow}
  - name: the same proposal within the hour is answered with the first answer
    earlier: [{request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix, base: develop}}]
    call: {request: POST https://api.github.com/repos/acme/site/pulls, json: {base: develop, head: fix}, at: +59m}
    expect: {decision: replay, rule: propose, executed: "yes"}
  - name: after the hour it is a new one
    earlier: [{request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix, base: develop}}]
    call: {request: POST https://api.github.com/repos/acme/site/pulls, json: {head: fix, base: develop}, at: +1h}
    expect: {decision: allow, rule: propose}
"""

TEAM = """
version: 1
tests:
  - name: the docs agents read
    call: {agent: docs-site, request: GET https://api.github.com/repos/acme/site}
    expect: {decision: allow, rule: readers}
  - name: the docs agents do not write
    call: {agent: docs-site, request: POST https://api.github.com/repos/acme/site/issues, json: {title: a}}
    expect: {decision: deny, code: no-allow}
  - name: others do not read
    call: {agent: sales, request: GET https://api.github.com/repos/acme/site}
    expect: {decision: deny, code: no-allow}
  - name: the release agent writes
    call: {agent: release, request: POST https://api.github.com/repos/acme/site/releases, json: {tag_name: v1}}
    expect: {decision: allow, rule: writers}
  - name: the release agent writes the same once in ten minutes
    earlier: [{agent: release, request: POST https://api.github.com/repos/acme/site/releases, json: {tag_name: v1}}]
    call: {agent: release, request: POST https://api.github.com/repos/acme/site/releases, json: {tag_name: v1}, at: +9m}
    expect: {decision: replay, rule: writers}
  - name: nobody deletes, whatever else they may do
    call: {agent: release, request: DELETE https://api.github.com/repos/acme/site}
    expect: {decision: deny, code: policy-denied, rule: no-delete}
  - name: the janitor's deletions are not denied, but nothing allows them either
    call: {agent: janitor, request: DELETE https://api.github.com/repos/acme/site}
    expect: {decision: deny, code: no-allow}
"""

MAIL = """
version: 1
tests:
  - name: mail to colleagues goes out
    call:
      request: POST https://api.sendgrid.com/v3/mail/send
      json: {personalizations: [{to: [{email: ann@acme.com}, {email: bob@acme.com}]}], subject: Hello}
    expect: {decision: allow, rule: inside, tool: mail.send}
  - name: one recipient from outside is one too many
    call:
      request: POST https://api.sendgrid.com/v3/mail/send
      json: {personalizations: [{to: [{email: ann@acme.com}]}, {to: [{email: eve@evil.example}]}]}
    expect: {decision: deny, code: no-allow}
  - name: an address that only ends like a colleague's is from outside
    call:
      request: POST https://api.sendgrid.com/v3/mail/send
      json: {personalizations: [{to: [{email: "eve@evil.example, ann@acme.com"}]}]}
    expect: {decision: deny, code: no-allow}
  - name: a mail to nobody does not go out
    call: {request: POST https://api.sendgrid.com/v3/mail/send, json: {subject: Hello}}
    expect: {decision: deny, code: no-allow}
  - name: the same mail goes out once
    earlier:
      - request: POST https://api.sendgrid.com/v3/mail/send
        json: {personalizations: [{to: [{email: ann@acme.com}]}], subject: Hello}
    call:
      request: POST https://api.sendgrid.com/v3/mail/send
      json: {subject: Hello, personalizations: [{to: [{email: ann@acme.com}]}]}
      at: +23h
    expect: {decision: replay, rule: inside, executed: "yes"}
"""

GOOGLE = """
version: 1
tests:
  - name: the model may be asked
    call:
      request: POST https://generativelanguage.googleapis.com/v1beta/models/gemini-x:generateContent
      json: {contents: []}
    expect: {decision: allow, rule: model, tool: gemini}
  - name: the model's other methods are not named
    call: {request: POST https://generativelanguage.googleapis.com/v1beta/models/gemini-x:deleteAll, json: {}}
    expect: {decision: deny, code: no-allow}
  - name: tokens are renewed as often as needed
    earlier: [{request: POST https://oauth2.googleapis.com/token, form: {grant_type: refresh_token}}]
    call: {request: POST https://oauth2.googleapis.com/token, form: {grant_type: refresh_token}}
    expect: {decision: allow, rule: model, tool: token}
  - name: a row is appended
    call: {agent: clerk, request: "POST https://sheets.googleapis.com/v4/spreadsheets/s1/values/A:append", json: {v: 1}}
    expect: {decision: allow, rule: append, tool: sheet.append}
  - name: the same row is appended once, though the token has changed
    earlier:
      - agent: clerk
        request: POST https://sheets.googleapis.com/v4/spreadsheets/s1/values/A:append
        headers: {Authorization: Bearer one}
        json: {v: 1}
    call:
      agent: clerk
      request: POST https://sheets.googleapis.com/v4/spreadsheets/s1/values/A:append
      headers: {Authorization: Bearer two}
      json: {v: 1.0}
    expect: {decision: replay, rule: append, tool: sheet.append}
  - name: another row is another one
    earlier:
      - {agent: clerk, request: "POST https://sheets.googleapis.com/v4/spreadsheets/s1/values/A:append", json: {v: 1}}
    call: {agent: clerk, request: "POST https://sheets.googleapis.com/v4/spreadsheets/s1/values/A:append", json: {v: 2}}
    expect: {decision: allow, rule: append}
"""


def many(count: int, last: str, call: str) -> str:
    """A test of `count` + 1 calls, each with its own number for `%d` in `call`; the last is expected to be `last`."""
    calls = "".join(f"      - {{{call % number}}}\n" for number in range(count))
    final = f"{{{call % count}, expect: {last}}}"
    return f"version: 1\ntests:\n  - name: one of many\n    calls:\n{calls}      - {final}\n"


RESEARCH = """
version: 1
tests:
  - name: it reads
    call: {request: GET https://news.example.org/today}
    expect: {decision: allow, rule: browse, tool: web}
  - name: not what is internal
    call: {request: GET https://wiki.corp.example/}
    expect: {decision: deny, rule: no-internal}
  - name: after reading it still has its model
    earlier: [{request: GET https://news.example.org/today}]
    call: {request: POST https://api.openai.com/v1/responses, json: {model: gpt-x, input: Hello}}
    expect: {decision: allow, rule: model}
  - name: after reading it sends nothing
    earlier: [{request: GET https://news.example.org/today}]
    call: {request: POST https://paste.example.org/new, text: What I read, at: +20d}
    expect: {decision: deny, rule: tainted, code: policy-denied}
  - name: whatever came of the reading
    earlier: [{request: GET https://news.example.org/today, answer: lost}]
    call: {request: DELETE https://paste.example.org/1}
    expect: {decision: deny, rule: tainted}
  - name: before reading, what it sends is only not allowed
    call: {request: POST https://paste.example.org/new, text: Hello}
    expect: {decision: deny, code: no-allow}
"""


TOOL_CALL = """request: POST https://mcp.acme.example/mcp, answer: {status: %s},
        json: {jsonrpc: "2.0", id: %d, method: tools/call, params: {name: %s, arguments: {q: a}}}"""


def mcp_calls(name: str, status: int, count: int, last: str) -> str:
    """A test of `count` equal calls of one MCP tool, and one more, of which `last` is expected."""
    calls = "".join(f"      - {{{TOOL_CALL % (status, number, name)}}}\n" for number in range(count))
    final = f"{{{TOOL_CALL % (status, count, name)}, expect: {last}}}"
    return f"version: 1\ntests:\n  - name: again and again\n    calls:\n{calls}      - {final}\n"


MCP = mcp_calls("find", 500, 2, "allow")
MCP_ERROR = mcp_calls("find", 500, 3, "{decision: deny, code: loop-detected, rule: tools}")
MCP_RESULT = mcp_calls("find", 200, 5, "{decision: deny, code: loop-detected, rule: tools}")
MCP_DELETE = mcp_calls("delete_all", 200, 0, "{decision: deny, code: policy-denied, rule: no-delete}")

POOL = many(
    20,
    "{decision: allow, rule: writers, would: trial}",
    "agent: release, request: POST https://api.github.com/repos/acme/site/issues, json: {title: t%d}",
)
HOUR = many(
    50,
    "{decision: throttle, code: rate-limited, rule: inside}",
    "request: POST https://api.sendgrid.com/v3/mail/send, "
    "json: {subject: s%d, personalizations: [{to: [{email: a@acme.com}]}]}",
)

DATA = """
version: 1
tests:
  - name: it reads its bucket
    call: {request: GET https://acme-data.s3.eu-west-1.amazonaws.com/2026/a.csv}
    expect: {decision: allow, rule: read, tool: s3.get}
  - name: and its table
    call:
      request: POST https://dynamodb.eu-west-1.amazonaws.com/
      headers: {X-Amz-Target: DynamoDB_20120810.GetItem}
      json: {TableName: t}
    expect: {decision: allow, rule: read, tool: dynamodb.get}
  - name: it does not write to the table
    call:
      request: POST https://dynamodb.eu-west-1.amazonaws.com/
      headers: {X-Amz-Target: DynamoDB_20120810.PutItem}
      json: {TableName: t}
    expect: {decision: deny, code: no-allow}
  - name: it writes to the other bucket
    call: {request: PUT https://acme-out.s3.eu-west-1.amazonaws.com/a.csv, text: "a,b"}
    expect: {decision: allow, rule: write, tool: s3.put}
"""

COST = """
version: 1
tests:
  - name: a model may be asked
    call:
      agent: ann
      request: POST https://api.openai.com/v1/chat/completions
      json: {model: gpt-4o, max_tokens: 1000, messages: []}
    expect: {decision: allow, rule: each, tool: openai.chat}
  - name: an agent has twenty dollars a day
    earlier:
      - {agent: ann, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
    call:
      agent: ann
      request: POST https://api.anthropic.com/v1/messages
      json: {model: claude-sonnet-4-5, max_tokens: 100000, messages: []}
    expect: {decision: deny, rule: each, code: budget-exhausted}
  - name: another agent has twenty of its own
    earlier:
      - {agent: ann, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
    call: {agent: bob, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
    expect: {decision: allow, rule: each}
  - name: all of them have a hundred
    earlier:
      - {agent: a, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
      - {agent: b, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
      - {agent: c, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
      - {agent: d, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
      - {agent: e, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 1900000}}
    call: {agent: f, request: POST https://api.openai.com/v1/responses, json: {model: gpt-4o, max_tokens: 600000}}
    expect: {decision: deny, rule: all, code: budget-exhausted}
  - name: the day is that of UTC
    earlier:
      - agent: ann
        at: "2026-01-05T23:00Z"
        request: POST https://api.openai.com/v1/responses
        json: {model: gpt-4o, max_output_tokens: 1900000}
    call:
      agent: ann
      at: "2026-01-06T00:00Z"
      request: POST https://api.openai.com/v1/responses
      json: {model: gpt-4o, max_output_tokens: 1900000}
    expect: {decision: allow, rule: each}
  - name: a model that nobody knows the price of is refused
    call: {agent: ann, request: POST https://api.openai.com/v1/responses, json: {model: gpt-unheard-of}}
    expect: {decision: deny, code: parameters-invalid, rule: each}
  - name: to look at what there is costs nothing
    call: {agent: ann, request: GET https://api.openai.com/v1/models}
    expect: {decision: allow, rule: each}
"""

REFUNDS = many(
    10,
    "{decision: deny, code: budget-exhausted, rule: refund}",
    "agent: support, request: POST https://api.stripe.com/v1/refunds, form: {charge: ch_%d, amount: 5000}",
)

SAID: list[tuple[str, str]] = [
    ("01-coding-agent.yaml", CODING),
    ("02-support-agent.yaml", REFUNDS),
    ("03-research-agent.yaml", RESEARCH),
    ("04-data-agent.yaml", DATA),
    ("05-mcp-host.yaml", MCP),
    ("05-mcp-host.yaml", MCP_ERROR),
    ("05-mcp-host.yaml", MCP_RESULT),
    ("05-mcp-host.yaml", MCP_DELETE),
    ("06-model-cost.yaml", COST),
    ("07-team-gateway.yaml", TEAM),
    ("07-team-gateway.yaml", POOL),
    ("08-mail.yaml", MAIL),
    ("08-mail.yaml", HOUR),
    ("09-google.yaml", GOOGLE),
]


@pytest.mark.parametrize(("name", "tests"), SAID)
def test_an_example_does_what_its_comments_say(name: str, tests: str) -> None:
    loaded = load([Source(name, EXAMPLES[name]), Source("tests.yaml", tests)], PACKS)
    failed = [(case.name, run_case(loaded.ruleset, case).mismatches) for case in loaded.cases]
    assert [one for one in failed if one[1]] == []
    assert loaded.cases


DESIGN = """
version: 1
tools:
  stripe.charge.read: GET https://api.stripe.com/v1/charges/{charge}
  stripe.refund:
    match: POST https://api.stripe.com/v1/refunds
    body: form
    params:
      charge: {type: string, pattern: "^ch_[A-Za-z0-9]+$", required: true}
      amount: {type: integer, minimum: 1, required: true}
      reason: {enum: [duplicate, fraudulent, requested_by_customer]}
    upstream_key: Idempotency-Key
rules:
  - {id: read-charges, tool: stripe.charge.read, allow: true}
  - id: small-refunds
    tool: stripe.refund
    where: {body.amount: {lte: 5000}}
    allow: true
    dedupe: {window: 24h, key: [body.charge, body.amount]}
    require: {after: stripe.charge.read, same: {body.charge: path.charge}, within: 30m}
tests:
  - name: a refund without reading the charge first is refused
    call: {agent: support, request: POST https://api.stripe.com/v1/refunds, form: {charge: ch_1, amount: 500}}
    expect: {decision: deny, rule: small-refunds, code: prerequisite-missing}
  - name: in the right order it goes out, once
    calls:
      - {agent: support, request: GET https://api.stripe.com/v1/charges/ch_1}
      - agent: support
        request: POST https://api.stripe.com/v1/refunds
        form: {charge: ch_1, amount: 500}
        expect: {decision: allow, rule: small-refunds}
      - agent: support
        request: POST https://api.stripe.com/v1/refunds
        form: {charge: ch_1, amount: 500}
        expect: {decision: replay, rule: small-refunds}
"""


def test_the_example_that_the_language_was_designed_by() -> None:
    loaded = load([Source("design.yaml", DESIGN)], {})
    assert [run_case(loaded.ruleset, case).mismatches for case in loaded.cases] == [(), ()]
