"""The rows of a flush, and how they go into the staging tables: as binary COPY takes them, fields in the tables' order.

Every int travels as int8 into an int8 column: binary COPY of a number into a smaller type stores garbage without an
error. A time travels as int8 as well: binary timestamptz is µs since 2000. JSON travels as bytes after the version byte
of jsonb. (Packing whole rows in Python was tried: it is slower than the driver's `write_row`.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from banshee_memory.cold.codec import POSTGRES_EPOCH_US, to_json
from banshee_memory.emotions import Before, Emotion, StoredState
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEventRecord,
    Json,
    MemoryRecord,
    Placed,
    StoredMemory,
)
from banshee_memory.stamps import from_us, stamp_us, to_us

_LATEST = to_us(datetime.max.replace(tzinfo=UTC))
_EARLIEST = to_us(datetime.min.replace(tzinfo=UTC))
_JSONB_VERSION = b"\1"


Encoded = tuple[Any, ...]


class MessageRow(msgspec.Struct, frozen=True):
    """A message in its place."""

    agent_id: UUID
    stamp: int
    placed: Placed[ConversationMessage]

    @classmethod
    def of(cls, placed: Placed[ConversationMessage]) -> MessageRow:
        """The row of that message."""
        return cls(placed.record.agent_id, placed.stamp, placed)


class EventRow(msgspec.Struct, frozen=True):
    """An event in its place, the whole state after it, and the one before it where that is known."""

    agent_id: UUID
    stamp: int
    placed: Placed[EmotionalEventRecord]
    emotions_after: dict[Emotion, float]
    before: Before | None = None

    @classmethod
    def of(
        cls, placed: Placed[EmotionalEventRecord], emotions_after: dict[Emotion, float], before: Before | None = None
    ) -> EventRow:
        """The row of that event."""
        return cls(placed.record.agent_id, placed.stamp, placed, emotions_after, before)


class StateRow(msgspec.Struct, frozen=True):
    """What an agent feels."""

    agent_id: UUID
    stamp: int
    state: StoredState

    @classmethod
    def of(cls, agent_id: UUID, state: StoredState) -> StateRow:
        """The row of that agent's state."""
        return cls(agent_id, state.stamp, state)


class MemoryRow(msgspec.Struct, frozen=True):
    """A memory, or that it was deleted: then its `record` is None."""

    agent_id: UUID
    stamp: int
    memory_type: str
    key: str
    memory: StoredMemory

    @classmethod
    def of(cls, agent_id: UUID, memory_type: str, key: str, memory: StoredMemory) -> MemoryRow:
        """The row of that agent's memory."""
        return cls(agent_id, memory.stamp, memory_type, key, memory)


class AmendmentRow(msgspec.Struct, frozen=True):
    """Another emotional context for a message that is stored, or comes before it in the same batch."""

    agent_id: UUID
    stamp: int
    message_id: UUID
    at_us: int
    emotional_context: Json


AnyRow = MessageRow | EventRow | StateRow | MemoryRow | AmendmentRow


class ReplyRow(NamedTuple):
    """What a call with an idempotency key was answered, as Redis keeps it."""

    agent_id: UUID
    function: str
    key: bytes
    shard: int
    stamp: int
    reply: bytes


