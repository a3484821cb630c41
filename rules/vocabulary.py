"""The words of rule files: what may stand where, and what each means. The loader and the editor schema read this table.

Guards are not here: each brings its own word and schema (`rules.guards`).
"""

from __future__ import annotations

from typing import Any

import msgspec

type Schema = dict[str, Any]
"""A piece of JSON Schema, draft 7."""


class Word(msgspec.Struct, frozen=True):
    """One key of a mapping: what it means, in a sentence for editors, and the shape of its value."""

    description: str
    schema: Schema


MODES = ("enforce", "monitor")
EFFECTS = ("read", "write")
REFUSALS = ("json", "s3", "aws-query", "aws-json", "slack", "grpc", "mcp", "graphql", "github", "notion")
"""Dialects of refusals: what the clients of an API can read."""

BODIES = ("json", "form", "multipart", "text", "none")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
"""Ids of rules and names of tools: they stand in refusals, headers and the ledger."""

HEADER_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
FIELD_NAME = r"[A-Za-z0-9_$@-]{1,64}"
SIZE = r"([1-9][0-9]{0,11})(B|kB|KB|KiB|MB|MiB|GB|GiB)"


def ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def one_or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS = one_or_list(TEXT)
MATCHES = one_or_list({"anyOf": [ref("pattern"), ref("match")]})
KEY_FIELD: Schema = {"type": "string", "pattern": f"^{FIELD_NAME}$"}
HEADER: Schema = {"type": "string", "pattern": f"^{HEADER_NAME}$"}
DURATION: Schema = {"type": "string", "pattern": "^[0-9]+(ms|s|m|min|h|d)$"}
MODE: Schema = {"enum": list(MODES)}

FILE: dict[str, Word] = {
    "version": Word("The version of the language of rule files. It is 1.", {"const": 1}),
    "use": Word("Shipped packs whose tools this rule set uses, such as [stripe, github].", one_or_list(TEXT)),
    "mode": Word("monitor: record what the rules would refuse, but refuse nothing for it. Default: enforce.", MODE),
    "ledger": Word("How much the ledger may hold. Default: everything.", ref("ledger")),
    "tools": Word(
        "Names for operations of APIs: what a call is.",
        {"type": "object", "propertyNames": {"pattern": f"^{NAME}$"}, "additionalProperties": ref("tool")},
    ),
    "rules": Word("What may happen to calls.", {"type": "array", "items": ref("rule")}),
    "tests": Word("Calls, and what is expected to be decided for them.", {"type": "array", "items": ref("test")}),
}

TOOL: dict[str, Word] = {
    "match": Word("The calls that are this tool: a pattern, a mapping with `request` and `where`, or a list.", MATCHES),
    "effect": Word(
        "Whether its calls only read. Default: GET, HEAD and OPTIONS read, all else writes.", {"enum": list(EFFECTS)}
    ),
    "body": Word("How its request bodies read. Default: as their content type says.", {"enum": list(BODIES)}),
    "credential": Word(
        "Where the caller's secret is, when not in Authorization: header.NAME or query.NAME.",
        {"type": "string", "pattern": "^(header|query)\\.."},
    ),
    "refusal": Word(
        "How its clients are told of a refusal: s3 as XML, slack as ok: false, and so on. Default: as the call shows.",
        {"enum": list(REFUSALS)},
    ),
    "upstream_key": Word(
        "The header (or field) by which the API itself knows a repetition, such as Idempotency-Key. `dedupe` sends a "
        "key in it.",
        {"anyOf": [HEADER, ref("upstream_key")]},
    ),
    "expect": Word(
        "What an answer is that means success, such as {status: 2xx, body.ok: true}. Others are recorded as failed.",
        ref("success"),
    ),
    "params": Word(
        "What its calls may say: a name for each parameter (of a message of MCP or GraphQL: for each argument), with "
        "what it may be. All others are refused; {} is none.",
        {"type": "object", "additionalProperties": ref("parameter")},
    ),
    "params_mode": Word(
        "monitor: record what `params` would refuse, and refuse nothing for it. Default: enforce.", MODE
    ),
    "polling": Word(
        "Asking it again and again for the same answer is what it is for: `loop` counts its errors only.",
        {"type": "boolean"},
    ),
    "cap": Word(
        "The largest body that is buffered to decide, such as 1MiB. Default: 16MiB; at most 256MiB.",
        {"type": "string", "pattern": f"^{SIZE}$"},
    ),
}

LEDGER: dict[str, Word] = {
    "max_size": Word(
        "How large its file may become, such as 2GiB; at least 16MiB. For room, what old calls were decided by is "
        "given up; when that is not enough, calls are refused.",
        {"type": "string", "pattern": f"^{SIZE}$"},
    ),
    "keep": Word("How long what calls were decided by is kept, such as 90d. Who called what stays.", DURATION),
}

UPSTREAM_KEY: dict[str, Word] = {
    "header": Word("The header that holds the key.", HEADER),
    "query": Word("The parameter of the query that holds the key.", KEY_FIELD),
    "body": Word("The member of the JSON object or form that holds the key.", KEY_FIELD),
    "retention": Word("How long the API remembers a key, such as 24h. Default: 24h.", DURATION),
}

SUCCESS: dict[str, Word] = {
    "otherwise": Word(
        "What became of the effect, when the answer is another and its status is 2xx or 3xx. Default: unknown.",
        {"enum": ["done", "not_executed", "unknown"]},
    ),
    "not_executed_if": Word(
        "Failed answers by which the API promises that nothing was done: a condition on the answer.", ref("success")
    ),
    "show_as": Word(
        "Give the agent this status with a failed answer, such as 422. Default: its own.",
        {"type": "integer", "minimum": 400, "maximum": 599},
    ),
}

MATCH: dict[str, Word] = {
    "request": Word("The pattern: METHOD[|METHOD] scheme://host[:port]/path.", ref("pattern")),
    "mcp": Word('The MCP tool that is called: a name, a glob, "*", or `session` for all else of the protocol.', TEXT),
    "graphql": Word("The GraphQL operation: its type and root fields, such as `mutation createIssue`.", TEXT),
    "where": Word("A condition on the fields of the call that tells these calls from others.", ref("condition")),
}

SELECT: dict[str, Word] = {
    "tool": Word("The tools: a name, a glob such as stripe.*, or a list of these.", TEXTS),
    "match": Word("The calls, instead of `tool`: a pattern, a mapping with `request` and `where`, or a list.", MATCHES),
    "agent": Word("The agents: a name, a glob such as docs-*, or a list of these.", TEXTS),
    "run": Word("The runs: an id, a glob, or a list of these.", TEXTS),
    "where": Word("A condition on the fields of the call.", ref("condition")),
    "during": Word("When: days, from, to and a time zone.", ref("during")),
    "after": Word("The calls of a run that has called one of these tools before: a name, a glob, or a list.", TEXTS),
}

RULE: dict[str, Word] = {
    "id": Word("The rule's name in refusals and in the ledger.", {"type": "string", "pattern": f"^{NAME}$"}),
    **SELECT,
    "unless": Word("The rule does not apply to calls that these selectors pick.", ref("selector")),
    "allow": Word("Permits the calls, as far as no deny and no guard objects.", {"const": True}),
    "unrecorded": Word(
        "allow: let the calls out, too, while nothing can be recorded. Only for an allow of calls that only read.",
        {"const": "allow"},
    ),
    "deny": Word("Refuses the calls; the text is the reason that the agent reads.", {"anyOf": [TEXT, {"const": True}]}),
    "mode": Word("monitor: record what this rule would refuse, but refuse nothing for it. Default: enforce.", MODE),
}
