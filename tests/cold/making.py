"""Records for the tests of the cold tier, with places that follow each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import AmendmentRow, Batch, EventRow, MemoryRow, MessageRow, StateRow, Written
from banshee_memory.cold.staging import AnyRow
from banshee_memory.emotions import Emotion, Felt, StoredState
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEventRecord,
    MemoryRecord,
    Placed,
    StoredMemory,
    UserFeedback,
    memory_id,
)
from banshee_memory.stamps import from_us, record_id, to_us

Row = AnyRow | Placed[ConversationMessage]
NOON = datetime(2026, 3, 4, 12, 0, 0, 123_457, tzinfo=UTC)  # a Wednesday, to the microsecond
NOON_US = to_us(NOON)


def stamp(number: int) -> int:
    return (NOON_US // 1_000 + number) << 16


def message(agent: UUID, number: int = 0, content: str = "Hello", **fields: Any) -> Placed[ConversationMessage]:
    at_us = fields.pop("at_us", NOON_US + number * 1_000_003)
    own = {"role": "user", "metadata": None, "emotional_context": None, "tokens_used": None, "session_id": None}
    record = ConversationMessage(
        id=fields.pop("id", record_id(stamp(number), (number % 2**32).to_bytes(8, "big"), at_us)),
        agent_id=agent,
        content=content,
        created_at=from_us(at_us),
        **{**own, **fields},
    )
    return Placed(at_us, stamp(number), record)


def event(agent: UUID, number: int = 0, **fields: Any) -> Placed[EmotionalEventRecord]:
    at_us = fields.pop("at_us", NOON_US + number * 1_000_003)
    happened = fields.pop("event", UserFeedback(sentiment=0.1 + 0.2, specificity=1e-300, is_constructive=True))
    own = {"resulting_emotions": {Emotion.JOY: 0.1 + 0.2}, "context_factors": None, "mode": "set"}
    record = EmotionalEventRecord(
        id=record_id(stamp(number), (number + 2**32).to_bytes(8, "big"), at_us),
        agent_id=agent,
        event_type=happened.event_type,
        event=happened,
        valence=1.0,
        arousal=0.1 + 0.2,
        intensity=0.7,
        valence_delta=-0.0,
        arousal_delta=5e-324,
        intensity_delta=-0.7,
        occurred_at=from_us(at_us),
        created_at=from_us(at_us + 7),
        **{**own, **fields},
    )
    return Placed(at_us, stamp(number), record)


def state(number: int = 0, **felt: float) -> StoredState:
    values = felt or {"joy": 0.1 + 0.2, "fear_confirmed": 1 / 3}
    pairs = {Emotion(name): Felt(value, NOON_US + i) for i, (name, value) in enumerate(values.items())}
    return StoredState(pairs, {Emotion.LOVE: 1e-7}, NOON_US + number, stamp(number))


def memory(agent: UUID, number: int = 0, **fields: Any) -> StoredMemory:
    own: dict[str, Any] = {
        "memory_type": "fact",
        "key": "colour",
        "data": {"is": "green"},
        "importance": 0.55,
        "access_count": 0,
        "last_accessed": from_us(NOON_US + 1),
        "created_at": from_us(NOON_US),
        "updated_at": from_us(NOON_US + 2),
        "expires_at": None,
        "tags": (),
    }
    own.update(fields)
    record = MemoryRecord(id=memory_id(agent, own["memory_type"], own["key"]), agent_id=agent, **own)
    return StoredMemory(stamp(number), record)


def memory_row(agent: UUID, stored: StoredMemory) -> MemoryRow:
    assert stored.record is not None
    return MemoryRow.of(agent, stored.record.memory_type, stored.record.key, stored)


def tombstone(agent: UUID, number: int, memory_type: str = "fact", key: str = "colour") -> MemoryRow:
    return MemoryRow.of(agent, memory_type, key, StoredMemory(stamp(number), None))


def batch_of(*rows: Row) -> Batch:
    batch = Batch()
    for row in rows:
        match row:
            case EventRow():
                batch.events.append(row)
            case StateRow():
                batch.states.append(row)
            case MemoryRow():
                batch.memories.append(row)
            case MessageRow():
                batch.messages.append(row)
            case AmendmentRow():
                batch.amendments.append(row)
            case placed:
                batch.messages.append(MessageRow.of(placed))
    return batch


def write(store: ColdStore, *rows: Row) -> Written:
    with store.drain([0]) as drain:
        assert list(drain.held) == [0]
        return drain.write(batch_of(*rows))
