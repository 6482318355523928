"""`Settings.memory_policies`: how memories of a type are kept, on both clients, wherever the agent's records are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from banshee_memory import AsyncMemoryPlugin, InvalidInput, MemoryPlugin, MemoryPolicy, Settings
from banshee_memory.cold import reads
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import agent_keys
from tests.clients import awaited
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers

POLICIES = {
    "mood_ring": MemoryPolicy(volatile=True),
    "flash": MemoryPolicy(volatile=True, ttl_seconds=120.0),
    "brief": MemoryPolicy(ttl_seconds=3_600.0, importance=0.25),
    "goal": MemoryPolicy(importance=0.125),
}
SETTINGS = Settings(memory_policies=POLICIES)


@pytest.fixture(scope="module")
def both(redis_url: str, database_url: str) -> Iterator[dict[str, MemoryPlugin]]:
    with asyncio.Runner() as runner, MemoryPlugin(database_url, redis_url, settings=SETTINGS) as plugin:
        twin = AsyncMemoryPlugin(database_url, redis_url, settings=SETTINGS)
        yield {"sync": plugin, "async": awaited(twin, runner)}
        runner.run(twin.aclose())


@pytest.fixture(params=["sync", "async"])
def client(both: dict[str, MemoryPlugin], request: pytest.FixtureRequest) -> MemoryPlugin:
    """One client after the other, both with policies."""
    return both[request.param]


def test_a_type_has_its_time_to_live_and_importance(memory: MemoryPlugin, agent: UUID) -> None:
    brief = memory.memories.store_memory(agent, "brief", "x", {"a": 1})
    assert (brief.expires_at, brief.importance) == (brief.created_at + timedelta(hours=1), 0.25)
    given = memory.memories.store_memory(agent, "brief", "y", 1, 60, importance=0.75)
    assert (given.expires_at, given.importance) == (given.created_at + timedelta(minutes=1), 0.75)
    assert memory.memories.store_memory(agent, "goal", "x", 1).importance == 0.125
    assert memory.memories.get_memories_by_type(agent, "brief") == [given, brief]
    assert memory.memories.retrieve_memory(agent, "brief", "x") == {"a": 1}


def test_a_volatile_memory_is_never_in_postgresql(client: MemoryPlugin, sync_client: MemoryPlugin, agent: UUID) -> None:
    ring = client.memories.store_memory(agent, "mood_ring", "x", "blue", tags=["t"])
    flash = client.memories.store_memory(agent, "flash", "x", "white")
    assert ring.expires_at == ring.created_at + timedelta(seconds=SETTINGS.hot_ttl)
    assert flash.expires_at == flash.created_at + timedelta(seconds=120)
    client.flush(agent)
    assert client.memories.get_memory(agent, "mood_ring", "x") == ring
    assert client.memories.get_memories_by_type(agent, "mood_ring") == [ring]
    assert client.memories.retrieve_memory(agent, "mood_ring", "x") == "blue"
    again = client.memories.store_memory(agent, "mood_ring", "x", "green")
    assert (again.created_at, again.access_count, again.data) == (ring.created_at, 1, "green")
    client.flush(agent)
    hot, cold = sync_client._open()
    assert cold.fetch(reads.memory_page(agent, "mood_ring", 0, 10)) == []
    assert cold.fetch(reads.memory_page(agent, "flash", 0, 10)) == []
    key = agent_keys(agent, SETTINGS.shards).memory("flash:x")
    assert 0 < hot.run(Call(("PTTL", key), int)) <= 120_000


def test_a_volatile_memory_is_gone_when_redis_lets_it_go(memory: MemoryPlugin, agent: UUID) -> None:
    memory.memories.store_memory(agent, "fact", "kept", 1)
    memory.memories.store_memory(agent, "flash", "x", "white")
    memory.evict(agent)
    assert memory.memories.get_memory(agent, "flash", "x") is None
    assert memory.memories.get_memories_by_type(agent, "flash") == []
    assert memory.memories.delete_memory(agent, "flash", "x") is False
    assert [m.key for m in memory.memories.get_memories_by_type(agent, None)] == ["kept"]


def test_a_volatile_memory_can_be_deleted(client: MemoryPlugin, agent: UUID) -> None:
    client.memories.store_memory(agent, "flash", "x", "white")
    assert client.memories.delete_memory(agent, "flash", "x") is True
    assert client.memories.delete_memory(agent, "flash", "x") is False
    assert client.memories.get_memories_by_type(agent, "flash") == []


@pytest.mark.parametrize("deleted", [False, True], ids=["replaced", "deleted"])
def test_what_was_kept_does_not_come_back(
    client: MemoryPlugin, sync_client: MemoryPlugin, agent: UUID, deleted: bool
) -> None:
    """A type that becomes volatile: what PostgreSQL has of it, or is about to, is replaced there too."""
    sync_client.memories.store_memory(agent, "temp", "x", "old")
    sync_client.flush(agent)
    if deleted:
        sync_client.memories.delete_memory(agent, "temp", "x")
    policies = {"temp": MemoryPolicy(volatile=True)}
    with MemoryPlugin(
        str(sync_client._connections.urls()[1]),
        str(sync_client._connections.urls()[0]),
        settings=Settings(memory_policies=policies),
    ) as later:
        later.memories.store_memory(agent, "temp", "x", "new")
        assert later.memories.get_memory(agent, "temp", "x").data == "new"  # type: ignore[union-attr]
    client.evict(agent)
    assert client.memories.retrieve_memory(agent, "temp", "x") in (None, "new")


def test_what_follows_a_volatile_memory_that_is_over_is_as_volatile(
    timed: Tiers, timed_memory: MemoryPlugin, agent: UUID
) -> None:
    for us in (1_700_000_000_000_000, 1_700_000_060_000_001):
        timed.hot.run(Call(("SET", CLOCK_KEY, us), bytes))
        stored = timed_memory.memories.store_memory(agent, "scratch", "x", us, 60)
        assert (stored.created_at, stored.data) == (stored.updated_at, us)
    timed_memory.evict(agent)
    assert timed_memory.memories.get_memory(agent, "scratch", "x") is None


@pytest.mark.parametrize("name", ["unheard_of", "mood ring", "Goal", "", "_session", "a" * 65, "ü", "goal\0", 1, None])
def test_a_type_that_is_not_registered_is_refused(client: MemoryPlugin, agent: UUID, name: str) -> None:
    with pytest.raises(InvalidInput, match="memory_type"):
        client.memories.store_memory(agent, name, "x", 1)
    assert client.memories.get_memories_by_type(agent, None) == []


@pytest.mark.parametrize("seconds", [1.0, 3_600.0])
def test_a_memory_lives_exactly_so_long(timed: Tiers, timed_memory: MemoryPlugin, agent: UUID, seconds: float) -> None:
    begun, memories = 1_700_000_000_000_000, timed_memory.memories
    timed.hot.run(Call(("SET", CLOCK_KEY, begun), bytes))
    memories.store_memory(agent, "fact", "stays", 1)
    memories.store_memory(agent, "fact", "goes", 2, seconds)
    for left, living in ((1, ["goes", "stays"]), (0, ["stays"])):
        timed.hot.run(Call(("SET", CLOCK_KEY, begun + int(seconds * 1e6) - left), bytes))
        assert sorted(m.key for m in memories.get_memories_by_type(agent, "fact")) == living
        assert (memories.get_memory(agent, "fact", "goes") is not None) is ("goes" in living)
        assert memories.retrieve_memory(agent, "fact", "goes") == (2 if "goes" in living else None)
    assert memories.delete_memory(agent, "fact", "goes") is False
    again = memories.store_memory(agent, "fact", "goes", 3)
    assert (again.access_count, again.created_at) == (0, again.updated_at)
