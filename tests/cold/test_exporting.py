"""A history is walked along in spans of time: all of it, in its order, whatever the gaps in it."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.staging import EventRow
from banshee_memory.tiering import exporting
from tests.cold.making import NOON_US, event, message, write
from tests.cold.test_reach import SAID_AFTER

PAGE = 3


@pytest.mark.parametrize("count", [0, 1, PAGE, 19, 20])
@pytest.mark.parametrize("lived", SAID_AFTER)
def test_a_history_is_walked_along(
    store: ColdStore, agent: UUID, lived: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_PAGE", PAGE)
    times = [NOON_US + after for after in SAID_AFTER[lived][-count:] if count]
    said = [message(agent, n, at_us=at_us) for n, at_us in enumerate(times)]
    happened = [event(agent, n, at_us=at_us) for n, at_us in enumerate(times)]
    write(store, *said, *(EventRow.of(each, {}) for each in happened))
    life = store.fetch(reads.lifespan_of(agent))
    assert list(exporting._history(store, partial(reads.messages_after, agent, PAGE), life.messages)) == said
    assert list(exporting._history(store, partial(reads.events_after, agent, PAGE), life.events)) == happened


def test_what_comes_while_it_is_walked_along_is_in_it(
    store: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_PAGE", PAGE)
    said = [message(agent, n) for n in range(8)]
    write(store, *said)
    life = store.fetch(reads.lifespan_of(agent))
    walk = exporting._history(store, partial(reads.messages_after, agent, PAGE), life.messages)
    seen = [next(walk)]
    later = message(agent, 9, at_us=NOON_US + 30 * 86_400_000_000)
    write(store, later)
    assert [*seen, *walk] == [*said, later]


def test_what_came_before_its_beginning_once_that_was_known_is_in_it(
    store: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_PAGE", PAGE)
    said = [message(agent, n) for n in range(3)]
    write(store, *said)
    life = store.fetch(reads.lifespan_of(agent))
    earlier = message(agent, 9, at_us=NOON_US - 30 * 86_400_000_000)
    write(store, earlier)
    assert list(exporting._history(store, partial(reads.messages_after, agent, PAGE), life.messages)) == [
        earlier,
        *said,
    ]