@dataclass(slots=True)
class Batch:
    """What one write carries. A key may come more than once: the newest counts."""

    messages: list[MessageRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    states: list[StateRow] = field(default_factory=list)
    memories: list[MemoryRow] = field(default_factory=list)
    amendments: list[AmendmentRow] = field(default_factory=list)
    is_doubtful: bool = False
    """Whether messages or events may be stored already under other stamps."""

    def rows(self) -> list[AnyRow]:
        """All of it, kind by kind; amendments after what they amend."""
        return [*self.messages, *self.events, *self.states, *self.memories, *self.amendments]

    def __len__(self) -> int:
        return len(self.rows())

    def parted(self) -> tuple[Batch, Batch]:
        """Messages and events, which never change; and all else, which can lose against what is newer."""
        histories = Batch(self.messages, self.events, is_doubtful=self.is_doubtful)
        return histories, Batch(states=self.states, memories=self.memories, amendments=self.amendments)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches that hold, each about half of it, what this one does."""
        rows = self.rows()
        half = len(rows) // 2
        return _batch(rows[:half], self.is_doubtful), _batch(rows[half:], self.is_doubtful)


def _batch(rows: Sequence[AnyRow], is_doubtful: bool) -> Batch:
    return Batch(
        [row for row in rows if isinstance(row, MessageRow)],
        [row for row in rows if isinstance(row, EventRow)],
        [row for row in rows if isinstance(row, StateRow)],
        [row for row in rows if isinstance(row, MemoryRow)],
        [row for row in rows if isinstance(row, AmendmentRow)],
        is_doubtful,
    )


class Copy(NamedTuple):
    """The COPY of a kind of rows: its statement, the types that it sends, and the rows, each encoded when it is taken.

    Encoding, or sending what was encoded, raises ValueError, OverflowError or the like for a row that cannot be.
    """

    statement: str
    types: tuple[str, ...]
    rows: Iterator[Encoded]


def copies(batch: Batch) -> list[Copy]:
    """What there is to copy."""
    kinds = (
        (batch.messages, Copy("stage_messages", _MESSAGE_TYPES, map(_message, batch.messages))),
        (batch.events, Copy("stage_events", _EVENT_TYPES, map(_event, batch.events))),
        (batch.states, Copy("stage_states", _STATE_TYPES, map(_state, batch.states))),
        (batch.memories, Copy("stage_memories", _MEMORY_TYPES, map(_memory, batch.memories))),
    )
    return [copy for rows, copy in kinds if rows]


def direct_copies(batch: Batch) -> list[Copy]:
    """What of it can go straight to where it belongs: histories, of which a row never changes."""
    kinds = (
        (batch.messages, Copy("copy_messages", _MESSAGE_TYPES, map(_message, batch.messages))),
        (batch.events, Copy("copy_events", _EVENT_TYPES, map(_event, batch.events))),
    )
    return [copy for rows, copy in kinds if rows]


_MESSAGE_TYPES = ("uuid", "int8", "int8", "uuid", "text", "text", "bytea", "bytea", "int8", "uuid")
_EVENT_TYPES = (
    *("uuid", "int8", "int8", "uuid", "text", "bytea", "text", "bytea", "bytea", "bytea"),
    *("float8", "float8", "float8", "float8", "float8", "float8", "uuid", "int8"),
    *("bytea", "bool"),
)
_STATE_TYPES = ("uuid", "bytea", "bytea", "bytea", "int8", "int8", "text", "int8", "int8")
_MEMORY_TYPES = (
    *("uuid", "text", "text", "bytea", "float8", "int8"),
    *("int8", "int8", "int8", "int8", "text[]", "int8", "bool"),
)


def _message(row: MessageRow) -> Encoded:
    said = row.placed.record
    return (
        said.agent_id,
        _time(row.placed.at_us),
        row.placed.stamp,
        said.id,
        said.role,
        said.content,
        _optional_jsonb(said.metadata),
        _optional_jsonb(said.emotional_context),
        said.tokens_used,
        said.session_id,
    )


def _event(row: EventRow) -> Encoded:
    at, stamp, happened = row.placed.at_us, row.placed.stamp, row.placed.record
    return (
        happened.agent_id,
        _time(at),
        stamp,
        happened.id,
        happened.event_type,
        _jsonb(happened.event),
        happened.mode,
        _jsonb(happened.resulting_emotions),
        _jsonb(row.emotions_after),
        _optional_jsonb(happened.context_factors),
        happened.valence,
        happened.arousal,
        happened.intensity,
        happened.valence_delta,
        happened.arousal_delta,
        happened.intensity_delta,
        happened.session_id,
        _time(to_us(happened.created_at)),
        _optional_jsonb(row.before),
        at // 1_000 != stamp >> 16,
    )


def _state(row: StateRow) -> Encoded:
    state = row.state
    return (
        row.agent_id,
        _jsonb({emotion: felt.intensity for emotion, felt in state.felt.items()}),
        _jsonb({emotion: felt.at_us for emotion, felt in state.felt.items()}),
        _jsonb(state.rates),
        _time(state.updated_us),
        state.stamp,
        state.absence,
        state.paused_us,
        None if state.away_us is None else _time(state.away_us),
    )


def _memory(row: MemoryRow) -> Encoded:
    stamp, record = row.memory.stamp, row.memory.record
    name = (row.agent_id, row.memory_type, row.key)
    if record is None:
        deleted_at = _time(stamp_us(stamp))
        return (*name, None, 0.0, 0, deleted_at, deleted_at, deleted_at, None, [], stamp, True)
    return (*name, *_remembered(record), stamp, False)


def _remembered(record: MemoryRecord) -> Encoded:
    return (
        _jsonb(record.data),
        record.importance,
        record.access_count,
        _time(to_us(record.last_accessed)),
        _time(to_us(record.created_at)),
        _time(to_us(record.updated_at)),
        None if record.expires_at is None else _time(to_us(record.expires_at)),
        list(record.tags),
    )


def _time(at_us: int) -> int:
    if not _EARLIEST <= at_us <= _LATEST:
        raise OverflowError(f"{at_us} µs since 1970 is outside of the years 1 to 9999")
    return at_us - POSTGRES_EPOCH_US


def _jsonb(value: Json) -> bytes:
    return _JSONB_VERSION + to_json(value)


def _optional_jsonb(value: Json) -> bytes | None:
    return None if value is None else _JSONB_VERSION + to_json(value)


def span_of(rows: Sequence[MessageRow] | Sequence[EventRow]) -> dict[str, datetime]:
    """Between which times they lie."""
    times = [row.placed.at_us for row in rows]
    return {"since": from_us(min(times)), "until": from_us(max(times))}


def amendment_parameters(rows: Sequence[AmendmentRow]) -> dict[str, Any]:
    """What `amend_messages` takes: columns, and between which times the messages lie."""
    times = [from_us(row.at_us) for row in rows]
    return {
        "since": min(times),
        "until": max(times),
        "agents": [row.agent_id for row in rows],
        "times": times,
        "ids": [row.message_id for row in rows],
        "stamps": [row.stamp for row in rows],
        "contexts": [_text(row.emotional_context) for row in rows],
    }


def _text(value: Json) -> str | None:
    return None if value is None else to_json(value).decode()


class _Growth(msgspec.Struct):
    """What an agent's totals grow by; times in µs since 1970."""

    agent: UUID
    stamp: int = 0
    user: int = 0
    assistant: int = 0
    system: int = 0
    function: int = 0
    tool: int = 0
    tokens: int = 0
    events: int = 0
    first: int | None = None
    last: int | None = None
    first_event: int | None = None
    last_event: int | None = None


def growth_of(batch: Batch) -> str:
    """What `grow_agents` takes, if all messages and events of the batch are new: JSON, an object an agent."""
    grown: dict[UUID, _Growth] = {}
    for row in batch.messages:
        growth = grown.get(row.agent_id) or grown.setdefault(row.agent_id, _Growth(row.agent_id))
        at_us, stamp, said = row.placed.at_us, row.placed.stamp, row.placed.record
        growth.stamp = max(growth.stamp, stamp)
        if growth.first is None or at_us < growth.first:
            growth.first = at_us
        if growth.last is None or at_us > growth.last:
            growth.last = at_us
        setattr(growth, said.role, getattr(growth, said.role) + 1)
        growth.tokens += said.tokens_used or 0
    for event in batch.events:
        growth = grown.get(event.agent_id) or grown.setdefault(event.agent_id, _Growth(event.agent_id))
        growth.stamp = max(growth.stamp, event.stamp)
        growth.events += 1
        at_us = event.placed.at_us
        if growth.first_event is None or at_us < growth.first_event:
            growth.first_event = at_us
        if growth.last_event is None or at_us > growth.last_event:
            growth.last_event = at_us
    return msgspec.json.encode(list(grown.values())).decode()
