"""The long form: `python -m tests.faults`, or `make faults`. It ends with 1 where a run differs from what must be."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

from service.local.stack import Stack
from tests.faults import outcome
from tests.faults.history import Kind, write
from tests.faults.run import Ran, Run
from tests.faults.trouble import TROUBLES, Trouble

COUNTED: dict[Trouble, str] = {
    "instances": "instances killed",
    "redis": "Redis killed",
    "everysec": "Redis killed",
    "kafka": "brokers killed",
    "broker": "brokers killed",
    "membership": "instances stopped",
}
BROKERS = {"broker": 3}


class Suite:
    """Runs on one pair of servers, each beside an undisturbed one over the same history."""

    def __init__(self, stack: Stack, folder: Path, asked: argparse.Namespace) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self._stack = stack
        self._folder = folder
        self._asked = asked
        self._calm: dict[tuple[Kind, int], Ran] = {}

    def compare(self, kind: Kind, trouble: Trouble, seed: int) -> int:
        """A disturbed run, compared; how many blows of the kind that is counted fell."""
        name = f"{trouble}-{kind}-{seed}"
        calm = self._calm.get((kind, seed))
        if calm is None:
            calm = self._calm[kind, seed] = self._run(kind, "none", seed, f"calm-{kind}-{seed}")
            self._judge(f"calm-{kind}-{seed}", calm, outcome.faults_within(calm.outcome, rewound=False))
        shaken = self._run(kind, trouble, seed, name)
        found = outcome.faults_within(shaken.outcome, rewound=trouble == "everysec")
        found += outcome.differences(kind, calm.outcome, shaken.outcome)
        self._judge(name, shaken, found)
        if found:
            replay = f"python -m tests.faults --trouble {trouble} --kind {kind} --seed {seed}"
            options = f" --runs 1 --events {self._asked.events} --seconds {self._asked.seconds:g}"
            options += f" --blows {self._asked.blows}"
            print(f"  again: {replay}{options}\n  both outcomes and all logs: {self._folder}", flush=True)
            (self._folder / f"{name}.log").write_text("\n".join(shaken.log) + "\n")
            (self._folder / f"{name}.json").write_text(outcome.as_text(shaken.outcome))
            (self._folder / f"{name}.calm.json").write_text(outcome.as_text(calm.outcome))
        self.counts.update({f"{trouble}: {what}": count for what, count in shaken.counts.items()})
        return shaken.counts.get(COUNTED[trouble], 0)

    def _run(self, kind: Kind, trouble: Trouble, seed: int, name: str) -> Ran:
        history, blows_max = write(kind, seed, self._asked.events), 0 if trouble == "none" else self._asked.blows
        seconds = self._asked.seconds if blows_max else 0.0  # nobody is waited for
        run = Run(self._stack, self._folder / name, history, trouble, seconds=seconds, blows_max=blows_max)
        return asyncio.run(run.run())

    def _judge(self, name: str, ran: Ran, found: list[str]) -> None:
        done = ", ".join(f"{count} {what}" for what, count in ran.counts.items()) or "undisturbed"
        told = f"{len(ran.outcome.published)} announcements, {ran.seconds:.0f} s"
        print(f"{'DIFFERS' if found else 'the same'}  {name}: {done}; {told}", flush=True)
        for line in found:
            print(f"  {line}")
        if found:
            self.failed.append(name)


def main() -> int:
    """Run what is asked for; 1 where something differs."""
    asked = parse()
    logging.disable()  # the clients of this program complain of every blow
    folder = Path(asked.folder or tempfile.mkdtemp(prefix="apportion-faults-"))
    counts: Counter[str] = Counter()
    failed: list[str] = []
    for brokers in (1, 3):
        troubles = [trouble for trouble in asked.trouble if BROKERS.get(trouble, 1) == brokers]
        if troubles:
            with Stack(brokers=brokers, real_kafka_only=True) as stack:
                suite = Suite(stack, folder, asked)
                for trouble in troubles:
                    repeat(suite, trouble, asked)
            counts.update(suite.counts)
            failed += suite.failed
    for what, count in sorted(counts.items()):
        print(f"{count:5} {what}")
    print(f"Differences in {', '.join(failed)}." if failed else "Nothing differs.")
    return 1 if failed else 0


def repeat(suite: Suite, trouble: Trouble, asked: argparse.Namespace) -> None:
    """Runs of one kind after the other, with one seed after the other, until enough blows have fallen."""
    fallen, number = 0, 0
    while fallen < asked.kills and (not asked.runs or number < asked.runs):
        kind = asked.kind[number % len(asked.kind)]
        fallen += suite.compare(kind, trouble, asked.seed + number // len(asked.kind))
        number += 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next ones count on from it")
    parser.add_argument("--trouble", nargs="+", choices=TROUBLES, default=list(TROUBLES))
    parser.add_argument("--kind", nargs="+", choices=get_args(Kind), default=list(get_args(Kind)))
    parser.add_argument("--kills", type=int, default=50, help="of each trouble, over all its runs")
    parser.add_argument("--runs", type=int, default=0, help="of each trouble at most; 0: until enough are killed")
    parser.add_argument("--events", type=int, default=1500, help="of a history, about")
    parser.add_argument("--blows", type=int, default=10, help="in one run at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="that a history is spread over")
    parser.add_argument("--folder", help="for logs, and for outcomes that differ")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
