"""The original's database comes over: whole, once, as it was, however often and wherever the import was cut off."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
import pytest
from redis.client import Redis

from banshee_memory import (
    ColdStoreUnavailable,
    ConfigurationError,
    CustomEvent,
    Emotion,
    InvalidInput,
    SocialInteraction,
)
from banshee_memory.cold.original import original
from banshee_memory.records import TakeOverReport
from banshee_memory.settings import Settings
from banshee_memory.tiering.forgetting import Forgetting
from banshee_memory.tiering.takeover import TakeOver
from tests import originals
from tests.own_servers import CLOCK, empty_database, own_database, own_redis
from tests.tiers import Tiers

SETTINGS = Settings(shards=4, message_cap=5, event_cap=5)
ROWS = 1_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def redis(redis_url: str) -> Iterator[str]:
    with own_redis(like=redis_url) as url:
        yield url


@pytest.fixture
def ours(redis: str, database_url: str) -> Iterator[Tiers]:
    with own_database(database_url, SETTINGS) as database:
        tiers = Tiers(redis, database, SETTINGS, clock=CLOCK)
        tiers.hot.load_library()
        yield tiers
        tiers.close()


@pytest.fixture(scope="module", params=[True, False], ids=["migrated", "started-up"])
def theirs(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """A database of the original's, in each of its variants."""
    with empty_database(database_url) as url:
        originals.make(url, ROWS, migrated=request.param)
        yield url


@pytest.fixture
def odd(database_url: str) -> Iterator[str]:
    """A small one, for rows of one's own."""
    with empty_database(database_url) as url:
        originals.make(url, 100, migrated=False)
        yield url


def take_over(ours: Tiers, url: str, **how: bool) -> TakeOverReport:
    with original(url, ours.settings) as source:
        chosen = {"skip_expired": False, "skip_unmappable": False, **how}
        return TakeOver(ours.settings, ours.hot, ours.cold, source, lambda *_: None).run(**chosen)


