"""What the plans applied to a workload request (docs/domain.md 6, rule 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable

from service.records import Plan, Workload
from service.rules import facets

UNIONS_MAX = 8192  # sets of plans whose features are remembered together


def features_of(workload: Workload, plan_of: Callable[[str], Plan | None]) -> tuple[frozenset[str], bool]:
    """The features that the enabled plans on a workload request, and whether there is such a plan at all."""
    requested = []
    for plan_id, link in workload.links.items():
        if not link.applied:
            continue
        plan = plan_of(plan_id)
        if plan is None or plan.deleted or not plan.enabled or facets.time_us(link.stamp) < plan.deleted_at_us:
            continue
        requested.append(plan.features)
    return _union(tuple(requested)), bool(requested)


@functools.lru_cache(maxsize=UNIONS_MAX)
def _union(features: tuple[tuple[str, ...], ...]) -> frozenset[str]:
    return frozenset().union(*features)
