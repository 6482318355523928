"""All that PostgreSQL has of an agent, as lines of the import format. Flush first: then that is all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import UUID

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.reads import Query
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.records import StoredMemory
from banshee_memory.stamps import from_us
from banshee_memory.tiering.transfer import Line, StateLine, event_line, memory_line, message_line, state_line

T = TypeVar("T")
_PAGE = 1_000


def exported(agent_id: UUID, hot: HotStore, cold: ColdStore) -> Iterator[Line]:
    """The state, all messages and all events, oldest first, and the living memories by name; a page at a time."""
    yield from _state(agent_id, cold)
    for message in _walk(cold, lambda last: reads.messages_after(agent_id, _PAGE, last)):
        yield message_line(message.record)
    for event in _walk(cold, lambda last: reads.events_after(agent_id, _PAGE, last)):
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


def _walk(cold: ColdStore, page: Callable[[T | None], Query[list[T]]]) -> Iterator[T]:
    last: T | None = None
    while found := cold.fetch(page(last)):
        yield from found
        last = found[-1]
