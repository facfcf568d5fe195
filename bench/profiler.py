"""Where a running process spends its time, as py-spy sees it from outside.

Good for: answering "what would be worth making faster" for the service as it runs; the process goes on at nearly its
full speed. Not good for: what happens inside C code and inside Redis and Kafka: the former is counted to the Python
function that calls it, the latter is not seen at all.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SAMPLES_PER_SECOND = 250
_STOP_SECONDS = 20
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")

# The part of the service that a stack belongs to: the innermost frame that is one of these decides.
_AREAS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("render", ("handlers/announcements.py:render", "handlers/announcements.py:_render", "schemas/outbound.py")),
    ("outbox", ("ledger/outbox.py",)),
    ("encode", ("ledger/encode.py", "ledger/validity.py")),
    ("redis", ("ledger/client.py", "redis/asyncio", "redis/_parsers", "redis/connection.py", "redis/")),
    ("ledger", ("service/ledger/",)),
    ("read", ("transport/reading.py", "schemas/")),
    ("rules", ("service/rules/", "service/catalog/")),
    ("records", ("service/records.py",)),
    ("decide", ("service/handlers/",)),
    ("publish", ("transport/publisher.py", "transport/relay.py", "aiokafka/producer")),
    ("consume", ("aiokafka/", "transport/")),
    ("http", ("service/http/", "uvicorn/", "starlette/", "fastapi/")),
    ("loop", ("asyncio/", "uvloop", "selectors.py")),
)


class ProfilerMissingError(Exception):
    """py-spy is not installed, or may not look into the process; one sentence."""


class Recording:
    """Stacks with how often each was seen, innermost frame last."""

    def __init__(self) -> None:
        self.stacks: Counter[tuple[str, ...]] = Counter()

    def load(self, raw: str) -> None:
        """Take in py-spy's raw format: ``frame;frame;frame count`` in each line."""
        for line in raw.splitlines():
            stack, _, count = line.rpartition(" ")
            if stack and count.isdigit():
                self.stacks[tuple(stack.split(";"))] += int(count)

    @property
    def samples(self) -> int:
        """How many stacks were seen altogether."""
        return self.stacks.total()

    def functions(self, count: int) -> list[dict[str, str | float]]:
        """The functions that were innermost most often, with their share of the time in percent."""
        own: Counter[str] = Counter()
        under: Counter[str] = Counter()
        for stack, seen in self.stacks.items():
            own[_named(stack[-1])] += seen
            for name in {_named(frame) for frame in stack}:
                under[name] += seen
        return [
            {"function": name, "own_percent": self._percent(seen), "with_callees_percent": self._percent(under[name])}
            for name, seen in own.most_common(count)
        ]

    def areas(self) -> dict[str, float]:
        """The share of each part of the service, in percent."""
        found: Counter[str] = Counter()
        for stack, seen in self.stacks.items():
            found[_area(stack)] += seen
        return {name: self._percent(seen) for name, seen in found.most_common()}

    def _percent(self, seen: int) -> float:
        return round(100 * seen / self.samples, 1) if self.samples else 0.0


@contextlib.contextmanager
def recording(pid: int) -> Iterator[Recording]:
    """Watch a process as long as the block runs; the recording is filled when it ends.

    Raises ``ProfilerMissingError`` where py-spy is not there or is not allowed to.
    """
    recorded = Recording()
    with tempfile.TemporaryDirectory(prefix="apportion-bench-") as folder:
        out = Path(folder) / "stacks"
        command = [
            find_program(),
            "record",
            "--pid",
            str(pid),
            "--format",
            "raw",
            "--output",
            str(out),
            "--rate",
            str(SAMPLES_PER_SECOND),
            "--duration",
            "3600",
            "--full-filenames",
            "--nolineno",
        ]  # fmt: skip - one name a line would hide which belong together
        watcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield recorded
        finally:
            watcher.send_signal(signal.SIGINT)
            _, complaint = watcher.communicate(timeout=_STOP_SECONDS)
        if not out.exists():
            raise ProfilerMissingError(f"py-spy has recorded nothing: {complaint.decode(errors='replace').strip()}")
        recorded.load(out.read_text(encoding="utf-8"))


def find_program() -> str:
    """The path of py-spy. Raises ``ProfilerMissingError``."""
    beside = Path(sys.executable).with_name("py-spy")
    path = str(beside) if beside.exists() else shutil.which("py-spy")
    if path is None:
        raise ProfilerMissingError("py-spy is needed to profile a process: install it with `pip install py-spy`.")
    return path


def _named(frame: str) -> str:
    """A frame as ``function (file)``, the file from its package on."""
    found = _FRAME.match(frame)
    if found is None:
        return frame
    file = found["file"]
    for marker in ("/site-packages/", "/service/", "/schemas/", "/bench/"):
        at = file.rfind(marker)
        if at >= 0:
            file = file[at + 1 :].removeprefix("site-packages/")
            break
    else:
        file = "/".join(file.rsplit("/", 2)[-2:])
    return f"{found['function']} ({file})"


def _area(stack: tuple[str, ...]) -> str:
    for frame in reversed(stack):
        found = _FRAME.match(frame)
        if found is None:
            continue
        place = f"{found['file']}:{found['function']}"
        for name, marks in _AREAS:
            if any(mark in place for mark in marks):
                return name
    return "other"
