"""Switches with the built-in catalogue (docs/domain.md 7): the examples to the letter, and every pair of editions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import msgspec
import pytest

from schemas import switches
from schemas.base import DENIAL_CODES, Denial
from schemas.base import Quota as Quantities
from service import catalog
from service.catalog.model import Role
from service.rules import switch_drift, switch_plan, switching
from service.rules.assignment import WorkloadFacts
from service.rules.quotas import UNLIMITED, Quota, total
from service.rules.switch_mapping import Direction
from service.rules.switch_plan import Options, Plan, Situation, Usage
from service.rules.switch_room import Account, Level
from service.rules.tally import Tally, kind

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"
BUILT_IN = catalog.load()
MODES = [name for name, edition in BUILT_IN.editions.items() if edition.kind == "billing_mode"]
EDITIONS = [name for name, edition in BUILT_IN.editions.items() if edition.kind == "edition"]
MANAGEMENT = ("management.software_inventory", "management.patch_management")
SECURITY = ("security.url_filtering",)
BACKUP = ("backup.continuous_data_protection",)


class Customer:
    """A customer in the making: its items, and its workloads with what they hold."""

    def __init__(self, **items: Quota | int | None) -> None:
        given = {name: each if isinstance(each, Quota) else Quota(each, None) for name, each in items.items()}
        self.items: dict[str, Quota] = given
        self.tally = Tally()
        self.used: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self._ids = itertools.count()

    def add(
        self, count: int, held: str | Iterable[str], *features: str, of: str = "workstation", **facts: object
    ) -> Customer:
        names = [held] if isinstance(held, str) else list(held)
        each = kind(WorkloadFacts(of, **facts), features, protected=True, held=names)  # type: ignore[arg-type]  # facts are told in each test
        for _ in range(count):
            self.tally.add(f"w{next(self._ids)}", each)
        for name in names:
            self.used[name] = self.used.get(name, 0) + count
        return self

    def situation(self, **more: object) -> Situation:
        usage = {
            name: Usage(self.used.get(name, 0) + self.reserved.get(name, 0), self.reserved.get(name, 0))
            for name in {**self.used, **self.reserved}
        }
        return Situation("acme", CYBER_PROTECTION, self.items, usage, self.tally, **more)  # type: ignore[arg-type]  # as above

    def switch(self, target: str, options: Options = Options(), **more: object) -> Plan:  # noqa: B008 - it is frozen
        return switching.plan(BUILT_IN, self.situation(**more), target, options)


def destination(plan: Plan) -> dict[str, tuple[int, int | None, int | None]]:
    """Usage and quota of each destination item."""
    return {
        item.offering_item: (item.used_after, *(item.quota_after or UNLIMITED))
        for item in plan.items
        if item.side == "destination"
    }


def quotas(plan: Plan) -> dict[str, Quota]:
    return dict(plan.provision.enable)


def codes(plan: Plan) -> list[str]:
    return [warning.code for warning in plan.warnings]


# --- the examples of docs/domain.md 7.1


def test_example_1_gives_the_table_to_the_letter() -> None:
    customer = Customer(p_adv_workstations=10)
    customer.add(3, "p_adv_workstations", "backup.image", *MANAGEMENT)
    customer.add(2, "p_adv_workstations", "backup.image", *SECURITY)
    customer.add(1, "p_adv_workstations", "backup.image", *BACKUP)
    customer.add(2, "p_adv_workstations", "backup.image")

    plan = customer.switch("pck_per_workload")

    assert destination(plan) == {
        "pw_base_workstations": (8, 10, None),
        "pw_pack_adv_management": (3, 10, None),
        "pw_pack_adv_security": (2, 10, None),
        "pw_pack_adv_backup_workstations": (1, 10, None),
    }
    assert [(item.used_before, item.used_after) for item in plan.items if item.side == "source"] == [(8, 0)]
    assert plan.startable
    assert plan.workloads == switch_plan.Counts(total=8, changed=8)


def test_example_2_sums_the_quotas_of_all_sub_editions_for_the_base_and_every_pack() -> None:
    customer = Customer(pw_p_ess_workstations=12, pw_p_workstations=10, pw_p_adv_workstations=10, pw_workstations=10)
    customer.add(6, "pw_p_ess_workstations", "backup.files", *MANAGEMENT, *SECURITY)
    customer.add(5, "pw_p_workstations", "backup.image", *MANAGEMENT, *SECURITY)
    customer.add(2, "pw_p_adv_workstations", "backup.image", *MANAGEMENT, *SECURITY, *BACKUP)
    customer.add(1, "pw_workstations", "backup.image")

    assert destination(customer.switch("pck_per_workload")) == {
        "pw_base_workstations": (14, 42, None),
        "pw_pack_adv_management": (13, 42, None),
        "pw_pack_adv_security": (13, 42, None),
        "pw_pack_adv_backup_workstations": (2, 42, None),
    }


def test_covering_pack_quotas_sum_only_the_sub_editions_that_had_the_functionality_of_the_pack() -> None:
    customer = Customer(pw_p_ess_workstations=12, pw_p_workstations=10, pw_p_adv_workstations=10, pw_workstations=10)

    assert quotas(customer.switch("pck_per_workload", Options(pack_quota="covering"))) == {
        "pw_base_workstations": Quota(42, None),
        "pw_pack_adv_management": Quota(32, None),
        "pw_pack_adv_security": Quota(32, None),
        "pw_pack_adv_backup_workstations": Quota(10, None),
    }


# --- every pair of the catalogue

COLUMNS = {  # docs/domain.md 5.4: which packs stand for an edition; no edition has another one
    "standard": (),
    "per_gigabyte": (),
    "per_workload": ("adv_backup", "adv_security", "adv_management"),
    "cyber_protect_std": ("adv_security", "adv_management"),
    "cyber_protect_adv": ("adv_backup", "adv_security", "adv_management"),
    "advanced": ("adv_backup",),
    "disaster_recovery": ("adv_backup",),
    "cyber_protect_dre": ("adv_backup", "adv_security", "adv_management"),
}
BASES = {  # workload type: how its base item ends, in either mode
    "workstation": "workstations",
    "server": "servers",
    "vm": "vms",
    "mobile": "mobiles",
    "web_hosting_server": "web_hosting_servers",
    "website": "websites",
    "hosted_exchange_mailbox": "hosted_exchange",
    "m365_seat": "m365_seats",
    "m365_sharepoint_site": "m365_sharepoint_sites",
    "m365_team": "m365_teams",
    "gworkspace_seat": "gworkspace_seats",
}
MACHINES = ("workstations", "servers", "vms", "web_hosting_servers")
PREFIXES = {"pck_per_workload": "pw_", "pck_per_gigabyte": "pg_"}


def full(edition: str) -> Customer:
    """A customer with every item of an edition or mode enabled, each with a quota of its own."""
    numbers = itertools.count(1)
    items = {
        item.name: UNLIMITED if item.type == "feature" else Quota(next(numbers), 1)
        for item in BUILT_IN.items_of_edition(edition)
    }
    return Customer(**items, local_storage=7, tenant_audit_log=None)


def packs_of(mode: str, edition: str) -> set[str]:
    """The packs of an edition's row; the sub-editions of `per_workload` that have packs have no item for seats."""
    columns, prefix = COLUMNS[edition], f"{PREFIXES[mode]}pack_"
    seats = () if edition == "per_workload" else ("m365_seats",)
    found = {f"{prefix}{column}" for column in columns if column != "adv_backup"}
    if "adv_security" in columns:
        found |= {f"{prefix}adv_security_{each}" for each in seats}
    if "adv_backup" in columns:
        found |= {f"{prefix}adv_backup_{each}" for each in (*MACHINES, *seats)}
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_gives_the_base_items_of_its_types_its_storage_and_the_packs_of_its_row(
    edition: str, mode: str
) -> None:
    plan = full(edition).switch(mode)

    bases = {f"{PREFIXES[mode]}base_{each}" for each in (*BASES.values(), "storage")}
    assert plan.direction is Direction.EDITION_TO_MODE
    assert set(plan.provision.enable) == bases | packs_of(mode, edition)
    assert set(plan.provision.disable) == {item.name for item in BUILT_IN.items_of_edition(edition)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_gives_each_base_item_the_sum_of_its_types_quotas(edition: str, mode: str) -> None:
    customer = full(edition)
    given = quotas(customer.switch(mode))

    for workload_type, ending in BASES.items():
        items = [item.name for item in BUILT_IN.holdable(edition, workload_type)]
        assert given[f"{PREFIXES[mode]}base_{ending}"] == total(customer.items[name] for name in items)


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_gives_each_type_one_item_with_the_quota_of_its_base(mode: str, edition: str) -> None:
    customer = full(mode)
    plan = customer.switch(edition)
    given = quotas(plan)

    for workload_type, ending in BASES.items():
        chosen = [item for item in BUILT_IN.holdable(edition, workload_type) if item.name in given]
        # With every pack enabled, the highest sub-edition covers the most for machines; for others, all are alike.
        highest = -1 if ending in MACHINES else 0
        assert chosen == [BUILT_IN.holdable(edition, workload_type)[highest]]
        assert given[chosen[0].name] == customer.items[f"{PREFIXES[mode]}base_{ending}"]
    storage = next(item.name for item in BUILT_IN.items_of_edition(edition) if item.role is Role.GAUGE)
    assert given[storage] == customer.items[f"{PREFIXES[mode]}base_storage"]
    assert len(given) == len(BASES) + 1
    assert set(plan.provision.disable) == {item.name for item in BUILT_IN.items_of_edition(mode)}
    assert "AdvCyberProtectBecomeUnavailable" in codes(plan)
    assert "email.realtime_protection" in plan.features_lost["m365_seat"]


@pytest.mark.parametrize(("source", "target"), [MODES, MODES[::-1]])
def test_a_mode_gives_another_the_identical_set_with_the_same_quotas(source: str, target: str) -> None:
    customer = full(source)
    plan = customer.switch(target)

    was, will = PREFIXES[source], PREFIXES[target]
    own = [item.name for item in BUILT_IN.items_of_edition(source)]
    assert quotas(plan) == {will + name.removeprefix(was): customer.items[name] for name in own}
    assert plan.features_lost == plan.features_gained == {}


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(EDITIONS, 2)))
def test_an_edition_is_never_switched_to_an_edition(source: str, target: str) -> None:
    plan = full(source).switch(target)

    assert not plan.startable
    assert [(each.code, each.context) for each in plan.refusals] == [("not_allowed", {"code": "1027"})]
    assert "edition to edition" in plan.refusals[0].message
    assert plan.items == plan.outcomes == ()


