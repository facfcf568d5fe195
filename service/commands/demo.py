"""The main job from its beginning to its end, on real servers, in front of a person."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from service.commands import console, inquiries
from service.rules.tenants import ROOT
from service.settings import PREFIX

if TYPE_CHECKING:
    from service.transport.status import Status

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
READY_SECONDS_MAX = 60.0
LOG_TAIL_LENGTH = 2000  # characters that are shown of the log of a service that failed
IDLE_SECONDS_MAX = 60
HEADERS = (("content-type", b"application/cloudevents+json"),)
ROWS_MAX = 40  # of a table on the screen
SWITCH_TASKS = "switch-tasks"


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is stopped
    _say("Starting Kafka and Redis on free ports (the first time, Kafka is fetched)")
    with Stack() as stack:
        for note in stack.addresses.notes:
            typer.echo(note)
        _set_environment(stack.addresses.environment)
        _run(files, stack.folder / "serve.log")
    _say(f"Everything is stopped again; that took {time.monotonic() - began:.0f} seconds")
    typer.echo(
        "Stay on with `.venv/bin/apportion up` and then `.venv/bin/apportion serve`; README.md shows what to send."
    )


def _set_environment(servers: Mapping[str, str]) -> None:
    """Lead every command to these servers, whatever else is set where the demo is run."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ.update(servers)
    os.environ[f"{PREFIX}HTTP_PORT"] = "0"


def _run(files: Sequence[Path], log: Path) -> None:
    """Everything between the start of the servers and their end."""
    _apportion("topics", "create")
    service = _serve(log)
    began = time.monotonic()
    try:
        tasks = [file for file in files if _topic(file) == SWITCH_TASKS]
        count, status = console.run(_load([file for file in files if file not in tasks]))
        seconds = time.monotonic() - began
        events = console.run(_announced())
        _say("Who there is now (apportion tenants tree)")
        typer.echo(_apportion("tenants", "tree").rstrip())
        _show(events)
        _usage("cedar-dental")
        _usage("birch-msp")
        began = time.monotonic()
        switched, status = _switch(tasks)
        seconds += time.monotonic() - began
        events = console.run(_announced())
        _show_switches(events)
        _say("Does every counter agree with what is behind it? (apportion ledger verify)")
        typer.echo(_apportion("ledger", "verify").strip())
        _summarise(count + switched, events, status, seconds)
    finally:
        service.terminate()
        code = service.wait(20)
    if code:
        raise console.CommandError(f"The service ended with exit code {code}: {_tail(log)}")


def _say(text: str) -> None:
    typer.secho(f"\n── {text}", bold=True)


def _tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_LENGTH:].strip()


