"""Partitions: which, when, and away again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import EventRow
from banshee_memory.cold.partitions import EVENTS, LEEWAY, MESSAGES, ensure, span
from banshee_memory.errors import ColdStoreUnavailable
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from tests.cold.making import NOON, batch_of, event, message, write

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("at", "day", "week"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01", "1969-12-29"),
        (datetime(2026, 3, 4, 12, tzinfo=UTC), "2026-03-04", "2026-03-02"),
        (datetime(2026, 3, 2, tzinfo=UTC), "2026-03-02", "2026-03-02"),
        (datetime(2026, 3, 1, 23, 59, 59, 999_999, UTC), "2026-03-01", "2026-02-23"),
        (datetime(2027, 1, 1, tzinfo=UTC), "2027-01-01", "2026-12-28"),
    ],
)
def test_a_day_of_events_and_a_week_of_messages(at: datetime, day: str, week: str) -> None:
    first = datetime.fromisoformat(day).replace(tzinfo=UTC)
    monday = datetime.fromisoformat(week).replace(tzinfo=UTC)
    assert span(EVENTS, at) == (first, first + DAY)
    assert span(MESSAGES, at) == (monday, monday + 7 * DAY)
    assert monday.weekday() == 0


@pytest.fixture
def own(fresh_url: str, settings: Settings) -> ColdStore:
    return ColdStore(fresh_url, msgspec.structs.replace(settings, partitions_ahead=3))


def test_partitions_are_made_ahead_once(own: ColdStore) -> None:
    assert own.prepare_partitions(NOON) == 8
    assert own.prepare_partitions(NOON) == 0
    assert own.prepare_partitions(NOON + DAY) == 1
    with own.connection() as connection:
        assert ensure(connection, EVENTS, [to_us(NOON), to_us(NOON + 9 * DAY), to_us(NOON + 9 * DAY) + 1]) == 1
        assert ensure(connection, EVENTS, []) == 0
    parts = own.fetch(reads.overview()).partitions
    assert (parts[EVENTS], parts[MESSAGES]) == (6, 4)
    own.close()


def test_what_lies_wholly_beyond_retention_goes(own: ColdStore, agent: UUID) -> None:
    said = [message(agent, n, at_us=to_us(NOON - n * 7 * DAY)) for n in range(20)]
    felt = [event(agent, n, at_us=to_us(NOON - n * DAY)) for n in range(40)]
    write(own, *said, *(EventRow.of(one, {}) for one in felt))

    dropped = own.drop_expired(NOON + LEEWAY)

    kept_said, kept_felt = (
        own.fetch(reads.message_page(agent, 50)).placed,
        own.fetch(reads.event_page(agent, 50)).placed,
    )
    assert kept_said == said[13::-1]  # 90 days ago lies in the week of the message of 91 days ago
    assert kept_felt == felt[30::-1]
    assert len(dropped) == 20 + 40 - len(kept_said) - len(kept_felt)
    assert own.fetch(reads.totals_of(agent)).stats.total_messages == 20
    assert own.drop_expired(NOON + LEEWAY) == []
    own.close()


def test_no_retention_drops_nothing(fresh_url: str, settings: Settings, agent: UUID) -> None:
    forever = msgspec.structs.replace(settings, message_retention_days=None, event_retention_days=None)
    store = ColdStore(fresh_url, forever)
    write(store, message(agent, at_us=0), EventRow.of(event(agent, at_us=0), {}))
    assert store.drop_expired(NOON + LEEWAY) == []
    store.close()


def test_dropping_gives_way_to_a_drain(own: ColdStore, agent: UUID) -> None:
    write(own, message(agent, at_us=0))
    with own.drain([0]) as drain:
        drain.write(batch_of(message(agent, 2, at_us=0)))
        with pytest.raises(ColdStoreUnavailable, match="lock"):
            own.drop_expired(NOON + LEEWAY)
        # It still creates what it needs.
        drain.write(batch_of(message(agent, 1)))
    assert own.drop_expired(NOON + LEEWAY) == ["conversation_messages_19691229"]
    own.close()


def test_readers_go_on_while_a_drain_creates_a_partition(own: ColdStore, agent: UUID) -> None:
    with own.drain([0]) as drain:
        drain.write(batch_of(message(agent), EventRow.of(event(agent), {})))
        assert own.fetch(reads.message_page(agent, 5)).placed == []
        with own.drain([1]) as other:
            assert other.held == {1: 0}
    assert len(own.fetch(reads.message_page(agent, 5)).placed) == 1
    own.close()


def test_dropping_beside_flushes_and_reads_stops_and_spoils_nothing(
    fresh_url: str, settings: Settings, agent: UUID
) -> None:
    """Some flush, some read, one drops: nobody fails, and each event is either there or in what remains of its time."""
    kept = msgspec.structs.replace(settings, event_retention_days=5, db_max_connections=8)
    store = ColdStore(fresh_url, kept)
    old = [event(agent, n, at_us=to_us(NOON - n * DAY)) for n in range(6, 26)]
    write(store, *(EventRow.of(one, {}) for one in old))
    ended, totals = threading.Event(), set[int]()

    def flush(shard: int) -> int:
        count = 0
        while not ended.is_set():
            with store.drain([shard]) as drain:
                new = event(agent, 1_000 + shard * 10_000 + count, at_us=to_us(NOON))
                count += drain.write(batch_of(EventRow.of(new, {}))).events
        return count

    def read() -> None:
        while not ended.is_set():
            points = store.fetch(reads.trend(agent, 0, 100_000)).points
            totals.add(sum(point.events for at, _, _, point in points if at < to_us(NOON - DAY)))

    with ThreadPoolExecutor(4) as pool:
        flushing = [pool.submit(flush, shard) for shard in (1, 2)]
        reading = [pool.submit(read) for _ in range(2)]
        try:
            dropped = store.drop_expired(NOON + LEEWAY)
        finally:
            ended.set()
        flushed = sum(future.result() for future in flushing)
        assert [future.result() for future in reading] == [None, None]
    assert len(dropped) == 20
    # At every moment all of the old events were told of, once.
    assert totals <= {20}
    points = store.fetch(reads.trend(agent, 0, 100_000)).points
    assert sum(point.events for *_, point in points) == 20 + flushed
    store.close()
