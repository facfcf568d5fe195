"""One run: a history is published while the service is disturbed, and what is seen at the end is collected.

Everything that is left to chance comes from the seed: the history, what is done to whom, and after which pause. What
the machine was just doing then is not in anybody's hand, so a replay strikes at the same moments of the load, and not
between the same two instructions.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import redis
from aiokafka.errors import KafkaError

from service import core
from service.ledger.errors import LedgerError, LedgerUnavailable
from service.local.stack import Stack
from service.settings import PREFIX, Settings
from service.transport import status
from tests.component.fleet import Fleet
from tests.faults import outcome, switching
from tests.faults.history import HEADERS, History, Message, tenants
from tests.faults.outcome import Outcome
from tests.faults.trouble import LEASE_SECONDS, SESSION_SECONDS, Disturber, Trouble

TICK_SECONDS = 0.05
IDLE_SECONDS_MAX = 240.0
INSTANCES = 2
ENVIRONMENT = {
    "APPORTION_LEASE_SECONDS": str(LEASE_SECONDS),
    "APPORTION_SESSION_SECONDS": str(SESSION_SECONDS),
    "APPORTION_UNKNOWN_TENANT_WAIT_SECONDS": "3600",  # nobody is given up only because of a long disturbance
    "APPORTION_SHARDS": "8",
    "APPORTION_BATCH_SIZE_MAX": "50",  # many batches, so that there are many moments to strike at
    "APPORTION_SWITCH_WORKLOADS_AT_ONCE_MAX": str(switching.AT_ONCE),
    "APPORTION_LOG_FORMAT": "json",
}


class Ran(NamedTuple):
    """A run that came to its end."""

    outcome: Outcome
    counts: dict[str, int]
    log: list[str]
    seconds: float


class Run:
    """A history on servers that are given, under names of its own."""

    def __init__(
        self, stack: Stack, folder: Path, history: History, trouble: Trouble, *, seconds: float, blows_max: int
    ) -> None:
        self._stack = stack
        self._history = history
        self._trouble = trouble
        self._blows_max = blows_max
        self._may_disturb = asyncio.Event()
        self._seconds = seconds  # that publishing is spread over, where it is not done in stages
        folder.mkdir(parents=True, exist_ok=True)
        with redis.Redis.from_url(stack.addresses.redis_url) as client:
            client.flushall()
        self._fleet = Fleet(
            stack.addresses.kafka_bootstrap_servers, stack.addresses.redis_url, f"f{uuid.uuid4().hex[:12]}.", folder
        )
        brokers = len(stack.kafka.servers) if stack.kafka else 1
        more = {"APPORTION_TOPIC_REPLICATION_FACTOR": str(min(3, brokers))}
        self._fleet.environment.update(ENVIRONMENT | more)
        self._fleet.deliver_surely()
        self.disturber = Disturber(trouble, stack, self._fleet, random.Random(f"{trouble}/{history.seed}"))

    async def run(self) -> Ran:
        """From nothing to the outcome; whatever happens, no instance is left. Raises AssertionError where it hangs."""
        began = time.monotonic()
        try:
            self._fleet.answer("topics", "create")
            self.disturber.begin(INSTANCES)
            await self._load()
            found = await outcome.collect(self._fleet, self._settings(), tenants(self._history))
        finally:
            self.disturber.mend()
            self._fleet.close()
        return Ran(found, dict(self.disturber.counts), self.disturber.log, time.monotonic() - began)

    async def _load(self) -> None:
        """Publish the history while blows fall; at the end nothing is broken and everything is at rest."""
        for instance in self._fleet.instances:
            await asyncio.to_thread(instance.ready)
        publishing = asyncio.create_task(self._publish())
        disturbing = asyncio.create_task(self._disturb())
        try:
            await asyncio.wait([publishing, disturbing], return_when=asyncio.FIRST_EXCEPTION)
            await disturbing  # first, as what it raises is why the other one hangs
            await publishing
        finally:
            for task in (publishing, disturbing):
                task.cancel()
            await asyncio.gather(publishing, disturbing, return_exceptions=True)
        self.disturber.mend()
        await self.wait_idle()

    # --- the load

    async def _publish(self) -> None:
        for number, stage in enumerate(self._history.stages):
            if number == self._history.calm_stages:
                self._may_disturb.set()
            await self._spread(stage)
            await self.wait_idle()

    async def _spread(self, stage: Sequence[Message]) -> None:
        """Publish a stage in its order, evenly over its share of the time."""
        seconds = self._seconds * len(stage) / self._history.size
        began, sent = time.monotonic(), 0
        while sent < len(stage):
            share = min(1.0, (time.monotonic() - began) / seconds) if seconds else 1.0
            due = max(sent + 1, int(share * len(stage)))
            self._send(stage[sent:due])
            sent = due
            await wait_for_moment(TICK_SECONDS)

    def _send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._fleet.produce(message.topic, message.value, message.key, list(HEADERS))

    async def _disturb(self) -> None:
        await self._may_disturb.wait()
        for blow in self.disturber.schedule(self._blows_max):
            await wait_for_moment(blow.seconds, self.disturber.notice)
            while not blow.may():
                await wait_for_moment(TICK_SECONDS, self.disturber.notice)
            self.disturber.note(blow.name)
            blow.strike()

    # --- the end

    async def wait_idle(self) -> None:
        """Wait as `apportion status --wait-idle` does, over every disturbance."""
        end = time.monotonic() + IDLE_SECONDS_MAX
        await asyncio.to_thread(self._fleet.flush, IDLE_SECONDS_MAX)
        last: object = None
        while time.monotonic() < end:
            try:
                async with (
                    core.open_core(self._settings()) as opened,
                    status.observatory(opened.settings, opened.ledger, opened.board) as observatory,
                ):
                    last = await observatory.wait_idle(min(30.0, end - time.monotonic()))
                if last.idle:
                    return
            except (LedgerUnavailable, LedgerError, KafkaError, OSError) as error:
                last = error
            await asyncio.sleep(TICK_SECONDS)
        raise AssertionError(
            f"not at rest after {IDLE_SECONDS_MAX:g} seconds: {last}\n" + "\n".join(self.disturber.log)
        )

    def _settings(self) -> Settings:
        named = {name: value for name, value in self._fleet.environment.items() if name.startswith(PREFIX)}
        return Settings(_env_file=None, **{name.removeprefix(PREFIX).lower(): value for name, value in named.items()})


async def wait_for_moment(seconds: float, notice: Callable[[], None] = lambda: None) -> None:
    """Let time go by, as load and disturbances have their pace; ``notice`` is called now and then meanwhile."""
    moment = time.monotonic() + seconds
    while (left := moment - time.monotonic()) > 0:
        notice()
        await asyncio.sleep(min(TICK_SECONDS, left))
