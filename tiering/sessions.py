"""Sessions: a stretch of an agent's life, with what it felt at both ends and what happened between.

A session is a memory of the type `_session`, so it is stored, flushed, evicted and rehydrated like one. Its start and
its end are writes, so both have stamps. What carries no session id belongs to the session that was started last of all
that are open at its stamp.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from banshee_memory.cold import reads
from banshee_memory.cold.reads import Lifespan
from banshee_memory.cold.staging import MemoryRow
from banshee_memory.emotions import EmotionalState
from banshee_memory.errors import HotStoreUnavailable, InvalidInput
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import wire
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.records import AgentSession, Json, MemoryRecord, Placed, StoredMemory, known, memory_id
from banshee_memory.settings import Durability
from banshee_memory.stamps import from_us, to_us
from banshee_memory.tiering import histories, memories, pages, states
from banshee_memory.tiering.histories import EVENTS, MESSAGES
from banshee_memory.tiering.residency import Residency
from banshee_memory.tiering.steps import Steps

TYPE = "_session"
_WORTH = 0.5
"""One worth for all, so that memories of this type are listed by their last access, which is their start."""
_PAGE = 200
_ATTEMPTS = 9
"""Two steps and a look at what became of them, and what a failover or two undo of that."""
_FOREVER = 2**62
Span = tuple[int, int]


class _Life(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a session's memory holds. Stamps: `first` is known once it ended, `last` once its totals are."""

    initial: dict[str, float] = {}
    final: dict[str, float] | None = None
    metadata: Any = None
    first: int | None = None
    last: int | None = None
    ended_us: int | None = None
    messages: int = 0
    events: int = 0
    tokens: int = 0


def start(
    residency: Residency, keys: AgentKeys, session_id: UUID, metadata: Json, level: Durability, *, keyed: bool
) -> Steps[AgentSession]:
    """Begins a session. One of this id that was begun before (its id is `keyed`, then) is given as it is."""
    stored = None
    if keyed:
        stored = yield from memories.read(residency, keys, TYPE, str(session_id), counted=False)
    if stored is None:
        yield from states.set_presence(residency, keys, "here")
        failpoint("start_session.here")
        felt = yield from states.load(residency, keys)
        life = _Life(initial=_felt(felt), metadata=metadata)
        body = _body(life)
        once = _once("start", session_id) if keyed else None
        stored = yield from memories.store(residency, keys, TYPE, str(session_id), body, None, level, once)
        stored = yield from _as_it_is(residency, keys, session_id, stored, once)
    return _session(stored)


def end(residency: Residency, keys: AgentKeys, session_id: UUID, level: Durability) -> Steps[AgentSession]:
    """Ends a session: marks the end, counts what lies before it, then adds the totals.

    Whoever dies in between has ended it; ending it again counts again, up to the same end. One that has its totals is
    given as it is.
    """
    stored = yield from memories.read(residency, keys, TYPE, str(session_id), counted=False)
    if stored is None:
        raise _unknown(session_id)
    for _ in range(_ATTEMPTS):
        life = _life(stored)
        if life.last is not None:
            return _session(stored)
        # Each step is looked at again: a server that replaced Redis meanwhile need not know of it.
        step = _mark if life.first is None else _add_totals
        stored = yield from step(residency, keys, session_id, stored, level)
    raise HotStoreUnavailable("Redis was replaced again and again while the session was ended. Call again.")


def _mark(
    residency: Residency, keys: AgentKeys, session_id: UUID, stored: StoredMemory, level: Durability
) -> Steps[StoredMemory]:
    yield from states.set_presence(residency, keys, "away")
    failpoint("end_session.away")
    felt = yield from states.load(residency, keys)
    life = msgspec.structs.replace(_life(stored), first=stored.stamp, final=_felt(felt))
    stored = yield from _replace(residency, keys, session_id, life, level, "end")
    failpoint("end_session.ended")
    return stored


def _add_totals(
    residency: Residency, keys: AgentKeys, session_id: UUID, stored: StoredMemory, level: Durability
) -> Steps[StoredMemory]:
    life = _life(stored)
    assert life.first is not None
    spans = yield from _own_spans(residency, keys, (life.first, stored.stamp))
    messages, tokens, events = yield from _count(residency, keys, session_id, spans)
    ended_us = to_us(known(stored).updated_at)
    life = msgspec.structs.replace(
        life, last=stored.stamp, ended_us=ended_us, messages=messages, tokens=tokens, events=events
    )
    return (yield from _replace(residency, keys, session_id, life, level, "totals"))


def newest(residency: Residency, keys: AgentKeys, limit: int) -> Steps[list[AgentSession]]:
    """The newest sessions, newest first."""
    page = yield from pages.by_type(residency, keys, TYPE, limit, 0)
    return [_session(stored) for stored in page]


