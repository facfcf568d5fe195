"""Usage of an offering item on a tenant: what billing reads (docs/domain.md 4 and 8)."""

from __future__ import annotations

from typing import Literal

from schemas.base import CatalogName, Data, Quantity, Quota
from schemas.tenants import PricingMode

Unit = Literal["quantity", "bytes", "seconds", "n/a"]


class UsageChanged(Data):
    """A snapshot: absolute numbers of the tenant and everything below it; the last one counts.

    ``used`` counts assignments and reservations, ``reserved`` is the part of it that is only reserved; what is billed
    is their difference. ``edition`` is null for items that belong to none, ``application_id`` for an item that the
    catalogue no longer has.
    """

    offering_item: CatalogName
    usage_name: CatalogName
    application_id: CatalogName | None
    edition: CatalogName | None
    unit: Unit
    used: Quantity
    reserved: Quantity
    quota: Quota
    pricing_mode: PricingMode
