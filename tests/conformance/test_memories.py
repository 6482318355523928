"""`memory.memories`: every method, on both clients, wherever the agent's records are."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from banshee_memory import InvalidInput, MemoryPlugin


def test_an_unknown_memory_is_none(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.memories.retrieve_memory(agent, "fact", "x") is None
    assert memory.memories.get_memory(agent, "fact", "x") is None
    assert memory.memories.delete_memory(agent, "fact", "x") is False
    assert memory.memories.get_memories_by_type(agent, "fact") == []


@pytest.mark.parametrize(
    "data",
    [None, True, 0, -0.0, 1.0, 2**63 - 1, -(2**63), 1e23, 5e-324, "", "ü🦊\u202e", [], {}, {"": [{"a": None}]}],
    ids=repr,
)
def test_data_comes_back_equal(memory: MemoryPlugin, agent: UUID, data: object) -> None:
    stored = memory.memories.store_memory(agent, "fact", "x", data)
    assert stored.data == data
    read = memory.memories.get_memory(agent, "fact", "x")
    assert read == stored
    assert read is not None
    assert type(read.data) is type(data)
    retrieved = memory.memories.retrieve_memory(agent, "fact", "x")
    assert (retrieved, type(retrieved)) == (data, type(data))


@pytest.mark.parametrize("key", ["a:b", "{17}", "a b\n", "ключ", "🦊", "*", "'; DROP TABLE x; --", "\u202e", "a" * 512])
def test_keys_are_any_text(memory: MemoryPlugin, agent: UUID, key: str) -> None:
    memory.memories.store_memory(agent, "fact", key, 1)
    memory.memories.store_memory(agent, "fact", key[:-1] + "!", 2)
    assert memory.memories.retrieve_memory(agent, "fact", key) == 1
    assert {m.key for m in memory.memories.get_memories_by_type(agent, "fact")} == {key, key[:-1] + "!"}


def test_a_memory_has_all_that_is_known_of_it(memory: MemoryPlugin, agent: UUID) -> None:
    stored = memory.memories.store_memory(agent, "goal", "x", {"a": 1, "b": 2}, 3600, tags=("t", "ü"))
    assert (stored.agent_id, stored.memory_type, stored.key, stored.tags) == (agent, "goal", "x", ("t", "ü"))
    assert stored.importance == pytest.approx(0.9)
    assert stored.access_count == 0
    assert stored.created_at == stored.updated_at == stored.last_accessed
    assert stored.expires_at == stored.created_at + timedelta(hours=1)
    assert memory.memories.get_memory(agent, "goal", "x") == stored


def test_accesses_are_counted_exactly(memory: MemoryPlugin, agent: UUID) -> None:
    stored = memory.memories.store_memory(agent, "fact", "x", "data")
    for _ in range(3):
        assert memory.memories.retrieve_memory(agent, "fact", "x") == "data"
        memory.memories.get_memory(agent, "fact", "x")
    read = memory.memories.get_memory(agent, "fact", "x")
    assert read is not None
    assert read.access_count == 3
    assert read.last_accessed > stored.last_accessed
    assert read.updated_at == stored.updated_at


def test_a_replacement_keeps_birth_and_count(memory: MemoryPlugin, agent: UUID) -> None:
    first = memory.memories.store_memory(agent, "fact", "x", "old", 3600, importance=0.125, tags=["t"])
    memory.memories.retrieve_memory(agent, "fact", "x")
    second = memory.memories.store_memory(agent, "fact", "x", "new")
    assert (second.id, second.created_at, second.access_count) == (first.id, first.created_at, 1)
    assert (second.data, second.expires_at, second.tags) == ("new", None, ())
    assert second.updated_at > first.updated_at
    assert memory.memories.get_memory(agent, "fact", "x") == second


def test_the_deleted_stays_so_until_it_is_stored_again(memory: MemoryPlugin, agent: UUID) -> None:
    memory.memories.store_memory(agent, "fact", "x", 1)
    memory.memories.retrieve_memory(agent, "fact", "x")
    assert memory.memories.delete_memory(agent, "fact", "x") is True
    assert memory.memories.delete_memory(agent, "fact", "x") is False
    assert memory.memories.retrieve_memory(agent, "fact", "x") is None
    assert memory.memories.get_memory(agent, "fact", "x") is None
    assert memory.memories.get_memories_by_type(agent, "fact") == []
    memory.rehydrate(agent)
    assert memory.memories.get_memory(agent, "fact", "x") is None
    again = memory.memories.store_memory(agent, "fact", "x", 2)
    assert again.access_count == 0
    assert memory.memories.get_memory(agent, "fact", "x") == again


def test_a_page_is_the_worthiest_first(memory: MemoryPlugin, agent: UUID) -> None:
    for n, importance in enumerate((0.25, 0.75, 0.5, 0.75, 0.25)):
        memory.memories.store_memory(agent, "skill", f"k{n}", n, importance=importance)
    memory.memories.store_memory(agent, "goal", "other", 9, importance=1.0)
    memory.memories.retrieve_memory(agent, "skill", "k0")
    keys = [m.key for m in memory.memories.get_memories_by_type(agent, "skill")]
    assert keys == ["k3", "k1", "k2", "k0", "k4"]
    pages = [memory.memories.get_memories_by_type(agent, "skill", 2, offset) for offset in (0, 2, 4, 6)]
    assert [[m.key for m in page] for page in pages] == [["k3", "k1"], ["k2", "k0"], ["k4"], []]
    assert [m.key for m in memory.memories.get_memories_by_type(agent, "goal")] == ["other"]
    assert memory.memories.get_memories_by_type(uuid4(), "skill") == []


def test_importance_follows_type_and_data(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.memories.store_memory(agent, "goal", "a", None).importance == pytest.approx(0.8)
    assert memory.memories.store_memory(agent, "temp", "b", "one two").importance == pytest.approx(0.32)
    assert memory.memories.store_memory(agent, "temp", "b", "one two", importance=1).importance == 1.0


def test_the_short_names_are_the_same_methods(memory: MemoryPlugin, agent: UUID) -> None:
    memory.store_memory(agent, "preference", "tea", {"kind": "green"}, 60)
    assert memory.retrieve_memory(agent, "preference", "tea") == {"kind": "green"}


def test_what_is_refused_leaves_nothing(memory: MemoryPlugin, agent: UUID) -> None:
    for key, data in (("", 1), ("a\0", 1), ("\ud800", 1), ("a", float("nan")), ("a", "\0"), ("a", {1: 2})):
        with pytest.raises(InvalidInput):
            memory.memories.store_memory(agent, "fact", key, data)
    assert memory.memories.get_memories_by_type(agent, "fact") == []
