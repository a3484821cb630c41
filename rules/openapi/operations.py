"""From the operations of a document to tools: a name, the patterns of its calls, and what they may say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from rules.openapi.document import Document, OpenApiError, mapping, sequence
from rules.openapi.notes import LEFT_OUT, NARROWER, WIDER, Note
from rules.openapi.schemas import DEPTH, Schemas, TooLarge, Written
from rules.params.read import PLACED, WHOLE, WHOLES

METHODS = ("get", "head", "options", "post", "put", "patch", "delete", "trace")
NAME_LENGTH = 80
SERVERS = 8
"""A tool has patterns for so many servers at most."""

USUAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "private-token"})
"""Where a credential is looked for without being told."""

TOO_LARGE = "it has more parameters than a person would read"

_IN_BODY = frozenset({"post", "put", "patch"})


class Operation(msgspec.Struct, frozen=True):
    """One operation as the document has it. `at`: its method and path, as people know it."""

    method: str
    path: str
    spec: Mapping[str, Any]
    item: Mapping[str, Any]

    @property
    def at(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def group(self) -> str:
        return next((str(tag).strip() for tag in sequence(self.spec.get("tags"))), "")

    @property
    def summary(self) -> str:
        text = str(self.spec.get("summary") or self.spec.get("description") or "").strip()
        return " ".join(text.split("\n\n")[0].split())


class Entry(msgspec.Struct, frozen=True):
    """A tool to be written. `fixed`: query parameters that tell it from others at the same path; `mcp`: what does so at
    the address of an MCP server, or empty. `params` is None where they are not wanted. `remark`: what else is said of
    it, and not taken over."""

    name: str
    group: str
    summary: str
    patterns: tuple[str, ...]
    fixed: tuple[tuple[str, str], ...]
    body: str
    credential: str
    params: dict[str, Written] | None
    notes: tuple[Note, ...]
    mcp: str = ""
    remark: str = ""


def operations(document: Document) -> list[Operation]:
    """All operations, in the order of the document."""
    found: list[Operation] = []
    for path, value in mapping(document.root["paths"]).items():
        item, _ = document.follow(value)
        here = [method for method in METHODS if isinstance(item.get(method), dict)]
        found += [Operation(method, str(path), item[method], item) for method in here]
    return found


def names(found: Sequence[Operation], prefix: str) -> list[str]:
    """A name for each operation, unique among them: what the document calls it, else its method and path."""
    return unique([str(one.spec.get("operationId") or f"{one.method} {one.path}") for one in found], prefix)


def unique(wanted: Sequence[str], prefix: str) -> list[str]:
    """The name of a tool for each of `wanted`, with the same `prefix`."""
    taken: set[str] = set()
    names: list[str] = []
    for said in wanted:
        clean = re.sub(r"[^A-Za-z0-9_-]+", ".", said).strip("._-")
        name = clean if not prefix or clean == prefix or clean.startswith(f"{prefix}.") else f"{prefix}.{clean}"
        name = re.sub(r"^[._-]+", "", name)[:NAME_LENGTH].rstrip("._-") or "operation"
        free, number = name, 1
        while free.lower() in taken:
            number += 1
            end = f".{number}"
            free = f"{name[: NAME_LENGTH - len(end)]}{end}"
        taken.add(free.lower())
        names.append(free)
    return names


def entry(document: Document, operation: Operation, name: str, server: str, with_params: bool) -> Entry | Note:
    """The tool of `operation`, or why it has none."""
    try:
        path, fixed = _without_query(operation.path)
        patterns, captured, notes = _patterns(document, operation, path, server)
    except _NoPattern as error:
        return Note(LEFT_OUT, str(error))
    body, params = "", None
    if with_params:
        for depth in range(DEPTH, -1, -1):
            schemas = Schemas(document, depth)
            writing = _Writing(document, operation, schemas, captured)
            try:
                body, params = writing.params()
            except TooLarge:
                continue
            notes = notes | schemas.notes
            break
        else:
            return Note(LEFT_OUT, TOO_LARGE)
        params = {**_fixed_parameters(operation, body, fixed), **(params or {})}
    credential = _credential(document, operation)
    told = tuple(sorted(notes))
    return Entry(name, operation.group, operation.summary, patterns, fixed, body, credential, params, told)


# --- where it is ---


class _NoPattern(Exception):
    """No pattern can describe its calls."""


def _without_query(path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The path, and the query that some documents write into it: parameters that are always the same."""
    path, _, query = path.partition("?")
    try:
        fixed = tuple(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else ()
    except ValueError:
        raise _NoPattern("the query in its path cannot be read") from None
    if "#" in path or any("{" in text or "#" in text for pair in fixed for text in pair):
        raise _NoPattern("its path has a fragment in it, or a query that varies")
    return path, fixed


def _fixed_parameters(operation: Operation, body: str, fixed: tuple[tuple[str, str], ...]) -> dict[str, Written]:
    in_body = operation.method in _IN_BODY if not body else body not in ("none", "text")
    return {key(name, "query", in_body): {"enum": [value], "required": True} for name, value in fixed}


def _patterns(
    document: Document, operation: Operation, path: str, server: str
) -> tuple[tuple[str, ...], dict[str, str], set[Note]]:
    """Its patterns, what its path captures (the document's name -> ours), and what was lost."""
    notes: set[Note] = set()
    written, captured = _path(operation, path, notes)
    found = [f"{operation.method.upper()} {base}{written}" for base in _bases(document, operation, server, notes)]
    return tuple(dict.fromkeys(found)), captured, notes


def _path(operation: Operation, path: str, notes: set[Note]) -> tuple[str, dict[str, str]]:
    captured: dict[str, str] = {}
    segments: list[str] = []
    long = {str(each.get("name")) for each in _declared(operation) if each.get("x-multi-segment") is True}
    for segment in path.strip("/").split("/") if path.strip("/") else []:
        inside = re.findall(r"\{([^{}]*)\}", segment)
        if any(name in long or name[:1] in ("+", "/") or name.endswith("*") for name in inside):
            notes.add(Note(WIDER, "a part of the path stands for several segments", f"path.{inside[0].strip('+/*')}"))
            segments.append("**")
        elif len(inside) > 1:
            segments.append(re.sub(r"(\{[^{}]*\})+", "*", _literal(segment)))
        else:
            for name in inside:
                ours = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
                ours = ours if ours[0].isalpha() or ours[0] == "_" else f"_{ours}"
                if ours not in captured.values():
                    captured[name] = ours
                segment = segment.replace(f"{{{name}}}", f"{{{captured.get(name, f'{ours}_{len(captured)}')}}}")
            segments.append(_literal(segment))
    return "/" + "/".join(segments) + ("/" if path.endswith("/") and segments else ""), captured


def _literal(segment: str) -> str:
    """The literal text of a segment in characters that are sent so."""
    return re.sub(r"[^!-~]|[\"<>\\^`|]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), segment)


def _bases(document: Document, operation: Operation, server: str, notes: set[Note]) -> list[str]:
    """The URLs that the path is appended to."""
    if server:
        return [server.rstrip("/")]
    if document.version == 2:
        listed = sequence(operation.spec.get("schemes")) or sequence(document.root.get("schemes")) or ["https"]
        host = str(document.root.get("host") or "")
        base = str(document.root.get("basePath") or "").rstrip("/")
        urls = [f"{scheme}://{host}{base}" for scheme in listed if host and scheme in ("http", "https")]
    else:
        servers = [each for each in (operation.spec, operation.item, document.root) if sequence(each.get("servers"))]
        urls = (
            [url for each in sequence(servers[0]["servers"]) for url in _served(mapping(each), notes)]
            if servers
            else []
        )
    usable = [url.rstrip("/") for url in dict.fromkeys(urls) if re.match(r"https?://[^/]", url)]
    if not usable:
        raise OpenApiError("the document names no host: say where the API is, with `--server https://HOST/PATH`")
    if len(usable) > SERVERS:
        notes.add(Note(NARROWER, f"only the first {SERVERS} servers are named"))
    return usable[:SERVERS]


def _served(server: Mapping[str, Any], notes: set[Note]) -> Iterator[str]:
    """The URLs of a server: one for each choice of its variables. A whole label or segment for which any text may be
    chosen, or too many, stands open."""
    url = str(server.get("url", ""))
    variables = mapping(server.get("variables"))
    choices: list[list[tuple[str, str]]] = []
    for name in dict.fromkeys(re.findall(r"\{([^{}]*)\}", url)):
        variable = mapping(variables.get(name))
        values = [str(each) for each in sequence(variable.get("enum"))]
        whole = re.search(rf"(?:://|[./]){re.escape(f'{{{name}}}')}(?=[./:]|$)", url)
        if whole and not 0 < len(values) <= SERVERS:
            if values:
                notes.add(Note(WIDER, "any server of such a name", name))
            values = [f"{{{re.sub('[^A-Za-z0-9_]', '_', name)}}}"]
        choices.append([(name, value) for value in values or [str(variable.get("default", ""))]])
    for chosen in product(*choices):
        made = url
        for name, value in chosen:
            made = made.replace(f"{{{name}}}", value)
        yield made


# --- what it may say ---


def _declared(operation: Operation) -> list[Mapping[str, Any]]:
    return [
        mapping(each)
        for each in (*sequence(operation.item.get("parameters")), *sequence(operation.spec.get("parameters")))
    ]


class _Writing:
    """Writes the `params` of one operation."""

    def __init__(self, document: Document, operation: Operation, schemas: Schemas, captured: Mapping[str, str]) -> None:
        self.document = document
        self.operation = operation
        self.schemas = schemas
        self.captured = captured

    def params(self) -> tuple[str, dict[str, Written]]:
        """The tool's `body` (empty where it need not be said) and its `params`."""
        declared: dict[tuple[str, str], Mapping[str, Any]] = {}
        for each in _declared(self.operation):
            found, _ = self.document.follow(each)
            declared[str(found.get("in")), str(found.get("name"))] = found
        params: dict[str, Written] = {}
        for (place, name), parameter in declared.items():
            if place == "path" and name in self.captured:
                written = self._path_parameter(parameter, name)
                if written:
                    params[f"path.{self.captured[name]}"] = written
        query: dict[str, Written] = {}
        for (place, name), parameter in declared.items():
            if place == "query":
                query.update(self._query_parameter(parameter, name))
        kind, body = self._body(declared)
        in_body = self.operation.method in _IN_BODY if not kind else kind not in ("none", "text")
        for name, written in query.items():
            params[key(name, "query", in_body)] = written
        for name, written in body.items():
            params[name if name == WHOLE else key(name, "body", not in_body)] = written
        return kind, params

    def _path_parameter(self, parameter: Mapping[str, Any], name: str) -> Written:
        written = self.schemas.write(_schema(parameter), f"path.{name}")
        style = parameter.get("style", "simple")
        if "object" in _types(written) or style != "simple":
            self.schemas.note(WIDER, f"a {style} parameter of the path is not looked at", f"path.{name}")
            return {}
        if "array" in _types(written):
            written["split"] = ","
        return {} if written in ({"type": "string"}, {"type": ["string"]}) else written

    def _query_parameter(self, parameter: Mapping[str, Any], name: str) -> dict[str, Written]:
        where = f"query.{name}"
        required = {"required": True} if parameter.get("required") is True else {}
        if mapping(parameter.get("content")):
            self.schemas.note(WIDER, "JSON inside of a parameter is not looked at", where)
            return {name: {"type": "string", **required}}
        written = self.schemas.write(_schema(parameter), where)
        style = str(parameter.get("style", "form"))
        explode = parameter.get("explode", style == "form")
        separator = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}.get(style, "")
        if self.document.version == 2:
            of_collection = {"csv": ",", "ssv": " ", "pipes": "|", "multi": ""}
            separator = of_collection.get(str(parameter.get("collectionFormat", "csv")), "")
            explode = not separator
        if "array" in _types(written) and separator and not explode:
            written["split"] = separator
            if "anyOf" in written or not set(_types(written)) <= {"array", "null"}:
                del written["split"]
                self.schemas.note(WIDER, "a list or another value: it is not looked at", where)
                written = {}
        if "object" in _types(written) and style == "form" and explode and self.document.version == 3:
            if "properties" in written and "additionalProperties" not in written:
                return dict(written["properties"])  # each member is a parameter of its own
            self.schemas.note(NARROWER, "parameters of any name cannot be said", where)
            return {}
        if "object" in _types(written) and style == "form" and self.document.version == 3:
            self.schemas.note(WIDER, "members in a list are not looked at", where)
            written = {}
        return {name: {**written, **required}}

    def _body(self, declared: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, dict[str, Written]]:
        """How the body reads (empty where it need not be said), and its parameters."""
        if self.document.version == 2:
            contents, required = self._old_body(declared)
        else:
            request, _ = self.document.follow(self.operation.spec.get("requestBody"))
            contents = {
                str(kind): mapping(each).get("schema", {}) for kind, each in mapping(request.get("content")).items()
            }
            required = request.get("required") is True
        if not contents:
            return "", {}
        kinds: dict[str, Written] = {}
        for media_type, schema in contents.items():
            kind = _kind(media_type)
            written = self.schemas.write(schema, "body") if kind in ("json", "form", "multipart") else {}
            if kinds.setdefault(kind, written) != written:
                self.schemas.note(NARROWER, f"bodies of the media type {media_type[:60]} are taken for another", "body")
        if set(kinds) == {"text"}:
            return "text", {}
        others = [media_type for media_type in contents if _kind(media_type) in ("text", "other")]
        if others:
            self.schemas.note(WIDER, f"bodies of the media type {others[0][:60]} are not looked at", "body")
            return "", {WHOLE: {"required": True} if required else {}}
        first, *rest = kinds
        if any(kinds[kind] != kinds[first] for kind in rest):
            self.schemas.note(NARROWER, f"only bodies that are {first} are taken", "body")
            rest = []
        said = first if not rest else ""
        if self.operation.method not in _IN_BODY:
            said = first
        return said, self._members(kinds[first], required)

    def _old_body(self, declared: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The body of Swagger 2.0, as 3.0 would say it."""
        consumed = sequence(self.operation.spec.get("consumes")) or sequence(self.document.root.get("consumes"))
        fields = {name: each for (place, name), each in declared.items() if place == "formData"}
        if fields:
            multipart = any(each.get("type") == "file" for each in fields.values()) or "multipart/form-data" in consumed
            kind = "multipart/form-data" if multipart else "application/x-www-form-urlencoded"
            required = [name for name, each in fields.items() if each.get("required") is True]
            properties = {name: {**_schema(each)} for name, each in fields.items()}
            return {kind: {"type": "object", "properties": properties, "required": required}}, bool(required)
        for (place, _), each in declared.items():
            if place == "body":
                types = [str(one) for one in consumed] or ["application/json"]
                json_like = [one for one in types if _kind(one) == "json"] or types[:1]
                return {json_like[0]: each.get("schema", {})}, each.get("required") is True
        return {}, False

    def _members(self, written: Written, required: bool) -> dict[str, Written]:
        """The body's members as parameters, or the body as a whole."""
        members = written.get("properties", {})
        plain = set(written) <= {"type", "properties"} and written.get("type", "object") == "object" and members
        if plain and (required or not any(each.get("required") for each in members.values())):
            return dict(members)
        if not written:
            self.schemas.note(WIDER, "the body is anything", "body")
        return {WHOLE: {**written, "required": True} if required and "required" not in written else written}


def key(name: str, place: str, explicit: bool) -> str:
    """How `params` names it."""
    odd = name in WHOLES or PLACED.match(name)
    if not explicit and not odd:
        return name
    if re.fullmatch(r"[A-Za-z0-9_$@-]+", name):
        return f"{place}.{name}"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{place}["{quoted}"]'


def _schema(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its schema; in Swagger 2.0 the parameter itself."""
    if "schema" in parameter:
        return mapping(parameter["schema"])
    return {key: value for key, value in parameter.items() if key not in ("required", "in", "name", "description")}


def _types(written: Written) -> list[str]:
    said = written.get("type", [])
    found = [said] if isinstance(said, str) else list(said)
    for branch in (*written.get("anyOf", ()), *written.get("allOf", ())):
        found += _types(branch)
    return found


def _kind(media_type: str) -> str:
    essence = media_type.partition(";")[0].strip().lower()
    if essence.endswith(("/json", "+json")) or essence == "*/*":
        return "json"
    known = {"application/x-www-form-urlencoded": "form", "multipart/form-data": "multipart"}
    return known.get(essence, "text" if essence.startswith("text/") else "other")


def _credential(document: Document, operation: Operation) -> str:
    """Where the key is, if the document says so and nobody would look there: a query parameter or an odd header."""
    schemes = mapping(mapping(document.root.get("components")).get("securitySchemes")) or mapping(
        document.root.get("securityDefinitions")
    )
    wanted = operation.spec.get("security", document.root.get("security"))
    for each in sequence(wanted):
        for name in mapping(each):
            scheme, _ = document.follow(schemes.get(name))
            field = str(scheme.get("name", ""))
            place = scheme.get("in") if scheme.get("type") == "apiKey" else ""
            odd = place == "query" or (place == "header" and field.lower() not in USUAL_HEADERS)
            if odd and re.fullmatch(r"[A-Za-z0-9_-]+", field):
                return f"{place}.{field}"
    return ""
