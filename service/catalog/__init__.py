"""The catalogue: applications, editions, billing modes, offering items and features, as validated data."""

from __future__ import annotations

from service.catalog.load import BUILT_IN, CatalogError, load, parse
from service.catalog.model import (
    Application,
    Catalog,
    Edition,
    Fallback,
    Feature,
    Infrastructure,
    Item,
    Role,
    SubEdition,
)

__all__ = [
    "BUILT_IN",
    "Application",
    "Catalog",
    "CatalogError",
    "Edition",
    "Fallback",
    "Feature",
    "Infrastructure",
    "Item",
    "Role",
    "SubEdition",
    "load",
    "parse",
]
