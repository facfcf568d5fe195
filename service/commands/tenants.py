"""Looking at the tree of tenants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from service.commands import console, inquiries
from service.commands.console import Json

if TYPE_CHECKING:
    from service.handlers.queries import TenantRow, UsageRow

Top = Annotated[str, typer.Argument(help="Whose tree; without it, everything.")]


OfItem = Annotated[
    str | None, typer.Option("--item", help="An offering item: its usage and quota are shown at every tenant.")
]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="viewer, tenant_admin, usage_reporter, licensing_admin; once for each. All, if none."),
]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    tenants = typer.Typer(help="Who there is.", no_args_is_help=True)
    tenants.command("tree")(tree)
    tenants.command("list")(list_)
    tenants.command("show")(show)
    clients = typer.Typer(help="Programs that may sign in for a tenant.", no_args_is_help=True)
    clients.callback()(lambda: None)  # with one command, typer would leave its name out
    clients.command("create")(create_client)
    tenants.add_typer(clients, name="client")
    application.add_typer(tenants, name="tenants")


def tree(tenant: Top = "root", item: OfItem = None, json: Json = False) -> None:
    """Show a tenant and everybody below it; deleted ones are left out."""
    rows, usages = console.run(_tree(tenant, None if json else item))
    if json:
        console.print_json({"tenants": [msgspec.to_builtins(row) for row in rows]})
    else:
        Console().print(_drawn(rows, usages))


def list_(tenant: Top = "root", json: Json = False) -> None:
    """List a tenant and everybody below it, each with the quota that is used up most."""
    rows, usages = console.run(_list(tenant))
    if json:
        found = [{**msgspec.to_builtins(row), "items": msgspec.to_builtins(usages[row.tenant_id])} for row in rows]
        console.print_json({"tenants": found})
        return
    lines = []
    for row in rows:
        fullest = max(usages[row.tenant_id], key=_share, default=None)
        known = fullest if fullest is not None and _share(fullest) >= 0 else None
        lines.append((row.tenant_id, row.name, _notes(row), *(_fullness(known) if known else ("", "", ""))))
    console.print_table(f"Tenants below {tenant}", ("tenant", "name", "", "fullest quota", "", "used"), lines)


def _share(usage: UsageRow) -> float:
    """Which part of a quota is used; below 0 where there is none."""
    quota = usage.quota
    if quota.value is None:
        return -1.0
    return usage.used / (quota.value + (quota.overage or 0) or 1)


def _fullness(usage: UsageRow) -> tuple[str, str, str]:
    quota = msgspec.to_builtins(usage.quota)
    numbers = f"{inquiries.quantity(usage.used, usage.unit)} of {inquiries.quota_text(quota, usage.unit)}"
    return usage.offering_item, inquiries.bar(usage.used, quota), numbers


def show(tenant: str, json: Json = False) -> None:
    """Show one tenant, with what it uses beside its quotas."""
    row, usages = console.run(_show(tenant))
    shown = msgspec.to_builtins(row)
    if json:
        console.print_json({**shown, "items": msgspec.to_builtins(usages)})
        return
    for name, value in shown.items():
        typer.echo(f"{name.replace('_', ' ')}: {({True: 'yes', False: 'no'}).get(value, value)}")
    inquiries.print_usage(tenant, msgspec.to_builtins(usages))


def create_client(tenant: str, scope: Scopes = None, json: Json = False) -> None:
    """Make an API client of a tenant; its secret is shown this once."""
    made = console.run(_create_client(tenant, scope))
    if json:
        console.print_json(made)
        return
    for name, value in made.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")


def _drawn(rows: Sequence[TenantRow], usages: Mapping[str, UsageRow]) -> Tree:
    top = Tree(_label(rows[0], usages))
    branches = {rows[0].tenant_id: top}
    for row in rows[1:]:
        branches[row.tenant_id] = branches[row.parent_id].add(_label(row, usages))
    return top


def _label(row: TenantRow, usages: Mapping[str, UsageRow]) -> Text:
    """What is worth saying of a tenant in a line: the usual is left out."""
    label = Text(row.tenant_id, style="bold")
    if row.name != row.tenant_id:
        label.append(f" {row.name}", style="not bold")
    label.append(f"  {_notes(row)}", style="dim not bold")
    usage = usages.get(row.tenant_id)
    if usage is not None:
        _, bar, numbers = _fullness(usage)
        label.append(f"  {bar} {numbers}", style="not bold")
    return label


def _notes(row: TenantRow) -> str:
    """What a tenant is, and what is unusual about it."""
    notes = [row.kind] if row.kind != "root" else []
    notes += [row.pricing_mode] if row.pricing_mode != "production" else []
    notes += [row.payment_model] if row.payment_model != "pay_as_you_go" else []
    notes += [] if row.enabled else ["disabled"]
    return ", ".join(notes)


async def _tree(tenant: str, item: str | None) -> tuple[list[TenantRow], dict[str, UsageRow]]:
    """The tenants, and by their ids what they use of the item, if one is asked for and they have it or use it."""
    from service import core
    from service.handlers import queries
    from service.handlers import tree as tenants

    async with core.open_core(console.settings()) as opened:
        if item is not None and opened.catalog.find_item(item) is None:
            raise queries.ItemNotFoundError(item)
        rows = await queries.tenants(opened.ledger, tenant)
        if item is None:
            return rows, {}
        root = [tenants.ROOT_NODE] if rows[0].tenant_id == tenants.ROOT_NODE.tenant_id else []
        nodes = [*root, *await tenants.find_all(opened.ledger, [row.tenant_id for row in rows])]
        found = await queries.usages(opened.ledger, opened.catalog, [(node, node) for node in nodes])
        return rows, {each.tenant_id: row for each in found for row in each.items if row.offering_item == item}


async def _list(tenant: str) -> tuple[list[TenantRow], dict[str, list[UsageRow]]]:
    """The tenants, and by their ids what they use; a unit uses its customer's items and has no quotas to show."""
    from service import core
    from service.handlers import queries
    from service.handlers import tree as tenants

    async with core.open_core(console.settings()) as opened:
        rows = await queries.tenants(opened.ledger, tenant)
        usages: dict[str, list[UsageRow]] = {}
        names = [row.tenant_id for row in rows]
        for first in range(0, len(names), tenants.LEVEL_SIZE):
            some = names[first : first + tenants.LEVEL_SIZE]
            root = [tenants.ROOT_NODE] if tenants.ROOT_NODE.tenant_id in some else []
            nodes = [*root, *await tenants.find_all(opened.ledger, some)]
            found = await queries.usages(opened.ledger, opened.catalog, [(node, node) for node in nodes])
            usages |= {each.tenant_id: each.items for each in found}
        return [row for row in rows if row.tenant_id in usages], usages


