"""A partition that is over in the middle of a flush: what was in it is counted and added up once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.cold.partitions import LEEWAY
from banshee_memory.failpoints import armed
from banshee_memory.hot import wire
from banshee_memory.hot.calls import Call
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from tests.hot.raw import Server
from tests.own_servers import CLOCK, CLOCK_KEY, own_database, own_redis
from tests.tiering.lives import HAPPENED
from tests.tiers import Tiers

SETTINGS = Settings(shards=2, message_retention_days=7, event_retention_days=7)
MONDAY = datetime(2025, 9, 1, tzinfo=UTC)
"""Where a week of messages ends and a day of events."""
OVER = MONDAY + timedelta(days=7)
"""From when on all of that week and day is beyond retention."""
MOMENT = timedelta(seconds=1)


class Died(BaseException):
    """The process that flushed."""


@pytest.fixture
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        both = Tiers(redis, database, SETTINGS, clock=CLOCK)
        both.hot.load_library()
        yield both
        both.close()


def turn_clock(tiers: Tiers, at: datetime) -> None:
    tiers.hot.run(Call(("SET", CLOCK_KEY, to_us(at)), bytes))


def live(tiers: Tiers, agent: UUID, at: datetime) -> None:
    """Something is said, and something happens."""
    server, keys = Server(tiers.hot), tiers.keys(agent)
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0}, at))
    body = wire.message_body(b"nonce678", "user", "word", None, None, 5, None)
    server.fcall("append_messages", [keys.messages, keys.log, keys.state], agent.bytes, to_us(at), "", body)
    body = wire.pack(wire.EventBody(b"nonce678", HAPPENED))
    events = [keys.events, keys.log, keys.state, keys.feed]
    server.fcall("save_event", events, agent.bytes, "record", to_us(at), body)


def flush_until(tiers: Tiers, place: str) -> None:
    """The flush dies there."""

    def reached(name: str) -> None:
        if name == place:
            raise Died

    with armed(reached), suppress(Died):
        tiers.flush()


def counted(tiers: Tiers, agent: UUID) -> tuple[int, int, int]:
    """Messages, tokens, and events in the trends."""
    stats = tiers.conversations.get_conversation_stats(agent)
    trends = tiers.emotions.get_emotional_trends(agent, 24 * 30)
    return stats.total_messages, stats.total_tokens, sum(point.events for point in trends)


def assert_once_while_and_after_it_goes(tiers: Tiers, agent: UUID) -> None:
    """The same is counted as before, whatever goes."""
    assert counted(tiers, agent) == (1, 5, 1)
    assert len(tiers.cold.drop_expired(OVER + LEEWAY)) == 2
    tiers.evict(agent)
    assert counted(tiers, agent) == (1, 5, 1)
    assert tiers.conversations.get_history(agent) == []


def test_a_partition_that_is_over_while_a_flush_is_at_it(tiers: Tiers, agent: UUID) -> None:
    """A flush died after its commit. The next one finds all within retention; before it writes, all is beyond it."""
    turn_clock(tiers, OVER - MOMENT)
    live(tiers, agent, MONDAY - MOMENT / 2)
    flush_until(tiers, "flush.committed")

    def reached(name: str) -> None:
        if name == "flush.read":
            turn_clock(tiers, OVER)
            tiers.cold.drop_expired(OVER)

    with armed(reached):
        report = tiers.flush()
    assert (report.messages, report.events, report.duplicates) == (0, 0, 3)
    assert_once_while_and_after_it_goes(tiers, agent)


@pytest.mark.parametrize("behind", [2 * MOMENT, LEEWAY])
def test_a_partition_that_is_over_by_one_clock(tiers: Tiers, agent: UUID, behind: timedelta) -> None:
    """A flush died after its commit; whoever flushes next goes by a clock that is behind."""
    now = OVER - MOMENT
    turn_clock(tiers, now)
    live(tiers, agent, MONDAY - MOMENT / 2)
    flush_until(tiers, "flush.committed")
    tiers.cold.drop_expired(now + behind)
    report = tiers.flush()
    assert (report.messages, report.events, report.duplicates) == (0, 0, 3)
    assert_once_while_and_after_it_goes(tiers, agent)
