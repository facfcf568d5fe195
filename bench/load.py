"""Events at a steady rate, and how long after each its announcement can be read from Kafka.

In a process of its own, so that what it costs is not charged to what is measured: ``python -m bench.load QUESTION``.
The events come encoded from a file. The clock of an event starts when it is handed to the producer, and stops when a
consumer of ``assignments`` has the announcement that names it as its cause: Kafka's way in and out is part of it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec

from bench.fleet import Event
from bench.instances import produce, producer_options

TICK_SECONDS = 0.001
FETCHED_MAX = 2000
DRAIN_SECONDS_MAX = 20
ASSIGN_SECONDS_MAX = 30


class _Announcement(msgspec.Struct):
    causeid: str = ""


_announcement = msgspec.json.Decoder(_Announcement).decode
_events = msgspec.msgpack.Decoder(list[Event]).decode


class Load:
    """Sends and listens in turn."""

    def __init__(self, question: dict[str, Any]) -> None:
        self._events = _events(Path(question["events"]).read_bytes())
        self._rate = question["rate"]
        self._until = Path(question["until"]) if "until" in question else None  # nothing more is sent once it is there
        self._unheard = set(question.get("unheard", ()))  # keys whose latency is not asked for
        self._warm_up = int(self._rate * question["warm_up_seconds"])
        self._sent: dict[str, float] = {}
        self._late_seconds = 0.0
        self.latencies: list[float] = []
        self._producer = confluent_kafka.Producer(producer_options(question["kafka"], **{"linger.ms": 0.5}))
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": question["kafka"], "group.id": "bench-listens", "enable.auto.commit": False}
        )
        self._assign(question["topic"])

    def _assign(self, topic: str) -> None:
        """Listen to what is announced from now on."""
        found = self._consumer.list_topics(topic, ASSIGN_SECONDS_MAX).topics[topic]
        places = [confluent_kafka.TopicPartition(topic, number) for number in found.partitions]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, ASSIGN_SECONDS_MAX)[1]
        self._consumer.assign(places)

    def run(self) -> dict[str, float]:
        """Send everything, and listen until what was sent is answered; quantiles in milliseconds."""
        began = time.perf_counter()
        sent = 0
        while sent < len(self._events) and not self._is_over():
            due = int((time.perf_counter() - began) * self._rate) + 1
            for event in self._events[sent : min(due, len(self._events))]:
                if not self._unheard or event.key.decode() not in self._unheard:
                    self._sent[event.id] = time.perf_counter()
                produce(self._producer, event)
            self._late_seconds = max(self._late_seconds, (due - sent) / self._rate)
            sent = min(due, len(self._events))
            self._producer.poll(0)
            self._listen(TICK_SECONDS)
        seconds = time.perf_counter() - began
        self._producer.flush()
        end = time.perf_counter() + DRAIN_SECONDS_MAX
        while self._listen(1.0) and time.perf_counter() < end:
            pass
        self._events = self._events[:sent]
        return self._figures(sent / seconds)

    def _is_over(self) -> bool:
        return self._until is not None and self._until.exists()

    def _listen(self, seconds: float) -> int:
        messages = self._consumer.consume(FETCHED_MAX, seconds)
        now = time.perf_counter()
        for message in messages:
            began = self._sent.get(_announcement(message.value() or b"{}").causeid)
            if began is not None:
                self.latencies.append(now - began)
        return len(messages)

    def _figures(self, rate: float) -> dict[str, float]:
        kept = sorted(self.latencies[self._warm_up_count() :])
        if not kept:
            raise AssertionError("nothing was announced")
        return {
            "rate": rate,
            "announcements": len(kept),
            "p50_ms": _quantile(kept, 0.5) * 1000,
            "p90_ms": _quantile(kept, 0.9) * 1000,
            "p99_ms": _quantile(kept, 0.99) * 1000,
            "longest_ms": kept[-1] * 1000,
            "latest_send_ms": self._late_seconds * 1000,
        }

    def _warm_up_count(self) -> int:
        return int(len(self.latencies) * self._warm_up / max(1, len(self._events)))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    print(json.dumps(Load(json.loads(sys.argv[1])).run()))
