"""Importing OpenAPI documents: a whole one as a golden file, and tables of what each part of a document becomes.

After a wanted change of what is written, run with `ACCEPT=1` in the environment and read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.cases import run_case
from rules.load import Loaded, Source, load
from rules.openapi.document import Document, read
from rules.openapi.notes import LEFT_OUT
from rules.openapi.schemas import NODES
from rules.openapi.tools import Imported, OpenApiError, Options, tools_of
from rules.openapi.writing import comment
from rules.yamltree import parse

HERE = Path(__file__).parent / "openapi"
SHOP = (HERE / "shop.yaml").read_text(encoding="utf-8")


def imported(text: str, **options: Any) -> Imported:
    return tools_of(text, "shop.yaml", Options(**options), lambda done, total: None)


def accepted(found: Imported) -> Loaded:
    """What the loader makes of it: it has to take every import."""
    return load([Source("tools.yaml", found.text)], {})


# --- a whole document ---


def test_a_whole_document() -> None:
    found = imported(SHOP, prefix="shop")
    golden = HERE / "shop.tools.yaml"
    if os.environ.get("ACCEPT"):
        golden.write_text(found.text, encoding="utf-8")
    assert found.text == golden.read_text(encoding="utf-8")
    assert (found.tools, found.wanted, found.title) == (8, 9, "The Shop")
    assert [name for name, note in found.notes if note.kind == LEFT_OUT] == ["GET /events#first"]


def test_the_same_document_as_json_gives_the_same_tools() -> None:
    as_json = json.dumps(parse(SHOP.replace("\\d", "\\d"), "shop.yaml").plain(), default=float)
    assert imported(as_json).text == imported(SHOP).text


def test_the_contracts_of_a_whole_document_do_what_the_document_says() -> None:
    rules = """
