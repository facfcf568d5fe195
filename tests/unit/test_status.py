"""When everything that was published counts as decided and announced."""

from __future__ import annotations

import pytest

from service.transport import status
from service.transport.status import Observatory, Status

IDLE = Status({"switch-tasks": 0}, 0, 0, {}, [])
BUSY = Status({"switch-tasks": 3}, 0, 0, {}, [])


def looking(seen: list[Status], monkeypatch: pytest.MonkeyPatch) -> Observatory:
    """An observatory that sees these one after the other, and the last one ever after."""
    observatory = object.__new__(Observatory)

    async def read() -> Status:
        return seen.pop(0) if len(seen) > 1 else seen[0]

    monkeypatch.setattr(observatory, "read", read)
    monkeypatch.setattr(status, "LOOK_SECONDS", 0)
    return observatory


async def test_one_idle_look_is_not_enough_as_work_can_go_round_and_slip_past_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = [BUSY, IDLE, BUSY, IDLE, IDLE, BUSY]
    assert await looking(seen, monkeypatch).wait_idle(60) == IDLE
    assert seen == [BUSY]


@pytest.mark.parametrize(("seen", "ends"), [([BUSY], BUSY), ([IDLE, BUSY], BUSY), ([IDLE], IDLE)])
async def test_without_time_it_still_looks_twice_before_it_says_idle(
    seen: list[Status], ends: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await looking(seen, monkeypatch).wait_idle(0) == ends
