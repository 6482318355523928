"""The JSON Lines format of `import` and `export`: one record a line, tagged by `type`. `docs/import-format.md` is its
description for people.

An agent is a UUID, or any name, which stands for the UUIDv5 of that name. A time is given as `at`, or as `ago`: seconds
before the import began.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec

from banshee_memory.emotions import EmotionalState
from banshee_memory.errors import InvalidInput
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEvent,
    EmotionalEventRecord,
    EventMode,
    MemoryRecord,
)
from banshee_memory.validation import text

NAMES = UUID("6ba9a15e-3f0e-5d8c-9f43-0b5f3c1f7a10")
"""The namespace in which a name becomes an agent's id."""


def agent_of(name: str) -> UUID:
    """The agent that a UUID or a name stands for."""
    name = text("agent", name, 512)
    try:
        return UUID(name)
    except ValueError:
        return uuid5(NAMES, name)


class _Line(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True, forbid_unknown_fields=True
):
    agent: str

    @property
    def agent_id(self) -> UUID:
        """The agent's id."""
        return agent_of(self.agent)


class _DatedLine(_Line, frozen=True, kw_only=True):
    at: datetime | None = None
    ago: float | None = None

    def when(self, now: datetime) -> datetime | None:
        """When it was, for an import that began `now`; None: as it goes in."""
        if self.ago is None:
            return self.at
        if self.at is not None:
            raise InvalidInput("ago", "stands beside `at`; give one of the two")
        try:
            return now - timedelta(seconds=self.ago)
        except (OverflowError, ValueError):
            raise InvalidInput("ago", f"{self.ago!r} s before now is no time") from None


class MessageLine(_DatedLine, frozen=True, kw_only=True, tag="message"):
    """A message."""

    role: str
    content: str
    tokens: int | None = None
    metadata: Any = None
    emotional_context: dict[str, Any] | None = None
    session_id: UUID | None = None


class EventLine(_DatedLine, frozen=True, kw_only=True, tag="event"):
    """What happened and the emotions felt at it; `mode` as in `save_event`."""

    event: EmotionalEvent
    emotions: dict[str, float]
    mode: EventMode = "record"
    context_factors: Any = None
    session_id: UUID | None = None


class StateLine(_DatedLine, frozen=True, kw_only=True, tag="state"):
    """What the agent felt at that time."""

    emotions: dict[str, float]
    decay_rates: dict[str, float] = {}


class MemoryLine(_Line, frozen=True, kw_only=True, tag="memory"):
    """A typed memory."""

    memory_type: str
    key: str
    data: Any
    importance: float | None = None
    tags: tuple[str, ...] = ()
    ttl_seconds: float | None = None


Line = MessageLine | EventLine | StateLine | MemoryLine
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


def parse(lines: Iterable[bytes]) -> Iterator[Line]:
    """The records of a file; an error names the line."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise InvalidInput(f"line {number}", str(exc)) from None


def dump(line: Line) -> bytes:
    """A record as a line, without its end."""
    return msgspec.json.encode(line)


def message_line(message: ConversationMessage) -> MessageLine:
    """A message as a line."""
    return MessageLine(
        agent=str(message.agent_id),
        role=message.role,
        content=message.content,
        at=message.created_at,
        tokens=message.tokens_used,
        metadata=message.metadata,
        emotional_context=message.emotional_context,
        session_id=message.session_id,
    )


def event_line(event: EmotionalEventRecord) -> EventLine:
    """An event as a line. It comes back as history: what it did to the state is in the state already."""
    return EventLine(
        agent=str(event.agent_id),
        event=event.event,
        emotions={str(e): i for e, i in event.resulting_emotions.items()},
        at=event.occurred_at,
        context_factors=event.context_factors,
        session_id=event.session_id,
    )


def state_line(agent_id: UUID, state: EmotionalState) -> StateLine:
    """A state as a line."""
    return StateLine(
        agent=str(agent_id),
        emotions={str(e): i for e, i in state.emotions.items()},
        decay_rates={str(e): r for e, r in state.decay_rates.items()},
        at=state.last_updated,
    )


def memory_line(memory: MemoryRecord, now: datetime) -> MemoryLine:
    """A memory as a line; what is left of its time to live goes with it."""
    left = (memory.expires_at - now).total_seconds() if memory.expires_at else None
    return MemoryLine(
        agent=str(memory.agent_id),
        memory_type=memory.memory_type,
        key=memory.key,
        data=memory.data,
        importance=memory.importance,
        tags=memory.tags,
        ttl_seconds=left,
    )
