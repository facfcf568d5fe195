"""The main job from its beginning to its end, on real servers, in front of a person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from service.commands import console, inquiries

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
READY_SECONDS_MAX = 60.0
IDLE_SECONDS_MAX = 60
ROWS_MAX = 40  # of a table on the screen


def register(application: typer.Typer) -> None:
    """Add the command."""
    application.command()(demo)


def demo() -> None:
    """Start a local Kafka and Redis, load the examples, show what is decided and why, and end."""
    from service.local.stack import Stack

    files = sorted(EXAMPLES.glob("*.ndjson"))
    if not files:
        raise console.CommandError(f"There are no examples in {EXAMPLES}; run the demo from a checkout.")
    began = time.monotonic()
    _say("Starting Kafka and Redis on free ports (the first time, Kafka is fetched)")
    with Stack() as stack:
        for note in stack.addresses.notes:
            typer.echo(note)
        _run(stack.addresses.environment, files)
    _say(f"Everything is stopped again; that took {time.monotonic() - began:.0f} seconds")
    typer.echo(
        "Stay on with `.venv/bin/apportion up` and then `.venv/bin/apportion serve`; README.md shows what to send."
    )


def _run(environment: Mapping[str, str], files: Sequence[Path]) -> None:
    """Everything between the start of the servers and their end."""
    os.environ.update(environment)
    os.environ["APPORTION_HTTP_PORT"] = "0"
    _apportion("topics", "create")
    service = _serve()
    try:
        count = 0
        status: dict[str, Any] = {}
        for file in files:
            published = console.run(_publish(file.stem.split("-", 1)[1], file.read_bytes().splitlines()))
            _say(f"Published {published} events of {file.name}; waiting until they are decided and announced")
            status = json.loads(_apportion("status", "--wait-idle", str(IDLE_SECONDS_MAX), "--json"))
            count += published
        events = console.run(_announced())
        _show(events)
        _usage("cedar-dental")
        _usage("birch-msp")
        _say("Does every counter agree with what is behind it? (apportion ledger verify)")
        typer.echo(_apportion("ledger", "verify").strip())
        _summarise(count, events, status)
    finally:
        service.terminate()
        code = service.wait(20)
    if code:
        raise console.CommandError(f"The service ended with exit code {code}.")


def _say(text: str) -> None:
    typer.echo(f"\n── {text}")


def _apportion(*arguments: str) -> str:
    """Another command of ours, as a person would call it; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise console.CommandError(f"apportion {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _serve() -> subprocess.Popen[str]:
    """A running instance that has said that it is ready."""
    _say("Starting the service (apportion serve)")
    command = [sys.executable, "-m", "service.cli", "serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()  # it prints nothing before it is ready, and ends where it cannot become so
    if not line:
        raise console.CommandError(f"The service did not start: exit code {process.wait(READY_SECONDS_MAX)}.")
    typer.echo(line.strip())
    return process


async def _publish(topic: str, lines: Sequence[bytes]) -> int:
    """Send events to a topic, keyed by their tenant, as any client would; answers how many."""
    from aiokafka import AIOKafkaProducer

    from service.transport import connection

    settings = console.settings()
    async with AIOKafkaProducer(**connection.client_options(settings), enable_idempotence=True) as producer:
        for line in lines:
            headers = [("content-type", b"application/cloudevents+json")]
            await producer.send(
                settings.topic_prefix + topic, line, key=json.loads(line)["tenantid"].encode(), headers=headers
            )
    return len(lines)


async def _announced() -> list[dict[str, Any]]:
    """Everything on the outbound topics, tenant by tenant in order."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from schemas import table
    from service.transport import connection

    settings = console.settings()
    events: list[dict[str, Any]] = []
    async with AIOKafkaConsumer(**connection.client_options(settings), auto_offset_reset="earliest") as consumer:
        partitions = [
            TopicPartition(settings.topic_prefix + topic, number)
            for topic in table.OUTBOUND_TOPICS
            for number in range(settings.topic_partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for found in (await consumer.getmany(timeout_ms=200)).values():
                events.extend(json.loads(record.value) for record in found)
    return sorted(events, key=lambda event: (event.get("tenantid", ""), event.get("revision", 0)))


def _show(events: Sequence[Mapping[str, Any]]) -> None:
    holding = {
        (event["tenantid"], event["data"]["workload_id"]): event["data"] for event in _of(events, "assignment.changed")
    }
    _say("What was assigned (topic assignments)")
    rows = [
        (tenant, name, data["workload_type"], ", ".join(data["holding"])) for (tenant, name), data in holding.items()
    ]
    console.print_table("", ("tenant", "workload", "type", "holds"), rows[:ROWS_MAX])
    _say("What was refused, and why (topics assignments and reservations)")
    refused = [*_of(events, "assignment.denied"), *_of(events, "reservation.denied")]
    console.print_table("", ("tenant", "for", "because"), [_refusal(event) for event in refused])
    _say("What billing sees: the latest numbers of each tenant and item (topic usage)")
    latest = {
        (event["tenantid"], event["data"]["offering_item"]): event["data"] for event in _of(events, "usage.changed")
    }
    usage = [
        (tenant, item, inquiries.quantity(data["used"], data["unit"]), data["reserved"], data["pricing_mode"])
        for (tenant, item), data in latest.items()
    ]
    console.print_table("", ("tenant", "offering item", "used#", "reserved#", "pricing"), usage[:ROWS_MAX])
    letters = [(event["data"]["code"], event["data"]["message"]) for event in _of(events, "message.rejected")]
    _say("What could not be handled at all (topic dead-letters)")
    console.print_table("", ("code", "message"), letters)


def _of(events: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["type"] == f"apportion.{name}.v1"]


def _refusal(event: Mapping[str, Any]) -> tuple[str, str, str]:
    return event["tenantid"], event["subject"], "; ".join(denial["message"] for denial in event["data"]["denials"])


def _usage(tenant: str) -> None:
    _say(f"apportion usage {tenant}")
    typer.echo(_apportion("usage", tenant).rstrip())


def _summarise(count: int, events: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> None:
    kinds = Counter(str(event["type"]).removeprefix("apportion.").removesuffix(".v1") for event in events)
    _say(f"Summary: {count} events in, {len(events)} announcements out, {status['delayed']} unfinished")
    typer.echo(", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
