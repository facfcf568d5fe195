"""Reservations: units set aside, committed to a workload, extended, released, expired (docs/domain.md 6, rule 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schemas.reservations import ReservationCommit, ReservationExtend, ReservationRelease, ReservationReserve
from service import records
from service.handlers import announcements, assignments, outlines, workloads
from service.handlers.draft import Draft, Placement, View
from service.handlers.work import RefusedError, Work, path_keys, placement_of
from service.ledger.transaction import QUANTITY_MAX, Emission, RecordKey, Take, Timer, Wait
from service.records import Reservation
from service.rules import facets

HELD, DENIED, COMMITTED, RELEASED, EXPIRED = "held", "denied", "committed", "released", "expired"
COMMANDS_REMEMBERED = 8  # of one reservation
EXPIRY_PREFIX = "expire/"  # of the timers of reservations that are held
WAITING_PREFIX = "reservation/"  # a workload's id has no slash


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant's way up and the reservation; for a commit, the workload too."""
    data = work.event.data
    reservation_id: str = data.reservation_id  # type: ignore[attr-defined]  # each of the four has one
    yield from path_keys(view, work.tenant)
    yield records.reservation_key(work.tenant, reservation_id)
    yield records.waiting_key(work.tenant, waiting_name(reservation_id))
    if isinstance(data, ReservationCommit):
        yield from workloads.needs_of(view, work.tenant, data.workload_id)


def waiting_name(reservation_id: str) -> str:
    """Under which name the ledger keeps why a reservation was refused; no workload has such an id."""
    return f"{WAITING_PREFIX}{reservation_id}"


def reserve(view: View, work: Work) -> None:
    """Set units aside, all of them or none. The same request again answers with the first outcome."""
    data = work.event.data
    assert isinstance(data, ReservationReserve)
    draft = work.draft(view)
    placement = placement_of(draft, work.tenant)
    _check_items(view, data.items)
    known = draft.reservation(work.tenant, data.reservation_id)
    if _is_answered(work, known):
        pass
    elif known is not None and data.mode != "check_only":
        _answer_again(view, draft, work, data, known)
    elif data.mode == "check_only":
        _check(draft, placement, work, data)
    else:
        _take(draft, placement, work, data)
    draft.close()


def commit(view: View, work: Work) -> None:
    """The units become the workload's assignment; what it holds already or does not need is released."""
    data = work.event.data
    assert isinstance(data, ReservationCommit)
    draft = work.draft(view)
    placement = placement_of(draft, work.tenant)
    known = draft.reservation(work.tenant, data.reservation_id)
    workload = draft.workload(work.tenant, data.workload_id)
    if _is_answered(work, known):
        draft.close()
        return
    if known is None or known.state != HELD or workload.type is None:
        what = "workload" if known is not None and known.state == HELD else "reservation"
        _deny(draft, work, data.reservation_id, known, f"there is no such {what}, or it has ended")
        draft.close()
        return
    released = _end(draft, placement, work.tenant, data.reservation_id, _answered(work, known), COMMITTED)
    now = msgspec.structs.replace(workload, gauges=_with_bytes(view, workload.gauges, known.items))
    assignments.reassign(draft, work.tenant, data.workload_id, now, "reservation", released=released)
    draft.close()


def extend(view: View, work: Work) -> None:
    """The reservation lasts so long from now."""
    data = work.event.data
    assert isinstance(data, ReservationExtend)
    draft = work.draft(view)
    placement_of(draft, work.tenant)
    known = draft.reservation(work.tenant, data.reservation_id)
    if _is_answered(work, known):
        pass
    elif known is None or known.state != HELD:
        _deny(draft, work, data.reservation_id, known, "there is no such reservation, or it has ended")
    else:
        longer = msgspec.structs.replace(
            _answered(work, known),
            expires_at_ms=draft.now_ms + data.ttl_seconds * 1000,
            cause=work.event.id,
        )
        step = draft.step()
        step.put.append((records.reservation_key(work.tenant, data.reservation_id), longer))
        step.timers.append(Timer(expiry(work.tenant, data.reservation_id), longer.expires_at_ms))
        step.emit.append(_granted(draft, work.tenant, data.reservation_id, longer))
    draft.close()


def release(view: View, work: Work) -> None:
    """The units are free again. A reservation that has ended, or is not known, is left alone without a word."""
    data = work.event.data
    assert isinstance(data, ReservationRelease)
    draft = work.draft(view)
    placement = placement_of(draft, work.tenant)
    known = draft.reservation(work.tenant, data.reservation_id)
    if known is not None and known.state == HELD:
        end(draft, placement, work.tenant, data.reservation_id, _answered(work, known), RELEASED)
    draft.close()


