"""Calls made from an OpenAPI document's own schemas, without a look at what the import makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from rules.call import NO_BODY, Body, Call
from rules.openapi.document import Document
from rules.openapi.operations import Operation

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT15M",
    "email": "ann@example.com",
    "hostname": "api.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/a",
    "uri-reference": "/a",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
}
CANDIDATES = (
    *("a", "abc", "A", "ABC", "1", "12", "12345678", "a1", "A-1", "a_b", "a.b", "a-b", "a/b", "/a", "a:b", "a1b2c3"),
    *("#a1b2c3", "2026-01-31", "12:00", "+15551234567", "https://example.com/a", "http://a.example", "en", "en-US"),
    *("a" * 8, "a" * 20, "A" * 10, "0" * 40, "f" * 32, "a" * 64, "a@b.example", "192.0.2.1/32", "v1.2.3", "sha-abc"),
    *("refs/heads/main", *FORMATS.values()),
)
"""Texts that are tried where a pattern is given."""

DEPTH = 5


class Cannot(Exception):
    """No value could be made for a schema."""


class Maker:
    """Makes values and calls, the same for the same seed."""

    def __init__(self, document: Document, seed: int) -> None:
        self.document = document
        self.random = Random(seed)

    # -- values

    def value(self, schema: Any, depth: int = 0) -> Any:
        """A value that `schema` describes. Raises `Cannot`."""
        if not isinstance(schema, dict):
            return "a"
        spec = dict(self.document.follow(schema)[0])
        if "const" in spec:
            return spec["const"]
        if spec.get("enum"):
            return self.random.choice([each for each in spec["enum"] if each is not None] or [None])
        parts = [spec.pop(word) for word in ("allOf",) if word in spec]
        chosen = [self.random.choice(spec.pop(word)) for word in ("oneOf", "anyOf") if spec.get(word)]
        composed = [each for each in (*(each for part in parts for each in part), *chosen) if _says_what(each)]
        own_required = spec.get("required") if composed and isinstance(spec.get("required"), list) else []
        bare = [{"required": own_required}] if own_required else []
        bare += [
            each
            for each in composed
            if isinstance(each, dict) and set(each) <= {"required", "type"} and "required" in each
        ]
        if bare:  # what they require is described beside them
            beside = [name for each in bare for name in each["required"]]
            composed = [self._requiring(each, beside) for each in composed if each not in bare]
            spec.pop("required", None)
            spec = dict(self._requiring(spec, beside))
        if composed:
            own = [spec] if spec.get("type") or "properties" in spec else []
            described = [name for each in (*own, *composed) for name in self._members(each)]
            if len(described) > len(set(described)):
                raise Cannot  # two parts describe the same member, each in its own way
            values = [self.value(each, depth) for each in (*own, *composed)]
            if not all(isinstance(each, dict) for each in values):
                return values[-1]
            return {name: value for each in values for name, value in each.items()}
        return self._of_type(spec, depth)

    def _members(self, schema: Any) -> set[str]:
        """The members that `schema`, or one of its parts, describes."""
        found, _ = self.document.follow(schema)
        parts = [each for word in ("allOf", "anyOf", "oneOf") for each in found.get(word) or ()]
        return set(found.get("properties") or ()).union(*(self._members(each) for each in parts))

    def _requiring(self, schema: Any, names: list[str]) -> Mapping[str, Any]:
        """`schema`, where it describes them, with these members required."""
        found = dict(self.document.follow(schema)[0])
        required = found["required"] if isinstance(found.get("required"), list) else []
        own = [name for name in names if name in found.get("properties", {})]
        found = {**found, "required": [*required, *own]} if own else found
        if "allOf" in found:
            found["allOf"] = [self._requiring(each, names) for each in found["allOf"]]
        return found

    def _of_type(self, spec: Mapping[str, Any], depth: int) -> Any:
        kind = spec.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "null":
            return None
        if kind is None:
            of_objects = {"properties", "additionalProperties", "required"} & spec.keys()
            kind = "object" if of_objects else "array" if "items" in spec else "string"
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind in ("integer", "number"):
            return self._number(spec)
        if kind == "array":
            count = max(int(spec.get("minItems", 0)), 1 if depth <= DEPTH else 0)
            if count > 1 and spec.get("uniqueItems"):
                raise Cannot
            return [self.value(spec.get("items", {}), depth + 1) for _ in range(count)]
        if kind == "object":
            return self._object(spec, depth)
        return self._text(spec)

    def _number(self, spec: Mapping[str, Any]) -> int:
        low = spec.get("minimum", spec.get("exclusiveMinimum", 1))
        low = 1 if isinstance(low, bool) else low
        high = spec.get("maximum", low + 3)
        factor = spec.get("multipleOf", 1)
        found = int(low) + (1 if "exclusiveMinimum" in spec or int(low) < low else 0)
        found += -found % int(factor) if factor == int(factor) and factor > 1 else 0
        if found > high:
            raise Cannot
        return found

    def _text(self, spec: Mapping[str, Any]) -> str:
        prefixed = re.fullmatch(r"\^([A-Za-z]*)\[0-9a-fA-F\]\{(\d+)\}\$", str(spec.get("pattern", "")))
        if prefixed:
            return f"{prefixed[1]}{'a' * int(prefixed[2])}"
        least, most = int(spec.get("minLength", 0)), int(spec.get("maxLength", 1000))
        said = FORMATS.get(str(spec.get("format")), "")
        for text in (said or "a", "x" * max(least, min(3, most)), *CANDIDATES):
            pattern = spec.get("pattern")
            try:
                fits = not pattern or re.search(pattern, text) is not None
            except re.error:
                raise Cannot from None
            if least <= len(text) <= most and fits and (not said or text == said):
                return text
        raise Cannot

    def _object(self, spec: Mapping[str, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        required: list[str] = spec["required"] if isinstance(spec.get("required"), list) else []
        for name, member in (spec.get("properties") or {}).items():
            inside = self.document.follow(member)[0] if isinstance(member, dict) else {}
            if inside.get("readOnly") is True or (isinstance(member, dict) and member.get("readOnly") is True):
                continue
            if name not in required and (depth >= DEPTH or self.random.random() < 0.5):
                continue
            try:
                made[name] = self.value(member, depth + 1)
            except (Cannot, RecursionError):
                if name in required:
                    raise Cannot from None
        if not spec.get("properties") and isinstance(spec.get("additionalProperties"), dict) and depth < DEPTH:
            made["key"] = self.value(spec["additionalProperties"], depth + 1)
        if not int(spec.get("minProperties", 0)) <= len(made) <= int(spec.get("maxProperties", 1000)):
            raise Cannot
        if any(name not in (spec.get("properties") or {}) for name in required):
            raise Cannot
        return made

    # -- calls

    def call(self, operation: Operation, url: str) -> Call:
        """A call of `operation` at `url`. Raises `Cannot`."""
        declared: dict[tuple[str, str], Mapping[str, Any]] = {}
        for each in (*(operation.item.get("parameters") or ()), *(operation.spec.get("parameters") or ())):
            found, _ = self.document.follow(each)
            declared[str(found.get("in")), str(found.get("name"))] = found
        path = operation.path.partition("?")[0]
        for name in re.findall(r"\{([^{}]*)\}", path):
            parameter = declared.get(("path", name), {})
            value = self.value(self._schema(parameter)) if parameter else "x"
            text = ",".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
            if not text or isinstance(value, dict) or text in (".", "..") or "\\" in text:
                raise Cannot
            path = path.replace(f"{{{name}}}", quote(text, safe=":@!$&'()*+,;="))
        query: list[tuple[str, str]] = []
        fixed = operation.path.partition("?")[2]
        query += [(name, value) for name, _, value in (pair.partition("=") for pair in fixed.split("&") if pair)]
        for (place, name), parameter in declared.items():
            if place == "query" and (parameter.get("required") is True or self.random.random() < 0.4):
                try:
                    query += self._query(parameter, name)
                except Cannot:
                    if parameter.get("required") is True:
                        raise
        parts = urlsplit(url)
        whole = parts.path.rstrip("/") + path
        return Call(
            agent="ann",
            run="r",
            method=operation.method.upper(),
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or (443 if parts.scheme == "https" else 80),
            path=whole,
            segments=tuple(unquote(segment) for segment in whole.split("/")[1:]),
            query=tuple(query),
            body=self._body(operation, declared),
        )

    def _schema(self, parameter: Mapping[str, Any]) -> Any:
        if "schema" in parameter:
            return parameter["schema"]
        return {key: value for key, value in parameter.items() if key not in ("required", "in", "name")}

    def _query(self, parameter: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
        if "content" in parameter:
            return [(name, "{}")]
        value = self.value(self._schema(parameter))
        style = parameter.get("style", "form")
        explode = parameter.get("explode", style == "form")
        if self.document.version == 2:
            separator = {"csv": ",", "ssv": " ", "pipes": "|"}.get(parameter.get("collectionFormat", "csv"), "")
        else:
            separator = "" if explode else {"spaceDelimited": " ", "pipeDelimited": "|"}.get(style, ",")
        if isinstance(value, list) and style != "deepObject":
            if any(isinstance(each, list | dict) for each in value):
                raise Cannot
            texts = [_plain(each) for each in value]
            return [(name, separator.join(texts))] if separator else [(name, text) for text in texts]
        if isinstance(value, dict) and style == "form":
            if not explode or any(isinstance(each, list | dict) for each in value.values()):
                raise Cannot
            return [(key, _plain(each)) for key, each in value.items()]
        if value is None:
            raise Cannot  # a query has no way to say it
        return brackets(name, value)

    def _body(self, operation: Operation, declared: Mapping[tuple[str, str], Mapping[str, Any]]) -> Body:
        if self.document.version == 2:
            for (place, _), parameter in declared.items():
                if place == "formData":
                    raise Cannot
                if place == "body":
                    return json_body(self.value(parameter.get("schema", {})))
            return NO_BODY
        request, _ = self.document.follow(operation.spec.get("requestBody"))
        content = request.get("content") or {}
        if not content or (request.get("required") is not True and self.random.random() < 0.3):
            return NO_BODY
        media_type = next(iter(content))
        schema = (content[media_type] or {}).get("schema", {})
        if media_type.partition(";")[0].endswith(("/json", "+json", "*/*")):
            return json_body(self.value(schema))
        if media_type == "application/x-www-form-urlencoded":
            value = self.value(schema)
            pairs = [pair for name, each in value.items() for pair in brackets(name, each)]
            return Body("form", media_type, fields=tuple(pairs), size_bytes=1) if pairs else NO_BODY
        raise Cannot


def _says_what(schema: Any) -> bool:
    """Whether it describes a value at all, not only how it is used."""
    return not isinstance(schema, dict) or bool(
        schema.keys() - {"readOnly", "nullable", "description", "example", "default"}
    )


def brackets(name: str, value: Any) -> list[tuple[str, str]]:
    """The pairs that spell `value` in a form."""
    if value in ({}, []):
        raise Cannot  # a form has no way to say it
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in brackets(f"{name}[{key}]", each)]
    if isinstance(value, list):
        return [pair for place, each in enumerate(value) for pair in brackets(f"{name}[{place}]", each)]
    return [(name, _plain(value))]


def json_body(value: Any) -> Body:
    """A JSON body as the wire decodes it."""
    text = json.dumps(value, default=float)
    return Body("json", "application/json", json=json.loads(text, parse_float=Decimal), size_bytes=len(text))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
