"""Looking at the tree of tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from service.commands import console
from service.commands.console import Json

if TYPE_CHECKING:
    from service.handlers.queries import TenantRow

Top = Annotated[str, typer.Argument(help="Whose tree; without it, everything.")]


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


def tree(tenant: Top = "root", json: Json = False) -> None:
    """Show a tenant and everybody below it; deleted ones are left out."""
    rows = console.run(_tree(tenant))
    if json:
        console.print_json({"tenants": [msgspec.to_builtins(row) for row in rows]})
    else:
        Console().print(_drawn(rows))


def show(tenant: str, json: Json = False) -> None:
    """Show one tenant."""
    row = msgspec.to_builtins(console.run(_show(tenant)))
    if json:
        console.print_json(row)
        return
    for name, value in row.items():
        typer.echo(f"{name.replace('_', ' ')}: {({True: 'yes', False: 'no'}).get(value, value)}")


def create_client(tenant: str, scope: Scopes = None, json: Json = False) -> None:
    """Make an API client of a tenant; its secret is shown this once."""
    made = console.run(_create_client(tenant, scope))
    if json:
        console.print_json(made)
        return
    for name, value in made.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")


def _drawn(rows: Sequence[TenantRow]) -> Tree:
    top = Tree(_label(rows[0]))
    branches = {rows[0].tenant_id: top}
    for row in rows[1:]:
        branches[row.tenant_id] = branches[row.parent_id].add(_label(row))
    return top


def _label(row: TenantRow) -> Text:
    """What is worth saying of a tenant in a line: the usual is left out."""
    label = Text(row.tenant_id, style="bold")
    if row.name != row.tenant_id:
        label.append(f" {row.name}", style="not bold")
    notes = [row.kind] if row.kind != "root" else []
    notes += [row.pricing_mode] if row.pricing_mode != "production" else []
    notes += [row.payment_model] if row.payment_model != "pay_as_you_go" else []
    notes += [] if row.enabled else ["disabled"]
    label.append(f"  {', '.join(notes)}", style="dim not bold")
    return label


async def _tree(tenant: str) -> list[TenantRow]:
    from service import core
    from service.handlers import queries

    async with core.open_core(console.settings()) as opened:
        return await queries.tenants(opened.ledger, tenant)


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
