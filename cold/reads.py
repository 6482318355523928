"""What can be asked of the cold tier: pure plans, run by either client.

A plan names a statement of `queries.sql`, carries its parameters and knows how to decode its rows. Places in a history
are (µs since the epoch, stamp); times are µs since the epoch; limits are the caller's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from banshee_memory.cold.codec import POSTGRES_EPOCH_US
from banshee_memory.cold.queries import STATEMENTS, in_language
from banshee_memory.cold.rows import (
    Row,
    deed_record,
    event_record,
    memory_record,
    message_record,
    message_records,
    numbers,
    state_record,
)
from banshee_memory.emotions import StoredState
from banshee_memory.records import (
    ROLES,
    ConversationMessage,
    ConversationStats,
    EmotionalEventRecord,
    MemoryRecord,
    Placed,
    Recovery,
    StoredMemory,
    TrendPoint,
)
from banshee_memory.stamps import from_us, id_span, stamp_us, to_us
from banshee_memory.timeline import Deed

T = TypeVar("T")
R = TypeVar("R")
Place = tuple[int, int]

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
LAST_STAMP = 2**63 - 1
_NO_ID = UUID(int=0)
RANKED = 500
LEAST_INDEXED = 1 << 18
"""Bytes of a partition below which an index of words would gain nothing: about a thousand messages."""


class Query(msgspec.Struct, Generic[T], frozen=True):
    """A statement by its name, its parameters, and what its rows mean. `language`: the constant that is part of it."""

    name: str
    params: Mapping[str, Any]
    decode: Callable[[Sequence[Row]], T]
    language: str | None = None

    @property
    def sql(self) -> str:
        """As PostgreSQL gets it."""
        return STATEMENTS[self.name].sql if self.language is None else in_language(self.name, self.language)


class Page(NamedTuple, Generic[R]):
    """Some of a history, oldest first; and of all that PostgreSQL ever had of it how many, and between which times (µs)
    they lie. What retention dropped is in that, too."""

    placed: list[Placed[R]]
    total: int = 0
    first_us: int = 0
    last_us: int = 0


class Totals(NamedTuple):
    """Exact totals of an agent: they count what is stamped up to `flushed_stamp`, what retention dropped included."""

    flushed_stamp: int
    stats: ConversationStats
    total_events: int


class Lifespan(NamedTuple):
    """How many messages and events of an agent there ever were and between which times, as pages that hold none: exact
    up to `flushed_stamp`. No record of the agent lies outside that was flushed by then."""

    flushed_stamp: int
    messages: Page[ConversationMessage]
    events: Page[EmotionalEventRecord]


class SessionTotals(NamedTuple):
    """What PostgreSQL has of a session."""

    messages: int
    tokens: int
    events: int


class Trend(NamedTuple):
    """What an agent felt: by place in its history (of what retention dropped, where the hour or day begins) and, of
    events, id. Events before `rolled_up_to_us` can be gone, and are in these means then."""

    rolled_up_to_us: int
    points: list[tuple[int, int, UUID | None, TrendPoint]]


class Overview(NamedTuple):
    """Tables with their estimated rows and their partitions."""

    rows: dict[str, int]
    partitions: dict[str, int]


class Extent(NamedTuple):
    """The size of the database, and how many agents it knows."""

    database_bytes: int
    agents: int


def state_of(agent: UUID) -> Query[StoredState | None]:
    """What an agent feels, as it was felt; None if it never felt anything that was flushed."""
    return Query("state_of", {"agent": agent}, _state)


def message_page(
    agent: UUID, limit: int, before: Place | None = None, since_us: int = 0
) -> Query[Page[ConversationMessage]]:
    """The newest `limit` messages before a place and not before `since_us`: no partition beyond is looked into."""

    def decoded(rows: Sequence[Row]) -> Page[ConversationMessage]:
        known, said = _known(rows)
        if known is None or known[7] is None:
            return Page(message_records(agent, said))
        *_, total, _, first, last_us = known
        return Page(message_records(agent, said), total, first + POSTGRES_EPOCH_US, last_us)

    return Query("message_page", _page(agent, limit, before, since_us), decoded)


def messages_after(
    agent: UUID,
    limit: int,
    after: Placed[ConversationMessage] | None = None,
    since_us: int = 0,
    until_us: int | None = None,
) -> Query[list[Placed[ConversationMessage]]]:
    """The oldest `limit` messages after that one, or not before `since_us`, and not after `until_us`, oldest first."""
    params = _onward(agent, limit, after, since_us, until_us)
    return Query("messages_after", params, lambda rows: message_records(agent, rows))


def message_place(agent: UUID, message_id: UUID) -> Query[Placed[ConversationMessage] | None]:
    """A message and its place. Only an id without a time in it (not version 7) costs a look into every partition."""
    if message_id.version != 7:
        params: dict[str, Any] = {"agent": agent, "id": message_id}
        return Query("message_place_unpruned", params, _one_message(agent))
    since, until = id_span(message_id)
    params = {"agent": agent, "id": message_id, "since": since, "until": until}
    return Query("message_place", params, _one_message(agent))


Hit = tuple[UUID, Placed[ConversationMessage] | None]


class Found(NamedTuple):
    """What a search found, and whether looking further back could find nothing that is to be ranked."""

    hits: list[Hit]
    is_all: bool


def search(
    agent: UUID,
    query: str,
    limit: int,
    language: str,
    unflushed: Sequence[tuple[UUID, str]] = (),
    since_us: int = 0,
) -> Query[Found]:
    """The messages since then that match a web-style query, best first, then newest; None in place of an unflushed one.

    `unflushed` is (id, content), oldest first. `language` is a text search configuration of the server. Of more than
    RANKED stored messages that match (or `limit`, if that is more) the newest are ranked: to rank one is to work out
    its words.
    """
    params = {
        "agent": agent,
        "query": query,
        "limit": limit,
        "ranked": max(limit, RANKED),
        "ids": [message for message, _ in unflushed],
        "texts": [content for _, content in unflushed],
        "since": from_us(since_us),
    }

    def found(rows: Sequence[Row]) -> Found:
        return Found([(row[0], _found(agent, row[:-1])) for row in rows], not since_us or bool(rows and rows[0][-1]))

    return Query("search", params, found, language)


def weeks_without_words(
    language: str, since: datetime | None, until: datetime, least: int = LEAST_INDEXED
) -> Query[list[datetime]]:
    """The weeks that ended in that time and have no index of words in this language, though they are large enough for
    one; oldest first."""
    params = {"language": language, "since": since, "until": until, "least": least}
    return Query("weeks_without_words", params, lambda rows: [lower for (lower,) in rows])


def totals_of(agent: UUID) -> Query[Totals]:
    """An agent's totals; zeros for one that was never flushed."""
    return Query("totals_of", {"agent": agent}, _totals)


