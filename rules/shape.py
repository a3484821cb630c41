"""Reading the shape of rule files: known keys, right types, and a report that collects what is wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection

from rules.problems import Mark, Problem, RuleFileError
from rules.suggest import suggest
from rules.units import SIZE_HELP, parse_size
from rules.yamltree import Node

_PATTERN_HELP = "write `match: METHOD https://host/path`"
_MEANT: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("name", "title"), ("id", "did you mean `id`? A `#` starts a comment")),
    **dict.fromkeys(("url", "host", "path", "method", "methods", "request", "endpoint"), ("match", _PATTERN_HELP)),
    **dict.fromkeys(("action", "effect", "decision"), ("deny", 'write `allow: true`, or `deny: "the reason"`')),
    **dict.fromkeys(("if", "when", "condition", "conditions", "params"), ("where", "did you mean `where`?")),
    **dict.fromkeys(("rate", "rate_limit", "ratelimit", "limit"), ("throttle", "did you mean `throttle`?")),
    **dict.fromkeys(("idempotent", "once", "unique"), ("dedupe", "did you mean `dedupe`?")),
    **dict.fromkeys(("except", "exclude", "not"), ("unless", "did you mean `unless`?")),
    **dict.fromkeys(
        ("size", "max_bytes", "limit_size", "maxsize", "max-size"), ("max_size", "did you mean `max_size`?")
    ),
    **dict.fromkeys(("retention", "retain", "older-than", "max_age", "age"), ("keep", "did you mean `keep`?")),
    **dict.fromkeys(("pack", "packs", "import", "imports"), ("use", "did you mean `use`?")),
}
"""Words that people bring along from elsewhere: the word of ours that has to be known there, and the help."""
_WATCHING = frozenset({"audit", "dry-run", "dry_run", "dryrun", "log", "observe", "report", "shadow", "warn", "watch"})


class Report:
    """Everything that was found wrong so far. Its readers answer None where they found the value unusable."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, code: str, message: str, at: Node | Mark, help: str = "") -> None:
        self.problems.append(Problem(code, message, at.mark if isinstance(at, Node) else at, help))

    def attempt[T](self, parse: Callable[[], T]) -> T | None:
        """What `parse` returns, or None with its problems in the report."""
        try:
            return parse()
        except RuleFileError as error:
            self.problems.extend(error.problems)
            return None

    def keys(self, node: Node, what: str, known: Collection[str]) -> dict[str, Node]:
        """The values of the map `node` by key, without the keys that are not `known`. `what` names it: "a rule"."""
        if node.kind != "map":
            self.wrong_type(node, what, "a mapping", f"its keys are {', '.join(known)}")
            return {}
        values: dict[str, Node] = {}
        for key, value in node.entries:
            name = str(key.scalar)
            if name in known:
                values[name] = value
            else:
                meant = _MEANT.get(name, ("", ""))
                close = meant[1] if meant[0] in known else suggest(name, known)
                close = close or f"its keys are {', '.join(known)}"
                self.add("unknown-key", f"`{name}` is not a key of {what}", key, close)
        return values

    def text(self, node: Node, what: str) -> str | None:
        """The text that `node` holds. Numbers and the like are not taken for text: they have to be quoted."""
        if not isinstance(node.scalar, str):
            quote = "quote it" if node.kind == "scalar" and node.scalar is not None else ""
            self.wrong_type(node, what, "a text", quote)
            return None
        if not node.scalar.strip():
            self.add("empty", f"{what} is empty", node, "write what is meant, or remove it")
            return None
        return node.scalar

    def texts(self, node: Node, what: str) -> tuple[tuple[str, Node], ...]:
        """The texts of `node`, which is one text or a list of them, each with its own node."""
        if node.kind == "map":
            self.wrong_type(node, what, "a text or a list of texts")
            return ()
        found = [(self.text(item, what), item) for item in self.some(node, what)]
        return tuple((text, item) for text, item in found if text is not None)

    def some(self, node: Node, what: str) -> tuple[Node, ...]:
        """The items of a list, or the one value that stands in its place. An empty list says nothing: a problem."""
        if node.kind != "list":
            return (node,)
        if not node.items:
            self.add("empty", f"the list of {what} is empty", node, "write what is meant, or remove it")
        return node.items

    def choice(self, node: Node, what: str, allowed: Collection[str]) -> str | None:
        """The one of `allowed` that `node` says."""
        text = self.text(node, what)
        if text is None or text in allowed:
            return text
        words = ", ".join(f"`{word}`" for word in allowed)
        close = suggest("monitor" if text in _WATCHING else text, allowed)
        self.add("choice", f"`{text}` is not a value of {what}: it is one of {words}", node, close)
        return None

    def size(self, node: Node) -> int:
        """The bytes of a size such as `16MiB`; 0 when `node` is none."""
        size_bytes = parse_size(node.scalar)
        if size_bytes is None:
            shown = f"`{node.scalar}`" if node.kind == "scalar" and node.scalar is not None else "this"
            self.add("size", f"{shown} is not a size", node, SIZE_HELP)
        return size_bytes or 0

    def wrong_type(self, node: Node, what: str, wanted: str, help: str = "") -> None:
        if node.kind == "scalar" and node.scalar is None:
            self.add("wrong-type", f"{what} is empty: it has to be {wanted}", node, help)
        else:
            self.add("wrong-type", f"{what} has to be {wanted}, not {_describe(node)}", node, help)


def _describe(node: Node) -> str:
    if node.kind != "scalar":
        return "a mapping" if node.kind == "map" else "a list"
    if isinstance(node.scalar, str):
        return "a text"
    return f"`{str(node.scalar).lower()}`" if isinstance(node.scalar, bool) else f"the number `{node.scalar}`"
