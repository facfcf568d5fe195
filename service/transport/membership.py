"""Which instances are alive, and which shards each of them looks after.

Every instance says on the board that it is alive, and computes from the same list, by itself, whose a shard is:
rendezvous hashing, so that one that comes or goes moves only its own share. The list may differ for a moment; a lease
decides then.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from service.ledger.base import Ledger
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.transport import board
from service.transport.board import Board
from service.transport.metrics import Metrics

ANSWER_SECONDS_MAX = 3.0  # then the ledger counts as away

log = structlog.get_logger(__name__)


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an instance says of itself; ``seen_ms`` is the clock of Redis."""

    id: str
    roles: tuple[str, ...]
    host: str
    process: int
    started_ms: int
    seen_ms: int
    http: str | None = None


def owner(shard: int, instances: Iterable[str]) -> str | None:
    """The instance that a shard belongs to: the one that draws the highest number for it."""
    return max(instances, key=lambda instance: _draw(shard, instance), default=None)


def share(instance: str, instances: Sequence[str], shards: int) -> set[int]:
    """The shards of one instance."""
    return {shard for shard in range(shards) if owner(shard, instances) == instance}


def _draw(shard: int, instance: str) -> bytes:
    return hashlib.blake2b(f"{shard}/{instance}".encode(), digest_size=8).digest()


class Membership:
    """This instance among the others."""

    def __init__(self, notes: Board, member: Member, ttl_ms: int) -> None:
        self._board = notes
        self._member = member
        self._ttl_ms = ttl_ms
        self.members: list[Member] = []

    @property
    def id(self) -> str:
        """This instance's name."""
        return self._member.id

    async def beat(self) -> None:
        """Say that this instance lives, and see who else does; who has fallen silent is struck off."""
        now_ms = await self._board.now_ms()
        member = msgspec.structs.replace(self._member, seen_ms=now_ms)
        await self._board.set(board.INSTANCES, {member.id: msgspec.json.encode(member).decode()})
        self.members, dead = living(await self._board.get(board.INSTANCES), now_ms, self._ttl_ms)
        await self._board.remove(board.INSTANCES, *dead)

    def describe(self, http: str | None) -> None:
        """Say where this instance's HTTP is."""
        self._member = msgspec.structs.replace(self._member, http=http)

    async def leave(self) -> None:
        """Strike this instance off."""
        await self._board.remove(board.INSTANCES, self.id)

    def with_role(self, role: str) -> list[str]:
        """The living instances that have a role."""
        return [member.id for member in self.members if role in member.roles]


def living(entries: dict[str, str], now_ms: int, ttl_ms: int) -> tuple[list[Member], list[str]]:
    """The members that were seen lately, and the names of the others."""
    members, dead = [], []
    for name, text in sorted(entries.items()):
        try:
            member = msgspec.json.decode(text, type=Member)
        except msgspec.DecodeError:  # of a version that wrote something else
            dead.append(name)
            continue
        if now_ms - member.seen_ms > ttl_ms:
            dead.append(name)
        else:
            members.append(member)
    return members, dead


class Leases:
    """The shards that this instance looks after under one name, each by a lease in the ledger.

    A lease is only relied on until ``ttl_ms`` after the call that took it began. Where a renewal comes too late,
    another instance may have had the shard in between; then this one goes on under a new holder's name, so that nothing
    it began before can still be taken for its own.
    """

    def __init__(
        self, ledger: Ledger, name: str, instance: str, ttl_ms: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._instance = instance
        self._ttl_ms = ttl_ms
        self._clock = clock
        self._number = 0
        self._until: dict[int, float] = {}
        self._void: list[str] = []  # names under which shards may still be held
        self.changed = asyncio.Event()

    @property
    def name(self) -> str:
        """What the lease is for."""
        return self._name

    @property
    def holder(self) -> str:
        """The name under which the shards are held now."""
        return f"{self._instance}#{self._number}"

    def held(self) -> list[int]:
        """The shards that are held at this moment, for a while still."""
        limit = self._clock() + self._ttl_ms / 4000
        return [shard for shard, until in self._until.items() if until > limit]

    def holds(self, shard: int) -> bool:
        """Whether a shard is still held."""
        return self._until.get(shard, 0.0) > self._clock()

    async def renew(self, wanted: set[int]) -> None:
        """Give back what belongs to others now, and take or renew what belongs here. Raises ``LedgerUnavailable``."""
        await self._clear_up()
        given_up = [shard for shard in self._until if shard not in wanted]
        for shard in given_up:
            del self._until[shard]
        if given_up:
            await self._ledger.release(self._name, given_up, self.holder)
        number, before, began = self._number, dict(self._until), self._clock()
        got = await self._ledger.lease(self._name, sorted(wanted), self.holder, self._ttl_ms) if wanted else set()
        if any(until <= self._clock() for until in before.values()):
            log.warning("leases had run out", lease=self._name, shards=len(before))
            self.start_over()
        if number != self._number:
            return  # what was got is void, and is given back the next time
        self._until = dict.fromkeys(got, began + self._ttl_ms / 1000)
        if set(before) != got or given_up:
            self.changed.set()

    async def _clear_up(self) -> None:
        """Give back what was held under earlier names, so that it need not run out before it can be taken again."""
        while self._void:
            holder = self._void[0]
            await self._ledger.release(self._name, range(self._ledger.shards), holder)
            self._void.remove(holder)

    async def release(self) -> None:
        """Give everything back."""
        shards = list(self._until)
        await self._clear_up()
        self._until.clear()
        if shards:
            await self._ledger.release(self._name, shards, self.holder)

    def start_over(self) -> None:
        """Rely on nothing that was held, and go on under another name: what was begun under the old one is void."""
        self._void.append(self.holder)
        self._number += 1
        self._until.clear()


async def keep(
    membership: Membership,
    leases: Sequence[tuple[Leases, str]],
    shards: int,
    seconds: float,
    metrics: Metrics,
    report: Callable[[Exception | None], None],
) -> None:
    """Beat and renew for ever; each lease belongs to the instances with its role.

    ``report`` hears each time whether the ledger could be written to.
    """
    while True:
        problem = await _attempt(membership.beat())
        for lease, role in leases:
            # Where the last heartbeat failed, those who lived before it count: a Redis that is too full for heartbeats
            # is emptied by nobody but the holders of its outboxes.
            wanted = share(membership.id, membership.with_role(role), shards)
            problem = await _attempt(lease.renew(wanted)) or problem
            metrics.shards.labels(lease.name).set(len(lease.held()))
        report(problem)
        await asyncio.sleep(seconds)


async def _attempt(work: Coroutine[Any, Any, None]) -> Exception | None:
    """Do something within a bound; the error, if any."""
    try:
        await asyncio.wait_for(work, ANSWER_SECONDS_MAX)
    except TimeoutError:
        return LedgerUnavailable("timeout", f"no answer in {ANSWER_SECONDS_MAX:g} seconds")
    except (LedgerUnavailable, LedgerError) as error:
        return error
    return None
