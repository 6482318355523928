"""The 22 emotions of the OCC model (Ortony, Clore & Collins, 1988), how they fade, and what they add up to."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import mul
from typing import Literal, NamedTuple

import msgspec

from banshee_memory.errors import InvalidInput, shown
from banshee_memory.stamps import from_us, stamp_us, to_us

FLOOR = 0.01
"""An intensity under this counts as 0, before anything is added to it."""


class Emotion(enum.StrEnum):
    """An emotion; its value is how it is spelled everywhere (JSON, SQL, Lua)."""

    JOY = "joy"
    DISTRESS = "distress"
    HOPE = "hope"
    FEAR = "fear"
    SATISFACTION = "satisfaction"
    DISAPPOINTMENT = "disappointment"
    RELIEF = "relief"
    FEAR_CONFIRMED = "fear_confirmed"
    PRIDE = "pride"
    SHAME = "shame"
    ADMIRATION = "admiration"
    REPROACH = "reproach"
    GRATIFICATION = "gratification"
    REMORSE = "remorse"
    GRATITUDE = "gratitude"
    ANGER = "anger"
    LOVE = "love"
    HATE = "hate"
    HAPPY_FOR = "happy_for"
    RESENTMENT = "resentment"
    GLOATING = "gloating"
    PITY = "pity"

    @property
    def rate(self) -> float:
        """The part of its intensity that it loses in a second, unless the agent has a rate of its own."""
        return _TEMPERS[self].rate

    @property
    def valence(self) -> int:
        """+1 if it is pleasant, −1 if not."""
        return _TEMPERS[self].valence

    @property
    def arousal(self) -> float:
        """How much it stirs, in [0, 1]."""
        return _TEMPERS[self].arousal

    @classmethod
    def parse(cls, name: str) -> Emotion:
        """The emotion of that name, as here or in the original's CamelCase (`FearConfirmed`)."""
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name[:64]).removeprefix("_")
        try:
            return cls(snake)
        except ValueError:
            raise InvalidInput("emotion", f"{shown(name)} is none of the 22 OCC emotions") from None


class _Temper(NamedTuple):
    rate: float
    valence: int
    arousal: float


_TEMPERS = {
    Emotion.JOY: _Temper(0.05, +1, 0.8),
    Emotion.DISTRESS: _Temper(0.08, -1, 0.7),
    Emotion.HOPE: _Temper(0.06, +1, 0.6),
    Emotion.FEAR: _Temper(0.12, -1, 0.9),
    Emotion.SATISFACTION: _Temper(0.04, +1, 0.7),
    Emotion.DISAPPOINTMENT: _Temper(0.07, -1, 0.6),
    Emotion.RELIEF: _Temper(0.08, +1, 0.5),
    Emotion.FEAR_CONFIRMED: _Temper(0.10, -1, 0.8),
    Emotion.PRIDE: _Temper(0.03, +1, 0.6),
    Emotion.SHAME: _Temper(0.10, -1, 0.7),
    Emotion.ADMIRATION: _Temper(0.04, +1, 0.5),
    Emotion.REPROACH: _Temper(0.08, -1, 0.6),
    Emotion.GRATIFICATION: _Temper(0.03, +1, 0.7),
    Emotion.REMORSE: _Temper(0.09, -1, 0.6),
    Emotion.GRATITUDE: _Temper(0.03, +1, 0.5),
    Emotion.ANGER: _Temper(0.15, -1, 0.9),
    Emotion.LOVE: _Temper(0.01, +1, 0.6),
    Emotion.HATE: _Temper(0.02, -1, 0.8),
    Emotion.HAPPY_FOR: _Temper(0.05, +1, 0.6),
    Emotion.RESENTMENT: _Temper(0.06, -1, 0.7),
    Emotion.GLOATING: _Temper(0.07, +1, 0.6),
    Emotion.PITY: _Temper(0.04, -1, 0.4),
}