def event_page(
    agent: UUID, limit: int, before: Place | None = None, since_us: int = 0
) -> Query[Page[EmotionalEventRecord]]:
    """The newest `limit` events before a place and not before `since_us`; see message_page."""

    def decoded(rows: Sequence[Row]) -> Page[EmotionalEventRecord]:
        known, happened = _known(rows)
        placed = [event_record(agent, row) for row in happened]
        if known is None or known[11] is None:
            return Page(placed)
        *_, first, last, _, _, total = known
        return Page(placed, total, to_us(first), to_us(last))

    return Query("event_page", _page(agent, limit, before, since_us), decoded)


def lifespan_of(agent: UUID) -> Query[Lifespan]:
    """How many messages and events of an agent there are, and between which times."""
    return Query("lifespan_of", {"agent": agent}, _lifespan)


def message_span(agent: UUID) -> Query[Page[ConversationMessage]]:
    """A page without messages: how many there are, and between which times."""
    return Query("lifespan_of", {"agent": agent}, lambda rows: _lifespan(rows).messages)


def event_span(agent: UUID) -> Query[Page[EmotionalEventRecord]]:
    """The same of events."""
    return Query("lifespan_of", {"agent": agent}, lambda rows: _lifespan(rows).events)


def events_after(
    agent: UUID,
    limit: int,
    after: Placed[EmotionalEventRecord] | None = None,
    since_us: int = 0,
    until_us: int | None = None,
) -> Query[list[Placed[EmotionalEventRecord]]]:
    """The oldest `limit` events after that one, or not before `since_us`; see messages_after."""
    params = _onward(agent, limit, after, since_us, until_us)
    return Query("events_after", params, lambda rows: [event_record(agent, row) for row in rows])


