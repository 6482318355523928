"""What an agent felt at a moment gone by, and why: from its state and its events, whatever tier each is in."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from banshee_memory.cold import reads
from banshee_memory.cold.reads import Lifespan
from banshee_memory.emotions import Emotion, StoredState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.stamps import stamp_us
from banshee_memory.tiering import states
from banshee_memory.tiering.residency import Residency
from banshee_memory.tiering.steps import Steps
from banshee_memory.timeline import Deed, Explanation, Moment, PastState, explained, past_state, version_at

_PAGE = 100
_MOST_DEEDS = 10_000


def state_at(residency: Residency, keys: AgentKeys, at_us: int) -> Steps[PastState | None]:
    """What it felt then; None where nothing is known of that time."""
    current = yield from states.stored(residency, keys)
    if current is not None and _is_past(current, at_us):
        return past_state(version_at(at_us, (), current), at_us)
    moment, _ = yield from _look_back(residency, keys, at_us, current)
    return past_state(moment, at_us)


def why(residency: Residency, keys: AgentKeys, emotion: Emotion, at_us: int | None) -> Steps[Explanation]:
    """What the events since a feeling was last settled have to do with it."""
    current = yield from states.stored(residency, keys)
    told_us: int = at_us or 0
    if at_us is None:
        at_us = yield calls.now()
        # Stamps can be ahead of the clock (another server's was): all that was told until now was told by now.
        told_us = max(at_us, stamp_us(current.stamp) if current else 0)
    moment, deeds = yield from _look_back(residency, keys, told_us, current, emotion)
    return explained(keys.agent, emotion, at_us, deeds, moment)


def _is_past(version: StoredState, at_us: int) -> bool:
    return stamp_us(version.stamp) <= at_us


def _look_back(
    residency: Residency, keys: AgentKeys, at_us: int, current: StoredState | None, emotion: Emotion | None = None
) -> Steps[tuple[Moment, list[Deed]]]:
    """The version that held then, and the deeds before it from one that settles the emotion on, oldest first.

    Redis is read first: what is flushed in between is seen twice, not missed.
    """
    # The first stamp after that moment: what was told within its millisecond counts as told by then.
    end = (at_us // 1_000 + 1) << 16
    hot = yield from _resident(residency, keys)
    # What is flushed after this may lie outside of it, and was in Redis.
    life: Lifespan = yield reads.lifespan_of(keys.agent)
    later = yield reads.deed_from(keys.agent, life.events, end)
    following = min([*later, *(d for d in hot if d.stamp >= end)], key=lambda d: d.stamp, default=None)
    past = yield from _told_before(keys, life, end, [d for d in hot if d.stamp < end], emotion)
    around = [*past[-1:], *([following] if following else [])]
    return version_at(at_us, around, current), past


def _told_before(
    keys: AgentKeys, life: Lifespan, end: int, hot: Iterable[Deed], emotion: Emotion | None
) -> Steps[list[Deed]]:
    """The deeds before a stamp, in their order, at least back to one that settles the emotion (None: the last)."""
    known = {deed.placed.record.id: deed for deed in hot}
    place = (end, UUID(int=0))
    while True:
        page = yield reads.deeds_until(keys.agent, life.events, place, _PAGE)
        for deed in page:
            known.setdefault(deed.placed.record.id, deed)
        # What Redis has may be older than this page: it is in its order only as far back as PostgreSQL was asked.
        whole = len(page) < _PAGE
        oldest = (page[-1].stamp, page[-1].placed.record.id) if page else place
        told = sorted(known.values(), key=lambda d: (d.stamp, d.placed.record.id))
        if not whole:
            told = [d for d in told if (d.stamp, d.placed.record.id) >= oldest]
        start = _settled(told, emotion)
        if whole or start is not None or len(known) >= _MOST_DEEDS:
            return told[start or 0 :]
        place = oldest


def _settled(told: list[Deed], emotion: Emotion | None) -> int | None:
    """Where the last deed is that no earlier one matters to."""
    for index in range(len(told) - 1, -1, -1):
        if emotion is None or told[index].settles(emotion):
            return index
    return None


def _resident(residency: Residency, keys: AgentKeys) -> Steps[list[Deed]]:
    """The events of which Redis has the states around them: all that PostgreSQL has not, and maybe more."""
    history = yield calls.whole_history(keys.events)
    events = residency.readable(lambda element: wire.event_of(keys.agent, element), history.elements)
    return [Deed.of(*event) for event in events if event.before is not None]
