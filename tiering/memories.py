"""What an agent knows, wherever it is."""

from __future__ import annotations

import os
from typing import Any

from banshee_memory.cold import reads
from banshee_memory.errors import ColdStoreUnavailable, HotStoreFull
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, leases
from banshee_memory.hot.calls import MISS
from banshee_memory.hot.keys import AgentKeys, member_of
from banshee_memory.hot.leases import RESIDENT
from banshee_memory.records import StoredMemory
from banshee_memory.settings import Durability
from banshee_memory.tiering.residency import Residency, insist, offered
from banshee_memory.tiering.steps import Steps, write

_ATTEMPTS = 3


def store(
    residency: Residency,
    keys: AgentKeys,
    memory_type: str,
    key: str,
    body: bytes,
    ttl: float | None,
    level: Durability,
    once: str | None = None,
    *,
    volatile: bool = False,
) -> Steps[StoredMemory]:
    """Stores or replaces. A replaced memory keeps its creation time and access count, so it must be resident; while
    PostgreSQL is away, one that is not is stored as new."""

    def call(how: str) -> calls.Call[Any]:
        return calls.store_memory(keys, memory_type, key, body, ttl, how=how, once=once)

    if volatile:
        return (yield write(call("volatile"), level))  # type: ignore[no-any-return]
    try:
        stored = yield from insist(call(""), lambda: rehydrate(residency, keys, memory_type, key), level)
    except ColdStoreUnavailable:
        stored = yield write(call("blind"), level)
    return stored  # type: ignore[no-any-return]


def replace(
    residency: Residency,
    keys: AgentKeys,
    memory_type: str,
    key: str,
    body: bytes,
    level: Durability,
    once: str | None = None,
) -> Steps[StoredMemory | None]:
    """Replaces a memory; None where there is none any more: who read it must not bring it back."""
    call = calls.store_memory(keys, memory_type, key, body, None, how="replace", once=once)
    stored = yield from insist(call, lambda: rehydrate(residency, keys, memory_type, key), level)
    return stored  # type: ignore[no-any-return]


def read(
    residency: Residency, keys: AgentKeys, memory_type: str, key: str, *, counted: bool
) -> Steps[StoredMemory | None]:
    """A memory; `counted` as an access, unless Redis is too full to count."""
    look = calls.get_memory(keys, memory_type, key)
    call = calls.retrieve_memory(keys, memory_type, key) if counted else look
    stored = yield from _uncounted_if_full(call, look)
    if stored is not MISS:
        residency.counters.hits += 1
        return _living(stored)
    return (yield from _through(residency, keys, memory_type, key, call))


def data(residency: Residency, keys: AgentKeys, memory_type: str, key: str) -> Steps[Any]:
    """The data of a memory, counted as an access; the rest of it is not even looked at where it is resident."""
    try:
        found = yield calls.retrieve_data(keys, memory_type, key)
    except HotStoreFull:
        stored = yield from read(residency, keys, memory_type, key, counted=False)
    else:
        if found is not MISS:
            residency.counters.hits += 1
            return found
        stored = yield from _through(residency, keys, memory_type, key, calls.retrieve_memory(keys, memory_type, key))
    return stored.record.data if stored and stored.record else None


def _through(
    residency: Residency, keys: AgentKeys, memory_type: str, key: str, call: calls.Call[Any]
) -> Steps[StoredMemory | None]:
    residency.counters.misses += 1
    look = calls.get_memory(keys, memory_type, key)
    for _ in range(_ATTEMPTS):
        cold = yield from rehydrate(residency, keys, memory_type, key)
        stored = yield from _uncounted_if_full(call, look)
        if stored is not MISS:
            return _living(stored)
    # Redis does not keep it, so there is nothing to count on, and all of it is cold.
    return _living(cold or (yield reads.memory_of(keys.agent, memory_type, key, (yield calls.now()))))


def _uncounted_if_full(call: calls.Call[Any], look: calls.Call[Any]) -> Steps[Any]:
    try:
        return (yield call)
    except HotStoreFull:
        return (yield look)


def _living(stored: StoredMemory | None) -> StoredMemory | None:
    return stored if stored and stored.record else None


def delete(residency: Residency, keys: AgentKeys, memory_type: str, key: str, level: Durability) -> Steps[bool]:
    """Deletes; False where there was none."""
    call = calls.delete_memory(keys, memory_type, key)
    # A full Redis still deletes, but what it does not hold it has no room to bring in.
    deleted = yield from insist(call, lambda: rehydrate(residency, keys, memory_type, key, must=True), level)
    return bool(deleted)


def rehydrate(
    residency: Residency, keys: AgentKeys, memory_type: str, key: str, *, must: bool = False
) -> Steps[StoredMemory | None]:
    """Brings a memory in, or its absence; see `states.rehydrate`. `must`: HotStoreFull where Redis has no room."""
    settings, member = residency.settings, member_of(memory_type, key)
    now_us = yield calls.now()
    query = reads.memory_of(keys.agent, memory_type, key, now_us)
    try:
        token = yield leases.lease(keys.memory(member), "m", os.urandom(8), settings.lease_ttl)
    except HotStoreFull:
        if must:
            raise
        return (yield query)  # type: ignore[no-any-return]
    if token is RESIDENT:
        return None
    failpoint("rehydrate.memory_leased")
    stored = yield query
    failpoint("rehydrate.memory_asked")
    yield from offered(leases.offer_memory(keys, member, token, settings.hot_ttl, stored))
    return stored  # type: ignore[no-any-return]
