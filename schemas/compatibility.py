"""Whether a changed schema still serves those who were written against the previous one.

What a producer of the previous version sends must still be accepted, so inbound data may only become wider. What a
consumer of the previous version reads must still be what it expects, so outbound data may only become narrower. Both
are one question, whether every document of one schema is valid under another, asked in the two directions.

Allowed: a new type; inbound, a new optional field, a new enum value, a wider bound; outbound, a new field, a tighter
bound, a new value of an open set (``x-known-values``). Breaks: a type or a field that disappears, another topic;
inbound, a required field more, an enum value less, a narrower bound or type, another default (what an absent field
means); outbound, a field that may be absent or null where it could not, an enum value more, a wider bound or type.
Whoever needs a break makes a new version of the type beside the old one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Direction = Literal["inbound", "outbound"]
Schema = Mapping[str, Any]

# How a bound is compared: 1 where a larger number allows more, -1 where a smaller one does.
BOUNDS = {
    "minimum": -1,
    "exclusiveMinimum": -1,
    "minLength": -1,
    "minItems": -1,
    "minProperties": -1,
    "maximum": 1,
    "exclusiveMaximum": 1,
    "maxLength": 1,
    "maxItems": 1,
    "maxProperties": 1,
}
ABSENT = object()


def find_breaks(previous: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Every break between two snapshots (``type`` -> ``direction``, ``topic``, ``schema``), a sentence each."""
    breaks = []
    for type_, before in previous.items():
        now = current.get(type_)
        if now is None:
            breaks.append(f"{type_}: the type is gone")
            continue
        breaks += [
            f"{type_}: the {name} was {before[name]} and is {now[name]}"
            for name in ("direction", "topic")
            if before[name] != now[name]
        ]
        breaks += [f"{type_}: {found}" for found in compare(before["schema"], now["schema"], before["direction"])]
    return breaks


def compare(previous: Schema, current: Schema, direction: Direction) -> list[str]:
    """The breaks between two versions of one schema, each with the path of its field."""
    if direction == "inbound":
        narrowing = _Containment(part=previous, whole=current)
    else:
        narrowing = _Containment(part=current, whole=previous)
    breaks = list(narrowing.check())
    breaks += _lost_fields(previous, current)
    if direction == "inbound":
        breaks += _changed_defaults(previous, current)
    return list(dict.fromkeys(breaks))


class _Containment:
    """Is every document that is valid under ``part`` valid under ``whole`` too?"""

    def __init__(self, *, part: Schema, whole: Schema) -> None:
        self.part = part
        self.whole = whole

    def check(self) -> Iterator[str]:
        yield from self._check(self.part, self.whole, "data")

    def _check(self, part: Schema, whole: Schema, path: str) -> Iterator[str]:
        part, whole = _resolve(part, self.part), _resolve(whole, self.whole)
        if "anyOf" in part:
            for branch in part["anyOf"]:
                yield from self._check(branch, whole, path)
            return
        if "anyOf" in whole:
            yield from self._check_some_branch(part, whole["anyOf"], path)
            return
        yield from _check_type(part, whole, path)
        yield from _check_values(part, whole, path)
        yield from _check_bounds(part, whole, path)
        yield from _check_required(part, whole, path)
        yield from self._check_children(part, whole, path)

    def _check_some_branch(self, part: Schema, branches: list[Schema], path: str) -> Iterator[str]:
        attempts = [list(self._check(part, branch, path)) for branch in branches]
        if not any(attempt == [] for attempt in attempts):
            # The branch that comes nearest says best what is wrong.
            yield from min(attempts, key=len)

    def _check_children(self, part: Schema, whole: Schema, path: str) -> Iterator[str]:
        for name, child in part.get("properties", {}).items():
            if name in whole.get("properties", {}):
                yield from self._check(child, whole["properties"][name], f"{path}.{name}")
        for keyword, step in (("items", "[]"), ("additionalProperties", ".*"), ("propertyNames", ".(name)")):
            inside = whole.get(keyword)
            if inside is False and part.get(keyword) is not False:
                yield f"{path}: unknown fields are no longer ignored on one side"
            if isinstance(inside, Mapping):
                own = part.get(keyword)
                yield from self._check(own if isinstance(own, Mapping) else {}, inside, path + step)


def _check_type(part: Schema, whole: Schema, path: str) -> Iterator[str]:
    if "type" not in whole:
        return
    kinds = {"integer", "number"} if whole["type"] == "number" else {whole["type"]}
    if part.get("type") not in kinds:
        yield f"{path}: the type {part.get('type', 'any')} is not {whole['type']}"


def _check_values(part: Schema, whole: Schema, path: str) -> Iterator[str]:
    allowed, possible = _values(whole), _values(part)
    if allowed is not None:
        if possible is None:
            yield f"{path}: any value is not one of {allowed}"
        else:
            extra = [value for value in possible if value not in allowed]
            if extra:
                yield f"{path}: {extra} are not among {allowed}"
    if "pattern" not in whole or part.get("pattern") == whole["pattern"]:
        return
    if possible is None or not all(re.search(whole["pattern"], str(value)) for value in possible):
        yield f"{path}: the pattern {part.get('pattern', 'none')} is not {whole['pattern']}"


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _check_bounds(part: Schema, whole: Schema, path: str) -> Iterator[str]:
    values = _values(part)
    for name, sign in BOUNDS.items():
        if name not in whole:
            continue
        sizes = [part[name]] if name in part else []
        if values is not None:
            sizes = [len(value) if isinstance(value, str) else value for value in values]
        if not sizes or any(sign * size > sign * whole[name] for size in sizes):
            yield f"{path}: {name} {part.get(name, 'none')} is wider than {whole[name]}"


def _check_required(part: Schema, whole: Schema, path: str) -> Iterator[str]:
    for name in whole.get("required", ()):
        if name not in part.get("required", ()):
            yield f"{path}.{name}: is required on one side and may be absent on the other"


def _lost_fields(previous: Schema, current: Schema) -> list[str]:
    return [
        f"{path}: the field is gone"
        for path, _, now in _pairs(previous, current, previous, current, "data")
        if now is ABSENT
    ]


def _changed_defaults(previous: Schema, current: Schema) -> list[str]:
    breaks = []
    for path, before, now in _pairs(previous, current, previous, current, "data"):
        # A required field has no default; what became optional must be given one, and that is no change of meaning.
        if isinstance(now, Mapping) and "default" in before and before["default"] != now.get("default", ABSENT):
            breaks.append(f"{path}: the default was {before['default']!r} and is {now.get('default', 'none')!r}")
    return breaks


def _pairs(
    before: Schema, now: Any, previous: Schema, current: Schema, path: str
) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Every field of the previous schema with the same field of the current one, or ABSENT."""
    before_fields, now_fields = _fields(before, previous), _fields(now, current)
    for name, child in before_fields.items():
        other = now_fields.get(name, ABSENT)
        yield f"{path}.{name}", child, other
        if other is not ABSENT:
            yield from _pairs(child, other, previous, current, f"{path}.{name}")


def _fields(schema: Schema, root: Schema) -> dict[str, Any]:
    """The fields of an object schema, those of its branches and of its entries among them."""
    schema = _resolve(schema, root)
    fields = dict(schema.get("properties", {}))
    for branch in schema.get("anyOf", ()):
        fields |= _fields(branch, root)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), Mapping):
            fields |= _fields(schema[keyword], root)
    return fields


def _resolve(schema: Schema, root: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].removeprefix("#/$defs/")
    resolved: Schema = root["$defs"][name]
    return resolved
