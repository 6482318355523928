"""A row of the original's tables as a row of ours: pure. What cannot be said here is InvalidInput, naming the field.

Ids stay what they were: an original's message is found under its old id. A row has no stamp of Redis's, so it gets one
of its own time, which puts it before all that is written here from now on; the same row always gets the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import msgspec

from banshee_memory import validation
from banshee_memory.cold.staging import AnyRow, EventRow, MemoryRow, MessageRow, StateRow
from banshee_memory.emotions import Emotion, Felt, StoredState, arousal_of, intensity_of, valence_of
from banshee_memory.errors import InvalidInput, shown
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEvent,
    EmotionalEventRecord,
    MemoryRecord,
    Placed,
    StoredMemory,
    memory_id,
)
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from banshee_memory.tiering import sessions

Mapped = Callable[[bytes, Settings], AnyRow]
_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_CAMEL = {"".join(part.title() for part in emotion.value.split("_")): emotion for emotion in Emotion}
_EVENTS = {kind.__struct_config__.tag: kind for kind in get_args(EmotionalEvent)}


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    agent_id: UUID


class _State(_Row, frozen=True, kw_only=True):
    emotions: dict[str, float]
    decay_rates: dict[str, float] | None = None
    updated_at: datetime


class _Event(_Row, frozen=True, kw_only=True):
    event_type: str
    event_data: Any
    resulting_emotions: dict[str, float] | None = None
    context_factors: Any = None
    intensity_delta: float | None = None
    valence_delta: float | None = None
    arousal_delta: float | None = None
    appraisal_duration_ms: int | None = None
    personality_influence: Any = None
    created_at: datetime


class _Message(_Row, frozen=True, kw_only=True):
    role: str
    content: str
    metadata: Any = None
    emotional_context: Any = None
    tokens_used: int | None = None
    created_at: datetime


class _Memory(_Row, frozen=True, kw_only=True):
    memory_type: str
    key: str
    data: Any
    importance: float | None = None
    access_count: int | None = None
    last_accessed: datetime | None = None
    created_at: datetime
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    tags: list[str] | None = None


class _Session(_Row, frozen=True, kw_only=True):
    session_start: datetime
    session_end: datetime | None = None
    initial_emotional_state: Any = None
    final_emotional_state: Any = None
    total_messages: int | None = None
    total_events: int | None = None
    total_tokens_used: int | None = None
    session_metadata: Any = None


def name_of(row: bytes) -> str:
    """The id of a row, for a report; a row without one has none."""
    try:
        return str(msgspec.json.decode(row, type=_Row).id)
    except msgspec.MsgspecError:
        return "without an id"


def _read(row: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(row, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidInput("row", str(exc)) from None


def _moment(field: str, at: datetime) -> datetime:
    """A time gone by: a row of the next minute would have a stamp that writes of this one do not reach."""
    return validation.moment(field, at, now=datetime.now(UTC) - validation.SKEW)


def stamp_for(at: datetime, row_id: UUID) -> int:
    """A stamp of that time to the microsecond; of two in one microsecond the ids decide, mostly."""
    us = to_us(at)
    return us // 1_000 << 16 | us % 1_000 << 6 | row_id.int & 63


def message(row: bytes, settings: Settings) -> MessageRow:
    """A message, blank ones too."""
    said = _read(row, _Message)
    at = _moment("created_at", said.created_at)
    record = ConversationMessage(
        id=said.id,
        agent_id=said.agent_id,
        role=validation.role(said.role.lower()),
        content=validation.text("content", said.content, settings.max_content_bytes, blank=True),
        metadata=validation.json("metadata", said.metadata, settings),
        emotional_context=_context(said.emotional_context, settings),
        tokens_used=validation.tokens(said.tokens_used),
        session_id=None,
        created_at=at,
    )
    return MessageRow.of(Placed(to_us(at), stamp_for(at, said.id), record))


def _context(value: Any, settings: Settings) -> dict[str, Any] | None:
    return validation.optional_object("emotional_context", _respelt(value), settings)


def _respelt(value: Any) -> Any:
    """The same JSON, emotions among its keys spelt as they are here."""
    if isinstance(value, Mapping):
        return {_name(key, item): _respelt(item) for key, item in value.items()}
    return value


def _name(key: str, item: Any) -> str:
    return _CAMEL[key].value if key in _CAMEL and isinstance(item, int | float) else key


def _felt(field: str, given: Mapping[str, float] | None) -> dict[Emotion, float]:
    return validation.changes(field, given or {}, "set")


def event(row: bytes, settings: Settings) -> EventRow:
    """An event. Valence, arousal and intensity after it are those of the emotions that resulted."""
    happened = _read(row, _Event)
    at = _moment("created_at", happened.created_at)
    emotions = _felt("resulting_emotions", happened.resulting_emotions)
    record = EmotionalEventRecord(
        id=happened.id,
        agent_id=happened.agent_id,
        event_type=validation.text("event_type", happened.event_type, 256),
        event=_what(happened.event_data, settings),
        resulting_emotions=emotions,
        context_factors=validation.json("context_factors", _factors(happened), settings),
        valence=valence_of(emotions),
        arousal=arousal_of(emotions),
        intensity=intensity_of(emotions),
        valence_delta=happened.valence_delta or 0.0,
        arousal_delta=happened.arousal_delta or 0.0,
        intensity_delta=happened.intensity_delta or 0.0,
        occurred_at=at,
        created_at=at,
        mode="set",
    )
    after = {emotion: intensity for emotion, intensity in emotions.items() if intensity}
    return EventRow.of(Placed(to_us(at), stamp_for(at, happened.id), record), after)


def _factors(happened: _Event) -> Any:
    """The context, and with it what has no column here."""
    beside = {
        "appraisal_duration_ms": happened.appraisal_duration_ms,
        "personality_influence": happened.personality_influence,
    }
    known = {name: value for name, value in beside.items() if value is not None}
    if not known:
        return happened.context_factors
    if isinstance(happened.context_factors, Mapping):
        return {**known, **happened.context_factors}
    return known if happened.context_factors is None else {**known, "context_factors": happened.context_factors}


def _what(data: Any, settings: Settings) -> EmotionalEvent:
    """An event from how the original tagged it: `{"TaskCompleted": {...}}`."""
    if not isinstance(data, Mapping) or len(data) != 1:
        raise InvalidInput("event_data", "is not an object with one key, the event's name")
    ((tag, fields),) = data.items()
    kind = _EVENTS.get(_WORD.sub("_", tag).lower())
    if kind is None or not isinstance(fields, Mapping):
        raise InvalidInput("event_data", f"{shown(tag)} is no event that is known here")
    unknown = sorted(set(fields) - set(kind.__struct_fields__))
    if unknown:
        raise InvalidInput("event_data", f"{tag} has the unknown field {unknown[0]!r}")
    if isinstance(fields.get("interaction_type"), str):
        fields = {**fields, "interaction_type": _WORD.sub("_", fields["interaction_type"]).lower()}
    try:
        return validation.event(msgspec.convert(fields, kind), settings)
    except msgspec.ValidationError as exc:
        raise InvalidInput("event_data", f"{tag}: {exc}") from None


def state(row: bytes, _: Settings) -> StateRow:
    """What an agent feels, as of when it was saved."""
    saved = _read(row, _State)
    at_us = to_us(_moment("updated_at", saved.updated_at))
    rates = validation.rates({Emotion.parse(name): rate for name, rate in (saved.decay_rates or {}).items()})
    felt = {e: Felt(i, at_us) for e, i in _felt("emotions", saved.emotions).items() if i}
    own = {e: rate for e, rate in rates.items() if rate is not None and rate != e.rate}
    stamp = stamp_for(saved.updated_at, saved.id)
    return StateRow.of(saved.agent_id, StoredState(felt, own, at_us, stamp))


def memory(row: bytes, settings: Settings) -> MemoryRow:
    """A memory. What it did not say (when it was read last, its worth) is as of a memory that is new."""
    kept = _read(row, _Memory)
    kind = validation.memory_type(_WORD.sub("_", kept.memory_type).lower())
    key = validation.text("key", kept.key, settings.max_key_bytes)
    created = _moment("created_at", kept.created_at)
    updated = _moment("updated_at", kept.updated_at or created)
    record = MemoryRecord(
        id=memory_id(kept.agent_id, kind, key),
        agent_id=kept.agent_id,
        memory_type=kind,
        key=key,
        data=validation.json("data", kept.data, settings),
        importance=validation.intensity("importance", 0.5 if kept.importance is None else kept.importance),
        access_count=validation.count("access_count", kept.access_count or 0, low=0, high=2**53),
        last_accessed=_moment("last_accessed", kept.last_accessed or updated),
        created_at=created,
        updated_at=updated,
        expires_at=kept.expires_at,
        tags=validation.tags(kept.tags or ()),
    )
    return MemoryRow.of(kept.agent_id, kind, key, StoredMemory(stamp_for(updated, kept.id), record))


def session(row: bytes, settings: Settings) -> MemoryRow:
    """A session, which is kept as a memory here. An open one stays open."""
    spent = _read(row, _Session)
    start = _moment("session_start", spent.session_start)
    end = None if spent.session_end is None else _moment("session_end", spent.session_end)
    return sessions.taken_over(
        spent.agent_id,
        spent.id,
        (start, stamp_for(start, spent.id)),
        None if end is None else (end, max(stamp_for(end, spent.id), stamp_for(start, spent.id))),
        initial=_mood(spent.initial_emotional_state),
        final=_mood(spent.final_emotional_state),
        metadata=validation.json("session_metadata", spent.session_metadata, settings),
        totals=(spent.total_messages or 0, spent.total_events or 0, spent.total_tokens_used or 0),
    )


def _mood(value: Any) -> dict[str, float]:
    """Intensities by emotion, also where they are a part of a whole state."""
    if value is None:
        return {}
    held = value.get("emotions", value) if isinstance(value, Mapping) else value
    if not isinstance(held, Mapping):
        raise InvalidInput("emotional_state", "is not an object of emotions")
    return {emotion.value: intensity for emotion, intensity in _felt("emotional_state", held).items()}


MAPPED: dict[str, Mapped] = {
    "sessions": session,
    "states": state,
    "memories": memory,
    "events": event,
    "messages": message,
}
"""How the rows of each kind are mapped."""