def trend(agent: UUID, since_us: int, limit: int) -> Query[Trend]:
    """What it felt since a time: after each of its newest `limit` events, and the means of those that are gone."""
    return Query("trend", {"agent": agent, "since": from_us(since_us), "limit": limit}, _trend)


def deeds_until(
    agent: UUID, life: Page[EmotionalEventRecord], before: tuple[int, UUID], limit: int
) -> Query[list[Deed]]:
    """The newest `limit` events of a life that were told before that (stamp, id), newest first, with the states around
    each."""
    stamp, event = before
    params = {"agent": agent, "until": from_us(stamp_us(stamp) + 999), "stamp": stamp, "id": event, "limit": limit}
    params |= {"first": from_us(life.first_us), "last": from_us(life.last_us)}
    return Query("deeds_until", params, lambda rows: [deed_record(agent, row) for row in rows])


def deed_from(agent: UUID, life: Page[EmotionalEventRecord], stamp: int) -> Query[list[Deed]]:
    """The first event of a life that was told at that stamp or after it, if there is one, with the states around it."""
    params = {"agent": agent, "since": from_us(stamp_us(stamp)), "stamp": stamp}
    params |= {"first": from_us(life.first_us), "last": from_us(life.last_us)}
    return Query("deed_from", params, lambda rows: [deed_record(agent, row) for row in rows])


def memory_of(agent: UUID, memory_type: str, key: str, now_us: int) -> Query[StoredMemory | None]:
    """A memory; None: never known; its `record` None: deleted, or expired by now."""
    params = {"agent": agent, "memory_type": memory_type, "key": key}
    return Query("memory_of", params, lambda rows: memory_record(agent, rows[0], now_us) if rows else None)


def memory_page(
    agent: UUID, memory_type: str | None, now_us: int, limit: int, offset: int = 0
) -> Query[list[StoredMemory]]:
    """Living memories (None: of all types), by importance, then last access, descending, then by name."""
    params: dict[str, Any] = {"agent": agent, "now": from_us(now_us), "limit": limit, "offset": offset}
    name = "memory_page_of_all_types"
    if memory_type is not None:
        name, params["memory_type"] = "memory_page", memory_type
    return Query(name, params, lambda rows: [memory_record(agent, row, now_us) for row in rows])


def memories_after(
    agent: UUID, limit: int, now_us: int, after: MemoryRecord | None = None
) -> Query[list[StoredMemory]]:
    """Living memories of all types after that one, by type and key."""
    memory_type, key = (after.memory_type, after.key) if after else ("", "")
    params = {"agent": agent, "memory_type": memory_type, "key": key, "now": from_us(now_us), "limit": limit}
    return Query("memories_after", params, lambda rows: [memory_record(agent, row, now_us) for row in rows])


def session_totals(
    agent: UUID, life: Lifespan, session: UUID, spans: Sequence[tuple[int, int]]
) -> Query[SessionTotals]:
    """What of a life belongs to a session: what names it, or names none and is stamped within one of the spans
    (inclusive)."""
    params = {
        "agent": agent,
        "through": life.flushed_stamp,
        "first_message": from_us(life.messages.first_us),
        "last_message": from_us(life.messages.last_us),
        "first_event": from_us(life.events.first_us),
        "last_event": from_us(life.events.last_us),
        "session": session,
        "firsts": [first for first, _ in spans],
        "lasts": [last for _, last in spans],
    }
    return Query("session_totals", params, lambda rows: SessionTotals(*rows[0]))


def shard_stamps() -> Query[list[tuple[int, int]]]:
    """Every shard, and up to which stamp it was flushed."""
    return Query("shard_stamps", {}, lambda rows: [(shard, stamp) for shard, stamp in rows])


def tombstones(agents: Collection[UUID]) -> Query[dict[UUID, int]]:
    """Those of the agents that were forgotten, and up to which stamp."""
    # As one text: a list of thousands costs the driver more than the server.
    listed = "{" + ",".join(agent.hex for agent in agents) + "}"
    return Query("tombstones", {"agents": listed}, lambda rows: dict(map(tuple, rows)))


def shard_stamp(shard: int) -> Query[int]:
    """Up to which stamp a shard was flushed."""
    return Query("shard_stamp", {"shard": shard}, lambda rows: int(rows[0][0]))


def flushed_stamps() -> Query[list[tuple[int, int]]]:
    """Every shard, and up to which stamp its flushes went."""
    return Query("flushed_stamps", {}, lambda rows: [(shard, stamp) for shard, stamp in rows])


