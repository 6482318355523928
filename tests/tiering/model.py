"""A plain model of the memory of an agent: no tiers, no decay in place, nothing clever. Times are microseconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from banshee_memory import Capped, Emotion, EmotionalEvent, EmotionalState
from banshee_memory.emotions import Absence
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
    session: UUID | None = None

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
    session: UUID | None = None


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
    volatile: bool = False

    def is_over(self, now: int) -> bool:
        return self.expires is not None and self.expires <= now


@dataclass
class Stretch:
    """A session; its totals are known once it has ended."""

    id: UUID
    start: int
    metadata: Any
    initial: dict[Emotion, float]
    final: dict[Emotion, float] | None = None
    end: int | None = None
    totals: tuple[int, int, int] = (0, 0, 0)


@dataclass
class Agent:
    """All that an agent is. What it feels fades by its age, which is microseconds, counted up to its last change."""

    felt: dict[Emotion, tuple[float, int]] | None = None
    rates: dict[Emotion, float] = field(default_factory=dict)
    cap: int | None = None
    active: bool = False
    away: int | None = None
    age: int = 0
    changed_at: int = 0
    sessions: list[Stretch] = field(default_factory=list)
    messages: list[Said] = field(default_factory=list)
    events: list[Happened] = field(default_factory=list)
    memories: dict[tuple[str, str], Known] = field(default_factory=dict)
    number: int = 0

    # --- emotions ---

    def rate(self, emotion: Emotion) -> float:
        return self.rates.get(emotion, emotion.rate)

    def feels(self, now: int) -> dict[Emotion, float]:
        """What is felt now."""
        age = self.age_at(now)
        values = {e: left(i, self.rate(e), age - felt) for e, (i, felt) in (self.felt or {}).items()}
        return {e: i for e, i in values.items() if i}

    def age_at(self, at: int) -> int:
        """Its age at a time; before its last change as well."""
        if self.away is not None:
            return self.age + min(at - self.away, 0)
        gap = at - self.changed_at
        return self.age + (gap if self.cap is None else min(gap, self.cap))

    def touch(self, now: int) -> None:
        """It is changed now."""
        self.age, self.changed_at = self.age_at(now), now

    def save_state(self, state: EmotionalState, at: int, now: int) -> None:
        felt = self.age_at(min(at, now))
        self.touch(now)
        self.felt = {e: (i, felt) for e, i in state.emotions.items() if i >= FLOOR}
        self.rates = {e: r for e, r in state.decay_rates.items() if r != e.rate}

    def set_temperament(self, rates: Mapping[Emotion, float | None], absence: Absence | None, now: int) -> None:
        feels = self.feels(now)
        self.touch(now)
        self.felt = {e: (i, self.age) for e, i in feels.items()}
        for emotion, rate in rates.items():
            self.rates.pop(emotion, None)
            if rate is not None and rate != emotion.rate:
                self.rates[emotion] = rate
        if absence is not None:
            self.cap = int(absence.seconds * 1e6) if isinstance(absence, Capped) else None
            self.active = absence == "active"
        if self.away is not None:
            self.away = now if self.active else None

    def be(self, present: bool, now: int) -> None:
        """It comes or goes, which means something to an `active` one only."""
        if self.active and self.felt is not None and present == (self.away is not None):
            self.touch(now)
            self.away = None if present else now

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
        self.touch(now)
        self.felt = dict(self.felt or {})
        for emotion in changes:
            self.felt.pop(emotion, None)
            if emotion in after:
                self.felt[emotion] = (after[emotion], self.age)

    def happen(
        self,
        event: EmotionalEvent,
        named: dict[Emotion, float],
        mode: str,
        at: int,
        place: int,
        now: int,
        session: UUID | None = None,
    ) -> Happened:
        before, after = self.feels(now), self.changed(named, "set" if mode == "record" else mode, at, now)
        happened = Happened(place, self._next(), event, named, before, after, session or self.current())
        self.events.append(happened)
        if mode != "record":
            self.change(named, mode, at, now)
        return happened

    # --- conversations ---

    def say(self, message: Said) -> None:
        message.number = self._next()
        message.session = message.session or self.current()
        self.messages.append(message)

    def history(self) -> list[Said]:
        return sorted(self.messages, key=lambda m: (m.at, m.number))

    def event_history(self) -> list[Happened]:
        return sorted(self.events, key=lambda e: (e.at, e.number))

    def roles(self) -> Counter[str]:
        return Counter(message.role for message in self.messages)

    # --- sessions ---

    def current(self) -> UUID | None:
        """The session that was started last of those open: what names none belongs to it."""
        return next((s.id for s in reversed(self.sessions) if s.end is None), None)

    def begin(self, session: UUID, metadata: Any, now: int) -> Stretch:
        self.be(True, now)
        stretch = Stretch(session, now, metadata, self.feels(now))
        self.sessions.append(stretch)
        return stretch

    def finish(self, stretch: Stretch, now: int) -> None:
        if stretch.end is None:
            self.be(False, now)
            said = [m for m in self.messages if m.session == stretch.id]
            happened = sum(e.session == stretch.id for e in self.events)
            stretch.final, stretch.end = self.feels(now), now
            stretch.totals = (len(said), happened, sum(m.tokens or 0 for m in said))

    def newest_sessions(self) -> list[Stretch]:
        return sorted(self.sessions, key=lambda s: (-s.start, str(s.id)))

    # --- memories ---

    def leave(self) -> None:
        """It leaves Redis, and what is only there is gone."""
        self.memories = {name: known for name, known in self.memories.items() if not known.volatile}

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
        *,
        volatile: bool = False,
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
            volatile=volatile,
        )
        return known

    def page(self, memory_type: str | None, now: int) -> list[tuple[tuple[str, str], Known]]:
        """The living ones of a type (None: of all), the worthiest first."""
        living = [
            (name, known)
            for name, known in self.memories.items()
            if memory_type in (None, name[0]) and not known.is_over(now)
        ]
        return sorted(living, key=lambda item: (-item[1].importance, -item[1].accessed, item[0]))

    def _next(self) -> int:
        self.number += 1
        return self.number
