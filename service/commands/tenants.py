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


def show(tenant: str, json: Json = False) -> None:
    """Show one tenant, with what it uses beside its quotas."""
    row = msgspec.to_builtins(console.run(_show(tenant)))
    if json:
        console.print_json(row)
        return
    for name, value in row.items():
        typer.echo(f"{name.replace('_', ' ')}: {({True: 'yes', False: 'no'}).get(value, value)}")
    inquiries.usage(tenant)


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
    notes = [row.kind] if row.kind != "root" else []
    notes += [row.pricing_mode] if row.pricing_mode != "production" else []
    notes += [row.payment_model] if row.payment_model != "pay_as_you_go" else []
    notes += [] if row.enabled else ["disabled"]
    label.append(f"  {', '.join(notes)}", style="dim not bold")
    usage = usages.get(row.tenant_id)
    if usage is not None:
        quota = msgspec.to_builtins(usage.quota)
        numbers = f"{inquiries.quantity(usage.used, usage.unit)} of {inquiries.quota_text(quota, usage.unit)}"
        label.append(f"  {inquiries.bar(usage.used, quota)} {numbers}", style="not bold")
    return label


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


async def _show(tenant: str) -> TenantRow:
    from service import core
    from service.handlers import queries

    async with core.open_core(console.settings()) as opened:
        return await queries.tenant(opened.ledger, tenant)


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
