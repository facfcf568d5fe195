"""Servers in trouble: what an instance does while Redis or Kafka are there and do not do their work, and afterwards.

While it lasts the instance lives, is not ready and says why, in its answers, in its metrics and in a few lines of its
log. When it is over it goes on by itself, and nothing that was sent meanwhile is lost.

    python -m tests.faults.adversity                         # each trouble for a minute
    python -m tests.faults.adversity --seconds 300 --only "kafka hangs"
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from service.local.server import find_free_port
from service.local.stack import Stack
from tests.component.fleet import Fleet, Instance, wait_for

DISK_MB = 1024  # enough for Kafka, and filled in no time, as it is memory
WORKLOADS = 40  # of each moment
MOMENTS = ("before", "during", "after")
LINES_MAX = (
    12  # of a trouble, however long it lasts: one when it begins and one when it ends, for each part of the work
)
NOTICED_SECONDS_MAX = 30
OVER_SECONDS_MAX = 90


class Trouble(NamedTuple):
    """``on`` holds while its block lasts. ``subject`` and ``words`` are how the instance names it."""

    on: Callable[[Stack], AbstractContextManager[None]]
    subject: str
    words: str
    metric: str  # of the instance, that is above zero afterwards or while it lasts


@contextlib.contextmanager
def full(stack: Stack) -> Iterator[None]:
    """Redis has no room for anything new."""
    with redis.Redis.from_url(stack.addresses.redis_url) as client:
        client.config_set("maxmemory", "1mb")
        yield
        client.config_set("maxmemory", "0")


@contextlib.contextmanager
def hanging_redis(stack: Stack) -> Iterator[None]:
    """Redis answers nobody, and its connections stay open."""
    stack.redis_server.pause()
    yield
    stack.redis_server.resume()


@contextlib.contextmanager
def slow_redis(stack: Stack) -> Iterator[None]:
    """Redis reads, and lets everything that writes wait; longer than the service waits for it."""
    with redis.Redis.from_url(stack.addresses.redis_url) as client:
        client.execute_command("CLIENT", "PAUSE", 3_600_000, "WRITE")  # type: ignore[no-untyped-call] # has no types
        yield
        client.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call] # as above


@contextlib.contextmanager
def read_only(stack: Stack) -> Iterator[None]:
    """Redis has been made the replica of another one, which nobody reaches."""
    with redis.Redis.from_url(stack.addresses.redis_url) as client:
        client.replicaof("127.0.0.1", str(find_free_port()))
        yield
        client.replicaof("NO", "ONE")


@contextlib.contextmanager
def hanging_kafka(stack: Stack) -> Iterator[None]:
    """Kafka answers nobody, and its connections stay open."""
    stack.broker().pause()
    yield
    stack.broker().resume()


@contextlib.contextmanager
def dead_kafka(stack: Stack) -> Iterator[None]:
    """Nobody listens where Kafka was."""
    stack.kill_kafka()
    yield
    stack.restart_kafka()


@contextlib.contextmanager
def full_disk(stack: Stack) -> Iterator[None]:
    """The disk under Kafka is full, so that the broker ends itself at its next write; see :func:`small_disk`."""
    ballast = disk_of(stack) / "ballast"
    for size in (2**20, 2**12):  # the last bytes in small pieces
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * size) == size:
                pass
    yield
    ballast.unlink()
    stack.restart_kafka()


TROUBLES: dict[str, Trouble] = {
    "redis is full": Trouble(full, "ledger", "full", 'apportion_ledger_failures_total{reason="full"}'),
    "redis hangs": Trouble(hanging_redis, "ledger", "timeout", 'apportion_not_ready{subject="ledger"}'),
    "redis is slow": Trouble(slow_redis, "ledger", "timeout", 'apportion_not_ready{subject="ledger"}'),
    "redis is read-only": Trouble(
        read_only, "ledger", "read_only", 'apportion_ledger_failures_total{reason="read_only"}'
    ),
    "kafka hangs": Trouble(hanging_kafka, "kafka", "Kafka does not answer", 'apportion_not_ready{subject="kafka"}'),
    "kafka is dead": Trouble(dead_kafka, "kafka", "Kafka does not answer", 'apportion_not_ready{subject="kafka"}'),
    "kafka has no disk": Trouble(full_disk, "kafka", "Kafka does not answer", 'apportion_not_ready{subject="kafka"}'),
}


def disk_of(stack: Stack) -> Path:
    """Where the first broker keeps everything."""
    return stack.folder / "kafka" / "broker-1" / "data"


@contextlib.contextmanager
def small_disk(stack: Stack) -> Iterator[str | None]:
    """A disk of its own for a Kafka that is not started yet; answers why that is not possible, or None."""
    folder = disk_of(stack)
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        yield "only root may mount a small disk for Kafka"
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"a small disk for Kafka cannot be mounted: {done.stderr.strip()}"
        return
    try:
        yield None
    finally:
        stack.close()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Seen(NamedTuple):
    """What was seen of a trouble from outside: the lines of the log, and the metrics while it lasted and afterwards."""

    lines: list[dict[str, Any]]
    during: dict[str, float]
    after: dict[str, float]
    reasons: str


class Watch:
    """An instance and those who send it events, while servers are in trouble."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.fleet = Fleet(stack.start_kafka(), stack.start_redis(), "t.", folder)
        self.fleet.answer("topics", "create")
        self.instance: Instance = self.fleet.serve(APPORTION_LOG_FORMAT="json")
        self.instance.ready()
        self._count = 0

    def close(self) -> None:
        """End the instance."""
        self.fleet.close()

    def endure(self, trouble: Trouble, seconds: float) -> Seen:
        """Go through a trouble that lasts so long, and check on the way all that has to hold."""
        self._count += 1
        customer = f"c{self._count}"
        self.fleet.send_customer(customer)
        self._send(customer, "before")
        self.fleet.settle(OVER_SECONDS_MAX)
        written = self.instance.errors.stat().st_size
        with trouble.on(self.stack):
            self._send(customer, "during")
            wait_for(lambda: self._is_noticed(trouble), NOTICED_SECONDS_MAX, f"{trouble.words} in the reasons")
            poll_whether(lambda: self.instance.get("/health/ready")[0] == 503, seconds)
            assert self.instance.get("/health/live")[0] == 200
            reasons, during = self.instance.get("/health/ready")[1], self.metrics()
        self._send(customer, "after")
        self.fleet.settle(OVER_SECONDS_MAX)
        wait_for(lambda: self.instance.get("/health/ready")[0] == 200, OVER_SECONDS_MAX, "being ready again")
        with self.instance.errors.open(encoding="utf-8") as log:
            log.seek(written)
            lines = [json.loads(line) for line in log]
        seen = Seen(lines, during, self.metrics(), reasons)
        self._check(trouble, customer, seen)
        return seen

    def check_everything(self) -> None:
        """After all troubles: the ledger is what its records say, and nothing that was sent was taken for wrong."""
        assert self.fleet.answer("ledger", "verify")["ok"]
        used = {item["offering_item"]: item["used"] for item in self.fleet.answer("usage", "root")["items"]}
        assert used["pw_base_workstations"] == self._count * len(MOMENTS) * WORKLOADS
        assert self.fleet.answer("status")["dead_letters"] == {}

    def _is_noticed(self, trouble: Trouble) -> bool:
        status, body = self.instance.get("/health/ready")
        return status == 503 and trouble.words in body

    def _send(self, customer: str, when: str) -> None:
        for number in range(WORKLOADS):
            self.fleet.send_workload(customer, f"{when}-{number}")

    def _check(self, trouble: Trouble, customer: str, seen: Seen) -> None:
        announced = {
            event["data"]["workload_id"]: event["data"]["holding"]
            for event in self.fleet.read("assignments")
            if event["tenantid"] == customer
        }
        sent = [f"{when}-{number}" for when in MOMENTS for number in range(WORKLOADS)]
        assert announced == {name: {"pw_base_workstations": 1} for name in sent}, "nothing is lost"
        assert seen.during["apportion_ready"] == 0 and seen.after["apportion_ready"] == 1
        assert seen.during[trouble.metric] > 0, trouble.metric
        assert seen.after[f'apportion_not_ready{{subject="{trouble.subject}"}}'] == 0
        said = [line for line in seen.lines if line["level"] == "warning" and line.get("subject") == trouble.subject]
        assert any(trouble.words in line["reason"] for line in said), seen.lines
        assert len(seen.lines) <= LINES_MAX, "a flood of lines: " + json.dumps(seen.lines, indent=1)
        assert not [line for line in seen.lines if line["level"] in ("error", "critical") or "exception" in line]

    def metrics(self) -> dict[str, float]:
        """The instance's metrics by name, with their labels."""
        found = re.findall(r"^(apportion_\w+(?:\{[^}]*\})?) (\S+)$", self.instance.get("/metrics")[1], re.MULTILINE)
        return {name: float(value) for name, value in found}


def poll_whether(condition: Callable[[], bool], seconds: float) -> None:
    """An AssertionError where a condition does not hold all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition()
        time.sleep(0.2)


def main() -> None:
    """The long form, with servers of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.adversity", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long each trouble lasts")
    parser.add_argument("--only", choices=TROUBLES)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apportion-adversity-") as folder, contextlib.ExitStack() as stacked:
        stack = Stack(Path(folder, "servers"), real_kafka_only=True)
        impossible = stacked.enter_context(small_disk(stack))
        stacked.callback(stack.close)
        watch = Watch(stack, Path(folder))
        stacked.callback(watch.close)
        for name, trouble in TROUBLES.items():
            if asked.only not in (None, name):
                continue
            if trouble.on is full_disk and impossible:
                print(f"{name}: left out, as {impossible}")
                continue
            seen = watch.endure(trouble, asked.seconds)
            print(f"{name}: {asked.seconds:g} s, {len(seen.lines)} lines in the log; {seen.reasons}")
        watch.check_everything()


if __name__ == "__main__":
    main()
