"""The examples for producers and pipelines run as they are printed."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import schemas
from schemas import envelope, outbound, table

README = Path(schemas.__file__).with_name("README.md").read_text(encoding="utf-8")
SEND, RECEIVE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


class Kafka:
    """Stands in for a client: keeps what is produced, hands out what is to be consumed."""

    def __init__(self, values: tuple[bytes, ...] = ()) -> None:
        self.produced: list[dict[str, Any]] = []
        self.values = list(values)

    def __call__(self, settings: dict[str, str]) -> Kafka:  # noqa: ARG002 - the client's own signature
        return self

    def produce(self, topic: str, value: str, *, key: str, headers: dict[str, str]) -> None:
        self.produced.append({"topic": topic, "value": value, "key": key, "headers": headers})

    def flush(self) -> None:
        pass

    def subscribe(self, topics: list[str]) -> None:
        assert topics == ["apportion.usage"]

    def poll(self, seconds: float) -> Any:  # noqa: ARG002 - the client's own signature
        if not self.values:
            return None
        value = self.values.pop(0)
        return SimpleNamespace(value=lambda: value)


def run(code: str, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", SimpleNamespace(Producer=kafka, Consumer=kafka))
    exec(compile(code, "README.md", "exec"), {})


def test_the_service_reads_what_the_producer_of_the_readme_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka()
    run(SEND, kafka, monkeypatch)
    (message,) = kafka.produced
    headers = [(name, content.encode()) for name, content in message["headers"].items()]
    now_us = time.time_ns() // 1000
    topic = message["topic"].removeprefix("apportion.")
    read = envelope.parse(message["value"].encode(), headers, message["key"].encode(), now_us=now_us, topic=topic)
    assert read.type == "apportion.workload.registered.v1"


def test_the_pipeline_of_the_readme_bills_what_is_used_and_skips_repeats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def usage(revision: int, used: int) -> bytes:
        type_ = "apportion.usage.changed.v1"
        return outbound.render(
            event_id=str(revision),
            type_=type_,
            tenant_id="customer-1",
            subject="pw_base_workstations",
            time_ms=0,
            cause_id=None,
            revision=revision,
            traceparent=None,
            data_json=json.dumps(table.OUTBOUND[type_].example | {"used": used, "reserved": 1}).encode(),
        )

    run(RECEIVE, Kafka((usage(1, 5), usage(2, 6), usage(1, 5), usage(2, 6), usage(9, 3))), monkeypatch)
    billed = [
        "customer-1 pw_base_workstations 4",
        "customer-1 pw_base_workstations 5",
        "customer-1 pw_base_workstations 2",
    ]
    assert capsys.readouterr().out.splitlines() == billed