def end(draft: Draft, placement: Placement, tenant: str, reservation_id: str, known: Reservation, state: str) -> None:
    """A reservation ends without a workload: its units are free, and it is announced."""
    ended = _end(draft, placement, tenant, reservation_id, known, state)
    step = draft.step()
    step.take.extend(ended.take)
    step.put.extend(ended.put)
    step.timers.extend(ended.timers)
    step.emit.extend(ended.emit)


def expiry(tenant: str, reservation_id: str) -> str:
    """The timer of a reservation."""
    return f"{EXPIRY_PREFIX}{tenant}/{reservation_id}"


def _check_items(view: View, items: Mapping[str, int]) -> None:
    for name in items:
        item = view.catalog.find_item(name)
        if item is None:
            raise RefusedError(
                "unknown_offering_item", f"the catalogue has no offering item {name}", offering_item=name
            )
        if item.type == "feature":
            raise RefusedError("not_allowed", f"{name} has no quantity", "1027", offering_item=name)


def _static_denials(placement: Placement, items: Mapping[str, int]) -> list[dict[str, Any]]:
    """Reasons to refuse that no quota has to do with."""
    denials = outlines.disabled_denials(placement)
    for item, quantity in items.items():
        if item not in placement.items.enabled:
            denials.append(
                {
                    "code": "offering_item_not_enabled",
                    "offering_item": item,
                    "tenant_id": placement.customer,
                    "requested": quantity,
                    "message": f"{item} is not enabled on {placement.customer}",
                }
            )
    return denials


def _take(draft: Draft, placement: Placement, work: Work, data: ReservationReserve) -> None:
    static = _static_denials(placement, data.items)
    key = records.reservation_key(work.tenant, data.reservation_id)
    held = Reservation(
        items=dict(data.items),
        ttl_seconds=data.ttl_seconds,
        state=HELD,
        expires_at_ms=draft.now_ms + data.ttl_seconds * 1000,
        cause=work.event.id,
        made_at_ms=draft.now_ms,
        answered=(_mark(work),),
    )
    if not static:
        step = draft.step()
        step.take.extend(Take(placement.path, item, n, n) for item, n in data.items.items())
        step.put.append((key, held))
        step.timers.append(Timer(expiry(work.tenant, data.reservation_id), held.expires_at_ms))
        step.emit.append(_granted(draft, work.tenant, data.reservation_id, held))
    reasons = outlines.reasons_text(static)
    denied = msgspec.structs.replace(held, state=DENIED, expires_at_ms=0, ended_at_ms=draft.now_ms, reasons=reasons)
    step = draft.step()
    refused = tuple(range(len(draft.steps) - 1))
    step.put.append((key, denied))
    step.timers.append(_forget(draft, work.tenant, data.reservation_id))
    step.wait = Wait(work.tenant, waiting_name(data.reservation_id), reasons, (), refused, indexed=False)
    step.emit.append(_denied(draft, work.tenant, data.reservation_id, data.items, static, denials_of=refused))


def _check(draft: Draft, placement: Placement, work: Work, data: ReservationReserve) -> None:
    """Say whether it would be granted, and change nothing."""
    static = _static_denials(placement, data.items)
    if not static:
        step = draft.step()
        step.probe = True
        step.take.extend(Take(placement.path, item, n, n) for item, n in data.items.items())
        content = _content(data.reservation_id, data.items, mode="check_only")
        step.emit.append(_emission(draft, work.tenant, data.reservation_id, announcements.RESERVATION_GRANTED, content))
    step = draft.step()
    refused = tuple(range(len(draft.steps) - 1))
    emission = _denied(
        draft, work.tenant, data.reservation_id, data.items, static, denials_of=refused, mode="check_only"
    )
    step.emit.append(emission)


def _answer_again(view: View, draft: Draft, work: Work, data: ReservationReserve, known: Reservation) -> None:
    if (known.items, known.ttl_seconds) != (dict(data.items), data.ttl_seconds):
        raise RefusedError(
            "not_allowed",
            f"reservation {data.reservation_id} exists with other content",
            "1027",
            reservation_id=data.reservation_id,
        )
    step = draft.step()
    key = records.reservation_key(work.tenant, data.reservation_id)
    step.put.append((key, _answered(work, known)))
    if known.state != DENIED:
        step.emit.append(_granted(draft, work.tenant, data.reservation_id, known))
        return
    waiting = view.read(records.waiting_key(work.tenant, waiting_name(data.reservation_id))).value
    denials = outlines.reasons_of(known.reasons)
    denials += [announcements.quota_denial(denial) for denial in waiting.denials] if waiting else []
    step.emit.append(_denied(draft, work.tenant, data.reservation_id, data.items, denials))


