"""One server process: started, awaited, killed, restarted in its place, and never left behind."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_LEASH = Path(__file__).with_name("leash.py")
_POLL_SECONDS = 0.02
_STOP_SECONDS = 20
_START_ATTEMPTS = 3
_LOG_TAIL_BYTES = 2000
_PORT_MAX = 65_535
_CLUSTER_BUS_OFFSET = 10_000  # a Redis Cluster node listens on its port and on this many above it


class LocalServerError(Exception):
    """A local server is missing, did not start or did not stop; the message is for the person at the keyboard."""


def find_free_port(*, cluster: bool = False) -> int:
    """A TCP port of the loopback that nobody listens on at this moment.

    With ``cluster`` the port of the Redis Cluster bus above it is free too.
    """
    for _ in range(200):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if not cluster or (port + _CLUSTER_BUS_OFFSET <= _PORT_MAX and is_port_free(port + _CLUSTER_BUS_OFFSET)):
            return port
    raise LocalServerError("No free port was found on the loopback.")


def find_free_ports(count: int, *, cluster: bool = False) -> list[int]:
    """Several of :func:`find_free_port`, all different."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(find_free_port(cluster=cluster))
    return sorted(ports)


def is_port_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a closing connection is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once the condition holds; ``LocalServerError`` naming ``what`` when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LocalServerError(f"Waited {seconds:.0f} seconds in vain for {what}.")
        time.sleep(_POLL_SECONDS)


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from a later one that was given the same number."""

    pid: int
    started: str
    """When it started, in the words of the system; with the pid it names one process of this boot."""

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a running process; None where there is none (or only its remains)."""
        started = _read_start(pid)
        return None if started is None else cls(pid, started)

    def is_running(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self

    def send(self, signal_number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def stop(self) -> None:
        """Ask the process to end; make it end where it does not within 20 seconds."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # one that was paused could not hear the first
        try:
            wait_until(lambda: not self.is_running(), _STOP_SECONDS, f"process {self.pid} to end")
        except LocalServerError:
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.is_running(), _STOP_SECONDS, f"process {self.pid} to be killed")

    def write(self, path: Path) -> None:
        """Keep the identity in a file."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> ProcessIdentity | None:
        """The identity kept in a file; None where there is no such file or it is not whole."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(content["pid"]), str(content["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _read_start(pid: int) -> str | None:
    """Boot and start time of a process that runs; None for one that has ended and only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if sys.platform == "linux" else _ask_ps(pid)
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _ask_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if answer.returncode or state.startswith("Z") else started.strip()


class Server:
    """One server program with its place: command, port, data and log stay the same over restarts.

    ``is_ready`` is asked with the pid. It has to be sure that this server answers and not another one on its port.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        folder: Path,
        is_ready: Callable[[int], bool],
        start_seconds_max: float = 60,
    ) -> None:
        self.name = name
        self.command = command
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._is_ready = is_ready
        self._start_seconds_max = start_seconds_max
        self._child: subprocess.Popen[bytes] | None = None
        self._identity = ProcessIdentity.read(self._pid_file)

    @property
    def pid(self) -> int | None:
        """The number of the running process; None where it does not run."""
        return self._identity.pid if self._identity is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Whether the process runs (paused counts as running)."""
        if self._child is not None:
            self._child.poll()  # collects a child that has ended
        return self._identity is not None and self._identity.is_running()

    def launch(self, *, detached: bool = False) -> None:
        """Start the process and return at once. A detached one outlives this program.

        Another one dies with the thread that started it, so servers are started from the main thread.
        """
        if self.is_running():
            return
        leash = [] if detached else [sys.executable, "-I", str(_LEASH), str(os.getpid())]
        with self.log.open("ab") as log:
            # A session of its own keeps the terminal's Ctrl-C away: the service is to stop before its servers do.
            self._child = subprocess.Popen(
                [*leash, *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._identity = ProcessIdentity.of(self._child.pid)
        if self._identity is not None:
            self._identity.write(self._pid_file)
        if detached:
            self._child.returncode = 0  # nobody waits for it here, so its object must not complain of that
            self._child = None
        else:
            _running.add(self)

    def wait_ready(self) -> None:
        """Return once the server answers in its own protocol.

        ``LocalServerError`` with the end of its log where it ends or the time is over.
        """
        try:
            wait_until(lambda: self._answers() or not self.is_running(), self._start_seconds_max, self.name)
        except LocalServerError as error:
            raise LocalServerError(f"{error} Its log ends: {self.read_log_tail()}") from None
        if not self.is_running():
            raise LocalServerError(f"{self.name} did not start. Its log ends: {self.read_log_tail()}")

    def _answers(self) -> bool:
        pid = self.pid
        return pid is not None and self._is_ready(pid)

    def start(self, *, detached: bool = False) -> None:
        """Start the process and wait until it answers."""
        self.launch(detached=detached)
        self.wait_ready()

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL); its data stays as it lies."""
        if self._identity is not None:
            self._identity.send(signal.SIGKILL)
        self._collect()

    def stop(self) -> None:
        """End it in order (SIGTERM), by force where that takes more than 20 seconds. Stopping twice is no error."""
        if self._identity is not None and self.is_running():
            self._identity.stop()
        self._collect()

    def pause(self) -> None:
        """Let it hang (SIGSTOP): it answers nothing, its connections stay open."""
        if self._identity is not None:
            self._identity.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        if self._identity is not None:
            self._identity.send(signal.SIGCONT)

    def read_log_tail(self) -> str:
        """The last 2000 bytes of its log."""
        try:
            return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError:
            return "(no log)"

    def _collect(self) -> None:
        if self._child is not None:
            self._child.wait(_STOP_SECONDS)
            self._child = None
        wait_until(lambda: not self.is_running(), _STOP_SECONDS, f"{self.name} to end")
        self._pid_file.unlink(missing_ok=True)
        _running.discard(self)


class BuildServers(Protocol):
    """Prepares servers on ports of this moment, those of an earlier start if ``keep_ports``."""

    def __call__(self, *, keep_ports: bool) -> list[Server]: ...


def start_on_free_ports(build: BuildServers, *, detached: bool = False) -> list[Server]:
    """Start what is built and wait until all of it answers.

    A port that was free may be taken before the server gets to it: then it is all built again, on others.
    Raises ``LocalServerError``; nothing runs then.
    """
    for attempt in range(1, _START_ATTEMPTS + 1):
        servers = build(keep_ports=attempt == 1)
        try:
            for server in servers:
                server.launch(detached=detached)
            for server in servers:
                server.wait_ready()
        except BaseException as error:
            for server in servers:
                server.kill()
            port_was_taken = any("Address already in use" in server.read_log_tail() for server in servers)
            if attempt == _START_ATTEMPTS or not isinstance(error, LocalServerError) or not port_was_taken:
                raise
        else:
            return servers
    raise AssertionError("the last attempt returns or raises")


_running: set[Server] = set()


@atexit.register
def _kill_what_still_runs() -> None:
    for server in list(_running):
        server.kill()
