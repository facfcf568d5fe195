"""The main job from outside: events in through Kafka, answers through Kafka, HTTP and the command line only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

ITEM = "pw_base_workstations"
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


@pytest.fixture
def outside(kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path) -> Iterator[Outside]:
    world = Outside(kafka, redis_fresh, topic_prefix, tmp_path)
    done = world.run("topics", "create")
    assert done.returncode == 0, done.stderr
    process, world.url = world.serve()
    yield world
    process.terminate()
    assert process.wait(15) == 0, (tmp_path / "serve.log").read_text()[-2000:]


def test_events_become_assignments_refusals_and_bills(outside: Outside) -> None:
    for tenant, parent, kind in (("dist", "root", "partner"), ("msp", "dist", "partner"), ("cust", "msp", "customer")):
        outside.send("tenant-changes", "tenant.upserted", tenant, {"parent_id": parent, "kind": kind, "name": tenant})
        item = {"name": ITEM, "status": 1, "quota": {"value": 1, "overage": 0}}
        outside.send("tenant-changes", "offering_items.set", tenant, {"items": [item]})
    outside.settle()
    for workload in ("w1", "w2"):
        content = {"workload_id": workload, "type": "workstation"}
        outside.send("workload-events", "workload.registered", "cust", content)
    outside.send("plan-changes", "plan.saved", "cust", {"plan_id": "p", "features": ["backup.files"]})
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w1"]})
    outside.send("plan-changes", "plan.applied", "cust", {"plan_id": "p", "workload_ids": ["w2"]})
    outside.produce("plan-changes", b"{no json", "cust")
    outside.send("workload-events", "workload.removed", "nobody", {"workload_id": "w"})
    outside.settle()

    usage = outside.json("usage", "cust")
    assert usage == {
        "tenant_id": "cust",
        "items": [
            {
                "offering_item": ITEM,
                "usage_name": "workstations",
                "edition": "pck_per_workload",
                "unit": "quantity",
                "status": 1,
                "used": 1,
                "reserved": 0,
                "quota": {"value": 1, "overage": 0, "version": 1},
            }
        ],
    }
    held = {row["workload_id"]: row for row in outside.json("workloads", "cust")["workloads"]}
    assert held["w1"]["holding"] == {ITEM: 1}
    assert (held["w2"]["holding"], held["w2"]["waiting"], held["w2"]["plan_ids"]) == ({}, True, ["p"])
    why = outside.json("explain", "cust", ITEM)
    assert [level["tenant_id"] for level in why["levels"]] == ["cust", "msp", "dist", "root"]
    assert [row["workload_id"] for row in why["waiting"]] == ["w2"]
    verified = outside.json("ledger", "verify")
    assert (verified["ok"], verified["tenants"], verified["workloads"], verified["violations"]) == (True, 3, 2, [])

    events = outside.announced()
    (denied,) = [event for event in events if event["type"] == "apportion.assignment.denied.v1"]
    assert {denial["tenant_id"] for denial in denied["data"]["denials"]} == {"cust", "msp", "dist"}
    bills = {e["tenantid"]: e["data"]["used"] for e in events if e["type"] == "apportion.usage.changed.v1"}
    assert bills == {"cust": 1, "msp": 1, "dist": 1}
    letters = {row["code"] for row in outside.json("dead-letters", "list")["dead_letters"]}
    assert letters == {"invalid_envelope", "unknown_tenant"}


def test_wrong_questions_are_answered_in_a_sentence(outside: Outside) -> None:
    unknown = outside.run("usage", "nobody", "--json")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.count("\n") == 1
    assert outside.run("usage").returncode == 2


def test_http_tells_how_the_service_is_and_what_it_speaks(outside: Outside) -> None:
    url = outside.url
    for path, content in (("/health/live", ""), ("/health/ready", ""), ("/metrics", "apportion_")):
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            assert answer.status == 200
            assert content in answer.read().decode()
    with urllib.request.urlopen(url + "/asyncapi.json", timeout=10) as answer:
        assert f"{outside.prefix}assignments" in answer.read().decode()
