"""Switches that are carried out while the customer lives, step by step (docs/domain.md 7)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.handlers import switch_jobs
from tests.property.switch_histories import Life
from tests.property.test_handlers_properties import Shaky
from tests.unit.handlers.world import World


@pytest.fixture(scope="module", autouse=True)
def few_at_once() -> Iterator[None]:
    """Small numbers, so that a handful of workloads takes many steps."""
    patch = pytest.MonkeyPatch()
    patch.setattr(switch_jobs, "MOVED_PER_STEP", 2)
    patch.setattr(switch_jobs, "COUNTED_PER_READ", 3)
    yield
    patch.undo()


@given(seed=st.integers(0, 2**32), limits=st.booleans(), most=st.sampled_from((2, 2, 200)), fails=st.booleans())
def test_everything_holds_after_each_step_of_a_switch_whatever_happens_beside_it_and_wherever_it_is_interrupted(
    seed: int, limits: bool, most: int, fails: bool
) -> None:
    asyncio.run(live(seed, limits=limits, most=most, fails=fails))


async def live(seed: int, *, limits: bool, most: int, fails: bool) -> None:
    chance = random.Random(seed)
    ledger = Shaky(random.Random(seed))
    life = Life(chance, World(at_once=most, ledger=ledger), limits=limits)
    await life.begin()
    await life.check("the beginning")
    ledger.calm = not fails
    for _ in range(40):
        await life.check(await life.step())
    ledger.calm = True
    await life.check_end()
