"""What becomes of a workload, whatever its name: the ways to go on, best first (docs/domain.md 6).

The workloads of a tenant are of few kinds and share a few plans, so most of them stand where another one has stood
before. An outline is all of a decision that follows from where a workload stands: what it takes and gives back, and
most of what is announced. It is worked out once and remembered with the placement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from service.catalog import Catalog
from service.catalog.model import WHOLE_ROLES, Role
from service.handlers import announcements, switch_asides
from service.handlers.draft import Placement
from service.ledger.transaction import ANY_ITEM, Place, Take
from service.rules import assignment as rules

SAME_REASONS = ("code", "offering_item", "tenant_id")  # a refusal for the same of these is not announced again
OUTLINES_MAX = 64  # remembered with one placement

Denials = tuple[Mapping[str, Any], ...]  # as others see them


class Case(NamedTuple):
    """Where a workload stands: all that its outline depends on, besides the placement of its tenant.

    ``shown_type`` is what to call a workload that has no type any more. ``aside`` are units that are set aside for it;
    ``member`` is its tenant then. In an ``abundant`` case no quota has refused
    anything lately, so the best way alone is worked out.
    """

    held: tuple[str, ...]
    uncovered: tuple[str, ...]
    shown_type: str | None
    facts: rules.WorkloadFacts | None = None  # None: not registered
    features: frozenset[str] = frozenset()
    protected: bool = False
    abundant: bool = False
    aside: tuple[str, ...] = ()
    member: str = ""

    @property
    def sure(self) -> tuple[str, ...]:
        """The items that nothing can refuse it."""
        return (*self.held, *self.aside)


class Goal(NamedTuple):
    """What a workload holds at the end of a way, and why it is not all that was wanted."""

    holding: tuple[str, ...]
    uncovered: tuple[str, ...] = ()
    reasons: Denials = ()  # but for those that only the ledger knows
    requested: Mapping[str, int] = {}  # what the refused step asked for
    denials_of: tuple[int, ...] = ()  # the refused attempts whose denials belong to it
    places: tuple[Place, ...] = ()  # where to wait, besides the customer and the places of those denials


class Way:
    """From what is held to a goal: what it takes, and what is announced of it.

    ``changed`` and ``denied`` are the data of the announcements as JSON, but for the workload's id and the reason; None
    where there is nothing to announce. ``static`` are the reasons as they are kept with who waits; None: nobody waits.
    """

    __slots__ = ("changed", "denials_of", "denied", "holding", "places", "static", "takes", "uncovered")

    def __init__(self, placement: Placement, case: Case, goal: Goal) -> None:
        self.holding = goal.holding
        self.uncovered = goal.uncovered
        self.denials_of = goal.denials_of
        assigned = {item: 1 for item in goal.holding if item not in case.held}
        released = {item: 1 for item in case.held if item not in goal.holding}
        about = {"workload_type": case.shown_type, "edition": placement.edition}
        held = dict.fromkeys(goal.holding, 1)
        self.takes = (
            *(Take(placement.path, item, -1) for item in released),
            *(Take(placement.path, item, 1) for item in assigned if item not in case.aside),
            *(_claimed(placement, case, item, held) for item in case.aside),
            *(switch_asides.counting(case.member, item, -1) for item in case.aside),
        )
        self.changed: str | None = None
        if assigned or released or goal.uncovered != case.uncovered:
            change = {"assigned": assigned, "released": released, "holding": held}
            self.changed = announcements.members(about | change | {"uncovered_features": goal.uncovered})
        self.static: str | None = None
        self.denied: str | None = None
        self.places: tuple[Place, ...] = ()
        if goal.reasons or goal.denials_of:
            refusal = {"requested": goal.requested, "holding": held, "denials": goal.reasons}
            self.denied = announcements.members(about | refusal | {"uncovered_features": goal.uncovered})
            self.static = reasons_text(goal.reasons)
            self.places = (*_waiting_places(placement), *goal.places)


def _claimed(placement: Placement, case: Case, item: str, held: Mapping[str, int]) -> Take:
    """A unit that was set aside is held now, or free again."""
    return Take(placement.path, item, 0 if item in held and item not in case.held else -1, -1)


class Outline(NamedTuple):
    """The ways to go on, best first. A provisional one leaves those out that follow where a quota refuses the last."""

    ways: tuple[Way, ...]
    provisional: bool


def outline(catalog: Catalog, placement: Placement, case: Case) -> Outline:
    """The ways of a workload to go on: each candidate with its packs, then without; at last, only what is given up."""
    known: Outline | None = placement.remembered.get(case)
    if known is None:
        goals, provisional = _goals(catalog, placement, case)
        known = Outline(tuple(Way(placement, case, goal) for goal in goals), provisional)
        if len(placement.remembered) >= OUTLINES_MAX:
            placement.remembered.clear()
        placement.remembered[case] = known
    return known


def without(
    catalog: Catalog, placement: Placement, case: Case, item: str, denial: Mapping[str, Any], places: Iterable[Place]
) -> Way:
    """The way to give up an item, with the packs that are of no use without it, and to wait for it at some places."""
    gone = {item} | {name for name in case.held if _depends(catalog, name, item)}
    kept = tuple(name for name in case.held if name not in gone)
    goal = Goal(kept, case.uncovered, (denial,), dict.fromkeys(sorted(gone), 1), (), tuple(places))
    return Way(placement, case, goal)


def _depends(catalog: Catalog, name: str, item: str) -> bool:
    """Whether a held item is of no use without another: a pack without its base, or without what it requires."""
    held, lost = catalog.item(name), catalog.item(item)
    if item in catalog.requirements(name):
        return True
    return lost.role in WHOLE_ROLES and held.edition == lost.edition and held.application_id == lost.application_id


def _goals(catalog: Catalog, placement: Placement, case: Case) -> tuple[list[Goal], bool]:
    if case.facts is None:
        return [Goal(())], False
    decision = rules.decide(
        catalog, placement.editions, placement.items.enabled, case.facts, case.features, case.protected
    )
    if not decision.candidates:
        return [Goal((), decision.uncovered_features, _shown(decision.denials))], False
    if placement.blocked:
        return [_blocked(catalog, placement, case, decision.candidates)], False
    if case.abundant:
        best = decision.candidates[0]
        whole = Goal((*best.items, *best.packs), best.uncovered, _shown(best.denials))
        return [whole], not _is_certain(placement, case, whole.holding)
    return _all_goals(catalog, placement, case, decision.candidates), False


def _is_certain(placement: Placement, case: Case, holding: Iterable[str]) -> bool:
    """Whether no quota on the path can refuse what is new; the decision expects that to stay so."""
    return not any(item in placement.limited and item not in case.sure for item in holding)


def _all_goals(catalog: Catalog, placement: Placement, case: Case, candidates: Sequence[rules.Candidate]) -> list[Goal]:
    goals: list[Goal] = []
    bases_refused: list[int] = []
    for candidate in candidates:
        base, packs = candidate.items, candidate.packs
        reasons = _shown(candidate.denials)
        goals.append(Goal((*base, *packs), candidate.uncovered, reasons))
        if _is_certain(placement, case, goals[-1].holding):
            return goals
        missing_packs = {item: 1 for item in packs if item not in case.sure}
        if missing_packs:
            held_packs = (item for item in packs if item in case.sure)
            tried = (len(goals) - 1,)
            goals.append(Goal((*base, *held_packs), candidate.uncovered, reasons, missing_packs, tried))
        bases_refused.append(len(goals) - 1)
        if all(item in case.sure for item in base):
            return goals  # nothing is asked for in the base step, so it cannot be refused
    first = candidates[0]
    missing = {item: 1 for item in first.items if item not in case.sure}
    kept = _kept(catalog, placement, case, candidates)
    goals.append(Goal(kept, first.uncovered, _shown(first.denials), missing, tuple(bases_refused)))
    return goals


def _blocked(catalog: Catalog, placement: Placement, case: Case, candidates: Sequence[rules.Candidate]) -> Goal:
    """Nothing new is acquired on or below a disabled or suspended tenant; releases go on.

    Who holds the second best waits too: once the tenant may acquire again, it is due the best.
    """
    first = candidates[0]
    missing = {item: 1 for item in (*first.items, *first.packs) if item not in case.sure}
    kept = _kept(catalog, placement, case, candidates)
    if not missing:
        return Goal(kept, first.uncovered, _shown(first.denials))
    return Goal(kept, first.uncovered, (*_shown(first.denials), *disabled_denials(placement)), missing)


def disabled_denials(placement: Placement) -> list[dict[str, Any]]:
    """What is said where nothing new may be acquired: every tenant of the path that is the reason."""
    return [
        {"code": "tenant_disabled", "tenant_id": name, "message": f"{name} is disabled, suspended or deleted"}
        for name in placement.blocked
    ]


def _kept(catalog: Catalog, placement: Placement, case: Case, candidates: Sequence[rules.Candidate]) -> tuple[str, ...]:
    """What stays where the base is refused: the old base, and the packs held that are still needed beside it."""
    needed = {item for candidate in candidates for item in (*candidate.items, *candidate.packs)}
    held = [catalog.find_item(name) for name in dict.fromkeys(case.sure)]
    enabled = [item for item in held if item is not None and item.name in placement.items.enabled]
    based = {item.edition for item in enabled if _is_base(catalog, placement, item.name)}
    return tuple(
        item.name
        for item in enabled
        if (item.role in WHOLE_ROLES and item.edition in based)
        or (item.name in needed and (item.role is not Role.PACK or item.edition in based))
    )


def _is_base(catalog: Catalog, placement: Placement, name: str) -> bool:
    item = catalog.find_item(name)
    if item is None or item.role not in WHOLE_ROLES:
        return False
    return placement.editions.get(item.application_id) == item.edition


def _waiting_places(placement: Placement) -> tuple[Place, ...]:
    """Where anybody of the tenant waits for anything to change: at the customer, and at who keeps it from acquiring."""
    customer = Place(placement.customer, ANY_ITEM)
    return (customer, *(Place(name, ANY_ITEM) for name in placement.blocked if name != customer.tenant))


_json = msgspec.json.Encoder().encode


def reasons_text(reasons: Sequence[Mapping[str, Any]]) -> str:
    """Reasons as they are kept with who waits: what makes two refusals the same, and then all there is to say."""
    same = sorted({"/".join(str(reason.get(part, "")) for part in SAME_REASONS) for reason in reasons})
    return f"{' '.join(same)}\n{_json(reasons).decode()}"


def reasons_of(text: str) -> list[dict[str, Any]]:
    """The reasons behind such a text."""
    reasons: list[dict[str, Any]] = msgspec.json.decode(text.partition("\n")[2] or "[]")
    return reasons


def _shown(denials: Sequence[rules.Denial]) -> Denials:
    """Reasons that no quota has to do with, as others see them."""
    shown = []
    for denial in denials:
        data: dict[str, Any] = {"code": denial.code}
        if denial.offering_item is not None:
            data["offering_item"] = denial.offering_item
        if denial.feature is not None:
            data["feature"] = denial.feature
        shown.append(data | {"message": denial.message})
    return tuple(shown)
