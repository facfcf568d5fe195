"""Whether the ledger is what its records say, and putting it right where it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.status import Status

from service.commands import console
from service.commands.console import Json

if TYPE_CHECKING:
    from service.handlers.repairs import Repair
    from service.handlers.verification import Report, Violation

Apply = Annotated[bool, typer.Option("--apply", help="Set it right; without it, only what would be done is shown.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    ledger = typer.Typer(help="The record of who uses what.", no_args_is_help=True)
    ledger.command("verify")(verify)
    ledger.command("repair")(repair)
    application.add_typer(ledger, name="ledger")


def verify(json: Json = False) -> None:
    """Compare every counter with what is behind it, while the service works; exit code 1 where something is wrong."""
    report = console.run(_verify())
    if json:
        console.print_json(report.as_json())
    else:
        looked_at = f"{report.tenants} tenants, {report.workloads} workloads, {report.reservations} reservations"
        typer.echo(f"{'All is well' if report.ok else 'Something is wrong'}: {looked_at}.")
        _show(report.violations)
    for note in report.notes:
        typer.echo(note, err=True)
    if not report.ok:
        raise typer.Exit(1)


def repair(apply: Apply = False, json: Json = False) -> None:
    """Set counters to what their records say, while the service works; exit code 1 where something is left."""
    done = console.run(_repair(apply=apply))
    if json:
        console.print_json(msgspec.to_builtins(done))
    else:
        verb = "were set right" if apply else "would be set right; do it with --apply"
        typer.echo(f"{len(done.changes)} things {verb}." if done.changes else "There is nothing to set right.")
        _show(done.changes)
        if done.left:
            typer.echo(f"{len(done.left)} things are left; the service wrote there all the time. Try again.")
            _show(done.left)
    if done.left:
        raise typer.Exit(1)


async def _verify() -> Report:
    from service import core
    from service.handlers import verification

    async with core.open_core(console.settings()) as opened:
        with _progress() as progress:
            return await verification.verify(opened.ledger, opened.catalog, progress)


async def _repair(*, apply: bool) -> Repair:
    from service import core
    from service.handlers import repairs

    async with core.open_core(console.settings()) as opened:
        return await repairs.repair(opened.engine(), apply=apply)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """How many tenants have been looked at, on a terminal."""
    with Status("Looking …", console=Console(stderr=True)) if sys.stderr.isatty() else _Nowhere() as shown:
        yield lambda count: shown.update(f"Looking at tenants … {count:,}")


class _Nowhere:
    def __enter__(self) -> _Nowhere:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, _: str) -> None:
        """Nobody watches."""


def _show(violations: Sequence[Violation]) -> None:
    for each in violations:
        about = each.offering_item or each.workload_id or each.reservation_id
        typer.echo(f"  {each.tenant_id}{f', {about}' if about else ''}: {each.message}.")
