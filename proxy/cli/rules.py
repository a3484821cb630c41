"""`rules`: check, test and understand rule files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli import completing
from proxy.cli.given import halts_in_force, read_rules
from proxy.cli.options import as_json, shared
from proxy.cli.output import complain, print_json, print_lines, room, say, table_room

if TYPE_CHECKING:
    from proxy.rulefiles import RuleFiles


@click.group()
def rules() -> None:
    """Check, test and understand rule files."""


@rules.command("check")
@shared("rules", "mode")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@as_json
@click.pass_context
def rules_check(ctx: click.Context, paths: tuple[Path, ...], json_wanted: bool) -> None:
    """Find what is wrong with rule files. Ends with 1 when they cannot be used.

    \b
    Examples:
      borderpost rules check
      borderpost rules check other/rules shared.yaml
    """
    from proxy import rulefiles
    from proxy.report import checked

    given = paths or ctx.obj.get("rules", ())
    found: RuleFiles | rulefiles.RulesBroken
    try:
        found = rulefiles.read(given, Path.cwd(), ctx.obj.get("mode"))
    except rulefiles.RulesBroken as error:
        found = error
    if json_wanted:
        print_json(checked.plain(found))
    else:
        print_lines(checked.show(found, room()[1]))
    ctx.exit(0 if isinstance(found, rulefiles.RuleFiles) else 1)


@rules.command("test")
@shared("rules")
@click.option("-k", "words", default="", metavar="WORDS", help="Only the tests that have all WORDS in their names.")
@click.option(
    "--coverage", is_flag=True, help="Show which rules the tests have seen let a call through, and refuse one."
)
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the result to FILE as JUnit XML, too.",
)
@click.option("--verbose", "-v", is_flag=True, help="Name the tests that pass, too.")
@as_json
@click.pass_context
def rules_test(
    ctx: click.Context, words: str, coverage: bool, junit: Path | None, verbose: bool, json_wanted: bool
) -> None:
    """Run the tests in the rule files. Ends with 1 when one fails.

    \b
    Examples:
      borderpost rules test -k refund
      borderpost rules test --coverage
      borderpost rules test --junit tests.xml
    """
    from proxy.report import junit as as_junit
    from proxy.report import tested
    from rules.cases import run_case
    from rules.coverage import seen

    found = read_rules(ctx.obj).loaded
    cases = tested.chosen(found.cases, words)
    if found.cases and not cases:
        raise click.UsageError(f"no test has `{words}` in its name")
    results = [(case, run_case(found.ruleset, case)) for case in cases]
    if junit is not None:
        as_junit.document(results).write(junit, encoding="utf-8", xml_declaration=True)
    sides = seen(found.ruleset, cases) if coverage else ()
    if json_wanted:
        told = tested.plain(results)
        print_json({**told, "coverage": tested.plain_coverage(sides)} if coverage else told)
    else:
        print_lines(tested.show(results, verbose, *room()))
        if sides:
            print_lines(["", *tested.show_coverage(sides, *table_room())])
    ctx.exit(0 if all(result.passed for _, result in results) else 1)


@rules.command("eval")
@shared("rules", "agent", "run", "mode", "ledger")
@click.argument("request", metavar="REQUEST")
@click.option("--form", multiple=True, metavar="NAME=VALUE", help="A field of a form body; repeatable.")
@click.option("--header", multiple=True, metavar="NAME:VALUE", help="A header; repeatable.")
@click.option(
    "--json",
    "json_texts",
    multiple=True,
    is_flag=False,
    flag_value="",
    metavar="[BODY]",
    help="A JSON body. Without BODY: print the answer as JSON.",
)
@click.pass_context
def rules_eval(
    ctx: click.Context, request: str, form: tuple[str, ...], header: tuple[str, ...], json_texts: tuple[str, ...]
) -> None:
    """Decide one call, and say why. Nothing is sent; no earlier call counts. Ends with 1 when it is refused.

    \b
    Examples:
      borderpost rules eval "GET https://api.stripe.com/v1/charges/ch_1"
      borderpost rules eval "POST https://api.stripe.com/v1/refunds" --form charge=ch_1 --form amount=500 --agent x
      borderpost rules eval "POST https://api.example.com/orders" --json '{"total": 5}' --json
    """
    from proxy.report import evaluated

    try:
        asked = evaluated.asked_of(
            request,
            form=form,
            headers=header,
            json_texts=[text for text in json_texts if text],
            agent=ctx.obj.get("agent"),
            run=ctx.obj.get("run"),
        )
    except evaluated.RequestError as error:
        raise click.UsageError(str(error)) from None
    ruleset, now_ns = read_rules(ctx.obj).loaded.ruleset, time.time_ns()
    found = evaluated.evaluate(ruleset, asked, now_ns)
    for halt in halts_in_force(ctx.obj):
        if evaluated.evaluate(ruleset, asked, now_ns, halt).decision.code == "halted":
            say(f"{halt.by} has stopped {halt.calls}, so this one is refused for now: {halt.reason}")
    if "" in json_texts:
        print_json(evaluated.plain(found))
    else:
        print_lines(evaluated.show(found, *room()))
    ctx.exit(0 if found.decision.action == "allow" else 1)


@rules.command("list")
@shared("rules", "mode")
@click.option("--tools", is_flag=True, help="The tools, instead of the rules.")
@as_json
@click.pass_obj
def rules_list(given: dict[str, Any], tools: bool, json_wanted: bool) -> None:
    """List the rules, or the tools, that the rule files define."""
    from proxy.report import listed

    ruleset = read_rules(given).loaded.ruleset
    if json_wanted:
        print_json(listed.plain_tools(ruleset) if tools else listed.plain_rules(ruleset))
    else:
        print_lines((listed.show_tools if tools else listed.show_rules)(ruleset, *table_room()))


@rules.command("explain")
@as_json
@click.argument("code", required=False, shell_complete=completing.codes)
@click.pass_context
def rules_explain(ctx: click.Context, json_wanted: bool, code: str | None) -> None:
    """Explain a CODE of a problem in a rule file or of a refusal. Without one, list them all."""
    from proxy.report import explained

    if code is None:
        if json_wanted:
            print_json([explained.plain(one) for one in explained.codes()])
        else:
            print_lines(explained.show_all(*table_room()))
        return
    text = explained.show(code)
    if text is None:
        complain(f"there is no code `{code}`{explained.similar(code)}")
        ctx.exit(1)
    if json_wanted:
        print_json(explained.plain(code))
    else:
        print_lines(text)


@rules.command("schema")
def rules_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    from rules.schema import schema

    print_json(schema())


@rules.command("import")
@click.argument("document", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
@click.option("--prefix", metavar="NAME", default="", help="What every tool's name begins with: NAME.OPERATION.")
@click.option("--only", multiple=True, metavar="GLOB", help="Only tools with such a name; repeatable.")
@click.option("--server", metavar="URL", default="", help="Where the API or MCP server is, whatever the document says.")
@click.option("--no-params", is_flag=True, help="Only what calls are, not what they may say.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the tools here.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.option("--verbose", "-v", is_flag=True, help="Name every operation that a notice is about, and where.")
def rules_import(
    document: Path,
    prefix: str,
    only: tuple[str, ...],
    server: str,
    no_params: bool,
    output: Path | None,
    force: bool,
    verbose: bool,
) -> None:
    """Make tools of an OpenAPI document, or of those of an MCP server.

    The document may be JSON or YAML, of version 3.0, 3.1 or Swagger 2.0. Of an MCP server it is the saved answer to
    tools/list, and --server says where that server is.

    What a tool does not say as the document does is told on standard error, and above the tool.

    \b
    Examples:
      borderpost rules import openapi.yaml --prefix shop --output rules/shop.yaml
      borderpost rules import github.json --prefix github --only "github.issues.*"
      borderpost rules import tools.json --prefix crm --server https://mcp.crm.example/mcp
    """
    from proxy import importing
    from proxy.report import imported
    from proxy.report.progress import Progress
    from proxy.report.terminal import coloured, width

    try:
        options = importing.checked(prefix, only, server, not no_params)
    except importing.ImportingError as error:
        raise click.UsageError(str(error)) from None
    importing.check_output(output, force)
    with Progress("importing") as progress:
        found = importing.read(document, options, progress.tell)
    if output is None:
        click.echo(found.text, nl=False)
    else:
        importing.write(output, found.text)
    for line in imported.show(found, verbose, width(sys.stderr), coloured(sys.stderr)):
        click.echo(line, err=True)
