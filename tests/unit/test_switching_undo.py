"""Undoing a switch: what it set comes back, what was changed since is kept where it can be (docs/domain.md 7)."""

from __future__ import annotations

import pytest

from service import catalog
from service.rules import switching
from service.rules.assignment import WorkloadFacts
from service.rules.quotas import UNLIMITED, Quota
from service.rules.switch_plan import Situation
from service.rules.switch_undo import Kept
from service.rules.tally import Kind, Tally, kind

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
BUILT_IN = catalog.load()
FIVE, SEVEN, NINE = Quota(5, None), Quota(7, 0), Quota(9, None)


def situation(items: dict[str, Quota], *kinds: Kind) -> Situation:
    tally = Tally()
    for number, each in enumerate(kinds):
        tally.add(f"w{number}", each)
    return Situation("acme", CYBER_PROTECTION, items, {}, tally)


def switched(items: dict[str, Quota], target: str) -> Kept:
    return switching.keep(switching.plan(BUILT_IN, situation(items), target))


def undo(kept: Kept, items: dict[str, Quota], *kinds: Kind) -> switching.UndoPlan:
    return switching.undo(BUILT_IN, situation(items, *kinds), kept)


def protected(held: str, former: str | None, *features: str) -> Kind:
    before = None if former is None else [former]
    return kind(WorkloadFacts("workstation"), features, protected=True, held=[held], former=before)


def test_what_has_not_changed_comes_back_exactly() -> None:
    items = {"pw_workstations": FIVE, "pw_p_adv_workstations": SEVEN, "pw_storage": NINE}
    kept = switched(items, "pck_per_workload")

    back = undo(kept, dict(kept.done))

    assert (back.plan.provision.enable, back.drift) == (items, ())
    assert set(back.plan.provision.disable) == set(kept.done)
    assert back.plan.startable


def test_a_quota_that_was_changed_since_is_kept_on_the_one_item_that_stands_for_it() -> None:
    kept = switched({"p_adv_workstations": FIVE}, "pck_per_workload")

    back = undo(kept, {**kept.done, "pw_base_workstations": NINE})

    assert back.plan.provision.enable == {"p_adv_workstations": NINE}
    assert [(each.offering_item, each.expected, each.found) for each in back.drift] == [
        ("pw_base_workstations", {"value": 5, "overage": None}, {"value": 9, "overage": None})
    ]
    assert "is kept" in back.drift[0].message


def test_a_quota_that_stood_for_several_cannot_be_kept_and_is_listed() -> None:
    items = {"pw_workstations": FIVE, "pw_p_workstations": FIVE}
    kept = switched(items, "pck_per_workload")

    back = undo(kept, {**kept.done, "pw_base_workstations": NINE})

    assert back.plan.provision.enable == items
    assert "cannot be kept" in back.drift[0].message


def test_what_was_turned_off_since_stays_off() -> None:
    kept = switched({"p_workstations": FIVE, "p_servers": SEVEN}, "pck_per_workload")
    since = {name: quota for name, quota in kept.done.items() if name != "pw_base_servers"}

    back = undo(kept, since)

    assert back.plan.provision.enable == {"p_workstations": FIVE}
    assert [(each.offering_item, each.found) for each in back.drift] == [("pw_base_servers", None)]


def test_what_was_turned_on_since_gets_what_a_switch_would_give_it() -> None:
    kept = switched({"p_workstations": FIVE}, "pck_per_workload")

    back = undo(kept, {**kept.done, "pw_base_servers": NINE, "pw_pack_adv_dlp": NINE})

    assert back.plan.provision.enable == {"p_workstations": FIVE, "p_servers": NINE}
    assert {each.offering_item: "is kept" in each.message for each in back.drift} == {
        "pw_base_servers": True,
        "pw_pack_adv_dlp": False,
    }


def test_packs_that_an_edition_had_turned_off_come_back() -> None:
    items = {"pw_base_workstations": FIVE, "pw_pack_adv_security": SEVEN, "pw_base_dr_base": UNLIMITED}
    kept = switched(items, "standard")

    back = undo(kept, {"workstations": FIVE})

    assert back.plan.provision.enable == items


@pytest.mark.parametrize("since", ["pw_workstations", "standard"])
def test_who_has_been_switched_again_is_not_switched_back(since: str) -> None:
    kept = switched({"p_workstations": FIVE}, "pck_per_workload")

    back = undo(kept, {"pg_base_workstations": FIVE} if since == "standard" else {since: FIVE})

    assert not back.plan.startable
    assert back.plan.refusals[0].code == "not_allowed"


def test_a_workload_takes_up_what_it_held_before_though_a_lower_item_would_do() -> None:
    items = {"pw_workstations": FIVE, "pw_p_adv_workstations": FIVE}
    kept = switched(items, "pck_per_workload")
    before, new = (
        protected("pw_base_workstations", "pw_p_adv_workstations", "backup.image"),
        protected("pw_base_workstations", None, "backup.image"),
    )

    back = undo(kept, dict(kept.done), before, new)

    assert {each.kind: each.after for each in back.plan.outcomes} == {
        before: ("pw_p_adv_workstations",),
        new: ("pw_workstations",),
    }


def test_a_pack_that_nobody_needs_any_more_does_not_come_back() -> None:
    items = {"pw_base_workstations": FIVE, "pw_pack_adv_security": FIVE}
    kept = switched(items, "cyber_protect_std")
    former = ["pw_base_workstations", "pw_pack_adv_security"]
    held = ["p_workstations"]
    needing = kind(WorkloadFacts("workstation"), ["security.url_filtering"], protected=True, held=held, former=former)
    content = kind(WorkloadFacts("workstation"), ["backup.image"], protected=True, held=held, former=former)

    back = undo(kept, dict(kept.done), needing, content)

    assert {each.kind: each.after for each in back.plan.outcomes} == {
        needing: ("pw_base_workstations", "pw_pack_adv_security"),
        content: ("pw_base_workstations",),
    }


def test_a_former_item_that_does_not_come_back_is_not_taken_up() -> None:
    kept = switched({"pw_workstations": FIVE}, "pck_per_workload")
    stale = protected("pw_base_workstations", "pw_p_adv_workstations", "backup.image")

    assert undo(kept, dict(kept.done), stale).plan.outcomes[0].after == ("pw_workstations",)
