"""The short form of the fault suite: one seed for each kind of disturbance, against an undisturbed run.

The long form, and how to replay a run: docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.stack import Stack
from tests.faults import outcome
from tests.faults.history import Kind, write
from tests.faults.run import Ran, Run
from tests.faults.trouble import Trouble

SEED = 4
EVENTS = 240
SECONDS = 5.0
BLOWS = 3


class Bench:
    """Servers for all tests of this file, and the undisturbed runs that the others are compared with."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._calm: dict[Kind, Ran] = {}

    async def calm(self, kind: Kind) -> Ran:
        """The undisturbed run, made once."""
        if kind not in self._calm:
            self._calm[kind] = await self.run(kind, "none")
        return self._calm[kind]

    async def run(self, kind: Kind, trouble: Trouble) -> Ran:
        """One run."""
        blows = {"none": 0, "membership": 1}.get(trouble, BLOWS)
        run = Run(
            self._stack,
            self._folder / f"{trouble}-{kind}",
            write(kind, SEED, EVENTS),
            trouble,
            seconds=SECONDS if blows else 0.0,
            blows_max=blows,
        )
        return await run.run()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Stack(real_kafka_only=True) as stack:
        yield Bench(stack, tmp_path_factory.mktemp("faults"))


async def assert_nothing_differs(bench: Bench, kind: Kind, trouble: Trouble, blow: str, at_least: int) -> None:
    """The disturbance has really happened, and nobody can tell from the outcome."""
    calm, shaken = await bench.calm(kind), await bench.run(kind, trouble)
    assert shaken.counts.get(blow, 0) >= at_least, shaken.log
    assert outcome.faults_within(calm.outcome, rewound=False) == []
    found = outcome.faults_within(shaken.outcome, rewound=trouble == "everysec")
    found += outcome.differences(kind, calm.outcome, shaken.outcome)
    assert not found, "\n".join([*found, *shaken.log])


async def test_instances_that_are_killed_announce_what_an_undisturbed_run_announces(bench: Bench) -> None:
    await assert_nothing_differs(bench, "settled", "instances", "instances killed", BLOWS)


async def test_instances_that_are_killed_grant_nothing_above_a_limit_and_the_sums_are_equal(bench: Bench) -> None:
    await assert_nothing_differs(bench, "limited", "instances", "instances killed", BLOWS)


async def test_instances_that_are_killed_while_customers_are_switched_end_and_announce_every_switch(
    bench: Bench,
) -> None:
    await assert_nothing_differs(bench, "switching", "instances", "instances killed", BLOWS)


async def test_a_redis_that_is_killed_and_started_on_its_file_loses_and_doubles_nothing(bench: Bench) -> None:
    await assert_nothing_differs(bench, "free", "redis", "Redis killed", BLOWS)


async def test_what_a_redis_has_lost_of_its_last_second_is_decided_and_announced_again(bench: Bench) -> None:
    await assert_nothing_differs(bench, "settled", "everysec", "with a loss", 1)


async def test_a_broker_that_is_killed_and_started_again_loses_and_doubles_nothing(bench: Bench) -> None:
    await assert_nothing_differs(bench, "settled", "kafka", "brokers killed", BLOWS)


async def test_instances_that_join_leave_or_fall_silent_for_long_lose_and_double_nothing(bench: Bench) -> None:
    await assert_nothing_differs(bench, "free", "membership", "instances stopped", 1)
