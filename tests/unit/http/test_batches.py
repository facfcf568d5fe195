"""Questions that share a call."""

from __future__ import annotations

import asyncio

import pytest

from service.http import batches

SECONDS_MAX = 5  # far more than it takes, and far less than for ever


async def test_what_is_asked_while_calls_are_under_way_is_answered_by_the_next_one() -> None:
    sizes: list[int] = []

    async def double(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        await asyncio.sleep(0)
        return [2 * number for number in numbers]

    shared: batches._Shared[int, int] = batches._Shared(double)
    assert await asyncio.gather(*(shared.ask(number) for number in range(100))) == [2 * n for n in range(100)]
    assert len(sizes) <= 3


async def test_nobody_is_forgotten_at_whatever_moment_it_asks() -> None:
    """A question that comes just when a call ends must not wait for a run that is over."""

    async def echo(numbers: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return numbers

    shared: batches._Shared[int, int] = batches._Shared(echo)

    async def ask(turns: int) -> int:
        count = 0
        for number in range(20):
            for _ in range((turns * number) % 5):
                await asyncio.sleep(0)
            count += await shared.ask(number) == number
        return count

    for workers in range(1, 8):
        asked = (ask(turns) for turns in range(workers))
        assert await asyncio.wait_for(asyncio.gather(*asked), SECONDS_MAX) == [20] * workers


async def test_an_error_reaches_those_who_asked_together_and_nobody_else() -> None:
    async def fail_once(numbers: list[int]) -> list[int]:
        await asyncio.sleep(0)
        if 0 in numbers:
            raise ValueError("nothing to be had for 0")
        return numbers

    shared: batches._Shared[int, int] = batches._Shared(fail_once)
    with pytest.raises(ValueError, match="nothing"):
        await shared.ask(0)
    assert await shared.ask(1) == 1
