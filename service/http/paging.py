"""Cursors: where the next page begins and what the first one asked for, so that ``after`` alone is enough.

They are plain, as nothing depends on nobody changing them: whatever they name is looked for as the caller.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Query

from service.handlers.listing import Spot
from service.http.access import malformed

SIZE_MAX = 1000
SIZE = 100

Limit = Annotated[int, Query(ge=1, description=f"How many a page has; {SIZE_MAX} at most.")]
After = Annotated[str | None, Query(description="The cursor of the page before; it brings that one's filters along.")]


Filters = TypeVar("Filters")


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins: behind a spot, and ``skip`` entries of the tenant there."""

    filters: dict[str, Any]
    size: int
    spot: Spot
    skip: int = 0

    def text(self) -> str:
        """As it is given to the client."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


def read(text: str) -> Cursor:
    """A cursor that a client sends back. Raises ``ApiError`` (400) for one that was never given."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        found = msgspec.json.decode(raw, type=Cursor)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise malformed("The cursor is not one of ours.") from None
    if not 1 <= found.size <= SIZE_MAX or found.skip < 0:
        raise malformed("The cursor is not one of ours.")
    return found


def filters_of(cursor: Cursor, kind: type[Filters]) -> Filters:
    """The filters of the first page, which the cursor brings along; of another list's cursor they cannot be read."""
    try:
        return msgspec.convert(cursor.filters, kind)
    except msgspec.ValidationError:
        raise malformed("The cursor is not one of ours.") from None


def answer(items: list[dict[str, Any]], timestamp: str, following: Cursor | None) -> dict[str, Any]:
    """A page as clients read it."""
    return {"timestamp": timestamp, "items": items, "paging": links(following)}


def links(following: Cursor | None) -> dict[str, Any]:
    """How to get the next page; nothing after the last one."""
    return {"cursors": {} if following is None else {"after": following.text()}}
