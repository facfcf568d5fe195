"""Everything that one shard holds, in one comparable value: for tests, for ``verify`` and for people."""

from __future__ import annotations

import msgspec

from service.ledger.outbox import Entry
from service.ledger.transaction import Account, IndexKey, Outcome, Place, Record, RecordKey, Waiter, Waiting


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a shard. Two ledgers that were asked the same in the same calls have equal ones."""

    sequence: int
    records: dict[RecordKey, Record]
    indexes: dict[IndexKey, frozenset[str]]
    accounts: dict[tuple[str, str], Account]  # by tenant and item
    waiting: dict[tuple[str, str], Waiting]  # by tenant and who
    queues: dict[str, tuple[Waiter, ...]]  # by the tenant of the place; in the order of the queue
    timers: dict[str, int]
    outbox: tuple[Entry, ...]
    positions: dict[str, int]
    idempotent: dict[str, Outcome]

    def dead_entries(self) -> set[tuple[Place, str]]:
        """Entries of queues that lead nowhere: nobody of that name waits at that place since that moment."""
        return {
            (place, waiter.member)
            for tenant, queue in self.queues.items()
            for waiter in queue
            for place in [Place(tenant, waiter.member.split("\x00", 1)[0])]
            if not self._lives(place, waiter)
        }

    def _lives(self, place: Place, waiter: Waiter) -> bool:
        reasons = self.waiting.get((waiter.tenant, waiter.who))
        return reasons is not None and reasons.since_ms == waiter.since_ms and place in reasons.places
