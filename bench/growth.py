"""Whether more tenants make an event dearer: the same events, of a hundred tenants up to a hundred thousand.

Good for: seeing that nothing in the way of an event grows with the number of tenants; where it does, by how much. Each
size is measured twice: by an engine that knows no tenant yet, and again, with new events, when it does.

Not good for: absolute throughput (ask ``bench pipeline``). Several instances and several masters of Redis are another
question, with its own answer: topology.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence

from bench import report, servers
from bench.engine import Bench, batches
from bench.fleet import Event, Fleet
from service.handlers.engine import Engine

SIZES = (100, 1_000, 10_000, 100_000)
QUICK_SIZES = (100, 1_000, 10_000)
EVENTS = 32_000  # of one figure
PARTNERS = 64
RATIOS = {"events per second": "per_second_when_known", "processor time of an event": "python_us_when_known"}


async def run(made: report.Report, *, quick: bool, rounds: int, batch: int) -> None:
    """Every size in every round, added to a report."""
    sizes = QUICK_SIZES if quick else SIZES
    count = EVENTS // 4 if quick else EVENTS
    made.options |= {"sizes": list(sizes), "events": count, "partners": PARTNERS, "batch": batch, "rounds": rounds}
    measured: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with servers.redis_server() as redis:
        for number, size in itertools.product(range(rounds), sizes):
            report.progress.log(f"round {number + 1} of {rounds}: {size:,} customers")
            measured[size].append(await _measure(redis, size, count, batch, seed=number))
    made.tables["events per second"] = [
        {"customers": size, **{name: round(rate, 2) for name, rate in report.medians(some).items()}}
        for size, some in measured.items()
    ]
    _compare(made, measured, sizes)


async def _measure(redis: servers.BenchRedis, size: int, count: int, batch: int, seed: int) -> dict[str, float]:
    redis.empty()
    bench = Bench(redis, batch)
    fleet = Fleet(customers=size, workloads=-(-count // size), partners=min(PARTNERS, size), seed=seed)
    await bench.prepare(fleet)
    bench.engine = Engine(bench.ledger, bench.catalog)  # one that has seen nothing
    life = fleet.life()
    figures = {
        **await _cost(bench, itertools.islice(life, count), "at_first"),
        **await _cost(bench, itertools.islice(life, count), "when_known"),
    }
    figures["announcements_per_event"] = bench.announced / (2 * count)
    await bench.close()
    return figures


async def _cost(bench: Bench, events: Iterable[Event], when: str) -> dict[str, float]:
    """Events per second of one process (read, decided, their announcements rendered), and what one of them costs."""
    prepared = [bench.records(some) for some in batches(events, bench.batch)]
    script_seconds, began, began_cpu = bench.redis.scripts().seconds, time.perf_counter(), time.process_time()
    for records in prepared:
        await bench.engine.handle(bench.read(records))
        await bench.announce()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    count = sum(map(len, prepared))
    return {
        f"per_second_{when}": count / seconds,
        f"python_us_{when}": cpu_seconds / count * 1e6,
        f"script_us_{when}": (bench.redis.scripts().seconds - script_seconds) / count * 1e6,
    }


def _compare(made: report.Report, measured: dict[int, list[dict[str, float]]], sizes: Sequence[int]) -> None:
    """Every size beside the smallest: events per second, and processor time of Python, which others disturb less."""
    for size, (what, name) in itertools.product(sizes[1:], RATIOS.items()):
        pairs = zip(measured[sizes[0]], measured[size], strict=True)
        ratio = report.median([large[name] / small[name] for small, large in pairs])
        made.ratios[f"{what}, {size:,} customers / {sizes[0]:,} customers"] = ratio