def asked(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as database:
        return database.execute(query.encode()).fetchall()


TABLES = {
    "messages": "conversation_messages",
    "events": "emotional_events",
    "states": "emotional_states",
    "memories": "memory_records WHERE memory_type <> '_session'",
    "sessions": "agent_sessions",
}


def stored(url: str) -> dict[str, object]:
    return {kind: asked(url, f"SELECT count(*) FROM {table}")[0][0] for kind, table in TABLES.items()}


def agents_in(url: str) -> list[UUID]:
    return [UUID(str(agent)) for (agent,) in asked(url, "SELECT DISTINCT agent_id FROM emotional_states ORDER BY 1")]


def assert_whole(ours: Tiers, theirs: str, report: TakeOverReport) -> None:
    """All of it is there, once; the totals are those of the rows."""
    url = ours.cold.database_url
    for kind, table in report.tables.items():
        assert table.rows == table.taken + table.expired, (kind, table)
        assert (table.newer, table.forgotten, table.skipped, table.different) == (0, 0, 0, ())
        assert stored(url)[kind] == table.taken
    totals = asked(url, "SELECT sum(total_messages), sum(total_tokens), sum(total_events) FROM agents")
    theirs_too = asked(
        theirs,
        "SELECT count(*), sum(tokens_used), (SELECT count(*) FROM emotional_events) FROM conversation_messages",
    )
    assert totals == theirs_too


def test_it_comes_over_whole_and_twice_in_a_row_without_doubles(ours: Tiers, theirs: str) -> None:
    first = take_over(ours, theirs)
    assert_whole(ours, theirs, first)
    second = take_over(ours, theirs)
    assert_whole(ours, theirs, second)
    assert first == second
    assert len({table.checksum for table in first.tables.values() if table.taken}) >= 4


@pytest.mark.soak
@pytest.mark.parametrize("migrated", [True, False])
def test_a_hundred_thousand_rows(ours: Tiers, database_url: str, migrated: bool) -> None:
    with empty_database(database_url) as theirs:
        originals.make(theirs, 105_000, migrated=migrated)
        began = time.monotonic()
        first = take_over(ours, theirs)
        print(f"{sum(t.rows for t in first.tables.values()):,} rows in {time.monotonic() - began:.1f} s")
        assert sum(table.rows for table in first.tables.values()) >= 100_000
        assert_whole(ours, theirs, first)
        assert take_over(ours, theirs) == first


def test_what_came_over_is_what_it_was(ours: Tiers, theirs: str) -> None:
    take_over(ours, theirs)
    agent = agents_in(theirs)[0]
    said = asked(
        theirs,
        f"SELECT id, content, created_at, metadata FROM conversation_messages WHERE agent_id = '{agent}' ORDER BY 3",
    )
    history = ours.conversations.get_history(agent, 1_000)
    assert [(m.id, m.content, m.created_at, m.metadata) for m in history] == said
    # Under its old id, which carries no time, a message is found all the same.
    middle = said[len(said) // 2][0]
    assert isinstance(middle, UUID)
    older = ours.conversations.get_history(agent, 1_000, before=middle)
    assert [m.id for m in older] == [row[0] for row in said[: len(said) // 2]]
    assert ours.conversations.update_emotional_context(agent, middle, {"joy": 0.5})
    found = ours.conversations.search_messages(agent, "foxes", 1_000)
    assert len(found) == sum("fox" in str(row[1]) for row in said)

    events = ours.emotions.get_event_history(agent, 1_000)
    assert {type(e.event) for e in events} >= {CustomEvent} or {type(e.event) for e in events} >= {SocialInteraction}
    assert all(e.event.interaction_type == "collaboration" for e in events if isinstance(e.event, SocialInteraction))
    ((saved,),) = asked(theirs, f"SELECT max(updated_at) FROM emotional_states WHERE agent_id = '{agent}'")
    last = next(e for e in events if str(e.created_at) < str(saved))  # after that the state itself is known
    past = ours.emotions.state_at(agent, last.created_at)
    assert past is not None
    assert set(past.emotions) == {e for e, i in last.resulting_emotions.items() if i >= 0.01}
    ((emotions, rates),) = asked(
        theirs,
        "SELECT emotions, decay_rates FROM emotional_states "
        f"WHERE agent_id = '{agent}' ORDER BY updated_at DESC LIMIT 1",
    )
    state = ours.emotions.load_state(agent)
    assert state is not None
    assert isinstance(emotions, dict)
    assert isinstance(rates, dict)
    assert state.emotions.keys() <= {Emotion.parse(name) for name in emotions}
    own = {Emotion.parse(name): rate for name, rate in rates.items()}
    assert state.decay_rates == {emotion: rate for emotion, rate in own.items() if rate != emotion.rate}


def test_the_living_of_the_old_time_go_on(ours: Tiers, theirs: str) -> None:
    """An agent that lives here already, in both tiers, gets its past; what is newer here stays."""
    agent, other = agents_in(theirs)[:2]
    new = ours.conversations.save_message(agent, "user", "I live already, says the fox")
    ours.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    ours.conversations.get_history(other, 10)  # that there is none of it is known in Redis now
    assert ours.emotions.load_state(other) is None
    report = take_over(ours, theirs)
    assert report.tables["states"].newer == 1
    history = ours.conversations.get_history(agent, 1_000)
    assert history[-1].id == new
    assert len(history) == ours.conversations.get_conversation_stats(agent).total_messages > 1
    assert len(ours.conversations.get_history(other, 10)) == 10
    assert ours.emotions.load_state(other) is not None
    ours.flush()
    assert ours.conversations.get_history(agent, 1_000) == history
    assert take_over(ours, theirs).tables["messages"] == report.tables["messages"]


@pytest.mark.parametrize("fate", ["goes on", "is emptied"])
def test_what_is_written_after_it_is_newer_whatever_the_clocks_say(
    ours: Tiers, odd: str, redis: str, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """The clocks of the original, and of whoever imports it, are an hour ahead of that of Redis."""
    monkeypatch.setattr("banshee_memory.tiering.original._moment", lambda _, at: at)
    agent = agents_in(odd)[0]
    with psycopg.connect(odd) as database:
        database.execute("UPDATE emotional_states SET updated_at = now() + interval '1 hour'")
        database.execute("UPDATE memory_records SET updated_at = now() + interval '1 hour'")
        database.execute(
            "UPDATE conversation_messages SET created_at = created_at + (now() + interval '1 hour' - m) FROM"
            " (SELECT max(created_at) AS m FROM conversation_messages) AS newest"
        )
        memory = database.execute(
            "SELECT agent_id, memory_type, key FROM memory_records WHERE agent_id::text = %s LIMIT 1", [str(agent)]
        ).fetchall()
    take_over(ours, odd)
    if fate == "is emptied":
        with Redis.from_url(redis) as server:
            server.flushdb()
    told = ours.conversations.get_conversation_stats(agent).total_messages
    ours.conversations.save_message(agent, "user", "I live here now")
    assert ours.conversations.get_conversation_stats(agent).total_messages == told + 1
    state = ours.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    for _, kind, key in memory:
        ours.memories.store_memory(agent, str(kind), str(key), "new")
    report = ours.flush()
    assert report.conflicts == 0
    ours.evict(agent)
    after = ours.emotions.load_state(agent)
    assert after is not None
    assert set(after.emotions) == set(state.emotions)
    assert [ours.memories.retrieve_memory(agent, str(kind), str(key)) for _, kind, key in memory] == ["new"] * len(
        memory
    )


def test_who_was_forgotten_here_does_not_come_back(ours: Tiers, odd: str) -> None:
    agent, others = agents_in(odd)[0], len(agents_in(odd)) - 1
    ours.conversations.save_message(agent, "user", "forget me")
    ours.flush()
    Forgetting(ours.settings, ours.hot, ours.cold).forget(agent)
    report = take_over(ours, odd)
    assert report.tables["states"].forgotten == 1
    assert report.tables["states"].taken == others
    assert report.tables["messages"].forgotten > 0
    assert ours.conversations.get_history(agent, 10) == []
    assert ours.emotions.load_state(agent) is None


def test_what_came_over_can_be_forgotten(ours: Tiers, odd: str) -> None:
    take_over(ours, odd)
    agent = agents_in(odd)[0]
    Forgetting(ours.settings, ours.hot, ours.cold).forget(agent)
    url = ours.cold.database_url
    for table in ("conversation_messages", "emotional_events", "emotional_states", "memory_records"):
        assert asked(url, f"SELECT count(*) FROM {table} WHERE agent_id = '{agent}'") == [(0,)], table


def test_killed_anywhere_it_is_started_again(ours: Tiers, theirs: str, redis: str) -> None:
    if asked(theirs, "SELECT to_regclass('agent_sessions') IS NULL") == [(True,)]:
        pytest.skip("one of the variants is enough to die in")
    job = {"redis": redis, "database": ours.cold.database_url, "original": theirs, "chunk": 70, "shards": 4}
    for point, nth in (("takeover.committed", 3), ("takeover.let_go", 9), ("takeover.committed", 14)):
        words = json.dumps({**job, "point": point, "nth": nth, "clock": CLOCK})
        died = subprocess.run([sys.executable, "-m", "tests.dying_takeover", words], cwd=ROOT, check=False)
        assert died.returncode == -signal.SIGKILL
        assert 0 < sum(int(str(n)) for n in stored(ours.cold.database_url).values()) < ROWS * 0.95
    assert_whole(ours, theirs, take_over(ours, theirs))


def test_what_fits_nowhere_is_named_and_skipped_if_that_is_said(ours: Tiers, odd: str) -> None:
    bad = {
        "boss": "UPDATE conversation_messages SET role = 'Boss' WHERE id = {}",
        "tomorrow": "UPDATE conversation_messages SET created_at = now() + interval '1 day' WHERE id = {}",
        "never": "UPDATE conversation_messages SET created_at = 'infinity' WHERE id = {}",
        "deep": "UPDATE conversation_messages SET metadata = '" + '{"a":' * 200 + "1" + "}" * 200 + "' WHERE id = {}",
    }
    ids = [row[0] for row in asked(odd, "SELECT id FROM conversation_messages ORDER BY id")]
    with psycopg.connect(odd) as database:
        for statement, row in zip(bad.values(), ids, strict=False):
            database.execute(statement.replace("{}", f"'{row}'").encode())
        database.execute("""UPDATE emotional_events SET event_data = '{"TaskFailed": {}}' WHERE event_type = 'rain'""")
        database.execute("""UPDATE emotional_states SET emotions = '{"Boredom": 0.5}'""")
        database.execute("""UPDATE memory_records SET memory_type = '_session' WHERE key = 'key 1'""")
    with pytest.raises(InvalidInput) as refused:
        take_over(ours, odd)
    for row in ids[: len(bad)]:
        assert f"message {row}" in str(refused.value)
    assert set(stored(ours.cold.database_url).values()) == {0}
    report = take_over(ours, odd, skip_unmappable=True)
    assert report.tables["messages"].skipped == len(bad)
    assert report.tables["messages"].taken == 50 - len(bad)
    assert report.tables["events"].skipped == 7
    assert (report.tables["states"].skipped, report.tables["states"].taken) == (3, 0)
    assert "Boredom" in report.tables["states"].refused[0]
    assert report.tables["memories"].skipped == 1


def test_what_is_beyond_retention_stops_it_before_it_starts(ours: Tiers, odd: str) -> None:
    with psycopg.connect(odd) as database:
        database.execute("UPDATE conversation_messages SET created_at = now() - interval '1 year' WHERE role = 'user'")
        database.execute("UPDATE emotional_events SET created_at = '1972-01-01Z' WHERE event_type = 'rain'")
    with pytest.raises(InvalidInput, match="7 events and 12 messages are beyond retention"):
        take_over(ours, odd)
    assert set(stored(ours.cold.database_url).values()) == {0}
    report = take_over(ours, odd, skip_expired=True)
    assert (report.tables["messages"].taken, report.tables["messages"].expired) == (38, 12)
    ours.settings = msgspec.structs.replace(SETTINGS, message_retention_days=None, event_retention_days=None)
    whole = take_over(ours, odd)
    assert (whole.tables["messages"].taken, whole.tables["events"].taken) == (50, 30)
    assert_whole(ours, odd, whole)


def test_what_was_changed_here_is_seen(ours: Tiers, odd: str) -> None:
    take_over(ours, odd)
    asked_id = asked(odd, "SELECT id FROM conversation_messages LIMIT 1")[0][0]
    with psycopg.connect(ours.cold.database_url) as database:
        database.execute("UPDATE conversation_messages SET content = 'forged' WHERE id = %s", [asked_id])
    (different,) = take_over(ours, odd).tables["messages"].different
    assert str(asked_id) in different


def test_only_an_original_is_taken_over(ours: Tiers, database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="not of the original"):
        take_over(ours, ours.cold.database_url)
    with empty_database(database_url) as nothing, pytest.raises(ConfigurationError, match="conversation_messages"):
        take_over(ours, nothing)
    with pytest.raises(ColdStoreUnavailable):
        take_over(ours, "postgresql://nobody@127.0.0.1:1/nothing")
