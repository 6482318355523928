"""The plugin's own methods over both tiers, on both clients."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from banshee_memory import (
    CustomEvent,
    Durability,
    DurabilityUnavailable,
    Emotion,
    EvictReport,
    FlushReport,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
    RehydrateReport,
)
from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import Settings


@pytest.fixture
def cold(database_url: str, sync_client: MemoryPlugin) -> ColdStore:
    """The cold tier alone: what it says is in PostgreSQL."""
    return sync_client._open()[1]


@pytest.fixture
def hot(sync_client: MemoryPlugin) -> HotStore:
    """The hot tier alone."""
    return sync_client._open()[0]


def live(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
    memory.emotions.save_event(agent, CustomEvent(event_type="x"), {Emotion.HOPE: 0.5})
    memory.conversations.save_messages(agent, [NewMessage(role="user", content="hi")] * 3)
    memory.memories.store_memory(agent, "fact", "a", 1)
    memory.memories.store_memory(agent, "fact", "b", 1)


def hot_keys(hot: HotStore, agent: UUID) -> set[bytes]:
    return set(hot.keys(f"*{agent}*"))


def test_a_flush_carries_everything_once(client: MemoryPlugin, agent: UUID, cold: ColdStore) -> None:
    live(client, agent)
    report = client.flush(agent)
    assert (report.messages, report.events, report.states, report.memories) >= (3, 1, 1, 2)
    assert len(cold.fetch(reads.message_page(agent, 10)).placed) == 3
    assert len(cold.fetch(reads.event_page(agent, 10)).placed) == 1
    assert cold.fetch(reads.state_of(agent)) is not None
    assert len(cold.fetch(reads.memory_page(agent, "fact", 0, 10))) == 2
    again = client.flush(agent)
    assert isinstance(again, FlushReport)
    assert len(cold.fetch(reads.message_page(agent, 10)).placed) == 3


def test_a_flush_of_all_includes_each(client: MemoryPlugin, cold: ColdStore) -> None:
    agents = [uuid4() for _ in range(5)]
    for agent in agents:
        live(client, agent)
    client.flush()
    for agent in agents:
        assert cold.fetch(reads.totals_of(agent)).stats.total_messages == 3


def test_evict_leaves_no_key_and_rehydrate_brings_back(client: MemoryPlugin, agent: UUID, hot: HotStore) -> None:
    live(client, agent)
    resident = hot_keys(hot, agent)
    report = client.evict(agent)
    assert isinstance(report, EvictReport)
    assert (report.dropped, report.kept) == (6, 0)
    assert hot_keys(hot, agent) == set()
    assert client.rehydrate(agent) == RehydrateReport(state=True, messages=3, events=1, memories=2)
    assert hot_keys(hot, agent) == resident
    assert client.rehydrate(agent) == RehydrateReport()
    assert client.evict(agent).dropped == 6


def test_an_unknown_agent_rehydrates_as_nothing(client: MemoryPlugin, agent: UUID) -> None:
    assert client.rehydrate(agent) == RehydrateReport()
    assert client.emotions.load_state(agent) is None
    assert client.evict(agent).kept == 0


def test_what_is_clean_carries_a_ttl_and_what_is_not_does_not(client: MemoryPlugin, agent: UUID, hot: HotStore) -> None:
    live(client, agent)
    keys = agent_keys(agent, Settings().shards)
    every = [keys.state, keys.messages, keys.events, keys.memories, keys.memory("fact:a"), keys.memory("fact:b")]

    def with_ttl() -> set[str]:
        return {key for key in every if hot.run(Call(("TTL", key), int)) >= 0}

    assert with_ttl() == set()
    client.flush(agent)
    assert with_ttl() == set(every)
    client.memories.retrieve_memory(agent, "fact", "a")
    assert with_ttl() == set(every) - {keys.memories, keys.memory("fact:a")}
    client.conversations.save_message(agent, "user", "more")
    client.emotions.update_emotions(agent, {})
    assert with_ttl() == {keys.events, keys.memory("fact:b")}


@pytest.mark.parametrize("name", ["flush", "evict", "rehydrate"])
def test_a_bad_agent_is_refused(client: MemoryPlugin, name: str) -> None:
    with pytest.raises(InvalidInput, match="agent_id"):
        getattr(client, name)("not a UUID")


def test_cold_durability_returns_when_postgresql_has_it(client: MemoryPlugin, agent: UUID, cold: ColdStore) -> None:
    cold_level = Durability.COLD
    client.conversations.save_message(agent, "user", "hi", durability=cold_level)
    assert cold.fetch(reads.totals_of(agent)).stats.total_messages == 1
    client.emotions.update_emotions(agent, {Emotion.JOY: 0.5}, durability=cold_level)
    assert cold.fetch(reads.state_of(agent)) is not None
    client.memories.store_memory(agent, "fact", "a", 1, durability=cold_level)
    assert len(cold.fetch(reads.memory_page(agent, "fact", 0, 10))) == 1
    client.memories.delete_memory(agent, "fact", "a", durability=cold_level)
    assert cold.fetch(reads.memory_page(agent, "fact", 0, 10)) == []
    client.emotions.save_event(agent, CustomEvent(event_type="x"), {}, durability=cold_level)
    assert len(cold.fetch(reads.event_page(agent, 10)).placed) == 1


def test_synced_durability_where_the_server_can(client: MemoryPlugin, agent: UUID, hot: HotStore) -> None:
    able = bool(hot.run(Call(("COMMAND", "INFO", "WAITAOF"), lambda reply: reply[0])))
    appending = hot.info().get("aof_enabled") == "1"
    if able and appending:
        client.conversations.save_message(agent, "user", "hi", durability=Durability.SYNCED)
    else:
        with pytest.raises(DurabilityUnavailable) as refused:
            client.conversations.save_message(agent, "user", "hi", durability=Durability.SYNCED)
        assert not refused.value.applied
    assert len(client.conversations.get_history(agent)) == (1 if able and appending else 0)


def test_replicas_that_are_not_there_refuse_before_the_write(client: MemoryPlugin, agent: UUID) -> None:
    with pytest.raises(DurabilityUnavailable) as refused:
        client.emotions.update_emotions(agent, {Emotion.JOY: 0.5}, durability=Durability.REPLICATED)
    assert not refused.value.applied
    assert client.emotions.load_state(agent) is None


def test_an_unknown_durability_is_refused(client: MemoryPlugin, agent: UUID) -> None:
    with pytest.raises(InvalidInput, match="durability"):
        client.conversations.save_message(agent, "user", "hi", durability="safe")  # type: ignore[arg-type]


def test_health_and_stats_say_what_is(client: MemoryPlugin, agent: UUID) -> None:
    health = client.health_check()
    assert health.ok
    assert health.postgres_connected
    assert health.redis_connected
    assert health.redis_latency is not None
    assert health.redis_latency >= 0
    live(client, agent)
    stats = client.stats()
    assert stats.backlog.records >= 6
    assert stats.backlog.bytes > 0
    assert stats.agents_hot >= 1
    client.flush()
    after = client.stats()
    assert after.agents >= 1
    assert after.backlog.records == 0


def test_migrating_again_changes_nothing(client: MemoryPlugin) -> None:
    assert client.migrate() == []


def test_what_is_idle_is_flushed_first(client: MemoryPlugin, agent: UUID) -> None:
    client.conversations.save_message(agent, "user", "hello")
    report = client.evict_idle(86_400)
    assert report.flushed.messages >= 1
    assert report.dropped == 0
    assert [m.content for m in client.conversations.get_history(agent)] == ["hello"]
