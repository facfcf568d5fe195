"""Messages that cannot be handled: why, where they stood, and their original bytes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from schemas.base import Data, Quantity, known_values

Code = Literal[
    "invalid_envelope",
    "unknown_type",
    "invalid_data",
    "time_in_future",
    "unknown_tenant",
    "unknown_offering_item",
    "unknown_feature",
    "unknown_edition",
    "message_too_large",
    "version_mismatch",
    "not_allowed",
]
CODES: tuple[Code, ...] = get_args(Code)


class Header(Data):
    """One header of the original message, in its place; a name may come more than once."""

    name: str
    value_base64: str | None


class MessageRejected(Data):
    """A message that changed nothing, complete enough to be sent again once the cause is gone.

    ``context`` holds what the code is about: the ``path`` of a wrong field, the error code behind ``not_allowed``.
    ``key`` is the original key as text, ``key_base64`` stands in its place where it is no text. A value that would make
    this message too large is left out; ``size`` (bytes) and ``sha256`` (hex) describe it in any case.
    """

    code: Annotated[str, known_values(*CODES)]
    message: str
    context: dict[str, Any] | None = None
    topic: str
    partition: Quantity
    offset: Quantity
    key: str | None = None
    key_base64: str | None = None
    headers: tuple[Header, ...]
    value_base64: str | None = None
    size: Quantity
    sha256: str
