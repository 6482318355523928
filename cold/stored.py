"""What is stored of given rows: for whoever wrote some and compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from banshee_memory.cold.reads import Query
from banshee_memory.cold.rows import Row, event_record, memory_record, message_record, state_record
from banshee_memory.cold.staging import AnyRow, EventRow, MemoryRow, MessageRow, StateRow
from banshee_memory.stamps import from_us

Key = tuple[Any, ...]


def key_of(row: AnyRow) -> Key:
    """What a row is found by."""
    match row:
        case MessageRow() | EventRow():
            return row.agent_id, row.placed.at_us, row.placed.record.id
        case MemoryRow():
            return row.agent_id, row.memory_type, row.key
        case _:
            return (row.agent_id,)


def content_of(row: AnyRow) -> Any:
    """What of a row must be equal: all but how often a memory was read."""
    match row:
        case MessageRow() | EventRow():
            return row.placed
        case MemoryRow():
            record = row.memory.record
            return record and (
                record.id,
                record.data,
                record.importance,
                record.tags,
                record.created_at,
                record.expires_at,
            )
        case StateRow():
            return row.state
        case _:
            return None


def like(kind: str, rows: Sequence[AnyRow]) -> Query[dict[Key, AnyRow]]:
    """Those rows as they are stored, by their keys; without those that are not there."""
    name, decode = _KINDS[kind]
    keys = [key_of(row) for row in rows]
    params: dict[str, Any] = {"agents": [key[0] for key in keys]}
    if kind in {"messages", "events"}:
        times = [from_us(key[1]) for key in keys]
        params |= {"times": times, "ids": [key[2] for key in keys], "since": min(times), "until": max(times)}
    elif kind in {"memories", "sessions"}:
        params |= {"types": [key[1] for key in keys], "keys": [key[2] for key in keys]}

    def decoded(found: Sequence[Row]) -> dict[Key, AnyRow]:
        return {key_of(row): row for row in (decode(agent, tuple(values)) for agent, *values in found)}

    return Query(name, params, decoded)


def _message(agent: UUID, row: Row) -> AnyRow:
    return MessageRow.of(message_record(agent, row))


def _event(agent: UUID, row: Row) -> AnyRow:
    return EventRow.of(event_record(agent, row), {})


def _memory(agent: UUID, row: Row) -> AnyRow:
    return MemoryRow.of(agent, row[0], row[1], memory_record(agent, row, 0))


def _state(agent: UUID, row: Row) -> AnyRow:
    return StateRow.of(agent, state_record(row))


_KINDS: dict[str, tuple[str, Callable[[UUID, Row], AnyRow]]] = {
    "messages": ("stored_messages", _message),
    "events": ("stored_events", _event),
    "states": ("stored_states", _state),
    "memories": ("stored_memories", _memory),
    "sessions": ("stored_memories", _memory),
}