def recoveries(limit: int) -> Query[tuple[Recovery, ...]]:
    """The latest servers that were found to be others than before, latest first."""
    return Query("recoveries", {"limit": limit}, lambda rows: tuple(Recovery(*row) for row in rows))


def agents(after: UUID | None, limit: int) -> Query[list[UUID]]:
    """The agents that were ever flushed, in the order of their ids, after that one."""
    params = {"after": after or _NO_ID, "limit": limit}
    return Query("agents", params, lambda rows: [row[0] for row in rows])


def agent_known(agent: UUID) -> Query[bool]:
    """Whether anything of the agent was ever flushed."""
    return Query("agent_known", {"agent": agent}, lambda rows: bool(rows[0][0]))


def overview() -> Query[Overview]:
    """Tables, their estimated rows and their partitions; costs what the catalog costs, not what the tables hold."""
    return Query("overview", {}, _overview)


def extent() -> Query[Extent]:
    """The bytes of the database and its agents, counted."""
    return Query("database_size", {}, lambda rows: Extent(*rows[0]))


def server_version() -> Query[str]:
    """The server's version: the least that can be asked."""
    return Query("ping", {}, lambda rows: str(rows[0][0]))


def _page(agent: UUID, limit: int, before: Place | None, since_us: int) -> dict[str, Any]:
    until, stamp = (from_us(before[0]), before[1]) if before else (_END_OF_TIME, LAST_STAMP)
    return {"agent": agent, "since": from_us(since_us), "until": until, "stamp": stamp, "limit": limit}


def _onward(agent: UUID, limit: int, after: Placed[Any] | None, since_us: int, until_us: int | None) -> dict[str, Any]:
    place = (after.at_us, after.stamp, after.record.id) if after else (since_us, -1, _NO_ID)
    params = dict(zip(("since", "stamp", "id"), (from_us(place[0]), *place[1:]), strict=True))
    until = _END_OF_TIME if until_us is None else from_us(until_us)
    return {"agent": agent, "until": until, "limit": limit, **params}


def _one_message(agent: UUID) -> Callable[[Sequence[Row]], Placed[ConversationMessage] | None]:
    return lambda rows: message_record(agent, rows[0]) if rows else None


def _known(rows: Sequence[Row]) -> tuple[Row | None, Sequence[Row]]:
    """The last row of a page, if that is the one about all, and the others, oldest first."""
    if rows and rows[-1][0] is None:
        return rows[-1], rows[-2::-1]
    return None, rows[::-1]


def _lifespan(rows: Sequence[Row]) -> Lifespan:
    if not rows:
        return Lifespan(0, Page([]), Page([]))
    ((flushed_stamp, *told),) = rows
    return Lifespan(flushed_stamp, _span(*told[:3]), _span(*told[3:]))


def _span(total: int, first: datetime | None, last: datetime | None) -> Page[Any]:
    return Page([]) if first is None or last is None else Page([], total, to_us(first), to_us(last))


def _found(agent: UUID, row: Row) -> Placed[ConversationMessage] | None:
    return None if row[7] is None else message_record(agent, row)


def _trend(rows: Sequence[Row]) -> Trend:
    rolled_up_to, points = 0, []
    for event, at, stamp, valence, arousal, intensity, events, peaks in rows:
        if not events:
            rolled_up_to = to_us(at)
        else:
            point = TrendPoint(at, valence, arousal, intensity, events, numbers(peaks))
            points.append((to_us(at), stamp, event, point))
    return Trend(rolled_up_to, points)


def _state(rows: Sequence[Row]) -> StoredState | None:
    return state_record(rows[0]) if rows else None


def _totals(rows: Sequence[Row]) -> Totals:
    stamp, total, *by_role, tokens, first, last, events = rows[0] if rows else (0,) * 8 + (None, None, 0)
    said: dict[str, int] = dict(zip(ROLES, by_role, strict=True))
    stats = ConversationStats(
        total_messages=total,
        user_messages=said["user"],
        assistant_messages=said["assistant"],
        by_role=said,
        total_tokens=tokens,
        first_message=first,
        last_message=last,
    )
    return Totals(stamp, stats, events)


def _overview(rows: Sequence[Row]) -> Overview:
    return Overview({name: held for name, _, held in rows}, {name: parts for name, parts, _ in rows})