@pytest.mark.parametrize("edition", [*EDITIONS, *MODES])
def test_who_is_on_the_target_already_keeps_everything(edition: str) -> None:
    plan = full(edition).add(2, [item.name for item in BUILT_IN.holdable(edition, "vm")][:1], of="vm").switch(edition)

    assert plan.startable
    assert plan.direction is Direction.NOTHING
    assert (plan.provision.enable, plan.provision.disable, plan.units, plan.warnings) == ({}, (), {}, ())
    assert plan.workloads == switch_plan.Counts(total=2)
    assert all((item.used_before, item.quota_before) == (item.used_after, item.quota_after) for item in plan.items)


@pytest.mark.parametrize(
    ("target", "word"), [("no_such_edition", "no_such_edition"), ("pck_per_workload", "no edition")]
)
def test_a_switch_from_or_to_nothing_is_refused_in_a_sentence(target: str, word: str) -> None:
    plan = Customer(local_storage=None).switch(target)

    assert not plan.startable
    assert word in plan.refusals[0].message


# --- items


@pytest.mark.parametrize(
    ("packs", "chosen"),
    [
        ((), "pw_workstations"),
        (("pw_pack_adv_security",), "pw_p_workstations"),  # Essentials lacks images, which every base has
        (("pw_pack_adv_management",), "pw_p_workstations"),
        (("pw_pack_adv_backup_workstations",), "pw_p_adv_workstations"),
        (("pw_pack_adv_security", "pw_pack_adv_security_edr"), "pw_p_workstations"),
        (("pw_pack_adv_backup_servers",), "pw_workstations"),  # a pack of another type
    ],
)
def test_a_mode_gives_the_lowest_sub_edition_that_covers_base_and_packs(packs: tuple[str, ...], chosen: str) -> None:
    customer = Customer(pw_base_workstations=Quota(5, 2), **dict.fromkeys(packs, 3))

    assert quotas(customer.switch("per_workload")) == {chosen: Quota(5, 2)}


