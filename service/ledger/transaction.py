"""What the ledger is asked for, and what it answers.

The ledger knows tenants, items, numbers and bytes, and nothing of licensing. A transaction says what it expects, what
it takes, what it writes and what it announces; the ledger applies it whole or not at all (docs/design.md 3).

The structs are kept out of the garbage collector's sight (``gc=False``): nothing in them can lead back to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

QUANTITY_MAX = 2**53 - 1  # units; the largest integer that a number in Redis' Lua holds exactly
STEPS_PER_OFFSET = 16_384  # one message may need that many transactions, each with a position of its own
SILENT_PREFIX = "."  # items that begin so are only counted: no usage announcement, notice or wake-up for them
ANY_ITEM = "*"  # stands for "whatever it is" in the places where somebody waits


class RecordKey(NamedTuple):
    """The place of a record: field ``id`` of the hash ``{shard}:kind:tenant``."""

    kind: str
    tenant: str
    id: str


class IndexKey(NamedTuple):
    """The place of a set of names: ``{shard}:kind/tenant/id``."""

    kind: str
    tenant: str
    id: str


class Record(NamedTuple):
    """A stored record: opaque bytes and the version they were written with; no version of a shard is used twice."""

    version: int
    payload: bytes


class Expectation(NamedTuple):
    """A record must still have the version it was read at.

    ``version`` 0: the record does not exist. A negative version ``-n`` stands for "as the n-th transaction (counted
    from 1) of this same batch left it, which wrote or deleted it through its first attempt": so a batch may build on
    its own decisions.
    """

    key: RecordKey
    version: int


class Place(NamedTuple):
    """Where somebody waits: for room of an item on a tenant, or (``*``) for any change of the tenant."""

    tenant: str
    item: str


class Balance(NamedTuple):
    """An account must have these numbers when the transaction is decided; otherwise it is a conflict."""

    place: Place
    used: int
    reserved: int


class Take(msgspec.Struct, frozen=True, gc=False):
    """Units of an item for a tenant and everyone above it.

    ``path`` leads from the tenant itself up to its direct partner; root has no counters. ``used`` and ``reserved`` are
    differences; ``used`` counts reservations too, so a reservation of n is (n, n) and its commit (0, -n). A ``fact`` is
    recorded whatever the limits say.
    """

    path: tuple[str, ...]
    item: str
    used: int
    reserved: int = 0
    fact: bool = False


class Limit(msgspec.Struct, frozen=True, gc=False):
    """A new quota of an item on a tenant: ``value`` None is unlimited, ``overage`` None is soft (docs/domain.md 4)."""

    tenant: str
    item: str
    value: int | None
    overage: int | None


class Timer(msgspec.Struct, frozen=True, gc=False):
    """``member`` is due at ``due_ms`` (Unix milliseconds), or, with None, never."""

    member: str
    due_ms: int | None


class IndexChange(msgspec.Struct, frozen=True, gc=False):
    """``member`` belongs to the index, or belongs to it no longer."""

    key: IndexKey
    member: str
    present: bool


class Wait(msgspec.Struct, frozen=True, gc=False):
    """``who`` of ``tenant`` waits from now on.

    The reasons are the quota denials of the attempts ``denials_of`` (the ledger knows them) and ``static`` (the
    caller's; opaque text, of which the first line is part of what makes two refusals the same). It waits at ``places``
    and at every (tenant, item) of those denials. For whom it already waits, its ``since`` is kept.
    """

    tenant: str
    who: str
    static: str
    places: tuple[Place, ...]
    denials_of: tuple[int, ...] = ()
    indexed: bool = True  # False: the reasons are only kept, nobody is woken for them


class Emission(msgspec.Struct, frozen=True, gc=False):
    """An announcement: ``facts`` are the caller's (text without NUL); the ledger adds the revision and the denials.

    ``denials_of`` are the numbers of the earlier, refused attempts whose denials belong to it. With ``unless_same`` it
    is left out where the attempt's ``wait`` changes no reason.
    """

    facts: str
    denials_of: tuple[int, ...] = ()
    unless_same: bool = False


class Wake(msgspec.Struct, frozen=True, gc=False):
    """Whoever waits at ``place`` is looked at again; nothing happens where nobody waits there."""

    place: Place
    reason: str


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One way to decide: applied whole where no limit refuses what it takes.

    ``idle`` are (tenant, item) that must have nothing used after the attempt's own takes; with ``probe`` the takes are
    checked and not applied.
    """

    take: Sequence[Take] = ()
    limits: Sequence[Limit] = ()
    idle: Sequence[Place] = ()
    probe: bool = False
    put: Sequence[tuple[RecordKey, bytes]] = ()
    delete: Sequence[RecordKey] = ()
    index: Sequence[IndexChange] = ()
    timers: Sequence[Timer] = ()
    wait: Wait | None = None
    unwait: Sequence[tuple[str, str]] = ()  # (tenant, who): waits no longer
    forget: Sequence[tuple[Place, str]] = ()  # (place, waiter member): an entry that leads nowhere is dropped
    wake: Sequence[Wake] = ()
    emit: Sequence[Emission] = ()


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """One decision. The first of ``attempts`` that no limit refuses is applied; the last one usually takes nothing.

    ``standing`` are further expectations, in groups that many transactions share: a group is one tuple, handed over
    again and again, and is looked at once for all of them until one of its records changes.
    ``source`` and ``position`` make it happen once: not newer than the last one of that source in that shard, and it is
    a duplicate. ``idempotency_key`` does the same for callers without a stream. ``tags`` say of tenants what belongs
    into their usage announcements. ``cause`` is the id of the event that led to it. With ``check_only`` nothing is
    written. A ``provisional`` one does not bring all attempts that there are: where those it brings are refused,
    nothing happens, and the caller comes again with all of them.
    """

    attempts: Sequence[Attempt]
    expect: Sequence[tuple[RecordKey, int]] = ()  # as an ``Expectation``
    standing: Sequence[tuple[Expectation, ...]] = ()
    balances: Sequence[Balance] = ()
    source: str | None = None
    position: int = 0
    idempotency_key: str | None = None
    cause: str = ""
    tags: Sequence[tuple[str, str]] = ()
    check_only: bool = False
    provisional: bool = False


class Denial(NamedTuple):
    """A limit that stood in the way: ``used`` before the request, ``requested`` the net increase on that tenant."""

    tenant: str
    item: str
    limit: int
    used: int
    requested: int


class OutcomeKind(StrEnum):
    """What can become of a transaction."""

    APPLIED = "applied"  # the first attempt
    DENIED = "denied"  # a later attempt, or none: see Outcome.attempt
    DUPLICATE = "duplicate"  # decided before; nothing happened
    CONFLICT = "conflict"  # an expectation did not hold; nothing happened: read again and recompute
    STALLED = "stalled"  # an earlier one of the same source was not decided; nothing happened, order is kept
    REFUSED = "refused"  # all attempts of a provisional one were; nothing happened: come again with all there are
    OVERFLOW = "overflow"  # a sum would exceed QUANTITY_MAX; nothing happened


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a transaction.

    ``attempt`` is the number of the applied attempt, -1 for none; ``denials[i]`` are those of the refused attempt i.
    ``version`` is what its records were written with. A duplicate of an idempotency key carries the first outcome's
    attempt and denials.
    """

    kind: OutcomeKind
    attempt: int = -1
    denials: tuple[tuple[Denial, ...], ...] = ()
    version: int = 0

    @property
    def decided(self) -> bool:
        """Whether the caller is done with this transaction."""
        return self.kind in (OutcomeKind.APPLIED, OutcomeKind.DENIED, OutcomeKind.DUPLICATE)


class Account(msgspec.Struct, frozen=True, gc=False):
    """Usage and quota of one item on one tenant; ``value`` None is unlimited, ``overage`` None is soft."""

    used: int = 0
    reserved: int = 0
    value: int | None = None
    overage: int | None = None
    raised: int = 0  # bits of the notices that are raised: see notices below
    notices: int = 0  # how many notices there have been; part of their identity

    @property
    def limit(self) -> int | None:
        """What ``used`` may reach: value + overage of a hard quota, None where nothing is refused."""
        if self.value is None or self.overage is None:
            return None
        return self.value + self.overage


ALMOST_REACHED, REACHED, EXCEEDED = 1, 2, 4  # the bits of Account.raised


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """Why somebody waits, as the ledger keeps it."""

    since_ms: int
    static: str
    denials: tuple[Denial, ...]
    places: tuple[Place, ...]


class Waiter(NamedTuple):
    """An entry of the queue at a place: who has waited since when; ``member`` is its name in the queue, in order."""

    member: str
    since_ms: int
    tenant: str
    who: str
