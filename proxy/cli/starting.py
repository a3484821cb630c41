"""`init` and `demo`: how one begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from proxy.cli import completing
from proxy.cli.output import print_lines, room, say


@click.command()
@click.option(
    "--pack",
    "packs",
    multiple=True,
    metavar="NAME",
    shell_complete=completing.packs,
    help="Start with this pack's example rules; repeatable.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    shell_complete=completing.models,
    help="Allow this model's API; repeatable.",
)
@click.option(
    "--allow", multiple=True, metavar="PATTERN", help='Allow e.g. "POST http://localhost:6333/**"; repeatable.'
)
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(
    packs: tuple[str, ...], models: tuple[str, ...], allow: tuple[str, ...], yes: bool, force: bool, directory: Path
) -> None:
    """Write rules to begin with into DIRECTORY/rules.

    \b
    Examples:
      borderpost init
      borderpost init --model openai --pack stripe --pack slack
      borderpost init --pack github          (later: beside the rules that are there)
    """
    from proxy import starter

    starter.check_names(packs, models)
    adding = bool(packs) and not (models or allow or force) and starter.begun(directory)
    if not (yes or adding or models or allow) and sys.stdin.isatty():
        packs, models, allow = _ask(packs)
    for path in starter.write(starter.compose(packs, models, allow, adding=adding), directory, force=force):
        click.echo(path)
    say("edit these, then: borderpost rules check, borderpost rules test, borderpost run -- COMMAND")


def _ask(packs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Ask for packs, models and services on the terminal."""
    from proxy import rulefiles, starter

    def several(question: str, known: Sequence[str]) -> tuple[str, ...]:
        click.echo(f"{question} ({', '.join(known)})", err=True)
        while True:
            words = click.prompt("  names, or nothing", default="", show_default=False, err=True)
            chosen = tuple(words.replace(",", " ").split())
            if set(chosen) <= set(known):
                return chosen
            click.echo(f"  not known: {', '.join(sorted(set(chosen) - set(known)))}", err=True)

    models = several("Which models does the agent use?", list(starter.MODELS))
    if not packs:
        packs = several("Which APIs does it use, of those that packs know?", list(rulefiles.packs()))
    click.echo('Which other services, such as "POST http://localhost:6333/**"? One a line.', err=True)
    allow = []
    while pattern := click.prompt("  pattern, or nothing", default="", show_default=False, err=True):
        problem = starter.problem_of(pattern)
        if problem:
            click.echo(f"  {problem}", err=True)
        else:
            allow.append(pattern)
    return packs, models, tuple(allow)


@click.command()
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep everything here.")
def demo(keep: Path | None) -> None:
    """Watch a confused agent without and with Borderpost. Needs no key and no network."""
    import tempfile

    from proxy.demo.main import run_demo
    from proxy.demo.screen import show

    directory = keep or Path(tempfile.mkdtemp(prefix="borderpost-demo-"))
    seen = run_demo(directory, lambda text: click.echo(text, err=True))
    print_lines(show(seen, *room()))