def test_a_type_that_only_borrows_a_base_item_gets_an_item_of_its_own() -> None:
    customer = Customer(pw_base_workstations=5)
    customer.add(2, "pw_base_workstations", "backup.image", of="vm", os="desktop")

    plan = customer.switch("per_workload")

    assert destination(plan) == {"pw_workstations": (0, 5, None), "pw_vms": (2, 5, None)}


def test_a_pack_for_several_types_gets_the_sum_over_those_that_are_present() -> None:
    customer = Customer(p_workstations=Quota(3, 1), p_servers=Quota(4, 2), p_mobiles=50)

    assert quotas(customer.switch("pck_per_gigabyte")) == {
        "pg_base_workstations": Quota(3, 1),
        "pg_base_servers": Quota(4, 2),
        "pg_base_mobiles": Quota(50, None),
        "pg_pack_adv_management": Quota(7, 3),
        "pg_pack_adv_security": Quota(7, 3),
    }


def test_recovery_items_map_between_modes_and_are_a_feature_lost_from_an_edition() -> None:
    between = Customer(pw_base_vms=4, pw_base_dr_compute_points=900, pw_base_adv_dr_storage=8)
    edition = Customer(dre_vms=4).add(1, "dre_vms", "backup.image", "disaster_recovery.failover", of="vm")

    assert quotas(between.switch("pck_per_gigabyte"))["pg_base_adv_dr_storage"] == Quota(8, None)
    plan = edition.switch("pck_per_workload")
    assert set(plan.provision.enable) == {"pw_base_vms", "pw_pack_adv_backup_vms"}
    assert plan.features_lost == {"vm": ("disaster_recovery.failover",)}
    assert plan.outcomes[0].uncovered == plan.outcomes[0].lost == ("disaster_recovery.failover",)
    assert plan.startable
    assert plan.workloads.losing_features == 1


