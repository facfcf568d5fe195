"""Notices of quotas that fill up (docs/domain.md 4)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.base import CatalogName, Data, Quantity, Quota


class QuotaAlert(Data):
    """Usage has crossed a threshold on a tenant. ``threshold_percent`` goes with ``almost_reached``."""

    offering_item: CatalogName
    used: Quantity
    quota: Quota
    threshold_percent: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
