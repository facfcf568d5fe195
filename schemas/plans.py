"""Protection plans: sets of requested features, applied to workloads (docs/domain.md 6)."""

from __future__ import annotations

from schemas.base import Data, Features, Flag, Identifier, Name, WorkloadIds


class PlanSaved(Data):
    """The whole content of a plan, not a difference."""

    plan_id: Identifier
    name: Name | None = None
    enabled: Flag = True
    features: Features


class PlanApplied(Data):
    """The plan now protects these workloads too."""

    plan_id: Identifier
    workload_ids: WorkloadIds


class PlanRevoked(Data):
    """The plan no longer protects these workloads."""

    plan_id: Identifier
    workload_ids: WorkloadIds


class PlanDeleted(Data):
    """The plan is gone from every workload."""

    plan_id: Identifier
