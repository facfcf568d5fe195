"""Running an instance, making its topics, and looking at how all of them stand."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.commands import console
from service.commands.console import Json
from service.settings import Settings

Roles = Annotated[str, typer.Option(help="Which parts to run: consume, relay, sweep, http; separated by commas.")]
WaitIdle = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="Wait until all that was published is decided and announced."),
]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    application.command()(serve)
    application.command()(status)
    topics = typer.Typer(help="The topics of Kafka.", no_args_is_help=True)
    topics.command("create")(create_topics)
    application.add_typer(topics, name="topics")


def serve(roles: Roles = "consume,relay,sweep,http") -> None:
    """Run an instance; any number of them may run. It says in a line of JSON when it is ready."""
    from service import app

    chosen = frozenset(role.strip() for role in roles.split(",") if role.strip())
    unknown = sorted(chosen - set(app.ROLES))
    if unknown or not chosen:
        raise typer.BadParameter(f"{', '.join(unknown) or 'nothing'} is no role; there are {', '.join(app.ROLES)}.")
    _collect_seldom()
    console.run(app.serve(console.settings(), chosen, console.print_json))


def _collect_seldom() -> None:
    """Look for garbage in cycles less often: a batch makes thousands of objects, none of them in a cycle.

    Measured: with Python's defaults, half of the time of a decision goes into looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def create_topics(json: Json = False) -> None:
    """Create the topics that do not exist yet."""
    from service.transport import topics

    creations = console.run(topics.create(console.settings()))
    if json:
        console.print_json({"topics": [creation._asdict() for creation in creations]})
        return
    for creation in creations:
        note = "created" if creation.created else "exists"
        if creation.partitions != creation.partitions_wanted:
            note += f", with {creation.partitions} partitions where the settings say {creation.partitions_wanted}"
        typer.echo(f"{creation.topic}: {note}")


def status(wait_idle: WaitIdle = None, json: Json = False) -> None:
    """Show what is not decided, not announced, not finished and not accepted, and who is at work."""
    shown, idle = console.run(_look(console.settings(), wait_idle))
    if json:
        console.print_json(shown)
    else:
        _print(shown)
    if wait_idle is not None and not idle:
        typer.echo(f"Not everything was decided and announced within {wait_idle:g} seconds.", err=True)
        raise typer.Exit(1)


async def _look(settings: Settings, wait_idle: float | None) -> tuple[dict[str, Any], bool]:
    from service import core
    from service.transport import status

    async with (
        core.open_core(settings) as opened,
        status.observatory(settings, opened.ledger, opened.board) as observatory,
    ):
        seen = await observatory.read() if wait_idle is None else await observatory.wait_idle(wait_idle)
        seen.dead_letters = await observatory.count_dead_letters()
        return status.as_json(seen), seen.idle


def _print(shown: Mapping[str, Any]) -> None:
    console.print_table("Events not decided yet", ("topic", "lag#"), shown["lag"].items())
    typer.echo(f"Announcements that wait for Kafka: {shown['outbox']}")
    typer.echo(f"Accepted and not finished: {shown['delayed']}")
    if shown["dead_letters"]:
        console.print_table("Dead letters", ("code", "count#"), shown["dead_letters"].items())
    else:
        typer.echo("Dead letters: none")
    members = [(member["id"], ", ".join(member["roles"]), member.get("http") or "") for member in shown["instances"]]
    console.print_table("Instances", ("instance", "roles", "HTTP"), members)
