"""The AsyncAPI 3.0 document: every channel, message and field, from the service's own perspective."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from schemas import base, envelope, outbound, table

CONTRACT_VERSION: Final = "1.0.0"
DEFAULT_TOPIC_PREFIX: Final = "apportion."
PARTITIONS: Final = 12
PARTITIONS_OF: Final = {"tenant-changes": 1}
KAFKA_BINDING_VERSION: Final = "0.5.0"

Document = dict[str, Any]

IDENTIFIER: Final[Document] = {
    "type": "string",
    "minLength": 1,
    "maxLength": base.IDENTIFIER_LENGTH_MAX,
    "pattern": "^[A-Za-z0-9._:-]+$",
}
EXAMPLE_TENANT: Final = "customer-1"
EXAMPLE_TIME: Final = "2026-01-31T12:00:00.000Z"
SUBJECTS: Final = ("workload_id", "offering_item", "reservation_id", "switch_id", "plan_id")


def asyncapi_document(topic_prefix: str = DEFAULT_TOPIC_PREFIX) -> Document:
    """The document for topics with this prefix; what it refers to is inside it."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:apportion",
        "info": {
            "title": "Apportion",
            "version": CONTRACT_VERSION,
            "description": (
                "Decides which offering items every workload of every tenant may hold, and says so. Messages are"
                " CloudEvents 1.0 as JSON; the key of each is its tenant id. Inbound in structured or binary mode,"
                " outbound in structured mode, at least once and with ids that do not change."
            ),
        },
        "defaultContentType": outbound.CONTENT_TYPE,
        "channels": _channels(topic_prefix),
        "operations": _operations(),
        "components": {
            "messages": _messages(topic_prefix),
            "messageTraits": {"structured": _trait(outbound.CONTENT_TYPE), "binary": _trait("application/json")},
            "schemas": _schemas(),
        },
    }


def inbound_envelope() -> Document:
    """The JSON Schema of a structured event that the service reads."""
    properties = {
        "specversion": {"type": "string", "const": "1.0"},
        "id": _text(envelope.ID_LENGTH_MAX, "Unique per source; a retry carries the same id."),
        "source": _text(envelope.SOURCE_LENGTH_MAX, "Who sends this: a URI reference."),
        "type": _text(envelope.TYPE_LENGTH_MAX, "What has happened; the last part is the version."),
        "subject": _optional(_text(envelope.SUBJECT_LENGTH_MAX, "For people and tools; the data decide.", 0)),
        "time": {"type": "string", "format": "date-time", "description": "When the state was observed."},
        "tenantid": {**IDENTIFIER, "description": "The tenant; also the key of the message."},
        "sequence": _optional(
            {
                "type": "integer",
                "minimum": 0,
                "maximum": base.QUANTITY_MAX,
                "description": "Rises per facet and source.",
            }
        ),
        "traceparent": _optional({"type": "string", "description": "W3C trace context, passed through."}),
        "datacontenttype": _optional({"type": "string", "description": "application/json, where it is said."}),
        "data": {"type": "object"},
    }
    required = ["specversion", "id", "source", "type", "time", "tenantid", "data"]
    return {"title": "An inbound event", "type": "object", "properties": properties, "required": required}


def outbound_envelope(*, dead_letter: bool = False) -> Document:
    """The JSON Schema of an event that the service writes. A dead letter may have no tenant, and has no revision."""
    properties: Document = {
        "specversion": {"type": "string", "const": "1.0"},
        "id": _text(envelope.ID_LENGTH_MAX, "The same decision always has the same id."),
        "source": {"type": "string", "const": outbound.SOURCE},
        "type": _text(envelope.TYPE_LENGTH_MAX, "What has happened; the last part is the version."),
        "time": {"type": "string", "format": "date-time", "description": "When it was decided."},
        "subject": {"type": "string", "description": "The workload, item, tenant, reservation or switch."},
        "tenantid": {**IDENTIFIER, "description": "The tenant; also the key of the message."},
        "causeid": {"type": "string", "description": "The id of the event or request that led to this one."},
        "revision": {
            "type": "integer",
            "minimum": 0,
            "maximum": base.QUANTITY_MAX,
            "description": "Rises with every outbound event of the tenant, with gaps; the order of events.",
        },
        "traceparent": {"type": "string", "description": "W3C trace context of the cause."},
        "datacontenttype": {"type": "string", "const": "application/json"},
        "data": {"type": "object"},
    }
    required = ["specversion", "id", "source", "type", "time", "datacontenttype", "data"]
    if dead_letter:
        del properties["revision"]
    else:
        required += ["subject", "tenantid", "revision"]
    title = "A dead letter" if dead_letter else "An outbound event"
    return {"title": title, "type": "object", "properties": properties, "required": required}


def example_event(event_type: table.EventType) -> Document:
    """A complete structured event of this type."""
    outgoing = event_type.type in table.OUTBOUND
    event: Document = {
        "specversion": "1.0",
        "id": "7f1c3f0f1e0b4c55a3f3f0a4f0c2d1e9",
        "source": outbound.SOURCE if outgoing else "/agents/7",
        "type": event_type.type,
        "time": EXAMPLE_TIME,
        "tenantid": EXAMPLE_TENANT,
        "datacontenttype": "application/json",
        "data": event_type.example,
    }
    if event_type.topic != "dead-letters":
        event["subject"] = next((event_type.example[name] for name in SUBJECTS if name in event_type.example), "")
        event["subject"] = event["subject"] or EXAMPLE_TENANT
    if outgoing and event_type.topic != "dead-letters":
        event |= {"causeid": "e-1", "revision": 81}
    return event


