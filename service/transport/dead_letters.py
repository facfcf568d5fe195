"""Reading dead letters, and sending what is in them again once the cause is gone."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from service.settings import Settings
from service.transport import board, connection, offsets, topics
from service.transport.board import Board

NEWEST_MAX = 100_000  # dead letters that are looked at
READ_SECONDS_MAX = 60.0
REMEMBERED_MS = 30 * 24 * 60 * 60 * 1000  # how long it is known that one was sent again

log = structlog.get_logger(__name__)


class DeadLetter(NamedTuple):
    """A message that could not be handled; ``key``, ``headers`` and ``value`` are its own, as far as they were kept."""

    id: str
    code: str
    message: str
    topic: str
    partition: int
    offset: int
    time: str
    tenantid: str | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None
    size: int
    sha256: str

    def shown(self) -> dict[str, Any]:
        """What the command line prints of it."""
        return {
            "code": self.code,
            "message": self.message,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "time": self.time,
            "id": self.id,
            "tenantid": self.tenantid,
        }


class Sent(NamedTuple):
    """What became of a dead letter that was to be sent again; without a ``problem`` it was, or would be."""

    letter: DeadLetter
    problem: str | None


class _Data(msgspec.Struct):
    code: str
    message: str
    topic: str
    partition: int
    offset: int
    size: int
    sha256: str
    headers: dict[str, str | None] = {}
    headers_base64: list[tuple[str, str | None]] | None = None  # where text or a dictionary would not do
    key: str | None = None
    key_base64: str | None = None
    value_base64: str | None = None


class _Event(msgspec.Struct):
    id: str
    time: str
    data: _Data
    tenantid: str | None = None


def parse(value: bytes | None) -> DeadLetter | None:
    """A dead letter from its event; None where somebody else has put something else on the topic."""
    try:
        event = msgspec.json.decode(value or b"", type=_Event)
    except msgspec.DecodeError as error:
        log.warning("a message on the topic of dead letters is none", reason=str(error))
        return None
    data = event.data
    return DeadLetter(
        event.id,
        data.code,
        data.message,
        data.topic,
        data.partition,
        data.offset,
        event.time,
        event.tenantid,
        data.key.encode() if data.key is not None else _bytes(data.key_base64),
        _headers(data),
        _bytes(data.value_base64),
        data.size,
        data.sha256,
    )


def _headers(data: _Data) -> list[tuple[str, bytes | None]]:
    if data.headers_base64 is not None:
        return [(name, _bytes(content)) for name, content in data.headers_base64]
    return [(name, None if content is None else content.encode()) for name, content in data.headers.items()]


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


async def read(
    settings: Settings,
    client: AIOKafkaAdminClient,
    notes: Board,
    *,
    everything: bool = False,
    values: bool = False,
    newest: int = NEWEST_MAX,
) -> list[DeadLetter]:
    """The newest dead letters in the order of their time, each once.

    Those that were sent again are left out, unless ``everything`` is asked for; and so are the values, unless
    ``values`` are: very many letters may be read, and each may hold the better part of a megabyte.
    """
    every = await offsets.partitions(client, (settings.topic_prefix + topics.DEAD_LETTERS,))
    letters = {letter.id: letter for letter in await _read(settings, every, newest, values)}
    redriven = {} if everything else await notes.get(board.REDRIVEN)
    left = [letter for letter in letters.values() if letter.id not in redriven]
    return sorted(left, key=lambda letter: letter.time)[-newest:]


async def _read(settings: Settings, every: Sequence[TopicPartition], newest: int, values: bool) -> list[DeadLetter]:
    if not every:
        return []
    letters: list[DeadLetter] = []
    async with offsets.reader(settings) as consumer:
        begins = await consumer.beginning_offsets(every)
        ends = await consumer.end_offsets(every)
        open_ends = {part: end for part, end in ends.items() if end > begins[part]}
        if open_ends:
            consumer.assign(list(open_ends))
        for part, end in open_ends.items():
            consumer.seek(part, max(begins[part], end - newest))
        limit = time.monotonic() + READ_SECONDS_MAX
        while open_ends and time.monotonic() < limit:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found = (parse(record.value) for record in records)
                letters += [letter if values else letter._replace(value=None) for letter in found if letter]
            for part in [part for part in open_ends if await consumer.position(part) >= open_ends[part]]:
                del open_ends[part]
    return letters


async def redrive(
    settings: Settings, client: AIOKafkaAdminClient, notes: Board, letters: Sequence[DeadLetter], *, dry_run: bool
) -> list[Sent]:
    """Send the original messages again, to where they came from; each is remembered, so that it is done once."""
    present = await topics.present(client)
    outcomes: list[Sent] = []
    async with offsets.reader(settings) as consumer:
        producer = AIOKafkaProducer(
            **connection.client_options(settings),
            enable_idempotence=True,
            acks="all",
            max_request_size=topics.INBOUND_BYTES_MAX,
        )
        await producer.start()
        try:
            for letter in letters:
                value, problem = await _original(settings, consumer, letter, present)
                if problem is None and not dry_run:
                    await _send(producer, letter, value, present)
                    await notes.set(board.REDRIVEN, {letter.id: str(time.time_ns() // 1_000_000)})
                outcomes.append(Sent(letter, problem))
        finally:
            await producer.stop()
    if not dry_run:
        await _forget_old(notes)
    return outcomes


async def _original(
    settings: Settings, consumer: AIOKafkaConsumer, letter: DeadLetter, present: dict[str, int]
) -> tuple[bytes | None, str | None]:
    """The original value, and a sentence where the message cannot be sent again."""
    if topics.bare(settings, letter.topic) not in topics.INBOUND or letter.topic not in present:
        return None, f"{letter.topic} is no topic that events are read from"
    if letter.value is not None or not letter.size:
        return letter.value, None
    value = await _fetch(consumer, TopicPartition(letter.topic, letter.partition), letter.offset)
    if value is None or hashlib.sha256(value).hexdigest() != letter.sha256:
        return None, f"its {letter.size} bytes were too large to keep, and are no longer in {letter.topic}"
    return value, None


async def _fetch(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> bytes | None:
    """The value of the record at a place, if it is still there."""
    begins, ends = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
    if not begins[place] <= offset < ends[place]:
        return None
    consumer.assign([place])
    consumer.seek(place, offset)
    limit = time.monotonic() + READ_SECONDS_MAX
    while time.monotonic() < limit:
        for record in (await consumer.getmany(place, timeout_ms=200, max_records=1)).get(place, []):
            value: bytes | None = record.value
            return value if record.offset == offset else None
    return None


async def _send(producer: AIOKafkaProducer, letter: DeadLetter, value: bytes | None, present: dict[str, int]) -> None:
    """To the same partition, so that it stays among the events of its tenant, whatever places its producer chose."""
    partition = letter.partition if letter.partition < present[letter.topic] else None
    await producer.send_and_wait(letter.topic, value=value, key=letter.key, partition=partition, headers=letter.headers)


async def _forget_old(notes: Board) -> None:
    oldest_ms = time.time_ns() // 1_000_000 - REMEMBERED_MS
    old = [id_ for id_, sent_ms in (await notes.get(board.REDRIVEN)).items() if int(sent_ms) < oldest_ms]
    await notes.remove(board.REDRIVEN, *old)