def taken_over(
    agent_id: UUID,
    session_id: UUID,
    start: tuple[datetime, int],
    end: tuple[datetime, int] | None,
    *,
    initial: dict[str, float],
    final: dict[str, float],
    metadata: Json,
    totals: tuple[int, int, int],
) -> MemoryRow:
    """A session that was kept elsewhere: its ends with their stamps, its totals of messages, events and tokens."""
    began, first = start
    life = _Life(initial=initial, metadata=metadata)
    if end is not None:
        messages, events, tokens = totals
        ended_us = to_us(end[0])
        life = _Life(initial, final, metadata, first, end[1], ended_us, messages, events, tokens)
    record = MemoryRecord(
        id=memory_id(agent_id, TYPE, str(session_id)),
        agent_id=agent_id,
        memory_type=TYPE,
        key=str(session_id),
        data=msgspec.to_builtins(life),
        importance=_WORTH,
        access_count=0,
        last_accessed=began,
        created_at=began,
        updated_at=end[0] if end else began,
        expires_at=None,
        tags=(),
    )
    return MemoryRow.of(agent_id, TYPE, str(session_id), StoredMemory(end[1] if end else first, record))


def _replace(
    residency: Residency, keys: AgentKeys, session_id: UUID, life: _Life, level: Durability, deed: str
) -> Steps[StoredMemory]:
    """Stores what became of it, unless it is gone by now (its agent was forgotten)."""
    once = _once(deed, session_id)
    stored = yield from memories.replace(residency, keys, TYPE, str(session_id), _body(life), level, once)
    if stored is None:
        raise _unknown(session_id)
    return (yield from _as_it_is(residency, keys, session_id, stored, once))


def _as_it_is(
    residency: Residency, keys: AgentKeys, session_id: UUID, stored: StoredMemory, once: str | None
) -> Steps[StoredMemory]:
    """Of several who do the same deed at once the first does, and all are given what that made of it."""
    if once is None:
        return stored
    return (yield from memories.read(residency, keys, TYPE, str(session_id), counted=False)) or stored


def _once(deed: str, session_id: UUID) -> str:
    return f"{deed} of session {session_id}"


def _body(life: _Life) -> bytes:
    return wire.pack(wire.MemoryBody(msgspec.to_builtins(life), _WORTH))


def _unknown(session_id: UUID) -> InvalidInput:
    return InvalidInput("session_id", f"the agent has no session {session_id}")


def _own_spans(residency: Residency, keys: AgentKeys, whole: Span) -> Steps[list[Span]]:
    """The stamps at which this session was the one started last of those open: inclusive, in order."""
    later: list[Span] = []
    offset = 0
    while True:
        page = yield from pages.by_type(residency, keys, TYPE, _PAGE, offset)
        spans = [_span(stored) for stored in page]
        later += [span for span in spans if span[0] > whole[0]]
        if len(page) < _PAGE or spans[-1][0] <= whole[0]:
            return without(whole, later)
        offset += _PAGE


def without(whole: Span, others: Iterable[Span]) -> list[Span]:
    """What is left of a span of stamps when others are taken out of it."""
    left, at = [], whole[0]
    for first, last in sorted(others):
        if first > whole[1]:
            break
        if at < first:
            left.append((at, first - 1))
        at = max(at, last + 1)
    if at <= whole[1]:
        left.append((at, whole[1]))
    return left


def _span(stored: StoredMemory) -> Span:
    life = _life(stored)
    if life.first is None:
        return stored.stamp, _FOREVER
    return life.first, stored.stamp if life.last is None else life.last


def _count(residency: Residency, keys: AgentKeys, session_id: UUID, spans: list[Span]) -> Steps[tuple[int, int, int]]:
    """Messages, tokens and events: PostgreSQL's up to a stamp, and what is stamped after it.

    Both are as of one look at PostgreSQL after that at Redis: what is flushed later counts as what Redis had.
    """
    messages = yield from histories.resident(MESSAGES, residency, keys)
    events = yield from histories.resident(EVENTS, residency, keys)
    life: Lifespan = yield reads.lifespan_of(keys.agent)
    cold = yield reads.session_totals(keys.agent, life, session_id, spans)

    def fresh(placed: Placed[Any]) -> bool:
        own = placed.record.session_id
        within = own is None and any(first <= placed.stamp <= last for first, last in spans)
        return placed.stamp > life.flushed_stamp and (own == session_id or within)

    said = [placed.record for placed in messages if fresh(placed)]
    return (
        cold.messages + len(said),
        cold.tokens + sum(message.tokens_used or 0 for message in said),
        cold.events + sum(map(fresh, events)),
    )


def _felt(state: EmotionalState | None) -> dict[str, float]:
    return {emotion.value: intensity for emotion, intensity in state.emotions.items()} if state else {}


def _life(stored: StoredMemory) -> _Life:
    return msgspec.convert(known(stored).data, _Life)


def _session(stored: StoredMemory) -> AgentSession:
    record, life = known(stored), _life(stored)
    return msgspec.convert(
        {
            "id": record.key,
            "agent_id": record.agent_id,
            "session_start": record.created_at,
            "session_end": from_us(life.ended_us) if life.ended_us else None,
            "initial_emotional_state": life.initial,
            "final_emotional_state": life.final if life.last is not None else None,
            "total_messages": life.messages,
            "total_events": life.events,
            "total_tokens_used": life.tokens,
            "session_metadata": life.metadata,
        },
        AgentSession,
    )
