"""`run` and `serve`: a proxy, for one command or for agents that are started elsewhere."""

from __future__ import annotations

import click

from proxy.cli.given import read_rules, rules_if_any, settings_of
from proxy.cli.options import shared, without_preload
from proxy.cli.output import say


@click.command(context_settings={"allow_interspersed_args": False})
@shared("rules", "agent", "run", "mode", "ledger", "confdir", "listen", "upstream_ca", "upstream_proxy", "client_certs")
@click.option("--reload", is_flag=True, help="Follow changes of the rule files (the command may be able to make some).")
@click.option("--isolated", is_flag=True, help="Leave the command no other way out than the proxy (Linux).")
@without_preload
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, reload: bool, isolated: bool, no_preload: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND behind a proxy. Its exit code is passed on.

    The proxy is its own, unless `borderpost serve` owns the ledger: then it joins that one, in a run of its own.

    \b
    Examples:
      borderpost run -- python agent.py
      borderpost run --agent support --mode monitor -- npm start
    """
    from proxy.owner import serving
    from proxy.settings import ANY_PORT

    settings = settings_of(ctx.obj, "run", ANY_PORT, reload=reload, isolated=isolated)
    rules = rules_if_any(ctx.obj) if serving(settings.ledger) else read_rules(ctx.obj)
    from proxy import launch

    ctx.exit(launch.run(settings, rules, command, say, preload=not no_preload))


@click.command()
@shared("rules", "listen", "mode", "agent", "ledger", "confdir", "upstream_ca", "upstream_proxy", "client_certs")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Run a proxy for agents that are started elsewhere. Changed rules are put in force as they are saved.

    \b
    Examples:
      borderpost serve
      borderpost serve --listen 0.0.0.0:8080     (needs `borderpost agent add NAME` first)
    """
    import asyncio

    from proxy.settings import DEFAULT_LISTEN

    settings = settings_of(ctx.obj, "serve", DEFAULT_LISTEN, reload=True)
    rules = read_rules(ctx.obj)
    from proxy import launch

    asyncio.run(launch.serve(settings, rules, say))
