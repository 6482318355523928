"""The past of a state: what an agent felt at a moment gone by, and which events made a feeling what it is. Pure.

History holds events, not every write: each event knows the state that it met and so the state that it left. Both are
*versions*: true from the write that made them to the next one. Where an event did not meet the version before its own,
something wrote without an event between the two (`update_emotions`, `save_state`, a temperament, a session's end).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from banshee_memory.emotions import Before, Emotion, EmotionalState, Felt, StoredState, changed, late_us
from banshee_memory.records import EmotionalEventRecord, Placed
from banshee_memory.stamps import from_us, stamp_us, to_us

_SAME = 1e-9
"""Intensities that differ by less are one."""


class PastState(EmotionalState):
    """An `EmotionalState`: what an agent felt at `last_updated`, a moment gone by, as far as that is known."""

    exact: bool = False
    """No write without an event can have changed it by then. False: it may have; what the last event left is given."""


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one event has to do with a feeling."""

    event: EmotionalEventRecord
    change: float
    """By how much it changed the intensity; negative: it weakened it. Of one that set it: all that it set."""
    remaining: float
    """What is left of that, faded to the moment that was asked for."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a feeling is what it is: what remains of each event, and `unexplained`, add up to its intensity."""

    agent_id: UUID
    emotion: Emotion
    at: datetime
    intensity: float
    """What is felt of it then, in [0, 1]."""
    contributions: tuple[Contribution, ...]
    """The events since it was last set or was not felt at all; what most of remains comes first."""
    unexplained: float
    """What came from writes that left no event, or from events that retention dropped; negative: they weakened it."""
    exact: bool
    """As in `PastState`: whether the intensity is known for certain."""


@dataclass(frozen=True, slots=True)
class Deed:
    """An event with the state that it met (None: not known, it was imported) and the one that it left."""

    placed: Placed[EmotionalEventRecord]
    before: Before | None
    after: StoredState

    @classmethod
    def of(
        cls, placed: Placed[EmotionalEventRecord], emotions_after: dict[Emotion, float], before: Before | None
    ) -> Deed:
        """That event with its states."""
        return cls(placed, before, _left(placed, emotions_after, before))

    @property
    def stamp(self) -> int:
        """When it was told, in the order of all writes."""
        return self.placed.stamp

    @property
    def at_us(self) -> int:
        """When it changed the state, by the clock that decay runs by."""
        return self.before.at_us if self.before else to_us(self.placed.record.created_at)

    def settles(self, emotion: Emotion) -> bool:
        """Whether no earlier event has to do with that feeling after it."""
        if self.before is None:
            return True
        record = self.placed.record
        if record.mode == "record" or emotion not in record.resulting_emotions:
            return emotion not in self.met()
        return record.mode == "set" or emotion not in self.met()

    def met(self) -> dict[Emotion, float]:
        """What was felt just before it."""
        return self.before.state.at(self.before.at_us).emotions if self.before else {}


def _left(
    placed: Placed[EmotionalEventRecord], emotions_after: dict[Emotion, float], before: Before | None
) -> StoredState:
    """The state after an event, as `apply` in `lua/emotions.lua` writes it."""
    record = placed.record
    if before is None:
        at_us = to_us(record.created_at)
        return StoredState({e: Felt(i, at_us) for e, i in emotions_after.items()}, {}, at_us, placed.stamp)
    state, now = before.state, before.at_us
    if record.mode == "record":
        return state
    own = state.own_clock(now)
    late = late_us(placed.at_us, placed.stamp, now)
    intensities = changed(state.by_own_clock(own), state.rates, record.mode, record.resulting_emotions, late)
    felt = {e: f for e, f in state.felt.items() if e not in record.resulting_emotions}
    felt |= {e: Felt(intensities[e], own) for e in record.resulting_emotions if e in intensities}
    paused = state.paused_us if state.away_us is not None else now - own
    return StoredState(felt, state.rates, now, placed.stamp, state.absence, paused, state.away_us)


# --- the state at a moment ---


@dataclass(frozen=True, slots=True)
class Moment:
    """The version that is known to hold at a moment, and whether it is certain that no later one does."""

    version: StoredState | None
    exact: bool


