"""Redis is filled to its limit again and again: nothing is lost, whatever it evicts by itself; what is idle can go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import (
    ConfigurationError,
    CustomEvent,
    Emotion,
    EmotionalState,
    HotStoreFull,
    HotStoreUnavailable,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from tests.own_servers import own_database, own_redis
from tests.tiering.lives import STEADY

SETTINGS = Settings(message_cap=100, event_cap=100, shards=4, message_retention_days=None, event_retention_days=None)
ROOM = 2_000_000
ROUNDS = 4


@pytest.fixture
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield database, redis


@pytest.fixture
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(*urls, settings=SETTINGS) as plugin:
        yield plugin


def command(memory: MemoryPlugin, *words: str | bytes | int) -> Any:
    return memory._open()[0]._ask(memory._open()[0]._client(), *words)


class Lives:
    """Agents, and what they were told to remember."""

    def __init__(self, memory: MemoryPlugin) -> None:
        self.memory = memory
        self.agents = [uuid4() for _ in range(10)]
        self.messages: dict[UUID, list[UUID]] = {agent: [] for agent in self.agents}
        self.events: dict[UUID, list[UUID]] = {agent: [] for agent in self.agents}
        self.joy: dict[UUID, float] = {}
        self.known: dict[UUID, dict[str, int]] = {agent: {} for agent in self.agents}
        self._numbers = count(1)

    def live_until_full(self) -> None:
        """What is refused is not remembered: nothing of it may be there. Just before it is full, Redis may also evict
        what is brought in as fast as it comes."""
        try:
            for number in self._numbers:
                self._step(self.agents[number % len(self.agents)], number)
        except HotStoreFull:
            pass
        except HotStoreUnavailable as exc:
            if "evicts keys as fast as they are rehydrated" not in str(exc):
                raise

    def _step(self, agent: UUID, number: int) -> None:
        batch = [NewMessage(role="user", content=f"{number} " + "x" * 500)] * 10
        self.messages[agent] += self.memory.conversations.save_messages(agent, batch)
        joy = number % 1_000 / 1_000
        self.memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: joy}, dict(STEADY)))
        self.joy[agent] = joy
        event = CustomEvent(event_type="x", data={"n": number})
        self.events[agent].append(self.memory.emotions.save_event(agent, event, {}, mode="record").id)
        name = f"k{number % 7}"
        self.memory.memories.store_memory(agent, "fact", name, {"n": number, "text": "y" * 300})
        self.known[agent][name] = number

    def check(self) -> None:
        """Everything, and nothing else, is read back."""
        for agent in self.agents:
            assert [m.id for m in self.memory.conversations.get_history(agent, 100_000)] == self.messages[agent]
            total = self.memory.conversations.get_conversation_stats(agent).total_messages
            assert total == len(self.messages[agent])
            history = self.memory.emotions.get_event_history(agent, 1_000)
            assert [event.id for event in history[::-1]] == self.events[agent][-1_000:]
            state = self.memory.emotions.load_state(agent)
            assert (state.emotions.get(Emotion.JOY, 0.0) if state else None) == self.felt(agent)
            found = self.memory.memories.get_memories_by_type(agent, "fact", 100)
            assert {m.key: m.data["n"] for m in found} == self.known[agent]

    def felt(self, agent: UUID) -> float | None:
        """Under 0.01 is nothing."""
        joy = self.joy.get(agent)
        return joy if joy is None or joy >= 0.01 else 0.0


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl", "noeviction"])
def test_all_is_read_back_however_full_it_was(memory: MemoryPlugin, policy: str) -> None:
    memory.flush()
    limit = int(memory.stats().redis_used_memory) + ROOM
    command(memory, "CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", limit)
    lives = Lives(memory)
    written = 0
    for number in range(ROUNDS):
        lives.live_until_full()
        lives.check()
        report = memory.flush()
        written += report.messages
        assert report.messages > 0
        if policy == "noeviction" and number < ROUNDS - 1:
            memory.evict_idle(0)
        lives.check()
    assert written == sum(map(len, lives.messages.values()))
    evicted = int(memory._open()[0].info()["evicted_keys"])
    assert (evicted > 0) == policy.startswith("volatile"), evicted
    assert memory.stats().dead_letters == 0


def settled(memory: MemoryPlugin, agent: UUID) -> None:
    memory.conversations.save_message(agent, "user", "hello")
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    memory.memories.store_memory(agent, "fact", "näme", 1)


def resident(memory: MemoryPlugin, agent: UUID) -> set[bytes]:
    return set(memory._open()[0].keys(f"*:{agent}*"))


def age(memory: MemoryPlugin, agent: UUID, seconds: int) -> None:
    """As if nobody had used its keys for so long."""
    for key in resident(memory, agent):
        ttl, value = command(memory, "PTTL", key), command(memory, "DUMP", key)
        command(memory, "RESTORE", key, max(ttl, 0), value, "REPLACE", "IDLETIME", seconds)


def test_what_is_idle_goes_and_what_is_not_flushed_stays(memory: MemoryPlugin) -> None:
    idle, busy, dirty = uuid4(), uuid4(), uuid4()
    for agent in (idle, busy):
        settled(memory, agent)
    memory.flush()
    age(memory, idle, 5_000)
    age(memory, busy, 100)
    busy_keys = resident(memory, busy)
    report = memory.evict_idle(600)
    assert (report.dropped, report.kept, report.flushed.records) == (4, 0, 0)
    assert not resident(memory, idle)
    assert resident(memory, busy) == busy_keys
    settled(memory, dirty)
    age(memory, dirty, 5_000)
    command(memory, "SET", "banshee:{0}:other", "not ours", "EX", 1_000)
    assert memory.evict_idle(600).flushed.records >= 3
    assert memory.evict_idle(0).dropped >= 4
    assert command(memory, "EXISTS", "banshee:{0}:other") == 1
    for agent in (idle, busy, dirty):
        assert memory.memories.retrieve_memory(agent, "fact", "näme") == 1
        assert [m.content for m in memory.conversations.get_history(agent)] == ["hello"]


def test_a_server_that_does_not_know_what_is_idle(memory: MemoryPlugin, agent: UUID) -> None:
    settled(memory, agent)
    command(memory, "CONFIG", "SET", "maxmemory-policy", "volatile-lfu")
    with pytest.raises(ConfigurationError, match="LFU"):
        memory.evict_idle(1)


@pytest.mark.parametrize("idle", [-1, float("nan"), float("inf"), True, "1", None])
def test_an_age_that_is_none_is_refused(idle: Any) -> None:
    with pytest.raises(InvalidInput, match="idle"):
        MemoryPlugin("postgresql://nowhere.invalid/x", "redis://nowhere.invalid").evict_idle(idle)


def test_what_nobody_uses_leaves_by_itself(urls: tuple[str, str], agent: UUID) -> None:
    with MemoryPlugin(*urls, settings=Settings(shards=4, hot_ttl=0.05, message_retention_days=None)) as memory:
        settled(memory, agent)
        assert len(resident(memory, agent)) == 4
        memory.flush()
        deadline = time.monotonic() + 20
        while resident(memory, agent):
            assert time.monotonic() < deadline
        assert memory.memories.retrieve_memory(agent, "fact", "näme") == 1
        assert [m.content for m in memory.conversations.get_history(agent)] == ["hello"]
