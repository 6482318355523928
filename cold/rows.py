"""Records from the rows of `queries.sql`, whose columns they name in their order; JSON as binary results have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from banshee_memory.cold.codec import POSTGRES_EPOCH_US, from_jsonb, json_said
from banshee_memory.emotions import Before, Emotion, Felt, StoredState
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEvent,
    EmotionalEventRecord,
    MemoryRecord,
    Placed,
    StoredMemory,
    memory_id,
)
from banshee_memory.stamps import times_of, to_us
from banshee_memory.timeline import Deed

Row = tuple[Any, ...]

_numbers = msgspec.json.Decoder(dict[Emotion, float]).decode
_times = msgspec.json.Decoder(dict[Emotion, int]).decode
_event = msgspec.json.Decoder(EmotionalEvent).decode
_before = msgspec.json.Decoder(Before).decode


def numbers(sent: bytes) -> dict[Emotion, float]:
    """Emotions with their intensities, or their rates."""
    return _numbers(sent[1:])


def message_records(agent: UUID, rows: Sequence[Row]) -> list[Placed[ConversationMessage]]:
    """Messages from their rows. Of reading a page this takes the most time on this side."""
    micros = [row[7] + POSTGRES_EPOCH_US for row in rows]
    return [
        Placed(
            at_us,
            stamp,
            ConversationMessage(
                id=message,
                agent_id=agent,
                role=role,
                content=content,
                metadata=None if metadata is None else json_said(metadata[1:]),
                emotional_context=None if context is None else json_said(context[1:]),
                tokens_used=tokens,
                session_id=session,
                created_at=at,
            ),
        )
        for (message, role, content, metadata, context, tokens, session, _, stamp), at_us, at in zip(
            rows, micros, times_of(micros), strict=True
        )
    ]


def message_record(agent: UUID, row: Row) -> Placed[ConversationMessage]:
    """A message from its row."""
    return message_records(agent, [row])[0]


def event_record(agent: UUID, row: Row) -> Placed[EmotionalEventRecord]:
    """An event from its row."""
    (event, kind, data, named, context, *measures, occurred_at, created_at, session, mode, stamp) = row
    valence, arousal, intensity, valence_delta, arousal_delta, intensity_delta = measures
    record = EmotionalEventRecord(
        id=event,
        agent_id=agent,
        event_type=kind,
        event=_event(data[1:]),
        resulting_emotions=numbers(named),
        context_factors=from_jsonb(context),
        valence=valence,
        arousal=arousal,
        intensity=intensity,
        valence_delta=valence_delta,
        arousal_delta=arousal_delta,
        intensity_delta=intensity_delta,
        occurred_at=occurred_at,
        created_at=created_at,
        session_id=session,
        mode=mode,
    )
    return Placed(to_us(occurred_at), stamp, record)


def deed_record(agent: UUID, row: Row) -> Deed:
    """What an event did, from its row."""
    *event, after, before = row
    return Deed.of(event_record(agent, tuple(event)), numbers(after), None if before is None else _before(before[1:]))


def memory_record(agent: UUID, row: Row, now_us: int) -> StoredMemory:
    """A memory from its row; its `record` is None where it was deleted or has expired."""
    kind, key, data, importance, count, accessed, created, updated, expires, tags, stamp, deleted = row
    if deleted or (expires is not None and to_us(expires) <= now_us):
        return StoredMemory(stamp, None)
    record = MemoryRecord(
        id=memory_id(agent, kind, key),
        agent_id=agent,
        memory_type=kind,
        key=key,
        data=from_jsonb(data),
        importance=importance,
        access_count=count,
        last_accessed=accessed,
        created_at=created,
        updated_at=updated,
        expires_at=expires,
        tags=tuple(tags),
    )
    return StoredMemory(stamp, record)


def state_record(row: Row) -> StoredState:
    """A state from its row."""
    emotions, felt_at, rates, updated, stamp, absence, paused_us, away = row
    times = _times(felt_at[1:])
    felt = {emotion: Felt(value, times[emotion]) for emotion, value in numbers(emotions).items()}
    away_us = None if away is None else to_us(away)
    return StoredState(felt, numbers(rates), to_us(updated), stamp, absence, paused_us, away_us)
