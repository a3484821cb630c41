"""What each code of a problem means: why it is refused, a file that has it, and the same file mended.

The examples are whole files but for `version: 1`; tests load every one of them.
"""

from __future__ import annotations

from textwrap import dedent, indent

_EXPLAINED: dict[str, tuple[str, str, str]] = {
    "yaml-syntax": (
        "The file is not YAML. Often a text holds a sign that YAML reads as its own: `: ` or ` #` anywhere, `{`, `[`, "
        "`*`, `&`, `!`, `%`, `@` or a backtick at its start, and inside `{...}` and `[...]` also `{`, `}`, `[`, `]` "
        "and `,`. Quote such a text. A bracket or quote that is never closed may mean that the file is only half "
        "written; such a file is never used.",
        'rules: [{id: no-deletes, match: DELETE https://api.example.com/{item}, deny: "No."}]',
        'rules: [{id: no-deletes, match: "DELETE https://api.example.com/{item}", deny: "No."}]',
    ),
    "yaml-tab": (
        "YAML forbids tabs in indentation, since nobody can see how deep they are. Use spaces.",
        "rules:\n\t- {id: all-files, match: GET https://files.example.com/**, allow: true}",
        "rules:\n  - {id: all-files, match: GET https://files.example.com/**, allow: true}",
    ),
    "yaml-character": (
        "The file holds a character that cannot be seen: a control character, a zero-width space, or a mark that turns "
        "the direction of writing. A rule that does not say what it shows is not used. In a text in double quotes such "
        "characters can be written as escapes.",
        "rules: [{id: files, match: GET https://files.example.com/**\u200b, allow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "yaml-documents": (
        "A rule file is one document. What stands behind a second `---` would be easy to overlook: put it into a file "
        "of its own. Files are merged, and their order does not matter.",
        "rules: []\n---\nrules: []",
        "rules: []",
    ),
    "yaml-tag": (
        "Tags such as `!!str` or `!include` and directives are not part of rule files. Quote what is meant as text; "
        "everything else has the type that it shows.",
        "rules: [{id: !!str 7, match: GET https://files.example.com/**, allow: true}]",
        'rules: [{id: "7", match: GET https://files.example.com/**, allow: true}]',
    ),
    "yaml-alias": (
        "Anchors (`&name`) and aliases (`*name`) are not part of rule files: what a rule says stands in the rule. Name "
        "an operation once under `tools` and refer to it by name instead. A text that starts with `*` has to be quoted.",
        "rules: [{id: reports, agent: *reporter, match: GET https://files.example.com/**, allow: true}]",
        'rules: [{id: reports, agent: "*reporter", match: GET https://files.example.com/**, allow: true}]',
    ),
    "yaml-number": (
        "Numbers are exact. Infinities, not-a-number and numbers of absurd size cannot be compared in a way that "
        "anybody means. Leave out a bound that is not wanted.",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, where: {body.amount: {lte: .inf}}, allow: true, dedupe: 24h}]",
        "tools: {refund: POST https://pay.example.com/refunds}\n"
        "rules: [{id: refunds, tool: refund, allow: true, dedupe: 24h}]",
    ),
    "yaml-depth": (
        "The file nests lists and mappings deeper than any rule needs. It is more likely broken than meant.",
        f"tests: {'[' * 70}{']' * 70}",
        "tests: []",
    ),
    "duplicate-key": (
        "A key stands twice in one mapping. Most programs would silently use the last; here nobody has to know which.",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true, allow: true}]",
        "rules: [{id: files, match: GET https://files.example.com/**, allow: true}]",
    ),
    "key-not-text": (
        "The keys of a mapping are texts. A number, `true`, or `null` as a key has to be quoted.",
        "tools: {7: GET https://files.example.com/**}",
        'tools: {"7": GET https://files.example.com/**}',
    ),
    "empty-file": (
        "The file says nothing. That happens when a file is read while it is being written, so it is not taken for a "
        "rule set without rules: write `rules: []` if that is what is meant.",
        "",
        "rules: []",
    ),
}


def _paragraph(why: str, wrong: str, right: str) -> str:
    blocks = [f"{name}:\n{indent(dedent(example), '    ')}" for name, example in (("wrong", wrong), ("right", right))]
    return "\n\n".join([why, *blocks])


EXPLANATIONS: dict[str, str] = {code: _paragraph(*parts) for code, parts in _EXPLAINED.items()}
"""Code -> a paragraph with an example of wrong and right, for `rules explain CODE`."""
