"""What requests and answers look like; the OpenAPI document is made of them.

Requests are read leniently, as clients of the platform send numbers and flags as texts (docs/http.md); unknown keys are
ignored, and answers may have more than is described.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.base import IDENTIFIER_LENGTH_MAX, NAME_LENGTH_MAX, NO_CONTROL_CHARACTERS, QUANTITY_MAX

Id = Annotated[str, Field(min_length=1, max_length=IDENTIFIER_LENGTH_MAX, pattern=r"^[A-Za-z0-9._:-]+$")]
TenantName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)]
Text = Annotated[str, Field(max_length=NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)]
Number = Annotated[int, Field(ge=0, le=QUANTITY_MAX)]
KEPT_LENGTH_MAX = 16_384  # characters of something that is only kept


def check_plain(value: Any) -> Any:
    """Something that can be given back as JSON. Raises ``ValueError`` for what cannot, such as half a character."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("has a number or a text that JSON cannot hold") from None
    return value


def _check_size(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value)) > KEPT_LENGTH_MAX:
        raise ValueError(f"has more than {KEPT_LENGTH_MAX} characters")
    return value


Plain = Annotated[dict[str, Any], AfterValidator(check_plain)]
Kept = Annotated[Plain, AfterValidator(_check_size)]
TENANT_EXAMPLE = "3f0e8c2a-9f5d-4c55-8a53-0d1b7f6c2e11"


class Shape(BaseModel):
    """Ignores what it does not know."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class ErrorBody(Shape):
    """What went wrong; ``code`` is one of docs/domain.md 9, or the status where none of them fits."""

    code: str = Field(examples=["1005"], pattern="^[0-9]+$")
    domain: str
    message: str
    context: dict[str, Any]
    details: dict[str, Any]


class Error(Shape):
    """Every error, whoever raised it (docs/domain.md 9)."""

    error: ErrorBody


# --- sign-in and clients


class Token(Shape):
    """What a client signs in for."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")
    expires_on: int = Field(description="Unix seconds.")
    id_token: str = ""
    scope: str


class ClientRequest(Shape):
    """A new API client."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"tenant_id": TENANT_EXAMPLE, "type": "api_client", "scopes": ["viewer"]}}
    )
    tenant_id: Id
    type: Literal["api_client", "agent"] = "api_client"
    scopes: list[str] | None = Field(default=None, max_length=16, description="No more than the caller's own.")
    data: Kept = {}


class Client(Shape):
    """An API client."""

    client_id: str
    client_secret: str | None = Field(default=None, description="Shown once, when the client is made.")
    tenant_id: str
    type: Literal["api_client", "agent"]
    status: str
    scopes: list[str]
    data: dict[str, Any]
    created_at: str


class ClientList(Shape):
    """API clients."""

    items: list[Client]


# --- tenants


class UpdateLock(Shape):
    """Whether a tenant may be updated from outside; only kept."""

    enabled: bool = False
    owner_id: Text | None = None


class TenantAttributes(Shape):
    """What of a tenant can be said when it is made and changed later."""

    enabled: bool | None = None
    contact: Kept | None = None
    update_lock: UpdateLock | None = None
    ancestral_access: bool | None = None
    language: Text | None = None
    customer_type: Text | None = None
    customer_id: Text | None = None
    internal_tag: Text | None = None
    pricing_mode: Literal["trial", "production", "suspended"] | None = None
    payment_model: Literal["pay_as_you_go", "prepaid"] | None = None


class TenantRequest(TenantAttributes):
    """A new tenant."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "Example Customer",
                "kind": "customer",
                "parent_id": TENANT_EXAMPLE,
                "contact": {"firstname": "Ada", "email": "ada@customer.example"},
            }
        }
    )
    name: TenantName
    kind: Literal["partner", "folder", "customer", "unit"]
    parent_id: Id


class TenantChange(TenantAttributes):
    """A change of a tenant; what is left out stays. ``version`` is the one that the change is of."""

    model_config = ConfigDict(json_schema_extra={"example": {"version": 1, "name": "Renamed Customer"}})
    version: Number | None = None
    name: TenantName | None = None
    kind: Literal["partner", "folder", "customer", "unit"] | None = None
    parent_id: Id | None = None


class Quota(Shape):
    """A quota: ``value`` null is unlimited, ``overage`` null is soft (docs/domain.md 4)."""

    value: int | None
    overage: int | None
    version: int


class OfferingItem(Shape):
    """An offering item of a tenant."""

    application_id: str
    name: str
    edition: str | None
    usage_name: str
    tenant_id: str
    status: Literal[0, 1]
    type: Literal["count", "feature", "infra"]
    measurement_unit: Literal["quantity", "bytes", "seconds", "n/a"]
    locked: bool
    updated_at: str
    infra_id: str | None = Field(default=None, description="On items that are bound to a storage component.")
    quota: Quota | None = Field(default=None, description="On what is on and has a quantity.")


