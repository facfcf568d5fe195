"""Whether the ledger is what its records say, and putting it right where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from service.commands import console
from service.commands.console import Json

Apply = Annotated[bool, typer.Option("--apply", help="Set the counters; without it, only what is wrong is shown.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    ledger = typer.Typer(help="The record of who uses what.", no_args_is_help=True)
    ledger.command()(verify)
    ledger.command()(repair)
    application.add_typer(ledger, name="ledger")


def verify(json: Json = False) -> None:
    """Compare every counter with the workloads, reservations and tenants behind it; exit code 1 where one is wrong."""
    report = console.run(_verify())
    _show(report, json=json)
    if not report["ok"]:
        raise typer.Exit(1)


def repair(apply: Apply = False, json: Json = False) -> None:
    """Set counters that are wrong to what the records say. Safe while the service runs."""
    report, repaired = console.run(_repair(apply=apply))
    _show(report | {"repaired": repaired}, json=json)


async def _verify() -> dict[str, Any]:
    from service import core
    from service.handlers import verification

    async with core.open_core(console.settings()) as opened:
        report: dict[str, Any] = msgspec.to_builtins(await verification.verify(opened.ledger, opened.catalog))
        return report


async def _repair(*, apply: bool) -> tuple[dict[str, Any], int]:
    from service import core
    from service.handlers import verification

    async with core.open_core(console.settings()) as opened:
        report = await verification.verify(opened.ledger, opened.catalog)
        repaired = await verification.repair(opened.engine(), report) if apply else 0
        return msgspec.to_builtins(report), repaired


def _show(report: Mapping[str, Any], *, json: bool) -> None:
    if json:
        console.print_json(report)
        return
    looked_at = f"{report['tenants']} tenants, {report['workloads']} workloads, {report['reservations']} reservations"
    typer.echo(f"{'All is well' if report['ok'] else 'Something is wrong'}: {looked_at}.")
    for violation in report["violations"]:
        typer.echo(f"  {violation['message']}")
    if report["unsettled"]:
        typer.echo(f"{len(report['unsettled'])} tenants changed all the time and could not be compared.")
    if report.get("repaired"):
        typer.echo(f"{report['repaired']} counters were set.")