_rate_of, _valence_of, _arousal_of = (
    {emotion: temper[column] for emotion, temper in _TEMPERS.items()}.__getitem__ for column in range(3)
)
"""As the properties, for sums over what many records hold."""


def faded(intensity: float, rate: float, microseconds: float) -> float:
    """intensity · (1 − rate)^seconds; 0 once that is under `FLOOR`. A negative gap counts as none."""
    left = intensity if microseconds <= 0 else intensity * (1.0 - rate) ** (microseconds / 1e6)
    return left if left >= FLOOR else 0.0


def valence_of(emotions: Mapping[Emotion, float]) -> float:
    """Σ(±1·i)/Σi in [−1, 1]; 0 when nothing is felt."""
    total = sum(emotions.values())
    return sum(map(mul, map(_valence_of, emotions), emotions.values())) / total if total else 0.0


def arousal_of(emotions: Mapping[Emotion, float]) -> float:
    """Σ(arousal·i)/Σi in [0, 1]; 0 when nothing is felt."""
    total = sum(emotions.values())
    return sum(map(mul, map(_arousal_of, emotions), emotions.values())) / total if total else 0.0


def intensity_of(emotions: Mapping[Emotion, float]) -> float:
    """Σi: how much is felt in all; 0 when nothing is."""
    return sum(emotions.values())


class EmotionalState(msgspec.Struct):
    """What an agent feels at `last_updated`: intensities in [0, 1], by emotion. What is not felt is not in it.

    `decay_rates` holds the rates that differ from the emotions' own. The one record that can be changed.
    """

    emotions: dict[Emotion, float] = {}
    """Intensities in [0, 1]; those under 0.01 count as 0 and are left out."""
    decay_rates: dict[Emotion, float] = {}
    """The part of an intensity that is lost in a second, in [0, 1]."""
    last_updated: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    """When it was felt so, timezone-aware."""

    def rate(self, emotion: Emotion) -> float:
        """The part of its intensity that this emotion loses in a second, for this agent."""
        return self.decay_rates.get(emotion, emotion.rate)

    def update_emotion(self, emotion: Emotion, intensity: float, at: datetime | None = None) -> None:
        """Sets an intensity in [0, 1], after everything else has faded to `at` (default: now); InvalidInput outside."""
        if not 0.0 <= intensity <= 1.0:
            raise InvalidInput("intensity", f"{shown(intensity)} is not in [0, 1]")
        if at is not None and at.tzinfo is None:
            raise InvalidInput("at", "must be a timezone-aware datetime")
        now = max(at or datetime.now(UTC), self.last_updated)
        self.emotions = self.decayed(now).emotions
        self.last_updated = now
        self.emotions.pop(emotion, None)
        if intensity >= FLOOR:
            self.emotions[emotion] = intensity

    def decayed(self, at: datetime) -> EmotionalState:
        """What is left of it at `at`: intensity · (1 − rate)^seconds each; what is under 0.01 is gone."""
        gap = to_us(at) - to_us(self.last_updated)
        left = {e: faded(i, self.rate(e), gap) for e, i in self.emotions.items()}
        return EmotionalState({e: i for e, i in left.items() if i}, dict(self.decay_rates), at)

    @property
    def overall_valence(self) -> float:
        """Σ(±1·i)/Σi in [−1, 1]; 0 when nothing is felt."""
        return valence_of(self.emotions)

    @property
    def overall_arousal(self) -> float:
        """Σ(arousal·i)/Σi in [0, 1]; 0 when nothing is felt."""
        return arousal_of(self.emotions)

    @property
    def dominant(self) -> tuple[Emotion, float] | None:
        """The strongest emotion and its intensity; of equals the first of the 22; None when nothing is felt."""
        felt = [(self.emotions[e], e) for e in Emotion if e in self.emotions]
        if not felt:
            return None
        strongest = max(intensity for intensity, _ in felt)
        return next((e, i) for i, e in felt if i == strongest)

    def summary(self) -> str:
        """One line for a person or a prompt: `joy 0.80, hope 0.31 (valence +1.00, arousal 0.75)`."""
        if not self.emotions:
            return "calm (nothing is felt)"
        felt = sorted(self.emotions.items(), key=lambda pair: -pair[1])
        words = ", ".join(f"{e} {i:.2f}" for e, i in felt)
        return f"{words} (valence {self.overall_valence:+.2f}, arousal {self.overall_arousal:.2f})"


