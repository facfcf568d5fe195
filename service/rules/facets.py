"""Which of two pieces of news about one facet counts (docs/contracts.md 1).

A facet is one thing that events say something of: a plan's content, a plan on a workload, a workload's registration,
its usage, a tenant, an item of a tenant. Its latest news is its state, whatever the order in which the news arrive.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import NewType

REMEMBERED_SECONDS = 24 * 3600  # what was removed is remembered for a day, so that late news does not revive it

Stamp = NewType("Stamp", bytes)
"""When something was said, and by which event. Every facet has one, and few are ever looked into, so they stay bytes:
seven of the time (microseconds since 1970), four that stand for the source and six for the event's id, both digests,
and, where the event has one, the sequence. Numbers are big-endian, so that times compare as bytes do."""

_SOURCE, _ID, _SEQUENCE = 7, 11, 17  # where each of them begins


def digest(text: str) -> str:
    """Eight characters that stand for a long name; enough to tell an event from its neighbours."""
    return base64.urlsafe_b64encode(_digest(text)).decode()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=6).digest()


@lru_cache(maxsize=4096)
def _source_digest(source: str) -> bytes:
    """What stands for a sender; senders are few, fewer still speak of one facet, and they come with every event."""
    return _digest(source)[: _ID - _SOURCE]


def stamp(source: str, event_id: str, time_us: int, sequence: int | None) -> Stamp:
    """The stamp of an event."""
    said = time_us.to_bytes(_SOURCE, "big") + _source_digest(source) + _digest(event_id)
    if sequence is None:
        return Stamp(said)
    return Stamp(said + sequence.to_bytes(sequence.bit_length() // 8 + 1, "big"))


def time_us(stamp: Stamp) -> int:
    """When it was said, in microseconds since 1970."""
    return int.from_bytes(stamp[:_SOURCE], "big")


def event_digest(stamp: Stamp) -> str:
    """What stands for the event that said it: its source and its id."""
    return base64.urlsafe_b64encode(stamp[_SOURCE:_SEQUENCE]).decode()


def supersedes(news: Stamp, recorded: Stamp | None) -> bool:
    """Whether ``news`` counts over what is recorded.

    ``sequence`` orders what one source says; without it, or between different sources, ``time`` does. The same event
    again is no news; at equal places the later arrival wins.
    """
    if recorded is None:
        return True
    if news[_SOURCE:_ID] == recorded[_SOURCE:_ID]:
        if news[_ID:_SEQUENCE] == recorded[_ID:_SEQUENCE]:
            return False
        if len(news) > _SEQUENCE < len(recorded):
            return int.from_bytes(news[_SEQUENCE:], "big") >= int.from_bytes(recorded[_SEQUENCE:], "big")
    return news[:_SOURCE] >= recorded[:_SOURCE]


def newest(news: Stamp, recorded: Stamp | None) -> Stamp:
    """The stamp of news that count whatever is recorded, with a time that is not before the recorded one's."""
    if recorded is None or news[:_SOURCE] >= recorded[:_SOURCE]:
        return news
    return Stamp(recorded[:_SOURCE] + news[_SOURCE:])
