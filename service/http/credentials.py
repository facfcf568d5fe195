"""Secrets of API clients: made here, shown once, and kept as a hash."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SECRET_BYTES = 32
AT_ONCE_MAX = 2  # hashes that are worked out at the same time; each takes memory and a core

# A secret has 256 random bits, so what OWASP asks for at least is enough; it takes about 20 ms.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_NOBODY = _HASHER.hash(secrets.token_urlsafe(SECRET_BYTES))
_gate = asyncio.Semaphore(AT_ONCE_MAX)


def make(seed: bytes | None = None, what: str = "") -> str:
    """A new secret; with a ``seed`` that nobody else knows, the same one for the same ``what``."""
    if seed is None:
        return secrets.token_urlsafe(SECRET_BYTES)
    digest = hmac.new(seed, what.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


async def hash_of(secret: str) -> str:
    """What is kept of a secret."""
    async with _gate:
        return await asyncio.to_thread(_HASHER.hash, secret)


async def matches(secret: str, hashed: str | None) -> bool:
    """Whether it is the secret behind the hash; without one it takes as long, so that nobody learns who exists."""
    async with _gate:
        return await asyncio.to_thread(_matches, secret, hashed or _NOBODY) and hashed is not None


def _matches(secret: str, hashed: str) -> bool:
    try:
        return _HASHER.verify(hashed, secret)
    except (VerificationError, InvalidHashError):
        return False
