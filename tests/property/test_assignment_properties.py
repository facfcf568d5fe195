"""What holds of every assignment, whatever the customer has enabled and whatever its plans request."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import catalog
from service.rules import assignment

CATALOGS = [catalog.load(), catalog.load(Path(__file__).parent.parent / "data" / "catalog_with_cyberapps.json")]


class Question:
    """A customer's items, and one workload with what its plans request."""

    def __init__(
        self,
        entries: catalog.Catalog,
        editions: dict[str, str],
        enabled: list[str],
        workload: assignment.WorkloadFacts,
        requested: list[str],
    ) -> None:
        self.catalog = entries
        self.editions = editions
        self.enabled = frozenset(enabled)
        self.workload = workload
        self.requested = requested
        self.applicable = entries.applicable(requested, workload.type, workload.os_family)

    def __repr__(self) -> str:
        return f"{self.workload} requests {self.requested} with {sorted(self.enabled)}"

    def ask(self) -> assignment.Decision:
        # What is remembered must not stand in for what would be computed.
        assignment._decide.cache_clear()
        return assignment.decide(
            self.catalog, self.editions, self.enabled, self.workload, set(self.requested), protected=True
        )

    def carried(self, names: tuple[str, ...]) -> frozenset[str]:
        return frozenset().union(*(self.catalog.item(name).features for name in names)) & self.applicable

    def covered_without_a_unit(self) -> frozenset[str]:
        """What cover items give to the whole tenant."""
        return frozenset().union(
            *(
                item.features
                for item in self.catalog.items.values()
                if item.name in self.enabled and item.role is catalog.Role.COVER and self.workload.type in item.serves
            )
        )


@st.composite
def questions(draw: st.DrawFn) -> Question:
    entries = draw(st.sampled_from(CATALOGS))
    editions: dict[str, str] = {}
    offered = [item.name for item in entries.items_of_edition(None)]
    for application_id in entries.applications:
        names = [edition.name for edition in entries.editions.values() if edition.application_id == application_id]
        name = draw(st.sampled_from([None, *names, *names, *names]))
        if name is not None:
            editions[application_id] = name
            offered += [item.name for item in entries.items_of_edition(name)]
    missing = draw(st.lists(st.sampled_from(offered), unique=True, max_size=draw(st.sampled_from([2, len(offered)]))))
    enabled = [name for name in offered if name not in missing]
    workload = assignment.WorkloadFacts(
        type=draw(st.sampled_from([*entries.workload_types, "toaster"])),
        os=draw(st.sampled_from([None, "desktop", "server"])),
        os_family=draw(st.sampled_from([None, "windows", "linux"])),
        virtual=draw(st.booleans()),
    )
    requested = draw(st.lists(st.sampled_from([*entries.features, "toast.brown"]), unique=True, max_size=12))
    return Question(entries, editions, enabled, workload, requested)


@given(questions())
def test_the_same_question_has_the_same_answer_in_any_order(question: Question) -> None:
    first = question.ask()
    question.requested = list(reversed(question.requested))
    question.enabled = frozenset(sorted(question.enabled, reverse=True))
    assert question.ask() == first


@given(questions())
def test_candidates_contain_only_enabled_items_each_once(question: Question) -> None:
    for candidate in question.ask().candidates:
        names = candidate.items + candidate.packs
        assert len(set(names)) == len(names)
        assert set(names) <= question.enabled
        assert all(question.catalog.item(name).role in catalog.model.HELD_ROLES for name in names)


@given(questions())
def test_a_candidate_has_one_base_or_edition_item_per_application_and_none_of_two_editions(question: Question) -> None:
    for candidate in question.ask().candidates:
        whole = [question.catalog.item(name) for name in candidate.items]
        assert all(item.role in catalog.model.WHOLE_ROLES for item in whole)
        assert len({item.application_id for item in whole}) == len(whole)
        assert assignment.edition_conflicts(question.catalog, {*candidate.items, *candidate.packs}) == {}
        for name in candidate.packs:
            item = question.catalog.item(name)
            assert item.role in (catalog.Role.PACK, catalog.Role.ADDON)
            assert item.edition is None or item.edition in {base.edition for base in whole}


@given(questions())
def test_every_applicable_feature_is_covered_or_listed_as_uncovered_with_a_denial(question: Question) -> None:
    decision = question.ask()
    for candidate in decision.candidates:
        covered = question.carried(candidate.items + candidate.packs) | question.covered_without_a_unit()
        assert set(candidate.uncovered) <= question.applicable - covered
        # An enabled pack of an application whose base is not enabled: refused, but not without a carrier.
        for feature in question.applicable - covered - set(candidate.uncovered):
            carriers = [item for item in question.catalog.items.values() if feature in item.features]
            assert any(item.role is catalog.Role.PACK and item.name in question.enabled for item in carriers)
            assert any(denial.feature is None for denial in candidate.denials)
        of_the_whole = any(denial.feature is None for denial in candidate.denials)
        told = {denial.feature for denial in candidate.denials}
        assert of_the_whole or set(candidate.uncovered) <= told
        # What is refused as a whole may be another application's, where this one covers all that is asked for.
        assert of_the_whole or bool(candidate.denials) == bool(question.applicable - covered)
    if not decision.candidates and question.workload.type != "toaster":
        assert set(decision.uncovered_features) <= question.applicable
        assert decision.denials or not question.applicable


@given(questions())
def test_the_decision_repeats_what_the_preferred_candidate_leaves_open(question: Question) -> None:
    decision = question.ask()
    for candidate in decision.candidates[:1]:
        assert (decision.uncovered_features, decision.denials) == (candidate.uncovered, candidate.denials)
    assert list(decision.uncovered_features) == sorted(set(decision.uncovered_features))
    assert len({(each.code, each.offering_item, each.feature) for each in decision.denials}) == len(decision.denials)


