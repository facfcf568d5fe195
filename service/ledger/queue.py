"""Entries of the queues of those who wait: text whose order is the order of the queue.

``item NUL since as 16 digits NUL tenant NUL who``: compared byte by byte, the entries of one item lie together, oldest
first.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.ledger.outbox import CELL, ROW, SEPARATOR, parse_denials
from service.ledger.transaction import Denial, Place, Waiter, Waiting


def member(item: str, since_ms: int, tenant: str, who: str) -> str:
    """The entry of ``who`` of ``tenant``, who waits for ``item`` since ``since_ms``."""
    return f"{item}{SEPARATOR}{since_ms:016d}{SEPARATOR}{tenant}{SEPARATOR}{who}"


def waiter(entry: str) -> Waiter:
    """The entry, read."""
    _, since_ms, tenant, who = entry.split(SEPARATOR)
    return Waiter(entry, int(since_ms), tenant, who)


def waiting(raw: str) -> Waiting:
    """Why somebody waits, as commit.lua keeps it: ``since NUL static NUL places NUL denials``."""
    since_ms, static, places, denials = raw.split(SEPARATOR)
    rows = (row.split(CELL) for row in places.split(ROW) if row)
    return Waiting(int(since_ms), static, parse_denials(denials), tuple(Place(tenant, item) for tenant, item in rows))


def places_of(denials: Iterable[Denial]) -> list[Place]:
    """The places where room for those denials would appear, each once, in their order."""
    return list(dict.fromkeys(Place(denial.tenant, denial.item) for denial in denials))


# --- wake-ups: work for later that the ledger itself writes

JOB = "job"  # the kind of record, and what its timer begins with


def wake_id(place: Place) -> str:
    """The id of the job that looks again at whoever waits at ``place``."""
    return f"wake/{place.tenant}/{place.item}"


def wake_payload(place: Place, reason: str, cause: str) -> bytes:
    """The payload of that job."""
    return SEPARATOR.join(("wake", place.tenant, place.item, reason, cause)).encode()
