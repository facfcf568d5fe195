"""The benchmarks on the command line: ``apportion bench NAME``, or ``python -m bench NAME`` in a checkout."""

from __future__ import annotations

import asyncio
import enum
import gc
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer
import uvloop

from bench import engine, fairness, growth, http, ledger, memory, pipeline, profile, report, switch, topology
from bench.profiler import ProfilerMissingError
from service.local.server import LocalServerError

app = typer.Typer(
    name="bench",
    help="Measure the service on this machine (docs/benchmarks.md).",
    no_args_is_help=True,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Rounds = Annotated[int, typer.Option(min=1, help="Every figure is the median of that many rounds.")]
Batch = Annotated[int, typer.Option(min=1, help="Events that are decided together.")]
Partners = Annotated[int, typer.Option(min=1, help="Direct partners: the customers' shards follow from them.")]
Customers = Annotated[int, typer.Option(min=1)]
Roles = Annotated[list[str] | None, typer.Option(help="Roles of an instance; once for each instance.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer and shorter measurements, for a first look.")]
COLLECTOR_THRESHOLDS = (100_000, 50, 100)  # those of `apportion serve`


@app.callback()
def choose() -> None:
    """Several benchmarks: the first word says which."""


@app.command("ledger")
def run_ledger(rounds: Rounds = 3, quick: Quick = False, as_json: AsJson = False) -> None:
    """Decisions per second in Redis, beside one call per event and PostgreSQL."""
    finish(ledger.run(quick=quick, rounds=rounds), as_json)


@app.command("engine")
def run_engine(
    customers: Customers = 400,
    workloads: Annotated[int, typer.Option(min=1, help="Of each customer.")] = 25,
    partners: Partners = 8,
    batch: Batch = 2000,
    rounds: Rounds = 3,
    profile: Annotated[bool, typer.Option("--profile", help="Show the functions where the time goes.")] = False,
    as_json: AsJson = False,
) -> None:
    """What an event costs in Python, type by type."""
    if profile:
        job = engine.profile(customers=customers, workloads=workloads, partners=partners, batch=batch, top=15)
    else:
        job = engine.run(customers=customers, workloads=workloads, partners=partners, batch=batch, rounds=rounds)
    finish(job, as_json)


@app.command("pipeline")
def run_pipeline(
    customers: Customers = 500,
    workloads: Annotated[int, typer.Option(min=1, help="Of each customer; each has four events.")] = 40,
    partners: Partners = 8,
    roles: Roles = None,
    rounds: Rounds = 3,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Kafka to Kafka: throughput beside passing messages on and a textbook handler, and latency at half load."""
    shape = pipeline.Shape(customers, workloads, partners)
    if quick:
        shape, rounds = pipeline.Shape(100, 50, partners), 1
    chosen = roles or [pipeline.ALL_ROLES]
    finish(lambda: pipeline.run(shape=shape, rounds=rounds, roles=chosen, quick=quick), as_json)


@app.command("memory")
def run_memory(
    workloads: Annotated[int, typer.Option(min=100, help="With two plans each.")] = 100_000,
    per_customer: Annotated[int, typer.Option(min=1, help="Workloads of one customer.")] = 100,
    batch: Batch = 2000,
    restart: Annotated[bool, typer.Option("--restart", help="Also how long Redis takes to come back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bytes in Redis for a workload, and what they are spent on."""
    finish(memory.run(workloads=workloads, per_customer=per_customer, batch=batch, restart=restart), as_json)


class Of(enum.StrEnum):
    """What grows."""

    TENANTS = "tenants"
    SERVERS = "servers"


@app.command("growth")
def run_growth(
    of: Annotated[list[Of] | None, typer.Option("--of", help="What grows; both, if nothing is said.")] = None,
    batch: Batch = 2000,
    rounds: Rounds = 3,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """The same events of a hundred tenants up to a hundred thousand; one and three masters of Redis and instances."""

    def grow() -> report.Report:
        made = report.Report("growth", {})
        if of is None or Of.TENANTS in of:
            uvloop.run(growth.run(made, quick=quick, rounds=rounds, batch=batch))
        if of is None or Of.SERVERS in of:
            shape = topology.Shape(workloads=10) if quick else topology.Shape()
            topology.run(made, shape=shape, rounds=1 if quick else rounds)
        return made

    finish(grow, as_json)


@app.command("fairness")
def run_fairness(
    flood: Annotated[int, typer.Option(min=1000, help="Events that one tenant has sent at once.")] = 200_000,
    per_second: Annotated[int, typer.Option(min=1, help="Events of all others together.")] = 200,
    rounds: Rounds = 3,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Others' latency beside a tenant that sends very much, and without it."""
    shape = fairness.Shape(flood=flood, per_second=per_second)
    if quick:
        shape, rounds = shape._replace(flood=min(flood, 60_000), seconds=6), 1
    finish(lambda: fairness.run(shape=shape, rounds=rounds), as_json)


@app.command("http")
def run_http(
    seconds: Annotated[float, typer.Option(min=0.5, help="That each figure is measured.")] = 4.0,
    rounds: Rounds = 3,
    quick: Quick = False,
    as_json: AsJson = False,
) -> None:
    """Reservations over HTTP, beside a bare endpoint with one call to Redis, for 1, 16 and 128 clients."""
    shape, rounds = (http.Shape(1.0, 0.3), 1) if quick else (http.Shape(seconds), rounds)
    finish(lambda: http.run(shape=shape, rounds=rounds), as_json)


@app.command("switch")
def run_switch(
    customers: Annotated[int, typer.Option(min=1, help="That are switched.")] = 20_000,
    workloads: Annotated[int, typer.Option(min=1, help="Of each customer.")] = 5,
    large: Annotated[int, typer.Option(min=0, help="One customer with so many workloads instead.")] = 0,
    per_second: Annotated[int, typer.Option(min=0, help="Events meanwhile; 0: 200, or 1,000 beside a large one.")] = 0,
    partners: Partners = 8,
    as_json: AsJson = False,
) -> None:
    """Customers switched from an edition to a billing mode: many small ones, or one large one."""
    if large:
        shape = switch.Shape(1, large, per_second or 1000, 1)
    else:
        shape = switch.Shape(customers, workloads, per_second or 200, partners)
    finish(lambda: switch.run(shape=shape, large=bool(large)), as_json)


@app.command("profile")
def run_profile(
    customers: Customers = 500,
    workloads: Annotated[int, typer.Option(min=1, help="Of each customer; each has four events.")] = 40,
    partners: Partners = 8,
    roles: Roles = None,
    top: Annotated[int, typer.Option(min=1, help="So many functions.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Where the time of a running instance goes, under full load."""
    shape = pipeline.Shape(customers, workloads, partners)
    chosen = roles or [pipeline.ALL_ROLES]
    finish(lambda: profile.run(shape=shape, roles=chosen, top=top), as_json)


def finish(job: Coroutine[Any, Any, report.Report] | Callable[[], report.Report], as_json: bool) -> None:
    """Run a benchmark and print what it found; what is missing is said in a sentence, with exit code 1."""
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    try:
        found = job() if callable(job) else uvloop.run(job)
    except (LocalServerError, ProfilerMissingError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
    report.write(found, as_json=as_json)


def main() -> None:
    """Entry point of ``python -m bench``."""
    app(prog_name="python -m bench")


if __name__ == "__main__":
    main()
