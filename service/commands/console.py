"""What all commands have in common: settings, output, and errors in a sentence."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Coroutine, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from service import logs
from service.settings import Settings, load_settings

PLAIN_WIDTH = 140  # characters of a table where no terminal says how many there are
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Value = TypeVar("Value")


class CommandError(Exception):
    """A command cannot do what it was asked for; the message is one sentence."""


def settings() -> Settings:
    """The settings, with logging set up accordingly. Raises ``SettingsError``."""
    loaded = load_settings()
    logs.configure(loaded)
    return loaded


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine to its end, on the fastest loop there is."""
    import uvloop  # a command that does not talk to servers need not load it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def print_json(document: Any) -> None:
    """The one document of ``--json``."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; columns whose name ends in ``#`` hold numbers."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column.removesuffix("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)


class Bar:
    """How far long work has come, on standard error where that is a terminal; nobody sees it elsewhere."""

    def __init__(self, title: str) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int | None = None, title: str | None = None) -> None:
        """So much is done of so much; ``total`` None where nobody knows."""
        self._progress.update(self._task, completed=done, total=total, description=title)


def sentence(error: BaseException) -> str:
    """An error for a person; one that nobody foresaw comes with its trace, as somebody has to look into it."""
    from aiokafka.errors import KafkaError

    if isinstance(error, KafkaError):
        return f"Kafka cannot be used: {type(error).__name__}: {error}"
    if type(error).__module__.startswith("service.") or isinstance(error, OSError):
        return str(error) or type(error).__name__
    return "".join(traceback.format_exception(error)) + "This is a fault of the program."
