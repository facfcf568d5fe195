"""Instances of the service, and what they have done, seen from outside: by their processes, by Redis, and by Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka
import redis

from bench.fleet import HEADERS, Event
from service.ledger import keys
from service.ledger.transaction import STEPS_PER_OFFSET
from service.local.server import LocalServerError, wait_until

SHARDS = 64
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
IDLE_SECONDS_MAX = 600
POLL_SECONDS = 0.1
_QUEUED_MESSAGES_MAX = 2_000_000
_TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """How far the service was at a moment: events decided, announcements that wait."""

    seconds: float
    decided: int
    waiting: int


class Place:
    """Servers, and names of topics that nobody else has: where one round of a benchmark happens."""

    def __init__(
        self,
        kafka: str,
        redis_url: str,
        prefix: str,
        folder: Path,
        client: redis.Redis | redis.RedisCluster | None = None,
        **settings: str,
    ) -> None:
        self.kafka = kafka
        self.redis_url = redis_url
        self.prefix = prefix
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("APPORTION_")},
            "APPORTION_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "APPORTION_REDIS_URL": redis_url,
            "APPORTION_TOPIC_PREFIX": prefix,
            "APPORTION_GROUP_ID": prefix,
            "APPORTION_SHARDS": str(SHARDS),
            "APPORTION_HTTP_PORT": "0",
            **settings,
        }
        self._redis = client or redis.Redis.from_url(redis_url)

    def close(self) -> None:
        """Let go of Redis."""
        self._redis.close()

    def command(self, *arguments: str, seconds: float = 60) -> str:
        """One command of the service to its end; what it printed. ``LocalServerError`` where it fails."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise LocalServerError(f"`apportion {' '.join(arguments)}` failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    @contextlib.contextmanager
    def serving(self, *roles: str) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Instances with these roles, one for each, ready; stopped when the block ends."""
        started = [self._start(number, each) for number, each in enumerate(roles)]
        try:
            for number, process in enumerate(started):
                self._await_ready(number, process)
            yield started
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(STOP_SECONDS_MAX)

    def _start(self, number: int, roles: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service.cli", "serve", "--roles", roles]
        with (self.folder / f"{number}.out").open("wb") as out, (self.folder / f"{number}.err").open("ab") as errors:
            return subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
            )

    def _await_ready(self, number: int, process: subprocess.Popen[bytes]) -> None:
        out, errors = self.folder / f"{number}.out", self.folder / f"{number}.err"
        wait_until(lambda: process.poll() is not None or b"\n" in out.read_bytes(), START_SECONDS_MAX, "an instance")
        if process.poll() is not None:
            raise LocalServerError(f"An instance did not start: {errors.read_text(encoding='utf-8')[-500:]}")

    # --- what is done

    def sample(self) -> Sample:
        """How far the service is, as the ledger knows it."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipeline.hgetall(keys.positions(shard))
            pipeline.llen(keys.outbox(shard))
        replies = pipeline.execute()
        newest: dict[bytes, int] = {}
        for positions in replies[::2]:
            for source, position in positions.items():
                newest[source] = max(newest.get(source, 0), int(position) // STEPS_PER_OFFSET + 1)
        inbound = sum(count for source, count in newest.items() if source.startswith(self.prefix.encode()))
        return Sample(time.monotonic(), inbound, sum(replies[1::2]))

    def await_decided(self, count: int, seconds: float = IDLE_SECONDS_MAX) -> list[Sample]:
        """Samples until that many events are decided and all of it is announced."""
        samples = [self.sample()]
        end = time.monotonic() + seconds
        while samples[-1].decided < count or samples[-1].waiting:
            if time.monotonic() > end:
                raise LocalServerError(
                    f"{samples[-1].decided} of {count} events were decided in {seconds:.0f} seconds."
                )
            time.sleep(POLL_SECONDS)
            samples.append(self.sample())
        return samples

    def await_reached(self, count: int, seconds: float = IDLE_SECONDS_MAX) -> Sample:
        """The first sample in which that many events are decided."""
        end = time.monotonic() + seconds
        while (sample := self.sample()).decided < count:
            if time.monotonic() > end:
                raise LocalServerError(f"{sample.decided} of {count} events were decided in {seconds:.0f} seconds.")
            time.sleep(POLL_SECONDS)
        return sample

    def publish(self, events: Iterable[Event]) -> int:
        """Publish events as fast as Kafka takes them, and wait until it has them; how many they were."""
        producer = confluent_kafka.Producer(producer_options(self.kafka))
        count = 0
        for event in events:
            produce(producer, event)
            count += 1
        producer.flush()
        return count

    def published(self, topics: Sequence[str]) -> int:
        """How many messages the topics (without prefix) hold."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.kafka, "group.id": "bench-looks"})
        try:
            total = 0
            for topic in topics:
                found = consumer.list_topics(self.prefix + topic, 10).topics[self.prefix + topic]
                for number in found.partitions:
                    place = confluent_kafka.TopicPartition(self.prefix + topic, number)
                    low, high = consumer.get_watermark_offsets(place, 10)
                    total += high - low
            return total
        finally:
            consumer.close()


def producer_options(kafka: str, **more: Any) -> dict[str, Any]:
    """A producer that has room for everything, and that keeps the order."""
    return {
        "bootstrap.servers": kafka,
        "linger.ms": 5,
        "enable.idempotence": True,
        "queue.buffering.max.messages": _QUEUED_MESSAGES_MAX,
        "queue.buffering.max.kbytes": 2**20,
        "log_level": 0,
        **more,
    }


def produce(producer: confluent_kafka.Producer, event: Event) -> None:
    """Hand one event to a producer; waits where it has no room."""
    while True:
        try:
            producer.produce(event.topic, event.value, event.key, headers=list(HEADERS))
        except BufferError:
            producer.poll(0.1)
        else:
            return


def rate(samples: Sequence[Sample], count: int) -> float:
    """Events per second, from the first sample that shows progress to the one that shows the end."""
    began = next(sample for sample in samples if sample.decided > samples[0].decided)
    ended = samples[-1]
    if ended is began:
        raise AssertionError("the round is too short to be measured: more events are needed")
    return (count - began.decided) / (ended.seconds - began.seconds)


class Processors:
    """The share of the cores that processes take."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._began = time.monotonic()
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    @property
    def seconds(self) -> float:
        """How long ago this was made."""
        return time.monotonic() - self._began

    def shares(self) -> dict[str, float]:
        """Cores' worth of work of each process since this was made."""
        seconds = self.seconds
        return {name: round((cpu_seconds(pid) - self._before[name]) / seconds, 2) for name, pid in self._pids.items()}


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has taken so far, with its threads; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def answer_of(module: str, question: Mapping[str, Any], seconds: float = 600) -> dict[str, Any]:
    """Run a module of this package in a process of its own, and take the JSON that it prints."""
    command = [sys.executable, "-m", f"bench.{module}", json.dumps(question)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise LocalServerError(f"bench.{module} failed: {done.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