def test_bytes_move_to_the_storage_of_the_target_and_reserved_ones_stay() -> None:
    customer = Customer(pw_storage=1000, local_storage=5, pw_vms=1)
    customer.used["pw_storage"], customer.reserved["pw_storage"] = 700, 50

    plan = customer.switch("pck_per_workload")

    assert {item.offering_item: (item.used_before, item.used_after) for item in plan.items} == {
        "pw_vms": (0, 0),
        "pw_storage": (750, 50),
        "pw_base_vms": (0, 0),
        "pw_base_storage": (0, 700),
    }
    assert quotas(plan)["pw_base_storage"] == Quota(1000, None)
    assert plan.units == {}


# --- workloads


def test_features_that_are_only_waited_for_are_not_required() -> None:
    customer = Customer(pw_p_workstations=0, pw_workstations=9)
    customer.add(1, "pw_workstations", "backup.image", *SECURITY)

    plan = customer.switch("pck_per_workload")

    outcome = plan.outcomes[0]
    assert (outcome.after, outcome.uncovered, outcome.lost) == (("pw_base_workstations",), (), ())
    assert outcome.waits
    assert plan.units == {"pw_base_workstations": 1, "pw_workstations": -1}


def test_a_type_without_an_item_in_the_target_stands_in_the_way_of_a_strict_switch_only() -> None:
    customer = Customer(pw_base_nas=5, pw_base_vms=5)
    customer.add(2, "pw_base_nas", "backup.files", of="nas").add(1, "pw_base_vms", "backup.image", of="vm")

    strict = customer.switch("standard")
    lenient = customer.switch("standard", Options(mode="best_effort"))

    assert (strict.startable, lenient.startable) == (False, True)
    assert [each.code for each in strict.refusals] == ["unknown_workload_type"]
    assert strict.workloads == switch_plan.Counts(total=3, changed=3, denied=2)
    assert "AllDevicesWithBackupsPreserved" not in codes(lenient)
    assert "SomePlansWillStopWorking" in codes(lenient)
    assert strict.plan_hash == lenient.plan_hash


def test_one_that_waits_for_everything_never_stands_in_the_way() -> None:
    customer = Customer(pw_base_vms=5).add(1, (), "backup.files", of="nas")

    plan = customer.switch("standard")

    assert plan.startable
    assert (plan.outcomes[0].after, plan.outcomes[0].waits) == ((), True)
    assert plan.workloads == switch_plan.Counts(total=1)


def test_between_modes_a_workload_keeps_to_the_base_item_that_it_has_fallen_back_to() -> None:
    customer = Customer(pw_base_vms=Quota(1, 0), pw_base_workstations=Quota(5, 0))
    customer.add(1, "pw_base_vms", "backup.image", of="vm", os="desktop")
    customer.add(1, "pw_base_workstations", "backup.image", of="vm", os="desktop")

    plan = customer.switch("pck_per_gigabyte")

    assert plan.startable
    assert plan.required == {"pg_base_vms": 1, "pg_base_workstations": 1}


def test_items_of_other_applications_and_of_no_edition_are_not_named() -> None:
    plan = full("cyber_protect_std").switch("pck_per_workload")

    named = {item.offering_item for item in plan.items} | set(plan.basis.before) | set(plan.basis.after)
    assert not named & {"local_storage", "tenant_audit_log"}


