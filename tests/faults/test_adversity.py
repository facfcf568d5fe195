"""One instance goes through one trouble after the other; all of them, for longer, by the command in adversity.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from service.local.stack import Stack
from tests.faults import adversity
from tests.faults.adversity import TROUBLES, Watch

SECONDS = 2.0
LEFT_OUT = ("redis hangs", "kafka is dead")  # they take their time, and test_serve.py has servers that are away


class Place(NamedTuple):
    """An instance, and why its Kafka has no small disk, if it has none."""

    watch: Watch
    impossible: str | None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Servers of its own, with an instance that all tests of this file share."""
    stack = Stack(real_kafka_only=True)
    with adversity.small_disk(stack) as impossible:
        watch = Watch(stack, tmp_path_factory.mktemp("adversity"))
        yield Place(watch, impossible)
        watch.close()
        stack.close()


@pytest.mark.parametrize("name", [name for name in TROUBLES if name not in LEFT_OUT])
def test_it_waits_says_why_and_goes_on_by_itself_and_nothing_is_lost(place: Place, name: str) -> None:
    trouble = TROUBLES[name]
    if trouble.on is adversity.full_disk and place.impossible:
        pytest.skip(place.impossible)
    seen = place.watch.endure(trouble, SECONDS)
    assert trouble.words in seen.reasons


def test_after_all_of_it_the_ledger_is_what_its_records_say(place: Place) -> None:
    place.watch.check_everything()
    assert place.watch.instance.process.poll() is None
