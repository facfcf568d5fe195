"""Switching one customer: looking at what would become of it, doing it, finding it again, leading it back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands import console, switch_options
from service.commands.console import Bar, CommandError, Json
from service.commands.switch_options import (
    DEFAULT_APPLICATION,
    Application,
    EnableAbove,
    ModeOption,
    PackQuotaOption,
    To,
)

if TYPE_CHECKING:
    from service.core import Core
    from service.handlers.switch_lookups import Found

LOOK_SECONDS = 0.2  # between two looks at a switch that goes on
REJECTED = ("apportion.switch.rejected.v1", "apportion.switch.undo_rejected.v1")

PlanHash = Annotated[
    str | None, typer.Option(help="Do exactly the plan of this hash, or refuse with what has drifted.")
]
SwitchId = Annotated[str | None, typer.Option(help="The id of the switch; the same one again has the same answer.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Switch a customer between editions and billing modes.", no_args_is_help=True)
    group.command("preview")(preview)
    group.command("run")(run)
    group.command("show")(show)
    group.command("undo")(undo)
    application.add_typer(group, name="switch")


def preview(
    tenant: str,
    to: To,
    mode: ModeOption = "strict",
    pack_quota: PackQuotaOption = "all",
    enable_on_ancestors: EnableAbove = False,
    application: Application = DEFAULT_APPLICATION,
    json: Json = False,
) -> None:
    """Show what a switch would do, and change nothing."""
    request = switch_options.ask(to, application, mode, pack_quota, enable_on_ancestors)
    shown = console.run(_preview(tenant, request))
    if json:
        console.print_json(shown)
    else:
        print_plan(shown)


def run(
    tenant: str,
    to: To,
    plan_hash: PlanHash = None,
    switch_id: SwitchId = None,
    mode: ModeOption = "strict",
    pack_quota: PackQuotaOption = "all",
    enable_on_ancestors: EnableAbove = False,
    application: Application = DEFAULT_APPLICATION,
    json: Json = False,
) -> None:
    """Switch a customer and wait for the end; exit code 1 where the switch is rejected."""
    import uuid

    more = {"switch_id": switch_id or uuid.uuid4().hex, "plan_hash": plan_hash}
    request = switch_options.ask(to, application, mode, pack_quota, enable_on_ancestors, **more)
    _answer(console.run(_run(tenant, request)), json=json)


def show(switch_id: str, json: Json = False) -> None:
    """Show the last event of a switch."""
    event = console.run(_show(switch_id))
    if json:
        console.print_json(event)
    else:
        print_event(event)


def undo(switch_id: str, json: Json = False) -> None:
    """Lead a switch back and wait for the end; exit code 1 where that is rejected."""
    _answer(console.run(_undo(switch_id)), json=json)


def _answer(event: Mapping[str, Any], *, json: bool) -> None:
    """Print how it ended. A rejection is an answer, and yet not what was asked for."""
    if json:
        console.print_json(event)
    else:
        print_event(event)
    if event["type"] in REJECTED:
        data = event["data"]
        why = switch_options.reasons(data.get("denials", ()), data.get("drift", ()))
        print(f"Switch {data['switch_id']} is rejected: {why}.", file=sys.stderr)
        raise typer.Exit(1)


# --- at work


async def _preview(tenant: str, request: Any) -> dict[str, Any]:
    from service import core
    from service.handlers import switch_previews

    async with core.open_core(console.settings()) as opened:
        return (await switch_previews.preview(opened.engine(), tenant, switch_options.wish(request))).shown


async def _run(tenant: str, request: Any) -> dict[str, Any]:
    from service import core
    from service.handlers import switch_requests

    async with core.open_core(console.settings()) as opened:
        found = await switch_requests.request(opened.engine(), tenant, request)
        return await _wait(opened, request.switch_id, found)


async def _undo(switch_id: str) -> dict[str, Any]:
    from service import core
    from service.handlers import switch_requests

    async with core.open_core(console.settings()) as opened:
        found = await switch_requests.request_undo(opened.engine(), switch_id)
        return await _wait(opened, switch_id, found)


async def _show(switch_id: str) -> dict[str, Any]:
    from service import core
    from service.handlers import switch_lookups

    async with core.open_core(console.settings()) as opened:
        found = await switch_lookups.find(opened.ledger, switch_id)
    if found.event is None:
        raise CommandError(f"Switch {switch_id} is being prepared; nothing was announced of it yet.")
    return found.event


async def _wait(opened: Core, switch_id: str, found: Found) -> dict[str, Any]:
    """The end of a switch; one of many workloads is carried out by the instances that run."""
    from service.handlers import switch_lookups, switch_requests

    with Bar(f"Switching {found.tenant_id}") as bar:
        while found.under_way or found.event is None:
            progress = await switch_requests.progress(opened.ledger, found.tenant_id)
            if progress is not None:
                bar.show(progress.moved, progress.total)
            await asyncio.sleep(LOOK_SECONDS)  # the ledger tells nobody when something ends
            found = await switch_lookups.of_tenant(opened.ledger, found.tenant_id, switch_id)
    return found.event


# --- in front of a person


def print_plan(shown: Mapping[str, Any]) -> None:
    """A plan: the items before and after, who loses what, and what stands in the way."""
    source, target = shown["from_edition"] or "no edition", shown["to_edition"]
    if shown["items"]:
        switch_options.print_items(f"{shown['tenant_id']}: {source} → {target}", shown["items"])
    counts = shown["workloads"]
    typer.echo(
        f"Workloads: {counts['total']:,}, of which {counts['changed']:,} hold something else afterwards, "
        f"{counts['losing_features']:,} lose something, {counts['denied']:,} are left without an item."
    )
    for row in shown["losing"]:
        typer.echo(f"  {_loss(row)}")
    for type_, features in shown["features_lost_by_type"].items():
        typer.echo(f"No longer available to a {type_}: {', '.join(features)}.")
    for warning in shown["warnings"]:
        typer.echo(f"Warning {warning['code']}: {warning['message']}")
    for denial in shown["denials"]:
        typer.secho(f"In the way: {denial['message']}.", fg=typer.colors.RED)
    typer.echo(f"Plan {shown['plan_hash']}" if shown["startable"] else "The switch would be rejected.")


def _loss(row: Mapping[str, Any]) -> str:
    parts = [f"lose {', '.join(row['features'])}"] if row["features"] else []
    parts += [f"are refused {', '.join(row['items_refused'])}"] if row["items_refused"] else []
    parts += ["are left without an item"] if row["left_without_item"] else []
    return f"{row['workloads']:,} of type {row['type']} {' and '.join(parts)}"


def print_event(event: Mapping[str, Any]) -> None:
    """An announcement about a switch."""
    from service import catalog
    from service.commands import inquiries

    data = event["data"]
    name = event["type"].removeprefix("apportion.switch.").removesuffix(".v1").replace("_", " ")
    title = f"Switch {data['switch_id']} {name}: {data['from_edition'] or 'no edition'} → {data['to_edition']}"
    known = catalog.load(console.settings().catalog_file)
    rows = []
    for row in data["items"]:
        item = known.find_item(row["offering_item"])
        unit = item.unit if item else "quantity"
        used, quota = inquiries.quantity(row["used"], unit), inquiries.quota_text(row["quota"], unit)
        rows.append((row["side"], row["offering_item"], used, quota))
    console.print_table(title, ("side", "offering item", "used#", "quota#"), rows)
    counts = data["workloads"]
    typer.echo(f"Workloads: {counts['total']:,}, moved {counts['moved']:,}, without an item {counts['denied']:,}.")
    for denial in data.get("denials", ()):
        typer.echo(f"Refused: {denial['message']}.")
    for drift in data.get("drift", ()):
        typer.echo(f"Drift: {drift['message']}.")
