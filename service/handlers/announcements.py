"""What is announced: the facts that a decision leaves in the outbox, and the CloudEvent that becomes of them.

Everything a consumer may compare is fixed with the decision; rendering is pure, so that a repeat after a crash is the
same event to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from schemas import dead_letters, outbound, table
from service.catalog import Catalog
from service.ledger import outbox
from service.ledger.transaction import SILENT_PREFIX, Denial

ASSIGNMENT_CHANGED = "apportion.assignment.changed.v1"
ASSIGNMENT_DENIED = "apportion.assignment.denied.v1"
USAGE_CHANGED = "apportion.usage.changed.v1"
RESERVATION_GRANTED = "apportion.reservation.granted.v1"
RESERVATION_DENIED = "apportion.reservation.denied.v1"
RESERVATION_COMMITTED = "apportion.reservation.committed.v1"
RESERVATION_RELEASED = "apportion.reservation.released.v1"
RESERVATION_EXPIRED = "apportion.reservation.expired.v1"
TENANT_CHANGED = "apportion.tenant.changed.v1"
OFFERING_ITEM_CHANGED = "apportion.offering_item.changed.v1"
MESSAGE_REJECTED = "apportion.message.rejected.v1"


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Where a message came from (the topic's full name), with its original bytes."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


class Message(NamedTuple):
    """An announcement ready to be published; the topic is without prefix."""

    topic: str
    key: str | None
    value: bytes
    type: str


class _Header(msgspec.Struct, frozen=True, array_like=True):
    """The first line of facts. ``identity`` makes the id, together with the data where ``by_content`` says so."""

    type: str
    tenant: str | None
    subject: str
    identity: str
    by_content: bool
    time_ms: int
    cause: str
    traceparent: str | None


_header_of = msgspec.json.Decoder(_Header).decode
_json = msgspec.json.Encoder().encode


def facts(
    type_: str,
    *,
    tenant: str | None,
    subject: str,
    identity: str,
    time_ms: int,
    cause: str,
    traceparent: str | None,
    data: Mapping[str, Any] | str,
    by_content: bool = True,
) -> str:
    """An announcement for the outbox; ``data`` may be JSON already.

    ``identity`` tells this announcement from every other one of the type and subject. With ``by_content`` the data is
    part of the id too: two decisions that say different things never share one.
    """
    header = _Header(type_, tenant, subject, identity, by_content, time_ms, cause, traceparent)
    content = data if isinstance(data, str) else _json(data).decode()
    return f"{_json(header).decode()}\n{content}"


def members(part: Mapping[str, Any]) -> str:
    """Some members of an object in JSON, to be put between others; at least one."""
    return _json(part)[1:-1].decode()


def render(entry: outbox.Entry, catalog: Catalog) -> Message:
    """An outbox entry as the CloudEvent that others see."""
    if isinstance(entry, outbox.Facts):
        return _render_facts(entry)
    if isinstance(entry, outbox.UsageChanged):
        return _render_usage(entry, catalog)
    return _render_notice(entry)


def _render_facts(entry: outbox.Facts) -> Message:
    head, _, data = entry.facts.encode().partition(b"\n")
    header = _header_of(head)
    if entry.denials:
        data = _with_denials(header.type, data, entry.denials)
    parts = [header.type, header.tenant or "", header.subject, header.identity]
    event_id = outbound.event_id(*parts, data) if header.by_content else outbound.event_id(*parts)
    value = outbound.render(
        event_id=event_id,
        type_=header.type,
        tenant_id=header.tenant,
        subject=header.subject,
        time_ms=header.time_ms,
        cause_id=header.cause or None,
        revision=None if header.type == MESSAGE_REJECTED else entry.revision,
        traceparent=header.traceparent,
        data_json=data,
    )
    return Message(_TOPICS[header.type], header.tenant, value, header.type)


def _with_denials(type_: str, data: bytes, denials: Sequence[Denial]) -> bytes:
    """The data of a refusal with what stood in its way; the caller's own reasons come first. A dead letter has it in
    its context."""
    content = msgspec.json.decode(data)
    if type_ == MESSAGE_REJECTED:
        content.setdefault("context", {})["denials"] = [obstacle(denial) for denial in denials]
    else:
        content["denials"] = [*content.get("denials", ()), *(quota_denial(denial) for denial in denials)]
    return _json(content)


def obstacle(denial: Denial) -> dict[str, Any]:
    """What stood in the way of a change of a tenant: a quota, something in use, or something enabled further down.

    The ledger asks for nothing where it finds something that should be idle; that tells the three apart.
    """
    if denial.requested:
        return quota_denial(denial)
    item = denial.item.removeprefix(SILENT_PREFIX)
    below = item != denial.item
    message = (
        f"{item} is enabled on {denial.used} tenants below {denial.tenant}"
        if below
        else f"{denial.tenant} uses {denial.used} of {item}"
    )
    shown = {"code": "not_allowed", "offering_item": item, "tenant_id": denial.tenant, "message": message}
    return shown | {"enabled_below" if below else "used": denial.used}


def quota_denial(denial: Denial) -> dict[str, Any]:
    """A limit that stood in the way, as others see it."""
    return {
        "code": "quota_exceeded",
        "offering_item": denial.item,
        "tenant_id": denial.tenant,
        "limit": denial.limit,
        "used": denial.used,
        "requested": denial.requested,
        "message": (
            f"{denial.tenant} may use {denial.limit} of {denial.item} and uses {denial.used}; "
            f"{denial.requested} more were requested"
        ),
    }


def _render_usage(entry: outbox.UsageChanged, catalog: Catalog) -> Message:
    item = catalog.find_item(entry.item)
    data = {
        "offering_item": entry.item,
        "usage_name": item.usage_name if item else entry.item,
        "application_id": item.application_id if item else None,
        "edition": item.edition if item else None,
        "unit": item.unit if item else "quantity",
        "used": entry.used,
        "reserved": entry.reserved,
        "quota": {"value": entry.value, "overage": entry.overage},
        "pricing_mode": entry.tag,
    }
    return _ledger_message(USAGE_CHANGED, entry, str(entry.revision), data)


def _render_notice(entry: outbox.Notice) -> Message:
    data: dict[str, Any] = {
        "offering_item": entry.item,
        "used": entry.used,
        "quota": {"value": entry.value, "overage": entry.overage},
    }
    if entry.kind == "almost_reached":
        data["threshold_percent"] = entry.percent
    return _ledger_message(f"apportion.quota.{entry.kind}.v1", entry, str(entry.number), data)


def _ledger_message(
    type_: str, entry: outbox.UsageChanged | outbox.Notice, identity: str, data: Mapping[str, Any]
) -> Message:
    encoded = _json(data)
    value = outbound.render(
        event_id=outbound.event_id(type_, entry.tenant, entry.item, identity, encoded),
        type_=type_,
        tenant_id=entry.tenant,
        subject=entry.item,
        time_ms=entry.time_ms,
        cause_id=entry.cause or None,
        revision=entry.revision,
        traceparent=None,
        data_json=encoded,
    )
    return Message(_TOPICS[type_], entry.tenant, value, type_)


def rfc3339(time_ms: int) -> str:
    """A moment, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def rejection(origin: Origin, code: str, message: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a dead letter: why, and the original message with its place."""
    return dead_letters.describe(
        code=code,  # type: ignore[arg-type]  # codes are plain text inside the service
        message=message,
        context=context,
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        key=origin.key,
        headers=origin.headers,
        value=origin.value,
    )


def rejection_facts(
    origin: Origin, code: str, message: str, context: Mapping[str, Any], *, tenant: str | None, time_ms: int, cause: str
) -> str:
    """A dead letter for the outbox, where it depends on the ledger's state and so belongs into the decision's step."""
    return facts(
        MESSAGE_REJECTED,
        tenant=tenant,
        subject=_place(origin),
        identity=code,
        time_ms=time_ms,
        cause=cause,
        traceparent=None,
        data=rejection(origin, code, message, context),
        by_content=False,
    )


def dead_letter(
    origin: Origin, code: str, message: str, context: Mapping[str, Any], *, tenant_id: str | None, time_ms: int
) -> Message:
    """A dead letter for a message that cannot be read; ``time_ms`` is the message's own, so a repeat is the same."""
    subject = _place(origin)
    value = outbound.render(
        event_id=outbound.event_id(MESSAGE_REJECTED, tenant_id or "", subject, code),
        type_=MESSAGE_REJECTED,
        tenant_id=tenant_id,
        subject=subject,
        time_ms=time_ms,
        cause_id=None,
        revision=None,
        traceparent=None,
        data_json=_json(rejection(origin, code, message, context)),
    )
    key = tenant_id if tenant_id is not None else _text(origin.key)
    return Message(_TOPICS[MESSAGE_REJECTED], key, value, MESSAGE_REJECTED)


def _place(origin: Origin) -> str:
    return f"{origin.topic}/{origin.partition}/{origin.offset}"


def _text(key: bytes | None) -> str | None:
    return None if key is None else key.decode("utf-8", "replace")


_TOPICS = {type_: event.topic for type_, event in table.OUTBOUND.items()}
