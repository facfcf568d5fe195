"""The record of a workload, and the bytes that it is stored as: there are more of these than of anything else.

The stored form is a MessagePack array that begins with the number of its format. Words and identifiers are shortened
(`compact`), what follows from something else is left out, and so is what few workloads have: it stands at the end.

The structs are kept out of the garbage collector's sight (``gc=False``): nothing in them can lead back to them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from service.compact import abbreviate, expand, pack_identifier, unpack_identifier
from service.rules.facets import Stamp

FORMAT = 1
COMBINATIONS_CACHED = 16_384  # of type, operating system, items, gauges and features: a catalogue leaves room for few

_VIRTUAL, _WAITING = 1, 2  # bits of the flags
_APPLIED = True


class Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A plan on a workload: applied, or (remembered for a day from ``ended_ms``) revoked."""

    applied: bool
    stamp: Stamp
    ended_ms: int = 0


class Workload(msgspec.Struct, frozen=True, gc=False):
    """A workload: what was said of it, and what it holds. Without a type it is not registered (yet, or any longer).

    ``holding`` says of each item when it was acquired (Unix milliseconds); a workload holds one unit of it. ``gauges``
    are the bytes reported, by gauge; ``counted`` where they are counted, by item. ``announced`` numbers the changes
    that have been announced of it. News of plans and usage from before ``removed_at_us`` count for nothing. ``former``
    is what it held before the latest switch, behind a digest of that switch's id; empty where it was not switched.
    """

    type: str | None = None
    stamp: Stamp | None = None
    os: str | None = None
    os_family: str | None = None
    virtual: bool = False
    links: dict[str, Link] = {}
    holding: dict[str, int] = {}
    uncovered: tuple[str, ...] = ()
    waiting: bool = False
    announced: int = 0
    gauges: dict[str, int] = {}
    counted: dict[str, int] = {}
    usage_stamp: Stamp | None = None
    removed_at_us: int = -1
    name: str | None = None
    former: tuple[str, ...] = ()


class _Stored(msgspec.Struct, array_like=True, tag_field="format", tag=FORMAT, gc=False):
    """The array as it is read."""

    words: bytes  # all that is said in words: there are few combinations, and each is taken apart once
    stamp: Stamp | None
    flags: int
    applied: dict[Any, Stamp]  # by plan
    since_ms: int  # when the first of the items was acquired
    moments: list[int]  # when each of them was, as its distance from that
    quantities: list[int]  # of the gauges
    counted: list[int] | None  # of the items they are counted by; None: the same quantities
    usage_stamp: Stamp | None
    announced: int
    name: str | None
    links: dict[Any, Link] = {}  # by plan, where it is not just applied
    removed_at_us: int = -1
    former: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode
_decode_words = msgspec.msgpack.Decoder(list[Any]).decode


def encode(workload: Workload) -> bytes:
    """The bytes of a workload's record."""
    applied: dict[str | bytes, Stamp] = {}
    links: dict[str | bytes, Link] = {}
    for plan, link in workload.links.items():
        if link.applied and not link.ended_ms:
            applied[pack_identifier(plan)] = link.stamp
        else:
            links[pack_identifier(plan)] = link
    holding, gauges, counted = workload.holding, workload.gauges, workload.counted
    words = (
        workload.type,
        workload.os,
        workload.os_family,
        tuple(holding),
        tuple(gauges),
        tuple(counted),
        workload.uncovered,
    )
    since_ms = next(iter(holding.values()), 0)
    quantities, counts = list(gauges.values()), list(counted.values())
    row = [
        FORMAT,
        _shorten(words),
        workload.stamp,
        workload.virtual * _VIRTUAL + workload.waiting * _WAITING,
        applied,
        since_ms,
        [moment - since_ms for moment in holding.values()],
        quantities,
        None if counts == quantities else counts,
        workload.usage_stamp,
        workload.announced,
        workload.name,
    ]
    if workload.former:
        row += (links, workload.removed_at_us, _shorten((workload.former,)))
    elif links or workload.removed_at_us != -1:
        row += (links, workload.removed_at_us)
    return _encode(row)


def decode(payload: bytes) -> Workload:
    """A workload's record from its bytes; raises ``msgspec.DecodeError`` where they are of another format."""
    stored = _decode(payload)
    type_, os, os_family, items, gauges, counted, uncovered = _lengthen(stored.words)
    links = {unpack_identifier(plan): Link(_APPLIED, stamp) for plan, stamp in stored.applied.items()}
    if stored.links:
        links |= {unpack_identifier(plan): link for plan, link in stored.links.items()}
    flags, since_ms, quantities = stored.flags, stored.since_ms, stored.quantities
    counts = quantities if stored.counted is None else stored.counted
    # Both of each pair were written from one dict. That zip makes sure of it would cost as much as all of the decoding.
    holding = {item: since_ms + moment for item, moment in zip(items, stored.moments)}  # noqa: B905 - see above
    counted_now = dict(zip(counted, counts))  # noqa: B905 - see above
    return Workload(
        type_,
        stored.stamp,
        os,
        os_family,
        flags & _VIRTUAL != 0,
        links,
        holding,
        uncovered,
        flags & _WAITING != 0,
        stored.announced,
        dict(zip(gauges, quantities)),  # noqa: B905 - see above
        counted_now,
        stored.usage_stamp,
        stored.removed_at_us,
        stored.name,
        _lengthen(stored.former)[0] if stored.former else (),
    )


@lru_cache(COMBINATIONS_CACHED)
def _shorten(words: tuple[Any, ...]) -> bytes:
    return _encode([tuple(map(abbreviate, some)) if type(some) is tuple else abbreviate(some) for some in words])


@lru_cache(COMBINATIONS_CACHED)
def _lengthen(short: bytes) -> tuple[Any, ...]:
    return tuple(tuple(map(expand, some)) if type(some) is list else expand(some) for some in _decode_words(short))