async def _show(tenant: str) -> tuple[TenantRow, list[UsageRow]]:
    from service import core
    from service.handlers import queries

    async with core.open_core(console.settings()) as opened:
        row = await queries.tenant(opened.ledger, tenant)
        return row, (await queries.usage(opened.ledger, opened.catalog, tenant)).items


async def _create_client(tenant: str, wanted: Sequence[str] | None) -> dict[str, str]:
    import time
    import uuid

    from service import core
    from service.handlers import clients
    from service.http import credentials, scopes
    from service.records import ApiClient

    unknown = sorted(set(wanted or ()) - set(scopes.ALL))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)} is no scope; there are {', '.join(scopes.ALL)}.")
    async with core.open_core(console.settings()) as opened:
        await opened.ledger.install()
        node = await clients.tenant_of(opened.ledger, tenant)
        secret, client_id, now_ms = credentials.make(), str(uuid.uuid4()), time.time_ns() // 1_000_000
        known = ApiClient(
            tenant_id=tenant,
            type="api_client",
            scopes=tuple(dict.fromkeys(wanted or scopes.ALL)),
            secret_hash=await credentials.hash_of(secret),
            created_ms=now_ms,
        )
        await clients.create(opened.ledger, node, client_id, known, now_ms)
    return {"client_id": client_id, "client_secret": secret, "tenant_id": tenant}
