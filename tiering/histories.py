"""Messages and events, wherever each of them is: the newest, those before one, those since a time.

A two-tier read takes from Redis first and from PostgreSQL second: what is flushed in between is then seen twice, and
made one by its id. In the other order it would be missed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from banshee_memory.cold import reads
from banshee_memory.errors import HotStoreFull, InvalidInput
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, leases, wire
from banshee_memory.hot.calls import MISS, Call, Miss
from banshee_memory.hot.faults import ServerError
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.hot.packed import packed
from banshee_memory.records import ConversationMessage, EmotionalEventRecord, Placed
from banshee_memory.tiering import reach
from banshee_memory.tiering.reach import PageOf, Reach, SpanOf
from banshee_memory.tiering.residency import Residency, offered
from banshee_memory.tiering.steps import Steps

R = TypeVar("R", ConversationMessage, EmotionalEventRecord)
Place = tuple[float, int]
BEGINNING: Place = (0.0, 0)


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """One of the two histories of an agent: where it is and how it is read."""

    key: Callable[[AgentKeys], str]
    cap: Callable[[Residency], int]
    decode: Callable[[UUID, bytes], Placed[R]]
    record: Callable[[UUID, bytes], R]
    records: Callable[[UUID, Sequence[bytes]], list[R]]
    """Of many elements at once; Undecodable where one of them cannot be read."""
    encode: Callable[[Placed[R]], bytes]
    page: PageOf[R]
    span: SpanOf[R]
    reach: Callable[[Residency], Reach]


MESSAGES: Kind[ConversationMessage] = Kind(
    key=lambda keys: keys.messages,
    cap=lambda residency: residency.settings.message_cap,
    decode=wire.message_of,
    record=wire.message_record,
    records=wire.message_records,
    encode=wire.message_element,
    page=reads.message_page,
    span=reads.message_span,
    reach=lambda residency: residency.messages_reach,
)
EVENTS: Kind[EmotionalEventRecord] = Kind(
    key=lambda keys: keys.events,
    cap=lambda residency: residency.settings.event_cap,
    decode=lambda agent, element: wire.event_of(agent, element).placed,
    record=lambda agent, element: wire.event_of(agent, element).placed.record,
    records=lambda agent, elements: [wire.event_of(agent, element).placed.record for element in elements],
    encode=wire.event_element,
    page=reads.event_page,
    span=reads.event_span,
    reach=lambda residency: residency.events_reach,
)


def newest(kind: Kind[R], residency: Residency, keys: AgentKeys, limit: int) -> Steps[list[R]]:
    """The newest `limit`, oldest first."""
    history = calls.end_of((yield calls.history_end(kind.key(keys), limit)))
    try:
        records = kind.records(keys.agent, history.elements)
    except wire.Undecodable:
        records = residency.readable(partial(kind.record, keys.agent), history.elements)
    if _spans(history, len(records), limit):
        keep = residency.hit(kind.key(keys))
        if keep is not None:
            yield keep
        return records
    residency.counters.misses += 1
    return (yield from _through(kind, residency, keys, limit))


def newest_call(kind: Kind[R], keys: AgentKeys, limit: int) -> Call[list[R] | Miss]:
    """The same where Redis has all of them and each is as most are; else a miss."""
    agent, decode = keys.agent, kind.records

    def newest_of(replies: Sequence[Any]) -> list[R] | Miss:
        header, elements, after = replies
        if header != after or type(elements) is not list or len(elements) < limit or elements[0][:1] == b"\xff":
            return _newest_of(kind, agent, limit, replies)
        try:
            records = decode(agent, elements)
        except wire.Undecodable:
            return MISS
        return records if wire.covers(header, elements[0]) else MISS

    return packed(*calls.history_end(kind.key(keys), limit), decode=newest_of)


def _newest_of(kind: Kind[R], agent: UUID, limit: int, replies: Sequence[Any]) -> list[R] | Miss:
    """Those of a list that is short, or changed meanwhile, or none."""
    if ServerError in map(type, replies):
        return MISS
    history = calls.end_of(replies)
    try:
        records = kind.records(agent, history.elements)
    except wire.Undecodable:
        return MISS
    return records if _spans(history, len(records), limit) else MISS


def _spans(history: wire.History, read: int, limit: int) -> bool:
    """Whether the newest `limit` are all among the elements, so many of which can be read."""
    if history.header is None:
        return False
    return history.header.covers(*(wire.place_of(history.elements[0]) if read >= limit else BEGINNING))


def _reaches(header: wire.Header | None, hot: Sequence[Placed[R]], limit: int) -> bool:
    """Whether the newest `limit` are all among these."""
    if header is None:
        return False
    if len(hot) >= limit:
        return not hot or header.covers(hot[-limit].at_us, hot[-limit].stamp)
    return header.covers(*BEGINNING)


def _through(kind: Kind[R], residency: Residency, keys: AgentKeys, limit: int) -> Steps[list[R]]:
    hot, cold = yield from _both(kind, residency, keys, max(limit, kind.cap(residency)))
    return _records(merged(cold, hot)[-limit:])


def rehydrate(kind: Kind[R], residency: Residency, keys: AgentKeys) -> Steps[int]:
    """Brings the newest in, as many as Redis keeps; gives how many of them were not there."""
    history = calls.end_of((yield calls.history_end(kind.key(keys), kind.cap(residency))))
    resident = _read(kind, residency, keys, history.elements)
    if _reaches(history.header, resident, kind.cap(residency)):
        return 0
    hot, cold = yield from _both(kind, residency, keys, kind.cap(residency))
    known = {p.record.id for p in hot}
    return sum(p.record.id not in known for p in cold)


def _both(
    kind: Kind[R], residency: Residency, keys: AgentKeys, limit: int
) -> Steps[tuple[list[Placed[R]], list[Placed[R]]]]:
    """The newest of the list as it stands, and PostgreSQL's newest `limit`, which are offered to it on the way."""
    # Twice as many: what cannot be decoded is skipped.
    history = yield from _leased(kind, residency, keys, 2 * limit)
    failpoint("rehydrate.history_leased")
    hot = _read(kind, residency, keys, history.elements)
    cold = yield from reach.newest(kind.page, kind.span, kind.reach(residency), keys.agent, limit)
    failpoint("rehydrate.history_asked")
    if history.header is not None:
        cap = kind.cap(residency)
        latest = cold[-cap:]
        whole = len(cold) < limit and len(latest) == len(cold)
        start = BEGINNING if whole or not latest else (latest[0].at_us, latest[0].stamp)
        elements = [kind.encode(placed) for placed in latest]
        ttl = residency.settings.hot_ttl
        yield from offered(leases.offer_history(kind.key(keys), history.header, ttl, start, elements))
    return hot, cold


