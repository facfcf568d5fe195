"""Finding a switch by its id alone, and what was said of it last (docs/contracts.md 4, ``switch show``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from service import records
from service.handlers import announcements, switch_answers, tree
from service.handlers.tree import NotFoundError
from service.ledger.base import Ledger
from service.ledger.transaction import Record, RecordKey
from service.records import Items, Switch


class SwitchNotFoundError(NotFoundError):
    """Nobody remembers such a switch."""

    def __init__(self, switch_id: str) -> None:
        super().__init__(f"There is no switch {switch_id}.")
        self.switch_id = switch_id


class Found(NamedTuple):
    """A switch: whose it is, what is remembered of it, and the last event of it (``{type, data}``).

    While it is prepared there is no event yet. ``under_way`` says whether it, or the way back from it, goes on.
    """

    tenant_id: str
    switch: Switch
    event: dict[str, Any] | None
    under_way: bool


async def find(ledger: Ledger, switch_id: str) -> Found:
    """The switch. Raises ``SwitchNotFoundError``."""
    key = records.switch_place_key(switch_id)
    places = await tree.each(range(ledger.shards), lambda shard: ledger.read({shard: [key]}))
    for shard, place in places:
        record = place[key]
        if record is not None:
            return await _look(ledger, shard, records.decode(key, record.payload).tenant, switch_id)
    raise SwitchNotFoundError(switch_id)


async def of_tenant(ledger: Ledger, tenant_id: str, switch_id: str) -> Found:
    """The same where the tenant is known. Raises ``SwitchNotFoundError``."""
    shard = (await ledger.locate([tenant_id])).get(tenant_id)
    if shard is None:
        raise SwitchNotFoundError(switch_id)
    return await _look(ledger, shard, tenant_id, switch_id)


async def _look(ledger: Ledger, shard: int, tenant_id: str, switch_id: str) -> Found:
    items_key, (key, undo_key) = records.items_key(tenant_id), _keys(tenant_id, switch_id)
    stored = await ledger.read({shard: [items_key, key, undo_key]})
    record, items = stored[key], stored[items_key]
    if record is None:
        raise SwitchNotFoundError(switch_id)
    switch: Switch = records.decode(key, record.payload)
    events = await _events(ledger, shard, {tenant_id: switch_id}, stored)
    known: Items = records.NO_ITEMS if items is None else records.decode(items_key, items.payload)
    marked = known.switching is not None and known.switching.switch_id == switch_id
    under_way = marked or switch.state in (switch_answers.PREPARING, switch_answers.RUNNING)
    return Found(tenant_id, switch, events.get(tenant_id), under_way)


def _keys(tenant_id: str, switch_id: str) -> tuple[RecordKey, RecordKey]:
    return records.switch_key(tenant_id, switch_id), records.switch_undo_key(tenant_id, switch_id)


async def last_events(ledger: Ledger, switches: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The last event of a switch of each of some tenants, where it has one."""
    shards = await ledger.locate(list(switches))
    wanted: dict[int, dict[str, str]] = {}
    for tenant, shard in shards.items():
        wanted.setdefault(shard, {})[tenant] = switches[tenant]
    found = await tree.each(wanted.items(), lambda each: _events_of_shard(ledger, *each))
    return {tenant: event for _, some in found for tenant, event in some.items()}


async def _events_of_shard(ledger: Ledger, shard: int, switches: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    keys = [key for tenant, switch_id in switches.items() for key in _keys(tenant, switch_id)]
    return await _events(ledger, shard, switches, await ledger.read({shard: keys}))


async def _events(
    ledger: Ledger, shard: int, switches: Mapping[str, str], stored: Mapping[RecordKey, Record | None]
) -> dict[str, dict[str, Any]]:
    events: dict[str, dict[str, Any]] = {}
    for tenant, switch_id in switches.items():
        key, undo_key = _keys(tenant, switch_id)
        said, refused = stored[key], stored[undo_key]
        if said is None:
            continue
        is_refused = refused is not None and refused.version > said.version
        last: Switch = records.decode(key, refused.payload if refused is not None and is_refused else said.payload)
        if last.answer == "{}":
            continue  # it is being prepared
        who = records.switch_undo_waiting(switch_id) if is_refused else records.switch_waiting(switch_id)
        answer = last.answer
        if last.denied:
            reasons = (await ledger.waiting(shard, tenant, [who])).get(who)
            answer = announcements.add_denials(answer, reasons.denials if reasons is not None else ())
        events[tenant] = {"type": last.type, "data": msgspec.json.decode(answer)}
    return events
