"""A plain model of the memory of an agent: no tiers, no decay in place, nothing clever. Times are microseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from banshee_memory import Emotion, EmotionalEvent, EmotionalState
from banshee_memory.records import memory_importance

FLOOR = 0.01
STEMS = {"foxes": "fox", "hounds": "hound", "badgers": "badger"}


def left(intensity: float, rate: float, us: int) -> float:
    """What is left of an intensity after that time."""
    value = intensity * (1 - rate) ** (us / 1e6) if us > 0 else intensity
    return value if value >= FLOOR else 0.0


@dataclass
class Said:
    """A message: its place in the history, and what it says."""

    at: int
    number: int
    id: UUID
    role: str
    content: str
    metadata: Any
    tokens: int | None
    context: dict[str, float] | None

    @property
    def words(self) -> set[str]:
        """Its words, stemmed."""
        return {STEMS.get(word, word) for word in self.content.split()}


@dataclass
class Happened:
    """An event: its place, what it named, and what was felt after it and before it."""

    at: int
    number: int
    event: EmotionalEvent
    named: dict[Emotion, float]
    before: dict[Emotion, float]
    after: dict[Emotion, float]


@dataclass
class Known:
    """A memory."""

    data: Any
    importance: float
    created: int
    updated: int
    accessed: int
    expires: int | None
    tags: tuple[str, ...]
    count: int = 0

    def is_over(self, now: int) -> bool:
        return self.expires is not None and self.expires <= now


@dataclass
class Agent:
    """All that an agent is."""

    felt: dict[Emotion, tuple[float, int]] | None = None
    rates: dict[Emotion, float] = field(default_factory=dict)
    messages: list[Said] = field(default_factory=list)
    events: list[Happened] = field(default_factory=list)
    memories: dict[tuple[str, str], Known] = field(default_factory=dict)
    number: int = 0

    # --- emotions ---

    def rate(self, emotion: Emotion) -> float:
        return self.rates.get(emotion, emotion.rate)

    def feels(self, now: int) -> dict[Emotion, float]:
        """What is felt now."""
        values = {e: left(i, self.rate(e), now - at) for e, (i, at) in (self.felt or {}).items()}
        return {e: i for e, i in values.items() if i}

    def save_state(self, state: EmotionalState, at: int, now: int) -> None:
        self.felt = {e: (i, min(at, now)) for e, i in state.emotions.items() if i >= FLOOR}
        self.rates = {e: r for e, r in state.decay_rates.items() if r != e.rate}

    def changed(self, changes: Mapping[Emotion, float], mode: str, at: int, now: int) -> dict[Emotion, float]:
        """What would be felt after those changes, which happened at `at`."""
        feels = self.feels(now)
        for emotion, amount in changes.items():
            effect = amount * (1 - self.rate(emotion)) ** ((now - at) / 1e6) if at < now else amount
            total = min(max(effect + (feels.get(emotion, 0.0) if mode == "add" else 0.0), 0.0), 1.0)
            feels[emotion] = total if total >= FLOOR else 0.0
        return {e: i for e, i in feels.items() if i}

    def change(self, changes: Mapping[Emotion, float], mode: str, at: int, now: int) -> None:
        after = self.changed(changes, mode, at, now)
        self.felt = dict(self.felt or {})
        for emotion in changes:
            self.felt.pop(emotion, None)
            if emotion in after:
                self.felt[emotion] = (after[emotion], now)

    def happen(
        self, event: EmotionalEvent, named: dict[Emotion, float], mode: str, at: int, place: int, now: int
    ) -> Happened:
        before, after = self.feels(now), self.changed(named, "set" if mode == "record" else mode, at, now)
        happened = Happened(place, self._next(), event, named, before, after)
        self.events.append(happened)
        if mode != "record":
            self.change(named, mode, at, now)
        return happened

    # --- conversations ---

    def say(self, message: Said) -> None:
        message.number = self._next()
        self.messages.append(message)

    def history(self) -> list[Said]:
        return sorted(self.messages, key=lambda m: (m.at, m.number))

    def event_history(self) -> list[Happened]:
        return sorted(self.events, key=lambda e: (e.at, e.number))

    def roles(self) -> Counter[str]:
        return Counter(message.role for message in self.messages)

    # --- memories ---

    def living(self, name: tuple[str, str], now: int) -> Known | None:
        known = self.memories.get(name)
        return None if known is None or known.is_over(now) else known

    def store(
        self,
        name: tuple[str, str],
        data: Any,
        ttl: float | None,
        importance: float | None,
        tags: tuple[str, ...],
        now: int,
    ) -> Known:
        old = self.living(name, now)
        known = self.memories[name] = Known(
            data=data,
            importance=memory_importance(name[0], data) if importance is None else importance,
            created=old.created if old else now,
            updated=now,
            accessed=old.accessed if old else now,
            expires=None if ttl is None else int(now + ttl * 1e6),
            tags=tags,
            count=old.count if old else 0,
        )
        return known

    def page(self, memory_type: str, now: int) -> list[tuple[str, Known]]:
        """The living ones of a type, the worthiest first."""
        living = [
            (key, known)
            for (kind, key), known in self.memories.items()
            if kind == memory_type and not known.is_over(now)
        ]
        return sorted(living, key=lambda item: (-item[1].importance, -item[1].accessed, item[0]))

    def _next(self) -> int:
        self.number += 1
        return self.number
