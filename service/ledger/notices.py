"""When a threshold of a quota is crossed (docs/domain.md 4); commit.lua has the same few lines."""

from __future__ import annotations

from service.ledger.transaction import ALMOST_REACHED, EXCEEDED, REACHED, Account

NAMES = ((ALMOST_REACHED, "almost_reached"), (REACHED, "reached"), (EXCEEDED, "exceeded"))
CLEARED = "cleared"


def conditions(account: Account, percent: int) -> int:
    """The bits of the thresholds at or behind which ``account.used`` is, with "almost" at ``percent`` of the value."""
    if account.value is None:
        return 0
    cap = account.value if account.limit is None else account.limit
    exceeded = EXCEEDED if account.used > cap else 0
    if account.value == 0:
        return exceeded
    # The same floating-point steps as in Lua, so that both round alike.
    almost = ALMOST_REACHED if account.used >= float(account.value) * percent / 100 else 0
    reached = REACHED if account.used >= account.value else 0
    return almost | reached | exceeded


def crossings(raised: int, present: int) -> list[str]:
    """The notices that are due where the bits ``raised`` become ``present``, in the order in which they are given.

    ``cleared`` comes first, so that whoever reads in order ends with what holds now.
    """
    names = [CLEARED] if raised & ALMOST_REACHED and not present & ALMOST_REACHED else []
    return names + [name for bit, name in NAMES if present & bit and not raised & bit]
