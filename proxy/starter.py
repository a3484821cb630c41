"""The rule files that `borderpost init` begins with: written to be read and edited, and right from the first moment.

Default deny would refuse the agent's own model, so the models and services that the agent uses are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from proxy.confdir import reason
from proxy.rulefiles import packs
from rules.cases import run_case
from rules.load import Source, load
from rules.problems import RuleFileError
from rules.schema import schema
from rules.suggest import suggest

MAIN = "main.yaml"
SCHEMA = "rules.schema.json"
EDITOR_LINE = f"# yaml-language-server: $schema=./{SCHEMA}"


class Model(msgspec.Struct, frozen=True):
    """Where a model is reached: by `tools` of a pack, or by patterns. `probe`: a call that must be allowed."""

    title: str
    probe: str
    pack: str = ""
    tools: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


MODELS: dict[str, Model] = {
    "openai": Model("OpenAI", "POST https://api.openai.com/v1/responses", pack="openai", tools=("openai.*",)),
    "anthropic": Model(
        "Anthropic", "POST https://api.anthropic.com/v1/messages", pack="anthropic", tools=("anthropic.*",)
    ),
    "google": Model(
        "Google Gemini, with a key or a service account",
        "POST https://generativelanguage.googleapis.com/v1beta/models/gemini:generateContent",
        patterns=(
            "GET|POST https://generativelanguage.googleapis.com/**",
            "POST https://oauth2.googleapis.com/token",
        ),
    ),
    "azure": Model(
        "Azure OpenAI",
        "POST https://acme.openai.azure.com/openai/deployments/chat/chat/completions",
        patterns=("GET|POST https://{resource}.openai.azure.com/openai/**",),
    ),
    "bedrock": Model(
        "Amazon Bedrock",
        "POST https://bedrock-runtime.eu-west-1.amazonaws.com/model/claude/converse",
        pack="aws",
        tools=("aws.bedrock.converse", "aws.bedrock.invoke", "aws.bedrock.count"),
    ),
    "mistral": Model(
        "Mistral",
        "POST https://api.mistral.ai/v1/chat/completions",
        patterns=("GET|POST https://api.mistral.ai/v1/**",),
    ),
    "openrouter": Model(
        "OpenRouter",
        "POST https://openrouter.ai/api/v1/chat/completions",
        patterns=("GET|POST https://openrouter.ai/api/v1/**",),
    ),
    "ollama": Model(
        "Ollama on this machine",
        "POST http://localhost:11434/api/chat",
        patterns=("GET|POST http://localhost:11434/**", "GET|POST http://127.0.0.1:11434/**"),
    ),
}

LOOSE = "{rate: 300/min, by: agent, wait: 30s}"
"""Slows down an agent that has run away, and nobody else."""

HEAD = f"""\
{EDITOR_LINE}
#
# What the agent may do. A call that no rule allows is refused, and a `deny` wins over every `allow`.
# All files of this directory count together; their order does not matter.
#
#   borderpost rules check                            are the files right?
#   borderpost rules test                             do the tests at the end hold?
#   borderpost rules eval "GET https://example.com/"  what would happen to this call, and why?
#   borderpost run -- COMMAND                         run an agent under these rules
version: 1
"""

TOOLS = """
# Tools say what a call is. Packs bring theirs (`use: [stripe]`); your own operations get a name here.
#
# tools:
#   orders.create: POST https://api.example.com/v1/orders
#   orders.read: GET https://api.example.com/v1/orders/{order}
"""

RULES = """
# Rules say what may happen.
"""

EXAMPLES = """
  # Examples to adapt:
  #
  # - id: small-orders
  #   tool: orders.create
  #   where: {body.total: {lte: 5000}}
  #   allow: true
  #   dedupe: 24h         # the same order again within a day gets the first answer; it is not sent
  #   throttle: 10/min    # never more than ten in any minute
  #
  # - id: no-deletes
  #   match: DELETE https://**
  #   deny: Deleting is not permitted. Archive it instead, or ask a person.
"""

REFUSED = """\
  - name: what no rule allows is refused
    call: {request: "POST https://not-allowed.example/"}
    expect: {decision: deny, code: no-allow}
"""

REACHED = """\
  - name: the agent reaches its model ({name})
    call: {{request: {probe}}}
    expect: {{decision: allow, rule: model-{name}}}
