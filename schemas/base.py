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


# Open sets: a reader must cope with a value that it does not know. The known ones stand in the JSON Schema as
# x-known-values, so that adding one breaks nobody.
def known_values(*values: str) -> Any:
    """What a field of an open set of values says in its JSON Schema."""
    return Field(json_schema_extra={"x-known-values": list(values)})


class Data(BaseModel):
    """The ``data`` of an event. Unknown fields are ignored, so that a newer producer can talk to an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
