"""Whether a tenant that sends very much holds up the others: their latency beside a flood, and without it.

Good for: how much longer others wait while one tenant's events pile up, whether they share nothing with it, or its
direct partner and so its shard. Every round measures both without the flood first.

Not good for: tenants whose events lie in the same partition as the flood. Those stand behind it in Kafka itself, and
wait until it is worked off; the report says how long that is. How many they are depends on the number of partitions.
"""

from __future__ import annotations

import itertools
import tempfile
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import redis

from bench import instances, report
from bench.fleet import Event, Fleet, Workload
from bench.instances import Place
from bench.pipeline import ALL_ROLES
from service.local.stack import Stack

PARTITIONS = 12
WARM_UP_SECONDS = 2
EVENTS_PER_WORKLOAD = 4
RATIO_MAX = 2.0
ELSEWHERE, BESIDE = "nothing in common", "the same direct partner"


class Shape(NamedTuple):
    """How many customers there are, how many events one of them sends at once, and what the others send meanwhile."""

    customers: int = 400
    partners: int = 8
    flood: int = 200_000
    per_second: int = 200
    seconds: int = 12


def run(*, shape: Shape, rounds: int) -> report.Report:
    """Without the flood and beside it, in every round."""
    made = report.Report("fairness", {**shape._asdict(), "rounds": rounds, "partitions": PARTITIONS})
    measured: list[dict[str, float]] = []
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        for number in range(rounds):
            report.progress.log(f"round {number + 1} of {rounds}")
            addresses = stack.addresses
            round_ = Round(addresses.kafka_bootstrap_servers, addresses.redis_url, Path(folder), shape, number)
            measured.append(round_.measure())
            round_.close()
    _conclude(made, measured, shape)
    return made


def _conclude(made: report.Report, measured: Sequence[dict[str, float]], shape: Shape) -> None:
    figures = report.medians(measured)
    made.tables["from an event to its announcement, in milliseconds"] = [
        {
            "who shares with the flood": who,
            **{f"{name}_{when}": round(figures[f"{who} {name} {when}"], 1) for when in WHEN for name in ("p50", "p99")},
        }
        for who in (ELSEWHERE, BESIDE)
    ]
    made.tables["the flood"] = [
        {
            "events": shape.flood,
            "decided_per_second": round(figures["flood"]),
            "seconds": shape.flood / figures["flood"],
        }
    ]
    made.tables["rounds"] = [{name: round(value, 1) for name, value in each.items()} for each in measured]
    for who in (ELSEWHERE, BESIDE):
        ratio = report.median_ratio(measured, f"{who} p99 beside", f"{who} p99 without")
        made.ratios[f"p99 beside the flood / without it, {who}"] = ratio
        made.targets[f"p99 beside the flood / without it, {who}"] = report.Target(ratio, at_most=RATIO_MAX)
    made.notes.append(
        f"One tenant of {PARTITIONS} has its events in the partitions of the flood, and waits for up to "
        f"{shape.flood / figures['flood']:.0f} seconds behind it."
    )


WHEN = ("without", "beside")


class Round:
    """Topics of its own, an empty ledger, tenants that are there, and one of them that will send very much."""

    def __init__(self, kafka: str, redis_url: str, folder: Path, shape: Shape, number: int) -> None:
        self._shape = shape
        self._folder = folder
        prefix = f"bench{uuid.uuid4().hex[:8]}."
        self._fleet = Fleet(
            customers=shape.customers,
            workloads=1,
            partners=shape.partners,
            msps=shape.partners,
            seed=number,
            prefix=prefix,
        )
        self._flooding = self._fleet.customers[0]
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        self.place = Place(kafka, redis_url, prefix, folder, APPORTION_TOPIC_PARTITIONS=str(PARTITIONS))
        self.place.command("topics", "create")

    def close(self) -> None:
        """Let go of Redis."""
        self.place.close()

    def measure(self) -> dict[str, float]:
        """Everything once; quantiles in milliseconds, and how many events of the flood are decided in a second."""
        figures: dict[str, float] = {}
        with self.place.serving(ALL_ROLES):
            for events in (self._fleet.tenants(), self._fleet.plans()):
                self.place.publish(events)
                self.place.command("status", "--wait-idle", "300", seconds=330)
            self._listen(figures, "without")
        self._fleet.workloads = self._of([self._flooding], self._shape.flood)
        self.place.publish(self._fleet.life())  # nobody works it off yet
        with self.place.serving(ALL_ROLES):
            before = self.place.sample()
            self._listen(figures, "beside")
            after = self.place.sample()
        figures["flood"] = (after.decided - before.decided) / (after.seconds - before.seconds)
        return figures

    def _listen(self, figures: dict[str, float], when: str) -> None:
        """The latency of both kinds of others."""
        count = self._shape.per_second * (self._shape.seconds + WARM_UP_SECONDS)
        for who, tenants in ((ELSEWHERE, self._others(shared=False)), (BESIDE, self._others(shared=True))):
            self._fleet.workloads = self._of(tenants, 2 * count)
            found = self._latency(list(itertools.islice(self._fleet.life(), count)))
            figures |= {f"{who} {name} {when}": found[f"{name}_ms"] for name in ("p50", "p99")}

    def _of(self, tenants: Sequence[str], events: int) -> list[Workload]:
        """New workloads of tenants, whose lives are so many events."""
        return [
            Workload(tenants[number % len(tenants)], str(uuid.uuid4()), "workstation")
            for number in range(events // EVENTS_PER_WORKLOAD)
        ]

    def _others(self, *, shared: bool) -> list[str]:
        """Customers that share the direct partner with the flood, or do not; none that shares its partition."""
        return [
            tenant
            for number, tenant in enumerate(self._fleet.customers)
            if (number % self._shape.partners == 0) == shared and _partition(tenant) != _partition(self._flooding)
        ]

    def _latency(self, events: Sequence[Event]) -> dict[str, float]:
        file = self._folder / "events"
        file.write_bytes(msgspec.msgpack.encode(events))
        question = {
            "kafka": self.place.kafka,
            "topic": self.place.prefix + "assignments",
            "events": str(file),
            "rate": self._shape.per_second,
            "warm_up_seconds": WARM_UP_SECONDS,
        }
        return {name: float(value) for name, value in instances.answer_of("load", question).items()}


def _partition(tenant: str) -> int:
    """Where the producers of the benchmarks, which are made with librdkafka, put a tenant's events."""
    return zlib.crc32(tenant.encode()) % PARTITIONS
