"""The values that events are made of, and what the models of all events have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints

QUANTITY_MAX = 2**53 - 1  # smallest units; the largest integer that every JSON reader holds exactly
IDENTIFIER_LENGTH_MAX = 64  # characters
NAME_LENGTH_MAX = 256  # characters
CATALOG_NAME_LENGTH_MAX = 128  # characters
WORKLOADS_MAX = 10_000  # workloads in one message
ENTRIES_MAX = 1_000  # features or offering items in one message
TTL_SECONDS_MAX = 30 * 24 * 60 * 60

NO_CONTROL_CHARACTERS = r"^[^\u0000-\u001f\u007f-\u009f]*$"

Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=IDENTIFIER_LENGTH_MAX, pattern=r"^[A-Za-z0-9._:-]+$")
]

# A name that a person gave or that an agent found, such as a host name.
Name = Annotated[str, StringConstraints(max_length=NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)]

# A name from the catalogue. Only the catalogue can say whether it exists, so that an unknown item is answered as an
# unknown item and not as malformed data.
CatalogName = Annotated[
    str, StringConstraints(min_length=1, max_length=CATALOG_NAME_LENGTH_MAX, pattern=NO_CONTROL_CHARACTERS)
]

# Strict: neither true nor 1.0 nor "1" is a number of units.
Quantity = Annotated[int, Field(strict=True, ge=0, le=QUANTITY_MAX)]
PositiveQuantity = Annotated[int, Field(strict=True, ge=1, le=QUANTITY_MAX)]
Version = Annotated[int, Field(strict=True, ge=0, le=QUANTITY_MAX)]
Flag = Annotated[bool, Field(strict=True)]
# A plain Literal[0, 1] would let true and 1.0 pass, because they are equal to 1.
Status = Annotated[int, Field(strict=True, ge=0, le=1, json_schema_extra={"enum": [0, 1]})]
TtlSeconds = Annotated[int, Field(strict=True, ge=1, le=TTL_SECONDS_MAX)]

# The first wrong entry refuses the message; collecting ten thousand complaints would only hold up the others.
WorkloadIds = Annotated[tuple[Identifier, ...], FailFast(), Field(min_length=1, max_length=WORKLOADS_MAX)]
Features = Annotated[tuple[CatalogName, ...], FailFast(), Field(max_length=ENTRIES_MAX)]

DENIAL_CODES = (
    "quota_exceeded",
    "offering_item_not_enabled",
    "feature_not_available",
    "tenant_disabled",
    "unknown_workload_type",
    "not_allowed",
)

# Quantities by the name of their offering item.
Holding = dict[CatalogName, PositiveQuantity]


def known_values(*values: str) -> Any:
    """The values that an open set has today, for its JSON Schema (``x-known-values``).

    A reader must cope with a value that it does not know, so that adding one breaks nobody.
    """
    return Field(json_schema_extra={"x-known-values": list(values)})


class Data(BaseModel):
    """The ``data`` of an event. Unknown fields are ignored, so that a newer producer can talk to an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Quota(Data):
    """A quota as it is announced. ``value`` None: unlimited. ``overage`` None: soft (docs/domain.md 4)."""

    value: Quantity | None
    overage: Quantity | None


class Denial(Data):
    """One thing that stood in the way of a request.

    ``limit`` is value + overage on the tenant ``tenant_id``, ``used`` what was used there before the request, and
    ``requested`` the net increase on that tenant. ``context`` holds the error code (docs/domain.md 9) of a
    ``not_allowed``.
    """

    code: Annotated[str, known_values(*DENIAL_CODES)]
    offering_item: CatalogName | None = None
    feature: CatalogName | None = None
    tenant_id: Identifier | None = None
    limit: Quantity | None = None
    used: Quantity | None = None
    requested: Quantity | None = None
    message: str
    context: dict[str, Any] | None = None
