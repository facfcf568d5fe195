"""What a caller may do. Whoever has any scope may also look at what it reaches."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """The roles of callers."""

    VIEWER = "viewer"
    """Looks at everything it reaches, and changes nothing."""
    TENANT_ADMIN = "tenant_admin"
    """Makes, changes and deletes tenants and API clients."""
    USAGE_REPORTER = "usage_reporter"
    """Reports usage, and reserves."""
    LICENSING_ADMIN = "licensing_admin"
    """Sets offering items, quotas, prices and modes, and switches."""


ALL: tuple[str, ...] = tuple(Scope)
AGENT: tuple[str, ...] = (Scope.VIEWER, Scope.USAGE_REPORTER)


def permits(scopes: frozenset[str], wanted: Scope) -> bool:
    """Whether one of the scopes is enough."""
    return wanted in scopes or (wanted is Scope.VIEWER and bool(scopes & set(ALL)))
