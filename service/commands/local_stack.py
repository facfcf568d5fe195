"""A local Kafka and Redis in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands import console
from service.commands.console import Json

Brokers = Annotated[int, typer.Option(help="How many Kafka brokers: 1 or 3.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    application.command()(up)
    application.command()(down)


def up(brokers: Brokers = 1, json: Json = False) -> None:
    """Start a local Kafka and Redis in the background, with the topics; the current folder uses them from now on."""
    if brokers not in (1, 3):
        raise typer.BadParameter("there are stacks of 1 broker and of 3.", param_hint="--brokers")
    from service.local import stack
    from service.transport import topics

    def report(text: str) -> None:
        typer.echo(text, err=True)

    addresses = stack.up(Path.cwd(), brokers=brokers, report=report)
    settings = console.settings()
    if brokers > 1:
        settings = settings.model_copy(update={"topic_replication_factor": brokers})
    creations = console.run(topics.create(settings))
    if json:
        console.print_json(
            {
                "kafka_bootstrap_servers": addresses.kafka_bootstrap_servers,
                "redis_url": addresses.redis_url,
                "notes": list(addresses.notes),
                "topics": [creation.topic for creation in creations],
            }
        )
        return
    for note in addresses.notes:
        typer.echo(note)
    typer.echo(f"Kafka is at {addresses.kafka_bootstrap_servers}, Redis at {settings.redis_location}.")
    typer.echo(f"{len(creations)} topics begin with {settings.topic_prefix}. Next: `apportion serve`.")


def down(json: Json = False) -> None:
    """Stop what `up` has started for the current folder; the data stays."""
    from service.local import stack

    stopped = stack.down(Path.cwd())
    if json:
        console.print_json({"stopped": stopped})
    else:
        typer.echo(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")
