"""One tenant sends very much at once: how many of its events are decided while an event of another tenant waits.

Counted in events and not in seconds, so that it says the same on a busy machine and on an idle one. In seconds it is
measured by `apportion bench fairness`, beside the same without the flood.

    python -m tests.faults.fairness --flood 1000000 --probes 500
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
import zlib
from pathlib import Path

import confluent_kafka

from service.local.stack import Stack
from tests.component.fleet import Fleet, Instance

ANSWER_SECONDS_MAX = 60


class Town:
    """An instance, a tenant that floods it, and another one whose events lie in other partitions."""

    def __init__(self, fleet: Fleet, kafka: str) -> None:
        self._fleet = fleet
        fleet.answer("topics", "create")
        self._instance: Instance = fleet.serve()
        self._instance.ready()
        self.flooding = "flood"
        partitions = int(fleet.environment["APPORTION_TOPIC_PARTITIONS"])
        names = [f"other-{number}" for number in range(100)]
        self.other = next(name for name in names if partition(name, partitions) != partition("flood", partitions))
        for tenant in (self.flooding, self.other):
            fleet.send_customer(tenant)
        fleet.settle()
        self._listener = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": "fairness"})
        topic = fleet.prefix + "assignments"
        places = [confluent_kafka.TopicPartition(topic, number) for number in range(partitions)]
        for place in places:
            place.offset = self._listener.get_watermark_offsets(place, ANSWER_SECONDS_MAX)[1]
        self._listener.assign(places)

    def close(self) -> None:
        """Let go of Kafka; the instance is the fleet's."""
        self._listener.close()

    def flood(self, events: int) -> None:
        """Send so many events of one tenant, all at once."""
        for number in range(events // 2):
            self._fleet.send_workload(self.flooding, f"f{number}")
        self._fleet.flush()

    def decided(self) -> int:
        """How many events the instance has decided so far."""
        metrics = self._instance.get("/metrics")[1]
        counts = re.findall(r"^apportion_decisions_total\{[^}]*\} (\S+)$", metrics, re.MULTILINE)
        return int(sum(map(float, counts)))

    def probe(self, number: int) -> int:
        """Send an event of the other tenant; how many were decided until it was announced."""
        before = self.decided()
        self._fleet.send_workload(self.other, f"o{number}")
        self._fleet.flush()
        self._await_announcement(f"o{number}")
        return self.decided() - before

    def _await_announcement(self, workload: str) -> None:
        end = time.monotonic() + ANSWER_SECONDS_MAX
        while time.monotonic() < end:
            message = self._listener.poll(1)
            if message is None or message.key() != self.other.encode():
                continue
            if json.loads(message.value() or b"{}")["data"]["workload_id"] == workload:
                return
        raise AssertionError("the other tenant's event is not announced")


def partition(tenant: str, partitions: int) -> int:
    """The partition that the fleet's producer chooses, which is made with librdkafka."""
    return zlib.crc32(tenant.encode()) % partitions


def measure(fleet: Fleet, kafka: str, flood: int, probes: int) -> list[int]:
    """Probe while the flood is worked off; of each probe, how many events were decided while it waited, in order."""
    town = Town(fleet, kafka)
    try:
        town.flood(flood)
        waited = [town.probe(number) for number in range(probes)]
        assert town.decided() < flood, "the flood was over before the last probe"
    finally:
        town.close()
    return sorted(waited)


def main() -> None:
    """The long form, with servers of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fairness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flood", type=int, default=200_000)
    parser.add_argument("--probes", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apportion-fairness-") as folder, Stack(Path(folder, "servers")) as stack:
        kafka = stack.addresses.kafka_bootstrap_servers
        fleet = Fleet(kafka, stack.addresses.redis_url, "fairness.", Path(folder))
        try:
            waited = measure(fleet, kafka, asked.flood, asked.probes)
        finally:
            fleet.close()
    print(f"events decided while one waited: median {waited[len(waited) // 2]}, most {waited[-1]}")


if __name__ == "__main__":
    main()
