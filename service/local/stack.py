"""The local Kafka and Redis as one thing: in the background for `apportion up`, or as children of a program.

What is configured is used as it is; what is not is started on this machine (docs/design.md 7).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from service.local.kafka import LocalKafka, MockKafka, build, list_missing
from service.local.redis import LocalRedis
from service.local.server import LocalServerError, ProcessIdentity, Server
from service.settings import PREFIX, STACK_FILE

__all__ = ["Addresses", "LocalServerError", "Stack", "down", "read_addresses", "up"]

MOCK_KAFKA_NOTE = (
    "Java or Maven is missing, so Kafka is the small broker inside librdkafka: it speaks the real protocol but keeps "
    "everything in memory, which is good for a first look only."
)
_KAFKA_NAME, _REDIS_NAME = f"{PREFIX}KAFKA_BOOTSTRAP_SERVERS", f"{PREFIX}REDIS_URL"


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where the servers are, and what a person should know about them."""

    kafka_bootstrap_servers: str
    redis_url: str
    kafka_kind: str
    """``configured`` (not started here), ``apache`` or ``mock``."""
    redis_kind: str
    """``configured`` or ``local``."""
    notes: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead every command of the project to these servers."""
        return {_KAFKA_NAME: self.kafka_bootstrap_servers, _REDIS_NAME: self.redis_url}


class Stack:
    """Kafka and Redis as children of this program, stopped with it however it ends.

    ::

        with Stack() as stack:
            os.environ.update(stack.addresses.environment)

    Without ``folder`` the data lies in a temporary one that goes with the stack; servers then end at once, as nobody
    needs their files. Servers may also be started one by one (:meth:`start_kafka`, :meth:`start_redis`). Enter it from
    the main thread.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        brokers: int = 1,
        kafka_bootstrap_servers: str | None = None,
        redis_url: str | None = None,
        real_kafka_only: bool = False,
    ) -> None:
        self.kafka: LocalKafka | MockKafka | None = None
        self.redis: LocalRedis | None = None
        self._keeps_data = folder is not None
        self._folder = folder
        self._brokers = brokers
        self._configured_kafka = kafka_bootstrap_servers
        self._configured_redis = redis_url
        self._real_kafka_only = real_kafka_only

    def __enter__(self) -> Self:
        try:
            self.start_redis()
            self.start_kafka()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Where data and logs are."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="apportion-stack-"))
        return self._folder

    @property
    def addresses(self) -> Addresses:
        """Where the servers are; what has not been started has an empty address."""
        return _describe(self.kafka, self.redis, self._configured_kafka, self._configured_redis)

    def start_kafka(self, *, detached: bool = False) -> str:
        """Start Kafka unless it is configured or runs already; returns the bootstrap servers."""
        if self._configured_kafka is not None:
            return self._configured_kafka
        if self.kafka is None:
            kafka = build(self.folder / "kafka", brokers=self._brokers, real_only=self._real_kafka_only)
            kafka.start(detached=detached)
            self.kafka = kafka
        return self.kafka.bootstrap_servers

    def start_redis(self, *, detached: bool = False) -> str:
        """Start Redis unless it is configured or runs already; returns its URL."""
        if self._configured_redis is not None:
            return self._configured_redis
        if self.redis is None:
            local = LocalRedis(self.folder / "redis")
            local.start(detached=detached)
            self.redis = local
        return self.redis.url

    def broker(self, number: int = 1) -> Server:
        """One broker's process, to kill, pause, resume or start again on the same port and data."""
        if self.kafka is None:
            raise LocalServerError("This stack has started no Kafka.")
        return self.kafka.servers[number - 1]

    @property
    def redis_server(self) -> Server:
        """The process of Redis, to kill, pause, resume or start again on the same port and data."""
        if self.redis is None:
            raise LocalServerError("This stack has started no Redis.")
        return self.redis.servers[0]

    def kill_kafka(self, number: int = 1) -> None:
        """End one broker as a power cut would."""
        self.broker(number).kill()

    def restart_kafka(self, number: int = 1) -> None:
        """Start one broker again, on the same port and data, and wait until it is a member again."""
        self.broker(number).start()

    def kill_redis(self) -> None:
        """End Redis as a power cut would."""
        self.redis_server.kill()

    def restart_redis(self) -> None:
        """Start Redis again, on the same port and data, and wait until it answers."""
        self.redis_server.start()

    def close(self) -> None:
        """Stop what was started. Closing twice is no error."""
        for servers in (self.kafka, self.redis):
            if servers is not None:
                if self._keeps_data:
                    servers.stop()
                else:
                    servers.kill()
        self.kafka = self.redis = None
        if not self._keeps_data and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def up(folder: Path, *, brokers: int = 1, report: Callable[[str], None] = lambda _: None) -> Addresses:
    """Start Kafka and Redis in the background for whoever works in ``folder``, and write ``.apportion/stack.env``.

    They go on after this program ends, until :func:`down`. What the environment names is used and not started. Where
    they run already, nothing happens. Data of an earlier start is continued, or set aside where it was made by another
    kind of stack. ``report`` is told what happens. Raises ``LocalServerError``; nothing is left running then.
    """
    with _lock(folder) as home:
        running = _find_running(home)
        if running is not None:
            return running
        _stop_servers(home)  # one of them may have died alone
        stack = Stack(
            home / "data",
            brokers=brokers,
            kafka_bootstrap_servers=os.environ.get(_KAFKA_NAME) or None,
            redis_url=os.environ.get(_REDIS_NAME) or None,
        )
        notes = _set_aside_other_data(home, _identify(brokers))
        try:
            report("Starting Redis …")
            stack.start_redis(detached=True)
            report("Starting Kafka …")
            stack.start_kafka(detached=True)
            addresses = stack.addresses
            addresses = dataclasses.replace(addresses, notes=(*notes, *addresses.notes))
            _write(home, addresses)
        except BaseException:
            stack.close()
            raise
        return addresses


