"""The JSON Schema (draft 7) of rule files, for editors: completion, hovers, and red lines while typing.

It is made from the loader's own tables. It is looser than the loader, which also knows the other files and the packs:
the loader has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping

from rules.cases import APPROVALS, CALL_KEYS, DECISIONS, EXECUTED, EXPECT_KEYS
from rules.codes import CODES
from rules.guards import GUARDS
from rules.params.keywords import KEYWORDS, TYPES
from rules.upstream_key import PLACES
from rules.vocabulary import (
    FILE,
    LEDGER,
    MATCH,
    RULE,
    SELECT,
    SUCCESS,
    TEXT,
    TOOL,
    UPSTREAM_KEY,
    Schema,
    Word,
    one_or_list,
    ref,
)
from rules.where import OPERATORS

URL = "http://json-schema.org/draft-07/schema#"


def schema() -> Schema:
    """The schema of a rule file."""
    guards = {verb: Word(guard.SCHEMA["description"], guard.SCHEMA) for verb, guard in GUARDS.items()}
    verbs = ["allow", "deny", *guards]
    tool = _mapping("What an operation of an API is.", TOOL, required=["match"])
    return {
        "$schema": URL,
        "title": "Borderpost rule file",
        **_mapping("Tools say what a call is, rules say what may happen.", FILE, required=["version"]),
        "definitions": {
            "pattern": _PATTERN,
            "match": _mapping("A pattern, and a condition that its calls meet.", MATCH, required=["request"]),
            "tool": {"anyOf": [ref("pattern"), {"type": "array", "items": _MATCH, "minItems": 1}, tool]},
            "upstream_key": {
                **_mapping("How the API itself knows a repetition.", UPSTREAM_KEY),
                "oneOf": [{"required": [place]} for place in PLACES],
            },
            "success": _SUCCESS,
            "parameter": {"anyOf": [_TYPE, _ENUM, _mapping("What a parameter may be.", KEYWORDS)]},
            "ledger": {**_mapping("How much the ledger may hold.", LEDGER), "minProperties": 1},
            "selector": {**_mapping("Selectors that pick calls.", SELECT), "minProperties": 1, **_ONE_TARGET},
            "rule": {
                **_mapping("Which calls, and what may happen to them.", {**RULE, **guards}, required=["id"]),
                "anyOf": [{"required": [verb]} for verb in verbs],
                "allOf": [
                    _ONE_TARGET,
                    *({"not": {"required": ["deny", verb]}} for verb in verbs if verb != "deny"),
                    {"if": {"required": ["unrecorded"]}, "then": {"required": ["allow"]}},
                    *({"not": {"required": ["unrecorded", verb]}} for verb in guards),
                    {"if": {"required": ["allow"]}, "then": {"anyOf": [{"required": [key]} for key in _TARGETS]}},
                ],
            },
            "condition": _CONDITION,
            "operators": {**_mapping("What a field is compared with.", _OPERATORS), "minProperties": 1},
            "during": _mapping("When, by the clock of a time zone.", _DURING, required=["zone"]),
            "test": _mapping("Calls, and what is expected to be decided for them.", _TEST, required=["name"]),
            "call": _mapping("A call as an agent would make it.", _CALL, required=["request"]),
            "answer": _mapping("What the upstream answers.", _ANSWER),
            "step": _mapping("A call, and what is expected for it.", {**_CALL, "expect": _EXPECTED}, ["request"]),
            "expect": {**_mapping("What is expected to be decided.", _EXPECT), "minProperties": 1},
        },
    }


def _mapping(description: str, words: Mapping[str, Word], required: list[str] | None = None) -> Schema:
    properties = {name: _described(word) for name, word in words.items()}
    found: Schema = {"type": "object", "description": description, "properties": properties}
    return {**found, "additionalProperties": False, **({"required": required} if required else {})}


def _described(word: Word) -> Schema:
    """The word's schema with its description. Beside a `$ref` draft 7 ignores other keys, hence `allOf`."""
    wrapped: Schema = {"allOf": [word.schema]} if "$ref" in word.schema else word.schema
    return {**wrapped, "description": word.description}


