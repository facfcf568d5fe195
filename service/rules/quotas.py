"""What setting a quota means (docs/domain.md 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from service.ledger import transaction


class Quota(NamedTuple):
    """``value`` None is unlimited; ``overage`` None is soft, a number makes the quota hard."""

    value: int | None
    overage: int | None


UNLIMITED = Quota(None, None)


def settle(value: int | None, overage: int | None, payment_model: str) -> Quota:
    """The quota that is meant: unlimited has no overage, and a prepaid tenant's quota is always hard."""
    if value is None:
        return UNLIMITED
    if overage is None and payment_model == "prepaid":
        return Quota(value, 0)
    return Quota(value, overage)


def too_large(quota: Quota) -> bool:
    """Whether value and overage together leave the range of exact integers."""
    return (quota.value or 0) + (quota.overage or 0) > transaction.QUANTITY_MAX


def allowed(quota: Quota) -> int | None:
    """Up to where nothing is taken away when a shortfall is revoked: value + overage, or the value of a soft quota."""
    if quota.value is None:
        return None
    return quota.value + (quota.overage or 0)


def total(summands: Iterable[Quota]) -> Quota:
    """The sum of quotas (docs/domain.md 7): unlimited dominates, values and overages add up, and one soft summand makes
    the sum soft. What would leave the range of exact integers ends at its edge, which no usage can pass either.

    The sum of nothing is unlimited.
    """
    value, overage, soft, empty = 0, 0, False, True
    for each in summands:
        if each.value is None:
            return UNLIMITED
        empty = False
        value += each.value
        soft = soft or each.overage is None
        overage += each.overage or 0
    if empty:
        return UNLIMITED
    value = min(value, transaction.QUANTITY_MAX)
    return Quota(value, None if soft else min(overage, transaction.QUANTITY_MAX - value))