def down(folder: Path) -> list[str]:
    """Stop what :func:`up` started for ``folder`` and remove ``.apportion/stack.env``; the data stays.

    Returns the names of the servers that were stopped. Only processes that are certainly ours are touched: a pid that
    belongs to another process by now is left alone. Stopping twice is no error.
    """
    if not (folder / STACK_FILE.parent).is_dir():
        return []
    with _lock(folder) as home:
        stopped = _stop_servers(home)
        (folder / STACK_FILE).unlink(missing_ok=True)
        (home / "stack.json").unlink(missing_ok=True)
        return stopped


def read_addresses(folder: Path) -> Addresses | None:
    """Where the servers are that :func:`up` started for ``folder``; None where it was not called."""
    try:
        content = json.loads((folder / STACK_FILE.parent / "stack.json").read_text(encoding="utf-8"))
        return Addresses(**{**content, "notes": tuple(content["notes"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[Path]:
    """One at a time: two calls at once would start everything twice."""
    home = folder.resolve() / STACK_FILE.parent
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield home


def _describe(
    kafka: LocalKafka | MockKafka | None,
    redis: LocalRedis | None,
    configured_kafka: str | None,
    configured_redis: str | None,
) -> Addresses:
    return Addresses(
        kafka_bootstrap_servers=configured_kafka or (kafka.bootstrap_servers if kafka else ""),
        redis_url=configured_redis or (redis.url if redis else ""),
        kafka_kind="configured" if configured_kafka or kafka is None else kafka.kind,
        redis_kind="configured" if configured_redis else "local",
        notes=(MOCK_KAFKA_NOTE,) if isinstance(kafka, MockKafka) else (),
    )


def _pid_files(home: Path) -> list[Path]:
    return sorted(home.glob("data/*/*.pid"))


def _find_running(home: Path) -> Addresses | None:
    """The addresses of an earlier start, if every server of it still runs."""
    addresses = read_addresses(home.parent)
    if addresses is None or not (home / STACK_FILE.name).exists():
        return None
    identities = [ProcessIdentity.read(path) for path in _pid_files(home)]
    whole = all(identity is not None and identity.is_running() for identity in identities)
    return addresses if whole else None


def _stop_servers(home: Path) -> list[str]:
    stopped = []
    for path in reversed(_pid_files(home)):  # Redis before Kafka: neither needs the other, but the order is the same
        identity = ProcessIdentity.read(path)
        if identity is not None and identity.is_running():
            identity.stop()
            stopped.append(path.stem)
        path.unlink(missing_ok=True)
    return stopped


def _identify(brokers: int) -> str:
    """What the data of this start belongs to: another Kafka beside the same ledger would be refused at start."""
    configured = os.environ.get(_KAFKA_NAME)
    if configured:
        return f"configured {configured}"
    return f"mock {time.time_ns()}" if list_missing() else f"apache {brokers}"


def _set_aside_other_data(home: Path, identity: str) -> tuple[str, ...]:
    data, kept_in = home / "data", home / "data" / "made-by"
    notes: tuple[str, ...] = ()
    if data.exists() and (not kept_in.exists() or kept_in.read_text(encoding="utf-8") != identity):
        aside = home / f"data-before-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03d}"
        data.rename(aside)
        notes = (f"The data of another kind of local stack was set aside in {STACK_FILE.parent / aside.name}.",)
    data.mkdir(exist_ok=True)
    kept_in.write_text(identity, encoding="utf-8")
    return notes


def _write(home: Path, addresses: Addresses) -> None:
    (home / "stack.json").write_text(json.dumps(dataclasses.asdict(addresses)), encoding="utf-8")
    lines = "".join(f"{name}={value}\n" for name, value in addresses.environment.items())
    part = home / f"{STACK_FILE.name}.part"
    part.write_text(lines, encoding="utf-8")
    part.chmod(0o600)  # a configured URL may hold a password
    part.rename(home / STACK_FILE.name)
