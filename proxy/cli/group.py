"""The outermost boundary of the command line: no traceback reaches a user, and a group may have a first command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from proxy.cli.output import COULD_NOT, complain


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
        complain(_line_of(error))
        return COULD_NOT


def _line_of(error: Exception) -> str:
    """One line for `error`. Errors of ours say all that is needed; others are named, since they should not occur."""
    if type(error).__module__.partition(".")[0] in ("proxy", "rules"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f": `{error.filename}`" if error.filename else "")
    return f"{type(error).__name__}: {error} (a fault of borderpost's: BORDERPOST_DEBUG=1 shows where)"
