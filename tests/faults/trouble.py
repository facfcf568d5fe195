"""What happens to the servers and the instances while they work: by a schedule that a seed writes.

A blow and its mending are apart in time, and the load goes on in between. Nothing here waits for a server to answer:
whoever uses it has to live with that.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import redis

from service.local.stack import Stack
from tests.component.fleet import Fleet, Instance

Trouble = Literal["none", "instances", "redis", "everysec", "kafka", "broker", "membership"]
TROUBLES: tuple[Trouble, ...] = ("instances", "redis", "everysec", "kafka", "broker", "membership")

SESSION_SECONDS = 3
LEASE_SECONDS = 2
SILENCE_SECONDS = 5.5  # of a stopped instance: longer than its session and its leases
LOST_SECONDS = 1.0  # what `appendfsync everysec` may lose

Instances = dict[str, Instance]


class Blow(NamedTuple):
    """After a pause, and once the moment has come, something is done."""

    seconds: float
    name: str
    strike: Callable[[], None]
    may: Callable[[], bool] = lambda: True


class AppendOnlyFile:
    """The file that Redis continues, and how long it was a moment ago: what a power cut may take."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance
        self._lengths: deque[tuple[float, Path, int]] = deque(maxlen=200)

    def path(self) -> Path:
        """The one that is written to now."""
        parts = sorted(self._folder.rglob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
        return parts[-1] if parts else next(self._folder.rglob("*.aof"))

    def note(self) -> None:
        """Remember how long it is now."""
        path = self.path()
        self._lengths.append((time.monotonic(), path, path.stat().st_size))

    def cut(self) -> int:
        """Take away, of a server that does not run, up to its last second; answers how many bytes that was.

        What is left ends behind a whole transaction, as it does after `redis-check-aof --fix`: see docs/faults.md for
        what Redis makes of half a one.
        """
        path = self.path()
        content, since = path.read_bytes(), time.monotonic() - LOST_SECONDS
        lengths = [length for moment, known, length in self._lengths if known == path and moment >= since]
        shortest = min(lengths, default=len(content))
        kept = self._chance.choice([end for end in whole(content) if end >= shortest])
        with path.open("r+b") as file:
            file.truncate(kept)
        self._lengths.clear()
        return len(content) - kept


def whole(content: bytes) -> Iterator[int]:
    """Where an append-only file may end without leaving half a transaction."""
    place, inside = 0, False
    while place < len(content):
        words, place = _command(content, place)
        inside = words[0].upper() == b"MULTI" or (inside and words[0].upper() != b"EXEC")
        if not inside:
            yield place


def _command(content: bytes, place: int) -> tuple[list[bytes], int]:
    """The words of the command that begins there, and where it ends: `*2`, `$3`, the three bytes, and so on."""
    head = content.index(b"\r\n", place)
    if content[place : place + 1] == b"#":  # an annotation, such as the time
        return [b"#"], head + 2
    words, end = [], head + 2
    for _ in range(int(content[place + 1 : head])):
        head = content.index(b"\r\n", end)
        begin, length = head + 2, int(content[end + 1 : head])
        words.append(content[begin : begin + length])
        end = begin + length + 2
    return words, end


class Disturber:
    """Gives blows, and mends what it has broken. ``log`` says in order what was done."""

    def __init__(self, trouble: Trouble, stack: Stack, fleet: Fleet, chance: random.Random) -> None:
        self.trouble = trouble
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self.lost_bytes = 0
        self._stack = stack
        self._fleet = fleet
        self._chance = chance
        self._file = AppendOnlyFile(stack.folder / "redis", chance)
        self._running: list[Instance] = []
        self._silent: list[Instance] = []
        self._began = time.monotonic()

    # --- the beginning and the end

    def begin(self, instances: int) -> None:
        """The instances that everything begins with; they are not ready yet."""
        if self.trouble == "everysec":
            self._sync("everysec")
        for _ in range(instances):
            self._join()

    def mend(self) -> None:
        """Everything runs again, and goes on running."""
        for instance in self._silent:
            instance.process.send_signal(signal.SIGCONT)
        self._silent.clear()
        self._start_redis()
        for broker in self._brokers():
            self._stack.broker(broker).launch()
            self._stack.broker(broker).wait_ready()
        while len(self._running) < 2:
            self._join()

    def notice(self) -> None:
        """To be called often: what is lost must be known before it is lost."""
        if self.trouble == "everysec" and self._stack.redis_server.is_running():
            self._file.note()

    # --- the schedule

    def schedule(self, blows_max: int) -> Iterator[Blow]:
        """Blow after blow, each mended, at most so many of them."""
        ways: dict[str, Callable[[], Iterator[Blow]]] = {
            "none": lambda: iter(()),
            "instances": self._instances,
            "redis": self._redis,
            "everysec": self._redis,
            "kafka": self._kafka,
            "broker": self._kafka,
            "membership": self._membership,
        }
        way = ways[self.trouble]
        for _ in range(blows_max):
            yield from way()

    def _instances(self) -> Iterator[Blow]:
        """One of two is killed; a new one comes, sooner or later. Now and then both are gone for a while."""
        seconds = self._chance.choice((0.3, 1.0, 2.5, 4.0)) * self._chance.random()
        yield Blow(seconds, "kill an instance", self._kill, self._is_one_ready)
        yield Blow(self._chance.random() * 0.8, "start an instance", self._join)

    def _redis(self) -> Iterator[Blow]:
        yield Blow(0.3 + 3.0 * self._chance.random(), "kill Redis", self._kill_redis)
        yield Blow(self._chance.choice((0.0, 0.3, 1.5)) * self._chance.random(), "start Redis", self._start_redis)

    def _kafka(self) -> Iterator[Blow]:
        broker = self._chance.choice(list(self._brokers()))
        yield Blow(0.5 + 4.0 * self._chance.random(), f"kill broker {broker}", lambda: self._kill_broker(broker))
        yield Blow(2.0 * self._chance.random(), f"start broker {broker}", lambda: self._start_broker(broker))

    def _membership(self) -> Iterator[Blow]:
        """A third one joins, one leaves in order, one falls silent for long and goes on."""
        yield Blow(0.5 + self._chance.random(), "a third instance", self._join)
        yield Blow(3.0 * self._chance.random(), "one leaves", self._leave, self._are_all_ready)
        yield Blow(1.0 + self._chance.random(), "one falls silent", self._fall_silent)
        yield Blow(SILENCE_SECONDS, "it goes on", self._go_on)

    # --- blows

    def note(self, what: str) -> None:
        """Write down what is done, and when."""
        self.log.append(f"{time.monotonic() - self._began:6.2f} {what}")

    def _join(self) -> None:
        self._running.append(self._fleet.serve())

    def _is_one_ready(self) -> bool:
        """Whether somebody works: were those who only start killed for ever, nothing would be under way."""
        return any(instance.is_ready() for instance in self._running)

    def _kill(self) -> None:
        """One that works, nearly always; now and then one that starts."""
        ready = [instance for instance in self._running if instance.is_ready()]
        instance = self._chance.choice(ready if self._chance.random() < 0.8 else self._running)
        self._running.remove(instance)
        instance.end(signal.SIGKILL)
        self.counts["instances killed"] += 1

    def _are_all_ready(self) -> bool:
        return all(instance.is_ready() for instance in self._running)

    def _leave(self) -> None:
        instance = self._running.pop(self._chance.randrange(len(self._running)))
        instance.process.send_signal(signal.SIGTERM)
        self.counts["instances that left"] += 1

    def _fall_silent(self) -> None:
        instance = self._chance.choice(self._running)
        instance.process.send_signal(signal.SIGSTOP)
        self._silent.append(instance)
        self.counts["instances stopped"] += 1

    def _go_on(self) -> None:
        self._silent.pop().process.send_signal(signal.SIGCONT)

    def _kill_redis(self) -> None:
        self._stack.kill_redis()
        self.counts["Redis killed"] += 1
        if self.trouble == "everysec":
            lost = self._file.cut()
            self.lost_bytes += lost
            self.counts["with a loss"] += lost > 0
            self.note(f"{lost} bytes are lost")

    def _start_redis(self) -> None:
        if not self._stack.redis_server.is_running():
            self._stack.restart_redis()
            if self.trouble == "everysec":
                self._sync("everysec")

    def _sync(self, how: str) -> None:
        with redis.Redis.from_url(self._stack.addresses.redis_url) as client:
            client.config_set("appendfsync", how)

    def _brokers(self) -> range:
        servers = self._stack.kafka.servers if self._stack.kafka else []
        return range(1, len(servers) + 1)

    def _kill_broker(self, number: int) -> None:
        self._stack.kill_kafka(number)
        self.counts["brokers killed"] += 1

    def _start_broker(self, number: int) -> None:
        self._stack.broker(number).launch()
