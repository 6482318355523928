"""A year of days under retention: what there is in PostgreSQL levels off, and so does what a flush costs."""

from __future__ import annotations

import statistics
from datetime import timedelta
from time import perf_counter
from typing import NamedTuple
from uuid import UUID

import msgspec
import pytest

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import EventRow, StateRow
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from tests.cold.making import NOON, batch_of, event, message, state

DAY = timedelta(days=1)
AGENTS = [UUID(int=n) for n in range(1, 21)]
A_DAY = 200
DAYS = 365


class Size(NamedTuple):
    """What is there at the end of a day."""

    tables: int
    rows: int
    index_bytes: int


def size(store: ColdStore) -> Size:
    with store.connection() as connection:
        (found,) = connection.execute(
            "SELECT count(*), (SELECT count(*) FROM emotional_events) + (SELECT count(*) FROM conversation_messages),"
            "       sum(pg_indexes_size(oid))::bigint"
            " FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            "   AND (relname LIKE 'emotional_events%' OR relname LIKE 'conversation_messages%')"
        ).fetchall()
    return Size(*found)


@pytest.mark.soak
def test_a_year_levels_off(fresh_url: str, settings: Settings) -> None:
    kept = msgspec.structs.replace(settings, event_retention_days=30, message_retention_days=90, partitions_ahead=2)
    store = ColdStore(fresh_url, kept)
    sizes, seconds = list[Size](), list[float]()
    for day in range(DAYS):
        now = NOON + DAY * day
        numbers = range(day * A_DAY, (day + 1) * A_DAY)
        times = [to_us(now) + n % A_DAY * 1_000_000 for n in numbers]
        said = [message(AGENTS[n % 20], n, at_us=at) for n, at in zip(numbers, times, strict=True)]
        felt = [EventRow.of(event(AGENTS[n % 20], n, at_us=at), {}) for n, at in zip(numbers, times, strict=True)]
        states = [StateRow.of(agent, state(numbers[-1])) for agent in AGENTS]
        began = perf_counter()
        with store.drain([0]) as drain:
            written = drain.write(batch_of(*said, *felt, *states))
        seconds.append(perf_counter() - began)
        assert (written.messages, written.events) == (A_DAY, A_DAY)
        store.prepare_partitions(now)
        store.drop_expired(now)
        while store.compact_rollups(now):
            pass
        sizes.append(size(store))
    early, late = sizes[120:150], sizes[-30:]
    for quarter in range(4):
        part = slice(quarter * DAYS // 4, (quarter + 1) * DAYS // 4)
        print(sizes[part][-1], f"{2 * A_DAY / statistics.median(seconds[part]):,.0f} rows/s")
    assert max(s.tables for s in late) <= max(s.tables for s in early) + 1
    assert max(s.rows for s in late) <= max(s.rows for s in early) * 1.1
    assert max(s.index_bytes for s in late) <= max(s.index_bytes for s in early) * 1.1
    store.close()
