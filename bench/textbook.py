"""The handler that every introduction shows: one message, a model as argument, one call of Redis, one answer published.

It counts units and knows no path, no quota, no order and no repetition: far less than the service does with an event.
In a process of its own: ``python -m bench.textbook QUESTION``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import redis.asyncio
import uvloop
from faststream import FastStream
from faststream.kafka import KafkaBroker
from faststream.message import StreamMessage
from pydantic import BaseModel

SECONDS_MAX = 120


class Data(BaseModel):
    """What the handler wants to know of an event."""

    workload_id: str | None = None
    workload_ids: list[str] = []
    plan_id: str | None = None


class Event(BaseModel):
    """An inbound event."""

    id: str
    type: str
    tenantid: str
    time: str
    data: Data


class Announcement(BaseModel):
    """The answer to it."""

    id: str
    tenantid: str
    used: int


class Progress:
    """How many messages were handled, and since when."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.handled = 0
        self.began = self.ended = 0.0
        self.done = asyncio.Event()

    def step(self) -> None:
        """One more was handled; the clock starts with the first."""
        self.handled += 1
        self.ended = time.monotonic()
        if self.handled == 1:
            self.began = self.ended
        if self.handled == self.count:
            self.done.set()


async def _decoded(message: StreamMessage[Any]) -> Any:
    """FastStream takes a body for JSON only where the content type says exactly that."""
    return json.loads(message.body)


async def run(question: dict[str, Any]) -> dict[str, float]:
    """Handle ``count`` messages of ``topics``; how many per second."""
    broker = KafkaBroker(question["kafka"], logger=None)
    application = FastStream(broker, logger=None)
    store = redis.asyncio.Redis.from_url(question["redis"])
    progress = Progress(question["count"])

    subscriber = broker.subscriber(
        *question["topics"], group_id=question["group"], auto_offset_reset="earliest", decoder=_decoded
    )

    @broker.publisher(question["to"])
    @subscriber  # type: ignore[untyped-decorator]  # FastStream's decorators lose the types
    async def handle(event: Event) -> Announcement:
        used = await store.hincrby(f"used:{event.tenantid}", event.type, 1)
        progress.step()
        return Announcement(id=event.id, tenantid=event.tenantid, used=used)

    running = asyncio.create_task(application.run())
    await asyncio.wait_for(progress.done.wait(), SECONDS_MAX)
    application.exit()
    await running
    await store.aclose()
    return {"messages_per_second": (progress.handled - 1) / (progress.ended - progress.began)}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))))