class Felt(NamedTuple):
    """An intensity and when it was that: microseconds since the epoch. What both tiers store, never decayed."""

    intensity: float
    at_us: int


@dataclass(frozen=True, slots=True)
class Capped:
    """An absence policy of `set_temperament`: between two writes at most that many seconds of decay."""

    seconds: float


Absence = Literal["wall", "active"] | Capped
"""What being away means for decay: it always runs, it stands still between an end_session and the next start_session,
or it is capped."""


def absence_text(absence: Absence) -> str:
    """A policy as both tiers keep it: `wall`, `active` or `capped:<seconds>`."""
    return f"capped:{absence.seconds!r}" if isinstance(absence, Capped) else absence


class StoredState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A state as both tiers keep it: each emotion with its own time, the rates that differ, the last write.

    Times of emotions are by the agent's own clock, which stands still where its absence policy says so. `absence` None:
    it was saved without knowing; PostgreSQL's stays.
    """

    felt: dict[Emotion, Felt]
    rates: dict[Emotion, float]
    updated_us: int
    stamp: int
    absence: str | None = "wall"
    paused_us: int = 0
    away_us: int | None = None

    def own_clock(self, now_us: int) -> int:
        """The agent's clock when the server's says that; the same as `own_clock` in `lua/emotions.lua`."""
        if self.away_us is not None:
            return min(now_us, self.away_us) - self.paused_us
        if self.absence is not None and self.absence.startswith("capped:"):
            cap_us = float(self.absence.removeprefix("capped:")) * 1e6
            return int(min(now_us, self.updated_us + cap_us)) - self.paused_us
        return now_us - self.paused_us

    def at(self, now_us: int) -> EmotionalState:
        """What is felt at that time."""
        return EmotionalState(self.by_own_clock(self.own_clock(now_us)), dict(self.rates), from_us(now_us))

    def by_own_clock(self, own_us: int) -> dict[Emotion, float]:
        """What is felt when the agent's own clock says that."""
        own_rate, left = self.rates.get, {}
        for emotion, (intensity, at_us) in self.felt.items():
            still = faded(intensity, own_rate(emotion, _rate_of(emotion)), own_us - at_us)
            if still:
                left[emotion] = still
        return left


class Before(msgspec.Struct, frozen=True):
    """The state just before an event, as it was stored, and when that was by the hot store's clock."""

    at_us: int
    state: StoredState


def changed(
    before: Mapping[Emotion, float],
    rates: Mapping[Emotion, float],
    mode: str,
    changes: Mapping[Emotion, float],
    late: int,
) -> dict[Emotion, float]:
    """What a change makes of what is felt; the same as `changed` in `lua/emotions.lua`. `late`: as in `late_us`."""
    after = dict(before)
    for emotion, amount in changes.items():
        rate = rates.get(emotion, emotion.rate)
        effect = amount * (1.0 - rate) ** (late / 1e6) if late else amount
        total = min(max(effect + (before.get(emotion, 0.0) if mode == "add" else 0.0), 0.0), 1.0)
        after[emotion] = faded(total, 0.0, 0)
    return {e: i for e, i in after.items() if i}


def late_us(at_us: int, stamp: int, now_us: int) -> int:
    """How long before it was told an event happened: microseconds by which its effect has faded."""
    return 0 if at_us == stamp_us(stamp) else max(now_us - at_us, 0)
