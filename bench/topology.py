"""Throughput with one master of Redis and with three, with one instance and with three, and what bound it.

Good for: seeing that instances share the partitions and masters the shards, that nothing is slower for it than the
cores explain, and which process is at its limit: an instance and a master of Redis each decide on one core at most.

Not good for: how much more three machines do than one. Everything here shares the cores of one machine, so that more
processes can only use what the others leave; where the cores are all busy, the ratio says what sharing costs.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import redis

from bench import instances, report
from bench.fleet import Fleet
from bench.instances import Place, Processors
from service.local.cluster import LocalRedisCluster
from service.local.server import Server
from service.local.stack import Stack
from service.transport import topics

ROLES = "consume,relay,sweep"
INSTANCES = 3
FROM, TO = 0.2, 0.9  # the part of a backlog in which everybody has joined, and nobody has run out of partitions
BUSY_THREAD = 0.85  # cores' worth: a process that decides on one thread is at its limit
BUSY_MACHINE = 0.9  # of all cores


class Shape(NamedTuple):
    """How many of what; four events for each workload. Many partners, so that all masters have shards in use."""

    customers: int = 400
    workloads: int = 40
    partners: int = 32


class Store(NamedTuple):
    """A ledger's servers: one Redis, or the masters of a cluster."""

    url: str
    clustered: bool
    servers: list[Server]

    @property
    def client(self) -> redis.Redis | redis.RedisCluster:
        """A new connection to it."""
        return redis.RedisCluster.from_url(self.url) if self.clustered else redis.Redis.from_url(self.url)


def run(made: report.Report, *, shape: Shape, rounds: int) -> None:
    """Every combination in every round, added to a report."""
    made.options["topology"] = {**shape._asdict(), "rounds": rounds, "shards": instances.SHARDS}
    measured: dict[tuple[int, int], list[dict[str, float]]] = {}
    with _servers() as (stack, stores):
        for number, store, count in itertools.product(range(rounds), stores, (1, INSTANCES)):
            report.progress.log(f"round {number + 1} of {rounds}: {len(store.servers)} masters, {count} instances")
            found = _measure(stack, store, count, shape, number)
            measured.setdefault((len(store.servers), count), []).append(found)
    rows = {case: report.medians(some) for case, some in measured.items()}
    made.tables["masters of Redis and instances of the service; cores' worth of work of each"] = [
        {
            "masters": masters,
            "instances": count,
            **{name: round(value) if "per_second" in name else round(value, 2) for name, value in row.items()},
            "bound_by": bound_by(row),
        }
        for (masters, count), row in rows.items()
    ]
    for case in rows:
        if case != (1, 1):
            pairs = zip(measured[case], measured[1, 1], strict=True)
            ratio = report.median([some["events_per_second"] / one["events_per_second"] for some, one in pairs])
            made.ratios[f"masters {case[0]}, instances {case[1]} / one of each"] = ratio


def bound_by(cores: Mapping[str, float]) -> str:
    """What was at its limit, by the work of each; the first that explains it."""
    if cores["cores_of_busiest_instance"] >= BUSY_THREAD:
        return "the thread of an instance"
    if cores["cores_of_busiest_master"] >= BUSY_THREAD:
        return "the thread of a master"
    if cores["cores_busy"] >= BUSY_MACHINE * (os.cpu_count() or 1):
        return "the cores of the machine"
    return "waiting for each other"


@contextlib.contextmanager
def _servers() -> Iterator[tuple[Stack, list[Store]]]:
    """A Kafka, a Redis and a cluster, all of them flushing to disk before they answer."""
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        cluster = LocalRedisCluster(Path(folder))
        cluster.start()
        try:
            alone = Store(stack.addresses.redis_url, clustered=False, servers=[stack.redis_server])
            together = Store(cluster.url, clustered=True, servers=cluster.servers)
            with contextlib.closing(together.client) as client:
                client.config_set("appendfsync", "always", target_nodes=redis.RedisCluster.PRIMARIES)
            yield stack, [alone, together]
        finally:
            cluster.kill()


def _measure(stack: Stack, store: Store, count: int, shape: Shape, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder, contextlib.closing(store.client) as client:
        _empty(client, clustered=store.clustered)
        prefix = f"bench{uuid.uuid4().hex[:8]}."
        fleet = Fleet(**shape._asdict(), seed=seed, prefix=prefix)
        settings = {"APPORTION_REDIS_CLUSTER": "true"} if store.clustered else {}
        place = Place(stack.addresses.kafka_bootstrap_servers, store.url, prefix, Path(folder), client, **settings)
        place.command("topics", "create")
        with place.serving(ROLES):
            for events in (fleet.tenants(), fleet.plans()):
                place.publish(events)
                place.command("status", "--wait-idle", "300", seconds=330)
        before = place.sample().decided
        backlog = place.publish(fleet.life())
        with place.serving(*[ROLES] * count) as processes:
            pids = {f"instance {number}": process.pid for number, process in enumerate(processes)}
            pids |= {f"master {number}": server.pid or 0 for number, server in enumerate(store.servers)}
            return _watch(place, before, backlog, {**pids, "kafka": stack.broker().pid or 0})


def _watch(place: Place, before: int, backlog: int, pids: Mapping[str, int]) -> dict[str, float]:
    """The rate over the middle of a backlog, and what each process did meanwhile."""
    began = place.await_reached(before + int(FROM * backlog))
    published, watched, busy = place.published(topics.OUTBOUND), Processors(pids), busy_seconds()
    ended = place.await_reached(before + int(TO * backlog))
    shares, busy = watched.shares(), (busy_seconds() - busy) / watched.seconds
    announced = (place.published(topics.OUTBOUND) - published) / watched.seconds
    place.await_decided(before + backlog)
    rate, cores = (ended.decided - began.decided) / (ended.seconds - began.seconds), _summed(shares)
    return {
        "events_per_second": rate,
        "announcements_per_second": announced,
        **cores,
        "cores_of_others": busy - sum(shares.values()),
        "cores_busy": busy,
        **{
            f"{kind}_us_per_event": cores[f"cores_of_{kind}"] / rate * 1e6 for kind in ("instances", "masters", "kafka")
        },
    }


def _summed(shares: Mapping[str, float]) -> dict[str, float]:
    """The work of all instances and all masters, and of the busiest of each."""
    found = {}
    for kind in ("instance", "master"):
        some = [share for name, share in shares.items() if name.startswith(kind)]
        found |= {f"cores_of_{kind}s": sum(some), f"cores_of_busiest_{kind}": max(some)}
    return {**found, "cores_of_kafka": shares["kafka"]}


def _empty(client: redis.Redis | redis.RedisCluster, *, clustered: bool) -> None:
    if clustered:
        client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    else:
        client.flushall()


def busy_seconds() -> float:
    """The time in which the cores of the machine have done anything, whoever's it was."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")
