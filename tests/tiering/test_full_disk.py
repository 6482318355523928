"""A disk that is full: a limit on the size of files stands for it. A clear error, nothing lost, and on it goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

import pytest
import redis

from banshee_memory import BansheeError, ColdStoreUnavailable, HotStoreFull, MemoryPlugin, Settings
from tests.own_servers import lasting_postgres, lasting_redis
from tests.postgres_servers import PostgresServer
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
SETTINGS = Settings(message_cap=5, call_timeout=20.0)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with lasting_postgres(SETTINGS) as server:
        yield server


@pytest.fixture
def hot() -> Iterator[RedisServer]:
    with lasting_redis() as server:
        yield server


def noise(size: int) -> str:
    """Text that cannot be made shorter."""
    return os.urandom(size // 2).hex()


def test_postgresql_s_disk_is_full(hot: RedisServer, postgres: PostgresServer, agent: UUID) -> None:
    texts = [noise(900_000) for _ in range(30)]
    with MemoryPlugin(postgres.database_url, hot.url, settings=SETTINGS) as memory:
        memory.flush()
        postgres.limit_files(20_000_000)  # a segment of the write-ahead log has 16 MiB
        for text in texts:
            memory.conversations.save_message(agent, "user", text)
        with pytest.raises(ColdStoreUnavailable) as refused:
            memory.flush()
        assert "could not" in str(refused.value)
        assert memory.stats().dead_letters == 0
        assert memory.stats().backlog.records > 0
        assert [m.content for m in memory.conversations.get_history(agent)] == texts
        postgres.limit_files(None)
        memory.flush()
        memory.evict(agent)
        assert [m.content for m in memory.conversations.get_history(agent)] == texts
        assert memory.conversations.get_conversation_stats(agent).total_messages == len(texts)
        assert memory.stats().backlog.records == memory.stats().dead_letters == 0


def test_the_disk_of_redis_is_full(hot: RedisServer, postgres: PostgresServer, agent: UUID) -> None:
    with MemoryPlugin(postgres.database_url, hot.url, settings=SETTINGS) as memory:
        memory.conversations.save_message(agent, "user", "before")
        with redis.Redis.from_url(hot.url) as server:
            hot.limit_growth(300_000)
            said = [*filled(memory, agent)]
            with pytest.raises(HotStoreFull, match="MISCONF"):
                memory.conversations.save_message(agent, "user", "refused")
            contents = [m.content for m in memory.conversations.get_history(agent, 100_000)]
            assert contents == ["before", *said]
            hot.limit_growth(None)
            until_written(memory, agent)
            server.execute_command("CONFIG", "SET", "appendfsync", "always")
            memory.conversations.save_message(agent, "user", "the last")
        hot.kill()
        hot.start()
        contents = [m.content for m in memory.conversations.get_history(agent, 100_000)]
        assert contents == ["before", *said, "after", "the last"]
        memory.evict(agent)
        assert [m.content for m in memory.conversations.get_history(agent, 100_000)] == contents


def filled(memory: MemoryPlugin, agent: UUID) -> Iterator[str]:
    """Messages until the server takes no more; those that it took."""
    with suppress(HotStoreFull):
        while True:
            text = noise(400)
            memory.conversations.save_message(agent, "user", text)
            yield text


def until_written(memory: MemoryPlugin, agent: UUID) -> None:
    """The server tries again by itself, some ten times a second."""
    for _ in range(100_000):
        try:
            memory.conversations.save_message(agent, "user", "after")
        except BansheeError:
            continue
        return
    pytest.fail("it takes no more, though there is room")
