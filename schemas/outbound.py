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
    # Nearly no text needs an escape: one look at all of them is cheaper than one at each, let alone than the encoder.
    texts = f"{event_id}{type_}{subject}{tenant_id}{cause_id}{traceparent}"
    if not (texts.isascii() and texts.isprintable() and '"' not in texts and "\\" not in texts):
        event_id, type_ = _escape(event_id), _escape(type_)
        subject, tenant_id, cause_id, traceparent = map(_escape_if_any, (subject, tenant_id, cause_id, traceparent))
    head = (
        f'{{"specversion":"1.0","id":"{event_id}","source":"{SOURCE}","type":"{type_}","time":"{format_time(time_ms)}"'
    )
    if subject is not None:
        head += f',"subject":"{subject}"'
    if tenant_id is not None:
        head += f',"tenantid":"{tenant_id}"'
    if cause_id is not None:
        head += f',"causeid":"{cause_id}"'
    if revision is not None:
        head += f',"revision":{revision}'
    if traceparent is not None:
        head += f',"traceparent":"{traceparent}"'
    head += ',"datacontenttype":"application/json","data":'
    return b"".join((head.encode(), data_json, b"}"))


def event_id(*parts: str | bytes) -> str:
    """An id (32 hex digits) that is the same for the same parts, and for no other cut of the same characters."""
    pieces: list[bytes] = []
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        pieces += (len(content).to_bytes(8, "big"), content)
    return hashlib.blake2b(b"".join(pieces), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def format_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-01-31T12:00:00.000Z``. ``time_ms``: milliseconds since 1970."""
    # What is decided together has one time, so nearly every announcement finds its time already written.
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


@lru_cache(maxsize=4096)
def _escape(text: str) -> str:
    """The inside of a JSON string."""
    return json.dumps(text, ensure_ascii=True)[1:-1]


def _escape_if_any(text: str | None) -> str | None:
    return None if text is None else _escape(text)
