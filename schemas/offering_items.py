"""Offering items of a tenant and their quotas (docs/domain.md 3 and 4)."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import FailFast, Field, model_validator

from schemas.base import (
    ENTRIES_MAX,
    QUANTITY_MAX,
    CatalogName,
    Data,
    Flag,
    Quantity,
    Quota,
    Status,
    Version,
    known_values,
)

ChangeReason = Literal["set", "cascade", "switch"]


class QuotaChange(Data):
    """A quota to set. ``value`` null: unlimited. ``overage`` null or absent: soft, or 0 on a prepaid tenant."""

    value: Quantity | None
    overage: Quantity | None = None
    version: Version | None = None

    @model_validator(mode="after")
    def _check_the_limit_is_a_quantity(self) -> QuotaChange:
        if self.value is not None and self.overage is not None and self.value + self.overage > QUANTITY_MAX:
            raise ValueError(f"value + overage must be at most {QUANTITY_MAX}")
        return self


class OfferingItemChange(Data):
    """The status and, where given, the quota of one offering item.

    An absent ``quota`` keeps what is, ``quota: null`` means unlimited.
    """

    name: CatalogName
    status: Status
    quota: QuotaChange | None = None

    @property
    def sets_quota(self) -> bool:
        """Whether the message says anything of the quota; a null says that there is no limit."""
        return "quota" in self.model_fields_set


class OfferingItemsSet(Data):
    """Offering items of the tenant of the envelope; what is not named stays as it is."""

    items: Annotated[tuple[OfferingItemChange, ...], FailFast(), Field(max_length=ENTRIES_MAX)]
    cascade: Flag = False
    on_shortfall: Literal["keep", "revoke"] = "keep"

    @model_validator(mode="after")
    def _check_every_item_is_named_once(self) -> OfferingItemsSet:
        # Two answers for one item in one change would make the order of a list decide.
        if len({item.name for item in self.items}) != len(self.items):
            raise ValueError("an offering item is named twice")
        return self


class VersionedQuota(Quota):
    """A quota and the version that an update of it may name; 0 while it is unlimited."""

    version: Version


class OfferingItemChanged(Data):
    """An offering item of a tenant as it is now, and what changed it."""

    offering_item: CatalogName
    status: Status
    quota: VersionedQuota
    reason: Annotated[str, known_values(*get_args(ChangeReason))]
