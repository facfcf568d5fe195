"""What the handlers refuse, as an answer: codes and statuses of docs/domain.md 9."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from service.handlers.tree import Node
from service.handlers.work import Result
from service.http.errors import ApiError

MISMATCH, DENIED, NOT_FOUND, NOT_AVAILABLE, QUOTA, RULE = "1001", "1002", "1005", "1021", "1022", "1027"

_STATUSES = {"1002": 403, "1005": 404, "1001": 409, "1004": 409, "1006": 409, "1012": 409, "1000": 500}
_CODES = {"unknown_tenant": NOT_FOUND, "unknown_offering_item": NOT_AVAILABLE, "invalid_data": "400"}
_ABOVE = "A limit above your own tenant would not hold."


def not_found() -> ApiError:
    """The same for what does not exist and for what the caller must not know of."""
    return ApiError(404, NOT_FOUND, "There is no such tenant.")


def denied(message: str) -> ApiError:
    """The caller may see it, and may not do that."""
    return ApiError(403, DENIED, message)


def refusal(result: Result, visible: Collection[str]) -> ApiError:
    """The answer to a rejected event. Of tenants that are not ``visible`` to the caller it says nothing."""
    code = str(result.context.get("code") or _CODES.get(result.code or "", RULE))
    context = {name: _shown(name, value, visible) for name, value in result.context.items() if name != "code"}
    context = {name: value for name, value in context.items() if value is not None}
    return ApiError(status_of(code), code, sentence(result.message), context)


def status_of(code: str) -> int:
    """The HTTP status that goes with a code of docs/domain.md 9."""
    return _STATUSES.get(code, 400)


def sentence(text: str) -> str:
    """A reason as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _shown(name: str, value: Any, visible: Collection[str]) -> Any:
    if name == "tenant_id":
        return value if value in visible else None
    if name == "denials":
        return [shown_denial(denial, visible) for denial in value]
    return value


def shown_denials(denials: Iterable[Mapping[str, Any]], way: Iterable[Node]) -> list[dict[str, Any]]:
    """Denials for somebody who reaches the tenants of a way up."""
    visible = {node.tenant_id for node in way}
    return [shown_denial(denial, visible) for denial in denials]


def shown_denial(denial: Mapping[str, Any], visible: Collection[str]) -> dict[str, Any]:
    """A denial without the numbers of a tenant that the caller must not know of."""
    if denial.get("tenant_id") in visible or "tenant_id" not in denial:
        return dict(denial)
    kept = {name: denial[name] for name in ("code", "offering_item", "feature") if name in denial}
    return {**kept, "message": _ABOVE}
