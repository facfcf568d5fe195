"""Short forms of words and identifiers that are stored very often.

Good for: what Redis keeps for each of many millions of workloads, where a word is a byte instead of twenty.

Not good for: giving anything a meaning. ``words.txt`` is a dictionary for compression and nothing else: a word that is
not in it is stored as it is. What is stored refers to its lines by number, so it may only grow at its end.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

WORDS = tuple(resources.files(__package__ or "").joinpath("words.txt").read_text(encoding="utf-8").split())
IDENTIFIERS_CACHED = 65_536  # plans of a process' tenants: the same ones come again and again

_NUMBERS = {word: number for number, word in enumerate(WORDS)}
_HEX = bytes.fromhex
_UUID_LENGTH = 36


def abbreviate(word: str | None) -> int | str | None:
    """The number of a word, or the word itself."""
    return word if word is None else _NUMBERS.get(word, word)


def expand(short: Any) -> Any:
    """The word behind a number; whatever is no number stands for itself. ``IndexError``: written by a later version."""
    return WORDS[short] if type(short) is int else short


@lru_cache(IDENTIFIERS_CACHED)
def pack_identifier(text: str) -> str | bytes:
    """The 16 bytes of a UUID as it is usually written (in lower case, with dashes); any other identifier as it is."""
    if len(text) == _UUID_LENGTH:
        try:
            packed = _HEX(text.replace("-", ""))
        except ValueError:
            return text
        if len(packed) == 16 and unpack_identifier(packed) == text:
            return packed
    return text


@lru_cache(IDENTIFIERS_CACHED)
def unpack_identifier(packed: str | bytes) -> str:
    """The identifier that was packed."""
    if isinstance(packed, str):
        return packed
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
