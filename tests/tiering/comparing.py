"""What is read of an agent, compared with what the plain model says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from banshee_memory import AgentSession, ConversationMessage, EmotionalEventRecord, MemoryRecord
from banshee_memory.emotions import arousal_of, valence_of
from banshee_memory.stamps import to_us
from tests.tiering.model import FLOOR, Happened, Known, Said, Stretch


def close(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> bool:
    """Equal to 1e-9; what is within that of the floor may be gone for one and not for the other."""
    for key in ours.keys() | theirs.keys():
        low, high = sorted((ours.get(key, 0.0), theirs.get(key, 0.0)))
        if high - low > 1e-9 and not (low == 0.0 and high < FLOOR + 1e-9):
            return False
    return True


def check_event(record: EmotionalEventRecord, model: Happened) -> None:
    """The same event."""
    assert (to_us(record.occurred_at), record.event) == (model.at, model.event)
    assert record.resulting_emotions == model.named
    measured = dict(enumerate((record.intensity, record.intensity_delta)))
    after, before = sum(model.after.values()), sum(model.before.values())
    assert close({k: abs(v) for k, v in measured.items()}, {0: after, 1: abs(after - before)})
    if after > 2 * FLOOR and before > 2 * FLOOR:
        valence, arousal = valence_of(model.after), arousal_of(model.after)
        assert record.valence == pytest.approx(valence, abs=1e-6)
        assert record.arousal == pytest.approx(arousal, abs=1e-6)
        assert record.valence_delta == pytest.approx(valence - valence_of(model.before), abs=1e-6)
        assert record.arousal_delta == pytest.approx(arousal - arousal_of(model.before), abs=1e-6)


def check_messages(read: Sequence[ConversationMessage], models: Sequence[Said]) -> None:
    """The same messages in the same order."""
    assert [(m.content, m.id) for m in read] == [(m.content, m.id) for m in models]
    for message, model in zip(read, models, strict=True):
        assert (message.role, message.content, message.metadata) == (model.role, model.content, model.metadata)
        assert (message.tokens_used, to_us(message.created_at)) == (model.tokens, model.at)
        assert (message.emotional_context is None) == (model.context is None)
        assert close(message.emotional_context or {}, model.context or {})


def check_session(session: AgentSession, model: Stretch) -> None:
    """The same session."""
    assert (session.id, to_us(session.session_start), session.session_metadata) == (
        model.id,
        model.start,
        model.metadata,
    )
    assert (session.session_end and to_us(session.session_end)) == model.end
    assert (session.total_messages, session.total_events, session.total_tokens_used) == model.totals
    assert close(session.initial_emotional_state, model.initial)
    assert (session.final_emotional_state is None) == (model.final is None)
    assert close(session.final_emotional_state or {}, model.final or {})


def check_memory(record: MemoryRecord | None, kind: str, key: str, model: Known | None) -> None:
    """The same memory, or none."""
    if record is None or model is None:
        assert (record, model) == (None, None)
        return
    assert (record.memory_type, record.key, record.data, record.tags) == (kind, key, model.data, model.tags)
    assert (record.importance, record.access_count) == (model.importance, model.count)
    assert (to_us(record.created_at), to_us(record.updated_at)) == (model.created, model.updated)
    assert to_us(record.last_accessed) == model.accessed
    assert (record.expires_at and to_us(record.expires_at)) == model.expires
