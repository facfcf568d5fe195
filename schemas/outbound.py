"""The way out: a structured CloudEvent around data that are encoded already.

Announcements are rendered by the ten thousand, so the envelope is put together as text instead of being encoded.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import lru_cache

SOURCE = "/apportion"
CONTENT_TYPE = "application/cloudevents+json"
HEADERS: tuple[tuple[str, bytes], ...] = (("content-type", CONTENT_TYPE.encode()),)  # of every outbound message


def render(
    *,
    event_id: str,
    type_: str,
    tenant_id: str | None,
    subject: str | None,
    time_ms: int,
    cause_id: str | None,
    revision: int | None,
    traceparent: str | None,
    data_json: bytes,
) -> bytes:
    """The value of an outbound message; what is None is left out. ``time_ms`` is in milliseconds since 1970.

    ``data_json`` must be a JSON object in UTF-8; it is taken as it is.
    """
    parts = [
        f'{{"specversion":"1.0","id":{_quote(event_id)},"source":"{SOURCE}","type":{_quote(type_)}',
        f',"time":"{format_time(time_ms)}"',
    ]
    if subject is not None:
        parts.append(f',"subject":{_quote(subject)}')
    if tenant_id is not None:
        parts.append(f',"tenantid":{_quote(tenant_id)}')
    if cause_id is not None:
        parts.append(f',"causeid":{_quote(cause_id)}')
    if revision is not None:
        parts.append(f',"revision":{revision}')
    if traceparent is not None:
        parts.append(f',"traceparent":{_quote(traceparent)}')
    parts.append(',"datacontenttype":"application/json","data":')
    return b"".join(("".join(parts).encode(), data_json, b"}"))


def event_id(*parts: str | bytes) -> str:
    """An id (32 hex digits) that is the same for the same parts, and for no other cut of the same characters."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def format_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-01-31T12:00:00.000Z``. ``time_ms``: milliseconds since 1970."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_format_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4096)
def _format_second(seconds: int) -> str:
    # A batch falls into one or two seconds, so nearly every announcement finds its second already written.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _quote(text: str) -> str:
    """A JSON string. Nearly every value needs no escape, and is not worth a call of the encoder."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _escape(text)


@lru_cache(maxsize=4096)
def _escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)
