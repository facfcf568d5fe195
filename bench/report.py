"""Figures as they leave a benchmark: tables for people, one JSON document for programs.

Every figure is the median of several rounds, and in each round every variant has its turn: what else the machine does
meanwhile meets all of them, so that the ratios hold where the figures themselves do not.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench import machine

Row = dict[str, Any]
progress = Console(stderr=True)


class Target(msgspec.Struct):
    """What a figure should be: ``at_least`` or ``at_most``."""

    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it is."""
        lower = self.at_least is None or self.measured >= self.at_least
        return lower and (self.at_most is None or self.measured <= self.at_most)


class Report(msgspec.Struct):
    """One run of one benchmark. ``ratios`` are of figures of this very run."""

    bench: str
    options: dict[str, Any]
    machine: dict[str, Any] = msgspec.field(default_factory=machine.describe)
    tables: dict[str, list[Row]] = msgspec.field(default_factory=dict)
    ratios: dict[str, float] = msgspec.field(default_factory=dict)
    targets: dict[str, Target] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    began: float = msgspec.field(default_factory=time.monotonic)

    def document(self) -> dict[str, Any]:
        """The same as what becomes JSON."""
        targets = {name: {**msgspec.to_builtins(target), "met": target.is_met} for name, target in self.targets.items()}
        return {
            "bench": self.bench,
            "machine": self.machine,
            "options": self.options,
            "figures": self.tables,
            "ratios": {name: round(ratio, 2) for name, ratio in self.ratios.items()},
            "targets": targets,
            "notes": self.notes,
            "seconds": round(time.monotonic() - self.began, 1),
        }


def write(report: Report, *, as_json: bool) -> None:
    """Print a report on standard output: one JSON document and nothing else, or tables."""
    if as_json:
        json.dump(report.document(), sys.stdout, indent=1, ensure_ascii=False)
        sys.stdout.write("\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(machine.in_a_line(report.machine), style="dim")
    for title, rows in report.tables.items():
        console.print(_table(title, rows))
    for name, ratio in report.ratios.items():
        console.print(f"{name}: [bold]{ratio:.2f}[/bold] ×")
    for name, target in report.targets.items():
        wanted = f"at least {target.at_least}" if target.at_least is not None else f"at most {target.at_most}"
        verdict = "[green]met[/green]" if target.is_met else "[red]missed[/red]"
        console.print(f"target {name}: {target.measured:,.4g}, {wanted}: {verdict}")
    for note in report.notes:
        console.print(f"note: {note}", style="dim")


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        numeric = all(isinstance(row.get(name), int | float) or row.get(name) is None for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*[_cell(row.get(name)) for name in columns])
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(each[name] for each in rounds if name in each) for name in rounds[0]}


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def median_ratio(rounds: Sequence[Mapping[str, float]], over: str, under: str) -> float:
    """The median, over the rounds, of the ratio within a round."""
    return statistics.median(each[over] / each[under] for each in rounds)
