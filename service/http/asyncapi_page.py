"""The AsyncAPI document as one page of HTML that needs nothing from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any

Document = dict[str, Any]

_DIRECTIONS = {"receive": "Events that the service reads", "send": "Events that the service publishes"}


def render(document: Document) -> str:
    """The page: a table of contents, every channel with its messages, every schema with its fields."""
    style = resources.files(__package__).joinpath("asyncapi.css").read_text(encoding="utf-8")
    info = document["info"]
    return "".join(
        (
            f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(info['title'])} events</title>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<style>{style}</style></head><body>",
            f"<nav>{''.join(_contents(document))}</nav><main>",
            f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
            f"<p>{escape(info.get('description', ''))}</p>",
            "<p>The same for programs: <a href='/asyncapi.json'>/asyncapi.json</a>.</p>",
            "".join(_directions(document)),
            "<h2>Schemas</h2>",
            "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
            "</main></body></html>",
        )
    )


def _channels(document: Document, action: str) -> list[tuple[str, Document]]:
    """The channels that the service reads from, or sends to."""
    names = [_name(each["channel"]) for each in document["operations"].values() if each["action"] == action]
    return [(name, document["channels"][name]) for name in names]


def _contents(document: Document) -> Iterator[str]:
    for action, title in _DIRECTIONS.items():
        yield f"<strong>{title}</strong><ul>"
        for name, channel in _channels(document, action):
            yield f"<li><a href='#{escape(name)}'>{escape(channel['address'])}</a></li>"
        yield "</ul>"


def _directions(document: Document) -> Iterator[str]:
    for action, title in _DIRECTIONS.items():
        yield f"<h2>{title}</h2>"
        for name, channel in _channels(document, action):
            yield f"<section id='{escape(name)}'><h3><code>{escape(channel['address'])}</code></h3>"
            yield f"<p>{escape(channel.get('description', ''))}</p>"
            for reference in channel["messages"].values():
                yield "".join(_message(document["components"]["messages"][_name(reference)]))
            yield "</section>"


def _message(message: Document) -> Iterator[str]:
    yield f"<article><h4><code>{escape(message['name'])}</code></h4><p>{escape(message.get('summary', ''))}</p>"
    yield f"<p>Data: {_type(message['payload'])}</p>"
    for example in message.get("examples", ()):
        text = json.dumps(example.get("payload", example), indent=2, ensure_ascii=False)
        yield f"<details><summary>Example ({escape(str(example.get('name', '')))})</summary>"
        yield f"<pre>{escape(text)}</pre></details>"
    yield "</article>"


def _schema(name: str, schema: Document) -> str:
    rows = "".join(_row(field, about, schema) for field, about in schema.get("properties", {}).items())
    table = f"<table><tr><th>field</th><th>type</th><th></th></tr>{rows}</table>" if rows else ""
    return (
        f"<section id='schema-{escape(name)}'><h3>{escape(name)}</h3>"
        f"<p>{escape(schema.get('description', ''))}</p>{table}</section>"
    )


def _row(field: str, about: Document, schema: Document) -> str:
    needed = "" if field in schema.get("required", ()) else " <small>optional</small>"
    description = escape(about.get("description", ""))
    return f"<tr><td><code>{escape(field)}</code>{needed}</td><td>{_type(about)}</td><td>{description}</td></tr>"


def _type(schema: Document) -> str:
    """A type in a few words, with links to the schemas that it refers to."""
    if "$ref" in schema:
        name = escape(_name(schema))
        return f"<a href='#schema-{name}'>{name}</a>"
    for key, between in (("allOf", " and "), ("anyOf", " or "), ("oneOf", " or ")):
        if key in schema:
            return between.join(_type(each) for each in schema[key])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    return _plain(schema)


def _plain(schema: Document) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"name → {_type(schema['additionalProperties'])}"
    if kind == "object" and "properties" in schema:
        inner = (f"<code>{escape(name)}</code>: {_type(about)}" for name, about in schema["properties"].items())
        return "{" + ", ".join(inner) + "}"
    known = schema.get("x-known-values")
    values = ": " + ", ".join(f"<code>{escape(str(value))}</code>" for value in known) if known else ""
    return escape(" or ".join(kind) if isinstance(kind, list) else str(kind)) + values


def _name(reference: Document) -> str:
    """What a reference refers to."""
    return str(reference["$ref"]).rpartition("/")[2]