version: 1
rules: [{id: all, match: "https://**", allow: true}]
tests:
  - name: a new order
    call:
      request: POST https://eu.shop.example.com:8443/v1/orders
      json: {items: [{sku: AB-1, count: 2, parts: [{sku: AB-2}]}], customer: {email: a@b.example}, discount: 99.5}
    expect: {decision: allow, tool: createOrder}
  - name: what only the server sets
    call:
      request: POST https://eu.shop.example.com:8443/v1/orders
      json: {items: [{sku: AB-1}], customer: me, id: ord_1}
    expect: {decision: deny, code: parameters-invalid}
  - name: lists and objects in a query
    call:
      request: GET https://us.shop.example.com:8443/v1/orders?ids=1,2&created[gte]=5&colour=red&api_key=x&page=2
    expect: {decision: allow, tool: listOrders}
  - name: an unknown member of an object in a query
    call: {request: "GET https://us.shop.example.com:8443/v1/orders?created[gt]=5"}
    expect: {decision: deny, code: parameters-invalid}
  - name: a path that is no order
    call: {request: GET https://shop.example.com/v1/orders/5}
    expect: {decision: deny, code: parameters-invalid}
  - name: neither of two
    call: {request: POST https://search.example.com/search, json: {near: {lat: 1.5}}}
    expect: {decision: deny, code: parameters-invalid}
  - name: one of two
    call: {request: POST https://search.example.com/search, json: {q: x}}
    expect: {decision: allow, tool: search}
  - name: the query that tells the operation
    call: {request: "GET https://shop.example.com/v1/events?kind=all"}
    expect: {decision: allow, tool: events}
  - name: two names in a segment
    call: {request: GET https://shop.example.com/v1/compare/main...next}
    expect: {decision: allow, tool: compare}
"""
    loaded = load([Source("tools.yaml", imported(SHOP).text), Source("rules.yaml", rules)], {})
    for case in loaded.cases:
        assert run_case(loaded.ruleset, case).mismatches == (), case.name


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"only": ("*rder",)}, ["createOrder", "getOrder"]),
        ({"only": ("my.s*", "my.compare"), "prefix": "my"}, ["my.compare", "my.search"]),
        ({"only": ("*rder",), "prefix": "getOrder"}, ["getOrder", "getOrder.createOrder"]),
    ],
)
def test_some_of_the_operations(options: dict[str, Any], names: list[str]) -> None:
    assert sorted(accepted(imported(SHOP, **options)).ruleset.tools) == names


def test_without_params_and_elsewhere() -> None:
    found = imported(SHOP, params=False, server="http://localhost:8080/", only=("getOrder", "search"))
    patterns = {str(tool.matches[0].pattern) for tool in accepted(found).ruleset.tools.values()}
    assert patterns == {"GET http://localhost:8080/orders/{orderId}", "POST http://localhost:8080/search"}
    assert "params" not in found.text.partition("version: 1")[2]
    plain = imported(
        SHOP.replace("security: [{key: []}]", ""), params=False, server="http://x.example", only=("search",)
    )
    assert plain.text.endswith("  search: POST http://x.example/search\n")


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    tools_of(SHOP, "shop.yaml", Options(), lambda done, total: told.append((done, total)))
    assert told == [(done, 9) for done in range(9)]


# --- what is no document ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "neither JSON nor YAML"),
        ("a: [", "neither JSON nor YAML"),
        ("- a", "this is no OpenAPI document"),
        ("openapi: 3.0.3", "this is no OpenAPI document, which has `openapi: 3.x`"),
        ("openapi: 4.0.0\npaths: {}", "this is no OpenAPI document, which has `openapi: 3.x`"),
        ("swagger: '1.2'\npaths: {}", "this is no OpenAPI document, which has `openapi: 3.x`"),
        ("openapi: 3.0.3\npaths: {}", "no operation has such a name"),
        ("openapi: 3.0.3\npaths: {/a: {get: {}}}", "names no host"),
        ("openapi: 3.0.3\nservers: [{url: /v1}]\npaths: {/a: {get: {}}}", "names no host"),
        ("openapi: 3.0.3\nservers: [{url: 'https://a.example'}]\npaths: {'/a#b': {get: {}}}", "nothing is left"),
        ("[" * 100_000, "nested too deep"),
        ("a: " + "[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
    ],
)
def test_what_can_not_be_imported(text: str, said: str) -> None:
    with pytest.raises(OpenApiError, match=said.replace(".", r"\.")):
        imported(text)


def test_yaml_is_read_as_it_is_published() -> None:
    root = read(
        "openapi: 3.1.0\npaths: {}\na: &x {d: 2026-01-31, e: no, n: 1.10, i: 08, b: true, z: }\nc: {<<: *x}"
    ).root
    assert json.dumps(root["c"], default=str) == (
        '{"d": "2026-01-31", "e": "no", "n": "1.10", "i": 8, "b": true, "z": null}'
    )


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("#/a/b~1c", {"x": 1}),
        ("#/a/%64", {"y": 1}),
        ("#/list/1", {"z": 1}),
        ("#/list/7", {}),
        ("#/nowhere", {}),
        ("other.yaml#/a", {}),
        ("#/circle", {}),
    ],
)
def test_references(ref: str, found: dict[str, Any]) -> None:
    root = {"a": {"b/c": {"x": 1}, "d": {"y": 1}}, "list": [{}, {"z": 1}], "circle": {"$ref": "#/circle"}}
    document = Document({"openapi": "3.0.0", "paths": {}, **root})
    assert document.follow({"$ref": ref})[0] == found


# --- schemas ---


def operation(schema: str, version: str = "3.1.0", more: str = "") -> Imported:
    """An operation whose body has the one member `v`, of this schema."""
    return imported(
        f"""
openapi: {version}
servers: [{{url: "https://api.example.com"}}]
paths:
  /a:
    post:
      operationId: a
      requestBody:
        required: true
        content: {{application/json: {{schema: {{type: object, properties: {{v: {schema}}}}}}}}}
components:
  schemas:
    Tree: {{type: object, properties: {{left: {{$ref: "#/components/schemas/Tree"}}, n: {{type: integer}}}}}}
    Pair: {{type: object, required: [a], properties: {{a: {{type: string}}, b: {{type: string}}}}}}
    Other: {{type: object, properties: {{c: {{type: string}}}}}}
    Many: {{type: array, items: {{$ref: "#/components/schemas/Many"}}}}
{more}
"""
    )


PAIR = '{$ref: "#/components/schemas/Pair"}'
OTHER = '{$ref: "#/components/schemas/Other"}'


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ("{type: string}", "string"),
        ("{}", "{}"),
        ("true", "{}"),
        ("false", "{not: {}}"),
        ("5", "{}"),
        ("{type: any}", "{}"),
        ("{type: string, description: A text., default: x, example: y, title: T, x-ours: 1}", "string"),
        ("{type: string, minLength: 1, maxLength: 5, minimum: 3}", "{type: string, minLength: 1, maxLength: 5}"),
        ("{type: string, minLength: -1, maxLength: 2.5}", "string"),
        ("{minLength: 1}", "{type: string, minLength: 1}"),
        ("{minimum: 1}", "{type: number, minimum: 1}"),
        ("{type: string, pattern: '^a\\d$'}", "{pattern: '^a\\d$'}"),
        ("{type: string, pattern: 'it''s \"\\d\"'}", "{pattern: 'it''s \"\\d\"'}"),
        ("{type: string, format: uuid}", "{type: string, format: uuid}"),
        ("{type: string, format: byte}", "string"),
        ("{type: string, format: int64}", "string"),
        ("{type: integer, format: int64}", "{type: integer, format: int64}"),
        ("{type: [string, 'null']}", '{type: [string, "null"]}'),
        ("{type: string, nullable: true}", '{type: [string, "null"]}'),
        ("{type: string, enum: [a, b, a]}", "[a, b]"),
        ("{type: string, enum: [a, null], nullable: true}", "[a, null]"),
        ("{type: string, enum: [1, true, 'on', '', 'a: b']}", '["1", "true", "on", "", "a: b"]'),
        ("{enum: [1, 1.0, 2.50]}", "[1, 2.5]"),
        ("{enum: [a], nullable: true}", "[a, null]"),
        ("{enum: [a], type: [string, 'null']}", "[a]"),
        ("{const: 5}", "{const: 5}"),
        ("{type: number, minimum: 1, exclusiveMinimum: true, exclusiveMaximum: 5}",
         "{type: number, exclusiveMaximum: 5, exclusiveMinimum: 1}"),
        ("{type: number, exclusiveMinimum: true, multipleOf: 0}", "number"),
        ("{type: integer, multipleOf: 5.0}", "{type: integer, multipleOf: 5}"),
        ("{type: array, items: {type: string}, minItems: 1, maxItems: -1, uniqueItems: true}",
         "{items: string, minItems: 1, uniqueItems: true}"),
        ("{type: array}", "array"),
        ("{type: array, items: {}}", "array"),
        ("{items: {type: integer}}", "{items: integer}"),
        ("{type: object, properties: {a: {type: string}}, required: [a], additionalProperties: false}",
         "{properties: {a: {type: string, required: true}}}"),
        ("{type: object, additionalProperties: false}", "{properties: {}}"),
        ("{type: object, additionalProperties: {type: integer}, minProperties: 1, maxProperties: -5}",
         "{type: object, additionalProperties: integer, minProperties: 1}"),
        ("{type: object, additionalProperties: {type: string}, propertyNames: {pattern: '^a'}}",
         "{type: object, additionalProperties: string, propertyNames: {pattern: \"^a\"}}"),
        ("{type: object, additionalProperties: {type: string}, propertyNames: {type: integer}}",
         "{type: object, additionalProperties: string}"),
        ("{type: object, additionalProperties: {type: string}, required: [k]}",
         "{type: object, required: [k], additionalProperties: string}"),
        (PAIR, "{properties: {a: {type: string, required: true}, b: string}}"),
        ("{$ref: '#/components/schemas/Pair', description: A pair., nullable: true}",
         '{type: [object, "null"], properties: {a: {type: string, required: true}, b: string}}'),
        (f"{{allOf: [{PAIR}]}}", "{properties: {a: {type: string, required: true}, b: string}}"),
        (f"{{allOf: [{PAIR}, {OTHER}]}}", "{properties: {a: {type: string, required: true}, b: string, c: string}}"),
        (f"{{allOf: [{OTHER}, {{required: [c]}}, {{type: object}}]}}",
         "{properties: {c: {type: string, required: true}}}"),
        (f"{{type: object, required: [c], allOf: [{OTHER}]}}", "{properties: {c: {type: string, required: true}}}"),
        (f"{{allOf: [{PAIR}, {PAIR}]}}",
         "{properties: {a: {type: string, required: true}, b: string},"
         " allOf: [{properties: {a: {type: string, required: true}, b: string}}]}"),
        (f"{{allOf: [{OTHER}, {{minProperties: 1}}]}}",
         "{properties: {c: string}, allOf: [{type: object, minProperties: 1}]}"),
        ("{allOf: [{type: string}, {type: integer}]}", "{type: string, allOf: [integer]}"),
        ("{allOf: [{type: object, additionalProperties: {type: string}}, {type: object, properties: {a: {}}}]}",
         "{type: object, additionalProperties: string, allOf: [{properties: {a: {}}}]}"),
        (f"{{nullable: true, allOf: [{OTHER}]}}", '{type: [object, "null"], properties: {c: string}}'),
        ("{nullable: true, allOf: [{enum: [a]}]}", "[a, null]"),
        ("{nullable: true, anyOf: [{type: string}, {items: {type: string}}]}",
         '{anyOf: [string, {items: string}, "null"]}'),
        ("{nullable: true, anyOf: [{type: 'null'}, {items: {type: string}}]}", '{anyOf: ["null", {items: string}]}'),
        (f"{{nullable: true, properties: {{z: {{}}}}, anyOf: [{PAIR}, {OTHER}]}}",
         '{anyOf: [{properties: {z: {}}, anyOf: [{properties: {a: {type: string, required: true}, b: string}},'
         ' {properties: {c: string}}]}, "null"]}'),
        ("{nullable: true}", "{}"),
        ("{anyOf: [{type: string}, {type: integer}]}", "{type: [string, integer]}"),
        ("{oneOf: [{enum: [a]}, {enum: [b, a]}]}", "[a, b]"),
        ("{oneOf: [{type: string}]}", "string"),
        ("{oneOf: [{type: string}, {type: array, items: {type: string}}]}", "{anyOf: [string, {items: string}]}"),
        ("{anyOf: [{type: string, pattern: ^a}, {type: string, pattern: ^b}], oneOf: [{type: string, maxLength: 5},"
         " {type: string, minLength: 9}]}",
         "{anyOf: [{pattern: ^a}, {pattern: ^b}],"
         " allOf: [{anyOf: [{type: string, maxLength: 5}, {type: string, minLength: 9}]}]}"),
        ("{type: string, not: {enum: [a]}}", "{type: string, not: [a]}"),
        ("{type: object, properties: {a: {type: string}}, anyOf: [{required: [a]}, {required: [b]}]}",
         "{properties: {a: string}, anyOf: [{required: [a]}, {required: [b]}]}"),
        ("{type: object, properties: {a: {readOnly: true}, b: {type: string}}, required: [a, b]}",
         "{properties: {b: {type: string, required: true}}}"),
        ("{type: object, properties: {'a b': {}, 'true': {}, '5': {}}}",
         '{properties: {a b: {}, "true": {}, "5": {}}}'),
    ],
)  # fmt: skip
def test_schemas(schema: str, written: str) -> None:
    found = operation(schema)
    accepted(found)
    parsed = parse(found.text, "tools.yaml").get("tools")
    assert parsed is not None
    params = parsed.entries[0][1].get("params")
    assert params is not None
    assert params.plain() == parse(f"v: {written}", "expected").plain()
    flat = " ".join(found.text.partition("params:")[2].split())
    if "\n        " not in found.text.partition("params:")[2]:  # in one line, as it is expected
        assert f"v: {written}" in flat


@pytest.mark.parametrize(
    ("schema", "kind", "what", "where"),
    [
        ("{type: string, pattern: '^(?!a)'}", "wider", "a regular expression that cannot be used here", "body.v"),
        (f"{{type: string, pattern: {'a' * 2001}}}", "wider", "a regular expression that cannot be used here",
         "body.v"),
        ("{type: string, format: unix-time}", "wider", "the format `unix-time` is not looked at", "body.v"),
        ("{type: object}", "wider", "an object of any members", "body.v"),
        ("{type: object, properties: {a: {}}, additionalProperties: true}", "wider",
         "an object of any members", "body.v"),
        ("{type: object, properties: {a: {}}, patternProperties: {^x: {}}}", "wider",
         "`patternProperties` cannot be said",
         "body.v"),
        ("{type: object, properties: {a: {}}, required: [b]}", "wider", "it requires what it does not define",
         "body.v"),
        ("{type: object, properties: {a: {}}, required: [b], allOf: [{type: object}]}", "wider",
         "it requires what it does not define", "body.v"),
        (f"{{type: object, properties: {{a: {{}}}}, required: [b], allOf: [{OTHER}]}}", "wider",
         "it requires what it does not define", "body.v"),
        ("{$ref: '#/components/schemas/Tree'}", "wider", "nested too deep: anything passes", "body.v.left.left"),
        ("{$ref: '#/components/schemas/Many'}", "wider", "nested too deep: anything passes", "body.v[][][]"),
        ("{$ref: '#/nowhere'}", "wider", "a reference leads nowhere, or out of the document", "body.v"),
        (f"{{oneOf: [{PAIR}, {OTHER}]}}", "wider", "`oneOf` is read as `anyOf`", "body.v"),
        ("{anyOf: [{}, {type: string}]}", "wider", "one of several forms is anything", "body.v"),
        ("{type: object, properties: {a: {}}, not: {type: object}}", "wider", "`not` cannot be said", "body.v"),
        ("{type: array, prefixItems: [{type: string}]}", "wider", "`prefixItems` cannot be said", "body.v"),
        (f"{{enum: [{', '.join(map(str, range(501)))}]}}", "wider", "a list of more than 500 values is not written out",
         "body.v"),
        ("false", "narrower", "nothing may stand there, says the document", "body.v"),
    ],
)  # fmt: skip
def test_nothing_becomes_wider_or_narrower_in_silence(schema: str, kind: str, what: str, where: str) -> None:
    found = operation(schema)
    accepted(found)
    assert ("a", kind, what, where) in [(name, note.kind, note.what, note.where) for name, note in found.notes]
    assert f"  # {kind}: {where}: {what}" in found.text


def test_a_large_schema_is_written_out_as_deep_as_there_is_room_for() -> None:
    wide = ", ".join(f"p{number}: {{$ref: '#/components/schemas/Wide'}}" for number in range(20))
    wider = f"    Wide: {{type: object, properties: {{{', '.join(f'q{n}: {{type: string}}' for n in range(20))}}}}}"
    found = operation(f"{{type: object, properties: {{{wide}}}}}", more=wider)
    accepted(found)
    assert {note.what for _, note in found.notes} == {"nested too deep: anything passes"}
    assert "p19: {type: object, additionalProperties: true}" in found.text


def test_more_parameters_than_anybody_reads_are_left_out() -> None:
    many = ", ".join(f"{{name: p{number}, in: query, schema: {{type: string}}}}" for number in range(NODES + 1))
    found = imported(SHOP.replace("operationId: events", f"operationId: events, parameters: [{many}]"))
    accepted(found)
    assert ("GET /events?kind=all", LEFT_OUT) in [(name, note.kind) for name, note in found.notes]


def test_beside_a_reference_nothing_counted_before_3_1() -> None:
    beside = "{$ref: '#/components/schemas/Other', minProperties: 1}"
    assert "minProperties" in operation(beside).text
    assert "minProperties" not in operation(beside, "3.0.3").text


# --- operations ---


def tool(spec: str, path: str = "/a", method: str = "post", root: str = "") -> str:
    """What an operation becomes, from its `match` on, each line stripped."""
    found = imported(
        f"openapi: 3.0.3\nservers: [{{url: 'https://api.example.com'}}]\n{root}\n"
        f"paths: {{'{path}': {{{method}: {{operationId: a, {spec}}}}}}}"
    )
    accepted(found)
    return " ".join(found.text.partition("tools:")[2].partition("  a:")[2].split())


@pytest.mark.parametrize(
    ("method", "spec", "written"),
    [
        ("post", "", '{match: "POST https://api.example.com/a", params: {}}'),
        ("get", "parameters: [{name: x, in: query, required: true, schema: {type: string}}]",
         '{match: "GET https://api.example.com/a", params: {x: {type: string, required: true}}}'),
        ("post", "parameters: [{name: x, in: query, schema: {type: string}}]", "params: {query.x: string}"),
        ("get", "parameters: [{name: 'f[a]', in: query, schema: {type: string}}]", 'params: {"f[a]": string}'),
        ("post", "parameters: [{name: 'f[a]', in: query, schema: {type: string}}]",
         "params: {'query[\"f[a]\"]': string}"),
        ("get", "parameters: [{name: body.x, in: query, schema: {type: string}}]",
         "params: {'query[\"body.x\"]': string}"),
        ("get", "parameters: [{name: $body, in: query, schema: {type: string}}]", "params: {query.$body: string}"),
        ("get", "parameters: [{name: x, in: query, style: pipeDelimited, explode: false, schema: {type: array}}]",
         "params: {x: {type: array, split: \"|\"}}"),
        ("get",
         "parameters: [{name: x, in: query, style: spaceDelimited, schema: {type: array, items: {type: string}}}]",
         'params: {x: {items: string, split: " "}}'),
        ("get", "parameters: [{name: x, in: query, schema: {type: array, items: {type: string}}}]",
         "params: {x: {items: string}}"),
        ("get", "parameters: [{name: x, in: query, explode: false, schema: {anyOf: [{type: string}, {type: array}]}}]",
         "params: {x: {}}"),
        ("get", "parameters: [{name: x, in: query, explode: false,"
         " schema: {anyOf: [{type: string}, {type: array, items: {type: string}}]}}]", "params: {x: {}}"),
        ("put", "requestBody: {content: {application/json: {schema: {type: object, properties: {x: {}}}},"
         " application/x+json: {schema: {type: object, properties: {y: {}}}}}}", "body: json, params: {x: {}}"),
        ("get", "parameters: [{name: x, in: query, explode: false, schema: {type: object, properties: {a: {}}}}]",
         "params: {x: {}}"),
        ("get", "parameters: [{name: x, in: query, schema: {type: object}}]", "params: {}"),
        ("get", "parameters: [{name: x, in: query, content: {application/json: {schema: {}}}}]", "params: {x: string}"),
        ("get", "parameters: [{name: x, in: cookie, schema: {type: string}}]", "params: {}"),
        ("put", "requestBody: {content: {application/json: {schema: {type: array, items: {type: string}}}}}",
         '{match: "PUT https://api.example.com/a", body: json, params: {$body: {items: string}}}'),
        ("put", "requestBody: {required: true, content: {application/json: {schema: {type: array}}}}",
         "body: json, params: {$body: {type: array, required: true}}"),
        ("put", "requestBody: {content: {application/json: {schema: {}}}}", "body: json, params: {$body: {}}"),
        ("put", "requestBody: {content: {application/json: {}}}", "body: json, params: {$body: {}}"),
        ("put",
         "requestBody: {content: {application/json: {schema: {type: object, required: [x], properties: {x: {}}}}}}",
         "params: {$body: {properties: {x: {required: true}}}}"),
        ("put", "requestBody: {content: {application/json: {schema: {type: object, properties: {x: {}}}},"
         " application/x-www-form-urlencoded: {schema: {type: object, properties: {x: {}}}}}}", "params: {x: {}}"),
        ("put", "requestBody: {content: {'application/vnd.x+json; v=1': {schema: {type: object, properties: {x: {}}}},"
         " multipart/form-data: {schema: {type: object, properties: {y: {}}}}}}", "body: json, params: {x: {}}"),
        ("put", "requestBody: {content: {application/octet-stream: {}}}", "params: {$body: {}}"),
        ("put", "requestBody: {required: true, content: {text/csv: {}, application/json: {}}}",
         "params: {$body: {required: true}}"),
        ("put", "requestBody: {content: {text/csv: {}}}, parameters: [{name: x, in: query, schema: {type: string}}]",
         "body: text, params: {x: string}"),
        ("delete", "requestBody: {content: {application/json: {schema: {type: object, properties: {x: {}}}}}},"
         " parameters: [{name: y, in: query, schema: {type: string}}]", "body: json, params: {query.y: string, x: {}}"),
        ("get", "servers: [{url: 'https://{host}.example.com:{port}/{base}', variables: {host: {default: a},"
         " port: {default: 8443}, base: {default: v1}}}]", "match: \"GET https://{host}.example.com:8443/{base}/a\""),
        ("get", "servers: [{url: 'https://{a}-{b}.example.com', variables: {a: {default: x}, b: {enum: [y, z]}}}]",
         "- GET https://x-y.example.com/a - GET https://x-z.example.com/a"),
        ("get", "security: [{k: []}]", "params: {}"),
    ],
)  # fmt: skip
def test_operations(method: str, spec: str, written: str) -> None:
    assert written in tool(spec, method=method)


@pytest.mark.parametrize(
    ("path", "parameters", "written"),
    [
        ("/", "", "GET https://api.example.com/\""),
        ("/a/", "", "GET https://api.example.com/a/\""),
        ("/a b/é", "", "GET https://api.example.com/a%20b/%C3%A9\""),
        ("/{x}", "{name: x, in: path, schema: {type: integer}}", "{path.x: integer}"),
        ("/{x.y}", "{name: x.y, in: path, schema: {type: integer}}", "{path.x_y: integer}"),
        ("/{1}", "{name: '1', in: path, schema: {type: integer}}", "{path._1: integer}"),
        ("/{x.y}/{x-y}/{x_y}", "", "/{x_y}/{x-y}/{x_y_2}\""),
        ("/{x}", "{name: x, in: path, schema: {type: array, items: {type: integer}}}",
         "{path.x: {items: integer, split: \",\"}}"),
        ("/{x}", "{name: x, in: path, schema: {type: object, properties: {a: {}}}}", "params: {}"),
        ("/{x}", "{name: x, in: path, style: matrix, schema: {type: integer}}", "params: {}"),
        ("/{x}", "{name: x, in: path, x-multi-segment: true, schema: {type: integer}}", "/**\", params: {}"),
        ("/{+x}/b", "", "/**/b\""),
        ("/{}", "", "/{_}\""),
    ],
)  # fmt: skip
def test_paths(path: str, parameters: str, written: str) -> None:
    assert written in tool(f"parameters: [{parameters}]", path, "get")


@pytest.mark.parametrize(
    ("scheme", "credential"),
    [
        ("{type: apiKey, in: query, name: key}", "credential: query.key"),
        ("{type: apiKey, in: header, name: X-Shop-Key}", "credential: header.X-Shop-Key"),
        ("{type: apiKey, in: header, name: X-API-Key}", ""),
        ("{type: apiKey, in: cookie, name: sid}", ""),
        ("{type: apiKey, in: query, name: 'a b'}", ""),
        ("{type: http, scheme: bearer}", ""),
    ],
)
def test_where_the_key_is(scheme: str, credential: str) -> None:
    root = f"components: {{securitySchemes: {{k: {scheme}}}}}\nsecurity: [{{k: []}}]"
    found = tool("", root=root)
    assert credential in found
    assert ("credential" in found) is bool(credential)


def test_a_server_for_each_of_many_regions() -> None:
    regions = ", ".join(f"r{number}" for number in range(9))
    server = f"{{url: 'https://{{region}}.example.com', variables: {{region: {{enum: [{regions}]}}}}}}"
    found = imported(f"openapi: 3.0.3\nservers: [{server}]\npaths: {{/a: {{get: {{operationId: a}}}}}}")
    assert str(accepted(found).ruleset.tools["a"].matches[0].pattern) == "GET https://{region}.example.com/a"
    assert [(note.kind, note.where) for _, note in found.notes] == [("wider", "region")]


def test_more_servers_than_a_person_would_read() -> None:
    servers = ", ".join(f"{{url: 'https://s{number}.example.com'}}" for number in range(9))
    found = imported(f"openapi: 3.0.3\nservers: [{servers}]\npaths: {{/a: {{get: {{}}}}}}")
    assert len(accepted(found).ruleset.tools["get.a"].matches) == 8
    assert [note.what for _, note in found.notes] == ["only the first 8 servers are named"]


@pytest.mark.parametrize(
    ("paths", "names", "why"),
    [
        ("/a: {get: {operationId: 'list/all things'}, put: {}}", ["list.all.things", "put.a"], []),
        ("/a: {get: {operationId: X}}, /b: {get: {operationId: x}}", ["X", "x.2"], []),
        (f"/a: {{get: {{operationId: {'n' * 90}}}}}, /b: {{get: {{operationId: {'n' * 90}}}}}",
         ["n" * 80, "n" * 78 + ".2"], []),
        ("/a: {get: {operationId: '***'}}", ["operation"], []),
        ("'/{a}': {get: {operationId: a}}, '/{b}': {get: {operationId: b}, put: {operationId: c}}", ["a", "c"],
         ["`a` is the same calls"]),
        ("'/a?x=1': {get: {operationId: a}}, '/a?x=2': {get: {operationId: b}}", ["a", "b"], []),
        ("/a: {get: {operationId: a}}, '/b?x': {get: {}}, '/c?x={y}': {get: {}}, '/d/{x': {get: {}}", ["a"],
         ["the query in its path cannot be read", "its path has a fragment in it, or a query that varies",
          "`{` is not closed or not opened"]),
        ("/a: {$ref: '#/shared'}", ["shared"], []),
        ("/a: 5, /b: {get: 5, post: {operationId: b}}", ["b"], []),
    ],
)  # fmt: skip
def test_names_and_what_is_left_out(paths: str, names: list[str], why: list[str]) -> None:
    found = imported(
        f"openapi: 3.0.3\nservers: [{{url: 'https://a.example'}}]\nshared: {{get: {{operationId: shared}}}}\n"
        f"paths: {{{paths}}}"
    )
    assert sorted(accepted(found).ruleset.tools) == sorted(names)
    assert [note.what for _, note in found.notes if note.kind == LEFT_OUT] == why


SWAGGER = """
swagger: "2.0"
host: api.example.com
basePath: /v2
schemes: [https, http, ws]
securityDefinitions: {k: {type: apiKey, in: query, name: key}}
security: [{k: []}]
consumes: [application/xml, application/json]
paths:
  /pets:
    get:
      operationId: list
      parameters:
        - {name: ids, in: query, type: array, items: {type: integer}}
        - {name: tags, in: query, type: array, items: {type: string}, collectionFormat: multi}
        - {name: limit, in: query, type: integer, format: int32, required: true}
    post:
      operationId: add
      parameters: [{name: pet, in: body, required: true, schema: {$ref: "#/definitions/Pet"}}]
    put:
      operationId: xml
      consumes: [application/xml]
      parameters: [{name: pet, in: body, schema: {$ref: "#/definitions/Pet"}}]
  /pets/{id}/photo:
    post:
      operationId: photo
      schemes: [https]
      parameters:
        - {name: id, in: path, type: integer, required: true}
        - {name: file, in: formData, type: file, required: true}
        - {name: note, in: formData, type: string}
  /pets/{id}:
    post:
      operationId: rename
      schemes: [https]
      parameters: [{name: id, in: path, type: string}, {name: name, in: formData, type: string}]
  /none: {post: {operationId: none, schemes: [https]}}
definitions:
  Pet: {type: object, required: [name], properties: {name: {type: string}, id: {type: integer, readOnly: true}}}
"""


def test_swagger_2() -> None:
    found = imported(SWAGGER)
    accepted(found)
    assert found.text.partition("\ntools:\n")[2].splitlines() == [
        "  list:",
        "    match:",
        "      - GET https://api.example.com/v2/pets",
        "      - GET http://api.example.com/v2/pets",
        "    credential: query.key",
        "    params:",
        '      ids: {items: integer, split: ","}',
        "      tags: {items: string}",
        "      limit: {type: integer, required: true, format: int32}",
        "",
        "  add:",
        "    match:",
        "      - POST https://api.example.com/v2/pets",
        "      - POST http://api.example.com/v2/pets",
        "    body: json",
        "    credential: query.key",
        "    params: {name: {type: string, required: true}}",
        "",
        "  # wider: body: bodies of the media type application/xml are not looked at",
        "  xml:",
        "    match:",
        "      - PUT https://api.example.com/v2/pets",
        "      - PUT http://api.example.com/v2/pets",
        "    credential: query.key",
        "    params: {$body: {}}",
        "",
        "  photo:",
        "    match: POST https://api.example.com/v2/pets/{id}/photo",
        "    body: multipart",
        "    credential: query.key",
        "    params: {path.id: integer, file: {type: string, required: true, format: binary}, note: string}",
        "",
        "  rename:",
        "    match: POST https://api.example.com/v2/pets/{id}",
        "    body: form",
        "    credential: query.key",
        "    params: {name: string}",
        "",
        '  none: {match: "POST https://api.example.com/v2/none", credential: query.key, params: {}}',
    ]


# --- writing ---


def test_long_values_are_broken_over_lines() -> None:
    words = ", ".join(f"value_number_{number}" for number in range(30))
    found = operation(
        f"{{anyOf: [{{type: string, enum: [{words}]}}, {{type: array, items: {{enum: [{words}]}}}},"
        f" {{type: string, pattern: {'x' * 150}}}, {{type: object, properties: {{{
            words.replace(',', ': {},')
        }: {{}}}}}}]}}"
    )
    accepted(found)
    assert max(map(len, found.text.splitlines())) < 180


def test_what_can_not_be_seen_is_not_written() -> None:
    found = imported(
        SHOP.replace("List orders", '"List\\u202e\\nor\\u200bders"').replace("[open,", '["o\\t\\"p\\u200b\\U000E0041",')
    )
    accepted(found)
    assert "# Listorders" in found.text.replace(" ", "") or "# List orders" in found.text
    assert '"o\\x09\\"p\\u200b\\U000e0041"' in found.text
    assert comment("  # a\n b\u200b  c" + "d" * 200) == "  # a b c" + "d" * 106 + "..."


@given(st.text(max_size=12))
def test_any_text_is_written_so_that_it_is_read_again(text: str) -> None:
    quoted = json.dumps(text.encode("utf-8", "replace").decode())
    spec = f'{{"type": "string", "enum": [{quoted}]}}'
    document = (
        '{"openapi": "3.0.3", "servers": [{"url": "https://a.example"}], "paths": {"/a": {"post": {"operationId": "a",'
        ' "summary": ' + quoted + ', "requestBody": {"content": {"application/json": {"schema": {"type": "object",'
        ' "properties": {"v": ' + spec + ", " + quoted[:-1] + '_": {}}}}}}}}}}'
    )
    found = imported(document)
    accepted(found)
    tools = parse(found.text, "tools.yaml").get("tools")
    assert tools is not None
    params = tools.entries[0][1].get("params")
    assert params is not None
    value = params.get("v")
    assert value is not None
    assert value.plain() == [json.loads(quoted)]
