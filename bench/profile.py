"""Where the time of the running service goes: an instance at full load, watched from outside.

Good for: the answer to "what would be worth making faster", for anybody, in a minute; with ``--roles`` given several
times, for each of several instances. Not good for: what Redis and Kafka do meanwhile, and what happens inside C code,
which is counted to the function that calls it (see profiler.py). The watched process is a little slower than others.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import instances, profiler, report
from bench.pipeline import Round, Shape
from service.local.stack import Stack


def run(*, shape: Shape, roles: Sequence[str], top: int) -> report.Report:
    """One round: what has piled up is worked off, and watched."""
    profiler.find_program()  # before anything is started
    made = report.Report("profile", {**shape._asdict(), "roles": list(roles), "shards": instances.SHARDS})
    with Stack() as stack, tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        round_ = Round(stack, Path(folder), shape, 0)
        before = round_.place.sample().decided
        count = before + round_.place.publish(round_.fleet.life())
        with round_.place.serving(*roles) as processes, contextlib.ExitStack() as watchers:
            watched = [watchers.enter_context(profiler.recording(process.pid)) for process in processes]
            rate = instances.rate(round_.place.await_decided(count), count)
            watchers.close()
        round_.close()
    made.tables["while it was watched"] = [{"events_per_second": round(rate)}]
    made.tables["share of the time by part, percent"] = [
        {"roles": each, **recorded.areas()} for each, recorded in zip(roles, watched, strict=True)
    ]
    for number, (each, recorded) in enumerate(zip(roles, watched, strict=True)):
        made.tables[f"instance {number} ({each}): top functions by own time"] = recorded.functions(top)
    return made
