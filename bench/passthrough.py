"""The ceiling for anything that reads from Kafka and writes to Kafka in Python: every message passed on as it is.

Polls 2,000 messages at a time, sends each to another topic, waits for all of them, commits the offsets; nothing is
read, decided or remembered. In a process of its own, like the service: ``python -m bench.passthrough QUESTION``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

POLLED_MAX = 2000
POLL_MS_MAX = 500
IDLE_SECONDS_MAX = 60


async def run(question: dict[str, Any]) -> dict[str, float]:
    """Pass ``count`` messages of ``topics`` on to ``to``; how many per second, and the processor time they took."""
    servers, count = question["kafka"], question["count"]
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    consumer = AIOKafkaConsumer(
        *question["topics"],
        bootstrap_servers=servers,
        group_id=question["group"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=POLLED_MAX,
    )
    await producer.start()
    await consumer.start()
    try:
        first = await _pass_on(consumer, producer, question["to"])
        while not first:
            first = await _pass_on(consumer, producer, question["to"])
        began, began_cpu, passed = time.monotonic(), time.process_time(), first
        end = began + IDLE_SECONDS_MAX
        while passed < count and time.monotonic() < end:
            passed += await _pass_on(consumer, producer, question["to"])
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - began_cpu
    finally:
        await consumer.stop()
        await producer.stop()
    return {"messages_per_second": (passed - first) / seconds, "cpu": cpu_seconds / seconds, "passed": passed}


async def _pass_on(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, topic: str) -> int:
    polled = await consumer.getmany(timeout_ms=POLL_MS_MAX, max_records=POLLED_MAX)
    records = [record for some in polled.values() for record in some]
    if records:
        futures = [await producer.send(topic, record.value, record.key) for record in records]
        await asyncio.gather(*futures)
        await consumer.commit()
    return len(records)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))))
