"""A platform beside the service, for tests from outside: nothing here knows how the service works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer

OUTBOUND = ("assignments", "usage", "quota-alerts", "reservations", "switches", "tenants", "dead-letters")


class Outside:
    """A platform beside the service: it publishes events, runs commands, and reads what is announced."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, folder: Path) -> None:
        self.prefix = prefix
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("APPORTION_")},
            "APPORTION_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "APPORTION_REDIS_URL": redis_url,
            "APPORTION_TOPIC_PREFIX": prefix,
            "APPORTION_GROUP_ID": f"group-{prefix}",
            "APPORTION_HTTP_PORT": "0",
            "APPORTION_UNKNOWN_TENANT_WAIT_SECONDS": "2",
        }
        self.bootstrap = bootstrap
        self.url = ""  # of the running instance
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
        self.count = 0

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serve(self) -> tuple[subprocess.Popen[str], str]:
        with (self.folder / "serve.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve"],
                env=self.environment,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.stdout.close()
        return process, ready["http"]

    def send(self, topic: str, type_: str, tenant: str, data: dict[str, Any]) -> None:
        self.count += 1
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{self.count:06d}Z"
        event = {
            "specversion": "1.0",
            "id": f"e2e-{self.count}",
            "source": "/outside",
            "type": f"apportion.{type_}.v1",
            "tenantid": tenant,
            "time": moment,
            "data": data,
        }
        self.produce(topic, json.dumps(event).encode(), tenant)

    def produce(self, topic: str, value: bytes, key: str | None) -> None:
        headers = [("content-type", b"application/cloudevents+json")]
        self.producer.produce(self.prefix + topic, value, key, headers=headers)

    def settle(self) -> None:
        assert self.producer.flush(30) == 0
        done = self.run("status", "--wait-idle", "60")
        assert done.returncode == 0, done.stderr

    def announced(self) -> list[dict[str, Any]]:
        """Everything on the outbound topics so far."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": uuid.uuid4().hex,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        topics = [self.prefix + topic for topic in OUTBOUND]
        partitions = sum(len(consumer.list_topics(topic).topics[topic].partitions) for topic in topics)
        consumer.subscribe(topics)
        events, ended = [], set()
        while len(ended) < partitions:
            for message in consumer.consume(500, 0.5):
                if message.error():
                    ended.add((message.topic(), message.partition()))
                else:
                    events.append(json.loads(message.value()))
        consumer.close()
        return events
