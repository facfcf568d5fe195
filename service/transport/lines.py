"""What has been read and waits to be decided, in a line for each partition, and what of it is decided together.

Kafka's order holds within a partition only, so a tenant that sends very much fills the lines of its own partitions. A
batch takes a share from the head of every line, however long the others are: what comes in elsewhere waits for the
batch that is being decided and for no other one. Where all lines are long, batches are as large as they may be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from aiokafka import TopicPartition

from service.handlers.announcements import Message
from service.handlers.work import Arrival
from service.transport.reading import Read

SHARE = 100  # of one line in a batch: half as much decides a tenth slower, twice as much holds others up twice as long
LONG_SHARE = 4  # of a line of tasks, each of which takes as long as dozens of events
LONG_TOPIC = "switch-tasks"
LENGTH_MAX = 4 * SHARE  # then the partition is polled no more, until half of it is taken

Item = Arrival | Message


class Chunk:
    """What one poll brought of a partition, as far as it is not taken yet; ``oldest_ms`` in Unix milliseconds."""

    __slots__ = ("begin", "end", "items", "offsets", "oldest_ms", "partition", "taken")

    def __init__(
        self, partition: TopicPartition, offsets: Sequence[int], items: Sequence[Item], oldest_ms: int
    ) -> None:
        self.partition = partition
        self.offsets = offsets
        self.items = items
        self.oldest_ms = oldest_ms
        self.begin = offsets[0]
        self.end = offsets[-1] + 1
        self.taken = 0

    @property
    def size(self) -> int:
        """How many are left."""
        return len(self.items) - self.taken

    def take(self, count: int) -> Sequence[Item]:
        """The next ones, at most so many; what is left begins right behind them."""
        first, self.taken = self.taken, min(len(self.items), self.taken + count)
        self.begin = self.offsets[self.taken - 1] + 1
        return self.items[first : self.taken]


class Lines:
    """The lines of all partitions."""

    def __init__(self) -> None:
        self._lines: dict[TopicPartition, deque[Chunk]] = {}
        self._lengths: dict[TopicPartition, int] = {}

    @property
    def size(self) -> int:
        """How many records wait."""
        return sum(self._lengths.values())

    def length(self, partition: TopicPartition) -> int:
        """How many of them are of one partition."""
        return self._lengths.get(partition, 0)

    def add(self, chunk: Chunk) -> None:
        """Put what was polled behind what waits already."""
        self._lines.setdefault(chunk.partition, deque()).append(chunk)
        self._lengths[chunk.partition] = self.length(chunk.partition) + chunk.size

    def clear(self) -> None:
        """Forget everything."""
        self._lines.clear()
        self._lengths.clear()

    def take(self, size_max: int, epoch: int) -> Read | None:
        """The next batch, at most so large; None where nothing waits. Who was served last comes first the next time."""
        read = Read(epoch, [], [], {}, {}, 0)
        for partition in list(self._lines):
            share = LONG_SHARE if partition.topic.endswith(LONG_TOPIC) else SHARE
            room = min(share, size_max - read.size)
            if room <= 0:
                break
            self._take_from(partition, room, read)
        return read if read.size else None

    def _take_from(self, partition: TopicPartition, count: int, read: Read) -> None:
        """The head of one line; not beyond a gap, which has to be looked at first."""
        line = self._lines.pop(partition)
        read.begins[partition] = read.ends[partition] = line[0].begin
        while count and line and line[0].begin == read.ends[partition]:
            chunk = line[0]
            items = chunk.take(count)
            count -= len(items)
            self._lengths[partition] -= len(items)
            read.put(items, chunk.oldest_ms)
            read.ends[partition] = chunk.begin
            if not chunk.size:
                line.popleft()
        if line:
            self._lines[partition] = line  # behind the others
        else:
            del self._lengths[partition]
