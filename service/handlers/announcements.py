"""What is announced: the facts that a decision leaves in the outbox, and the CloudEvent that becomes of them.

Everything a consumer may compare is fixed with the decision; rendering is pure, so that a repeat after a crash is the
same event to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from schemas import dead_letters, outbound, table
from service.catalog import Catalog
from service.ledger import outbox
from service.ledger.transaction import SILENT_PREFIX, Denial, Emission

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


_LINES_BEFORE_DATA = 8
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
    revision: int | None = None,
) -> str:
    """An announcement for the outbox; ``data`` may be JSON already.

    ``identity`` tells this announcement from every other one of the type and subject. With ``by_content`` the data is
    part of the id too: two decisions that say different things never share one. No text has a line break. An answer
    that is given again brings the ``revision`` that it had; every other one gets a new one.
    """
    # First what is no part of the id, then what is: so that the id can be made of everything behind the fourth line.
    moment = f"{time_ms}" if revision is None else f"{time_ms} {revision}"
    head = (
        f"{moment}\n{cause}\n{traceparent or ''}\n{'=' if by_content else ''}\n"
        f"{type_}\n{tenant or ''}\n{subject}\n{identity}\n"
    )
    if head.count("\n") != _LINES_BEFORE_DATA:
        raise ValueError(f"a line break in what is announced: {head!r}")
    return head + (data if isinstance(data, str) else _json(data).decode())


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
    moment, cause, traceparent, by_content, content = entry.facts.split("\n", 4)
    time_ms, _, revision = moment.partition(" ")
    if entry.denials:
        content = _with_denials(content, entry.denials)
    type_, tenant, subject, _, data = content.split("\n", 4)
    event_id = outbound.event_id(content if by_content else content[: -len(data)])
    value = outbound.render(
        event_id=event_id,
        type_=type_,
        tenant_id=tenant or None,
        subject=subject,
        time_ms=int(time_ms),
        cause_id=cause or None,
        revision=None if type_ in _WITHOUT_REVISION else int(revision or entry.revision),
        traceparent=traceparent or None,
        data_json=data.encode(),
    )
    return Message(_TOPICS[type_], tenant or None, value, type_)


def _with_denials(content: str, denials: Sequence[Denial]) -> str:
    """The content of a refusal with what stood in its way; the caller's own reasons come first. A dead letter has it in
    its context."""
    head, _, line = content.rpartition("\n")
    if not head.startswith(MESSAGE_REJECTED):
        return f"{head}\n{add_denials(line, denials)}"
    data = msgspec.json.decode(line)
    data.setdefault("context", {})["denials"] = [obstacle(denial) for denial in denials]
    return f"{head}\n{_json(data).decode()}"


def add_denials(data: str, denials: Sequence[Denial]) -> str:
    """The data of a refusal (JSON) with the limits that stood in its way, behind the caller's own reasons."""
    content = msgspec.json.decode(data)
    content["denials"] = [*content.get("denials", ()), *(quota_denial(denial) for denial in denials)]
    return _json(content).decode()


class Said(NamedTuple):
    """What an announcement tells, for those who are answered with it: its type, its subject and its data."""

    type: str
    subject: str
    data: dict[str, Any]


def said(emission: Emission, denials: Sequence[Sequence[Denial]]) -> Said:
    """An announcement of a decision as it will be read; ``denials`` are those of each refused attempt."""
    type_, _, subject, _, data = emission.facts.split("\n", _LINES_BEFORE_DATA)[4:]
    own = [denial for number in emission.denials_of if number < len(denials) for denial in denials[number]]
    return Said(type_, subject, msgspec.json.decode(add_denials(data, own) if own else data))


def encode(data: Mapping[str, Any]) -> str:
    """Data as JSON."""
    return _json(data).decode()


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
    # As text, because every change of a number is announced, on every tenant above it too.
    value = "null" if entry.value is None else entry.value
    overage = "null" if entry.overage is None else entry.overage
    data = (
        f'{_about_item(catalog, entry.item)}"used":{entry.used},"reserved":{entry.reserved},'
        f'"quota":{{"value":{value},"overage":{overage}}},"pricing_mode":{_quoted(entry.tag)}}}'
    )
    return _ledger_message(USAGE_CHANGED, entry, str(entry.revision), data)


@lru_cache(maxsize=4096)
def _about_item(catalog: Catalog, name: str) -> str:
    """The beginning of the data of every usage announcement of an item."""
    item = catalog.find_item(name)
    data = {
        "offering_item": name,
        "usage_name": item.usage_name if item else name,
        "application_id": item.application_id if item else None,
        "edition": item.edition if item else None,
        "unit": item.unit if item else "quantity",
    }
    return _json(data).decode().removesuffix("}") + ","


@lru_cache(maxsize=64)
def _quoted(text: str) -> str:
    return _json(text).decode()


def _render_notice(entry: outbox.Notice) -> Message:
    data: dict[str, Any] = {
        "offering_item": entry.item,
        "used": entry.used,
        "quota": {"value": entry.value, "overage": entry.overage},
    }
    if entry.kind == "almost_reached":
        data["threshold_percent"] = entry.percent
    return _ledger_message(f"apportion.quota.{entry.kind}.v1", entry, str(entry.number), _json(data).decode())


def _ledger_message(type_: str, entry: outbox.UsageChanged | outbox.Notice, identity: str, data: str) -> Message:
    value = outbound.render(
        event_id=outbound.event_id(f"{type_}\n{entry.tenant}\n{entry.item}\n{identity}\n{data}"),
        type_=type_,
        tenant_id=entry.tenant,
        subject=entry.item,
        time_ms=entry.time_ms,
        cause_id=entry.cause or None,
        revision=entry.revision,
        traceparent=None,
        data_json=data.encode(),
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


# Some events are put on an inbound topic by the service itself, as any other producer would put them there.
_TOPICS = {type_: event.topic for type_, event in (table.INBOUND | table.OUTBOUND).items()}
_WITHOUT_REVISION = {MESSAGE_REJECTED, *table.INBOUND}
