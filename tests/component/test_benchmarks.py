"""The benchmarks themselves: that each figure is of what it says. How large it is, is no matter for a test."""

from __future__ import annotations

import pytest

from bench import ledger, servers


async def test_every_decision_of_the_ledger_benchmark_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "DECISIONS_MAX", 128)
    with servers.redis_server() as redis:
        bench = ledger.Bench(redis)
        await bench.renew()
        figures = [await bench.measure(case) for case in ledger.cases(ledger.PATH_LENGTHS, (1, 10), (0, 100))]
        await bench.close()
    assert all(figure["decisions_per_second"] > 0 for figure in figures)
