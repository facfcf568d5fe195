"""What the commands about switches have in common: how a switch is asked for, and how plans look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from schemas.switches import CYBER_PROTECTION
from service.commands import console, inquiries
from service.commands.console import CommandError

Mode = Literal["strict", "best_effort"]
PackQuota = Literal["all", "covering"]

To = Annotated[str, typer.Option("--to", metavar="EDITION", help="The edition or billing mode to switch to.")]
Application = Annotated[str, typer.Option(help="The application, by id.")]
ModeOption = Annotated[Mode, typer.Option(help="All workloads or nothing; or whoever there is room for.")]
PackQuotaOption = Annotated[
    PackQuota, typer.Option(help="Quotas of packs: from all sub-editions, or from those that had what the pack has.")
]
EnableAbove = Annotated[
    bool, typer.Option("--enable-on-ancestors", help="Enable what is missing on the tenants above, unlimited.")
]
DEFAULT_APPLICATION = CYBER_PROTECTION


def ask(
    to: str,
    application: str,
    mode: str,
    pack_quota: str,
    enable_on_ancestors: bool,
    **more: Any,
) -> Any:
    """A request for a switch (``schemas.switches.SwitchRequested``). Raises what says that it is wrongly put."""
    from pydantic import ValidationError

    from schemas.switches import SwitchRequested

    content = {
        "switch_id": "unnamed",
        "target_edition": to,
        "application": application,
        "mode": mode,
        "pack_quota": pack_quota,
        "enable_on_ancestors": enable_on_ancestors,
        **more,
    }
    try:
        return SwitchRequested.model_validate({name: value for name, value in content.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def wish(request: Any) -> Any:
    """The same, as something to preview (``switch_previews.Wish``)."""
    from service.handlers.switch_endings import options_of
    from service.handlers.switch_previews import Wish

    return Wish(request.application, request.target_edition, options_of(request))


def require_edition(catalog: Any, application: str, edition: str) -> None:
    """Raise ``CommandError`` where the catalogue has no such edition or billing mode."""
    known = catalog.find_edition(edition)
    if known is None or known.application_id != application:
        raise CommandError(f"The catalogue has no edition or billing mode {edition} of application {application}.")


def print_items(title: str, items: Sequence[Mapping[str, Any]]) -> None:
    """The items of a plan, before and after."""
    from service import catalog

    known = catalog.load(console.settings().catalog_file)
    rows = []
    for row in items:
        item = known.find_item(row["offering_item"])
        unit = item.unit if item else "quantity"
        used = change(inquiries.quantity(row["used_before"], unit), inquiries.quantity(row["used_after"], unit))
        quota = change(quota_text(row, "before", unit), quota_text(row, "after", unit))
        rows.append((row["side"], row["offering_item"], used, quota))
    console.print_table(title, ("side", "offering item", "used", "quota"), rows)


def quota_text(row: Mapping[str, Any], moment: str, unit: str) -> str:
    """A quota before or after a switch; an item that is off has none."""
    quota = row[f"quota_{moment}"]
    is_on = bool(row.get(f"status_{moment}", quota is not None))
    return inquiries.quota_text(quota, unit) if is_on else "off"


def change(before: str, after: str) -> str:
    """From what to what; only once where both are the same."""
    return before if before == after else f"{before} → {after}"


def reasons(denials: Sequence[Mapping[str, Any]], drift: Sequence[Mapping[str, Any]] = ()) -> str:
    """Why something was refused, in a line."""
    return "; ".join(each["message"] for each in (*denials, *drift)) or "no reason is known"
