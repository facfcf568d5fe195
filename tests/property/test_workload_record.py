"""The short form of a workload's record: it loses nothing, it stays short, and what was stored once stays readable."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service import catalog, compact, records, workload
from service.rules import facets
from service.workload import Link, Workload

KEY = records.workload_key("t", "w")
WORDS_FIRST = 231  # the dictionary as it was when it was first stored by; see the test below
DIGEST_OF_THE_FIRST = "a4ad56ee"

words = st.sampled_from(compact.WORDS) | st.text(max_size=20)
uuids = st.uuids().map(str)
identifiers = (
    uuids | uuids.map(str.upper) | st.text(max_size=40) | st.text("0123456789abcdef-", min_size=36, max_size=36)
)
numbers = st.integers(0, 2**53 - 1)
stamps = st.builds(facets.stamp, st.text(max_size=5), st.text(max_size=5), numbers, st.none() | numbers)
quantities = st.dictionaries(words, numbers, max_size=4)
links = st.builds(Link, st.booleans(), stamps, numbers | st.just(0))
workloads = st.builds(
    Workload,
    type=st.none() | words,
    stamp=st.none() | stamps,
    os=st.none() | words,
    os_family=st.none() | words,
    virtual=st.booleans(),
    links=st.dictionaries(identifiers, links, max_size=4),
    holding=quantities,
    uncovered=st.lists(words, max_size=4).map(tuple),
    waiting=st.booleans(),
    announced=numbers,
    gauges=quantities,
    counted=quantities,
    usage_stamp=st.none() | stamps,
    removed_at_us=st.just(-1) | numbers,
    name=st.none() | st.text(max_size=20),
)


@given(workloads, st.booleans())
@example(record=Workload(), counted_as_reported=False)
def test_a_record_comes_back_as_it_was(record: Workload, counted_as_reported: bool) -> None:
    if counted_as_reported:
        counted = {f"item {number}": quantity for number, quantity in enumerate(record.gauges.values())}
        record = msgspec.structs.replace(record, counted=counted)
    back = records.decode(KEY, records.encode(record))
    assert back == record
    assert list(map(type, msgspec.structs.astuple(back))) == list(map(type, msgspec.structs.astuple(record)))


def test_a_record_of_the_usual_size_is_short() -> None:
    def stamp(number: int) -> facets.Stamp:
        return facets.stamp("/agents", f"event {number}", 1_800_000_000_000_000 + number, None)

    record = Workload(
        type="workstation",
        stamp=stamp(1),
        os="desktop",
        os_family="windows",
        links={str(uuid.UUID(int=2**127 + number)): Link(applied=True, stamp=stamp(number)) for number in (2, 3)},
        holding={"pw_base_workstations": 1_800_000_000_000, "pw_pack_adv_management": 1_800_000_100_000},
        announced=2,
        gauges={"storage_bytes": 2**38, "local_storage_bytes": 2**36},
        counted={"pw_base_storage": 2**38, "local_storage": 2**36},
        usage_stamp=stamp(4),
    )
    assert len(records.encode(record)) <= 172


@pytest.mark.parametrize("payload", [[0, b""], [2, b""], {"format": 1}, []])
def test_a_record_of_another_format_is_refused(payload: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        workload.decode(msgspec.msgpack.encode(payload))


@given(identifiers)
def test_an_identifier_comes_back_as_it_was(identifier: str) -> None:
    assert compact.unpack_identifier(compact.pack_identifier(identifier)) == identifier


@given(uuids)
def test_a_uuid_takes_sixteen_bytes(identifier: str) -> None:
    assert compact.pack_identifier(identifier) == uuid.UUID(identifier).bytes


def test_the_dictionary_has_every_word_once_and_all_of_the_catalogue() -> None:
    """A word that is missing costs memory and nothing else: put it at the end."""
    built_in = catalog.load()
    assert len(set(compact.WORDS)) == len(compact.WORDS)
    assert {*built_in.items, *built_in.features, *built_in.workload_types} <= set(compact.WORDS)


def test_the_dictionary_has_only_grown_at_its_end() -> None:
    """What is stored refers to words by their number: another word in its place changes what is stored."""
    first = "\n".join(compact.WORDS[:WORDS_FIRST])
    assert hashlib.sha256(first.encode()).hexdigest()[:8] == DIGEST_OF_THE_FIRST
