"""The generated documents: up to date, complete, and true of what the code reads and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas import asyncapi, envelope, generate, outbound, table

ALL = {**table.INBOUND, **table.OUTBOUND}
DOCUMENT = asyncapi.asyncapi_document("apportion.")


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
        for child in document.values():
            yield from nodes(child)
    elif isinstance(document, list):
        for child in document:
            yield from nodes(child)


def resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    place: Any = DOCUMENT
    for step in reference[2:].split("/"):
        place = place[step]
    return place


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """A validator of one schema of the AsyncAPI document, which may refer to the others."""
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_no_generated_file_is_stale() -> None:
    assert generate.find_stale() == [], "run: python -m schemas.generate"


def test_the_check_fails_where_a_file_is_stale_missing_or_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "PREVIOUS", tmp_path / "previous.json")
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "asyncapi.json").write_text("{}", encoding="utf-8")
    (tmp_path / "apportion.plan.saved.v1.json").unlink()
    (tmp_path / "apportion.plan.forgotten.v1.json").write_text("{}", encoding="utf-8")
    capsys.readouterr()
    assert generate.main(["--check"]) == 1
    complaints = capsys.readouterr().err.splitlines()
    stale = ["apportion.plan.forgotten.v1.json", "apportion.plan.saved.v1.json", "asyncapi.json"]
    assert complaints == [f"{name} is stale" for name in stale]
    assert generate.main([]) == 0
    assert generate.find_stale() == []


def test_a_release_is_refused_where_it_breaks_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    monkeypatch.setattr(generate, "PREVIOUS", tmp_path / "previous.json")
    assert generate.main(["--release"]) == 0
    released = (tmp_path / "previous.json").read_text(encoding="utf-8")
    fewer = {type_: event for type_, event in table.INBOUND.items() if type_ != "apportion.plan.saved.v1"}
    monkeypatch.setattr(table, "INBOUND", fewer)
    assert generate.main(["--release"]) == 1
    assert "apportion.plan.saved.v1: the type is gone" in capsys.readouterr().err
    assert (tmp_path / "previous.json").read_text(encoding="utf-8") == released


@pytest.mark.parametrize("type_", ALL)
def test_every_data_schema_is_a_schema_and_accepts_its_example(type_: str) -> None:
    schema = json.loads((generate.FOLDER / f"{type_}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.validate(ALL[type_].example, schema)


@pytest.mark.parametrize("type_", table.INBOUND)
def test_the_published_schema_refuses_what_the_service_refuses(type_: str) -> None:
    event_type = table.INBOUND[type_]
    check = jsonschema.Draft202012Validator(generate.data_schema(event_type))
    for name in event_type.model.model_fields:
        broken = event_type.example | {name: [["no such thing"]]}
        assert not check.is_valid(broken)
        with pytest.raises(ValueError, match=name):
            event_type.validate(broken)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    references = [node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)]
    assert len(references) > 200
    for reference in references:
        assert resolve(reference) is not None
    assert "#/$defs" not in json.dumps(DOCUMENT)


def test_every_component_is_used() -> None:
    used = {node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)}
    for kind, components in DOCUMENT["components"].items():
        for name in components:
            assert f"#/components/{kind}/{name}" in used


def test_the_asyncapi_document_has_what_version_3_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    names = [*DOCUMENT["channels"], *DOCUMENT["operations"]]
    for components in DOCUMENT["components"].values():
        names += components
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    for channel in DOCUMENT["channels"].values():
        assert {"address", "messages"} <= channel.keys()
        assert channel["bindings"]["kafka"]["topic"] == channel["address"]
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        channel = operation["channel"]["$ref"]
        assert channel.startswith("#/channels/")
        assert all(message["$ref"].startswith(channel + "/messages/") for message in operation["messages"])
    for message in DOCUMENT["components"]["messages"].values():
        assert {"name", "payload", "headers", "examples"} <= message.keys()
        for trait in message["traits"]:
            assert "payload" not in resolve(trait["$ref"])
            assert resolve(trait["$ref"])["bindings"]["kafka"]["key"]["maxLength"] == 64


def test_every_type_is_offered_on_its_channel_in_its_direction() -> None:
    offered: dict[str, set[tuple[str, str]]] = {}
    for operation in DOCUMENT["operations"].values():
        address = resolve(operation["channel"]["$ref"])["address"]
        for message in operation["messages"]:
            name = resolve(resolve(message["$ref"])["$ref"])["name"]
            offered.setdefault(name, set()).add((operation["action"], address))
    expected = {type_: {("receive", f"apportion.{event.topic}")} for type_, event in table.INBOUND.items()}
    expected |= {type_: {("send", f"apportion.{event.topic}")} for type_, event in table.OUTBOUND.items()}
    assert offered == expected


def test_another_prefix_changes_the_addresses_and_nothing_else() -> None:
    other = asyncapi.asyncapi_document("eu.licensing-")
    assert {channel["address"] for channel in other["channels"].values()} == {
        f"eu.licensing-{topic}" for topic in table.INBOUND_TOPICS | table.OUTBOUND_TOPICS
    }
    text = json.dumps(DOCUMENT)
    for topic in table.INBOUND_TOPICS | table.OUTBOUND_TOPICS:
        text = text.replace(f'"apportion.{topic}"', f'"eu.licensing-{topic}"')
    assert json.loads(text) == other


def test_tenant_changes_have_one_partition() -> None:
    partitions = {name: channel["bindings"]["kafka"]["partitions"] for name, channel in DOCUMENT["channels"].items()}
    assert partitions.pop("tenant-changes") == 1
    assert set(partitions.values()) == {12}


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_every_message_example_is_valid_under_its_schemas(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    for example in message["examples"]:
        validator(message["payload"]).validate(example["payload"])
        validator(message["headers"]).validate(example["headers"])


@pytest.mark.parametrize(
    "name", [name for name in DOCUMENT["components"]["messages"] if ALL.get(name) not in table.OUTBOUND.values()]
)
def test_the_service_reads_every_inbound_example_as_documented(name: str) -> None:
    (example,) = DOCUMENT["components"]["messages"][name]["examples"]
    headers = [(header, content.encode()) for header, content in example["headers"].items()]
    value = json.dumps(example["payload"]).encode()
    read = envelope.parse(value, headers, asyncapi.EXAMPLE_TENANT.encode(), now_us=1_800_000_000_000_000)
    assert read.type == name.removesuffix(".binary")


@pytest.mark.parametrize("type_", table.OUTBOUND)
def test_what_the_service_renders_is_valid_under_the_published_schema(type_: str) -> None:
    event_type = table.OUTBOUND[type_]
    dead_letter = event_type.topic == "dead-letters"
    value = outbound.render(
        event_id=outbound.event_id(type_, "81"),
        type_=type_,
        tenant_id=None if dead_letter else "customer-1",
        subject=None if dead_letter else "w-1",
        time_ms=1_769_860_800_250,
        cause_id=None if dead_letter else "e-1",
        revision=None if dead_letter else 81,
        traceparent=None,
        data_json=json.dumps(event_type.example).encode(),
    )
    validator(DOCUMENT["components"]["messages"][type_]["payload"]).validate(json.loads(value))
