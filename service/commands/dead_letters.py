"""Looking at dead letters, and sending what is in them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from service.commands import console
from service.commands.console import CommandError, Json
from service.settings import Settings
from service.transport import dead_letters, topics
from service.transport.dead_letters import DeadLetter, Sent

Everything = Annotated[bool, typer.Option("--all", help="Those too that were sent again.")]
Newest = Annotated[int, typer.Option(min=1, help="No more than the newest so many.")]
Codes = Annotated[list[str] | None, typer.Option("--code", help="Only those with this code; may be repeated.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only the one with this id; may be repeated.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")]


def register(application: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Messages that could not be handled.", no_args_is_help=True)
    group.command("list")(show)
    group.command("redrive")(redrive)
    application.add_typer(group, name="dead-letters")


def show(json: Json = False, everything: Everything = False, limit: Newest = 10_000) -> None:
    """Show the messages that could not be handled and were not sent again."""
    letters = console.run(_read(console.settings(), everything, limit))
    if json:
        console.print_json({"dead_letters": [letter.shown() for letter in letters]})
        return
    rows = [(each.time, each.code, f"{each.topic}/{each.partition}/{each.offset}", each.message) for each in letters]
    console.print_table("Dead letters", ("time", "code", "place", "message"), rows)


def redrive(
    code: Codes = None,
    id_: Ids = None,
    dry_run: DryRun = False,
    limit: Newest = 10_000,
    json: Json = False,
) -> None:
    """Send messages again to where they came from, once the cause is gone."""
    outcomes = console.run(_redrive(console.settings(), code or (), id_ or (), limit, dry_run=dry_run))
    if json:
        console.print_json({"dry_run": dry_run, "dead_letters": [_shown(each, dry_run=dry_run) for each in outcomes]})
    else:
        _print(outcomes, dry_run=dry_run)
    if any(each.problem for each in outcomes):
        raise typer.Exit(1)


def _shown(outcome: Sent, *, dry_run: bool) -> dict[str, Any]:
    sent = outcome.problem is None and not dry_run
    return {**outcome.letter.shown(), "sent": sent, "problem": outcome.problem}


def _print(outcomes: Sequence[Sent], *, dry_run: bool) -> None:
    done = "would be sent again" if dry_run else "sent again"
    for each in outcomes:
        place = f"{each.letter.topic}/{each.letter.partition}/{each.letter.offset}"
        typer.echo(f"{each.letter.id} ({each.letter.code}, {place}): {each.problem or done}")
    count = sum(not each.problem for each in outcomes)
    typer.echo(f"{count} of {len(outcomes)} {done}.")


async def _read(settings: Settings, everything: bool, limit: int) -> list[DeadLetter]:
    from service import core

    async with core.open_core(settings) as opened, topics.administration(settings) as client:
        await topics.require(settings, client)
        return await dead_letters.read(settings, client, opened.board, everything=everything, newest=limit)


async def _redrive(
    settings: Settings, codes: Sequence[str], ids: Sequence[str], limit: int, *, dry_run: bool
) -> list[Sent]:
    from service import core

    async with core.open_core(settings) as opened, topics.administration(settings) as client:
        await topics.require(settings, client)
        # Those that were sent again before are sent once more only where they are named.
        notes, named = opened.board, bool(ids)
        letters = await dead_letters.read(settings, client, notes, everything=named, values=True, newest=limit)
        known = {letter.id for letter in letters}
        missing = [name for name in ids if name not in known]
        if missing:
            raise CommandError(f"There is no dead letter {', '.join(missing)}.")
        chosen = [each for each in letters if (not codes or each.code in codes) and (not ids or each.id in ids)]
        return await dead_letters.redrive(settings, client, notes, chosen, dry_run=dry_run)
