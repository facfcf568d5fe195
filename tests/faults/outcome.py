"""What can be seen of the service from outside, and what must be the same after two runs over one history."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from service import core
from service.handlers import queries, verification
from service.settings import Settings
from tests.component.fleet import Fleet
from tests.faults.history import FIXED, Kind

USAGE_CHANGED = "apportion.usage.changed.v1"
REJECTED = "apportion.message.rejected.v1"
PROGRESSED = "apportion.switch.progressed.v1"
SWITCH_ENDS = ("apportion.switch.completed.v1", "apportion.switch.rejected.v1", "apportion.switch.undone.v1")
DURATIONS = ("expires_at", "duration_ms")  # in its data: counted from that moment, or up to it
MOMENTS = ("time", "revision")  # of an event: when it was decided, which no two runs have in common
SUMS_OF = ("south", "south-msp", "clinic")  # of whom nobody moves away, and nobody reserves
SHOWN_MAX = 8  # differences of one kind that are told

Announcement = dict[str, Any]


class Outcome(NamedTuple):
    """The end of a run: what the commands answer, and everything that was ever published, repeats included."""

    usage: dict[str, Any]
    workloads: dict[str, Any]
    verified: dict[str, Any]
    published: list[Announcement]
    prefix: str


async def collect(fleet: Fleet, settings: Settings, tenants: Sequence[str]) -> Outcome:
    """The answers of `usage`, `workloads` and `ledger verify`, and all outbound topics."""
    published = fleet.read_all()
    async with core.open_core(settings) as opened:
        usage = {tenant: await queries.usage(opened.ledger, opened.catalog, tenant) for tenant in tenants}
        workloads = {tenant: await queries.workloads(opened.ledger, tenant) for tenant in tenants}
        report = await verification.verify(opened.ledger, opened.catalog)
    return Outcome(
        msgspec.to_builtins(usage), msgspec.to_builtins(workloads), report.as_json(), published, fleet.prefix
    )


# --- what must hold in one run alone


def faults_within(outcome: Outcome, *, rewound: bool) -> list[str]:
    """What is wrong whatever the input: the ledger does not add up, or an id stands for two things.

    Where Redis has lost its last moments (``rewound``), what was announced in them is decided again, at another time.
    """
    found = [] if outcome.verified["ok"] else [f"ledger verify: {outcome.verified['violations']}"]
    found += ids_with_two_contents(outcome.published, rewound=rewound)
    found += above_a_limit(outcome)
    found += unfinished_switches(outcome)
    return found if rewound else found + revisions_given_twice(outcome.published)


def ids_with_two_contents(published: Sequence[Announcement], *, rewound: bool) -> list[str]:
    """An id stands for one content for ever: a consumer drops what it has seen."""
    first: dict[str, Announcement] = {}
    found = []
    for event in published:
        if rewound:
            if event["type"] in (USAGE_CHANGED, PROGRESSED):
                continue
            event = timeless(event)
        known = first.setdefault(event["id"], event)
        if known != event:
            found.append(f"id {event['id']} stands for two contents:\n    {known}\n    {event}")
    return found[:SHOWN_MAX]


def revisions_given_twice(published: Sequence[Announcement]) -> list[str]:
    """A revision of a tenant belongs to one event."""
    first: dict[tuple[str, int], str] = {}
    return [
        f"revision {event['revision']} of {event['tenantid']} was given to {first[place]} and {event['id']}"
        for event in published
        if "revision" in event
        for place in [(event["tenantid"], event["revision"])]
        if first.setdefault(place, event["id"]) != event["id"]
    ][:SHOWN_MAX]


def unfinished_switches(outcome: Outcome) -> list[str]:
    """What was started has ended, and nothing is set aside any more; nobody reserves where customers are switched."""
    switches = [event for event in outcome.published if event["type"].startswith("apportion.switch.")]
    started = {event["subject"] for event in switches}
    ended = {event["subject"] for event in switches if event["type"] in SWITCH_ENDS}
    shown = {event["subject"] for event in switches if event["type"].endswith(("previewed.v1", "undo_rejected.v1"))}
    found = [f"switch {name} has not ended" for name in sorted(started - ended - shown)]
    if switches:
        found += [
            f"{row['reserved']} of {name} are reserved on {tenant}"
            for tenant, shown_usage in outcome.usage.items()
            for name, row in _rows(shown_usage).items()
            if row.get("reserved")
        ]
    return found[:SHOWN_MAX]


def above_a_limit(outcome: Outcome) -> list[str]:
    """Of the item whose quotas nobody changes: every number that was ever announced is within them."""
    return [
        f"{event['tenantid']} used {data['used']} of {data['offering_item']}: {data['quota']}"
        for event in unique(outcome.published)
        if event["type"] == USAGE_CHANGED and event["data"]["offering_item"] == FIXED
        for data in [event["data"]]
        if data["quota"]["overage"] is not None and data["used"] > data["quota"]["value"] + data["quota"]["overage"]
    ][:SHOWN_MAX]


# --- what must be the same in two runs


def differences(kind: Kind, calm: Outcome, shaken: Outcome) -> list[str]:
    """How a disturbed run differs from an undisturbed one over the same history, where it must not."""
    if kind == "limited":
        # Who came first got it, but how many there are of it is the same: the quotas lie one in the other.
        return [
            f"{FIXED} of {tenant}: {_used(calm, tenant)} undisturbed, {_used(shaken, tenant)} disturbed"
            for tenant in SUMS_OF
            if _used(calm, tenant) != _used(shaken, tenant)
        ]
    found = list(_unequal("usage", calm.usage, shaken.usage))
    found += _unequal("workloads", calm.workloads, shaken.workloads)
    found += _missing(_dead_letters, calm, shaken)
    if kind in ("settled", "switching"):
        found += _missing(_announcements, calm, shaken)
    return found


def _used(outcome: Outcome, tenant: str) -> int:
    rows = _rows(outcome.usage[tenant])
    return int(rows[FIXED]["used"]) if FIXED in rows else 0


def _unequal(what: str, calm: dict[str, Any], shaken: dict[str, Any]) -> Iterator[str]:
    for tenant, known in calm.items():
        rows, others = _rows(known), _rows(shaken[tenant])
        for name in [name for name in rows.keys() | others.keys() if rows.get(name) != others.get(name)][:SHOWN_MAX]:
            yield f"{what} of {tenant}, {name}:\n    undisturbed {rows.get(name)}\n    disturbed   {others.get(name)}"


def _rows(shown: dict[str, Any]) -> dict[str, Any]:
    rows = shown.get("items") or shown.get("workloads") or []
    return {row.get("offering_item") or row["workload_id"]: row for row in rows}


def _missing(view: Callable[[Outcome], dict[str, Any]], calm: Outcome, shaken: Outcome) -> list[str]:
    expected, seen = view(calm), view(shaken)
    lines = [
        f"announced otherwise or in one of the runs only, {name}:\n    undisturbed {expected.get(name)}\n"
        f"    disturbed   {seen.get(name)}"
        for name in sorted(expected.keys() | seen.keys())
        if expected.get(name) != seen.get(name)
    ]
    more = [f"… and {len(lines) - SHOWN_MAX} more"] if len(lines) > SHOWN_MAX else []
    return lines[:SHOWN_MAX] + more


def _announcements(outcome: Outcome) -> dict[str, Any]:
    """Everything that is told by its id. `usage.changed` and `switch.progressed` go by how work was cut."""
    told = (event for event in unique(outcome.published) if event["type"] not in (USAGE_CHANGED, REJECTED, PROGRESSED))
    return {event["id"]: timeless(event) for event in told}


def _dead_letters(outcome: Outcome) -> dict[str, Any]:
    """Each by its place, as its id has the full name of the topic in it, which differs from run to run."""
    found = {}
    for event in unique(outcome.published):
        if event["type"] == REJECTED:
            data = {**event["data"], "topic": event["data"]["topic"].removeprefix(outcome.prefix)}
            found[f"{data['topic']}/{data['partition']}/{data['offset']}"] = (data["code"], _shown(data))
    return found


def _shown(data: dict[str, Any]) -> Any:
    return {name: value for name, value in data.items() if name != "value_base64"} | {
        "value": base64.b64decode(data["value_base64"])
    }


def unique(published: Iterable[Announcement]) -> list[Announcement]:
    """Each announcement once, where it was published first."""
    return list({event["id"]: event for event in reversed(list(published))}.values())[::-1]


def timeless(event: Announcement) -> Announcement:
    """Without the moments of the decision, and what is counted from them: a reservation's expiry, a duration."""
    data = {name: value for name, value in event["data"].items() if name not in DURATIONS}
    return {name: value for name, value in event.items() if name not in MOMENTS} | {"data": data}


def as_text(outcome: Outcome) -> str:
    """All of it, to be kept where somebody wants to look closer."""
    return json.dumps(outcome._asdict(), indent=1, sort_keys=True)
