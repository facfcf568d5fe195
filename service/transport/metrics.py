"""What the service counts and measures, for Prometheus; every name begins with ``apportion_``."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_CALLS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000, 5000, 20000)


class Metrics:
    """Every metric of one instance, in a registry of its own. Is an observer of the engine."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.decisions = Counter(
            "apportion_decisions", "Events decided, by outcome and type", ["outcome", "type"], registry=registry
        )
        self.conflict_total = Counter(
            "apportion_conflicts", "Decisions that were made again because a record had changed", registry=registry
        )
        self.batch_events = Histogram(
            "apportion_batch_events", "Events decided together", buckets=_SIZES, registry=registry
        )
        self.batch_transactions = Histogram(
            "apportion_batch_transactions", "Transactions that a batch needed", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = Histogram(
            "apportion_batch_seconds", "Time to decide a batch", buckets=_LATENCIES, registry=registry
        )
        self._time_the_way()
        self._count_trouble()
        self._gauge()
        self.http_seconds = Histogram(
            "apportion_http_request_seconds",
            "Time of a request, by method, path and status",
            ["method", "path", "status"],
            buckets=_LATENCIES,
            registry=registry,
        )

    def _time_the_way(self) -> None:
        registry = self.registry
        self.decision_latency = Histogram(
            "apportion_decision_latency_seconds",
            "From the arrival of an event in Kafka to its decision",
            buckets=_LATENCIES,
            registry=registry,
        )
        self.announcement_latency = Histogram(
            "apportion_announcement_latency_seconds",
            "From a decision to the acknowledgement of its announcement, for the oldest one of each round",
            buckets=_LATENCIES,
            registry=registry,
        )
        self.published = Counter(
            "apportion_relay_published", "Announcements acknowledged by Kafka, by topic", ["topic"], registry=registry
        )
        self.relay_messages = Histogram(
            "apportion_relay_round_messages", "Announcements published together", buckets=_SIZES, registry=registry
        )
        self.unannounced = Counter(
            "apportion_relay_unannounced",
            "Announcements that could not be rendered or are too large for Kafka; each is a dead letter",
            registry=registry,
        )

    def _count_trouble(self) -> None:
        registry = self.registry
        self.dead_letters = Counter("apportion_dead_letters", "Dead letters, by code", ["code"], registry=registry)
        self.failures = Counter(
            "apportion_handling_failures", "Events on which the service itself failed", registry=registry
        )
        self.rewinds = Counter(
            "apportion_rewinds", "Partitions read again because the ledger may have lost writes", registry=registry
        )
        self.rereads = Counter(
            "apportion_rereads", "Jumps in a partition's offsets that were read again", registry=registry
        )
        self.ledger_seconds = Histogram(
            "apportion_ledger_call_seconds", "Time of a call to the ledger", ["call"], buckets=_CALLS, registry=registry
        )
        self.ledger_failures = Counter(
            "apportion_ledger_failures", "Calls not answered, by reason", ["reason"], registry=registry
        )

    def _gauge(self) -> None:
        registry = self.registry
        self.lag = Gauge("apportion_consumer_lag", "Events not decided yet, by topic", ["topic"], registry=registry)
        self.outbox_depth = Gauge("apportion_outbox_depth", "Announcements that wait for Kafka", registry=registry)
        self.partitions = Gauge("apportion_partitions", "Partitions that this instance reads", registry=registry)
        self.shards = Gauge("apportion_shards", "Shards that this instance looks after", ["lease"], registry=registry)
        self.paused = Gauge("apportion_intake_paused", "1 while intake waits for the outbox", registry=registry)
        self.ready = Gauge("apportion_ready", "1 while the instance is ready", registry=registry)
        self.not_ready = Gauge(
            "apportion_not_ready", "1 while this stands in the way of being ready", ["subject"], registry=registry
        )

    # --- the engine's observer

    def decided(self, kind: str, event_type: str, count: int) -> None:
        """So many events of a type had that outcome."""
        self.decisions.labels(kind, event_type).inc(count)

    def conflicts(self, count: int) -> None:
        """So many decisions had to be made again."""
        self.conflict_total.inc(count)

    def batch(self, events: int, transactions: int, seconds: float) -> None:
        """A batch was decided."""
        self.batch_events.observe(events)
        self.batch_transactions.observe(transactions)
        self.batch_seconds.observe(seconds)

    # --- HTTP

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.http_seconds.labels(method, path, status).observe(seconds)

    # --- the others

    def show_lag(self, lag: Mapping[str, int]) -> None:
        """How far behind the group is, by topic."""
        for topic, count in lag.items():
            self.lag.labels(topic).set(count)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
