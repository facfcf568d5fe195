"""Switches of a customer between editions and billing modes (docs/domain.md 7)."""

from __future__ import annotations

from typing import Literal

from schemas.base import CatalogName, Data, Flag, Identifier

CYBER_PROTECTION = "6e6d758d-8e74-3ae3-ac84-50eb0dff12eb"  # the application that is meant where none is named


class SwitchRequested(Data):
    """Switch the tenant of the envelope. With ``plan_hash``: exactly the plan that was shown, or a refusal.

    An edition or application that does not exist is accepted here; the answer is a rejected switch with its reasons.
    """

    switch_id: Identifier
    job_id: Identifier | None = None
    application: CatalogName = CYBER_PROTECTION
    target_edition: CatalogName
    mode: Literal["strict", "best_effort"] = "strict"
    plan_hash: CatalogName | None = None
    enable_on_ancestors: Flag = False
    pack_quota: Literal["all", "covering"] = "all"
    dry_run: Flag = False


class SwitchUndoRequested(Data):
    """Restore what the switch has changed."""

    switch_id: Identifier
