"""What a plan was made from, and what is other than it was then (docs/domain.md 7).

Drift is: items, quotas, or a workload's holdings. Bytes are not drift; nor is what the parent has, or how much room
there is, as those can only refuse a switch, never make another one of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from service.rules.quotas import Quota
from service.rules.switch_reconciling import Outcome

_HASH_CHARACTERS = 32


class Move(NamedTuple):
    """How many workloads hold one thing and shall hold another (all items, sorted)."""

    held: tuple[str, ...]
    after: tuple[str, ...]
    workloads: int


class Basis(msgspec.Struct, frozen=True):
    """All that makes a plan this plan: small, whatever the number of workloads, so that it can be kept with its hash.

    ``before`` are the enabled items of the source edition with their quotas, ``after`` those that get enabled;
    ``moves`` are sorted. ``holders`` stands for who holds what (``tally.Tally.fingerprint``).
    """

    application: str
    from_edition: str | None
    to_edition: str
    before: Mapping[str, Quota]
    after: Mapping[str, Quota]
    moves: tuple[Move, ...]
    holders: str


class Drift(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference, as people are told of it: quotas are ``{"value", "overage"}``, numbers count workloads."""

    message: str
    offering_item: str | None = None
    expected: Any = None
    found: Any = None


def moves(outcomes: Iterable[Outcome]) -> tuple[Move, ...]:
    """What is held and shall be held, counted; workloads that hold nothing before and after are not in it."""
    counted: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
    for outcome in outcomes:
        if outcome.kind.held or outcome.after:
            counted[outcome.kind.held, outcome.after] += outcome.count
    return tuple(Move(held, after, workloads) for (held, after), workloads in sorted(counted.items()))


def plan_hash(basis: Basis) -> str:
    """A name for exactly this plan: 32 hexadecimal digits, the same in every process and every order of the input."""
    text = msgspec.json.encode(basis, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:_HASH_CHARACTERS]


def drift(expected: Basis, found: Basis) -> tuple[Drift, ...]:
    """What of ``found`` is other than ``expected``; empty exactly where both have the same hash."""
    differences = [
        *_editions(expected, found),
        *_items(expected.before, found.before, "was", "is"),
        *_holdings(expected.moves, found.moves),
    ]
    if not differences:
        differences += _items(expected.after, found.after, "was to be", "would be")
        differences += _results(expected.moves, found.moves)
    if not differences and expected.holders != found.holders:
        differences.append(Drift("workloads have exchanged what they hold"))
    return tuple(differences)


def shown_quota(quota: Quota | None) -> dict[str, int | None] | None:
    """A quota as others see it; None where the item is off."""
    return None if quota is None else {"value": quota.value, "overage": quota.overage}


def _editions(expected: Basis, found: Basis) -> list[Drift]:
    was, now = (
        {"application": each.application, "from_edition": each.from_edition, "to_edition": each.to_edition}
        for each in (expected, found)
    )
    return [
        Drift(f"the plan has the {name.replace('_', ' ')} {was[name]}, not {now[name]}", None, was[name], now[name])
        for name in was
        if was[name] != now[name]
    ]


def _items(expected: Mapping[str, Quota], found: Mapping[str, Quota], was: str, now: str) -> list[Drift]:
    return [
        Drift(
            f"{name} {was} {described(expected.get(name))}, and {now} {described(found.get(name))}",
            name,
            shown_quota(expected.get(name)),
            shown_quota(found.get(name)),
        )
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def described(quota: Quota | None) -> str:
    """A quota in words."""
    if quota is None:
        return "off"
    if quota.value is None:
        return "unlimited"
    if quota.overage is None:
        return f"limited to {quota.value}, soft"
    return f"limited to {quota.value} + {quota.overage}"


def _holdings(expected: Iterable[Move], found: Iterable[Move]) -> list[Drift]:
    was, now = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for counted, entries in ((was, expected), (now, found)):
        for move in entries:
            counted[move.held] += move.workloads
    return [
        Drift(f"{was[held]} workloads held {_named(held)}, now {now[held]} do", None, was[held], now[held])
        for held in sorted(was.keys() | now.keys())
        if was[held] != now[held] and held
    ]


def _results(expected: Iterable[Move], found: Iterable[Move]) -> list[Drift]:
    was, now = ({(move.held, move.after): move.workloads for move in entries} for entries in (expected, found))
    return [
        Drift(
            f"{was.get(key, 0)} workloads with {_named(key[0])} were to get {_named(key[1])}, now {now.get(key, 0)}",
            None,
            was.get(key, 0),
            now.get(key, 0),
        )
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]


def _named(held: tuple[str, ...]) -> str:
    return " + ".join(held) or "nothing"
