"""Requests to move a customer between editions and billing modes: answered, not carried out yet (docs/domain.md 7)."""

from __future__ import annotations

from collections.abc import Iterable

from service.handlers.draft import View
from service.handlers.work import RefusedError, Work, path_keys, placement_of
from service.ledger.transaction import RecordKey


def needs(view: View, work: Work) -> Iterable[RecordKey]:
    """The tenant's way up."""
    return path_keys(view, work.tenant)


def request(view: View, work: Work) -> None:
    """Switching is not built yet; the request is kept as a dead letter, so that it can be sent again once it is."""
    placement_of(work.draft(view), work.tenant)
    raise RefusedError("not_allowed", "this version does not switch tenants yet", "1027", tenant_id=work.tenant)


def request_undo(view: View, work: Work) -> None:
    """Nothing has been switched, so there is nothing to undo."""
    request(view, work)
