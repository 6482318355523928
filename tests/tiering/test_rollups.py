"""Trends outlive retention: what events of a dropped partition add up to stays, exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from banshee_memory import CustomEvent, Emotion, TrendPoint
from banshee_memory.cold import reads
from banshee_memory.cold.drain import EventRow
from banshee_memory.hot.calls import Call
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from banshee_memory.tiering.forgetting import Forgetting
from tests.cold.making import NOON, event, stamp, write
from tests.own_servers import CLOCK, CLOCK_KEY, own_database, own_redis
from tests.tiers import Tiers

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SETTINGS = Settings(shards=2, event_retention_days=30, hourly_rollup_days=90, call_timeout=30, flush_timeout=30)
NOW = NOON + timedelta(microseconds=1)
JOY, FEAR = Emotion.JOY, Emotion.FEAR


class Happened(NamedTuple):
    """What the model knows of an event."""

    at: datetime
    valence: float
    arousal: float
    intensity: float
    felt: dict[Emotion, float]


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        both = Tiers(redis, database, SETTINGS, clock=CLOCK)
        both.hot.load_library()
        both.hot.run(Call(("SET", CLOCK_KEY, to_us(NOW)), bytes))
        yield both
        both.close()


def row(agent: UUID, number: int, happened: Happened) -> EventRow:
    placed = event(agent, number, at_us=to_us(happened.at))
    record = msgspec.structs.replace(
        placed.record, valence=happened.valence, arousal=happened.arousal, intensity=happened.intensity
    )
    return EventRow.of(msgspec.structs.replace(placed, record=record), happened.felt)


def happens(chance: random.Random, at: datetime) -> Happened:
    felt = {emotion: chance.random() for emotion in chance.sample([JOY, FEAR], chance.randint(0, 2))}
    return Happened(at, chance.uniform(-1, 1), chance.random(), sum(felt.values()), felt)


def means(happened: list[Happened], bucket: timedelta) -> list[TrendPoint]:
    """What the trend would be if nothing had ever been dropped."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    bins: dict[datetime, list[Happened]] = {}
    for one in sorted(happened):
        bins.setdefault(epoch + (one.at - epoch) // bucket * bucket, []).append(one)
    return [
        TrendPoint(
            at,
            sum(one.valence for one in held) / len(held),
            sum(one.arousal for one in held) / len(held),
            sum(one.intensity for one in held) / len(held),
            len(held),
            {e: max(one.felt.get(e, 0.0) for one in held) for e in (JOY, FEAR) if any(e in one.felt for one in held)},
        )
        for at, held in bins.items()
    ]


def assert_same(told: list[TrendPoint], expected: list[TrendPoint]) -> None:
    assert [(point.at, point.events) for point in told] == [(point.at, point.events) for point in expected]
    for one, other in zip(told, expected, strict=True):
        measured = (one.valence, one.arousal, one.intensity)
        assert measured == pytest.approx((other.valence, other.arousal, other.intensity), abs=1e-9)
        assert one.peaks == pytest.approx(other.peaks, abs=1e-12)


def maintain(tiers: Tiers, now: datetime) -> list[str]:
    dropped = tiers.cold.drop_expired(now)
    while tiers.cold.compact_rollups(now):
        pass
    return dropped


def test_a_trend_of_a_year_on_thirty_days_of_events(tiers: Tiers) -> None:
    agent, other, chance = uuid4(), uuid4(), random.Random(3)
    year = [NOW - DAY * 364 + DAY * n for n in range(0, 365, 4)]  # every fourth: a partition takes its time
    life = [happens(chance, day - HOUR * chance.randint(0, 11)) for day in year for _ in range(5)]
    # Half a year later retention has been at work, hours have become days, and some of the life comes late.
    late = [one for one in life if NOW - DAY * 190 > one.at > NOW - DAY * 205][::4]
    for now, lived in (
        (NOW - DAY * 182, [one for one in life if one.at <= NOW - DAY * 182 and one not in late]),
        (NOW - DAY * 181, late),
        (NOW, [one for one in life if one.at > NOW - DAY * 182]),
    ):
        write(tiers.cold, *(row(agent, life.index(one), one) for one in lived))
        write(tiers.cold, *(row(other, 5_000 + n, one) for n, one in enumerate(lived[:5])))
        maintain(tiers, now)
    assert sum(tiers.cold.fetch(reads.overview()).partitions[t] for t in ["emotional_events"]) <= 10

    told = tiers.emotions.get_emotional_trends(agent, 24 * 364.9, bucket=DAY)
    assert_same(told, [point for point in means(life, DAY) if point.at >= NOW - timedelta(hours=24 * 364.9)])
    assert len(told) == 92

    recent = tiers.emotions.get_emotional_trends(agent, 24 * 89, bucket=HOUR)
    assert_same(recent, [point for point in means(life, HOUR) if point.at >= NOW - DAY * 89])
    # Without a bucket: an hour or a day a point for what is gone, an event a point for what is there.
    raw = tiers.emotions.get_emotional_trends(agent, 24 * 364.9)
    assert [point.events for point in raw if point.at > NOW - DAY * 29] == [1] * 40
    assert sum(point.events for point in raw) == sum(point.events for point in told)
    assert raw == sorted(raw, key=lambda point: point.at)


def test_what_redis_still_has_of_a_dropped_partition_counts_once(tiers: Tiers, agent: UUID) -> None:
    forever = msgspec.structs.replace(SETTINGS, event_retention_days=None)
    client = Tiers(tiers.hot._url, tiers.cold.database_url, forever, clock=CLOCK)
    for days in (60, 45, 1):
        client.hot.run(Call(("SET", CLOCK_KEY, to_us(NOW)), bytes))
        client.emotions.save_event(agent, CustomEvent(event_type="x"), {JOY: 0.5}, occurred_at=NOW - DAY * days)
    client.flush()
    before = client.emotions.get_emotional_trends(agent, 24 * 100, bucket=DAY)
    assert [point.events for point in before] == [1, 1, 1]
    assert "emotional_events_" + f"{NOW - DAY * 60:%Y%m%d}" in maintain(tiers, NOW)
    assert client.emotions.get_emotional_trends(agent, 24 * 100, bucket=DAY) == before
    client.evict(agent)
    assert client.emotions.get_emotional_trends(agent, 24 * 100, bucket=DAY) == before
    client.close()


def test_of_a_forgotten_agent_nothing_remains(tiers: Tiers, agent: UUID) -> None:
    other = uuid4()
    for one in (agent, other):
        write(tiers.cold, *(row(one, n, Happened(NOW - DAY * 40, 1.0, 1.0, 1.0, {JOY: 1.0})) for n in range(3)))
    with psycopg.connect(tiers.cold.database_url) as database:
        database.execute("INSERT INTO forgotten (agent_id, shard, stamp) VALUES (%s, 0, %s)", [agent, stamp(1)])
    maintain(tiers, NOW)

    def remains(one: UUID) -> list[int]:
        return [point.events for point in tiers.emotions.get_emotional_trends(one, 24 * 100)]

    assert (remains(agent), remains(other)) == ([1], [3])
    report = Forgetting(SETTINGS, tiers.hot, tiers.cold).forget(agent)
    assert (remains(agent), remains(other)) == ([], [3])
    with psycopg.connect(tiers.cold.database_url) as database:
        left = database.execute("SELECT count(*) FROM emotional_rollups WHERE agent_id = %s", [agent]).fetchall()
        # A partition that was being dropped meanwhile may have added some: the next round finds them.
        database.execute(
            "INSERT INTO emotional_rollups SELECT %s, at, hours, events, valence, arousal, intensity, peaks, 0 "
            "FROM emotional_rollups WHERE agent_id = %s",
            [agent, other],
        )
    assert left == [(0,)]
    assert report.rollups == 1
    maintain(tiers, NOW)
    with psycopg.connect(tiers.cold.database_url) as database:
        left = database.execute("SELECT count(*) FROM emotional_rollups WHERE agent_id = %s", [agent]).fetchall()
    assert left == [(0,)]
