"""One running instance for each file of tests, on an empty ledger and topics of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from tests.e2e.outside import Outside


@pytest.fixture(scope="module")
def outside(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A platform beside a service that runs. No test beside it may empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("outside")
    world = Outside(kafka, redis_url, f"t{uuid.uuid4().hex[:12]}.", folder)
    done = world.run("topics", "create")
    assert done.returncode == 0, done.stderr
    process, world.url = world.serve()
    yield world
    process.terminate()
    assert process.wait(15) == 0, (folder / "serve.log").read_text()[-2000:]
