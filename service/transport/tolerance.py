"""Records whose header names are no text, which Kafka takes and its client here cannot read.

The client raises in the middle of a poll: the partition would never get past the record, and what it had already taken
from other partitions would be dropped. So a batch in which that happens is read again by the client's slower reader in
Python, with the bytes that are no UTF-8 written as ``\\xNN``. Every other batch is read as before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8  # behind the base offset
_LENGTH_COVERS_FROM = 12


def install() -> None:
    """Have every consumer of this process read so; the client has no other place for it."""
    fetcher.MemoryRecords = TolerantRecords


class TolerantRecords:
    """In the place of the client's class of the same methods: the batches in one answer of a broker."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records: Any = MemoryRecords(data)
        self._position = 0

    def size_in_bytes(self) -> int:
        """The size of all batches."""
        size: int = self._records.size_in_bytes()
        return size

    def has_next(self) -> bool:
        """Whether there is another batch."""
        found: bool = self._records.has_next()
        return found

    def next_batch(self) -> Any:
        """The next batch, or None."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        begin = self._position
        length: int = _LENGTH.unpack_from(self._data, begin + _LENGTH_AT)[0]
        self._position = begin + _LENGTH_COVERS_FROM + length
        return _Batch(batch, self._data, begin, self._position)


class _Batch:
    """A batch as the client reads it, and where its bytes are."""

    def __init__(self, batch: Any, data: bytes, begin: int, end: int) -> None:
        self._batch = batch
        self._data = data
        self._begin = begin
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            for record in self._batch:
                yield record
                count += 1
        except UnicodeDecodeError:
            for number, record in enumerate(self._read_slowly()):
                if number >= count:
                    yield record

    def _read_slowly(self) -> Any:
        batch = _DefaultRecordBatchPy(self._data[self._begin : self._end])
        batch._maybe_uncompress()
        batch._buffer = _TolerantBytes(batch._buffer)
        return batch


class _TolerantBytes(bytearray):
    """Bytes of which every part can be text."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _TolerantBytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        """The text, with ``\\xNN`` for what is none."""
        return super().decode(encoding, errors)
