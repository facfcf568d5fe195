"""Changes of the contract serve those who were written against the previous one, and a break of any kind is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas import compatibility, generate

Schema = dict[str, Any]

BEFORE: Schema = {
    "type": "object",
    "$defs": {
        "Entry": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 64}, "note": {"type": "string"}},
            "required": ["name"],
        }
    },
    "properties": {
        "identifier": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-z]+$"},
        "kind": {"type": "string", "enum": ["one", "two"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 100},
        "mode": {"type": "string", "enum": ["strict", "loose"], "default": "strict"},
        "limit": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": None},
        "entries": {"type": "array", "items": {"$ref": "#/$defs/Entry"}, "maxItems": 10},
        "numbers": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}, "minProperties": 1},
        "reason": {"type": "string", "x-known-values": ["plan"]},
        "ratio": {"type": "number"},
    },
    "required": ["identifier", "kind", "count", "entries"],
}
FIELDS = "properties"


def changed(change: Callable[[Schema], object]) -> Schema:
    schema = copy.deepcopy(BEFORE)
    change(schema)
    assert schema != BEFORE
    return schema


def put(path: str, value: Any) -> Callable[[Schema], object]:
    """A change that sets the value at a path of the schema; None removes what is there."""

    def change(schema: Schema) -> None:
        *steps, last = path.split("/")
        place: Any = schema
        for step in steps:
            place = place[int(step) if isinstance(place, list) else step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


def test_the_current_contract_breaks_nobody_who_knows_the_previous_one() -> None:
    previous = json.loads(generate.PREVIOUS.read_text(encoding="utf-8"))
    assert len(previous) >= 41
    assert compatibility.find_breaks(previous, generate.snapshot()) == []


def test_the_same_schema_is_compatible_with_itself() -> None:
    for direction in ("inbound", "outbound"):
        assert compatibility.compare(BEFORE, BEFORE, direction) == []
    now = generate.snapshot()
    assert compatibility.find_breaks(now, now) == []


WIDENINGS = [
    ("an enum value more", put("properties/kind/enum", ["one", "two", "three"]), "kind"),
    ("no enum any more", put("properties/kind/enum", None), "kind"),
    ("a higher maximum", put("properties/count/maximum", 200), "count"),
    ("no maximum any more", put("properties/count/maximum", None), "count"),
    ("a lower minimum", put("properties/count/minimum", -1), "count"),
    ("a longer text", put("properties/identifier/maxLength", 128), "identifier"),
    ("an empty text", put("properties/identifier/minLength", 0), "identifier"),
    ("no pattern any more", put("properties/identifier/pattern", None), "identifier"),
    ("more entries", put("properties/entries/maxItems", 20), "entries"),
    ("fewer properties", put("properties/numbers/minProperties", None), "numbers"),
    ("a number instead of an integer", put("properties/count/type", "number"), "count"),
    ("null besides a text", put("properties/kind", {"anyOf": [BEFORE[FIELDS]["kind"], {"type": "null"}]}), "kind"),
    ("any type", put("properties/ratio/type", None), "ratio"),
    ("a field that may be absent", put("required", ["identifier", "kind", "entries"]), "count"),
    ("a wider bound in a branch", put("properties/limit/anyOf/0/minimum", -5), "limit"),
    ("a wider bound of an entry", put("$defs/Entry/properties/name/maxLength", 65), "entries[].name"),
    ("an entry's field that may be absent", put("$defs/Entry/required", []), "entries[].name"),
    ("a wider bound of a value", put("properties/numbers/additionalProperties/minimum", 0), "numbers.*"),
    ("any value", put("properties/numbers/additionalProperties", {}), "numbers.*"),
]
NARROWINGS = [
    ("an enum value less", put("properties/kind/enum", ["one"]), "kind"),
    ("an enum where any text was", put("properties/reason/enum", ["plan"]), "reason"),
    ("a lower maximum", put("properties/count/maximum", 99), "count"),
    ("a higher minimum", put("properties/count/minimum", 1), "count"),
    ("a shorter text", put("properties/identifier/maxLength", 63), "identifier"),
    ("a longer least text", put("properties/identifier/minLength", 2), "identifier"),
    ("a pattern where none was", put("properties/reason/pattern", "^[a-z]+$"), "reason"),
    ("fewer entries", put("properties/entries/maxItems", 9), "entries"),
    ("at least one entry", put("properties/entries/minItems", 1), "entries"),
    ("an integer instead of a number", put("properties/ratio/type", "integer"), "ratio"),
    ("null no longer", put("properties/limit", {"type": "integer", "minimum": 0, "default": None}), "limit"),
    ("a required field more", put("required", [*BEFORE["required"], "mode"]), "mode"),
    ("a narrower bound in a branch", put("properties/limit/anyOf/0/minimum", 5), "limit"),
    ("a narrower bound of an entry", put("$defs/Entry/properties/name/maxLength", 63), "entries[].name"),
    ("a required field of an entry", put("$defs/Entry/required", ["name", "note"]), "entries[].note"),
    ("a narrower bound of a value", put("properties/numbers/additionalProperties/minimum", 2), "numbers.*"),
    (
        "names with a bound",
        put("properties/numbers/propertyNames", {"type": "string", "maxLength": 8}),
        "numbers.(name)",
    ),
    ("no unknown fields", put("additionalProperties", value=False), ""),
]
BREAKS_EITHER_WAY = [
    ("another type", put("properties/count/type", "string"), "count"),
    ("another pattern", put("properties/identifier/pattern", "^[a-z0-9]+$"), "identifier"),
    ("other enum values", put("properties/kind/enum", ["one", "three"]), "kind"),
    ("a list instead of a map", put("properties/numbers", {"type": "array"}), "numbers"),
    ("a required field that is gone", put("properties/identifier", None), "identifier"),
    ("an optional field that is gone", put("properties/reason", None), "reason"),
    ("an entry's field that is gone", put("$defs/Entry/properties/note", None), "entries.note"),
]
HARMLESS = [
    ("a new optional field", put("properties/colour", {"type": "string", "enum": ["red"]})),
    ("a known value more of an open set", put("properties/reason/x-known-values", ["plan", "switch"])),
    ("a description", put("properties/reason/description", "Why.")),
]


def paths(before: Schema, now: Schema, direction: compatibility.Direction) -> set[str]:
    return {
        found.split(": ")[0].removeprefix("data").removeprefix(".")
        for found in compatibility.compare(before, now, direction)
    }


def cases(table: list[Any]) -> Any:
    return [pytest.param(*case[1:], id=case[0]) for case in table]


@pytest.mark.parametrize(("change", "path"), cases(NARROWINGS))
def test_inbound_data_may_not_become_narrower(change: Callable[[Schema], object], path: str) -> None:
    assert paths(BEFORE, changed(change), "inbound") == {path}


@pytest.mark.parametrize(("change", "path"), cases(WIDENINGS))
def test_inbound_data_may_become_wider(change: Callable[[Schema], object], path: str) -> None:
    assert paths(BEFORE, changed(change), "inbound") == set()


@pytest.mark.parametrize(("change", "path"), cases(WIDENINGS))
def test_outbound_data_may_not_become_wider(change: Callable[[Schema], object], path: str) -> None:
    assert paths(BEFORE, changed(change), "outbound") == {path}


@pytest.mark.parametrize(("change", "path"), cases(NARROWINGS))
def test_outbound_data_may_become_narrower(change: Callable[[Schema], object], path: str) -> None:
    assert paths(BEFORE, changed(change), "outbound") == set()


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize(("change", "path"), cases(BREAKS_EITHER_WAY))
def test_some_changes_break_in_both_directions(
    change: Callable[[Schema], object], path: str, direction: compatibility.Direction
) -> None:
    assert path in paths(BEFORE, changed(change), direction)


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
@pytest.mark.parametrize("change", cases(HARMLESS))
def test_additions_break_nobody(change: Callable[[Schema], object], direction: compatibility.Direction) -> None:
    assert paths(BEFORE, changed(change), direction) == set()


def test_what_an_absent_inbound_field_means_may_not_change() -> None:
    for change in (put("properties/mode/default", "loose"), put("properties/mode/default", None)):
        assert paths(BEFORE, changed(change), "inbound") == {"mode"}
        assert paths(BEFORE, changed(change), "outbound") == set()


def test_values_are_held_to_bounds_and_patterns_that_take_their_place() -> None:
    before = {"properties": {"kind": {"type": "string", "enum": ["one", "two"]}}}
    for now, breaks in (
        ({"maxLength": 3}, 0),
        ({"maxLength": 2}, 1),
        ({"pattern": "^[a-z]+$"}, 0),
        ({"pattern": "^t"}, 1),
    ):
        after = {"properties": {"kind": {"type": "string", **now}}}
        assert len(compatibility.compare(before, after, "inbound")) == breaks


def entry(**changes: Any) -> dict[str, Any]:
    return {"a.v1": {"direction": "inbound", "topic": "plans", "schema": BEFORE} | changes}


def test_a_type_that_is_gone_or_elsewhere_is_a_break() -> None:
    assert compatibility.find_breaks(entry(), {}) == ["a.v1: the type is gone"]
    assert compatibility.find_breaks(entry(), entry(topic="tenants")) == ["a.v1: the topic was plans and is tenants"]
    assert len(compatibility.find_breaks(entry(), entry(direction="outbound"))) == 1


def test_a_new_type_is_no_break() -> None:
    assert compatibility.find_breaks({}, entry()) == []


def test_a_break_names_the_type_and_the_field() -> None:
    now = entry(schema=changed(put("properties/kind/enum", ["one"])))
    assert compatibility.find_breaks(entry(), now) == ["a.v1: data.kind: ['two'] are not among ['one']"]
