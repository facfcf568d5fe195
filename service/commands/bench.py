"""The benchmarks of a checkout: they are not installed with the service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from service.commands import console

CHECKOUT = Path(__file__).resolve().parents[2]


def register(application: typer.Typer) -> None:
    """Add the command."""
    anything = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    application.command(context_settings=anything)(bench)


def bench(context: typer.Context) -> None:
    """Measure the service on this machine: `bench --help` says what there is (docs/benchmarks.md)."""
    if not (CHECKOUT / "bench").is_dir():
        raise console.CommandError("Benchmarks run from a checkout; they are not installed with the service.")
    done = subprocess.run([sys.executable, "-m", "bench", *context.args], cwd=CHECKOUT, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
