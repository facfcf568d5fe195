"""Clients of `bench http`: so many connections, each with one request under way, in a process of their own.

They speak just enough HTTP/1.1 for one server: what a client library costs is no figure of the service. ``python -m
bench.http_clients QUESTION`` prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import uvloop


class Answers:
    """What came back between two moments; ``asked`` counts the requests before and after them too."""

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.end = end
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.asked = 0

    def note(self, began: float, now: float, status: int) -> None:
        """One answer."""
        self.asked += 1
        if self.start <= began and now < self.end:
            self.latencies.append(now - began)
            self.statuses[status] += 1


async def run(question: dict[str, Any]) -> dict[str, Any]:
    """Ask for ``seconds`` after ``warm_up_seconds`` with ``connections``; answers per second, latencies, statuses."""
    requests = itertools.cycle([_request(question, path) for path in question["paths"]])
    start = time.perf_counter() + question["warm_up_seconds"]
    answers = Answers(start, start + question["seconds"])
    address = urlsplit(question["url"])
    await asyncio.gather(
        *(_ask(address.hostname, address.port, requests, answers) for _ in range(question["connections"]))
    )
    latencies = sorted(answers.latencies)
    return {
        "asked": answers.asked,
        "per_second": len(latencies) / question["seconds"],
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
        "statuses": {str(status): count for status, count in answers.statuses.items()},
    }


def _request(question: dict[str, Any], path: str) -> bytes:
    body = json.dumps(question["body"]).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "Host: service",
        f"Authorization: Bearer {question['token']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def _ask(host: str | None, port: int | None, requests: Iterator[bytes], answers: Answers) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    began = time.perf_counter()
    while began < answers.end:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
        now = time.perf_counter()
        answers.note(began, now, int(head[9:12]))
        began = now
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(sys.argv[1])))))
