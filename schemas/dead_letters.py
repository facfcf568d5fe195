"""Messages that cannot be handled: why, where they stood, and their original bytes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

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


# A name and its content in base64, or null where the header had no content.
ExactHeader = Annotated[tuple[str | None, ...], Field(min_length=2, max_length=2)]


class MessageRejected(Data):
    """A message that changed nothing, complete enough to be sent again once the cause is gone.

    ``context`` holds what the code is about: the ``path`` of a wrong field, the error code behind ``not_allowed``.
    ``headers`` and ``key`` are for people; where their bytes are no text, or a header's name repeats,
    ``headers_base64`` (in the original order) and ``key_base64`` are what was there. A value that would make this
    message too large is left out; ``size`` (bytes) and ``sha256`` (hex) describe it in any case.
    """

    code: Annotated[str, known_values(*CODES)]
    message: str
    context: dict[str, Any] | None = None
    topic: str
    partition: Quantity
    offset: Quantity
    key: str | None = None
    key_base64: str | None = None
    headers: dict[str, str]
    headers_base64: tuple[ExactHeader, ...] | None = None
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
    shown, left_out = _describe_headers(headers, TEXT_BYTES_MAX - len(data.get("value_base64", "")))
    about = dict(context or {})
    if left_out:
        about["headers_left_out"] = left_out
    if about:
        data["context"] = about
    return data | shown | {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _describe_key(key: bytes | None) -> dict[str, str]:
    if key is None or len(key) > KEY_BYTES_MAX:
        return {}
    shown = {"key": key.decode("utf-8", "replace")}
    if shown["key"].encode() != key:
        shown["key_base64"] = base64.b64encode(key).decode()
    return shown


def _describe_headers(headers: Sequence[tuple[str, bytes | None]], room_bytes: int) -> tuple[dict[str, Any], int]:
    """What fits of the headers, and how many did not."""
    shown: dict[str, str] = {}
    exact: list[tuple[str, str | None]] = []
    for name, content in headers:
        text = "" if content is None else content.decode("utf-8", "replace")
        encoded = None if content is None else base64.b64encode(content).decode()
        # Counted in both forms, because only the last header tells whether the exact form is needed.
        room_bytes -= len(json.dumps([name, text, name, encoded])) + 8
        if room_bytes < 0:
            break
        shown[name] = text
        exact.append((name, encoded))
    data: dict[str, Any] = {"headers": shown}
    if exact != [(name, base64.b64encode(text.encode()).decode()) for name, text in shown.items()]:
        data["headers_base64"] = [list(header) for header in exact]
    return data, len(headers) - len(exact)
