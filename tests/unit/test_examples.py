"""The events in examples/: what any client may publish, and the outcome that their page promises."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from schemas import envelope, table
from service.handlers import verification
from service.handlers.announcements import Origin
from service.handlers.work import Arrival
from tests.unit.handlers.world import CATALOG, MANAGEMENT, SECURITY, WORKSTATIONS, World

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.ndjson"))
HEADERS = (("content-type", b"application/cloudevents+json"),)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def topic_of(file: Path) -> str:
    return file.stem.split("-", 1)[1]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_line_is_an_event_for_the_topic_in_the_files_name(file: Path) -> None:
    now_us = time.time_ns() // 1000
    for line in file.read_bytes().splitlines():
        tenant = json.loads(line)["tenantid"]
        event = envelope.parse(line, HEADERS, tenant.encode(), topic=topic_of(file), now_us=now_us)
        assert table.INBOUND[event.type].topic == topic_of(file)
        assert event.time_us < now_us, "an example is never ahead of its time"


def test_ids_are_unique_and_times_rise() -> None:
    events = [event for file in FILES for event in lines(file)]
    assert max(Counter(event["id"] for event in events).values()) == 1
    for _, same in itertools.groupby(sorted(events, key=lambda e: e["tenantid"]), key=lambda e: e["tenantid"]):
        times = [event["time"] for event in same]
        assert len(set(times)) == len(times)


async def load(world: World, *, at_once: bool) -> None:
    """Let the world handle every file, one after the other or all in one batch."""
    offsets = itertools.count()
    arrivals = []
    for file in FILES:
        topic = topic_of(file)
        for line in file.read_bytes().splitlines():
            key = json.loads(line)["tenantid"].encode()
            event = envelope.parse(line, HEADERS, key, topic=topic, now_us=world.now_ms * 1000)
            arrivals.append(Arrival(event, Origin(f"apportion.{topic}", 0, next(offsets), key, HEADERS, line)))
        if not at_once:
            await world.handle(*arrivals)
            arrivals.clear()
    if arrivals:
        await world.handle(*arrivals)


async def test_they_show_what_their_page_says() -> None:
    world = World()
    await load(world, at_once=False)
    denied = await world.announced("assignment.denied")
    why = {event["subject"]: [(d["code"], d.get("tenant_id")) for d in event["data"]["denials"]] for event in denied}
    assert why == {
        "bakery-pc-3": [("quota_exceeded", "birch-bakery"), ("quota_exceeded", "birch-msp")],
        "books-pc-2": [("quota_exceeded", "birch-msp")],
        "books-pc-3": [("quota_exceeded", "birch-msp")],
        "dental-nas": [("offering_item_not_enabled", None)],
        "dental-pc-4": [("offering_item_not_enabled", None)],
    }
    bakery, books = await world.holding("birch-bakery"), await world.holding("birch-books")
    assert bakery["bakery-pc-1"] == {}
    assert bakery["bakery-pc-3"] == {WORKSTATIONS: 1, SECURITY: 1}
    assert books["books-pc-2"] == {WORKSTATIONS: 1}
    assert "books-pc-3" not in books
    first = {}
    for event in await world.announced("assignment.changed", "cedar-law"):
        first.setdefault(event["subject"], event["data"]["holding"])
    assert first == {f"law-pc-{number}": {"p_adv_workstations": 1} for number in range(1, 9)}
    assert (await world.holding("cedar-dental"))["dental-pc-1"] == {WORKSTATIONS: 1, MANAGEMENT: 1}
    changed = {e["subject"]: e["data"]["uncovered_features"] for e in await world.announced("assignment.changed")}
    uncovered = {workload: features for workload, features in changed.items() if features}
    assert uncovered == {"dental-pc-4": ["dlp.data_loss_prevention"], "dental-nas": ["backup.files"]}
    assert [e["data"]["code"] for e in await world.announced("message.rejected")] == ["unknown_offering_item"]
    assert (await verification.verify(world.ledger, CATALOG)).violations == []


async def test_the_switches_give_the_two_tables_of_the_domain_and_a_refusal() -> None:
    """Docs/domain.md 7.1."""
    world = World()
    await load(world, at_once=False)
    tables = {}
    for event in await world.announced("switch.completed"):
        rows = event["data"]["items"]
        tables[event["tenantid"]] = {
            row["offering_item"]: (row["used"], row["quota"]["value"]) for row in rows if row["side"] == "destination"
        }
    backup = "pw_pack_adv_backup_workstations"
    assert tables == {
        "cedar-law": {WORKSTATIONS: (8, 10), MANAGEMENT: (3, 10), SECURITY: (2, 10), backup: (1, 10)},
        "cedar-clinic": {WORKSTATIONS: (14, 42), MANAGEMENT: (13, 42), SECURITY: (13, 42), backup: (2, 42)},
    }
    (started,) = await world.said("switch.started", "cedar-clinic")
    assert {row["offering_item"]: (row["used"], row["quota"]["value"]) for row in started["items"]} == {
        "pw_p_ess_workstations": (6, 12),
        "pw_p_workstations": (5, 10),
        "pw_p_adv_workstations": (2, 10),
        "pw_workstations": (1, 10),
    } | dict.fromkeys(tables["cedar-clinic"], (0, None))
    (rejected,) = await world.announced("switch.rejected")
    assert rejected["tenantid"] == "birch-books"
    assert {denial["context"]["code"] for denial in rejected["data"]["denials"]} == {"1021"}


async def test_loaded_at_once_they_come_to_the_same_numbers() -> None:
    apart, together = World(), World()
    await load(apart, at_once=False)
    await load(together, at_once=True)
    for tenant in ("northern", "cedar-msp", "birch-msp", "cedar-law", "cedar-clinic", "cedar-dental"):
        for item in CATALOG.items:
            assert await together.used(tenant, item) == await apart.used(tenant, item), (tenant, item)