def _deny(draft: Draft, work: Work, reservation_id: str, known: Reservation | None, message: str) -> None:
    items = known.items if known else {}
    denials = [{"code": "not_allowed", "message": message}]
    draft.step().emit.append(_denied(draft, work.tenant, reservation_id, items, denials))


def _end(
    draft: Draft,
    placement: Placement,
    tenant: str,
    reservation_id: str,
    known: Reservation,
    state: str,
) -> assignments.Released:
    """What it means that a reservation ends: units back, remembered for a day, announced."""
    ended = msgspec.structs.replace(known, state=state, ended_at_ms=draft.now_ms, cause=draft.cause.id)
    types = {
        COMMITTED: announcements.RESERVATION_COMMITTED,
        RELEASED: announcements.RESERVATION_RELEASED,
        EXPIRED: announcements.RESERVATION_EXPIRED,
    }
    return assignments.Released(
        take=[Take(placement.path, item, -n, -n) for item, n in known.items.items()],
        put=[(records.reservation_key(tenant, reservation_id), ended)],
        timers=[Timer(expiry(tenant, reservation_id), None), _forget(draft, tenant, reservation_id)],
        emit=[_emission(draft, tenant, reservation_id, types[state], _content(reservation_id, known.items))],
    )


def _forget(draft: Draft, tenant: str, reservation_id: str) -> Timer:
    return Timer(f"forget/reservation/{tenant}/{reservation_id}", draft.now_ms + facets.REMEMBERED_SECONDS * 1000)


def _mark(work: Work) -> str:
    return facets.event_digest(work.stamp)


def _is_answered(work: Work, known: Reservation | None) -> bool:
    """Whether this very command has been answered: the same event again, under whatever offset, changes nothing."""
    return known is not None and _mark(work) in known.answered


def _answered(work: Work, known: Reservation) -> Reservation:
    return msgspec.structs.replace(known, answered=(*known.answered, _mark(work))[-COMMANDS_REMEMBERED:])


def _with_bytes(view: View, gauges: Mapping[str, int], items: Mapping[str, int]) -> dict[str, int]:
    """A workload's gauges with the reserved bytes that it was given: they count there until its next report."""
    after = dict(gauges)
    for name, quantity in items.items():
        item = view.catalog.find_item(name)
        if item is not None and item.gauge is not None:
            after[item.gauge] = after.get(item.gauge, 0) + quantity
    if max(after.values(), default=0) > QUANTITY_MAX:
        raise RefusedError("invalid_data", "a gauge would exceed the largest quantity")
    return after


def _granted(draft: Draft, tenant: str, reservation_id: str, known: Reservation) -> Emission:
    content = _content(reservation_id, known.items, expires_at=announcements.rfc3339(known.expires_at_ms))
    return _emission(draft, tenant, reservation_id, announcements.RESERVATION_GRANTED, content)


def _denied(
    draft: Draft,
    tenant: str,
    reservation_id: str,
    items: Mapping[str, int],
    denials: list[dict[str, Any]],
    *,
    denials_of: tuple[int, ...] = (),
    mode: str = "all_or_nothing",
) -> Emission:
    content = _content(reservation_id, items, mode=mode, denials=denials)
    return _emission(draft, tenant, reservation_id, announcements.RESERVATION_DENIED, content, denials_of)


def _content(
    reservation_id: str, items: Mapping[str, int], *, mode: str = "all_or_nothing", **more: Any
) -> dict[str, Any]:
    return {"reservation_id": reservation_id, "items": dict(items), "mode": mode, **more}


def _emission(
    draft: Draft,
    tenant: str,
    reservation_id: str,
    type_: str,
    content: Mapping[str, Any],
    denials_of: tuple[int, ...] = (),
) -> Emission:
    facts = announcements.facts(
        type_,
        tenant=tenant,
        subject=reservation_id,
        identity=draft.cause.id,
        time_ms=draft.now_ms,
        cause=draft.cause.id,
        traceparent=draft.cause.traceparent,
        data=content,
        by_content=False,  # when it expires depends on the moment of the decision; the id does not
    )
    return Emission(facts, denials_of)
