"""What instances leave for each other in Redis, beside the ledger: who lives, what was read again or sent again.

Nothing here decides anything: the board may be empty or old, and only work is done twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from service.ledger.client import Client

INSTANCES = "instances"  # instance -> what it says of itself
REWOUND = "rewound"  # partition -> the incarnation of Redis since which it has been read again
REDRIVEN = "redriven"  # id of a dead letter -> when it was sent again, in Unix milliseconds


class Board:
    """Hashes of text in Redis. Raises ``LedgerUnavailable`` where Redis does not answer."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def now_ms(self) -> int:
        """The clock of Redis, which all instances share; of several masters, the one that is ahead."""
        clocks = (await self._client.of_each_master("TIME")).values()
        return max(int(seconds) * 1000 + int(microseconds) // 1000 for seconds, microseconds in clocks)

    async def set(self, name: str, values: Mapping[str, str]) -> None:
        """Set some fields."""
        if values:
            await self._client.call("HSET", name, *[word for pair in values.items() for word in pair])

    async def get(self, name: str) -> dict[str, str]:
        """All fields."""
        fields = await self._client.call("HGETALL", name)
        return {field.decode(): value.decode() for field, value in fields.items()}

    async def remove(self, name: str, *fields: str) -> None:
        """Remove some fields."""
        if fields:
            await self._client.call("HDEL", name, *fields)
