"""Who may stand where in the tree, and which changes of a tenant are allowed (docs/domain.md 2)."""

from __future__ import annotations

from collections.abc import Mapping

ROOT = "root"
DEPTH_MAX = 16  # tenants between root and the lowest; deeper trees are refused

PARENTS_ALLOWED: Mapping[str, frozenset[str]] = {
    "partner": frozenset({"root", "partner"}),
    "folder": frozenset({"partner", "folder"}),
    "customer": frozenset({"root", "partner", "folder"}),
    "unit": frozenset({"customer", "unit"}),
}
WITH_WORKLOADS = frozenset({"customer", "unit"})


def first_pricing_mode(kind: str) -> str:
    """A customer and its units start in trial, everybody else in production."""
    return "trial" if kind in WITH_WORKLOADS else "production"


def pricing_mode_refused(wanted: str, *, was_in_production: bool) -> str | None:
    """Why a pricing mode may not be set, or None: trial to production happens once and cannot be undone."""
    if wanted == "trial" and was_in_production:
        return "a tenant that has been in production cannot go back to trial"
    return None


def placement_refused(kind: str, parent_kind: str) -> str | None:
    """Why a tenant of this kind may not stand below a parent of that kind, or None."""
    if parent_kind in PARENTS_ALLOWED.get(kind, frozenset()):
        return None
    return f"a {kind} may not stand below a {parent_kind}"


def move_refused(kind: str) -> str | None:
    """Why a tenant of this kind may not move below another parent, or None: what a unit uses is its customer's."""
    return "a unit stays with its customer" if kind == "unit" else None


def comparable(name: str) -> str:
    """The form in which the names of siblings are compared."""
    return " ".join(name.split()).casefold()
