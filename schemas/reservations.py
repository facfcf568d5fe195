"""Reservations: units set aside for a purpose before they are assigned (docs/domain.md 6)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import ENTRIES_MAX, CatalogName, Data, Denial, Holding, Identifier, PositiveQuantity, TtlSeconds

Mode = Literal["all_or_nothing", "check_only"]
Items = Annotated[dict[CatalogName, PositiveQuantity], Field(min_length=1, max_length=ENTRIES_MAX)]


class ReservationReserve(Data):
    """Set aside these units, all of them or none; ``check_only`` only says whether that would succeed."""

    reservation_id: Identifier
    items: Items
    ttl_seconds: TtlSeconds = 3600
    mode: Mode = "all_or_nothing"


class ReservationCommit(Data):
    """The reserved units become the assignment of a workload."""

    reservation_id: Identifier
    workload_id: Identifier


class ReservationExtend(Data):
    """The reservation lasts ``ttl_seconds`` from now."""

    reservation_id: Identifier
    ttl_seconds: TtlSeconds


class ReservationRelease(Data):
    """The reserved units are free again."""

    reservation_id: Identifier


class ReservationAnswered(Data):
    """What became of a reservation. ``expires_at`` (RFC 3339) is there while it holds its units.

    ``items`` is empty where a reservation is not known.
    """

    reservation_id: Identifier
    items: Holding
    mode: Mode
    expires_at: str | None = None
    denials: tuple[Denial, ...] | None = None
