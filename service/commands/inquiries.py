"""What people ask: what a tenant uses, what its workloads hold, and why an item is short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import typer

from service.commands import console
from service.commands.console import Json

BAR_WIDTH = 20  # characters
GIB = 1024**3


def register(application: typer.Typer) -> None:
    """Add the commands."""
    application.command()(usage)
    application.command()(workloads)
    application.command()(explain)


def usage(tenant: str, json: Json = False) -> None:
    """Show what a tenant and everybody below it use, beside its quotas."""
    from service.handlers import queries

    shown = _ask(lambda core: queries.usage(core.ledger, core.catalog, tenant))
    if json:
        console.print_json(shown)
    else:
        print_usage(tenant, shown["items"])


def print_usage(tenant: str, items: Sequence[Mapping[str, Any]]) -> None:
    """What is used of each item, beside its quota."""
    rows = [
        (
            row["offering_item"],
            quantity(row["used"], row["unit"]),
            quantity(row["reserved"], row["unit"]),
            quota_text(row["quota"], row["unit"]),
            bar(row["used"], row["quota"]),
            "on" if row["status"] else "off",
        )
        for row in items
    ]
    console.print_table(f"Usage of {tenant}", ("offering item", "used#", "reserved#", "quota#", "", "status"), rows)


def workloads(tenant: str, json: Json = False) -> None:
    """Show what each workload of a tenant holds, and what it waits for and why."""
    from service.handlers import queries

    shown = _ask(lambda core: queries.workloads(core.ledger, tenant))
    if json:
        console.print_json(shown)
        return
    rows = [
        (
            row["workload_id"],
            row["type"],
            ", ".join(row["holding"]) or "nothing",
            ", ".join(row["plan_ids"]),
            "; ".join(denial["message"] for denial in row["denials"]),
        )
        for row in shown["workloads"]
    ]
    console.print_table(f"Workloads of {tenant}", ("workload", "type", "holds", "plans", "waits because"), rows)


def explain(tenant: str, item: str, json: Json = False) -> None:
    """Show what limits an item for a tenant, from the tenant up to root, who holds it and who waits for it."""
    from service import catalog
    from service.handlers import queries

    shown = _ask(lambda core: queries.explain(core.ledger, core.catalog, tenant, item))
    if json:
        console.print_json(shown)
        return
    unit = catalog.load(console.settings().catalog_file).item(item).unit
    levels = [
        (
            level["tenant_id"],
            level["kind"],
            quantity(level["used"], unit),
            quantity(level["reserved"], unit),
            quota_text(level["quota"], unit),
            "any number" if level["available"] is None else quantity(level["available"], unit),
            bar(level["used"], level["quota"]),
        )
        for level in shown["levels"]
    ]
    columns = ("tenant", "kind", "used#", "reserved#", "quota#", "available#", "")
    console.print_table(f"{item} on the way from {tenant} up", columns, levels)
    holders = [
        (row["tenant_id"], row.get("workload_id") or "", quantity(row.get("quantity", row.get("used")), unit))
        for row in shown["largest_holders"]
    ]
    _print_some("Largest holders", ("tenant", "workload", "units#"), holders, "Nobody holds any.")
    waiting = [(row["tenant_id"], row["workload_id"], row["since"]) for row in shown["waiting"]]
    title = "Waiting, longest first" + (f" (the first {len(waiting)})" if len(waiting) == queries.WAITING_MAX else "")
    _print_some(title, ("tenant", "workload", "since"), waiting, "Nobody waits.")


def _print_some(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], none: str) -> None:
    """A table, or a sentence where it would be empty."""
    if rows:
        console.print_table(title, columns, rows)
    else:
        typer.echo(none)


def quantity(value: int, unit: str) -> str:
    """Units for a person: bytes as GiB."""
    return f"{value / GIB:,.2f} GiB" if unit == "bytes" else f"{value:,}"


def quota_text(quota: Mapping[str, Any], unit: str) -> str:
    """A quota for a person: soft ones are marked, and what a hard one allows beyond its value stands behind a plus."""
    if quota["value"] is None:
        return "unlimited"
    text = quantity(quota["value"], unit)
    if quota["overage"] is None:
        return f"{text} (soft)"
    return f"{text} + {quantity(quota['overage'], unit)}" if quota["overage"] else text


def bar(used: int, quota: Mapping[str, Any]) -> str:
    """How much of a quota is used."""
    if quota["value"] is None:
        return ""
    limit = quota["value"] + (quota["overage"] or 0)
    share = 1.0 if limit == 0 else min(1.0, used / limit)
    filled = round(share * BAR_WIDTH)
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def _ask(question: Callable[[Any], Awaitable[msgspec.Struct]]) -> Any:
    """The answer to a question as plain data."""
    return console.run(_answer(question))


async def _answer(question: Callable[[Any], Awaitable[msgspec.Struct]]) -> Any:
    from service import core

    async with core.open_core(console.settings()) as opened:
        return msgspec.to_builtins(await question(opened))
