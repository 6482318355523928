"""Forgetting an agent in PostgreSQL: its tombstone, and then its rows, some at a time. Imports the driver.

From the tombstone on no reader sees any row that lies below it, so the rows can take their time. Each statement is a
transaction of its own that looks into one partition and holds no lock but those of the rows that it deletes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from banshee_memory.cold import partitions
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.session import GRACE, milliseconds
from banshee_memory.stamps import EPOCH

_CHUNK = 2_000
_BY_TIME = {partitions.MESSAGES: "erase_messages", partitions.EVENTS: "erase_events"}
_INSTANT = timedelta(microseconds=1)
ERASED = frozenset({"agents", "emotional_states", "memory_records", "emotional_rollups", "idempotency", *_BY_TIME})
"""Every table that holds something of an agent; its tombstone stays in `forgotten`."""


class Buried(NamedTuple):
    """The stamp of a tombstone, and how many rows of totals and states went with writing it."""

    stamp: int
    totals: int
    states: int


def bury(store: ColdStore, agent: UUID, shard: int, flushed: int) -> Buried:
    """Writes an agent's tombstone above all its rows, and commits. The caller holds the shard, flushed up to there.

    It goes on a connection of its own: the caller's transaction holds one of the pool's, which may be its last.
    """
    params = {"agent": agent, "shard": shard, "flushed": flushed}
    with store.extra_connection() as connection:
        return Buried(*connection.execute(STATEMENTS["bury_agent"].sql, params).fetchall()[0])


def erase(store: ColdStore, agent: UUID, through: int) -> Iterator[tuple[str, int]]:
    """Deletes what is stamped up to there; gives a kind and how many rows of it went, again and again."""
    doomed = {"agent": agent, "through": through}
    yield "states", _rows(store, "erase_state", doomed)[0][0]
    for found in _memories(store, doomed):
        yield "memories", found
    for found in _replies(store, doomed):
        yield "idempotency_keys", found
    for kind, table in (("messages", partitions.MESSAGES), ("events", partitions.EVENTS)):
        for lower, upper in _rows(store, "partition_spans", {"parent": table}):
            span = {"since": lower, "until": upper - _INSTANT}
            for found in _histories(store, _BY_TIME[table], {**doomed, **span}):
                yield kind, found
    # After the events: until then a partition that is dropped adds to these.
    for found in _rollups(store, doomed):
        yield "rollups", found


def _memories(store: ColdStore, doomed: dict[str, Any]) -> Iterator[int]:
    after = {"memory_type": "", "key": ""}
    while True:
        [(found, gone, memory_type, key)] = _rows(store, "erase_memories", {**doomed, **after, "limit": _CHUNK})
        yield gone
        if found < _CHUNK:
            return
        after = {"memory_type": memory_type, "key": key}


def _replies(store: ColdStore, doomed: dict[str, Any]) -> Iterator[int]:
    after: dict[str, Any] = {"function": "", "key": b""}
    while True:
        [(found, gone, function, key)] = _rows(store, "erase_replies", {**doomed, **after, "limit": _CHUNK})
        yield gone
        if found < _CHUNK:
            return
        after = {"function": function, "key": key}


def _rollups(store: ColdStore, doomed: dict[str, Any]) -> Iterator[int]:
    since = EPOCH
    while True:
        [(found, gone, last)] = _rows(store, "erase_rollups", {**doomed, "since": since, "limit": _CHUNK})
        yield gone
        if found < _CHUNK:
            return
        since = last


def _histories(store: ColdStore, statement: str, doomed: dict[str, Any]) -> Iterator[int]:
    # Each chunk begins where the one before ended, so that none walks along what those before have left dead.
    while True:
        [(found, gone, oldest)] = _rows(store, statement, {**doomed, "limit": _CHUNK})
        yield gone
        if found < _CHUNK:
            return
        doomed = {**doomed, "until": oldest}


def _rows(store: ColdStore, statement: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    # A look over what a million deletions left dead can take longer than a call may.
    ms = milliseconds(store.settings.flush_timeout)
    with store.connection() as connection, connection.transaction():
        connection.budget = store.settings.flush_timeout + GRACE
        limits = {"lock_ms": ms, "statement_ms": ms, "idle_ms": ms}
        connection.execute(STATEMENTS["limit_transaction"].sql, limits, prepare=True)
        return connection.execute(STATEMENTS[statement].sql, params, prepare=True).fetchall()
