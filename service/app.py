"""The composition root: from the settings to everything that runs, and back down in order.

:class:`Service` is what `serve` runs on top of core.py. Each part of it is a task, and one that fails ends the process,
so that whatever watches over it can start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from schemas.asyncapi import asyncapi_document
from service import http
from service.core import Core, open_core, options
from service.handlers.engine import Engine
from service.ledger.errors import LedgerUnavailable
from service.ledger.redis_ledger import RedisLedger
from service.settings import Settings
from service.transport import connection, health, membership, observed, offsets, topics
from service.transport.consumer import Consumer
from service.transport.gate import Gate
from service.transport.health import Health
from service.transport.incarnation import Guard, Incarnations
from service.transport.membership import Leases, Member, Membership
from service.transport.metrics import Metrics
from service.transport.pipeline import Pipeline
from service.transport.publisher import Publisher
from service.transport.relay import Relay, Signal
from service.transport.sweeper import Sweeper

ROLES = ("consume", "relay", "sweep", "http")
HEARTBEAT_SECONDS = 1.0  # of this instance on the board, and of its leases
LAG_SECONDS = 5.0  # between two measurements of the lag
RETRY_SECONDS = 1.0
LAST_RESORT_SECONDS = 9.5  # after the signal; then the process ends whatever it is doing

log = structlog.get_logger(__name__)


class StartError(Exception):
    """The service cannot start as things are; one sentence for the person who starts it."""


async def serve(settings: Settings, roles: frozenset[str], report: Callable[[dict[str, Any]], None]) -> None:
    """Run an instance until a signal ends it; ``report`` is told when it is ready.

    Raises ``StartError``, ``TopicsError``, ``LedgerError`` and the errors of :func:`open_core`.
    """
    guard = Guard()
    async with open_core(settings, guard) as core, open_core(settings) as scout:
        service = Service(core, scout.ledger, guard, roles)
        with _signals(service.stop):
            await service.run(report)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Service:
    """One running instance. ``scout`` reaches Redis past the guard, to see what is there."""

    def __init__(self, core: Core, scout: RedisLedger, guard: Guard, roles: frozenset[str]) -> None:
        settings = core.settings
        self.settings, self.core, self.roles = settings, core, roles
        self.metrics = Metrics()
        self.health = Health(self.metrics)
        self._stopping = asyncio.Event()
        self._signal = Signal()
        self.incarnations = Incarnations(
            scout, guard, core.board, self.metrics, settings.rewind_seconds, settings.topic_prefix
        )
        self.ledger = observed.observe(core.ledger, self.metrics, self._signal, self.incarnations.suspect)
        self.engine = Engine(self.ledger, core.catalog, options(settings), self.metrics)
        self._publishers = [self._publisher(use) for use in ("dead letters", "announcements")]
        self._build_intake(self._publishers[0])
        self._build_shares(self._publishers[1])
        self.web = self._build_web() if "http" in roles else None

    def _publisher(self, use: str) -> Publisher:
        def report(reason: str | None) -> None:
            self.health.set(use, None if reason is None else f"Kafka does not take {use}: {reason}")

        return Publisher(connection.client_options(self.settings), self.settings.topic_prefix, report)

    def _build_intake(self, publisher: Publisher) -> None:
        """What takes events in."""
        settings = self.settings
        self.gate = Gate(self.ledger, settings.outbox_depth_max, self.metrics)
        self.pipeline = Pipeline(
            self.engine,
            publisher,
            self.gate,
            self.incarnations,
            self.metrics,
            topic_prefix=settings.topic_prefix,
            batch_size_max=settings.batch_size_max,
        )
        self.consumer = Consumer(settings, self.pipeline, self.metrics)
        self.incarnations.on_change(self.pipeline.invalidate)

    def _build_shares(self, publisher: Publisher) -> None:
        """What is done shard by shard, each on one instance."""
        ttl_ms = self.settings.lease_seconds * 1000
        host, process, now_ms = socket.gethostname(), os.getpid(), time.time_ns() // 1_000_000
        name = f"{host}-{process}-{uuid.uuid4().hex[:8]}"
        member = Member(name, tuple(role for role in ROLES if role in self.roles), host, process, now_ms, now_ms)
        self.membership = Membership(self.core.board, member, ttl_ms)
        self._leases = {role: Leases(self.ledger, role, name, ttl_ms) for role in ("relay", "sweep")}
        for lease in self._leases.values():
            self.incarnations.on_change(lease.start_over)
        self.relay = Relay(self.ledger, self.core.catalog, publisher, self._leases["relay"], self._signal, self.metrics)
        self.sweeper = Sweeper(self.engine, self._leases["sweep"], self.settings.sweep_interval_seconds)

    def _build_web(self) -> http.WebServer:
        application = http.create(
            reasons=lambda: self.health.reasons,
            render_metrics=self.metrics.render,
            metrics_content_type=self.metrics.content_type,
            events=asyncapi_document(self.settings.topic_prefix),
            api=http.build(self.engine, self.settings, lambda: self.gate.is_open),
            timeout_seconds=self.settings.http_timeout_seconds,
            observe=self.metrics.answered,
        )
        try:
            web = http.WebServer(application, self.settings.http_host, self.settings.http_port)
        except OSError as error:
            place = f"{self.settings.http_host}:{self.settings.http_port}"
            raise StartError(f"HTTP cannot be served at {place}: {error.strerror or error}.") from error
        self.membership.describe(web.url)
        return web

    def stop(self) -> None:
        """Begin to end, in order; whatever happens, the process is gone within 10 seconds."""
        if not self._stopping.is_set():
            last_resort = threading.Timer(LAST_RESORT_SECONDS, os._exit, (0,))
            last_resort.daemon = True
            last_resort.start()
        self._stopping.set()

    async def run(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Start everything, say so, work until ``stop``, and end everything."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            self._start(tasks, {"kafka": health.watch_kafka(self.settings, self.health)})
            if self.web:
                self._start(tasks, {"http": self.web.serve()})
            if await self._came(self._prepare(), tasks):
                self._start(tasks, self._parts())
                if await self._came(self.health.wait_for("ledger", "kafka", "start"), tasks):
                    report(self._description())
                    await self._came(self._stopping.wait(), tasks)
            await self._end(tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Everything that runs, by name."""
        leases = [(lease, role) for role, lease in self._leases.items() if role in self.roles]
        shards, report = self.ledger.shards, self._report_ledger
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "incarnations": self.incarnations.run(),
            "membership": membership.keep(self.membership, leases, shards, HEARTBEAT_SECONDS, self.metrics, report),
            "gate": self.gate.run(),
            "lag": self._measure_lag(),
        }
        if "consume" in self.roles:
            parts |= {"pipeline": self.pipeline.run(), "consumer": self.consumer.run()}
        if "relay" in self.roles:
            parts["relay"] = self.relay.run()
        if "sweep" in self.roles:
            parts["sweeper"] = self.sweeper.run()
        return parts

    @staticmethod
    def _start(tasks: dict[str, asyncio.Task[None]], parts: Mapping[str, Coroutine[Any, Any, None]]) -> None:
        for name, work in parts.items():
            tasks[name] = asyncio.create_task(work, name=name)

    async def _came(self, work: Coroutine[Any, Any, Any], tasks: Mapping[str, asyncio.Task[None]]) -> bool:
        """Wait for something, or for ``stop``; whether it came to its end. A part that fails meanwhile is raised."""
        awaited = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([awaited, stop, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            for name, task in tasks.items():
                if task.done() and not self._stopping.is_set():
                    task.result()
                    raise RuntimeError(f"{name} ended by itself")
            if awaited.done():
                await awaited
            return awaited.done()
        finally:
            stop.cancel()
            awaited.cancel()

    # --- the beginning

    async def _prepare(self) -> None:
        """Make sure that the ledger and Kafka are those that belong together; wait for them where they are away."""
        while True:
            try:
                await self._look_at_ledger()
                await self._look_at_kafka()
            except LedgerUnavailable as error:
                self._report_ledger(error)
            except (KafkaError, OSError) as error:
                self.health.set("kafka", f"Kafka does not answer: {topics.reason(error)}")
            else:
                self.health.set("start", None)
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _look_at_ledger(self) -> None:
        await self.core.ledger.install()
        await self.incarnations.look()
        for warning in await self.core.ledger.settings_warnings():
            log.warning("the settings of Redis", warning=warning)
        self._report_ledger(None)

    async def _look_at_kafka(self) -> None:
        async with topics.administration(self.settings) as client, offsets.reader(self.settings) as reader:
            await topics.require(self.settings, client)
            await topics.await_group(self.settings, client)
            await self.core.ledger.remember_kafka_cluster(await topics.cluster_id(client))
            positions = await self.core.ledger.positions()
            problem = await offsets.unknown_position(self.settings, client, reader, positions)
        if problem:
            raise StartError(problem)

    def _report_ledger(self, error: Exception | None) -> None:
        self.health.set("ledger", None if error is None else f"The ledger cannot be used: {error}")

    def _description(self) -> dict[str, Any]:
        """What the ready line says."""
        return {
            "event": "ready",
            "http": self.web.url if self.web else None,
            "instance": self.membership.id,
            "roles": [role for role in ROLES if role in self.roles],
        }

    # --- the end

    async def _end(self, tasks: Mapping[str, asyncio.Task[None]]) -> None:
        """Take nothing in any more, finish what is in hand, publish what is decided, leave; each within its bound."""
        seconds = self.settings.shutdown_seconds
        self.health.set("stop", "the service is stopping")
        if "consumer" in tasks:
            await self.consumer.stop(seconds * 0.35)
            await asyncio.wait([tasks["consumer"]], timeout=seconds * 0.3)
        if "sweeper" in tasks:
            self.sweeper.stop()
            await asyncio.wait([tasks["sweeper"]], timeout=seconds * 0.05)
        if "relay" in tasks:
            self.relay.stop()
            await asyncio.wait([tasks["relay"]], timeout=seconds * 0.2)
        for name in ("membership", "incarnations"):
            if name in tasks:
                tasks[name].cancel()
        with contextlib.suppress(TimeoutError, LedgerUnavailable):
            await asyncio.wait_for(self._leave(), seconds * 0.1)
        if self.web:
            self.web.stop()
            await asyncio.wait([tasks["http"]], timeout=seconds * 0.1)
        log.info("stopped")

    async def _leave(self) -> None:
        for publisher in self._publishers:
            await publisher.close()
        for lease in self._leases.values():
            await lease.release()
        await self.membership.leave()

    async def _measure_lag(self) -> None:
        """For the metrics."""
        while True:
            try:
                async with topics.administration(self.settings) as client, offsets.reader(self.settings) as reader:
                    while True:
                        self.metrics.show_lag(await offsets.lag(self.settings, client, reader))
                        await asyncio.sleep(LAG_SECONDS)
            except (KafkaError, OSError) as error:
                log.debug("the lag could not be measured", reason=topics.reason(error))
                await asyncio.sleep(LAG_SECONDS)
