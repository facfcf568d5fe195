"""Records as Kafka may hold them, read without ever raising because of the name of a header."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from service.transport.tolerance import TolerantRecords

GZIP = 1


def build(*names: str, compression: int = 0, damage: bool = True) -> bytes:
    """A batch with a record for each header name; where damaged, ``??`` in names is what no text has."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1_000_000)
    for number, name in enumerate(names):
        builder.append(number, 1000 + number, b"key", f"value-{number}".encode(), [(name, b"1"), ("empty", None)])
    plain = bytes(builder.build())
    return plain.replace(b"??", b"\xff\xfe") if damage else plain


def read(data: bytes) -> list[tuple[int, bytes, list[tuple[str, bytes | None]]]]:
    records = TolerantRecords(data)
    found = []
    while records.has_next():
        batch = records.next_batch()
        found += [(record.offset, record.value, list(record.headers)) for record in batch]
    return found


def test_batches_that_are_text_are_read_as_the_client_reads_them() -> None:
    data = build("a", "b") + build("c")
    records = MemoryRecords(data)
    plain = []
    while records.has_next():
        plain += [(record.offset, record.value, list(record.headers)) for record in records.next_batch()]
    assert read(data) == plain
    assert TolerantRecords(data).size_in_bytes() == len(data)


@pytest.mark.parametrize("names", [("??",), ("a", "x??y", "b"), ("??", "??", "c"), ("a", "b", "??")])
def test_a_header_name_that_is_no_text_is_shown_and_stops_no_record(names: tuple[str, ...]) -> None:
    found = read(build("before") + build(*names) + build("behind"))
    assert [headers[0][0] for _, _, headers in found] == [
        "before",
        *(name.replace("??", "\\xff\\xfe") for name in names),
        "behind",
    ]
    assert [value for _, value, _ in found][1:-1] == [f"value-{number}".encode() for number in range(len(names))]
    assert all(headers[1] == ("empty", None) for _, _, headers in found)


def test_what_the_client_says_of_a_batch_stays() -> None:
    batch = TolerantRecords(build("a", "b")).next_batch()
    assert batch.validate_crc() and batch.next_offset == 2 and not batch.is_control_batch


def test_the_end_of_an_answer_is_no_batch() -> None:
    records = TolerantRecords(build("a")[:-3])
    assert not records.has_next() and records.next_batch() is None
