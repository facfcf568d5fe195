"""The first thing that anybody runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_shows_the_main_job_and_ends_by_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "APPORTION_TOPIC_PREFIX": "not.for.the.demo.", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {line.strip("│ \n") for line in done.stdout.splitlines()}
    shown = {tuple(cell.strip() for cell in row.split("│")) for row in rows}
    books = ("birch-books", "books-pc-3")
    reason = "birch-msp may use 5 of pw_base_workstations and uses 5; 1 more were requested"
    assert (*books, reason, "waits") in shown
    assert ("birch-books", "books-pc-2", "workstation", "pw_base_workstations") in shown
    assert ("destination", "pw_base_workstations", "0 → 8", "off → 10") in shown, "the preview"
    for row in (
        ("source", "p_adv_workstations", "8 / 10", "0 / off"),
        ("destination", "pw_base_workstations", "0 / off", "8 / 10"),
        ("destination", "pw_pack_adv_management", "0 / off", "3 / 10"),
        ("source", "pw_p_ess_workstations", "6 / 12", "0 / off"),
        ("destination", "pw_base_workstations", "0 / off", "14 / 42"),
    ):
        assert row in shown
    assert "birch-books is refused, and nothing of it changes: pg_base_" in done.stdout
    assert "All is well: 9 tenants, 36 workloads, 1 reservations." in rows
    assert "Summary: 94 events in" in done.stdout
    assert "Everything is stopped again" in done.stdout
    assert list(tmp_path.iterdir()) == []
