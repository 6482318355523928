"""What was wrong with the original, each as a test that would catch it. `docs/from-the-original.md` lists them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import psycopg
import pytest
import redis

from banshee_memory import CustomEvent, Emotion, EmotionalState, MemoryPlugin, NewMessage, Settings
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.hot.keys import agent_keys

SETTINGS = Settings()
SQL = ["'; DROP TABLE agents; --", "$$) OR 1=1 --", "%s %(agent)s {0} \\'", "1 day'; DELETE FROM memory_records; --"]


@pytest.fixture(params=["hot", "cold", "both"])
def tier(request: pytest.FixtureRequest) -> str:
    """Where the first half of what is written lies when it is read; the second half is hot, or cold as well."""
    return str(request.param)


def moved(memory: MemoryPlugin, agent: UUID, tier: str, *, half: bool = False) -> None:
    """Puts the agent where the tier says, after half of the writes or after all."""
    if tier == "cold" or (tier == "both" and half):
        memory.evict(agent)


def test_a_history_has_one_order_in_both_tiers(memory: MemoryPlugin, agent: UUID, tier: str) -> None:
    ids = []
    for n in range(6):
        ids.append(memory.conversations.save_message(agent, "user", f"{n}"))
        moved(memory, agent, tier, half=n == 2)
    assert [m.id for m in memory.conversations.get_history(agent)] == ids
    assert [m.id for m in memory.conversations.get_history(agent, 2)] == ids[-2:]


def test_a_message_is_whole_in_both_tiers(memory: MemoryPlugin, agent: UUID, tier: str) -> None:
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0}))
    memory.conversations.save_message(agent, "user", "hi", tokens_used=7, emotional_context="current")
    moved(memory, agent, tier, half=True)
    (message,) = memory.conversations.get_history(agent)
    assert (message.agent_id, message.tokens_used, message.emotional_context) == (agent, 7, {"joy": 0.5})


def test_trends_are_not_flat(memory: MemoryPlugin, agent: UUID, tier: str) -> None:
    felt = [{Emotion.LOVE: 0.5}, {Emotion.HATE: 1.0}, {Emotion.PITY: 0.25}]
    for n, changes in enumerate(felt):
        memory.emotions.save_event(agent, CustomEvent(event_type=f"{n}"), changes, mode="add")
        moved(memory, agent, tier, half=n == 1)
    events = memory.emotions.get_event_history(agent)[::-1]
    assert all(event.valence_delta and event.arousal_delta and event.intensity_delta for event in events)
    points = memory.emotions.get_emotional_trends(agent, hours=1)
    assert [(p.valence, p.arousal) for p in points] == [(e.valence, e.arousal) for e in events]
    # Next to nothing fades in between, so what one event left is what the next one found.
    for before, after in pairwise(events):
        assert after.valence - after.valence_delta == pytest.approx(before.valence, abs=0.2)
    assert len({p.valence for p in points}) == 3


def test_a_state_is_one_row_however_often_it_is_saved(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    for intensity in (0.25, 0.5, 0.75):
        memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: intensity}))
        memory.memories.store_memory(agent, "fact", "x", intensity)
        memory.flush(agent)
    with psycopg.connect(urls[1]) as database:
        for table in ("emotional_states", "memory_records", "agents"):
            counted = database.execute(f"SELECT count(*) FROM {table} WHERE agent_id = %s", [agent])
            assert counted.fetchone() == (1,)


def test_every_upsert_has_its_unique_constraint(urls: tuple[str, str]) -> None:
    text = "\n".join(statement.sql for statement in STATEMENTS.values())
    targets = re.findall(r"INSERT INTO (\w+)(?:(?!INSERT INTO)[^;])*?ON CONFLICT \(([^)]*)\)", text)
    assert targets
    with psycopg.connect(urls[1]) as database:
        unique = database.execute(
            "SELECT c.conrelid::regclass::text, array_agg(a.attname::text ORDER BY k.place)"
            " FROM pg_constraint c, unnest(c.conkey) WITH ORDINALITY AS k (number, place), pg_attribute a"
            " WHERE c.contype IN ('p', 'u') AND a.attrelid = c.conrelid AND a.attnum = k.number GROUP BY c.oid, 1"
        ).fetchall()
    for table, columns in targets:
        assert (table, [column.strip() for column in columns.split(",")]) in unique


def test_no_save_moves_the_clock_of_decay(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    before = EmotionalState({Emotion.LOVE: 0.8}, {}, datetime.now(UTC) - timedelta(seconds=30))
    memory.emotions.save_state(agent, before)
    for n in range(4):
        memory.emotions.update_emotions(agent, {Emotion.HOPE: 0.1})
        (memory.flush if n % 2 else memory.evict)(agent)
        state = memory.emotions.load_state(agent)
        assert state is not None
        expected = before.decayed(state.last_updated).emotions[Emotion.LOVE]
        assert state.emotions[Emotion.LOVE] == pytest.approx(expected, abs=1e-9)
    with psycopg.connect(urls[1]) as database:
        assert database.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall() == []


def test_tokens_are_counted(memory: MemoryPlugin, agent: UUID, tier: str) -> None:
    session = memory.sessions.start_session(agent)
    for tokens in (3, None, 4):
        memory.conversations.save_message(agent, "user", "hi", tokens_used=tokens)
        moved(memory, agent, tier, half=tokens == 3)
    assert memory.conversations.get_conversation_stats(agent).total_tokens == 7
    ended = memory.sessions.end_session(agent, session.id)
    assert (ended.total_messages, ended.total_tokens_used) == (3, 7)
    assert memory.sessions.get_sessions(agent) == [ended]


def test_a_memory_that_came_back_ends_when_it_should(memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]) -> None:
    stored = memory.memories.store_memory(agent, "context", "x", 1, ttl_seconds=1.0)
    memory.evict(agent)
    assert memory.memories.get_memory(agent, "context", "x") == stored
    key = agent_keys(agent, SETTINGS.shards).memory("context:x")
    with redis.Redis.from_url(urls[0]) as client:
        assert 0 < client.pttl(key) <= 1_000
    assert stored.expires_at is not None
    deadline = time.monotonic() + 10
    while memory.memories.get_memory(agent, "context", "x") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert abs(datetime.now(UTC) - stored.expires_at) < timedelta(seconds=2)
    memory.rehydrate(agent)
    assert memory.memories.retrieve_memory(agent, "context", "x") is None
    assert memory.memories.get_memories_by_type(agent, "context") == []


def test_a_memory_without_a_ttl_leaves_redis_and_is_still_known(
    memory: MemoryPlugin, agent: UUID, urls: tuple[str, str]
) -> None:
    memory.memories.store_memory(agent, "fact", "x", 1)
    key = agent_keys(agent, SETTINGS.shards).memory("fact:x")
    with redis.Redis.from_url(urls[0]) as client:
        assert client.pttl(key) == -1
        memory.flush(agent)
        assert 0 < client.pttl(key) <= SETTINGS.hot_ttl * 1_000
        memory.memories.get_memory(agent, "fact", "x")
        client.delete(key, agent_keys(agent, SETTINGS.shards).memories)  # as Redis does when the time is over
    assert memory.memories.retrieve_memory(agent, "fact", "x") == 1


@pytest.mark.parametrize("text", SQL)
def test_values_are_never_sql(memory: MemoryPlugin, agent: UUID, tier: str, text: str) -> None:
    event = CustomEvent(event_type=text, data={text: text})
    memory.emotions.save_event(agent, event, {}, context_factors={text: text})
    batch = [NewMessage(role="user", content=text, metadata={text: text}, emotional_context={text: text})]
    memory.conversations.save_messages(agent, batch)
    memory.memories.store_memory(agent, "fact", text, {text: text}, tags=[text])
    moved(memory, agent, tier, half=True)
    assert memory.emotions.get_event_history(agent)[0].event == event
    (message,) = memory.conversations.get_history(agent)
    assert (message.content, message.metadata, message.emotional_context) == (text, {text: text}, {text: text})
    assert memory.memories.retrieve_memory(agent, "fact", text) == {text: text}
    memory.conversations.search_messages(agent, text)
    assert memory.memories.delete_memory(agent, "fact", text)
