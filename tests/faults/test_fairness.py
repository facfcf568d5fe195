"""A flood of one tenant's events beside single ones of another tenant; figures come from `apportion bench fairness`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.transport.lines import SHARE
from tests.component.fleet import Fleet
from tests.faults import fairness

TOPICS = 2  # in which the flood comes in, each with a line of its own
FLOOD = 12_000
PROBES = 12


@pytest.fixture
def fleet(kafka: str, redis_fresh: str, topic_prefix: str, tmp_path: Path) -> Iterator[Fleet]:
    """The service, for one test."""
    made = Fleet(kafka, redis_fresh, topic_prefix, tmp_path)
    yield made
    made.close()


def test_an_event_waits_for_few_of_the_events_that_another_tenant_has_sent_before(fleet: Fleet, kafka: str) -> None:
    waited = fairness.measure(fleet, kafka, FLOOD, PROBES)
    batch = TOPICS * SHARE
    # It comes in during one batch, is decided in the next, and is announced during the one after that; as much again
    # for reading the counts, and room for a busy machine. Without lines it were five thousand and more.
    assert waited[len(waited) // 2] <= 6 * batch, waited
    assert waited[-1] <= 15 * batch, waited
