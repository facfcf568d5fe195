"""Tenants: what the platform says of them (docs/domain.md 2), and what is announced."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Data, Flag, Identifier, Name, Version

Kind = Literal["partner", "folder", "customer", "unit"]
PricingMode = Literal["trial", "production", "suspended"]
PaymentModel = Literal["pay_as_you_go", "prepaid"]


class TenantUpserted(Data):
    """The tenant of the envelope exists below ``parent_id``. Another parent moves it; an absent field stays as it is.

    An update that names a stale ``version`` is refused; one that names none is not checked.
    """

    parent_id: Identifier
    kind: Kind
    name: Annotated[Name, Field(min_length=1)]
    enabled: Flag = True
    pricing_mode: PricingMode | None = None
    payment_model: PaymentModel | None = None
    version: Version | None = None


class TenantDeleted(Data):
    """The tenant of the envelope is gone; an upsert brings it back."""


class TenantChanged(Data):
    """A tenant as it is now. ``payment_model`` is the one in force, inherited where the tenant has none of its own."""

    parent_id: Identifier
    kind: Kind
    name: str
    enabled: Flag
    deleted: Flag
    pricing_mode: PricingMode
    payment_model: PaymentModel
    version: Version
