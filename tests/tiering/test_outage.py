"""PostgreSQL away while 200,000 messages are written: Redis goes on alone, and all of it arrives once it is back."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis

from banshee_memory import (
    ColdStoreUnavailable,
    Emotion,
    EmotionalState,
    HotStoreFull,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from tests.banshee import COMMAND, environment
from tests.own_servers import lasting_postgres, lasting_redis
from tests.postgres_servers import PostgresServer
from tests.redis_servers import RedisServer
from tests.tiering.lives import STEADY

pytestmark = pytest.mark.soak
MESSAGES = 200_000
AGENTS = 200
BATCH = 50
TEXT = "what was said while nobody could write it down, " * 4
SETTINGS = Settings(message_retention_days=None)
MARGIN = 0.05
"""Of what the backlog took, how much of it the allocator may keep, in pages that are not quite empty."""


@pytest.fixture
def hot() -> Iterator[RedisServer]:
    with lasting_redis() as server:
        yield server


@pytest.fixture
def cold() -> Iterator[PostgresServer]:
    with lasting_postgres(SETTINGS) as server:
        yield server


@contextmanager
def daemon(hot: RedisServer, cold: PostgresServer, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, "daemon"], env=environment((hot.url, cold.database_url), **more), stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()


def used(hot: RedisServer) -> int:
    """Memory of what is stored, as far as the server can tell it from what the allocator holds."""
    with redis.Redis.from_url(hot.url) as server, suppress(Exception):
        server.execute_command("MEMORY", "PURGE")
    with redis.Redis.from_url(hot.url) as server:
        memory: dict[str, Any] = server.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def until_cold(memory: MemoryPlugin) -> float:
    began = time.monotonic()
    while memory.stats().backlog.records:
        assert time.monotonic() - began < 600
        time.sleep(0.1)
    return time.monotonic() - began


def test_two_hundred_thousand_messages_without_postgresql(hot: RedisServer, cold: PostgresServer) -> None:
    agents = [uuid4() for _ in range(AGENTS)]
    said: dict[UUID, list[UUID]] = {agent: [] for agent in agents}
    with MemoryPlugin(cold.database_url, hot.url, settings=SETTINGS) as memory, daemon(hot, cold):
        for agent in agents:
            said[agent] += memory.conversations.save_messages(agent, [NewMessage(role="user", content=TEXT)] * BATCH)
            memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
        until_cold(memory)
        before = used(hot)
        cold.end()
        began = time.monotonic()
        for number in range(MESSAGES // BATCH):
            agent = agents[number % AGENTS]
            batch = [NewMessage(role="user", content=f"{number} {TEXT}")] * BATCH
            said[agent] += memory.conversations.save_messages(agent, batch)
            if number % 100 == 0:
                assert [m.id for m in memory.conversations.get_history(agent)] == said[agent][-50:]
                state = memory.emotions.load_state(agent)
                assert state is not None
                assert state.emotions == {Emotion.JOY: 0.5}
        writing = time.monotonic() - began
        with pytest.raises(ColdStoreUnavailable):
            memory.conversations.search_messages(agents[0], "said")
        full = used(hot)
        cold.begin()
        carrying = until_cold(memory)
        after = used(hot)
        print(
            f"\n{MESSAGES:,} messages: written at {MESSAGES / writing:,.0f}/s while PostgreSQL was away, carried at "
            f"{MESSAGES / carrying:,.0f}/s; used_memory {before:,} before, {full:,} full, {after:,} after"
        )
        assert after - before <= MARGIN * (full - before)
        for agent in agents:
            memory.evict(agent)
            assert [m.id for m in memory.conversations.get_history(agent, 100_000)] == said[agent]
            assert memory.conversations.get_conversation_stats(agent).total_messages == len(said[agent])
        assert memory.stats().dead_letters == 0


@pytest.mark.parametrize("overflow", ["refuse", "slow"])
def test_the_limit_acts_as_chosen(hot: RedisServer, cold: PostgresServer, overflow: Any) -> None:
    limit = 20_000
    settings = Settings(
        message_retention_days=None, shards=64, backlog_limit=limit, backlog_overflow=overflow, backlog_wait=300.0
    )
    agent, said = uuid4(), list[UUID]()
    with MemoryPlugin(cold.database_url, hot.url, settings=settings) as memory:
        memory.flush()
        cold.end()
        share = settings.shard_backlog
        with daemon(hot, cold, BANSHEE_BACKLOG_LIMIT=str(limit)):
            while len(said) < share:
                said += memory.conversations.save_messages(agent, [NewMessage(role="user", content=TEXT)] * 10)
            if overflow == "refuse":
                with pytest.raises(HotStoreFull, match="backlog_limit"):
                    memory.conversations.save_message(agent, "user", "refused")
                assert len(memory.conversations.get_history(agent, 50)) == 50
                cold.begin()
                until_cold(memory)
            else:
                came_back_while_it_waits(memory, cold, agent, said)
            for number in count():
                said.append(memory.conversations.save_message(agent, "user", f"{number}"))
                if number == 99:
                    break
            until_cold(memory)
        memory.evict(agent)
        assert [m.id for m in memory.conversations.get_history(agent, 100_000)] == said


def came_back_while_it_waits(memory: MemoryPlugin, cold: PostgresServer, agent: UUID, said: list[UUID]) -> None:
    """A write that is slowed goes through by itself as soon as there is room."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(memory.conversations.save_message, agent, "user", "slowed")
        assert not waits.done()
        cold.begin()
        said.append(waits.result(300))
