"""What the operator sees of the backlog: its limit, who set it, how fast it grows, and when it will be full."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory import Backlog, NewMessage, Pace, Settings
from banshee_memory.cli.operating import _limited
from banshee_memory.hot import calls, library
from banshee_memory.hot.calls import LogSize
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import STORE, shard_keys, shard_of
from banshee_memory.stamps import from_us
from banshee_memory.tiering.doctor import Check, examine
from banshee_memory.tiering.pace import Meter, enforce_limit, pace_between
from banshee_memory.tiering.report import backlog
from tests.hot.raw import Server
from tests.own_servers import CLOCK, own_database, own_redis
from tests.tiers import Tiers

SETTINGS = Settings(shards=2, backlog_limit=100)
START = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as own, own_database(database_url, SETTINGS) as database:
        yield own, database


@pytest.fixture
def tiers(urls: tuple[str, str]) -> Iterator[Tiers]:
    """A client whose clock tests set, with nothing waiting."""
    client = Tiers(*urls, SETTINGS, clock=CLOCK)
    client.hot.load_library()
    client.flush()
    yield client
    Server(client.hot).set_clock(None)
    Server(client.hot).command("HDEL", STORE, "pace")
    client.close()


def say(tiers: Tiers, agent: UUID, count: int) -> None:
    tiers.conversations.save_messages(agent, [NewMessage(role="user", content=f"{n}") for n in range(count)])


def in_shard(shard: int) -> UUID:
    return next(a for a in iter(uuid4, None) if shard_of(a, SETTINGS.shards) == shard)


def test_the_pace_is_counted_between_two_looks(tiers: Tiers) -> None:
    server, meter = Server(tiers.hot), Meter(SETTINGS, tiers.hot)
    server.set_clock(START)
    assert meter.measure() is None
    assert backlog(SETTINGS, tiers.hot).pace is None
    say(tiers, in_shard(0), 30)
    tiers.flush()
    say(tiers, in_shard(0), 10)
    say(tiers, in_shard(1), 20)
    server.set_clock(START + 10_000_000)
    pace = meter.measure()
    # Shard 1 has room for 30 more of its 50, and grows by 2 a second; shard 0 for 40, and grows by 1.
    expected = Pace(
        measured_at=from_us(START + 10_000_000),
        records_in=6.0,
        records_out=3.0,
        full_at=from_us(START + 10_000_000) + timedelta(seconds=15),
    )
    assert pace == expected
    found = backlog(SETTINGS, tiers.hot)
    assert (found.records, found.limit, found.fullest, found.pace) == (30, 100, 0.4, expected)


def test_what_was_measured_long_ago_is_no_pace(tiers: Tiers) -> None:
    server, meter = Server(tiers.hot), Meter(SETTINGS, tiers.hot)
    for at in (START, START + 10_000_000):
        server.set_clock(at)
        meter.measure()
    found = backlog(SETTINGS, tiers.hot).pace
    assert found is not None
    assert found.full_at is None
    server.set_clock(START + 10_000_000 + 180_000_000)
    assert backlog(SETTINGS, tiers.hot).pace is None


def test_a_pace_that_cannot_be_read_is_none(tiers: Tiers) -> None:
    Server(tiers.hot).command("HSET", STORE, "pace", b"\xc1")
    assert backlog(SETTINGS, tiers.hot).pace is None


def test_a_log_that_was_lost_counts_as_still() -> None:
    before = [LogSize(50, 1_000, 100), LogSize(10, 10, 100), None]
    after = [LogSize(5, 5, 100), LogSize(20, 25, 100), LogSize(7, 7, 100)]
    pace = pace_between(before, after, 5.0, START)
    assert (pace.records_in, pace.records_out) == (3.0, 1.0)
    assert pace.full_at == from_us(START) + timedelta(seconds=40)


def test_without_a_limit_it_is_never_full() -> None:
    pace = pace_between([LogSize(0, 0, 0)], [LogSize(9, 9, 0)], 1.0, START)
    assert (pace.records_in, pace.full_at) == (9.0, None)


# --- who sets the limit ---


def limit(hot: HotStore) -> int:
    return hot.run(calls.log_size(shard_keys(0))).limit


def test_the_daemon_s_settings_count(urls: tuple[str, str]) -> None:
    first, operator, later = (
        HotStore(urls[0], msgspec.structs.replace(SETTINGS, backlog_limit=most)) for most in (None, 7, 1_000_000)
    )
    first.load_library()
    assert limit(first) == 0
    asked = msgspec.structs.replace(SETTINGS, backlog_limit=7)
    assert enforce_limit(asked, operator) == 0
    assert enforce_limit(asked, operator) is None
    assert limit(later) == 4  # a client loads only what is missing
    for store in (first, operator, later):
        store.close()


def test_a_newer_library_is_left_alone(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    hot = HotStore(urls[0], SETTINGS)
    hot.load_library()
    monkeypatch.setattr(library, "shipped_version", lambda: (0, 9, 9))
    assert enforce_limit(msgspec.structs.replace(SETTINGS, backlog_limit=9), hot) is None
    assert limit(hot) == 50
    hot.close()


def check(tiers: Tiers, settings: Settings = SETTINGS) -> Check:
    return next(c for c in examine(settings, tiers.hot, tiers.cold) if c.name == "backlog limit")


def test_the_doctor_sees_a_shard_fill_up(tiers: Tiers) -> None:
    assert check(tiers).level == "ok"
    say(tiers, in_shard(1), 39)
    assert check(tiers).level == "ok"
    say(tiers, in_shard(1), 1)
    assert check(tiers) == Check(
        "backlog limit",
        "problem",
        "100 records, the fullest shard has used 80% of its share. "
        "Bring PostgreSQL back, or run another `banshee daemon`",
    )


def test_the_doctor_sees_whose_limit_it_is(tiers: Tiers, urls: tuple[str, str]) -> None:
    found = check(tiers, msgspec.structs.replace(SETTINGS, backlog_limit=10))
    assert (found.level, "what the daemon loaded counts" in found.said) == ("note", True)
    unbound = Tiers(*urls, msgspec.structs.replace(SETTINGS, backlog_limit=None), clock=CLOCK)
    unbound.hot.load_library()
    assert check(unbound, unbound.settings).level == "note"
    unbound.close()


def test_the_statistics_say_it_in_words() -> None:
    now = datetime.now(UTC)
    slow = Pace(measured_at=now, records_in=1_500.0, records_out=0.0, full_at=now + timedelta(seconds=90.5))
    filling = Backlog(records=30, bytes=0, oldest_age=1.0, limit=100, fullest=0.6, pace=slow)
    said = _limited(filling)
    assert said.pop("time left") in {f"{n} s at this pace" for n in (89, 90)}
    assert said == {
        "backlog limit": "100 records, the fullest shard has used 60.0%",
        "pace": "1,500.0 in, 0.0 out a second",
    }
    even = msgspec.structs.replace(slow, full_at=None)
    assert _limited(msgspec.structs.replace(filling, pace=even))["time left"] == "as much as you like"
    assert _limited(msgspec.structs.replace(filling, limit=None, pace=even)).keys() == {"backlog limit", "pace"}
    assert "no daemon" in str(_limited(msgspec.structs.replace(filling, pace=None))["pace"])
