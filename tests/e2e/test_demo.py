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
    assert "All is well: 8 tenants, 22 workloads, 1 reservations." in rows
    assert "Summary: 61 events in" in done.stdout
    assert "Everything is stopped again" in done.stdout
    assert list(tmp_path.iterdir()) == []
