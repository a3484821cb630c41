"""The command line: options and printing. What is done stands in `proxy` and `rules`, imported only when needed.

Data goes to standard output, notices to standard error. Exit codes: 0 yes or done, 1 the answer is no, 2 usage,
3 could not. `run` passes the code of its command on.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from proxy.ledger.query import Filters, LedgerReader
    from proxy.report.state import Facts
    from proxy.rulefiles import RuleFiles
    from proxy.settings import Settings
    from rules.halts import Halt

COULD_NOT = 3
DECISIONS = ("allow", "deny", "throttle", "replay", "hold")
GROUPINGS = ("decision", "tool", "agent", "code", "rule")

TYPED = "borderpost.typed"
"""Where a context keeps the shared options that were typed, rather than taken from the environment."""

type Command = Callable[..., Any]
type Decorator = Callable[[Command], Command]


# --- the outermost boundary ---


class _ReaderLeft(Exception):
    """Whoever read our output, such as `head`, has gone. click would make an exit code of 1 of a broken pipe."""


class Borderpost(click.Group):
    """The root: no traceback reaches a user, whatever happens below."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        extra["standalone_mode"] = False
        sys.exit(_bounded(lambda: super(Borderpost, self).main(*args, **extra)))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class DefaultGroup(click.Group):
    """A group whose first command is meant where none is named: `log` is `log list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = self._with_command(args, self.list_commands(ctx)[0])
        return super().parse_args(ctx, args)

    def _with_command(self, args: list[str], default: str) -> list[str]:
        """`args` with the command first: the one that stands behind options, as in `log --since 1h stats`."""
        valued = {
            name for one in self.commands[default].params if not getattr(one, "is_flag", False) for name in one.opts
        }
        place = 0
        while place < len(args) and args[place].startswith("-"):
            place += 2 if args[place] in valued else 1
        if place < len(args) and args[place] in self.commands:
            return [args[place], *args[:place], *args[place + 1 :]]
        return [default, *args]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _bounded(run: Callable[[], object]) -> int:
    """Run a command and return the exit code. Every error becomes one line."""
    try:
        code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (BrokenPipeError, _ReaderLeft):
        # Whoever read has gone, such as `head`. Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("BORDERPOST_DEBUG"):
            raise
        _complain(_line_of(error))
        return COULD_NOT


def _line_of(error: Exception) -> str:
    """One line for `error`. Errors of ours say all that is needed; others are named, since they should not occur."""
    if type(error).__module__.partition(".")[0] in ("proxy", "rules"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f": `{error.filename}`" if error.filename else "")
    return f"{type(error).__name__}: {error} (a fault of borderpost's: BORDERPOST_DEBUG=1 shows where)"


def _complain(text: str) -> None:
    from proxy.report.terminal import coloured, paint

    click.echo(f"{paint('error:', 'red', coloured(sys.stderr))} {text}", err=True)


def _say(text: str) -> None:
    click.echo(f"borderpost: {text}", err=True)


# --- options that mean the same everywhere ---


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember a shared option. It may stand before or after the command's name; the later place wins."""
    given = ctx.ensure_object(dict)
    name = str(param.name)
    typed = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    if value not in (None, ()) and (typed or name not in given):
        given[name] = value
    if value is not None and typed:
        ctx.meta.setdefault(TYPED, {})[name] = value


def _option(*names: str, **attributes: Any) -> Decorator:
    env = f"BORDERPOST_{names[0].removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, callback=_keep, expose_value=False, envvar=env, **attributes)