def version_at(at_us: int, deeds: Iterable[Deed], current: StoredState | None) -> Moment:
    """The latest known version that was made by then. `deeds`: at least the last before, and the first after, it."""
    known: dict[int, StoredState] = {} if current is None else {current.stamp: current}
    met_later: set[int] = set()
    for deed in deeds:
        known.setdefault(deed.after.stamp, deed.after)
        if deed.before is not None:
            known.setdefault(deed.before.state.stamp, deed.before.state)
            if not _is_by(deed.stamp, at_us):
                met_later.add(deed.before.state.stamp)
    last = max((stamp for stamp in known if _is_by(stamp, at_us)), default=0)
    # Stamp 0 is the state of an agent before its first write: nothing is known to have been felt.
    following = min((stamp for stamp in known if stamp > last), default=0)
    if not last:
        return Moment(None, not following or 0 in met_later)
    return Moment(_standing_still(known[last], known.get(following)), not following or last in met_later)


def _standing_still(version: StoredState, following: StoredState | None) -> StoredState:
    """A version with what the next one knows of when the agent went away: its coming back was the last write then."""
    if version.absence != "active" or version.away_us is not None or following is None:
        return version
    paused = following.paused_us - version.paused_us
    if following.absence != "active" or paused <= 0:
        return version
    return msgspec.structs.replace(version, away_us=max(following.updated_us - paused, version.updated_us))


def _is_by(stamp: int, at_us: int) -> bool:
    return stamp_us(stamp) <= at_us


def past_state(moment: Moment, at_us: int) -> PastState | None:
    """What is felt then; None where nothing is known."""
    if moment.version is None:
        return None
    state = moment.version.at(at_us)
    return PastState(state.emotions, state.decay_rates, state.last_updated, moment.exact)


# --- why a feeling is what it is ---


@dataclass(slots=True)
class _Part:
    event: EmotionalEventRecord
    change: float
    remaining: float


class _Account:
    """The parts of an intensity, as it goes from event to event."""

    def __init__(self, emotion: Emotion) -> None:
        self.emotion = emotion
        self.parts: list[_Part] = []
        self.unexplained = 0.0
        self._left: StoredState | None = None

    def fade(self, version: StoredState | None, at_us: int) -> None:
        """Goes on to a moment at which that version holds."""
        now = version.at(at_us).emotions.get(self.emotion, 0.0) if version else 0.0
        expected = self._expected(version, at_us)
        self._scale(expected)
        off = now - self._sum()
        if not now:
            self.parts, self.unexplained = [], 0.0
        elif abs(off) > _SAME:
            self.unexplained += off

    def apply(self, deed: Deed) -> None:
        """Adds what an event did."""
        record = deed.placed.record
        if deed.before is None or self.emotion in record.resulting_emotions:
            met = deed.met().get(self.emotion, 0.0)
            left = deed.after.at(deed.at_us).emotions.get(self.emotion, 0.0)
            if record.mode == "set" or not left:
                self.parts, self.unexplained, met = [], 0.0, 0.0
            if left != met:
                self.parts.append(_Part(record, left - met, left - met))
        self._left = deed.after

    def _expected(self, version: StoredState | None, at_us: int) -> float:
        """What is left of the last version's intensity then, had nothing but that version been written."""
        if self._left is None:
            return 0.0
        last = self._left.felt.get(self.emotion)
        untouched = version is not None and last is not None and version.felt.get(self.emotion) == last
        holding = version if untouched and version else self._left
        return holding.at(at_us).emotions.get(self.emotion, 0.0)

    def _scale(self, to: float) -> None:
        before = self._sum()
        ratio = to / before if before > 0.0 else 0.0
        for part in self.parts:
            part.remaining *= ratio
        self.unexplained *= ratio

    def _sum(self) -> float:
        return sum(part.remaining for part in self.parts) + self.unexplained


def explained(agent_id: UUID, emotion: Emotion, at_us: int, deeds: Sequence[Deed], moment: Moment) -> Explanation:
    """The account of a feeling. `deeds` up to that moment, in the order of their stamps, from one that settles it."""
    account = _Account(emotion)
    for deed in deeds:
        if deed.before is not None:
            account.fade(deed.before.state, deed.at_us)
        if deed.placed.record.mode != "record":
            account.apply(deed)
    account.fade(moment.version, at_us)
    state = past_state(moment, at_us)
    parts = sorted(account.parts, key=lambda part: -abs(part.remaining))
    return Explanation(
        agent_id=agent_id,
        emotion=emotion,
        at=from_us(at_us),
        intensity=state.emotions.get(emotion, 0.0) if state else 0.0,
        contributions=tuple(
            Contribution(event=part.event, change=part.change, remaining=part.remaining) for part in parts
        ),
        unexplained=account.unexplained,
        exact=moment.exact,
    )
