"""The words of parameter schemas: those of JSON Schema that say something about one call, and two of our own.

`required: true` stands at the parameter itself, and `split: ","` says that its text is a list.
"""

from __future__ import annotations

from rules.vocabulary import TEXT, Schema, Word, one_or_list, ref

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
SPLITS = (",", " ", "|")
FORMATS = (
    *("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid"),
    *("int32", "int64", "binary"),
)
"""`int32` and `int64` are bounds, `binary` is a file in a multipart body; the others are checked as RFC 3339, 5321,
1123, 791, 4291, 3986 and 9562 say."""

INT_BITS = {"int32": 31, "int64": 63}

_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_SOME: Schema = {"type": "array", "items": ref("parameter"), "minItems": 1}

KEYWORDS: dict[str, Word] = {
    "type": Word(
        "What it is: one of JSON's types, integer, or a list of these.", one_or_list({"enum": [*TYPES, None]})
    ),
    "required": Word(
        "true: a call without it is refused. A list: the members that this object must have.",
        {"anyOf": [{"type": "boolean"}, {"type": "array", "items": TEXT, "minItems": 1}]},
    ),
    "enum": Word("One of these values.", {"type": "array", "minItems": 1}),
    "const": Word("This value only.", {}),
    "description": Word("What it means; for people.", {"type": "string"}),
    "minimum": Word("A number not less than this.", _NUMBER),
    "maximum": Word("A number not greater than this.", _NUMBER),
    "exclusiveMinimum": Word("A number greater than this.", _NUMBER),
    "exclusiveMaximum": Word("A number less than this.", _NUMBER),
    "multipleOf": Word("A whole multiple of this number.", {"type": "number", "exclusiveMinimum": 0}),
    "minLength": Word("A text of at least so many characters.", _COUNT),
    "maxLength": Word("A text of at most so many characters.", _COUNT),
    "pattern": Word("A text in which this regular expression (Rust's dialect) is found: ^ and $ are its ends.", TEXT),
    "format": Word("A text of this form, or a number of so many bits.", {"enum": list(FORMATS)}),
    "items": Word("What each element of a list is.", ref("parameter")),
    "minItems": Word("A list of at least so many elements.", _COUNT),
    "maxItems": Word("A list of at most so many elements.", _COUNT),
    "uniqueItems": Word("Whether its elements all differ.", {"type": "boolean"}),
    "split": Word("In a path, query or form: this sign parts the elements of a list.", {"enum": list(SPLITS)}),
    "properties": Word(
        "The members of an object. Others are refused.", {"type": "object", "additionalProperties": ref("parameter")}
    ),
    "additionalProperties": Word(
        "What members that are not named may be; true: anything.", {"anyOf": [{"type": "boolean"}, ref("parameter")]}
    ),
    "propertyNames": Word("What the names of an object's members may be.", ref("parameter")),
    "minProperties": Word("An object of at least so many members.", _COUNT),
    "maxProperties": Word("An object of at most so many members.", _COUNT),
    "allOf": Word("All of these hold.", _SOME),
    "anyOf": Word("One of these holds at least.", _SOME),
    "oneOf": Word("Exactly one of these holds.", _SOME),
    "not": Word("This does not hold.", ref("parameter")),
}

NUMERIC = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
OF_TYPE: dict[str, frozenset[str]] = {
    **dict.fromkeys(NUMERIC, frozenset({"integer", "number"})),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), frozenset({"string"})),
    "format": frozenset({"string", "integer", "number"}),
    **dict.fromkeys(("items", "minItems", "maxItems", "uniqueItems", "split"), frozenset({"array"})),
    **dict.fromkeys(
        ("properties", "additionalProperties", "propertyNames", "minProperties", "maxProperties"), frozenset({"object"})
    ),
}
"""Keyword -> the types that it says something about."""

BRANCHES = ("allOf", "anyOf", "oneOf")

MEANT = {
    "min": "minimum",
    "max": "maximum",
    "gte": "minimum",
    "lte": "maximum",
    "gt": "exclusiveMinimum",
    "lt": "exclusiveMaximum",
    "in": "enum",
    "values": "enum",
    "choices": "enum",
    "eq": "const",
    "regex": "pattern",
    "matches": "pattern",
    "fields": "properties",
    "members": "properties",
    "optional": "required",
    "step": "multipleOf",
    "separator": "split",
    "delimiter": "split",
}
"""Words that people bring along, and ours."""

NO_HELP = {
    "default": "leave it out: nothing is filled in, the call leaves as the agent made it",
    "nullable": 'write `type: [string, "null"]`',
    "example": "leave it out: a rule file is no documentation",
    "examples": "leave it out: a rule file is no documentation",
    "title": "use `description`",
    "$ref": "write out what it refers to; `borderpost rules import` does that for an OpenAPI document",
}
