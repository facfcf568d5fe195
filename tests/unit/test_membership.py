"""Whose a shard is, who counts as alive, and what a lease may be relied on for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from service.ledger.errors import LedgerUnavailable
from service.transport import membership
from service.transport.membership import Leases, Member

SHARDS = 64


def member(name: str, seen_ms: int) -> str:
    return msgspec.json.encode(Member(name, ("relay",), "host", 1, 0, seen_ms)).decode()


def shares(*instances: str) -> dict[str, set[int]]:
    return {instance: membership.share(instance, instances, SHARDS) for instance in instances}


# --- shares


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_shard_belongs_to_exactly_one_living_instance(count: int) -> None:
    found = shares(*(f"i{number}" for number in range(count)))
    assert sorted(shard for some in found.values() for shard in some) == list(range(SHARDS))


def test_shares_are_roughly_equal() -> None:
    for instances in (("a", "b"), ("a", "b", "c"), ("x-1", "x-2", "x-3", "x-4")):
        sizes = [len(some) for some in shares(*instances).values()]
        assert min(sizes) > SHARDS / len(instances) / 2


def test_an_instance_that_leaves_moves_only_its_own_shards() -> None:
    before, after = shares("a", "b", "c"), shares("a", "c")
    assert before["a"] <= after["a"] and before["c"] <= after["c"]


def test_an_instance_whose_name_is_not_among_the_living_has_nothing() -> None:
    assert membership.share("gone", ["a", "b"], SHARDS) == set()
    assert membership.owner(1, []) is None


# --- who lives


def test_who_was_not_seen_for_the_time_to_live_is_dead_and_so_is_what_cannot_be_read() -> None:
    entries = {"a": member("a", 10_000), "b": member("b", 4_999), "c": "{broken"}
    living, dead = membership.living(entries, now_ms=15_000, ttl_ms=10_000)
    assert [each.id for each in living] == ["a"]
    assert dead == ["b", "c"]


# --- leases


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Register:
    """Leases as the ledger keeps them; taking time and failing on request."""

    shards = 8

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.holders: dict[int, tuple[str, float]] = {}
        self.seconds_per_call = 0.0
        self.fails = False

    async def lease(self, _name: str, shards: Sequence[int], holder: str, ttl_ms: int) -> set[int]:
        self._answer()
        for shard in shards:
            standing, until = self.holders.get(shard, (holder, 0.0))
            if standing == holder or until <= self.clock.now:
                self.holders[shard] = (holder, self.clock.now + ttl_ms / 1000)
        self.clock.now += self.seconds_per_call
        return {shard for shard in shards if self.holders[shard][0] == holder}

    async def release(self, _name: str, shards: Sequence[int], holder: str) -> None:
        self._answer()
        for shard in shards:
            if self.holders.get(shard, ("", 0.0))[0] == holder:
                del self.holders[shard]

    def _answer(self) -> None:
        if self.fails:
            raise LedgerUnavailable("connection", "gone")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def register(clock: Clock) -> Register:
    return Register(clock)


def leases(register: Any, clock: Clock, instance: str = "one") -> Leases:
    return Leases(register, "relay", instance, 10_000, clock)


async def test_only_what_the_ledger_grants_is_held(register: Register, clock: Clock) -> None:
    register.holders[3] = ("other#0", clock.now + 5)
    mine = leases(register, clock)
    await mine.renew({1, 2, 3})
    assert sorted(mine.held()) == [1, 2]
    clock.now += 6
    await mine.renew({1, 2, 3})
    assert sorted(mine.held()) == [1, 2, 3]


async def test_what_belongs_to_others_now_is_given_back_at_once(register: Register, clock: Clock) -> None:
    mine = leases(register, clock)
    await mine.renew({1, 2})
    await mine.renew({2})
    assert mine.held() == [2] and 1 not in register.holders


async def test_a_lease_is_not_relied_on_after_its_time_however_the_ledger_fails(
    register: Register, clock: Clock
) -> None:
    mine = leases(register, clock)
    await mine.renew({1})
    register.fails = True
    with pytest.raises(LedgerUnavailable):
        await mine.renew({1})
    assert mine.holds(1)
    clock.now += 10
    assert not mine.holds(1) and mine.held() == []


async def test_a_lease_counts_from_before_the_call_that_took_it(register: Register, clock: Clock) -> None:
    mine = leases(register, clock)
    register.seconds_per_call = 9.5
    await mine.renew({1})
    clock.now += 0.6
    assert not mine.holds(1)


async def test_who_was_stopped_for_longer_than_a_lease_goes_on_under_another_name(
    register: Register, clock: Clock
) -> None:
    mine = leases(register, clock)
    await mine.renew({1})
    before = mine.holder
    clock.now += 11  # meanwhile another instance may have had the shard, and have given it back
    await mine.renew({1})
    assert mine.holder != before and mine.held() == []
    await mine.renew({1})
    assert mine.held() == [1] and register.holders[1][0] == mine.holder


async def test_what_is_void_is_given_back_and_need_not_run_out(register: Register, clock: Clock) -> None:
    mine = leases(register, clock)
    await mine.renew({1})
    mine.start_over()
    assert mine.held() == []
    await mine.renew({1})
    assert mine.held() == [1]


async def test_releasing_gives_everything_back(register: Register, clock: Clock) -> None:
    mine = leases(register, clock)
    await mine.renew({1, 2})
    mine.start_over()
    await mine.renew({1})
    await mine.release()
    assert register.holders == {}