class OfferingItemList(Shape):
    """Offering items."""

    items: list[OfferingItem]


class Tenant(Shape):
    """A tenant."""

    id: str
    parent_id: str
    version: int
    name: str
    kind: Literal["root", "partner", "folder", "customer", "unit"]
    enabled: bool
    has_children: bool | None = None
    contact: dict[str, Any]
    update_lock: dict[str, Any]
    ancestral_access: bool
    language: str
    customer_type: str
    customer_id: str | None
    internal_tag: str | None
    pricing_mode: Literal["trial", "production", "suspended"]
    payment_model: Literal["pay_as_you_go", "prepaid"] | None
    created_at: str
    updated_at: str
    deleted_at: str | None = None
    offering_items: list[OfferingItem] | None = None


class Cursors(Shape):
    """Where to go on."""

    after: str | None = Field(default=None, description="Absent on the last page.")


class Paging(Shape):
    """What comes behind this page."""

    cursors: Cursors


class TenantPage(Shape):
    """A page of tenants."""

    timestamp: str
    items: list[Tenant]
    paging: Paging


class IdList(Shape):
    """Ids or names."""

    items: list[str]


class OfferingItemPage(Shape):
    """A page of offering items."""

    timestamp: str
    items: list[OfferingItem]
    paging: Paging


class QuotaRequest(Shape):
    """A quota to set; ``version`` is the one that the change is of, 0 for one that never was."""

    value: Number | None = None
    overage: Number | None = None
    version: Number | None = None


class OfferingItemRequest(Shape):
    """An offering item to turn on or off; an absent quota stays."""

    application_id: Text | None = None
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=NO_CONTROL_CHARACTERS)]
    infra_id: Text | None = None
    status: Literal[0, 1] = 1
    quota: QuotaRequest | None = None


class OfferingItemsRequest(Shape):
    """A change of the items of a tenant; what is not named stays."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "offering_items": [
                    {
                        "application_id": "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb",
                        "name": "pw_base_workstations",
                        "status": 1,
                        "quota": {"value": 10, "overage": 0, "version": 0},
                    }
                ]
            }
        }
    )
    offering_items: list[OfferingItemRequest] = Field(max_length=1000)
    check_usage: bool = Field(default=True, description="False: what is in use is turned off too, here and below.")


# --- usages


class UsageItem(Shape):
    """The item that a usage is of."""

    status: Literal[0, 1]
    quota: Quota | None = None


class Usage(Shape):
    """What a tenant and those below it use of an item."""

    application_id: str | None
    name: str
    edition: str | None
    usage_name: str
    type: Literal["count", "feature", "infra"]
    measurement_unit: Literal["quantity", "bytes", "seconds", "n/a"]
    infra_id: str | None
    tenant_uuid: str
    tenant_id: int
    range_start: str
    value: int
    absolute_value: int
    offering_item: UsageItem


class UsageList(Shape):
    """Usages of a tenant."""

    items: list[Usage]


class TenantUsages(Shape):
    """The usages of one of several tenants."""

    tenant: str
    usages: list[Usage]


class TenantUsagesList(Shape):
    """Usages of several tenants."""

    items: list[TenantUsages]


class UsageReport(Shape):
    """Gauges to report; each entry is answered by itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"items": [{"tenant_id": TENANT_EXAMPLE, "usage_name": "local_storage", "value": 1073741824}]}
        }
    )
    items: Annotated[list[Any], Field(max_length=1000), AfterValidator(check_plain)]


class UsageReportAnswer(Shape):
    """One answer for each entry, with what it named and, only where it was refused, an ``error``."""

    items: list[dict[str, Any]]


# --- what there is


class Application(Shape):
    """A service that owns items."""

    id: str
    name: str
    type: str
    api_base_url: str = ""
    usages: list[str] = []


class ApplicationList(Shape):
    """Applications."""

    items: list[Application]


class Binding(Shape):
    """A tenant that has an application."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"application_id": "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb", "tenant_id": TENANT_EXAMPLE}
        }
    )
    application_id: str
    tenant_id: str


class Infrastructure(Shape):
    """A storage component."""

    id: str
    name: str
    capabilities: list[str]
    backend_type: str
    platform_owned: bool


class InfrastructureList(Shape):
    """Storage components."""

    items: list[Infrastructure]


class User(Shape):
    """Who asks."""

    id: str
    tenant_id: str
    login: str
    enabled: bool
    scopes: list[str]


class UserPage(Shape):
    """A page of users."""

    timestamp: str
    items: list[dict[str, Any]]
    paging: Paging
