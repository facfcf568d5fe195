"""How much one caller may ask for: so many requests per second on average, with a burst of a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from service.http.errors import ApiError

BURST_SECONDS = 2.0
KNOWN_MAX = 100_000  # callers that are remembered; who is forgotten begins with a full burst


class Rates:
    """Counts callers of one instance; 0 requests per second is no limit."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def spend(self, caller: str, cost: float = 1.0) -> None:
        """One more request. Raises ``ApiError`` (429), which says when to come again."""
        if not self._per_second:
            return
        now = self._clock()
        left, then = self._left.get(caller, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        if left < cost:
            self._left[caller] = (left, now)
            seconds = math.ceil((cost - left) / self._per_second)
            raise ApiError(429, "429", "There are too many requests.", headers={"Retry-After": str(seconds)})
        if len(self._left) >= KNOWN_MAX:
            self._left.clear()
        self._left[caller] = (left - cost, now)