# --- refusals


def test_items_that_the_parent_lacks_are_listed_and_nothing_starts() -> None:
    customer = Customer(p_workstations=3)
    known: Mapping[str, object] = {"parent_id": "msp", "parent_enabled": frozenset({"pw_base_workstations"})}

    plan = customer.switch("pck_per_workload", Options(mode="best_effort"), **known)
    reaching = customer.switch("pck_per_workload", Options(enable_on_ancestors=True), **known)

    missing = ("pw_pack_adv_management", "pw_pack_adv_security")
    assert not plan.startable
    assert tuple(each.offering_item for each in plan.refusals) == missing
    assert {(each.code, each.tenant_id, str(each.context)) for each in plan.refusals} == {
        ("offering_item_not_enabled", "msp", "{'code': '1021'}")
    }
    assert (reaching.startable, reaching.enable_above, reaching.refusals) == (True, missing, ())


def test_usage_above_a_hard_quota_stands_in_the_way() -> None:
    customer = Customer(p_workstations=Quota(1, 1)).add(3, "p_workstations", "backup.image")

    plan = customer.switch("pck_per_workload")

    refusal = plan.refusals[0]
    assert not plan.startable
    assert (refusal.code, refusal.tenant_id, refusal.offering_item) == (
        "quota_exceeded",
        "acme",
        "pw_base_workstations",
    )
    assert (refusal.limit, refusal.used, refusal.requested) == (2, 0, 3)


def test_every_level_that_has_no_room_is_named() -> None:
    customer = Customer(p_workstations=None).add(3, "p_workstations", "backup.image", *SECURITY)
    above = (
        Level("msp", {"pw_base_workstations": Account(8, Quota(10, 0)), "pw_pack_adv_security": Account(8, UNLIMITED)}),
        Level("distributor", {"pw_pack_adv_security": Account(90, Quota(90, 2))}),
    )

    plan = customer.switch("pck_per_workload", above=above)

    assert [(each.tenant_id, each.offering_item, each.limit) for each in plan.refusals] == [
        ("msp", "pw_base_workstations", 10),
        ("distributor", "pw_pack_adv_security", 92),
    ]


def test_best_effort_says_who_is_left_without_a_base_and_who_without_packs() -> None:
    customer = Customer(p_workstations=None).add(5, "p_workstations", "backup.image", *SECURITY)
    above = (
        Level(
            "msp",
            {
                "pw_base_workstations": Account(6, Quota(10, 0)),
                "pw_pack_adv_security": Account(0, Quota(1, 0)),
            },
        ),
    )

    plan = customer.switch("pck_per_workload", Options(mode="best_effort"), above=above)

    assert plan.startable
    assert [(share.count, share.after, share.refused) for share in plan.shares[0]] == [
        (1, ("pw_base_workstations", "pw_pack_adv_security"), ()),
        (3, ("pw_base_workstations",), ("pw_pack_adv_security",)),
        (1, (), ("pw_base_workstations",)),
    ]
    assert plan.workloads == switch_plan.Counts(total=5, changed=5, losing_features=3, denied=1)
    assert destination(plan)["pw_base_workstations"] == (4, None, None)
    assert destination(plan)["pw_pack_adv_security"] == (1, None, None)


# --- warnings


@pytest.mark.parametrize(
    ("customer", "target", "expected"),
    [
        (Customer(workstations=3), "pck_per_workload", set()),
        (Customer(pw_p_ess_workstations=3), "pck_per_workload", {"NewFeaturesBecomeAvailable"}),
        (Customer(dre_vms=3), "pck_per_workload", {"OldFeaturesBecomeUnavailable"}),
        (
            Customer(workstations=3).add(1, "workstations", "backup.image"),
            "pck_per_workload",
            {"AllDevicesWithBackupsPreserved", "UsageStatisticsWillMigrate"},
        ),
        (Customer(pw_base_vms=3), "standard", {"AdvCyberProtectBecomeUnavailable"}),
        (
            Customer(pw_base_vms=3, pw_pack_adv_dlp=3).add(
                1, ("pw_base_vms", "pw_pack_adv_dlp"), "dlp.data_loss_prevention", of="vm"
            ),
            "standard",
            {
                "OldFeaturesBecomeUnavailable",
                "SomePlansWillStopWorking",
                "AllDevicesWithBackupsPreserved",
                "UsageStatisticsWillMigrate",
                "AdvCyberProtectBecomeUnavailable",
            },
        ),
    ],
)
def test_each_warning_is_raised_for_its_reason_alone(customer: Customer, target: str, expected: set[str]) -> None:
    assert set(codes(customer.switch(target))) == expected


