"""Invariants 1 and 2 of docs/design.md under pressure, in their short form; the long one is a command of limits.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults import limits
from tests.faults.limits import Town

SEED = 20261128


async def test_many_writers_are_granted_exactly_the_limit(redis_fresh: str) -> None:
    town = Town(redis_fresh, requests=2400, processes=2, seed=SEED)
    assert await limits.run(town) == (town.limit, town.requests - town.limit)


async def test_many_writers_are_granted_exactly_the_limits_in_a_cluster(redis_cluster_fresh: str) -> None:
    town = Town(redis_cluster_fresh, cluster=True, msps=3, customers=17, requests=2400, processes=2, seed=SEED)
    assert await limits.run(town) == (3 * town.limit, town.requests - 3 * town.limit)


async def test_many_producers_are_granted_exactly_the_limit_by_several_instances(
    kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path
) -> None:
    town = Town(redis_fresh, requests=2400, seed=SEED)
    done = await asyncio.to_thread(limits.run_through_kafka, town, kafka, topic_prefix, tmp_path, 2, 60)
    assert done == (town.limit, town.requests - town.limit)


async def test_many_producers_are_granted_exactly_the_limits_in_a_cluster(
    kafka: str, redis_cluster_fresh: str, topic_prefix: str, tmp_path: Path
) -> None:
    town = Town(redis_cluster_fresh, cluster=True, msps=3, customers=17, requests=2400, seed=SEED)
    done = await asyncio.to_thread(limits.run_through_kafka, town, kafka, topic_prefix, tmp_path, 2, 60)
    assert done == (3 * town.limit, town.requests - 3 * town.limit)
