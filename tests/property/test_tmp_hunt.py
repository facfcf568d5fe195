"""What comes over HTTP and what comes over Kafka at the same time, for the same tenants, keeps every invariant."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.handlers import verification
from service.handlers.engine import Engine
from service.ledger.reference import ReferenceLedger
from tests.unit.http.site import Site

ITEMS = ("pw_base_workstations", "pw_base_servers", "local_storage")
OTHER_MODE = ("pg_base_workstations", "pg_base_servers")
OWN = "http://service/api/v1"
TENANTS = ("dist", "msp", "cust", "unit")


class Yielding:
    """A ledger whose every call lets others go first, so that what is under way together mixes."""

    def __init__(self, ledger: ReferenceLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def called(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return await found(*arguments, **options)

        return called


class Crossing(Site):
    """Kafka's events go to one process, requests to another; both are on one ledger."""

    def start(self) -> Engine:
        made = super().start()
        made.ledger = Yielding(self.ledger)  # type: ignore[assignment]  # it has everything that a ledger has
        return made


quotas = st.one_of(st.none(), st.fixed_dictionaries({"value": st.integers(0, 3), "overage": st.sampled_from((0, 1))}))
tenants = st.sampled_from(TENANTS)
workloads = st.sampled_from(("w1", "w2", "w3", "w4"))
reservations = st.sampled_from(("r1", "r2"))
requests = st.one_of(
    st.tuples(st.just("items"), tenants, st.sampled_from(ITEMS), st.integers(0, 1), quotas),
    st.tuples(st.just("enabled"), tenants, st.booleans()),
    st.tuples(st.just("create"), tenants, st.sampled_from(("customer", "unit")), st.sampled_from("ab")),
    st.tuples(st.just("delete"), tenants),
    st.tuples(st.just("report"), tenants, st.integers(0, 9)),
    st.tuples(st.just("reserve"), tenants, reservations, st.sampled_from(ITEMS), st.integers(1, 3)),
    st.tuples(st.just("commit"), tenants, reservations, workloads),
    st.tuples(st.just("release"), tenants, reservations),
    st.tuples(st.just("switch"), st.just("cust"), st.sampled_from(("pck_per_workload", "pck_per_gigabyte"))),
)
events = st.one_of(
    st.tuples(st.just("register"), tenants, workloads),
    st.tuples(st.just("remove"), tenants, workloads),
    st.tuples(st.just("apply"), tenants, workloads),
    st.tuples(st.just("usage"), tenants, workloads, st.integers(0, 9)),
    st.tuples(st.just("set"), tenants, st.sampled_from(ITEMS), st.integers(0, 1), quotas),
    st.tuples(st.just("upsert"), tenants, st.booleans()),
    st.tuples(st.just("reserve"), tenants, reservations, st.sampled_from(ITEMS), st.integers(1, 3)),
    st.tuples(st.just("release"), tenants, reservations),
)
PARENTS = {
    "dist": ("root", "partner"),
    "msp": ("dist", "partner"),
    "cust": ("msp", "customer"),
    "unit": ("cust", "unit"),
}


async def ask(caller: Any, request: Any) -> int:
    """Make a request; its status."""
    what, tenant, *more = request
    if what == "items":
        item = {"name": more[0], "status": more[1], "quota": more[2]}
        answer = await caller.put(f"/tenants/{tenant}/offering_items", json={"offering_items": [item]})
    elif what == "enabled":
        answer = await caller.put(f"/tenants/{tenant}", json={"enabled": more[0]})
    elif what == "create":
        body = {"parent_id": tenant, "kind": more[0], "name": more[1]}
        answer = await caller.post("/tenants", json=body)
    elif what == "delete":
        answer = await caller.delete(f"/tenants/{tenant}")
    elif what == "switch":
        answer = await caller.put(f"/tenants/{tenant}/edition", json={"target_edition": more[0]})
    elif what in ("reserve", "commit", "release"):
        answer = await ask_for_units(caller, what, f"{OWN}/tenants/{tenant}/reservations", *more)
    else:
        entry = {"tenant_id": tenant, "usage_name": "local_storage", "value": more[0]}
        answer = await caller.put("/tenants/usages", json={"items": [entry]})
    return int(answer.status_code)


async def ask_for_units(caller: Any, what: str, path: str, reservation: str, *more: Any) -> Any:
    """One of the requests for reservations."""
    if what == "reserve":
        return await caller.post(path, json={"reservation_id": reservation, "items": {more[0]: more[1]}})
    if what == "commit":
        return await caller.post(f"{path}/{reservation}/commit", json={"workload_id": more[0]})
    return await caller.delete(f"{path}/{reservation}")


def arrival(site: Site, event: Any) -> Any:
    """An event as it comes from Kafka."""
    what, tenant, *more = event
    if what in ("register", "remove"):
        data = {"workload_id": more[0], **({"type": "workstation"} if what == "register" else {})}
        return site.event("workload.registered" if what == "register" else "workload.removed", tenant, data)
    if what == "apply":
        return site.event("plan.applied", tenant, {"plan_id": "plan", "workload_ids": [more[0]]})
    if what == "usage":
        data = {"workload_id": more[0], "usage": {"local_storage_bytes": more[1]}}
        return site.event("workload.usage_reported", tenant, data)
    if what == "reserve":
        data = {"reservation_id": more[0], "items": {more[1]: more[2]}}
        return site.event("reservation.reserve", tenant, data)
    if what == "release":
        return site.event("reservation.release", tenant, {"reservation_id": more[0]})
    if what == "set":
        item = {"name": more[0], "status": more[1], "quota": more[2]}
        return site.event("offering_items.set", tenant, {"items": [item], "cascade": True})
    parent, kind = PARENTS[tenant]
    data = {"parent_id": parent, "kind": kind, "name": tenant, "enabled": more[0]}
    return site.event("tenant.upserted", tenant, data)


@settings(derandomize=False, max_examples=600, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8), st.lists(events, min_size=1, max_size=12))
async def test_requests_and_events_at_the_same_time_keep_every_invariant(asked: Any, sent: Any) -> None:
    site = Crossing()
    for tenant, (parent, kind) in PARENTS.items():
        await site.upsert(tenant, parent, kind)
    for tenant in ("dist", "msp", "cust"):
        await site.set_items(tenant, *ITEMS, *(OTHER_MODE if tenant != "cust" else ()))
    for tenant in ("cust", "unit"):
        await site.send("plan.saved", tenant, {"plan_id": "plan", "features": ["backup.files"]})
    caller = await site.caller()
    kafka = site.start()  # another process than the one that HTTP is served by
    arrivals = [arrival(site, event) for event in sent]
    batches = [arrivals[first : first + 3] for first in range(0, len(arrivals), 3)]

    async def consume() -> None:
        for batch in batches:
            await kafka.handle(batch)

    *statuses, _ = await asyncio.gather(*(ask(caller, request) for request in asked), consume())
    await site.settle()
    report = await verification.verify(site.ledger, site.catalog)
    assert report.violations == []
    assert {each for each in statuses if each is not None} <= {200, 201, 202, 204, 400, 403, 404, 409}