def _apportion(*arguments: str) -> str:
    """Another command of ours, as a person would call it; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise console.CommandError(f"apportion {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _serve(log: Path) -> subprocess.Popen[str]:
    """A running instance that has said that it is ready."""
    _say("Starting the service (apportion serve)")
    command = [sys.executable, "-m", "service.cli", "serve"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()  # it prints nothing before it is ready, and ends where it cannot become so
    if not line:
        code = process.wait(READY_SECONDS_MAX)
        raise console.CommandError(f"The service did not start, exit code {code}: {_tail(log)}")
    typer.echo(line.strip())
    return process


async def _load(files: Sequence[Path]) -> tuple[int, Status]:
    """Publish one file after the other, each when all before it is decided; how many events, and how all stands then.

    An event is sent with its tenant as key, as any client would. Raises ``CommandError`` where the service does not
    come to an end with them.
    """
    from aiokafka import AIOKafkaProducer

    from service import core
    from service.transport import connection, status

    settings = console.settings()
    count = 0
    async with (
        AIOKafkaProducer(**connection.client_options(settings), enable_idempotence=True) as producer,
        core.open_core(settings) as opened,
        status.observatory(settings, opened.ledger, opened.board) as observatory,
    ):
        for file in files:
            topic = settings.topic_prefix + _topic(file)
            lines = file.read_bytes().splitlines()
            for line in lines:
                await producer.send(topic, line, key=json.loads(line)["tenantid"].encode(), headers=list(HEADERS))
            await producer.flush()
            _say(f"Published {len(lines)} events of {file.name}; waiting until all of it is decided and announced")
            seen = await observatory.wait_idle(IDLE_SECONDS_MAX)
            if not seen.idle:
                raise console.CommandError(f"Not everything was decided and announced in {IDLE_SECONDS_MAX} seconds.")
            count += len(lines)
    return count, seen


def _topic(file: Path) -> str:
    """The topic of a file of examples, without prefix."""
    return file.stem.split("-", 1)[1]


def _switch(files: Sequence[Path]) -> tuple[int, Status]:
    """Show what each switch would do, then let all of them happen; how many there are, and how all stands then."""
    for file in files:
        for line in file.read_text().splitlines():
            task = json.loads(line)
            tenant, target = task["tenantid"], task["data"]["target_edition"]
            _say(f"What a switch of {tenant} would do (apportion switch preview {tenant} --to {target})")
            typer.echo(_apportion("switch", "preview", tenant, "--to", target).rstrip())
    return console.run(_load(files))


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
        (tenant, name, data["workload_type"], ", ".join(data["holding"]) or "nothing")
        for (tenant, name), data in holding.items()
    ]
    console.print_table("", ("tenant", "workload", "type", "holds"), rows[:ROWS_MAX])
    _say("What was refused, and why (topics assignments and reservations)")
    refused = [*_of(events, "assignment.denied"), *_of(events, "reservation.denied")]
    rows = [(*_refusal(event), _what_became_of(event, events)) for event in refused]
    console.print_table("", ("tenant", "for", "because", "now"), rows)
    _show_notices(events)
    _show_bills(events)
    letters = [(event["data"]["code"], event["data"]["message"]) for event in _of(events, "message.rejected")]
    _say("What could not be handled at all (topic dead-letters)")
    console.print_table("", ("code", "message"), letters)


def _show_notices(events: Sequence[Mapping[str, Any]]) -> None:
    from service import catalog

    _say("Whose quotas run out (topic quota-alerts)")
    known = catalog.load()
    rows = []
    for event in events:
        topic, _, kind = event["type"].removeprefix("apportion.").removesuffix(".v1").partition(".")
        if topic == "quota":
            data, unit = event["data"], known.item(event["data"]["offering_item"]).unit
            used, quota = inquiries.quantity(data["used"], unit), inquiries.quota_text(data["quota"], unit)
            rows.append((event["tenantid"], data["offering_item"], kind.replace("_", " "), used, quota))
    console.print_table("", ("tenant", "offering item", "notice", "used#", "quota#"), rows[:ROWS_MAX])


def _show_bills(events: Sequence[Mapping[str, Any]]) -> None:
    """The topic of billing, direct partners first: only they are billed, for what is used and not just reserved."""
    history: dict[tuple[bool, str, str], list[Mapping[str, Any]]] = {}
    billed = {event["tenantid"] for event in _of(events, "tenant.changed") if event["data"]["parent_id"] == ROOT}
    for event in _of(events, "usage.changed"):
        key = (event["tenantid"] not in billed, event["tenantid"], event["data"]["offering_item"])
        history.setdefault(key, []).append(event["data"])
    _say("How the topic of billing filled: how much each tenant used, and what a bill would count (topic usage)")
    rows = []
    for (_, tenant, item), numbers in sorted(history.items()):
        last, unit = numbers[-1], numbers[-1]["unit"]
        used = " → ".join(inquiries.quantity(each["used"], unit) for each in numbers)
        rows.append(
            (tenant, item, used, inquiries.quantity(last["used"] - last["reserved"], unit), last["pricing_mode"])
        )
    console.print_table("", ("tenant", "offering item", "used", "bill#", "pricing"), rows[:ROWS_MAX])


def _show_switches(events: Sequence[Mapping[str, Any]]) -> None:
    """How the switches ended: the items of both sides at the start and at the end."""
    _say("What became of the switches (topic switches)")
    for event in _of(events, "switch.completed"):
        started = {
            (row["side"], row["offering_item"]): row
            for other in _of(events, "switch.started")
            if other["subject"] == event["subject"]
            for row in other["data"]["items"]
        }
        data = event["data"]
        rows = []
        for row in data["items"]:
            before, is_source = started[row["side"], row["offering_item"]], row["side"] == "source"
            used, quota = (row["used"], "off") if is_source else (row["used"], inquiries.quota_text(row["quota"], ""))
            was = inquiries.quota_text(before["quota"], "") if is_source else "off"
            rows.append((row["side"], row["offering_item"], f"{before['used']} / {was}", f"{used} / {quota}"))
        title = (
            f"{event['tenantid']}: {data['from_edition']} → {data['to_edition']}, {data['workloads']['moved']} moved"
        )
        console.print_table(title, ("side", "offering item", "used / quota before", "used / quota after"), rows)
    for event in _of(events, "switch.rejected"):
        why = "; ".join(denial["message"] for denial in event["data"]["denials"])
        typer.echo(f"{event['tenantid']} is refused, and nothing of it changes: {why}.")


def _of(events: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["type"] == f"apportion.{name}.v1"]


def _refusal(event: Mapping[str, Any]) -> tuple[str, str, str]:
    return event["tenantid"], event["subject"], "\n".join(denial["message"] for denial in event["data"]["denials"])


def _what_became_of(refused: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """Whether a refused workload has got something since then, or waits still; a reservation has its answer."""
    if "workload_id" not in refused["data"]:
        return "answered"
    later = [
        event
        for event in _of(events, "assignment.changed")
        if (event["tenantid"], event["subject"]) == (refused["tenantid"], refused["subject"])
        and event["revision"] > refused["revision"]
    ]
    return "granted" if any(event["data"]["assigned"] for event in later) else "waits"


def _usage(tenant: str) -> None:
    _say(f"apportion usage {tenant}")
    typer.echo(_apportion("usage", tenant).rstrip())


def _summarise(count: int, events: Sequence[Mapping[str, Any]], status: Status, seconds: float) -> None:
    kinds = Counter(str(event["type"]).removeprefix("apportion.").removesuffix(".v1") for event in events)
    decisions = sum(kinds[kind] for kind in ("assignment.changed", "assignment.denied"))
    _say(
        f"Summary: {count} events in, {decisions} decisions on workloads, {len(events)} announcements out, "
        f"{status.delayed} unfinished, in {seconds:.0f} seconds"
    )
    typer.echo(", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
