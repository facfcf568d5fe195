"""Assignments: the offering items that each workload holds, as announced (docs/domain.md 6)."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from schemas.base import CatalogName, Data, Denial, Holding, Identifier, known_values

Reason = Literal["plan", "workload", "switch", "quota", "offering_item", "tenant", "reservation"]


class AssignmentChanged(Data):
    """What a workload has gained and lost, and everything that it holds afterwards (``holding``, without gauges).

    ``edition`` is null while the customer has none. ``uncovered_features`` are requested, and no enabled item covers
    them.
    """

    workload_id: Identifier
    workload_type: CatalogName
    edition: CatalogName | None
    assigned: Holding
    released: Holding
    holding: Holding
    uncovered_features: tuple[CatalogName, ...]
    reason: Annotated[str, known_values(*get_args(Reason))]


class AssignmentDenied(Data):
    """A workload waits for something: what the refused step asked for, and everything that stood in its way."""

    workload_id: Identifier
    workload_type: CatalogName
    edition: CatalogName | None
    requested: Holding
    holding: Holding
    denials: tuple[Denial, ...]
    uncovered_features: tuple[CatalogName, ...]
