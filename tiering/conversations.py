"""Search, totals and trends over both tiers: what is still only in Redis counts as much as what is cold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from banshee_memory.cold import reads
from banshee_memory.emotions import Emotion
from banshee_memory.errors import HotStoreUnavailable
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import (
    ROLES,
    ConversationMessage,
    ConversationStats,
    Placed,
    TrendPoint,
)
from banshee_memory.settings import Durability
from banshee_memory.stamps import EPOCH
from banshee_memory.tiering import histories, states
from banshee_memory.tiering.histories import MESSAGES
from banshee_memory.tiering.residency import Residency, insist
from banshee_memory.tiering.steps import Steps, write

_LOOKED_AT_FIRST = 4
"""Times as many of the newest messages as are ranked."""
_MOST_EVENTS = 100_000
_ATTEMPTS = 5


def append(
    residency: Residency,
    keys: AgentKeys,
    messages: Sequence[tuple[int | None, bool, bytes]],
    level: Durability,
    once: str | None,
) -> Steps[list[UUID]]:
    """Appends messages, all or none; gives their ids. What the agent feels must be resident if it is asked."""
    call = calls.append_messages(keys, messages, once)
    ids = yield from insist(call, lambda: states.rehydrate(residency, keys), level)
    return ids  # type: ignore[no-any-return]


def amend(
    residency: Residency, keys: AgentKeys, message_id: UUID, context: dict[str, Any] | None, level: Durability
) -> Steps[bool]:
    """Gives a message another emotional context; False if the agent has no such message."""
    for _ in range(_ATTEMPTS):
        history = yield calls.whole_history(keys.messages)
        element = next((e for e in history.elements if _is(residency, keys, e, message_id)), None)
        placed = (
            wire.message_of(keys.agent, element) if element else (yield reads.message_place(keys.agent, message_id))
        )
        if placed is None:
            return False
        record = msgspec.structs.replace(placed.record, emotional_context=context)
        after = wire.message_element(Placed(placed.at_us, placed.stamp, record))
        amendment = wire.Amendment(message_id.bytes, placed.at_us, context)
        if (yield write(calls.amend_message(keys, element or b"", after, amendment), level)):
            return True
    raise HotStoreUnavailable("The message moved between the tiers at each of several attempts. Call again.")


def _is(residency: Residency, keys: AgentKeys, element: bytes, message_id: UUID) -> bool:
    readable = residency.readable(partial(wire.message_of, keys.agent), [element])
    return bool(readable) and readable[0].record.id == message_id


def search(residency: Residency, keys: AgentKeys, query: str, limit: int) -> Steps[list[ConversationMessage]]:
    """Best match first. The texts in Redis go along with the query, so that one language rule judges all."""
    hot = yield from histories.resident(MESSAGES, residency, keys)
    texts = [(placed.record.id, placed.record.content) for placed in hot]
    found = yield from searched(keys.agent, query, limit, residency.settings.search_language, texts)
    # Where both have a message, PostgreSQL may not know yet how it was amended.
    said = {message_id: placed.record for message_id, placed in found if placed}
    said.update({placed.record.id: placed.record for placed in hot})
    return [said[message_id] for message_id, _ in found]


def searched(
    agent: UUID, query: str, limit: int, language: str, unflushed: Sequence[tuple[UUID, str]] = ()
) -> Steps[list[reads.Hit]]:
    """What PostgreSQL finds, see `reads.search`: first among the newest of an agent that said much, because a word that
    is in many of them has as many as are ranked there, and each further one costs a row; else among all."""
    life = yield reads.lifespan_of(agent)
    said, newest = life.messages, _LOOKED_AT_FIRST * max(limit, reads.RANKED)
    if said.total > 2 * newest:
        since_us = said.last_us - (said.last_us - said.first_us) * newest // said.total
        found = yield reads.search(agent, query, limit, language, unflushed, since_us)
        if found.is_all:
            return found.hits  # type: ignore[no-any-return]
    return (yield reads.search(agent, query, limit, language, unflushed)).hits  # type: ignore[no-any-return]


def totals(residency: Residency, keys: AgentKeys) -> Steps[ConversationStats]:
    """PostgreSQL's totals, and what is stamped after the last that they count."""
    hot = yield from histories.resident(MESSAGES, residency, keys)
    cold = yield reads.totals_of(keys.agent)
    return added(cold.stats, [placed for placed in hot if placed.stamp > cold.flushed_stamp])


def added(stats: ConversationStats, fresh: Sequence[Placed[ConversationMessage]]) -> ConversationStats:
    """Totals with these messages counted in."""
    roles = Counter(stats.by_role)
    roles.update(placed.record.role for placed in fresh)
    times = [t for t in (stats.first_message, stats.last_message, *(p.record.created_at for p in fresh)) if t]
    return ConversationStats(
        total_messages=stats.total_messages + len(fresh),
        user_messages=roles["user"],
        assistant_messages=roles["assistant"],
        by_role={role: roles[role] for role in ROLES},
        total_tokens=stats.total_tokens + sum(p.record.tokens_used or 0 for p in fresh),
        first_message=min(times, default=None),
        last_message=max(times, default=None),
    )


def trends(residency: Residency, keys: AgentKeys, hours: float, bucket: timedelta | None) -> Steps[list[TrendPoint]]:
    """What was felt after each event of the last hours, oldest first, or the means of each bucket."""
    since_us = (yield calls.now()) - int(hours * 3_600_000_000)
    history = yield calls.whole_history(keys.events)
    hot = residency.readable(partial(wire.event_of, keys.agent), history.elements)
    cold = yield reads.trend(keys.agent, since_us, _MOST_EVENTS)
    # An event that Redis has although its partition was dropped is in the means of that time.
    since_us = max(since_us, cold.rolled_up_to_us)
    known = {event for _, _, event, _ in cold.points}
    fresh = [e for e in hot if e.before is not None and e.placed.at_us >= since_us and e.placed.record.id not in known]
    places = [(at, stamp, point) for at, stamp, _, point in cold.points]
    places += [(event.placed.at_us, event.placed.stamp, _point(event)) for event in fresh]
    points = [point for _, _, point in sorted(places, key=lambda place: place[:2])]
    return points if bucket is None else bucketed(points, bucket)


def _point(event: wire.SettledEvent) -> TrendPoint:
    record = event.placed.record
    return TrendPoint(record.occurred_at, record.valence, record.arousal, record.intensity, 1, event.after)


def bucketed(points: Sequence[TrendPoint], bucket: timedelta) -> list[TrendPoint]:
    """The means over each bucket that has events; buckets are counted from 1970, as `date_bin` would."""
    bins: dict[datetime, list[TrendPoint]] = {}
    for point in points:
        bins.setdefault(EPOCH + (point.at - EPOCH) // bucket * bucket, []).append(point)
    return [_mean(at, held) for at, held in bins.items()]


def _mean(at: datetime, held: Sequence[TrendPoint]) -> TrendPoint:
    events = sum(p.events for p in held)
    peaks: dict[Emotion, float] = {}
    for point in held:
        peaks.update({e: i for e, i in point.peaks.items() if i > peaks.get(e, 0.0)})
    return TrendPoint(
        at,
        sum(p.valence * p.events for p in held) / events,
        sum(p.arousal * p.events for p in held) / events,
        sum(p.intensity * p.events for p in held) / events,
        events,
        peaks,
    )
