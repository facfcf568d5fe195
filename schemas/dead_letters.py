"""Messages that cannot be handled: why, where they stood, and their original bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
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
VALUE_BYTES_MAX = 700 * 1024  # a larger original value is left out
TEXT_BYTES_MAX = 1_000_000  # of key, value and headers as JSON: with the envelope around them still below 1 MiB
KEY_BYTES_MAX = 1024  # a longer key is no tenant id and would only push out the headers

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


def describe(
    *,
    code: Code,
    message: str,
    context: Mapping[str, Any] | None,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    value: bytes | None,
) -> dict[str, Any]:
    """The ``data`` of a dead letter, ready for JSON: what :class:`MessageRejected` describes, absent fields left out.

    ``topic`` is the full name. It always fits into one message: the value goes in first, then the headers in their
    order while there is room; ``context.headers_left_out`` counts the others. A record without a value has no
    ``value_base64``, an empty one has an empty one.
    """
    content = value or b""
    data: dict[str, Any] = {"code": code, "message": message, "topic": topic, "partition": partition, "offset": offset}
    data |= _describe_key(key)
    if value is not None and len(value) <= VALUE_BYTES_MAX:
        data["value_base64"] = base64.b64encode(value).decode()
    kept = _describe_headers(headers, TEXT_BYTES_MAX - len(data.get("value_base64", "")))
    about = dict(context or {})
    if len(kept) < len(headers):
        about["headers_left_out"] = len(headers) - len(kept)
    if about:
        data["context"] = about
    return data | {"headers": kept, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _describe_key(key: bytes | None) -> dict[str, str]:
    if key is None or len(key) > KEY_BYTES_MAX:
        return {}
    try:
        return {"key": key.decode()}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key).decode()}


def _describe_headers(headers: Sequence[tuple[str, bytes | None]], room_bytes: int) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for name, content in headers:
        header = {"name": name, "value_base64": None if content is None else base64.b64encode(content).decode()}
        room_bytes -= len(json.dumps(header)) + 1
        if room_bytes < 0:
            break
        kept.append(header)
    return kept
