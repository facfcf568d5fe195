"""Switching many customers at once: jobs, and how they stand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from service.commands import console, switch_options
from service.commands.console import Bar, Json
from service.commands.switch_options import (
    DEFAULT_APPLICATION,
    Application,
    EnableAbove,
    ModeOption,
    PackQuotaOption,
    To,
)

if TYPE_CHECKING:
    from service.handlers.mass_switch_reports import JobRow
    from service.handlers.mass_switches import Selection

LOOK_SECONDS = 0.5  # between two looks at a job; counting a large one takes longer than that by itself
OVER = ("finished", "cancelled", "undone", "paused")  # nothing more happens unless somebody asks for it

Below = Annotated[str | None, typer.Option(help="All customers below this tenant that are on --from.")]
From = Annotated[str | None, typer.Option("--from", metavar="EDITION", help="The edition or billing mode they are on.")]
Tenants = Annotated[list[str] | None, typer.Option("--tenant", help="This customer; may be repeated.")]
TenantsFile = Annotated[
    typer.FileText | None, typer.Option("--tenants", help="A file with an id on each line; - is standard input.")
]
Rate = Annotated[float | None, typer.Option(min=0.01, help="No more than so many tenants per second.")]
JobId = Annotated[str | None, typer.Option(help="The id of the job; the same one again is the same job.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Switch many customers between editions and billing modes.", no_args_is_help=True)
    for name, command in (
        ("create", create),
        ("preview", preview),
        ("list", list_jobs),
        ("watch", watch),
        ("pause", pause),
        ("resume", resume),
        ("cancel", cancel),
        ("rerun", rerun),
        ("undo", undo),
        ("results", results),
    ):
        group.command(name)(command)
    application.add_typer(group, name="switch-jobs")


def create(
    to: To,
    below: Below = None,
    from_: From = None,
    tenant: Tenants = None,
    tenants: TenantsFile = None,
    rate: Rate = None,
    job_id: JobId = None,
    mode: ModeOption = "strict",
    pack_quota: PackQuotaOption = "all",
    enable_on_ancestors: EnableAbove = False,
    application: Application = DEFAULT_APPLICATION,
    json: Json = False,
) -> None:
    """Begin to switch many customers; see how it goes with ``watch``."""
    name = job_id or uuid.uuid4().hex[:12]
    request = switch_options.ask(to, application, mode, pack_quota, enable_on_ancestors, job_id=name)
    selection = _selection(below, from_, tenant, tenants)
    _print_job(console.run(_create(request, selection, rate)), json=json)


def preview(
    to: To,
    below: Below = None,
    from_: From = None,
    tenant: Tenants = None,
    tenants: TenantsFile = None,
    mode: ModeOption = "strict",
    pack_quota: PackQuotaOption = "all",
    enable_on_ancestors: EnableAbove = False,
    application: Application = DEFAULT_APPLICATION,
    json: Json = False,
) -> None:
    """Show what would become of all of them, and change nothing."""
    request = switch_options.ask(to, application, mode, pack_quota, enable_on_ancestors)
    shown = console.run(_preview(request, _selection(below, from_, tenant, tenants)))
    if json:
        console.print_json(shown)
    else:
        _print_preview(shown, to)


def list_jobs(json: Json = False) -> None:
    """Show the jobs that are remembered, the newest first."""
    jobs = console.run(_list())
    if json:
        console.print_json({"jobs": [msgspec.to_builtins(job) for job in jobs]})
        return
    rows = [(job.job_id, job.state, job.target_edition, job.counts.total, job.counts.completed) for job in jobs]
    console.print_table("Jobs", ("job", "state", "to", "tenants#", "completed#"), rows)


def watch(job_id: str, json: Json = False) -> None:
    """Wait until a job is over, or paused, and say how it ended."""
    _print_job(console.run(_watch(job_id)), json=json)


def pause(job_id: str, json: Json = False) -> None:
    """Hand over no further task for now."""
    _print_job(console.run(_control("pause", job_id)), json=json)


def resume(job_id: str, rate: Rate = None, json: Json = False) -> None:
    """Go on where the job was paused, at another rate if one is given."""
    _print_job(console.run(_control("resume", job_id, rate=rate)), json=json)


def cancel(job_id: str, json: Json = False) -> None:
    """Hand over no further task at all; what is handed over is finished."""
    _print_job(console.run(_control("cancel", job_id)), json=json)


def rerun(job_id: str, json: Json = False) -> None:
    """Hand over all tasks of a job that is over again; what has been answered is answered the same."""
    _print_job(console.run(_control("rerun", job_id)), json=json)


def undo(job_id: str, json: Json = False) -> None:
    """Lead back all completed switches of a job that is over."""
    _print_job(console.run(_control("undo", job_id)), json=json)


def results(job_id: str, json: Json = False) -> None:
    """Show what became of every tenant."""
    rows = console.run(_results(job_id))
    if json:
        console.print_json({"job_id": job_id, "results": rows})
        return
    shown = [(row["tenant_id"], row["outcome"], _why(row)) for row in rows]
    console.print_table(f"Job {job_id}", ("tenant", "outcome", "because"), shown)


def _selection(
    below: str | None, from_: str | None, tenant: list[str] | None, tenants: typer.FileText | None
) -> Selection:
    from service.handlers.mass_switches import Selection

    if (below is None) != (from_ is None):
        raise typer.BadParameter("--below and --from go together.")
    listed = [*(tenant or ()), *(line.strip() for line in tenants or () if line.strip())]
    if (below is None) == (not listed):
        raise typer.BadParameter("Say which customers: either --below and --from, or --tenant or --tenants.")
    return Selection(below=below, edition=from_, tenants=tuple(dict.fromkeys(listed)))


# --- at work


async def _create(request: Any, selection: Selection, rate: float | None) -> JobRow:
    from service import core
    from service.handlers import mass_switch_control, mass_switch_reports

    async with core.open_core(console.settings()) as opened:
        switch_options.require_edition(opened.catalog, request.application, request.target_edition)
        if selection.edition is not None:
            switch_options.require_edition(opened.catalog, request.application, selection.edition)
        order = mass_switch_control.Order(request.job_id, request, selection, rate)
        with Bar("Selecting customers") as bar:
            await mass_switch_control.create(opened.engine(), order, bar.show)
        return await mass_switch_reports.job(opened.ledger, request.job_id)


async def _preview(request: Any, selection: Selection) -> dict[str, Any]:
    from service import core
    from service.handlers import switch_previews

    async with core.open_core(console.settings()) as opened:
        switch_options.require_edition(opened.catalog, request.application, request.target_edition)
        with Bar("Looking at customers") as bar:
            found = await switch_previews.preview_selection(
                opened.engine(), selection, switch_options.wish(request), bar.show
            )
    shown: dict[str, Any] = msgspec.to_builtins(found)
    return shown


async def _list() -> list[JobRow]:
    from service import core
    from service.handlers import mass_switch_reports

    async with core.open_core(console.settings()) as opened:
        jobs = await mass_switch_reports.all_jobs(opened.ledger)
        return [await mass_switch_reports.job(opened.ledger, job.job_id) for job in jobs]


async def _watch(job_id: str) -> JobRow:
    from service import core
    from service.handlers import mass_switch_reports

    async with core.open_core(console.settings()) as opened:
        with Bar(f"Job {job_id}") as bar:
            while True:
                job = await mass_switch_reports.job(opened.ledger, job_id)
                bar.show(*_progress(job), title=f"Job {job_id} {job.state}")
                if _is_still(job):
                    return job
                await asyncio.sleep(LOOK_SECONDS)  # outcomes lie in all shards, and none of them tells


def _is_still(job: JobRow) -> bool:
    """Whether nothing more will happen by itself."""
    if job.state not in OVER or job.counts.running:
        return False
    # Of a job that was paused or cancelled, what was handed over before goes on.
    decided = job.counts.total - job.counts.queued - job.counts.cancelled
    return job.state in ("finished", "undone") or decided >= min(job.handed_over, job.counts.total)


def _progress(job: JobRow) -> tuple[int, int]:
    counts = job.counts
    if job.state in ("undoing", "undone"):
        return counts.undone + counts.undo_rejected, job.to_hand_over
    return counts.total - counts.queued - counts.running - counts.cancelled, counts.total


async def _control(verb: str, job_id: str, **options: Any) -> JobRow:
    from service import core
    from service.handlers import mass_switch_control, mass_switch_reports

    async with core.open_core(console.settings()) as opened:
        await getattr(mass_switch_control, verb)(opened.engine(), job_id, **options)
        return await mass_switch_reports.job(opened.ledger, job_id)


async def _results(job_id: str) -> list[dict[str, Any]]:
    from service import core
    from service.handlers import mass_switch_reports

    async with core.open_core(console.settings()) as opened:
        return [msgspec.to_builtins(each) async for each in mass_switch_reports.all_results(opened.ledger, job_id)]


# --- in front of a person


def _print_job(job: JobRow, *, json: bool) -> None:
    if json:
        console.print_json(msgspec.to_builtins(job))
        return
    counts = msgspec.to_builtins(job.counts)
    title = f"Job {job.job_id} to {job.target_edition}: {job.state}"
    rows = [(name.replace("_", " "), f"{count:,}") for name, count in counts.items() if count or name == "total"]
    console.print_table(title, ("tenants", "#"), rows)


def _print_preview(shown: Mapping[str, Any], to: str) -> None:
    if shown["items"]:
        switch_options.print_items(f"All that would be switched to {to}", shown["items"])
    counts = shown["workloads"]
    typer.echo(
        f"Customers: {shown['tenants']:,}, of which {shown['switched']:,} would be switched, {shown['unchanged']:,} "
        f"are on {to} already, {shown['refused']:,} would be refused; {shown['unknown']:,} do not exist."
    )
    typer.echo(
        f"Workloads: {counts['total']:,}, of which {counts['changed']:,} hold something else afterwards, "
        f"{counts['losing_features']:,} lose something, {counts['denied']:,} are left without an item."
    )
    for feature, count in shown["features_lost"].items():
        typer.echo(f"No longer available to {count:,} customers: {feature}.")
    rows = [(row["tenant_id"], switch_options.reasons(row["denials"])) for row in shown["refused_tenants"]]
    if rows:
        title = "Would be refused" + (f" (the first {len(rows):,})" if len(rows) < shown["refused"] else "")
        console.print_table(title, ("tenant", "because"), rows)


def _why(row: Mapping[str, Any]) -> str:
    event = row["event"]
    if row["outcome"] == "failed":
        return "the task could not be handled: see `apportion dead-letters list`"
    if event is None or not event["type"].endswith("rejected.v1"):
        return ""
    return switch_options.reasons(event["data"].get("denials", ()), event["data"].get("drift", ()))