def test_the_way_to_an_edition_is_not_recommended_and_says_which_packs_go() -> None:
    plan = Customer(pw_base_vms=3, pw_pack_adv_dlp=3).switch("standard")

    message = next(each.message for each in plan.warnings if each.code == "AdvCyberProtectBecomeUnavailable")
    assert "not recommended" in message
    assert "pw_pack_adv_dlp" in message


# --- the preview


def test_the_preview_has_the_fields_of_the_contract() -> None:
    shown = switch_plan.shown(full("per_workload").switch("pck_per_workload"), "acme")

    assert shown.keys() >= {
        "tenant_id",
        "from_edition",
        "to_edition",
        "plan_hash",
        "items",
        "workloads",
        "features_lost",
        "warnings",
        "denials",
    }
    assert shown["workloads"].keys() == {"total", "changed", "losing_features", "denied"}
    assert {"offering_item", "side", "used_before", "used_after", "quota_before", "quota_after"} <= shown["items"][
        0
    ].keys()


def test_warnings_denials_items_and_drift_fit_the_events_that_carry_them() -> None:
    nas = Customer(pw_base_nas=Quota(1, 0), pw_base_vms=Quota(1, 0), pw_pack_adv_security=1, pw_pack_adv_dlp=1).add(
        2, ("pw_base_vms", "pw_pack_adv_dlp"), "dlp.data_loss_prevention", of="vm"
    )
    nas.add(1, "pw_base_nas", "backup.files", of="nas")
    plan = nas.switch("per_workload", parent_id="msp", parent_enabled=frozenset())
    shown = switch_plan.shown(plan, "acme")
    drift = switch_drift.drift(plan.basis, Customer(pw_base_nas=3).switch("per_workload").basis)

    assert {each.code for each in plan.refusals} == {
        "offering_item_not_enabled",
        "unknown_workload_type",
        "quota_exceeded",
    }
    assert [Denial.model_validate(each).message for each in shown["denials"]] == [
        each.message for each in plan.refusals
    ]
    assert {each.code for each in plan.refusals} <= set(DENIAL_CODES)
    assert [each["code"] for each in shown["warnings"]] == [
        code for code in switches.WARNING_CODES if code != "AllDevicesWithBackupsPreserved"
    ]
    assert len([switches.Drift.model_validate(msgspec.to_builtins(each)) for each in drift]) == len(drift) > 0
    assert {Quantities.model_validate(item["quota_after"]).value for item in shown["items"]} == {None, 1}


# --- drift


def test_drift_names_the_quota_and_the_holdings_that_are_not_as_planned() -> None:
    then = Customer(p_workstations=5).add(2, "p_workstations", "backup.image").switch("pck_per_workload")
    now = Customer(p_workstations=6).add(3, "p_workstations", "backup.image").switch("pck_per_workload")

    found = switch_drift.drift(then.basis, now.basis)

    assert [(each.offering_item, each.expected, each.found) for each in found] == [
        ("p_workstations", {"value": 5, "overage": None}, {"value": 6, "overage": None}),
        (None, 2, 3),
    ]


def test_two_workloads_that_exchange_what_they_hold_are_drift() -> None:
    def swapped(first: str, second: str) -> Plan:
        customer = Customer(pw_p_workstations=5, pw_workstations=5)
        return customer.add(1, first, "backup.image").add(1, second, "backup.image").switch("pck_per_workload")

    then, now = swapped("pw_workstations", "pw_p_workstations"), swapped("pw_p_workstations", "pw_workstations")

    assert then.plan_hash != now.plan_hash
    assert len(switch_drift.drift(then.basis, now.basis)) == 1


def test_bytes_room_and_the_mode_are_not_drift() -> None:
    customer = Customer(p_workstations=5, p_storage=5).add(2, "p_workstations", "backup.image")
    then = customer.switch("pck_per_workload")
    customer.used["p_storage"] = 99
    now = customer.switch("pck_per_workload", Options(mode="best_effort"), parent_id="msp", parent_enabled=frozenset())

    assert then.plan_hash == now.plan_hash
    assert switch_drift.drift(then.basis, now.basis) == ()
