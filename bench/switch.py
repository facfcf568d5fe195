"""Switching: many small customers at once, or one large one, while others' events go on.

Good for: customers per second through the task topic, what asking again for what is done costs, how long a customer
with very many workloads takes, and what either does to the latency of events of tenants that are not switched.

Not good for: capacity planning. Kafka, Redis, the service and whoever sends the events share the cores of this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import redis

from bench import instances, report
from bench.fleet import SOURCE, TARGET, EditionFleet, Event, Workload
from bench.instances import Place
from bench.pipeline import ALL_ROLES
from service import catalog, records
from service.catalog.model import WHOLE_ROLES
from service.ledger import keys
from service.ledger.client import Client
from service.ledger.redis_ledger import RedisLedger
from service.ledger.transaction import STEPS_PER_OFFSET
from service.local.server import LocalServerError
from service.local.stack import Stack

SHARDS = instances.SHARDS
POLL_SECONDS = 0.05
WARM_UP_SECONDS = 2
LISTEN_SECONDS = 10
LISTENED_SECONDS_MAX = 120  # so many events are written
END_SECONDS_MAX = 300
EVENTS_PER_WORKLOAD = 4
OTHERS = 200  # customers who are not switched, and whose latency is measured
SMALL_TARGET_PER_SECOND = 4000
LARGE_TARGET_SECONDS = 10
RATIO_MAX = 2.0


Answer = TypeVar("Answer")


class Shape(NamedTuple):
    """``customers`` are switched, with so many workloads each; others' events come at ``per_second`` meanwhile."""

    customers: int = 20_000
    workloads: int = 5
    per_second: int = 200
    partners: int = 8


def run(*, shape: Shape, large: bool) -> report.Report:
    """All of it once: it begins with so many events that a second round would cost more than it says."""
    made = report.Report("switch", {**shape._asdict(), "others": OTHERS, "shards": SHARDS, "to": TARGET})
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        addresses = stack.addresses
        round_ = Round(addresses.kafka_bootstrap_servers, addresses.redis_url, Path(folder), shape)
        try:
            (round_.measure_large if large else round_.measure_small)(made)
        finally:
            round_.close()
    return made


class Samples:
    """Looks at the large customer while it is switched: what is used of both sides' edition and base items."""

    def __init__(self, place: Place, tenant: str, protected: int, switch_id: str) -> None:
        self._place = place
        self._tenant = tenant
        self._protected = protected
        self._switch = records.switch_key(tenant, switch_id)
        self._runner = asyncio.Runner()
        self._client = Client.connect(place.redis_url)
        self._ledger = RedisLedger(self._client, SHARDS)
        self._shard = self._runner.run(self._ledger.locate([tenant]))[tenant]
        loaded = catalog.load()
        sides = (item for edition in (SOURCE, TARGET) for item in loaded.items_of_edition(edition))
        self._whole = [item.name for item in sides if item.role in WHOLE_ROLES]
        self.taken = 0
        self.off = 0

    def take(self) -> bool:
        """One look; whether the switch has ended."""
        accounts = self._runner.run(self._ledger.accounts({self._shard: [self._tenant]}))[self._tenant]
        found = [accounts[name] for name in self._whole if name in accounts]
        self.off = max(self.off, abs(self._protected - sum(each.used - each.reserved for each in found)))
        self.taken += 1
        stored = self._runner.run(self._ledger.read({self._shard: [self._switch]}))[self._switch]
        return stored is not None and records.decode(self._switch, stored.payload).state == "completed"

    def close(self) -> None:
        """Let go of Redis."""
        self._runner.run(self._client.close())
        self._runner.close()


