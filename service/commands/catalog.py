"""Looking at the catalogue, and checking one before it is used."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from service import catalog
from service.catalog import Catalog, CatalogError
from service.commands import console
from service.commands.console import Json
from service.settings import load_settings

File = Annotated[Path | None, typer.Argument(help="The file; without it the one of the settings.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="What can be licensed.", no_args_is_help=True)
    group.command("show")(show)
    group.command("validate")(validate)
    application.add_typer(group, name="catalog")


def show(json: Json = False) -> None:
    """Show the applications, editions, offering items and features."""
    path = load_settings().catalog_file
    loaded = catalog.load(path)
    if json:
        content: dict[str, Any] = json_module.loads((path or catalog.BUILT_IN).read_bytes())
        console.print_json(content)
    else:
        _print(loaded)


def validate(file: File = None, json: Json = False) -> None:
    """Check a catalogue, and say everything that is wrong with it."""
    path = file or load_settings().catalog_file or catalog.BUILT_IN
    findings: tuple[str, ...] = ()
    items = 0
    try:
        items = len(catalog.load(path).items)
    except CatalogError as error:
        findings = error.findings
    if json:
        console.print_json({"ok": not findings, "file": str(path), "items": items, "findings": list(findings)})
    else:
        for finding in findings:
            typer.echo(finding, err=True)
        if not findings:
            typer.echo(f"{path} is right: {items} offering items.")
    if findings:
        raise typer.Exit(1)


def _print(loaded: Catalog) -> None:
    applications = [(each.id, each.name, each.type) for each in loaded.applications.values()]
    console.print_table(f"Applications (version {loaded.version})", ("id", "name", "type"), applications)
    editions = [
        (each.name, each.kind.replace("_", " "), ", ".join(sub.name for sub in each.sub_editions))
        for each in loaded.editions.values()
    ]
    console.print_table("Editions and billing modes", ("name", "kind", "sub-editions, lowest first"), editions)
    items = [
        (each.name, each.usage_name, each.type, each.unit, each.edition or "–", ", ".join(sorted(each.serves)))
        for each in loaded.items.values()
    ]
    console.print_table("Offering items", ("name", "usage name", "type", "unit", "edition", "workload types"), items)
    features = [(each.id, each.scope, ", ".join(sorted(each.applies_to))) for each in loaded.features.values()]
    console.print_table("Features", ("id", "scope", "applies to"), features)
