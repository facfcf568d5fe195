"""Redis and Redis Cluster, as the ledger uses both: scripts, and many commands in one round trip.

Nothing is repeated here: whether a call may be made again is for whoever knows what it does. Every failure leaves as
one of the two errors of errors.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.ledger.errors import LedgerError, LedgerUnavailable

Word = str | bytes | int
Command = tuple[Word, ...]  # the name, the key, arguments
ScriptCall = tuple[Sequence[str], Sequence[Word]]  # keys of one slot, arguments

TIMEOUT_SECONDS = 10.0
CONNECTIONS_MAX = 256  # calls under way at once; further ones wait for their turn
CONNECTIONS_SPARE = 16  # for what is seldom asked, and asks the servers themselves
PAGE = 1000  # keys of one step of a walk over all of them

_REASONS = {
    "OOM": "full",
    "READONLY": "read_only",
    "LOADING": "loading",
    "MASTERDOWN": "master_down",
    "CLUSTERDOWN": "cluster_down",
    "TRYAGAIN": "cluster_down",
    "NOREPLICAS": "no_replicas",
    "MISCONF": "disk",
    "BUSY": "busy",
}
# The library strips some of these words; servers before 7.0 put words of their own before the error of a script.
_REASON = re.compile(rf"(?:^|[\s-])({'|'.join(_REASONS)})\b")
_REASON_OF_TYPE: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.OutOfMemoryError, "full"),
    (exceptions.ReadOnlyError, "read_only"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.MasterDownError, "master_down"),
    (exceptions.ClusterDownError, "cluster_down"),
    (exceptions.ClusterError, "cluster_down"),
    (exceptions.RedisClusterException, "cluster_down"),
    (exceptions.TryAgainError, "cluster_down"),
    (exceptions.AuthenticationError, "authentication"),
    (exceptions.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (exceptions.ConnectionError, "connection"),
    (OSError, "connection"),
)


class Script:
    """A Lua script of this folder; the server knows it by its SHA-1 once it has run there."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__ or "").joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def by_name(self, keys: Sequence[str], arguments: Sequence[Word]) -> Command:
        """The command that runs it where it is known."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def in_full(self, keys: Sequence[str], arguments: Sequence[Word]) -> Command:
        """The command that runs it, and makes it known."""
        return ("EVAL", self.text, len(keys), *keys, *arguments)


def translated(error: Exception) -> LedgerUnavailable | LedgerError:
    """The error of the ledger for one of the client library."""
    text = str(error)
    reason = next((word for kind, word in _REASON_OF_TYPE if isinstance(error, kind)), None)
    found = _REASON.search(text)
    if reason is not None or found is not None:
        return LedgerUnavailable(reason or _REASONS[found.group(1) if found else ""], text)
    return LedgerError(f"Redis refused a command: {text}")


@contextmanager
def failures() -> Iterator[None]:
    """Raise ``LedgerUnavailable`` or ``LedgerError`` for what the client library raises."""
    try:
        yield
    except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
        raise translated(error) from error


class Client:
    """The servers that hold the ledger. Keys are routed by their hash tag."""

    def __init__(
        self, connection: redis.asyncio.Redis | redis.asyncio.RedisCluster, calls_max: int = CONNECTIONS_MAX
    ) -> None:
        self._connection: Any = connection  # two libraries in one: what both offer has no common type
        self._cluster = connection if isinstance(connection, redis.asyncio.RedisCluster) else None
        self._turn = asyncio.Semaphore(calls_max)  # a pool without a free connection refuses where it could wait

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        cluster: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connections_max: int = CONNECTIONS_MAX,
        **options: Any,
    ) -> Client:
        """For a URL (``redis://``, ``rediss://``, ``unix://``); connects at the first command.

        ``options`` go to the client library (``ssl_ca_certs`` and the like).
        """
        everywhere: dict[str, Any] = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "max_connections": connections_max + CONNECTIONS_SPARE,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **options,
        }
        if cluster:
            return cls(redis.asyncio.RedisCluster.from_url(url, **everywhere), connections_max)
        return cls(redis.asyncio.Redis.from_url(url, **everywhere), connections_max)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._connection.aclose()

    async def call(self, *command: Word) -> Any:
        """One command; its second word is its key.

        The library is not asked for the node: until it has heard of the commands it sends them to any, and after some
        answers that they belong elsewhere it closes every connection, also those that others are using.
        """
        with failures():
            async with self._turn:
                options = await self._route(str(command[1])) if len(command) > 1 else {}
                return await self._connection.execute_command(*command, **options)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        """One script on keys of one slot."""
        with failures():
            async with self._turn:
                options = await self._route(keys[0])
                try:
                    return await self._connection.execute_command(*script.by_name(keys, arguments), **options)
                except exceptions.NoScriptError:
                    return await self._connection.execute_command(*script.in_full(keys, arguments), **options)

    async def together(self, commands: Sequence[Command]) -> list[Any]:
        """Many commands, each with its key as the second word, in one round trip (of each node)."""
        replies = await self._pipeline([(command, str(command[1])) for command in commands])
        return _without_failures(replies)

    async def run_together(self, script: Script, calls: Sequence[ScriptCall]) -> list[Any]:
        """One script on keys of many slots. It must be one that may run twice: a cluster may be asked again."""
        replies = await self._pipeline([(script.by_name(keys, words), keys[0]) for keys, words in calls])
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if unknown:
            again = await self._pipeline([(script.in_full(*calls[at]), calls[at][0][0]) for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return _without_failures(replies)

    async def _pipeline(self, commands: Sequence[tuple[Command, str]]) -> list[Any]:
        """The replies to commands, each with a key of the slot where it belongs; failures stand among them."""
        if not commands:
            return []
        with failures():
            if self._cluster is None:
                pipeline = self._connection.pipeline(transaction=False)
            else:
                pipeline = self._connection.pipeline()
            for command, key in commands:
                pipeline.execute_command(*command, **await self._route(key))
            async with self._turn:
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
            return replies

    async def _route(self, key: str) -> dict[str, ClusterNode]:
        """The node of a key, found by its first letters: the library would compute it from every key of a script."""
        if self._cluster is None:
            return {}
        return {"target_nodes": await self._node(key)}

    async def _node(self, key: str) -> ClusterNode:
        assert self._cluster is not None
        await self._cluster.initialize()  # does nothing where the slots are known
        node: ClusterNode = self._cluster.nodes_manager.get_node_from_slot(self._cluster.keyslot(key))
        return node

    # --- the servers themselves

    async def of_each_master(self, *command: Word) -> dict[str, Any]:
        """The reply of every master, by its name."""
        with failures():
            if self._cluster is None:
                return {"": await self._connection.execute_command(*command)}
            await self._cluster.initialize()
            masters = self._cluster.get_primaries()
            return {node.name: await self._connection.execute_command(*command, target_nodes=node) for node in masters}

    async def master_of(self, key: str) -> str:
        """The name of the master that has a key."""
        with failures():
            return "" if self._cluster is None else (await self._node(key)).name

    async def keys(self, pattern: str) -> AsyncIterator[str]:
        """Every key of that pattern, from every master; for tests and repairs, as it walks over all keys."""
        with failures():
            async for key in self._connection.scan_iter(match=pattern, count=PAGE):
                yield key.decode()


def _without_failures(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise translated(reply) from reply
    return replies
