"""Writes the documents in ``schemas/generated``, or says which of them are stale.

python -m schemas.generate            writes the JSON Schemas and the AsyncAPI document
python -m schemas.generate --check    exits with 1 where a file is not what the models say
python -m schemas.generate --release  also makes the current contract the one that later changes must not break
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas import asyncapi, compatibility, table

FOLDER = Path(__file__).parent / "generated"
PREVIOUS = FOLDER / "previous.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, str]:
    """Every generated file by its name; ``previous.json`` is none of them, it changes with a release only."""
    files = {f"{type_}.json": data_schema(event_type) for type_, event_type in _event_types().items()}
    files |= {f"envelope.{name}.json": _headed(f"envelope.{name}", schema) for name, schema in _envelopes().items()}
    files["asyncapi.json"] = asyncapi.asyncapi_document()
    return {name: asyncapi.render(document) for name, document in files.items()}


def data_schema(event_type: table.EventType) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the ``data`` of one type."""
    schema = event_type.model.model_json_schema(schema_generator=asyncapi.Generator)
    headed = _headed(event_type.type, schema)
    return headed | {"description": event_type.description, "examples": [event_type.example]}


def snapshot() -> dict[str, Any]:
    """The current contract in the form that :func:`schemas.compatibility.find_breaks` compares."""
    entries = {
        type_: {
            "direction": "inbound" if type_ in table.INBOUND else "outbound",
            "topic": event_type.topic,
            "schema": _bare(event_type.model.model_json_schema()),
        }
        for type_, event_type in _event_types().items()
    }
    for name, schema in _envelopes().items():
        direction = "inbound" if name == "inbound" else "outbound"
        entries[f"envelope.{name}"] = {"direction": direction, "topic": "*", "schema": _bare(schema)}
    return entries


def find_stale() -> list[str]:
    """The names of files that are missing, other than the models say, or no longer wanted."""
    wanted = documents()
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json") if path != PREVIOUS}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; answers the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.generate", description="Generate the contract's documents."
    )
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    parser.add_argument("--release", action="store_true", help="make this contract the one that changes must not break")
    options = parser.parse_args(arguments)
    stale = find_stale()
    if options.check:
        for name in stale:
            print(f"{name} is stale", file=sys.stderr)
        return 1 if stale else 0
    _write(stale)
    if options.release:
        return _release()
    return 0


def _write(stale: Sequence[str]) -> None:
    wanted = documents()
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
        print(f"{name} {'written' if name in wanted else 'removed'}")


def _release() -> int:
    current = snapshot()
    previous = json.loads(PREVIOUS.read_text(encoding="utf-8")) if PREVIOUS.exists() else {}
    breaks = compatibility.find_breaks(previous, current)
    for found in breaks:
        print(found, file=sys.stderr)
    if not breaks:
        PREVIOUS.write_text(json.dumps(current, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if breaks else 0


def _event_types() -> dict[str, table.EventType]:
    return table.INBOUND | table.OUTBOUND


def _envelopes() -> dict[str, dict[str, Any]]:
    return {
        "inbound": asyncapi.inbound_envelope(),
        "outbound": asyncapi.outbound_envelope(),
        "dead_letter": asyncapi.outbound_envelope(dead_letter=True),
    }


def _headed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": f"urn:apportion:schema:{name}", **schema}


def _bare(schema: Any) -> Any:
    """The schema without what is only there for people. A field may be called ``title`` and stays."""
    if isinstance(schema, list):
        return [_bare(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {}
    for name, content in schema.items():
        if name in {"properties", "$defs"}:
            bare[name] = {field: _bare(child) for field, child in content.items()}
        elif name == "default":
            bare[name] = content
        elif name not in {"title", "description", "examples"}:
            bare[name] = _bare(content)
    return bare


if __name__ == "__main__":
    sys.exit(main())
