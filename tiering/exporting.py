"""All that PostgreSQL has of an agent, as lines of the import format. Flush first: then that is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from uuid import UUID

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.reads import Page, Query
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.records import Placed, StoredMemory
from banshee_memory.stamps import from_us
from banshee_memory.tiering.transfer import Line, StateLine, event_line, memory_line, message_line, state_line

T = TypeVar("T")
R = TypeVar("R")
_PAGE = 1_000


def exported(agent_id: UUID, hot: HotStore, cold: ColdStore) -> Iterator[Line]:
    """The state, all messages and all events, oldest first, and the living memories by name; a page at a time."""
    yield from _state(agent_id, cold)
    life = cold.fetch(reads.lifespan_of(agent_id))
    for message in _history(cold, partial(reads.messages_after, agent_id, _PAGE), life.messages):
        yield message_line(message.record)
    for event in _history(cold, partial(reads.events_after, agent_id, _PAGE), life.events):
        yield event_line(event.record)
    yield from _memories(agent_id, hot.run(calls.now()), cold)


def _state(agent_id: UUID, cold: ColdStore) -> Iterator[StateLine]:
    # A line has one time for all emotions: that of the last write, as which every other intensity counts as well.
    stored = cold.fetch(reads.state_of(agent_id))
    if stored is not None:
        yield state_line(agent_id, stored.at(stored.updated_us))


def _memories(agent_id: UUID, now_us: int, cold: ColdStore) -> Iterator[Line]:
    def page(last: StoredMemory | None) -> Query[list[StoredMemory]]:
        return reads.memories_after(agent_id, _PAGE, now_us, last.record if last else None)

    for stored in _walk(cold, page):
        if stored.record is not None:
            yield memory_line(stored.record, from_us(now_us))


def _history(
    cold: ColdStore, page: Callable[[Placed[R] | None, int, int | None], Query[list[Placed[R]]]], life: Page[R]
) -> Iterator[Placed[R]]:
    """A history, oldest first: one span of time after the other, as long as two pages are if spread evenly, so that
    PostgreSQL need not prepare to look into all partitions that follow. The first and the last are open: what lies
    there may have come since."""
    width_us = 2 * _PAGE * (life.last_us - life.first_us) // max(life.total, 1) + 1
    since_us, until_us = 0, life.first_us + width_us
    while until_us < life.last_us:
        yield from _walk(cold, _within(page, since_us, until_us))
        since_us, until_us = until_us + 1, until_us + 1 + width_us
    yield from _walk(cold, _within(page, since_us, None))


def _within(
    page: Callable[[Placed[R] | None, int, int | None], Query[list[Placed[R]]]], since_us: int, until_us: int | None
) -> Callable[[Placed[R] | None], Query[list[Placed[R]]]]:
    return lambda last: page(last, since_us, until_us)


def _walk(cold: ColdStore, page: Callable[[T | None], Query[list[T]]]) -> Iterator[T]:
    """Page after page; one that is not full is the last."""
    last: T | None = None
    while True:
        found = cold.fetch(page(last))
        yield from found
        if len(found) < _PAGE:
            return
        last = found[-1]
