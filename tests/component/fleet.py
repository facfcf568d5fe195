"""Instances of the service as processes, and a Kafka client that is not theirs: what tests from outside are made of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka

OUTBOUND = ("assignments", "usage", "quota-alerts", "reservations", "switches", "tenants", "dead-letters")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer of the condition; an AssertionError where there is none in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} seconds for {what}")


class Instance:
    """One running `apportion serve`."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, name: str) -> None:
        self.errors = folder / f"{name}.err"
        self._output = folder / f"{name}.out"
        with self.errors.open("wb") as errors, self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    def ready(self, seconds: float = 30) -> dict[str, Any]:
        """The line that it prints when it is ready."""
        line = wait_for(lambda: self._ended() or self._output.read_text(), seconds, "the ready line")
        assert self.process.poll() is None, self.errors.read_text()
        found: dict[str, Any] = json.loads(line)
        return found

    def is_ready(self) -> bool:
        """Whether it has printed that line."""
        return bool(self._output.read_text())

    def url(self) -> str:
        """Where its HTTP is."""
        return str(self.ready()["http"])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer."""
        try:
            with urllib.request.urlopen(self.url() + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def end(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def _ended(self) -> bool:
        return self.process.poll() is not None


class Fleet:
    """The service on a pair of servers, under names of its own."""

    def __init__(self, kafka: str, redis_url: str, prefix: str, folder: Path) -> None:
        self.prefix = prefix
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("APPORTION_")},
            "APPORTION_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "APPORTION_REDIS_URL": redis_url,
            "APPORTION_TOPIC_PREFIX": prefix,
            "APPORTION_GROUP_ID": prefix,
            "APPORTION_TOPIC_PARTITIONS": "3",
            "APPORTION_HTTP_PORT": "0",
            "APPORTION_UNKNOWN_TENANT_WAIT_SECONDS": "5",
        }
        self.instances: list[Instance] = []
        self._kafka = kafka
        self._producer = confluent_kafka.Producer({"bootstrap.servers": kafka, "linger.ms": 5, "log_level": 0})
        self._count = 0

    def close(self) -> None:
        """Kill what still runs."""
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.end(signal.SIGKILL)

    # --- commands

    def command(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def answer(self, *arguments: str, seconds: float = 60) -> dict[str, Any]:
        """What a command says with ``--json``; it must succeed."""
        done = self.command(*arguments, "--json", seconds=seconds)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def serve(self, *arguments: str, **environment: str) -> Instance:
        """Start an instance; see ``ready``."""
        command = [sys.executable, "-m", "service.cli", "serve", *arguments]
        instance = Instance(command, {**self.environment, **environment}, self.folder, f"i{len(self.instances)}")
        self.instances.append(instance)
        return instance

    def settle(self, seconds: float = 30) -> dict[str, Any]:
        """Wait until everything sent is decided and announced."""
        self.flush()
        return self.answer("status", "--wait-idle", str(seconds), seconds=seconds + 30)

    # --- events

    def send(self, topic: str, kind: str, tenant: str, data: dict[str, Any], id_: str | None = None) -> str:
        """Publish an event; answers its id."""
        self._count += 1
        event_id = id_ or f"e-{self._count}"
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{self._count % 1_000_000:06d}Z"
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/test",
            "type": f"apportion.{kind}.v1",
            "time": moment,
            "tenantid": tenant,
            "datacontenttype": "application/json",
            "data": data,
        }
        self.produce(topic, json.dumps(event).encode(), tenant, [("content-type", b"application/cloudevents+json")])
        return event_id

    def allow_messages_of(self, size_bytes: int) -> None:
        """Publish larger messages than a client does by itself."""
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": self._kafka, "message.max.bytes": size_bytes, "log_level": 0}
        )

    def deliver_surely(self) -> None:
        """Publish everything once and in order, whatever becomes of the brokers meanwhile."""
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": self._kafka, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )

    def flush(self, seconds: float = 30) -> None:
        """Wait until everything sent is in Kafka."""
        assert self._producer.flush(seconds) == 0

    def produce(
        self, topic: str, value: bytes, key: str | None, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """Publish anything."""
        self._producer.produce(self.prefix + topic, value, key, headers=headers or [])
        self._producer.poll(0)

    def send_customer(self, customer: str, quota: int | None = None) -> None:
        """A distributor, and a customer below it with workstations and a plan."""
        item = {"name": "pw_base_workstations", "status": 1}
        for tenant, parent, kind in (
            (f"{customer}-dist", "root", "partner"),
            (customer, f"{customer}-dist", "customer"),
        ):
            self.send("tenant-changes", "tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant})
            limit = {} if quota is None else {"quota": {"value": quota, "overage": 0}}
            self.send("tenant-changes", "offering_items.set", tenant, {"items": [{**item, **limit}]})
        self.send("plan-changes", "plan.saved", customer, {"plan_id": "p", "features": ["backup.files"]})

    def send_workload(self, customer: str, workload: str) -> None:
        """A workload that the plan protects."""
        self.send("workload-events", "workload.registered", customer, {"workload_id": workload, "type": "workstation"})
        self.send("plan-changes", "plan.applied", customer, {"plan_id": "p", "workload_ids": [workload]})

    def read(self, topic: str) -> list[dict[str, Any]]:
        """Everything on a topic, in the order of each partition."""
        return [json.loads(message.value() or b"{}") for message in self.messages(topic)]

    def read_all(self) -> list[dict[str, Any]]:
        """Everything that was ever announced, in the order of each partition."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self._kafka, "group.id": "looks-only"})
        try:
            ends: dict[tuple[str, int], int] = {}
            topics = consumer.list_topics(timeout=10).topics
            for name in (self.prefix + topic for topic in OUTBOUND):
                for number in topics[name].partitions:
                    begin, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(name, number), 10)
                    if end > begin:
                        ends[name, number] = end
            consumer.assign([confluent_kafka.TopicPartition(name, number, 0) for name, number in ends])
            events = []
            while ends:
                message = consumer.poll(10)
                assert message is not None and not message.error(), f"nothing more came of {ends}"
                events.append(json.loads(message.value() or b"{}"))
                place = (message.topic() or "", message.partition() or 0)
                if (message.offset() or 0) + 1 == ends.get(place):
                    del ends[place]
            return events
        finally:
            consumer.close()

    def messages(self, topic: str) -> Iterator[confluent_kafka.Message]:
        """The raw messages of a topic up to its present end, those of one partition after those of another."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self._kafka, "group.id": "looks-only"})
        try:
            name = self.prefix + topic
            ends: dict[int, int] = {}
            found: dict[int, list[confluent_kafka.Message]] = {}
            for number in consumer.list_topics(name, 10).topics[name].partitions:
                begin, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(name, number), 10)
                if begin < end:
                    ends[number], found[number] = end, []
            consumer.assign([confluent_kafka.TopicPartition(name, number, 0) for number in ends])
            while ends:  # all partitions at once, as each change of them costs the client half a second
                message = consumer.poll(10)
                assert message is not None and not message.error(), f"{name} does not give everything up to {ends}"
                number, offset = message.partition() or 0, message.offset() or 0
                found[number].append(message)
                if offset + 1 >= ends.get(number, 0):
                    ends.pop(number, None)
        finally:
            consumer.close()
        for number in sorted(found):
            yield from found[number]