_TARGETS = ("tool", "match")
_TYPE: Schema = {"enum": [*TYPES, None], "description": "Short for {type: ...}."}
_ENUM: Schema = {"type": "array", "minItems": 1, "description": "Short for {enum: [...]}: one of these."}
_ONE_TARGET: Schema = {"not": {"required": list(_TARGETS)}}
_MATCH: Schema = {"anyOf": [ref("pattern"), ref("match")]}
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_PATTERN: Schema = {
    "type": "string",
    "description": "METHOD[|METHOD] scheme://host[:port]/path, with {name}, * and **.",
    "pattern": "^\\s*(\\S+\\s+)?(https?|wss?)://\\S+\\s*$",
}
_FIELD = r"^((path|query|header|body|args)(\.|\[).+|body|args|agent|run|tool|host|method|credential)$"
_CONDITION: Schema = {
    "type": "object",
    "description": "Fields and what they are compared with; all, any and not combine conditions.",
    "minProperties": 1,
    "properties": {
        "all": {"type": "array", "items": ref("condition"), "minItems": 1, "description": "Every one of these holds."},
        "any": {"type": "array", "items": ref("condition"), "minItems": 1, "description": "One of these holds."},
        "not": {"allOf": [ref("condition")], "description": "This does not hold."},
    },
    "patternProperties": {_FIELD: {"anyOf": [_SCALAR, ref("operators")]}},
    "additionalProperties": False,
}
_SUCCESS: Schema = {
    "type": "object",
    "description": "A condition on the answer, by `status`, `header.NAME` and `body.NAME`.",
    "minProperties": 1,
    "properties": {
        "all": {"type": "array", "items": ref("success"), "minItems": 1, "description": "Every one of these holds."},
        "any": {"type": "array", "items": ref("success"), "minItems": 1, "description": "One of these holds."},
        "not": {"allOf": [ref("success")], "description": "This does not hold."},
        "status": {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[1-5]xx$"}, ref("operators")],
            "description": "The status of the answer, such as 200 or 2xx.",
        },
        **{name: _described(word) for name, word in SUCCESS.items()},
    },
    "patternProperties": {r"^(header|body)(\.|\[).+|body$": {"anyOf": [_SCALAR, ref("operators")]}},
    "additionalProperties": False,
}
_LIMITS: dict[str, Schema] = {
    "scalar": {"type": ["string", "number", "boolean", "null"]},
    "scalars": {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}, "minItems": 1},
    "number": {"type": "number"},
    "regex": TEXT,
    "text": TEXT,
    "bool": {"type": "boolean"},
    "networks": one_or_list(TEXT),
}
_MEANINGS = {
    "eq": "Equal to this.",
    "ne": "Not equal to this.",
    "in": "One of these.",
    "not_in": "None of these.",
    "lt": "A number less than this.",
    "lte": "A number not greater than this.",
    "gt": "A number greater than this.",
    "gte": "A number not less than this.",
    "matches": "The whole value is what this regular expression says, in the dialect of Rust's regex crate.",
    "prefix": "Starts with this.",
    "glob": "The whole value is this, where * is any text and ? one character.",
    "exists": "Whether the call has the field at all.",
    "cidr": "An IP address in this network, or in one of these.",
}
_OPERATORS = {name: Word(_MEANINGS[name], _LIMITS[kind]) for name, kind in OPERATORS.items()}
_DAY: Schema = {"type": "string", "pattern": "^[A-Za-z]{3,9}(-[A-Za-z]{3,9})?$"}
_TIME: Schema = {"type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"}
_DURING = {
    "days": Word("Days such as mon-fri or [sat, sun]. Default: every day.", one_or_list(_DAY)),
    "from": Word('From this time on, such as "09:00". Default: from the start of the day.', _TIME),
    "to": Word('Before this time, such as "17:30". Default: to the end of the day.', _TIME),
    "zone": Word("The time zone, such as Europe/Berlin or UTC.", TEXT),
}
_STATUS: Schema = {"type": "integer", "minimum": 200, "maximum": 599}
_ANSWER = {
    "status": Word("The status. Default: 200.", _STATUS),
    "headers": Word("Headers by name.", {"type": "object", "additionalProperties": one_or_list(_SCALAR)}),
    "json": Word("A JSON body.", {}),
}
_WIRE: Schema = {"type": "object", "additionalProperties": one_or_list(_SCALAR)}
_CALLS: dict[str, Word] = {
    "request": Word("Method and URL, such as POST https://api.example.com/orders.", TEXT),
    "agent": Word("The agent that calls.", TEXT),
    "run": Word("The run that it belongs to.", TEXT),
    "headers": Word("Headers by name.", _WIRE),
    "query": Word("Query parameters by name.", _WIRE),
    "json": Word("A JSON body.", {}),
    "form": Word("A body of form fields.", _WIRE),
    "multipart": Word("A multipart body of text fields.", _WIRE),
    "text": Word("A plain text body.", _SCALAR),
    "at": Word("When: a time after the first call, such as +59s, or a moment such as 2026-01-05T12:00Z.", TEXT),
    "answer": Word(
        "What the upstream answers: a status, or one with a JSON body, or lost when no answer came. Default: 200.",
        {"anyOf": [_STATUS, {"const": "lost"}, ref("answer")]},
    ),
    "approval": Word("What a person says when the call is held. Default: nothing.", {"enum": list(APPROVALS)}),
    "ends": Word("When the answer comes, as for `at`; until then the call is on its way. Default: at once.", TEXT),
}
_CALL = {name: _CALLS[name] for name in CALL_KEYS}
_ID: Schema = {"type": ["string", "null"]}
_EXPECTS: dict[str, Word] = {
    "decision": Word("What is decided.", {"enum": list(DECISIONS)}),
    "code": Word("The code of the refusal.", {"enum": [*CODES, "replay"]}),
    "rule": Word("The id of a rule that determined it.", _ID),
    "tool": Word("The name of the tool that names the call.", _ID),
    "executed": Word("Whether the side effect has happened.", {"enum": list(EXECUTED)}),
    "would": Word("The id of a rule in monitor mode that would have refused.", _ID),
}
_EXPECT = {name: _EXPECTS[name] for name in EXPECT_KEYS}
_EXPECTED = Word(
    "What is expected to be decided: a decision, or a mapping.",
    {"anyOf": [{"enum": list(DECISIONS)}, ref("expect")]},
)
_TEST: dict[str, Word] = {
    "name": Word("What the test shows, in a sentence.", TEXT),
    "earlier": Word("Calls that come before, without expectations.", {"type": "array", "items": ref("call")}),
    "call": Word("The call.", ref("call")),
    "calls": Word(
        "Calls in a row, each with its own `expect`.", {"type": "array", "items": ref("step"), "minItems": 1}
    ),
    "expect": _EXPECTED,
}
