"""What stands in the outbox: an announcement as the ledger kept it, in the step of its decision."""

from __future__ import annotations

import msgspec

from service.ledger.transaction import Denial

SEPARATOR = "\x00"  # between the parts of an entry
ROW = "\x02"  # between denials
CELL = "\x01"  # between the parts of a denial
NONE = "-1"  # in the place of a value or an overage


class Facts(msgspec.Struct, frozen=True):
    """The caller's announcement, with what only the ledger knows."""

    revision: int
    facts: str
    denials: tuple[Denial, ...]


class UsageChanged(msgspec.Struct, frozen=True):
    """The numbers of an account after a batch that changed them."""

    revision: int
    time_ms: int
    tenant: str
    item: str
    used: int
    reserved: int
    value: int | None
    overage: int | None
    tag: str
    cause: str


class Notice(msgspec.Struct, frozen=True):
    """A threshold that was crossed; ``number`` counts the notices of the account."""

    revision: int
    time_ms: int
    tenant: str
    item: str
    kind: str  # almost_reached, reached, exceeded, cleared
    used: int
    value: int | None
    overage: int | None
    percent: int
    number: int
    cause: str


Entry = Facts | UsageChanged | Notice


def parse(raw: str) -> Entry:
    """One entry as commit.lua wrote it: ``kind NUL revision NUL ...``."""
    kind, *parts = raw.split(SEPARATOR)
    if kind == "E":
        revision, facts, denials = parts
        return Facts(int(revision), facts, parse_denials(denials) if denials else ())
    if kind == "U":
        revision, time_ms, tenant, item, used, reserved, value, overage, tag, cause = parts
        return UsageChanged(
            int(revision),
            int(time_ms),
            tenant,
            item,
            int(used),
            int(reserved),
            None if value == NONE else int(value),
            None if overage == NONE else int(overage),
            tag,
            cause,
        )
    if kind == "N":
        revision, time_ms, tenant, item, name, used, value, overage, percent, number, cause = parts
        return Notice(
            int(revision),
            int(time_ms),
            tenant,
            item,
            name,
            int(used),
            None if value == NONE else int(value),
            None if overage == NONE else int(overage),
            int(percent),
            int(number),
            cause,
        )
    raise ValueError(f"an outbox entry of an unknown kind: {kind!r}")


def parse_denials(text: str) -> tuple[Denial, ...]:
    """Denials as commit.lua writes them, in the outbox and where it keeps why somebody waits."""
    if not text:
        return ()
    rows = (row.split(CELL) for row in text.split(ROW))
    return tuple(Denial(tenant, item, int(cap), int(used), int(asked)) for tenant, item, cap, used, asked in rows)
