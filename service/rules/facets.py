"""Which of two pieces of news about one facet counts (docs/contracts.md 1).

A facet is one thing that events say something of: a plan's content, a plan on a workload, a workload's registration,
its usage, a tenant, an item of a tenant. Its latest news is its state, whatever the order in which the news arrive.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

import msgspec

REMEMBERED_SECONDS = 24 * 3600  # what was removed is remembered for a day, so that late news does not revive it


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """When something was said, and by which event: ``source`` and ``id`` are digests of the event's."""

    time_us: int
    sequence: int | None
    source: str
    id: str


def digest(text: str) -> str:
    """Eight characters that stand for a long name; enough to tell an event from its neighbours."""
    return base64.urlsafe_b64encode(hashlib.blake2b(text.encode(), digest_size=6).digest()).decode()


@lru_cache(maxsize=4096)
def source_digest(source: str) -> str:
    """The digest of a sender; senders are few and come again with every event."""
    return digest(source)


def stamp(source: str, event_id: str, time_us: int, sequence: int | None) -> Stamp:
    """The stamp of an event."""
    return Stamp(time_us, sequence, source_digest(source), digest(event_id))


def supersedes(news: Stamp, recorded: Stamp | None) -> bool:
    """Whether ``news`` counts over what is recorded.

    ``sequence`` orders what one source says; without it, or between different sources, ``time`` does. The same event
    again is no news; at equal places the later arrival wins.
    """
    if recorded is None:
        return True
    if news.source == recorded.source:
        if news.id == recorded.id:
            return False
        if news.sequence is not None and recorded.sequence is not None:
            return news.sequence >= recorded.sequence
    return news.time_us >= recorded.time_us


def newest(news: Stamp, recorded: Stamp | None) -> Stamp:
    """The stamp of news that count whatever is recorded, with a time that is not before the recorded one's."""
    if recorded is None or news.time_us >= recorded.time_us:
        return news
    return Stamp(recorded.time_us, news.sequence, news.source, news.id)
