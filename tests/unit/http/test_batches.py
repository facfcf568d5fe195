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


async def test_who_asks_again_at_once_is_not_forgotten_when_all_calls_end_in_the_same_moment() -> None:
    gate = asyncio.Event()

    async def echo(numbers: list[int]) -> list[int]:
        await gate.wait()
        return numbers

    shared: batches._Shared[int, int] = batches._Shared(echo)

    async def ask(number: int) -> int:
        await shared.ask(number)
        return await shared.ask(number) if number == 0 else number

    askers = []
    for number in range(batches.AT_ONCE_MAX):
        askers.append(asyncio.create_task(ask(number)))
        for _ in range(3):
            await asyncio.sleep(0)  # so that each has a call of its own
    gate.set()
    answers = await asyncio.wait_for(asyncio.gather(*askers), SECONDS_MAX)
    assert answers == list(range(batches.AT_ONCE_MAX))


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