def _leased(kind: Kind[R], residency: Residency, keys: AgentKeys, limit: int) -> Steps[wire.History]:
    """The end of the list. One that is not resident is begun, empty, so that there is something to offer to."""
    at: str = kind.key(keys)
    token, ttl = os.urandom(8), residency.settings.lease_ttl
    try:
        replies = yield [leases.lease(at, "h", token, ttl), *calls.history_end(at, limit)]
        return calls.end_of(replies[1:])
    except HotStoreFull:
        return calls.end_of((yield calls.history_end(at, limit)))


def before(kind: Kind[R], residency: Residency, keys: AgentKeys, limit: int, cursor: UUID) -> Steps[list[R]]:
    """The newest `limit` of those before the one with this id, oldest first."""
    history = yield calls.whole_history(kind.key(keys))
    hot = _read(kind, residency, keys, history.elements)
    found = next((placed for placed in hot if placed.record.id == cursor), None)
    if found is None:
        found = yield reads.message_place(keys.agent, cursor)
    if found is None:
        raise InvalidInput("before", f"the agent has no message {cursor}")
    place = (found.at_us, found.stamp)
    older = [placed for placed in hot if (placed.at_us, placed.stamp) < place]
    if _reaches(history.header, older, limit):
        residency.counters.hits += 1
        return _records(older[-limit:])
    residency.counters.misses += 1
    cold = yield from reach.before(kind.page, kind.reach(residency), keys.agent, limit, place)
    return _records(merged(cold, older)[-limit:])


def resident(kind: Kind[R], residency: Residency, keys: AgentKeys) -> Steps[list[Placed[R]]]:
    """All that is in Redis, which includes all that is nowhere else."""
    history = yield calls.whole_history(kind.key(keys))
    return _read(kind, residency, keys, history.elements)


def merged(cold: Iterable[Placed[R]], hot: Iterable[Placed[R]]) -> list[Placed[R]]:
    """Both, in order of place, each once; of two with one id the hot one."""
    by_id = {placed.record.id: placed for placed in cold}
    by_id.update({placed.record.id: placed for placed in hot})
    return sorted(by_id.values(), key=lambda placed: (placed.at_us, placed.stamp))


def _read(kind: Kind[R], residency: Residency, keys: AgentKeys, elements: Iterable[bytes]) -> list[Placed[R]]:
    return residency.readable(lambda element: kind.decode(keys.agent, element), elements)


def _records(placed: Iterable[Placed[R]]) -> list[Any]:
    return [p.record for p in placed]
