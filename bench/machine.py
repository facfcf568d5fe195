"""The machine that figures belong to: a figure without it says nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("aiokafka", "faststream", "hiredis", "msgspec", "pydantic", "redis", "uvloop")
_FLUSHES = 100
_FLUSH_BYTES = 4096


def describe() -> dict[str, Any]:
    """Cores, memory, versions, what a flush to disk costs, and how busy the machine is already."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "flush_microseconds": round(_flush_seconds() * 1e6),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "versions": {
            "python": platform.python_version(),
            "redis-server": _version("redis-server", r"v=(\S+)"),
            "java": _version("java", r'version "([^"]+)"', "-version"),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def in_a_line(machine: dict[str, Any]) -> str:
    """The machine in a line for people."""
    versions = machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "redis-server", "java") if versions[name])
    return (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}; "
        f"{named}; a flush to disk takes {machine['flush_microseconds']} µs; load before {machine['load_before'][0]}"
    )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "an unknown processor"


def _version(program: str, pattern: str, option: str = "--version") -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    answer = subprocess.run([path, option], capture_output=True, text=True, check=False)
    found = re.search(pattern, answer.stdout + answer.stderr)
    return found[1] if found else None


def _flush_seconds() -> float:
    """What it takes until a small append is on the disk, at the median: the floor under `appendfsync always`."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * _FLUSH_BYTES)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)