class Round:
    """Topics of its own, and customers on an edition who are there with all their workloads."""

    def __init__(self, kafka: str, redis_url: str, folder: Path, shape: Shape) -> None:
        self.shape = shape
        self._fleet = EditionFleet(
            customers=shape.customers + OTHERS,
            workloads=1,
            partners=shape.partners,
            prefix=f"bench{uuid.uuid4().hex[:8]}.",
        )
        self._others = self._fleet.customers[-OTHERS:]
        self._switched = self._fleet.customers[: shape.customers]
        self._redis = redis.Redis.from_url(redis_url)
        self._redis.flushall()
        self.place = Place(kafka, redis_url, self._prefix, folder)
        self.place.command("topics", "create")

    @property
    def _prefix(self) -> str:
        return self._fleet.prefix

    def close(self) -> None:
        """Let go of Redis."""
        self.place.close()
        self._redis.close()

    # --- what is measured

    def measure_small(self, made: report.Report) -> None:
        """All tasks at once, and then all of them again."""
        with self.place.serving(ALL_ROLES):
            self._prepare()
            before = self._listen(LISTEN_SECONDS)
            tasks = list(self._fleet.switched(self._switched, TARGET))
            first, beside = self._beside([], lambda: self._work_off(tasks))
            self._settle()
            again = self._work_off(tasks)
            self._settle()
        self._check()
        made.tables["customers"] = [
            {"what": "switched", "per_second": round(first), "seconds": len(tasks) / first},
            {"what": "asked again", "per_second": round(again), "seconds": len(tasks) / again},
        ]
        self._add_latency(made, before, beside)
        made.targets["customers per second"] = report.Target(first, at_least=SMALL_TARGET_PER_SECOND)
        made.targets["again / first"] = report.Target(again / first, at_least=10)

    def measure_large(self, made: report.Report) -> None:
        """One customer there and back, while it and others have events; on the way back the ledger is verified."""
        with self.place.serving(ALL_ROLES):
            self._prepare()
            before = self._listen(LISTEN_SECONDS)
            (seconds, there), beside = self._beside(self._switched, lambda: self._switch_large(TARGET, verify=False))
            self._settle()
            (_, back), _ = self._beside(self._switched, lambda: self._switch_large(SOURCE, verify=True))
            self._settle()
        self._check()
        made.tables["the large customer"] = [
            {
                "way": way,
                "workloads": self.shape.workloads,
                "samples": each.taken,
                "protected but not counted": each.off,
            }
            for way, each in (("there", there), ("back", back))
        ]
        self._add_latency(made, before, beside)
        made.targets["seconds"] = report.Target(seconds, at_most=LARGE_TARGET_SECONDS)
        made.targets["units that a sample misses"] = report.Target(max(there.off, back.off), at_most=0)

    @staticmethod
    def _add_latency(made: report.Report, before: dict[str, float], beside: dict[str, float]) -> None:
        made.tables["others, from an event to its announcement, in milliseconds"] = [
            {"when": when, **{name: round(value, 1) for name, value in found.items()}}
            for when, found in (("before", before), ("meanwhile", beside))
        ]
        ratio = beside["p99_ms"] / before["p99_ms"]
        made.ratios["p99 meanwhile / before"] = ratio
        made.targets["p99 meanwhile / before"] = report.Target(ratio, at_most=RATIO_MAX)

    # --- parts

    def _prepare(self) -> None:
        """Tenants, plans, and every workload registered and protected."""
        self._fleet.workloads = self._of(self._switched, self.shape.workloads)
        self._large = self._fleet.workloads
        for events in (
            self._fleet.tenants(),
            self._fleet.plans(),
            self._fleet.registered(),
            self._fleet.applied("backup"),
        ):
            self.place.publish(events)
            self._settle()

    @staticmethod
    def _of(tenants: Sequence[str], count: int) -> list[Workload]:
        return [Workload(tenant, str(uuid.uuid4()), "workstation") for _ in range(count) for tenant in tenants]

    def _settle(self) -> None:
        self.place.command("status", "--wait-idle", "900", seconds=930)

    def _listen(self, seconds: float) -> dict[str, float]:
        """The latency of others' events while nobody is switched."""
        load = Listening(self, [])
        time.sleep(WARM_UP_SECONDS + seconds)
        return load.end()

    def _beside(self, tenants: Sequence[str], act: Callable[[], Answer]) -> tuple[Answer, dict[str, float]]:
        """Do something while events come of others, and in equal parts of some customers who are switched."""
        load = Listening(self, tenants)
        time.sleep(WARM_UP_SECONDS)
        measured = act()
        return measured, load.end()

    def events(self, tenants: Sequence[str]) -> Iterator[Event]:
        """What comes meanwhile: lives of others, and unrest of the large customer."""
        self._fleet.workloads = self._of(self._others, self.shape.per_second * LISTENED_SECONDS_MAX // OTHERS + 1)
        lives = self._fleet.life()
        if not tenants:
            return lives
        unrest = self._fleet.unrest(self._large)
        return itertools.chain.from_iterable(zip(lives, unrest, strict=False))

    def _work_off(self, tasks: Sequence[Event]) -> float:
        """Publish tasks and wait until all are decided; how many there are in a second."""
        began, before = time.monotonic(), self._decided()
        self.place.publish(tasks)
        while self._decided() < before + len(tasks):
            if time.monotonic() > began + END_SECONDS_MAX:
                raise LocalServerError(f"{self._decided() - before} of {len(tasks)} tasks were decided in time.")
            time.sleep(POLL_SECONDS)
        return len(tasks) / (time.monotonic() - began)

    def _decided(self) -> int:
        """How many tasks the ledger knows to be decided."""
        newest: dict[bytes, int] = {}
        for shard in range(SHARDS):
            for source, position in self._redis.hgetall(keys.positions(shard)).items():
                newest[source] = max(newest.get(source, 0), int(position) // STEPS_PER_OFFSET + 1)
        return sum(count for source, count in newest.items() if f"{self._prefix}switch-tasks/".encode() in source)

    def _switch_large(self, target: str, *, verify: bool) -> tuple[float, Samples]:
        """Switch the large customer; how long it takes until it has no switch any more, and what was seen meanwhile."""
        tenant = self._switched[0]
        samples = Samples(self.place, tenant, self.shape.workloads, f"{target}-{tenant}")
        began = time.monotonic()
        self.place.publish(self._fleet.switched([tenant], target))
        checking = threading.Thread(target=self._check) if verify else None
        if checking is not None:
            checking.start()
        while not samples.take():
            if time.monotonic() > began + END_SECONDS_MAX:
                raise LocalServerError("The switch did not end in time.")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        if checking is not None:
            checking.join()
        samples.close()
        return seconds, samples

    def _check(self) -> None:
        if not json.loads(self.place.command("ledger", "verify", "--json", seconds=600))["ok"]:
            raise LocalServerError("`apportion ledger verify` finds that the ledger does not add up.")


class Listening:
    """Events at the steady rate in a process of its own, until it is told to stop."""

    def __init__(self, round_: Round, unheard: Sequence[str]) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=round_.place.folder))
        file = self._folder / "events"
        count = round_.shape.per_second * LISTENED_SECONDS_MAX
        file.write_bytes(msgspec.msgpack.encode(list(itertools.islice(round_.events(unheard), count))))
        question: dict[str, Any] = {
            "kafka": round_.place.kafka,
            "topic": round_.place.prefix + "assignments",
            "events": str(file),
            "rate": round_.shape.per_second,
            "warm_up_seconds": WARM_UP_SECONDS,
            "until": str(self._folder / "over"),
            "unheard": list(unheard),
        }
        command = [sys.executable, "-m", "bench.load", json.dumps(question)]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)

    def end(self) -> dict[str, float]:
        """Stop; quantiles in milliseconds."""
        (self._folder / "over").touch()
        answer, _ = self._process.communicate(timeout=END_SECONDS_MAX)
        if self._process.returncode:
            raise LocalServerError("The load generator has failed.")
        return {name: float(value) for name, value in json.loads(answer).items()}