def _channels(topic_prefix: str) -> Document:
    topics = table.INBOUND_TOPICS | table.OUTBOUND_TOPICS
    return {
        topic: {
            "address": topic_prefix + topic,
            "title": topic,
            "description": description,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(topic)},
            "bindings": {
                "kafka": {
                    "topic": topic_prefix + topic,
                    "partitions": PARTITIONS_OF.get(topic, PARTITIONS),
                    "bindingVersion": KAFKA_BINDING_VERSION,
                }
            },
        }
        for topic, description in topics.items()
    }


def _operations() -> Document:
    operations: Document = {}
    for action, topics in (("receive", table.INBOUND_TOPICS), ("send", table.OUTBOUND_TOPICS)):
        for topic, description in topics.items():
            operations[f"{action}-{topic}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{topic}"},
                "summary": description,
                "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in _message_names(topic)],
            }
    return operations


def _message_names(topic: str) -> list[str]:
    if topic in table.OUTBOUND_TOPICS:
        return [type_ for type_, event_type in table.OUTBOUND.items() if event_type.topic == topic]
    types = [type_ for type_, event_type in table.INBOUND.items() if event_type.topic == topic]
    return types + [f"{type_}.binary" for type_ in types]


def _messages(topic_prefix: str) -> Document:
    messages: Document = {}
    for event_type in (table.INBOUND | table.OUTBOUND).values():
        messages[event_type.type] = _structured_message(event_type, topic_prefix)
    for event_type in table.INBOUND.values():
        messages[f"{event_type.type}.binary"] = _binary_message(event_type)
    return messages


def _structured_message(event_type: table.EventType, topic_prefix: str) -> Document:
    name = "InboundEvent" if event_type.type in table.INBOUND else "OutboundEvent"
    event = example_event(event_type)
    if event_type.topic == "dead-letters":
        name = "DeadLetter"
        event["data"] = event["data"] | {"topic": topic_prefix + "workload-events"}
    return {
        "name": event_type.type,
        "title": event_type.model.__name__,
        "summary": event_type.description,
        "traits": [{"$ref": "#/components/messageTraits/structured"}],
        "headers": {
            "type": "object",
            "properties": {"content-type": {"type": "string", "const": outbound.CONTENT_TYPE}},
        },
        "payload": {
            "allOf": [
                {"$ref": f"#/components/schemas/{name}"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "const": event_type.type},
                        "data": {"$ref": f"#/components/schemas/{event_type.model.__name__}"},
                    },
                },
            ]
        },
        "examples": [{"name": "structured", "headers": {"content-type": outbound.CONTENT_TYPE}, "payload": event}],
    }


def _binary_message(event_type: table.EventType) -> Document:
    event = example_event(event_type)
    headers = {f"ce_{name}": text for name, text in event.items() if name not in {"data", "datacontenttype"}}
    return {
        "name": event_type.type,
        "title": f"{event_type.model.__name__} in binary mode",
        "summary": event_type.description,
        "traits": [{"$ref": "#/components/messageTraits/binary"}],
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/BinaryHeaders"},
                {"type": "object", "properties": {"ce_type": {"type": "string", "const": event_type.type}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{event_type.model.__name__}"},
        "examples": [
            {"name": "binary", "headers": headers | {"content-type": "application/json"}, "payload": event["data"]}
        ],
    }


def _trait(content_type: str) -> Document:
    return {
        "contentType": content_type,
        "bindings": {"kafka": {"key": IDENTIFIER, "bindingVersion": KAFKA_BINDING_VERSION}},
    }


def _schemas() -> Document:
    """The schemas of all data by the names of their models, and those of the envelopes."""
    models = list(dict.fromkeys(event_type.model for event_type in (table.INBOUND | table.OUTBOUND).values()))
    _, generated = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=Generator,
    )
    envelopes = {
        "InboundEvent": inbound_envelope(),
        "OutboundEvent": outbound_envelope(),
        "DeadLetter": outbound_envelope(dead_letter=True),
        "BinaryHeaders": _binary_headers(),
    }
    return dict(generated["$defs"]) | envelopes


def _binary_headers() -> Document:
    inbound = inbound_envelope()
    headers = {f"ce_{name}": _unwrapped(inbound["properties"][name]) for name in envelope.ATTRIBUTES}
    headers["ce_sequence"] = {"type": "string", "pattern": "^[0-9]{1,16}$"}
    headers["content-type"] = {"type": "string", "description": "application/json, where it is said."}
    required = [f"ce_{name}" for name in envelope.ATTRIBUTES if name in inbound["required"]]
    return {"type": "object", "properties": headers, "required": required}


class Generator(GenerateJsonSchema):
    """Pydantic's generator, with descriptions as plain text."""

    def generate_inner(self, schema: Any) -> Document:
        """The schema of one part, its description without the marks of the source."""
        generated = super().generate_inner(schema)
        if isinstance(generated.get("description"), str):
            generated["description"] = generated["description"].replace("``", "`")
        return generated


def _text(length_max: int, description: str, length_min: int = 1) -> Document:
    return {"type": "string", "minLength": length_min, "maxLength": length_max, "description": description}


def _optional(schema: Document) -> Document:
    """CloudEvents lets an absent attribute be null."""
    description = schema.get("description")
    branch = {name: content for name, content in schema.items() if name != "description"}
    return {"anyOf": [branch, {"type": "null"}], "description": description}


def _unwrapped(schema: Document) -> Document:
    """An optional attribute as a header, which is there or not."""
    if "anyOf" not in schema:
        return schema
    return {**schema["anyOf"][0], "description": schema["description"]}


def render(document: Document) -> str:
    """A generated document as it stands in its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
