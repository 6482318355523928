"""A Redis that lost its logs: what is written afterwards still comes after what PostgreSQL has, or is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import msgspec
import pytest
import redis

from banshee_memory import (
    ColdStoreUnavailable,
    ConfigurationError,
    Durability,
    Emotion,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from tests.own_servers import own_database, own_redis

SETTINGS = Settings(shards=4)


@pytest.fixture
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    """A Redis and a database of their own."""
    with own_redis(like=redis_url) as own, own_database(database_url, SETTINGS) as database:
        yield own, database


@pytest.fixture
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(urls[1], urls[0], settings=SETTINGS) as plugin:
        yield plugin


def lose_everything(urls: tuple[str, str]) -> None:
    """What a restart from an empty disk leaves."""
    with redis.Redis.from_url(urls[0]) as client:
        client.flushall()


def run_ahead(urls: tuple[str, str]) -> None:
    """Puts every log a year ahead of the clock, as a wrong clock would have."""
    with redis.Redis.from_url(urls[0]) as client:
        now_ms = client.time()[0] * 1000
        for shard in range(SETTINGS.shards):
            client.execute_command("XSETID", f"banshee:{{{shard}}}:log", f"{now_ms + 31_536_000_000}-0")


def test_what_is_written_after_a_loss_is_newer_than_what_is_cold(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agent = uuid4()
    memory.memories.store_memory(agent, "fact", "k", "old")
    run_ahead(urls)
    memory.memories.store_memory(agent, "fact", "k", "older")
    memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.1})
    memory.conversations.save_message(agent, "user", "first")
    memory.flush()
    lose_everything(urls)
    memory.memories.store_memory(agent, "fact", "k", "new")
    memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.9}, mode="set")
    memory.conversations.save_message(agent, "user", "second")
    assert memory.conversations.get_conversation_stats(agent).total_messages == 2
    report = memory.flush()
    assert report.duplicates == 0
    memory.evict(agent)
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions[Emotion.LOVE] > 0.8
    assert memory.memories.retrieve_memory(agent, "fact", "k") == "new"
    assert [m.content for m in memory.conversations.get_history(agent)] == ["first", "second"]
    assert memory.conversations.get_conversation_stats(agent).total_messages == 2


def test_a_batch_that_meets_the_loss_is_written_once(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    agents = [uuid4() for _ in range(8)]
    lose_everything(urls)
    for agent in agents:
        memory.conversations.save_messages(agent, [NewMessage(role="user", content=str(n)) for n in range(3)])
    for agent in agents:
        assert [m.content for m in memory.conversations.get_history(agent)] == ["0", "1", "2"]


def test_a_client_with_other_shards_is_refused_before_it_writes(memory: MemoryPlugin, urls: tuple[str, str]) -> None:
    lose_everything(urls)
    with MemoryPlugin(urls[1], urls[0], settings=Settings(shards=8)) as other, pytest.raises(ConfigurationError):
        other.conversations.save_message(uuid4(), "user", "hello")
    with redis.Redis.from_url(urls[0]) as client:
        assert client.keys("banshee:*") == []
    memory.conversations.save_message(uuid4(), "user", "hello", durability=Durability.COLD)


def test_without_postgres_a_lost_redis_takes_nothing(urls: tuple[str, str]) -> None:
    lose_everything(urls)
    patient = msgspec.structs.replace(SETTINGS, connect_timeout=1.0)
    away = "postgresql://nobody@/nothing?host=/nonexistent"
    with (
        MemoryPlugin(away, urls[0], settings=patient) as memory,
        pytest.raises(ColdStoreUnavailable, match="nothing is written to it before PostgreSQL has been asked"),
    ):
        memory.conversations.save_message(uuid4(), "user", "hello")
    with redis.Redis.from_url(urls[0]) as client:
        told = {b"banshee:store", *(f"banshee:{{{shard}}}:stats".encode() for shard in range(SETTINGS.shards))}
        assert set(client.keys("banshee:*")) <= told, "more than which server it is"