@given(questions())
def test_a_denied_item_is_one_that_is_not_enabled(question: Question) -> None:
    decision = question.ask()
    for denial in itertools.chain(decision.denials, *(candidate.denials for candidate in decision.candidates)):
        assert denial.offering_item is None or denial.offering_item not in question.enabled
        assert denial.offering_item is None or denial.code == "offering_item_not_enabled"
        assert denial.feature is None or denial.feature in question.applicable


@given(questions())
def test_enabling_every_item_that_a_decision_misses_leaves_only_what_is_not_available(question: Question) -> None:
    decision = question.ask()
    for _ in question.catalog.items:
        missing = {denial.offering_item for denial in decision.denials if denial.offering_item}
        if not missing:
            break
        question.enabled |= missing
        decision = question.ask()
    assert {denial.code for denial in decision.denials if denial.feature} <= {"feature_not_available"}


@given(questions())
def test_no_smaller_set_of_packs_would_do(question: Question) -> None:
    for candidate in question.ask().candidates:
        rest = question.carried(candidate.packs) - question.carried(candidate.items)
        wanted = rest - question.covered_without_a_unit()
        served = {name for base in candidate.items for name in question.catalog.item(base).serves}
        usable = [
            item
            for item in question.catalog.items.values()
            if item.name in question.enabled
            and (
                (item.role is catalog.Role.ADDON and question.workload.type in item.serves)
                or (item.role is catalog.Role.PACK and item.serves & served)
            )
        ]
        for size in range(len(candidate.packs)):
            for smaller in itertools.combinations(usable, size):
                names = {item.name for item in smaller}
                complete = all(set(item.requires) <= names for item in smaller)
                carried = question.carried(tuple(names))
                assert not (complete and wanted <= carried), (wanted, names, candidate.packs)


@given(questions())
def test_an_editions_item_is_the_lowest_of_those_that_cover_most(question: Question) -> None:
    for place, candidate in enumerate(question.ask().candidates):
        for name in candidate.items:
            taken = question.catalog.item(name)
            if taken.role is not catalog.Role.EDITION or taken.edition is None:
                continue
            asked = {
                feature
                for feature in question.applicable
                if question.catalog.feature(feature).application_id == taken.application_id
            }
            enabled = [
                item
                for item in question.catalog.items_of_edition(taken.edition)
                if item.name in question.enabled and question.workload.type in item.serves
            ]
            most = max(len(item.features & asked) for item in enabled)
            assert len(taken.features & asked) == most
            better = [item for item in enabled if item.rank < taken.rank and len(item.features & asked) == most]
            assert len(better) <= place


@given(questions())
def test_an_unprotected_workload_is_due_nothing(question: Question) -> None:
    decision = assignment.decide(
        question.catalog,
        question.editions,
        question.enabled,
        question.workload,
        set(question.requested),
        protected=False,
    )
    assert decision == assignment.NOTHING


@given(questions())
def test_features_that_do_not_apply_change_nothing(question: Question) -> None:
    decision = question.ask()
    question.requested = sorted(question.applicable)
    assert question.ask() == decision


@st.composite
def covers(draw: st.DrawFn) -> tuple[list[str], frozenset[str]]:
    names = draw(st.lists(st.sampled_from(["hd_red", "hd_red_green", "hd_green_blue", "hd_spectrum"]), unique=True))
    if "hd_spectrum" in names and "hd_red" not in names:
        names.append("hd_red")
    entries = CATALOGS[1]
    carried = sorted(frozenset().union(*(entries.item(name).features for name in names)))
    return names, frozenset(draw(st.lists(st.sampled_from(carried), unique=True))) if carried else frozenset()


@given(covers())
def test_the_smallest_cover_is_exact(case: tuple[list[str], frozenset[str]]) -> None:
    names, features = case
    entries = CATALOGS[1]
    chosen = assignment.smallest_cover(entries, [entries.item(name) for name in names], features)
    sizes = [
        len(subset)
        for size in range(len(names) + 1)
        for subset in itertools.combinations(names, size)
        if all(set(entries.requirements(name)) <= set(subset) for name in subset)
        and features <= frozenset().union(*(entries.item(name).features for name in subset))
    ]
    assert len(chosen) == min(sizes)
    assert features <= frozenset().union(*(entries.item(name).features for name in chosen))


@pytest.mark.parametrize("entries", CATALOGS, ids=["built-in", "cyberapps"])
def test_the_questions_reach_every_kind_of_item(entries: catalog.Catalog) -> None:
    """Guards the properties above: with everything enabled, every item that can be held is held by somebody."""
    held: set[str] = set()
    free = {item.name for item in entries.items_of_edition(None)}
    for edition in entries.editions.values():
        enabled = free | {item.name for item in entries.items_of_edition(edition.name)}
        for workload_type, features in itertools.product(
            entries.workload_types, [set(), *({name} for name in entries.features)]
        ):
            facts = assignment.WorkloadFacts(workload_type)
            editions = {edition.application_id: edition.name}
            decision = assignment.decide(entries, editions, enabled, facts, features, protected=True)
            held |= {name for candidate in decision.candidates for name in candidate.items + candidate.packs}
    holdable = {item.name for item in entries.items.values() if item.role in catalog.model.HELD_ROLES}
    never = {"pw_pack_adv_backup_m365_seats", "pg_pack_adv_backup_m365_seats", "hd_spectrum"}
    assert holdable - held <= never
