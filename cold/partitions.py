"""Partitions by time: a day of events, an ISO week of messages. None is the default: who writes creates the missing.

A partition is created by ATTACH under a lock that neither readers nor writers feel; only dropping one stops them, so it
waits for its lock but a moment (`_LOCK_MS`) at a time and tries again. What events of a dropped partition add up to is
kept in `emotional_rollups`. One is dropped only when it has been beyond retention for a day (`LEEWAY`): a flush that is
done again finds what is there already, and would store and count it a second time if it were gone; so no flush, by its
own clock and whenever it began, may still take for kept what was dropped. Imports the driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.failpoints import failpoint
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, to_us

if TYPE_CHECKING:
    from banshee_memory.cold.session import BoundedConnection

EVENTS = "emotional_events"
MESSAGES = "conversation_messages"
LEEWAY = timedelta(days=1)
"""More than clocks differ, and longer than a flush takes."""
_DAY = 86_400_000_000
# Length and origin in µs. 1970 began on a Thursday, the weeks begin on Mondays at 00:00 UTC.
_GRID = {EVENTS: (_DAY, 0), MESSAGES: (7 * _DAY, -3 * _DAY)}
_LOCK_MS = 200
_LOT = 50
_TRIES = 10


def span(table: str, at: datetime) -> tuple[datetime, datetime]:
    """The half-open span of the partition that holds this time. OverflowError beyond the year 9999."""
    return _bounds(table, _slot(table, to_us(at)))


def ensure(connection: BoundedConnection, table: str, times_us: Iterable[int]) -> int:
    """Creates what partitions those times (µs) lack, some at a time; returns how many. In autocommit each lot stays."""
    slots = sorted({_slot(table, at) for at in times_us})
    lots = [slots[first : first + _LOT] for first in range(0, len(slots), _LOT)]
    return sum(_ensure_slots(connection, table, lot) for lot in lots)


def ensure_ahead(connection: BoundedConnection, now: datetime, ahead: int) -> int:
    """Creates the partitions of now and of `ahead` more of each table; returns how many were missing."""
    first = {table: _slot(table, to_us(now)) for table in _GRID}
    return sum(_ensure_slots(connection, table, range(slot, slot + ahead + 1)) for table, slot in first.items())


def drop_expired(connection: BoundedConnection, now: datetime, settings: Settings) -> list[str]:
    """Drops the partitions that lie wholly beyond retention, for a day; returns their names."""
    kept = {EVENTS: settings.event_retention_days, MESSAGES: settings.message_retention_days}
    cutoffs = {table: now - timedelta(days=days) - LEEWAY for table, days in kept.items() if days is not None}
    return [name for table, cutoff in cutoffs.items() for name in _drop_before(connection, table, cutoff)]


def _slot(table: str, at_us: int) -> int:
    length, origin = _GRID[table]
    return (at_us - origin) // length


def _bounds(table: str, slot: int) -> tuple[datetime, datetime]:
    length, origin = _GRID[table]
    lower = origin + slot * length
    return from_us(lower), from_us(lower + length)


def _ensure_slots(connection: BoundedConnection, table: str, slots: Iterable[int]) -> int:
    spans = [_bounds(table, slot) for slot in slots]
    params = {"parent": table, "lowers": [lower for lower, _ in spans], "uppers": [upper for _, upper in spans]}
    created = int(connection.execute(STATEMENTS["ensure_partitions"].sql, params).fetchall()[0][0])
    failpoint("partitions.created")
    return created


def _drop_before(connection: BoundedConnection, table: str, cutoff: datetime) -> list[str]:
    names = []
    while name := _drop_oldest(connection, table, cutoff):
        failpoint("partitions.dropped")
        names.append(name)
    return names


def _drop_oldest(connection: BoundedConnection, table: str, cutoff: datetime) -> str | None:
    """Drops one partition, in a transaction of its own: what is done stays done if the next is in use."""
    for left in reversed(range(_TRIES)):
        try:
            with connection.transaction():
                return _dropped(connection, {"parent": table, "cutoff": cutoff})
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise
    return None


def _dropped(connection: BoundedConnection, params: dict[str, Any]) -> str | None:
    limits = {"lock_ms": _LOCK_MS, "statement_ms": 0, "idle_ms": 0}
    connection.execute(STATEMENTS["limit_transaction"].sql, limits)
    name: str | None = connection.execute(STATEMENTS["drop_partition"].sql, params).fetchall()[0][0]
    return name
