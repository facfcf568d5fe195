"""Reservations over HTTP, beside a bare FastAPI endpoint with one call to Redis, in the same run.

Clients, service, bare endpoint and Redis are processes of their own. Of each number of clients, both have their turn in
every round.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import report, servers
from bench.report import Report

CONNECTIONS = (1, 16, 128)
FIGURES = ("per_second", "p50_ms", "p99_ms", "cpu_ms")  # the last one: processor time of the server for a request
SERVICE, BARE = "service", "bare"
ENDED_SECONDS_MAX = 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Shape(NamedTuple):
    """How long each figure is measured."""

    seconds: float = 4.0
    warm_up_seconds: float = 1.0


def run(*, shape: Shape, rounds: int, connections: Sequence[int] = CONNECTIONS) -> Report:
    """Measure, with the bare endpoint and the service in turn."""
    found = Report("http", {"rounds": rounds, "connections": list(connections), **shape._asdict()})
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with servers.redis_server() as redis, _asked(BARE, redis.url) as bare, _asked(SERVICE, redis.url) as service:
        for number in range(rounds):
            for count in connections:
                for name, question in ((BARE, bare), (SERVICE, service)):
                    report.progress.print(f"round {number + 1}: {name}, {count} clients", style="dim")
                    measured.setdefault((name, count), []).append(_measure(question, shape, count))
    found.tables["requests, answered one after the other on each connection"] = [
        _row(name, count, rounds_of) for (name, count), rounds_of in measured.items()
    ]
    for count in connections:
        both = [
            {f"{name}_{figure}": each[figure] for name, each in ((SERVICE, a), (BARE, b)) for figure in FIGURES}
            for a, b in zip(measured[SERVICE, count], measured[BARE, count], strict=True)
        ]
        clients = f"{count} client{'s' if count > 1 else ''}"
        found.ratios[f"reservations per second over bare requests per second, {clients}"] = report.median_ratio(
            both, "service_per_second", "bare_per_second"
        )
        found.ratios[f"p99 of reservations over p99 of bare requests, {clients}"] = report.median_ratio(
            both, "service_p99_ms", "bare_p99_ms"
        )
    found.notes.append("A reservation is decided on three levels with hard quotas, kept, and put into the outbox.")
    found.notes.append("No relay runs: what is announced stays in Redis.")
    return found


def _row(name: str, count: int, rounds: Sequence[dict[str, Any]]) -> report.Row:
    figures = report.medians([{key: each[key] for key in FIGURES} for each in rounds])
    others = {status: n for each in rounds for status, n in each["statuses"].items() if status != "201"}
    return {"what": name, "clients": count, **figures, "other_answers": sum(others.values())}


def _measure(question: dict[str, Any], shape: Shape, connections: int) -> dict[str, Any]:
    asked = {**question, "connections": connections, **shape._asdict()}
    command = [sys.executable, "-m", "bench.http_clients", json.dumps(asked)]
    before = _cpu_seconds(question["process"])
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    spent = _cpu_seconds(question["process"]) - before
    found: dict[str, Any] = json.loads(answer.stdout)
    return {**found, "cpu_ms": 1000 * spent / found["asked"]}


def _cpu_seconds(process: int) -> float:
    """The processor time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextlib.contextmanager
def _asked(kind: str, redis_url: str) -> Iterator[dict[str, Any]]:
    """A server in a process of its own, and what clients have to know of it."""
    command = [sys.executable, "-m", "bench.http_service", kind, redis_url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield {**json.loads(process.stdout.readline()), "process": process.pid}
    finally:
        process.stdin.close()
        try:
            process.wait(ENDED_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
