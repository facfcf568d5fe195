"""The workloads of a customer by kind, so that a hundred thousand of them are planned in milliseconds.

What a switch makes of a workload depends on its kind alone, and the workloads of a customer are of few kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from service.rules.assignment import WorkloadFacts

_FINGERPRINT_BYTES = 16
_FINGERPRINTS = 1 << (8 * _FINGERPRINT_BYTES)  # sums are taken modulo this


class Kind(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a workload stands. Build it with ``kind``, which puts ``held`` in order.

    ``features`` are those that all enabled plans applied to it request, whether they apply to it or not; ``protected``
    says whether there is such a plan. ``held`` are the items it holds, of all applications, sorted. ``former`` is for
    an undo only: what it held before the switch that is undone (None: not known, it is new since).
    """

    facts: WorkloadFacts
    features: frozenset[str]
    protected: bool
    held: tuple[str, ...]
    former: tuple[str, ...] | None = None


def kind(
    facts: WorkloadFacts,
    features: Iterable[str],
    *,
    protected: bool,
    held: Iterable[str],
    former: Iterable[str] | None = None,
) -> Kind:
    """The kind of a workload that stands so; equal ones are equal and have equal hashes."""
    before = None if former is None else tuple(sorted(former))
    return Kind(facts, frozenset(features), protected, tuple(sorted(held)), before)


class Tally:
    """How many workloads there are of each kind.

    ``fingerprint`` stands for who holds what: it is the same for the same workloads with the same holdings, in whatever
    order they were added and taken out, and another one when two workloads exchange what they hold. Bytes and plans
    are no part of it.
    """

    __slots__ = ("counts", "fingerprint")

    def __init__(self, entries: Iterable[tuple[Kind, int]] = (), fingerprint: int = 0) -> None:
        self.counts: dict[Kind, int] = dict(entries)
        self.fingerprint = fingerprint

    def add(self, workload: str, kind: Kind) -> None:
        """Count a workload, known by its id."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.fingerprint = (self.fingerprint + _holding_digest(workload, kind)) % _FINGERPRINTS

    def remove(self, workload: str, kind: Kind) -> None:
        """Take out a workload that was counted as of this kind; ``KeyError`` where none was."""
        left = self.counts[kind] - 1
        if left:
            self.counts[kind] = left
        else:
            del self.counts[kind]
        self.fingerprint = (self.fingerprint - _holding_digest(workload, kind)) % _FINGERPRINTS

    def merge(self, other: Tally) -> None:
        """Count all that another tally has counted; their workloads must not overlap."""
        for each, count in other.counts.items():
            self.counts[each] = self.counts.get(each, 0) + count
        self.fingerprint = (self.fingerprint + other.fingerprint) % _FINGERPRINTS

    def entries(self) -> list[tuple[Kind, int]]:
        """Every kind with its count, in an order that depends on nothing but them."""
        return sorted(self.counts.items(), key=lambda entry: _sort_key(entry[0]))

    def __iter__(self) -> Iterator[Kind]:
        return iter(self.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return self.counts == other.counts and self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]  # a tally changes


def _sort_key(kind: Kind) -> bytes:
    return msgspec.json.encode(kind, order="deterministic")


def _holding_digest(workload: str, kind: Kind) -> int:
    """A number that stands for what one workload holds; who holds nothing counts for nothing."""
    if not kind.held:
        return 0
    text = "\0".join((workload, *kind.held))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=_FINGERPRINT_BYTES).digest(), "big")
