"""An agent's memories of a type in the order of their worth, from Redis alone where all of them are resident.

The index says of a type that it names them all, for as long as it does (`lua/index.lua`); a value that is not there any
more shows when it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from banshee_memory.cold import reads
from banshee_memory.errors import HotStoreFull
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, leases, packed, wire
from banshee_memory.hot.calls import MISS, Call, Miss
from banshee_memory.hot.faults import ServerError
from banshee_memory.hot.keys import AgentKeys, member_of, member_parts
from banshee_memory.records import MemoryRecord, StoredMemory, known
from banshee_memory.stamps import to_us
from banshee_memory.tiering.residency import Residency
from banshee_memory.tiering.steps import Steps

_AHEAD = 50
"""So many are asked for where fewer are wanted: a type that has no more becomes resident with its first page."""
_MOST = 1_000
"""A type that has more in PostgreSQL is not made resident as a whole."""
_OFFERED_AT_ONCE = 200
_BYTES_AT_ONCE = 1 << 20


def by_type(
    residency: Residency, keys: AgentKeys, memory_type: str | None, limit: int, offset: int
) -> Steps[list[StoredMemory]]:
    """Those of a type (None: of all that are no type of ours), by importance, then last access, descending."""
    seen = yield from _look(residency, keys, memory_type)
    cold: list[StoredMemory] = []
    if seen.is_all:
        residency.counters.hits += 1
    else:
        residency.counters.misses += 1
        # Whatever is resident may push any of PostgreSQL's out of the page, or stand in it instead of its older self.
        asked = max(offset + limit, _AHEAD) + len(seen.hot) + 1
        token = (yield from _leased(residency, keys, memory_type, seen)) if len(seen.hot) <= _MOST else None
        failpoint("list.type_leased")
        cold = yield reads.memory_page(keys.agent, memory_type, seen.now_us, asked, 0)
        failpoint("list.type_asked")
        if token and len(cold) < asked and len(cold) <= _MOST:
            yield from _offered(residency, keys, memory_type, token, seen, cold, whole=True)
    return _page(cold, seen)[offset : offset + limit]


def page_call(
    keys: AgentKeys, clock: Call[int], memory_type: str | None, limit: int, members: Sequence[str]
) -> Call[list[MemoryRecord] | Miss]:
    """The first of a type where Redis has all of it, and these are the memories that the index names; else a miss."""
    asked = [member for member in members if _is_of(member, memory_type)]
    wanted, agreed = set(asked), None

    def page_of(replies: Sequence[Any]) -> list[MemoryRecord] | Miss:
        nonlocal agreed
        time, names, *values = replies
        if isinstance(time, ServerError) or type(names) is not list or any(type(raw) is not bytes for raw in values):
            return MISS
        if names != agreed:  # what was agreed last time need not be looked at again
            index = calls.index_of(names)
            if not index.is_whole(memory_type) or {m for m in index.members if _is_of(m, memory_type)} != wanted:
                return MISS
            agreed = names
        try:
            hot = {member: wire.memory_of(keys.agent, member, raw) for member, raw in zip(asked, values, strict=True)}
        except wire.Undecodable:
            return MISS
        return [known(stored) for stored in _page((), _Seen(clock.decode(time), hot, [], is_all=True))[:limit]]

    each = [calls.memory_bytes(keys, member) for member in asked]
    return packed.packed(clock, calls.memory_index(keys), *each, decode=page_of)


def rehydrate_worthiest(residency: Residency, keys: AgentKeys, count: int) -> Steps[int]:
    """Brings in the most important memories of all types; gives how many were not there."""
    seen = yield from _look(residency, keys, None)
    token = yield from _leased(residency, keys, None, seen)
    cold = yield reads.memory_page(keys.agent, None, seen.now_us, count + 1, 0)
    if not token:
        return 0
    whole = len(cold) <= count
    return (yield from _offered(residency, keys, None, token, seen, cold[:count], whole=whole))


class _Seen(NamedTuple):
    """What Redis has of a type: memories and absences by member, names without a value, and whether that is all."""

    now_us: int
    hot: dict[str, StoredMemory]
    empty: list[str]
    is_all: bool


def _look(residency: Residency, keys: AgentKeys, memory_type: str | None) -> Steps[_Seen]:
    """The index, and what it names. What it named last is asked for along with it, so that is mostly one round trip."""
    likely = [member for member in residency.members_of(keys) or () if _is_of(member, memory_type)]
    asked = [calls.memory_bytes(keys, member) for member in likely]
    now_us, index, *replies = yield [calls.now(), calls.memory_index(keys), *asked]
    residency.saw_members(keys, index.members)
    values = dict(zip(likely, replies, strict=True))
    members = [member for member in index.members if _is_of(member, memory_type)]
    more = [member for member in members if member not in values]
    if more:
        replies = yield [calls.memory_bytes(keys, member) for member in more]
        values.update(zip(more, replies, strict=True))
    hot, empty = {}, []
    for member in members:
        raw = values[member]
        if raw is None or raw[:1] == b"L":
            empty.append(member)
        elif readable := residency.readable(partial(wire.memory_of, keys.agent, member), [raw]):
            hot[member] = readable[0]
    return _Seen(now_us, hot, empty, index.is_whole(memory_type) and len(hot) == len(members))


def _is_of(member: str, memory_type: str | None) -> bool:
    own = member_parts(member)[0]
    return own == memory_type or (memory_type is None and not own.startswith("_"))


def _leased(residency: Residency, keys: AgentKeys, memory_type: str | None, seen: _Seen) -> Steps[bytes | None]:
    """The right to say what PostgreSQL will; None where Redis has no room."""
    with suppress(HotStoreFull):
        ttl = residency.settings.lease_ttl
        return (yield leases.lease_memories(keys, memory_type, os.urandom(8), ttl, seen.empty))  # type: ignore[no-any-return]
    return None


def _offered(
    residency: Residency,
    keys: AgentKeys,
    memory_type: str | None,
    token: bytes,
    seen: _Seen,
    cold: Iterable[StoredMemory],
    *,
    whole: bool,
) -> Steps[int]:
    """Offers what PostgreSQL said; gives how many were not there."""
    ttl, values = residency.settings.hot_ttl, {}
    for stored in cold:
        if stored.record:
            member = member_of(stored.record.memory_type, stored.record.key)
            values[member] = b"" if member in seen.hot else wire.memory_bytes(stored)
    batches = list(_batches(values))
    offer = partial(leases.offer_memories, keys, memory_type, token, ttl)
    with suppress(HotStoreFull):
        replies = yield [offer(batch, whole=whole and batch is batches[-1]) for batch in batches]
        failpoint("list.type_offered")
        return sum(replies)
    return 0


def _batches(values: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
    """So few and small that none of the calls holds the server up; one at least."""
    batch: dict[str, bytes] = {}
    size = 0
    for member, value in values.items():
        if len(batch) == _OFFERED_AT_ONCE or (batch and size + len(value) > _BYTES_AT_ONCE):
            yield batch
            batch, size = {}, 0
        batch[member] = value
        size += len(value)
    yield batch


def _page(cold: Iterable[StoredMemory], seen: _Seen) -> list[StoredMemory]:
    """Of both, what lives, the worthiest first; where both have one, what Redis has is newer."""
    found = {member_of(stored.record.memory_type, stored.record.key): stored for stored in cold if stored.record}
    found.update(seen.hot)
    living = [(stored.record, stored) for stored in found.values() if stored.record]
    living = [(record, stored) for record, stored in living if _lives(record, seen.now_us)]
    living.sort(key=lambda pair: _worth(pair[0]))
    return [stored for _, stored in living]


def _worth(record: MemoryRecord) -> tuple[float, int, str, str]:
    return -record.importance, -to_us(record.last_accessed), record.memory_type, record.key


def _lives(record: MemoryRecord, now_us: int) -> bool:
    return record.expires_at is None or to_us(record.expires_at) > now_us
