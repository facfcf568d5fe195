"""From Kafka to Kafka: the service as it runs, beside passing messages on and beside a textbook handler.

Good for: the throughput and latency of the whole, and, by the ratio to passing messages on, how much of what Python can
do at all is left; machines differ, the ratio differs less.

Not good for: capacity planning. Kafka, Redis, the service, and in part whoever sends the events share the cores of this
one machine; nothing goes over a network. And the fleet is kind: nobody reaches a quota.
"""

from __future__ import annotations

import itertools
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis

from bench import instances, report
from bench.fleet import Event, Fleet
from bench.instances import Place, Processors
from service.local.kafka import MockKafka
from service.local.stack import Stack
from service.transport import topics

ALL_ROLES = "consume,relay,sweep"
TEXTBOOK_EVENTS = 2000
LATENCY_SECONDS = 12
WARM_UP_SECONDS = 3
HALF = 0.5
MIXED_TOPICS = ("workload-events", "plan-changes")


class Shape(NamedTuple):
    """How many of what; the events of a round are four for each workload."""

    customers: int = 500
    workloads: int = 40
    partners: int = 8


def run(*, shape: Shape, rounds: int, roles: Sequence[str], quick: bool) -> report.Report:
    """All three in every round, and the latency at half load."""
    made = report.Report(
        "pipeline", {**shape._asdict(), "rounds": rounds, "roles": list(roles), "shards": instances.SHARDS}
    )
    measured: list[dict[str, float]] = []
    latencies: list[dict[str, float]] = []
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        if isinstance(stack.kafka, MockKafka):
            made.notes.append("Kafka is the small broker inside librdkafka: the figures say nothing of a real one.")
        for number in range(rounds):
            round_ = Round(stack, Path(folder), shape, number)
            report.progress.log(f"round {number + 1} of {rounds}")
            figures, latency = round_.measure(roles, LATENCY_SECONDS // (2 if quick else 1))
            measured.append(figures)
            latencies.append(latency)
            round_.close()
    _conclude(made, measured, latencies)
    return made


def _conclude(made: report.Report, measured: Sequence[dict[str, float]], latencies: Sequence[dict[str, float]]) -> None:
    figures = report.medians(measured)
    made.tables["messages per second"] = [
        {"what": "passing messages on", "per_second": round(figures["passed"]), "cores": figures["passed_cpu"]},
        {
            "what": "the service, events",
            "per_second": round(figures["service"]),
            "cores": figures["service_cpu"],
            "announcements_per_second": round(figures["announced"]),
            "cores_of_redis": figures["redis_cpu"],
            "cores_of_kafka": figures["kafka_cpu"],
        },
        {"what": "textbook handler", "per_second": round(figures["textbook"])},
    ]
    made.tables["from an event to its announcement, at half of that load"] = [
        {name: round(value, 1) for name, value in report.medians(latencies).items()}
    ]
    made.tables["rounds"] = [
        {name: round(value, 2) for name, value in {**each, "p50_ms": late["p50_ms"], "p99_ms": late["p99_ms"]}.items()}
        for each, late in zip(measured, latencies, strict=True)
    ]
    of_ceiling = report.median_ratio(measured, "service", "passed")
    of_textbook = report.median_ratio(measured, "service", "textbook")
    made.ratios = {"service / passing messages on": of_ceiling, "service / textbook handler": of_textbook}
    made.targets = {
        "service / passing messages on": report.Target(of_ceiling, at_least=0.5),
        "service / textbook handler": report.Target(of_textbook, at_least=30),
        "p99 at half load, milliseconds": report.Target(report.medians(latencies)["p99_ms"], at_most=100),
    }


class Round:
    """Topics of its own, an empty ledger, and a fleet that is there: its tenants and plans are decided."""

    def __init__(self, stack: Stack, folder: Path, shape: Shape, number: int) -> None:
        addresses = stack.addresses
        prefix = f"bench{uuid.uuid4().hex[:8]}."
        self._stack = stack
        self._folder = folder
        self.fleet = Fleet(**shape._asdict(), seed=number, prefix=prefix)
        with redis.Redis.from_url(addresses.redis_url) as client:
            client.flushall()
        self.place = Place(addresses.kafka_bootstrap_servers, addresses.redis_url, prefix, folder)
        self.place.command("topics", "create")
        with self.place.serving(ALL_ROLES):
            for events in (self.fleet.tenants(), self.fleet.plans()):
                self.place.publish(events)
                self._settle()

    def close(self) -> None:
        """Let go of Redis."""
        self.place.close()

    def _settle(self) -> None:
        self.place.command("status", "--wait-idle", "300", seconds=330)

    def measure(self, roles: Sequence[str], seconds: int) -> tuple[dict[str, float], dict[str, float]]:
        """Everything once."""
        before = self.place.sample().decided
        backlog = self.place.publish(self.fleet.life())
        passed = self._pass_on(backlog)
        textbook = self._textbook()
        with self.place.serving(*roles) as processes:
            figures = self._catch_up(before + backlog, {f"service {n}": p.pid for n, p in enumerate(processes)})
            rate = figures["service"] * HALF
            some = list(itertools.islice(self.fleet.unrest(), int(rate * seconds)))
            latency = self._at_rate(some, rate)
        return {**figures, **passed, "textbook": textbook}, latency

    def _catch_up(self, count: int, pids: dict[str, int]) -> dict[str, float]:
        """The rate at which the service works off what has piled up."""
        published = self.place.published(topics.OUTBOUND)
        redis_pid, kafka_pid = self._stack.redis_server.pid, self._stack.broker().pid
        watched = Processors({**pids, "redis": redis_pid or 0, "kafka": kafka_pid or 0})
        samples = self.place.await_decided(count)
        shares = watched.shares()
        seconds = samples[-1].seconds - next(s.seconds for s in samples if s.decided > samples[0].decided)
        return {
            "service": instances.rate(samples, count),
            "announced": (self.place.published(topics.OUTBOUND) - published) / seconds,
            "service_cpu": sum(shares[name] for name in pids),
            "redis_cpu": shares["redis"],
            "kafka_cpu": shares["kafka"],
        }

    def _pass_on(self, count: int) -> dict[str, float]:
        found = instances.answer_of("passthrough", self._question(count, "assignments"))
        return {"passed": found["messages_per_second"], "passed_cpu": round(found["cpu"], 2)}

    def _textbook(self) -> float:
        found = instances.answer_of("textbook", self._question(TEXTBOOK_EVENTS, "reservations"))
        return float(found["messages_per_second"])

    def _question(self, count: int, to: str) -> dict[str, Any]:
        return {
            "kafka": self.place.kafka,
            "redis": self.place.redis_url,
            "topics": [self.place.prefix + topic for topic in MIXED_TOPICS],
            "to": self.place.prefix + to,
            "count": count,
            "group": f"bench-{uuid.uuid4().hex[:8]}",
        }

    def _at_rate(self, events: Sequence[Event], rate: float) -> dict[str, float]:
        file = self._folder / "events"
        file.write_bytes(msgspec.msgpack.encode(events))
        question = {
            "kafka": self.place.kafka,
            "topic": self.place.prefix + "assignments",
            "events": str(file),
            "rate": rate,
            "warm_up_seconds": WARM_UP_SECONDS,
        }
        return {name: float(value) for name, value in instances.answer_of("load", question).items()}