SHARED: dict[str, Decorator] = {
    "rules": _option(
        "--rules",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Rule file, or directory of them; repeatable. Default: ./borderpost.yaml, else ./rules/*.yaml.",
    ),
    "ledger": _option("--ledger", metavar="FILE", help="The record of calls. Default: in your data directory."),
    "confdir": _option(
        "--confdir", type=click.Path(path_type=Path), metavar="DIR", help="CA, keys and agents, for you alone (0700)."
    ),
    "listen": _option("--listen", metavar="HOST:PORT", help="Where the proxy listens."),
    "upstream_ca": _option(
        "--upstream-ca",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Further authorities to trust upstream (PEM); repeatable.",
    ),
    "upstream_proxy": _option(
        "--upstream-proxy",
        metavar="URL",
        help="Go out through this proxy alone: http://[USER:PASSWORD@]HOST:PORT.",
    ),
    "client_certs": _option(
        "--client-certs",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Certificates for APIs that ask for one: DIR/HOST.pem, with its key.",
    ),
    "mode": _option(
        "--mode",
        type=click.Choice(["enforce", "monitor"]),
        help="monitor: record what would be refused, and refuse nothing for it.",
    ),
    "agent": _option("--agent", metavar="NAME", help="The agent's name in rules and record."),
    "run": _option("--run", metavar="ID", help="The run's id."),
}


def shared(*names: str) -> Decorator:
    """Give a command the shared options of these names."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = SHARED[name](command)
        return command

    return decorate


def without_preload(command: Command) -> Command:
    """Give a command `--no-preload`."""
    text = "Set variables only: run no code of ours in the agent's Python and Node.js."
    return click.option("--no-preload", is_flag=True, envvar="BORDERPOST_NO_PRELOAD", help=text)(command)


def as_json(command: Command) -> Command:
    """Give a reading command `--json`."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")(command)


def _ledger(given: dict[str, Any]) -> Path:
    from proxy.confdir import default_ledger_path
    from proxy.settings import ledger_path

    return ledger_path(given["ledger"]) if "ledger" in given else default_ledger_path()


def _confdir(given: dict[str, Any]) -> Path:
    from proxy.confdir import default_confdir

    return Path(given["confdir"]) if "confdir" in given else default_confdir()


def _settings(
    given: dict[str, Any], command: Any, default_listen: str, *, reload: bool, isolated: bool = False
) -> Settings:
    from proxy.settings import DEFAULT_AGENT, Settings, parse_address, parse_upstream_proxy

    host, port = parse_address(given.get("listen", default_listen))
    return Settings(
        command=command,
        ledger=_ledger(given),
        confdir=_confdir(given),
        listen_host=host,
        listen_port=port,
        rules=given.get("rules", ()),
        upstream_ca=given.get("upstream_ca", ()),
        upstream_proxy=parse_upstream_proxy(given["upstream_proxy"]) if "upstream_proxy" in given else None,
        client_certs=given.get("client_certs"),
        mode=given.get("mode"),
        agent=given.get("agent", DEFAULT_AGENT),
        run=given.get("run", ""),
        reload=reload,
        isolated=isolated,
    )


def _read_rules(given: dict[str, Any]) -> RuleFiles:
    """The rules; when they are broken, says all that is wrong with them and ends with `could not`."""
    from proxy import rulefiles

    try:
        return rulefiles.read(given.get("rules", ()), Path.cwd(), given.get("mode"))
    except rulefiles.RulesBroken as error:
        click.echo(error.rendered() + "\n", err=True)
        count = len(error.problems)
        _complain(f"the rules cannot be used: {count} problem{'' if count == 1 else 's'}")
        raise click.exceptions.Exit(COULD_NOT) from None


def _print(lines: str | Sequence[str]) -> None:
    text = lines if isinstance(lines, str) else "\n".join(lines)
    if text:
        click.echo(text)


def _print_now(lines: str | Sequence[str]) -> None:
    _print(lines)
    sys.stdout.flush()


def _print_json(value: object, *, line: bool = False) -> None:
    import msgspec

    encoded = msgspec.json.Encoder(decimal_format="number").encode(value)
    click.echo(encoded if line else msgspec.json.format(encoded, indent=2))


def _room() -> tuple[int, bool]:
    """The width of standard output, and whether it has colour."""
    from proxy.report.terminal import coloured, width

    return width(sys.stdout), coloured(sys.stdout)


def _table_room() -> tuple[int, bool]:
    """As `_room`, for tables: where no terminal is, they are as wide as what is in them."""
    from proxy.report.terminal import coloured, table_width

    return table_width(sys.stdout), coloured(sys.stdout)


# --- the commands ---


@click.group(
    cls=Borderpost,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": None},
    no_args_is_help=True,
)
@shared(*SHARED)
@click.version_option(package_name="borderpost", message="%(prog)s %(version)s")
def cli() -> None:
    """Decides, de-duplicates, throttles and records what AI agents send to APIs.

    \b
      borderpost init                 write rules to begin with
      borderpost run -- COMMAND       run an agent under them
      borderpost log                  what it did, and why

    The options below may stand before or after a command's name, and each can be set in the environment:
    BORDERPOST_RULES for --rules, and so on.
    """


@cli.command(context_settings={"allow_interspersed_args": False})
@shared("rules", "agent", "run", "mode", "ledger", "confdir", "listen", "upstream_ca", "upstream_proxy", "client_certs")
@click.option("--reload", is_flag=True, help="Follow changes of the rule files (the command may be able to make some).")
@click.option("--isolated", is_flag=True, help="Leave the command no other way out than the proxy (Linux).")
@without_preload
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, reload: bool, isolated: bool, no_preload: bool, command: tuple[str, ...]) -> None:
    """Run COMMAND with a proxy of its own. Its exit code is passed on.

    \b
    Examples:
      borderpost run -- python agent.py
      borderpost run --agent support --mode monitor -- npm start
    """
    import asyncio

    settings = _settings(ctx.obj, "run", "127.0.0.1:0", reload=reload, isolated=isolated)
    rules = _read_rules(ctx.obj)
    from proxy import launch

    ctx.exit(asyncio.run(launch.run(settings, rules, command, _say, preload=not no_preload)))


@cli.command()
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

    settings = _settings(ctx.obj, "serve", DEFAULT_LISTEN, reload=True)
    rules = _read_rules(ctx.obj)
    from proxy import launch

    asyncio.run(launch.serve(settings, rules, _say))


@cli.command()
@click.option(
    "--pack", "packs", multiple=True, metavar="NAME", help="Start with this pack's example rules; repeatable."
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Allow this model's API; repeatable.")
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
    _say("edit these, then: borderpost rules check, borderpost rules test, borderpost run -- COMMAND")


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


@cli.command()
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep everything here.")
def demo(keep: Path | None) -> None:
    """Watch a confused agent without and with Borderpost. Needs no key and no network."""
    import tempfile

    from proxy.demo.main import run_demo
    from proxy.demo.screen import show

    directory = keep or Path(tempfile.mkdtemp(prefix="borderpost-demo-"))
    seen = run_demo(directory, lambda text: click.echo(text, err=True))
    _print(show(seen, *_room()))


@cli.command(context_settings={"allow_interspersed_args": False})
@shared("confdir")
@without_preload
@as_json
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def doctor(ctx: click.Context, no_preload: bool, json_wanted: bool, command: tuple[str, ...]) -> None:
    """Try which clients come through the proxy.

    They are curl and the like, and those of the Python and Node.js that COMMAND would run with.

    Each makes one request as under `run`, to a host that the proxy answers itself; nothing leaves this machine. Ends
    with 1 when one goes round the proxy, or does not trust it.

    \b
    Examples:
      borderpost doctor
      borderpost doctor -- .venv/bin/python agent.py
    """
    import asyncio

    from proxy.doctor.examine import examine
    from proxy.report import diagnosed
    from proxy.report.progress import Progress

    with Progress("probing") as progress:
        found = asyncio.run(examine(_confdir(ctx.obj), command, preload=not no_preload, tell=progress.tell))
    if json_wanted:
        _print_json(found)
    else:
        _print(diagnosed.show(found, *_table_room()))
    ctx.exit(0 if found.well else 1)


@cli.command()
@shared("confdir", "listen", "agent", "ledger")
@click.option(
    "--shell",
    "language",
    type=click.Choice(["sh", "bash", "fish", "powershell"]),
    default="sh",
    show_default=True,
    help="Whose words to print.",
)
@without_preload
@as_json
@click.pass_obj
def env(given: dict[str, Any], language: str, no_preload: bool, json_wanted: bool) -> None:
    """Print the variables that point an agent at a running `serve`.

    The token of an agent elsewhere is read from BORDERPOST_TOKEN.

    \b
    Examples:
      eval "$(borderpost env)"
      borderpost env --shell fish | source
      borderpost env --shell powershell | Out-String | Invoke-Expression
    """
    from proxy import child
    from proxy.ca import ensure_ca
    from proxy.confdir import Confdir
    from proxy.report import shell
    from proxy.settings import DEFAULT_LISTEN, is_loopback, parse_address, reached_at

    facts = _facts(given)
    serving = facts.running and facts.command == "borderpost serve"  # that of `run` is for its command alone
    if not serving:
        _say("no proxy is running: `borderpost serve` starts one")
    confdir = Confdir.open(_confdir(given)).path
    listening, port = parse_address(given.get("listen") or (facts.listen if serving else "") or DEFAULT_LISTEN)
    name, token = given.get("agent", ""), os.environ.get("BORDERPOST_TOKEN", "")
    if token and not name:
        raise click.UsageError("BORDERPOST_TOKEN is set: say with `--agent NAME` whose token it is")
    if not token and not is_loopback(listening):
        _say("this proxy wants a token: set BORDERPOST_TOKEN, and say with `--agent NAME` whose it is")
    url = child.proxy_url(reached_at(listening), port, name, token)
    ca = ensure_ca(confdir, datetime.datetime.now(datetime.UTC))
    changes = child.prepare(confdir, os.environ, url, ca.read_bytes(), preload=not no_preload)
    if json_wanted:
        _print_json({"set": changes.set, "unset": changes.unset})
    else:
        _print(shell.statements(changes, language))


@cli.command()
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def status(given: dict[str, Any], json_wanted: bool) -> None:
    """Tell what is running, in force and on record."""
    from proxy.report import state

    facts = _facts(given)
    if json_wanted:
        _print_json(facts)
    else:
        _print(state.show(facts, _room()[1]))


def _facts(given: dict[str, Any]) -> Facts:
    from proxy.report import state

    return state.gather(_ledger(given), _confdir(given), time.time_ns())


def stopping(command: Command) -> Command:
    """Give `halt` and `resume` what they choose calls by, as one argument `chosen`. The environment chooses nothing."""
    options = [
        click.option("--agent", metavar="NAME", help="Of this agent; * stands for any text. Default: of all."),
        click.option("--tool", metavar="NAME", help="To this tool; * stands for any text. Default: to all."),
    ]

    def gather(ctx: click.Context, /, agent: str | None, tool: str | None, **arguments: Any) -> Any:
        agent = ctx.meta.get(TYPED, {}).get("agent") if agent is None else agent
        for name, value in (("--agent", agent), ("--tool", tool)):
            if value == "":
                raise click.UsageError(f"`{name}` is empty: leave it out if you mean all")
        return ctx.invoke(command, chosen={"agent": agent or "", "tool": tool or ""}, **arguments)

    decorated: Command = functools.update_wrapper(click.pass_context(gather), command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@cli.command()
@stopping
@click.option("--reason", metavar="TEXT", required=True, help="Why: the agent reads it, and it is recorded.")
@shared("ledger", "confdir")
@click.pass_obj
def halt(given: dict[str, Any], chosen: dict[str, str], reason: str) -> None:
    """Stop all calls at once, until `resume`.

    Or only those of an agent, or to a tool.

    A running proxy refuses the very next one; calls that are out come to their end. It also holds over restarts, and
    in monitor mode.

    \b
    Examples:
      borderpost halt --reason "Refunds went wrong this morning."
      borderpost halt --agent "support-*" --tool "stripe.*" --reason "No payments today."
    """
    result = _command(given, "halt", {**chosen, "reason": reason})
    _say(f"stopped {result['calls']}")
    if chosen["tool"] and result["rules"]:
        if result["tools"]:
            _say(f"tools so called: {', '.join(result['tools'])}")
        else:
            _say("but no tool of the rules in force is called so: `borderpost rules list --tools` shows their names")


@cli.command()
@stopping
@shared("ledger", "confdir")
@click.pass_obj
def resume(given: dict[str, Any], chosen: dict[str, str]) -> None:
    """Let calls go on that `halt` has stopped.

    Say the same --agent and --tool as there.

    \b
    Examples:
      borderpost resume
      borderpost resume --agent "support-*" --tool "stripe.*"
    """
    result = _command(given, "resume", dict(chosen))
    _say(f"{result['calls']} may go on")


@cli.command()
@shared("ledger", "confdir")
@click.option("--accept", is_flag=True, help="This computer's clock is right: go on from it.")
@click.option("--note", metavar="TEXT", help="With --accept: what happened; it is recorded with your name.")
@as_json
@click.pass_context
def clock(ctx: click.Context, accept: bool, note: str | None, json_wanted: bool) -> None:
    """Compare this computer's clock with the record.

    Or, with --accept, mend what a jump into the future has done.

    Time never goes back by itself: a clock that is set back frees no quota. So when the clock had run ahead, no window
    passes until it is as far again, unless somebody accepts that it was wrong. Nothing becomes free by accepting.
    Without --accept, ends with 1 when the clock is more than a minute behind the record.

    \b
    Examples:
      borderpost clock
      borderpost clock --accept --note "the year was set wrongly on Monday"
    """
    from proxy.report import moments, times

    if accept != (note is not None):
        raise click.UsageError("`--accept` and `--note TEXT` belong together")
    if accept:
        result = _command(ctx.obj, "clock", {"note": note})
        if json_wanted:
            _print_json(result)
        _say(f"recorded: time went on from {moments.show_second(result['to_ns'])}")
        return
    found = times.gather(_ledger(ctx.obj), time.time_ns())
    if json_wanted:
        _print_json(found)
    else:
        _print(times.show(found, _room()[1]))
    ctx.exit(0 if found.good else 1)


# --- agents ---


@cli.group()
def agent() -> None:
    """Give agents tokens, and take them away.

    With its token, an agent connects to `http://NAME:TOKEN@host:port`.
    """


@agent.command("add")
@shared("confdir")
@click.option("--expires", metavar="WHEN", help="When the token ends: 8h, 30d, 2027-01-31.")
@click.option("--replace", is_flag=True, help="Give an agent that has a token a new one.")
@click.argument("name")
@click.pass_obj
def agent_add(given: dict[str, Any], expires: str | None, replace: bool, name: str) -> None:
    """Print a new token for agent NAME. It cannot be shown again: only its hash is kept."""
    from proxy.agents import Agents
    from proxy.confdir import Confdir

    now_ns = time.time_ns()
    expires_ns = _moment(expires, now_ns, ahead=True) or 0
    if expires is not None and expires_ns <= now_ns:
        raise click.BadParameter(f"`{expires}` is over already", param_hint="--expires")
    click.echo(Agents(Confdir.open(_confdir(given)).path).add(name, now_ns, expires_ns=expires_ns, replace=replace))
    _say(f"the agent uses HTTPS_PROXY=http://{name}:TOKEN@HOST:PORT; this token is not shown again")


@agent.command("list")
@shared("confdir")
@as_json
@click.pass_obj
def agent_list(given: dict[str, Any], json_wanted: bool) -> None:
    """List the agents that have a token."""
    from proxy.agents import Agents
    from proxy.report import people

    agents = Agents(_confdir(given)).list()
    if json_wanted:
        _print_json(people.plain(agents, time.time_ns()))
    elif agents:
        _print(people.list_agents(agents, time.time_ns(), *_table_room()))
    else:
        _say("no agent has a token: `borderpost agent add NAME` gives one")


@agent.command("remove")
@shared("confdir")
@click.argument("name")
@click.pass_context
def agent_remove(ctx: click.Context, name: str) -> None:
    """Take the token of agent NAME away.

    A running proxy refuses it from the next connection on.
    """
    from proxy.agents import Agents

    if not Agents(_confdir(ctx.obj)).remove(name):
        _complain(f"there is no agent `{name}`: `borderpost agent list` shows them")
        ctx.exit(1)
    _say(f"removed `{name}`")


# --- rules ---


@cli.group()
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
        _print_json(checked.plain(found))
    else:
        _print(checked.show(found, _room()[1]))
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

    found = _read_rules(ctx.obj).loaded
    cases = tested.chosen(found.cases, words)
    if found.cases and not cases:
        raise click.UsageError(f"no test has `{words}` in its name")
    results = [(case, run_case(found.ruleset, case)) for case in cases]
    if junit is not None:
        as_junit.document(results).write(junit, encoding="utf-8", xml_declaration=True)
    sides = seen(found.ruleset, cases) if coverage else ()
    if json_wanted:
        told = tested.plain(results)
        _print_json({**told, "coverage": tested.plain_coverage(sides)} if coverage else told)
    else:
        _print(tested.show(results, verbose, *_room()))
        if sides:
            _print(["", *tested.show_coverage(sides, *_table_room())])
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
    ruleset, now_ns = _read_rules(ctx.obj).loaded.ruleset, time.time_ns()
    found = evaluated.evaluate(ruleset, asked, now_ns)
    for halt in _halts(ctx.obj):
        if evaluated.evaluate(ruleset, asked, now_ns, halt).decision.code == "halted":
            _say(f"{halt.by} has stopped {halt.calls}, so this one is refused for now: {halt.reason}")
    if "" in json_texts:
        _print_json(evaluated.plain(found))
    else:
        _print(evaluated.show(found, *_room()))
    ctx.exit(0 if found.decision.action == "allow" else 1)


@rules.command("list")
@shared("rules", "mode")
@click.option("--tools", is_flag=True, help="The tools, instead of the rules.")
@as_json
@click.pass_obj
def rules_list(given: dict[str, Any], tools: bool, json_wanted: bool) -> None:
    """List the rules, or the tools, that the rule files define."""
    from proxy.report import listed

    ruleset = _read_rules(given).loaded.ruleset
    if json_wanted:
        _print_json(listed.plain_tools(ruleset) if tools else listed.plain_rules(ruleset))
    else:
        _print((listed.show_tools if tools else listed.show_rules)(ruleset, *_table_room()))


@rules.command("explain")
@click.argument("code", required=False)
@click.pass_context
def rules_explain(ctx: click.Context, code: str | None) -> None:
    """Explain a CODE of a problem in a rule file or of a refusal. Without one, list them all."""
    from proxy.report import explained

    if code is None:
        _print(explained.show_all(*_table_room()))
        return
    text = explained.show(code)
    if text is None:
        _complain(f"there is no code `{code}`{explained.similar(code)}")
        ctx.exit(1)
    _print(text)


@rules.command("schema")
def rules_schema() -> None:
    """Print the JSON Schema of rule files, for editors."""
    from rules.schema import schema

    _print_json(schema())


@rules.command("import")
@click.argument("document", type=click.Path(dir_okay=False, exists=True, allow_dash=True, path_type=Path))
@click.option("--prefix", metavar="NAME", default="", help="What every tool's name begins with: NAME.OPERATION.")
@click.option("--only", multiple=True, metavar="GLOB", help="Only tools with such a name; repeatable.")
@click.option("--server", metavar="URL", default="", help="Where the API is, whatever the document says.")
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
    """Make tools of an OpenAPI document.

    It may be JSON or YAML, of version 3.0, 3.1 or Swagger 2.0.

    What a tool does not say as the document does is told on standard error, and above the tool.

    \b
    Examples:
      borderpost rules import openapi.yaml --prefix shop --output rules/shop.yaml
      borderpost rules import github.json --prefix github --only "github.issues.*"
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


# --- the record ---


def _moment(text: str | None, now_ns: int, *, ahead: bool = False) -> int | None:
    from proxy.report.moments import MomentError, read_moment

    if text is None:
        return None
    try:
        return read_moment(text, now_ns, ahead=ahead)
    except MomentError as error:
        raise click.BadParameter(str(error)) from None


def filtered(command: Command) -> Command:
    """Give a command of `log` the filters, as one argument `filters`."""
    options = [
        click.option("--since", metavar="WHEN", help="From then on: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00."),
        click.option("--until", metavar="WHEN", help="Before then."),
        click.option("--agent", metavar="NAME", help="Of this agent."),
        click.option("--run", metavar="ID", help="Of this run; the beginning of its id will do."),
        click.option("--tool", metavar="NAME", help="To this tool."),
        click.option("--decision", type=click.Choice(DECISIONS), help="Decided so."),
        click.option("--rule", metavar="ID", help="Determined by this rule, or would be in monitor mode."),
        click.option("--host", metavar="HOST", help="To this host."),
        click.option("--status", type=click.IntRange(100, 599), metavar="CODE", help="Answered with this status."),
    ]

    def gather(ctx: click.Context, /, **arguments: Any) -> Any:
        from proxy.ledger.query import Filters

        now_ns = time.time_ns()
        since, until = (_moment(arguments.pop(name), now_ns) for name in ("since", "until"))
        names = ("agent", "run", "tool", "decision", "rule", "host", "status")
        wanted = {name: arguments.pop(name) for name in names}
        for name in ("agent", "run"):  # `borderpost --run ID log` too; but what the environment says filters nothing
            wanted[name] = wanted[name] or ctx.meta.get(TYPED, {}).get(name)
        return ctx.invoke(command, filters=Filters(since_ns=since, until_ns=until, **wanted), **arguments)

    decorated: Command = functools.update_wrapper(click.pass_context(gather), command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@cli.group(cls=DefaultGroup)
def log() -> None:
    """Look at the record of calls.

    `borderpost log` alone is `borderpost log list`, whose -h shows how to filter.
    """


@log.command("list")
@filtered
@shared("ledger")
@click.option(
    "-n", "limit", metavar="COUNT", type=click.IntRange(1), default=50, show_default=True, help="At most so many."
)
@as_json
@click.pass_obj
def log_list(given: dict[str, Any], filters: Filters, limit: int, json_wanted: bool) -> None:
    """List calls, newest first.

    \b
    Examples:
      borderpost log --since 1h --decision deny
      borderpost log list --tool stripe.refund.create -n 5 --json
    """
    from proxy.report import calls

    with _reader(given) as reader:
        rows = reader.list(calls.with_whole_run(reader, filters), limit=limit)
    if json_wanted:
        _print_json(rows)
    elif rows:
        _print(calls.list_calls(rows, *_table_room()))
    else:
        _say(_nothing(filters))


def _nothing(filters: Filters) -> str:
    return "no calls on record" if filters == type(filters)() else "no calls fit"


@log.command("tail")
@filtered
@shared("ledger")
@click.option(
    "-n", "limit", metavar="COUNT", type=click.IntRange(0), default=10, show_default=True, help="Begin with so many."
)
@as_json
@click.pass_obj
def log_tail(given: dict[str, Any], filters: Filters, limit: int, json_wanted: bool) -> None:
    """Follow calls as they come to their end."""
    from proxy.report import calls

    with _reader(given) as reader:
        for rows in calls.follow(reader, filters, limit):
            if json_wanted:
                for row in rows:
                    _print_json(row, line=True)
            else:
                _print(calls.tail_calls(rows, *_table_room()))
            sys.stdout.flush()


@log.command("show")
@shared("ledger")
@as_json
@click.argument("id")
@click.pass_obj
def log_show(given: dict[str, Any], id: str, json_wanted: bool) -> None:
    """Show everything about one call. ID may be its beginning, or the call's number in the list."""
    from proxy.report import calls

    with _reader(given) as reader:
        detail = calls.find(reader, id)
    if json_wanted:
        _print_json(detail)
    else:
        _print(calls.show_call(detail, *_room()))


@log.command("stats")
@filtered
@shared("ledger")
@click.option("--by", "groupings", type=click.Choice(GROUPINGS), multiple=True, help="Group by this; repeatable.")
@as_json
@click.pass_obj
def log_stats(given: dict[str, Any], filters: Filters, groupings: tuple[Any, ...], json_wanted: bool) -> None:
    """Count calls by decision, tool and rule."""
    from proxy.report import calls

    with _reader(given) as reader:
        whole = calls.with_whole_run(reader, filters)
        stats = {by: reader.stats(by, whole) for by in groupings or ("decision", "tool", "rule")}
    if json_wanted:
        _print_json(stats)
    elif not any(stats.values()):
        _say(_nothing(filters))
    else:
        _print("\n\n".join("\n".join(calls.list_stats(by, rows, *_table_room())) for by, rows in stats.items() if rows))


@log.command("verify")
@click.option(
    "--anchor",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A checkpoint that was exported and kept elsewhere.",
)
@click.option("--key", metavar="KEY", help="The ledger's public key. Default: that of the confdir.")
@shared("ledger", "confdir")
@as_json
@click.pass_context
def log_verify(ctx: click.Context, anchor: Path | None, key: str | None, json_wanted: bool) -> None:
    """Check that the record is as it was written.

    Ends with 0 when it is, 1 when it is not, and 3 when nobody can know: without an anchor, nothing shows that no entry
    was cut off the end.

    \b
    Examples:
      borderpost log checkpoint --export monday.note     (keep it elsewhere)
      borderpost log verify --anchor monday.note
    """
    from proxy import anchors
    from proxy.ledger import snapshot
    from proxy.ledger.verify import verify
    from proxy.report import verified
    from proxy.report.progress import Progress

    note = anchors.read(anchor) if anchor else None
    public = anchors.public_key(key, _confdir(ctx.obj))
    with Progress("verifying") as progress:
        verdict = verify(_ledger(ctx.obj), note, public, progress.tell)
    with Progress("checking the snapshot") as progress:
        verdict = snapshot.check(verdict, anchors.vault(_confdir(ctx.obj)), progress.tell)
    if json_wanted:
        _print_json(verdict)
    else:
        _print(verified.show(verdict, *_room()))
    ctx.exit(verified.EXIT_CODES[verdict.result])


@log.command("checkpoint")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write the signed checkpoint here.")
@click.option("--public-key", is_flag=True, help="Print the key that checks it, instead of the checkpoint.")
@shared("ledger", "confdir")
@click.pass_obj
def log_checkpoint(given: dict[str, Any], export: Path | None, public_key: bool) -> None:
    """Sign what is on record, and print or export the signature.

    \b
    Examples:
      borderpost log checkpoint
      borderpost log checkpoint --export monday.note
      borderpost log checkpoint --public-key
    """
    from proxy import anchors

    result = _command(given, "checkpoint", {})
    with _reader(given) as reader:
        made = reader.checkpoint(result["seq"])
    if export is not None:
        anchors.write(export, made.note)
        _say(f"wrote {export}: keep it where whoever can change the ledger cannot change it")
    if public_key:
        click.echo(made.key)
    elif export is None:
        click.echo(made.note, nl=False)


@log.command("prune")
@click.option("--older-than", metavar="SPAN", required=True, help="Such as 90d, 12w.")
@shared("ledger", "confdir")
@click.pass_obj
def log_prune(given: dict[str, Any], older_than: str) -> None:
    """Give up what was read of old calls, and what was said of it. The decisions themselves stay.

    \b
    Example:
      borderpost log prune --older-than 90d
    """
    from proxy.report.moments import MomentError, read_span
    from proxy.report.progress import Progress

    try:
        before_ns = time.time_ns() - read_span(older_than)
    except MomentError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    result = _command(given, "prune", {"before_ns": before_ns})
    through, entries = result["through"], result["entries"]
    with _reader(given) as reader, Progress("pruning") as progress:
        # A proxy goes on deciding meanwhile, so it gives them up bit by bit.
        while (first := reader.first_payload()) is not None and first <= through:
            progress.tell(first, through)
            time.sleep(0.05)
    none = "nothing is that old, or no checkpoint has signed it yet"
    _say(f"pruned entries up to {through}: {entries} of them now" if entries else none)


@cli.command()
@click.option("--executed/--not-executed", default=None, help="Whether it took effect.")
@click.option("--note", required=True, metavar="TEXT", help="How you know; it is recorded with your name.")
@shared("ledger", "confdir")
@click.argument("id")
@click.pass_obj
def resolve(given: dict[str, Any], executed: bool | None, note: str, id: str) -> None:
    """Say what became of a call whose outcome is unknown.

    Then its repetitions are no longer held up: executed, they are refused as duplicates; not executed, the next one is
    sent. ID may be its beginning, or the call's number in the list.

    \b
    Example:
      borderpost resolve c_01k --not-executed --note "no such refund at Stripe"
    """
    from proxy.report import calls

    if executed is None:
        raise click.UsageError("say whether it took effect: `--executed` or `--not-executed`")
    with _reader(given) as reader:
        call_id = calls.find(reader, id).call.id
    _command(given, "resolve", {"call": call_id, "executed": executed, "note": note})
    _say(f"recorded: {call_id} was {'executed' if executed else 'not executed'}")


# --- approvals ---


@cli.group(cls=DefaultGroup)
def approvals() -> None:
    """Decide calls that wait for a person.

    `borderpost approvals` alone lists them.
    """


@approvals.command("list")
@shared("ledger")
@as_json
@click.pass_obj
def approvals_list(given: dict[str, Any], json_wanted: bool) -> None:
    """List what waits for an answer, the oldest first."""
    from proxy.report import approvals as shown

    with _reader(given) as reader:
        cards = shown.waiting(reader, time.time_ns())
    if json_wanted:
        _print_json([shown.plain(card) for card in cards])
    elif cards:
        _print(shown.list_cards(cards, time.time_ns(), *_table_room()))
        _say("next: `borderpost approvals show ID`, then `allow ID` or `refuse ID --reason TEXT`")
    else:
        _say("no call waits for you")


@approvals.command("show")
@shared("ledger")
@as_json
@click.argument("id")
@click.pass_obj
def approvals_show(given: dict[str, Any], id: str, json_wanted: bool) -> None:
    """Show what would be sent. ID is the ticket, or its beginning."""
    from proxy.report import approvals as shown

    with _reader(given) as reader:
        card = shown.find(reader, id, time.time_ns())
    if json_wanted:
        _print_json(shown.plain(card))
    else:
        _print(shown.show_card(card, time.time_ns(), *_room()))


@approvals.command("allow")
@click.option("--note", default="", metavar="TEXT", help="Why; it is recorded with your name.")
@shared("ledger", "confdir")
@click.argument("id")
@click.pass_obj
def approvals_allow(given: dict[str, Any], note: str, id: str) -> None:
    """Let this call pass, once. ID is the ticket, or its beginning.

    \b
    Example:
      borderpost approvals allow a_3f
    """
    _say(f"allowed {_answer(given, id, True, note)}: the identical call passes, once")


@approvals.command("refuse")
@click.option("--reason", required=True, metavar="TEXT", help="What the agent is told.")
@shared("ledger", "confdir")
@click.argument("id")
@click.pass_obj
def approvals_refuse(given: dict[str, Any], reason: str, id: str) -> None:
    """Refuse this call, and tell the agent why. ID is the ticket, or its beginning.

    \b
    Example:
      borderpost approvals refuse a_3f --reason "this customer was refunded by hand"
    """
    _say(f"refused {_answer(given, id, False, reason)}: the agent is told why")


@approvals.command("watch")
@shared("ledger", "confdir")
@as_json
@click.pass_obj
def approvals_watch(given: dict[str, Any], json_wanted: bool) -> None:
    """Show each call as it begins to wait, and answer with one key. With --json: only print them, one a line."""
    from proxy.report import approvals as shown
    from proxy.report import watch

    with _reader(given) as reader, watch.Keys(sys.stdin) as keys:
        watch.watch(
            cards=lambda: shown.waiting(reader, time.time_ns()),
            answer=lambda card, allowed, note: _answer(given, card, allowed, note),
            keys=keys,
            say=_print_now,
            show=lambda card: shown.show_card(card, time.time_ns(), *_room()),
            print_json=(lambda card: _print_json(shown.plain(card), line=True)) if json_wanted else None,
        )


def _answer(given: dict[str, Any], id: str, allowed: bool, note: str) -> str:
    """Give an answer; the whole id of the card that it was given to."""
    from proxy.report import approvals as shown

    with _reader(given) as reader:
        card = shown.find(reader, id, time.time_ns()).question.id
    _command(given, "answer", {"card": card, "allowed": allowed, "note": note})
    return card


# --- asking the owner of the ledger ---


def _command(given: dict[str, Any], name: str, data: dict[str, Any]) -> Any:
    """The result of a command to whoever owns the ledger."""
    from proxy import desk
    from proxy.osuser import os_user

    return desk.command(_ledger(given), _confdir(given), name, data, os_user())


def _halts(given: dict[str, Any]) -> tuple[Halt, ...]:
    """What people have stopped, if there is a record at all."""
    if not _ledger(given).exists():
        return ()
    with _reader(given) as reader:
        return reader.halts()


def _reader(given: dict[str, Any]) -> LedgerReader:
    from proxy.ledger.query import LedgerReader

    return LedgerReader.open(_ledger(given))


def _check_house() -> str:
    """What is wrong when another package has been installed over ours: our import names are common words."""
    home = Path(__file__).parent
    for name in ("proxy", "rules"):
        module = importlib.import_module(name)
        if module.__file__ is None or Path(module.__file__).parent != home / name or not hasattr(module, "BORDERPOST"):
            return (
                f"another package has taken the import name `{name}`: install Borderpost in an environment of its own, "
                "such as with `uv tool install borderpost`"
            )
    return ""


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without `·` and `├` is no reason to fail
    problem = _check_house()
    if problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(COULD_NOT)
    cli.main(prog_name="borderpost")


if __name__ == "__main__":
    main()
