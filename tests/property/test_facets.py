"""Stamps are bytes; what they say and which one counts is as if they were not (docs/contracts.md 1)."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from service.rules import facets


class Said(NamedTuple):
    """What a stamp is made from."""

    source: str
    id: str
    time_us: int
    sequence: int | None

    def stamp(self) -> facets.Stamp:
        return facets.stamp(*self)

    def supersedes(self, recorded: Said) -> bool:
        """The rule of the contract, in plain words."""
        if self.source == recorded.source:
            if self.id == recorded.id:
                return False
            if self.sequence is not None and recorded.sequence is not None:
                return self.sequence >= recorded.sequence
        return self.time_us >= recorded.time_us


small = st.integers(0, 3)
edges = st.sampled_from([0, 127, 128, 255, 256, 65_535, 65_536, 2**53 - 1])
said = st.builds(Said, st.sampled_from("ab"), st.sampled_from("xyz"), small | edges, st.none() | small | edges)


@given(said, said)
def test_which_news_count_follows_from_what_was_said(news: Said, recorded: Said) -> None:
    assert facets.supersedes(news.stamp(), recorded.stamp()) is news.supersedes(recorded)
    assert facets.supersedes(news.stamp(), None)


@given(said, said)
def test_what_is_always_the_newest_keeps_all_but_a_time_before_the_recorded_one(news: Said, recorded: Said) -> None:
    latest = max(news.time_us, recorded.time_us)
    assert facets.newest(news.stamp(), recorded.stamp()) == news._replace(time_us=latest).stamp()
    assert facets.newest(news.stamp(), None) == news.stamp()


@given(said, said)
def test_a_stamp_tells_its_time_and_its_event(one: Said, other: Said) -> None:
    assert facets.time_us(one.stamp()) == one.time_us
    same = (one.source, one.id) == (other.source, other.id)
    assert (facets.event_digest(one.stamp()) == facets.event_digest(other.stamp())) is same