"""


class StarterError(Exception):
    """The files cannot be written. The text is one line."""


def check_names(chosen: Sequence[str], models: Sequence[str]) -> None:
    """Raise `StarterError` when there is no such pack or model."""
    for names, known, what in ((chosen, packs(), "pack"), (models, MODELS, "model")):
        for name in names:
            if name not in known:
                meant = suggest(name, list(known))
                listed = ", ".join(known)
                raise StarterError(f"there is no {what} `{name}`{f' ({meant})' if meant else ''}; there are: {listed}")


def problem_of(pattern: str) -> str:
    """Why `pattern` cannot be allowed, in one line; empty when it can."""
    try:
        load([Source("rules", _main((), (pattern,)))], packs())
    except RuleFileError as error:
        return f"{error.problems[0].message}" + (f": {error.problems[0].help}" if error.problems[0].help else "")
    return ""


def begun(project: Path) -> bool:
    """Whether `project` has rules that `init` wrote: packs can be put beside them."""
    return (project / "rules" / MAIN).is_file()


def compose(
    chosen: Sequence[str], models: Sequence[str], allow: Sequence[str], *, adding: bool = False
) -> dict[str, str]:
    """The files by name: `main.yaml` for `models` (keys of `MODELS`) and patterns to `allow`, one for each pack.

    `adding`: without `main.yaml`, for a project that has one. Raises `StarterError` where the result would not be right
    from the first moment.
    """
    for pattern in allow:
        problem = problem_of(pattern)
        if problem:
            raise StarterError(f"cannot allow `{pattern}`: {problem}")
    # A pack that is chosen brings rules for its model; one that allows everything beside them would defeat them.
    plain = [name for name in dict.fromkeys(models) if MODELS[name].pack not in chosen]
    files = {MAIN: _main(plain, tuple(dict.fromkeys(allow)))}
    files |= {f"{name}.yaml": _pack_file(name) for name in dict.fromkeys(chosen)}
    loaded = load([Source(name, text) for name, text in files.items()], packs())
    for case in loaded.cases:
        if not run_case(loaded.ruleset, case).passed:
            raise StarterError(f"what is allowed is too wide: the test `{case.name}` in `{case.mark.file}` would fail")
    if adding:
        del files[MAIN]
    return files | {SCHEMA: json.dumps(schema(), indent=2) + "\n"}


def write(files: dict[str, str], project: Path, *, force: bool) -> list[Path]:
    """Write `files` into `project/rules` and return their paths. Nothing is overwritten without `force`."""
    directory = project / "rules"
    if (project / "borderpost.yaml").is_file():
        raise StarterError(
            f"`{project / 'borderpost.yaml'}` exists, and is read instead of `{directory}`: move it there first"
        )
    present = [directory / name for name in files if name != SCHEMA and (directory / name).exists()]
    if present and not force:
        names = ", ".join(f"`{path}`" for path in present)
        raise StarterError(f"{names} exists already: edit it, or write it anew with `--force`")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StarterError(f"cannot write `{directory}`: {reason(error)}") from None
    return [directory / name for name in files]


def _main(models: Sequence[str], allow: Sequence[str]) -> str:
    used = [MODELS[name].pack for name in models if MODELS[name].pack]
    uses = f"use: [{', '.join(used)}]\n" if used else ""
    rules = [_model_rule(name) for name in models]
    if allow:
        rules.append("\n  # Services that the agent uses\n")
        rules += [_rule(f"service-{number}", _match([pattern])) for number, pattern in enumerate(allow, 1)]
    stated = f"rules:\n{''.join(rules).lstrip(chr(10))}" if rules else "rules: []  # put rules here instead of `[]`\n"
    tests = [] if any("://**" in pattern for pattern in allow) else [REFUSED]
    tests += [REACHED.format(name=name, probe=json.dumps(MODELS[name].probe)) for name in models]
    return f"{HEAD}{uses}{TOOLS}{RULES}{stated}{EXAMPLES}" + ("\ntests:\n" + "".join(tests) if tests else "")


def _model_rule(name: str) -> str:
    model = MODELS[name]
    what = f"tool: {json.dumps(model.tools)}" if model.pack else _match(model.patterns)
    return f"\n  # The agent's model: {model.title}\n{_rule(f'model-{name}', what)}"


def _rule(rule_id: str, what: str) -> str:
    return f"  - id: {rule_id}\n    {what}\n    allow: true\n    throttle: {LOOSE}\n"


def _match(patterns: Sequence[str]) -> str:
    if len(patterns) == 1:
        return f"match: {json.dumps(patterns[0])}"
    return "match:" + "".join(f"\n      - {json.dumps(pattern)}" for pattern in patterns)


def _pack_file(name: str) -> str:
    """The example rules of pack `name`, to be edited. The pack itself stays where it is and brings the tools."""
    _, found, rules = packs()[name].partition("\nrules:\n")
    head = f"{EDITOR_LINE}\n#\n# Rules for the tools of the pack `{name}`: examples, edit them.\n"
    head += "# `borderpost rules list --tools` shows the tools by name.\n"
    return f"{head}version: 1\nuse: [{name}]\n\nrules:\n{rules}" if found else f"{head}version: 1\nuse: [{name}]\n"
