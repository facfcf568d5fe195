"""The command line: every module of service/commands, and one place where errors become a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import typer

from service import commands
from service.commands import console

WRONG_USE = 2
FAILURE = 1


def build() -> typer.Typer:
    """The application with all commands.

    A module of service/commands takes part by having ``register(application)``; nothing else needs to know of it.
    """
    application = typer.Typer(
        name="apportion",
        help="A licensing engine: which offering items every workload of every tenant may hold.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for found in sorted(module.name for module in pkgutil.iter_modules(commands.__path__)):
        module = importlib.import_module(f"{commands.__name__}.{found}")
        if hasattr(module, "register"):
            module.register(application)
    return application


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit code 0, 2 for wrong use, 1 for anything else that is wrong."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run a command; answers the exit code."""
    try:
        code = build()(list(arguments), prog_name="apportion", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone, which is no failure of ours; nothing may be written to them any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        return complain(error)
    return code if isinstance(code, int) else 0


def complain(error: Exception) -> int:
    """Say in a sentence on standard error what is wrong; answers the exit code."""
    format_message = getattr(error, "format_message", None)  # an error of the parser of the command line
    if format_message is not None:
        print(format_message(), file=sys.stderr)
        return int(getattr(error, "exit_code", WRONG_USE))
    print(console.sentence(error), file=sys.stderr)
    return FAILURE


if __name__ == "__main__":
    main()
