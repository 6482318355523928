"""Calls with an idempotency key on a server that lost them: what is in PostgreSQL is not done again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from banshee_memory import CustomEvent, Emotion, MemoryPlugin, NewMessage, Settings
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import shard_keys
from banshee_memory.stamps import to_us
from tests.own_servers import own_database, own_redis
from tests.redis_servers import redises

SETTINGS = Settings(shards=2)


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as own, own_database(database_url, SETTINGS) as database:
        yield own, database


@pytest.fixture
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(urls[1], urls[0], settings=SETTINGS) as plugin:
        yield plugin


def lose_everything(urls: tuple[str, str]) -> None:
    with redis.Redis.from_url(urls[0]) as client:
        client.flushall()


def call_all(memory: MemoryPlugin, agent: UUID, key: str) -> list[object]:
    """One of each call that takes a key."""
    happened = CustomEvent(event_type="happened")
    messages = [NewMessage(role="user", content=str(n)) for n in range(3)]
    return [
        memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.25}, idempotency_key=key).emotions.keys(),
        memory.emotions.save_event(agent, happened, {Emotion.LOVE: 0.25}, mode="add", idempotency_key=key).id,
        memory.conversations.save_message(agent, "user", "once", idempotency_key=key),
        memory.conversations.save_messages(agent, messages, idempotency_key=f"{key} of several"),
        memory.memories.store_memory(agent, "fact", "k", key, idempotency_key=key).updated_at,
        memory.sessions.start_session(agent, idempotency_key=key).id,
    ]


def test_what_was_flushed_is_not_done_again(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agent = uuid4()
    first = call_all(memory, agent, "key")
    memory.flush()
    memory.memories.store_memory(agent, "fact", "k", "newer", idempotency_key="other")
    memory.flush()
    lose_everything(urls)
    assert call_all(memory, agent, "key") == first
    assert memory.conversations.get_conversation_stats(agent).total_messages == 4
    assert len(memory.emotions.get_event_history(agent)) == 1
    assert len(memory.sessions.get_sessions(agent)) == 1
    assert memory.memories.retrieve_memory(agent, "fact", "k") == "newer"
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert 0.4 < state.emotions[Emotion.LOVE] <= 0.5
    report = memory.flush()
    assert (report.messages, report.events) == (0, 0)


def test_what_was_lost_is_done_once_more_and_only_once(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "lost", idempotency_key="key")
    lose_everything(urls)
    again = [memory.conversations.save_message(agent, "user", "lost", idempotency_key="key") for _ in range(2)]
    assert again[0] == again[1]
    assert memory.conversations.get_conversation_stats(agent).total_messages == 1


def test_a_replica_that_lags_is_told_what_it_lacks(redis_url: str, database_url: str) -> None:
    with redises(redis_url) as servers, own_database(database_url, SETTINGS) as database:
        first, replica = servers.new(), servers.new()
        servers.front.lead_to(first)
        with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
            agent = uuid4()
            early = call_all(memory, agent, "early")
            replica.follow(first)
            replica.await_all_of(first)
            replica.promote()
            late = call_all(memory, agent, "late")
            memory.flush()
            first.kill()
            servers.front.lead_to(replica)
            assert call_all(memory, agent, "late") == late
            assert call_all(memory, agent, "early") == early
            assert memory.conversations.get_conversation_stats(agent).total_messages == 8
            assert memory.flush().messages == 0


def test_many_are_told_in_pages(memory: MemoryPlugin, urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banshee_memory.cold.drain._PAGE", 7)
    agents = [uuid4() for _ in range(40)]
    ids = [memory.conversations.save_message(agent, "user", "x", idempotency_key="key") for agent in agents]
    memory.flush()
    lose_everything(urls)
    assert ids == [memory.conversations.save_message(agent, "user", "x", idempotency_key="key") for agent in agents]


def test_the_window_is_the_same_in_postgres(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "x", idempotency_key="key")
    memory.flush()
    _, cold = memory._open()
    before = to_us(datetime.now(UTC) - timedelta(days=1)) // 1_000 << 16
    after = to_us(datetime.now(UTC) + timedelta(hours=1)) // 1_000 << 16
    assert [cold.sweep_replies(shard, before) for shard in range(SETTINGS.shards)] == [0, 0]
    brief = msgspec.structs.replace(SETTINGS, idempotency_window=1e-6)
    lose_everything(urls)
    with MemoryPlugin(urls[1], urls[0], settings=brief) as forgetful:
        forgetful.conversations.save_message(uuid4(), "user", "y")
        lengths = [Call(("HLEN", shard_keys(shard).idem), int) for shard in range(SETTINGS.shards)]
        assert sum(forgetful._open()[0].run_all(lengths)) == 0
    assert sum(cold.sweep_replies(shard, after) for shard in range(SETTINGS.shards)) > 0
    assert [cold.sweep_replies(shard, after) for shard in range(SETTINGS.shards)] == [0, 0]


def test_a_forgotten_agents_are_forgotten_too(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agent = uuid4()
    first = memory.conversations.save_message(agent, "user", "x", idempotency_key="key")
    memory.flush()
    report = memory.forget(agent)
    assert report.left == 0
    lose_everything(urls)
    assert memory.conversations.save_message(agent, "user", "x", idempotency_key="key") != first
    assert memory.conversations.get_conversation_stats(agent).total_messages == 1


def test_a_key_that_is_none_stops_no_flush(memory: MemoryPlugin) -> None:
    """Somebody else put it into the log."""
    memory.flush()
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "x", idempotency_key="key")
    hot, _ = memory._open()
    keys = shard_keys(agent.int % SETTINGS.shards)
    for once in (b"", b"\0", b"m", b"m" * 5_000, b"\xff\xff"):
        hot.run(Call(("XADD", keys.log, "*", "k", b"S" + agent.bytes, "p", b"", "i", once), bytes))
    assert memory.flush().messages == 1
