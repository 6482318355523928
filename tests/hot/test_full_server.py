"""A server at its memory limit: nothing is half written, reads go on, and so does what makes room."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState, HotStoreFull, NewMessage
from banshee_memory.settings import Settings
from banshee_memory.tiering.forgetting import Forgetting
from tests.hot.raw import Server
from tests.own_servers import own_database, own_redis
from tests.tiers import Tiers

SETTINGS = Settings(shards=2, message_cap=5)
HAPPENED = CustomEvent(event_type="x")


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        client = Tiers(redis, database, SETTINGS)
        yield client
        client.close()


@pytest.fixture
def agent(tiers: Tiers) -> UUID:
    """An agent with some life, unflushed, and a server that takes no more."""
    tiers.flush()
    agent = uuid4()
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0}))
    tiers.conversations.save_messages(agent, [NewMessage(role="user", content=f"word {n}") for n in range(8)])
    tiers.emotions.save_event(agent, HAPPENED, {})
    tiers.memories.store_memory(agent, "fact", "x", "data")
    return agent


@pytest.fixture
def full(tiers: Tiers, agent: UUID) -> Iterator[Server]:
    """The server, full; its policy evicts nothing, so that what it holds stays."""
    server = Server(tiers.hot)
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
    yield server
    server.command("CONFIG", "SET", "maxmemory", "0")


def test_an_agent_can_be_forgotten(tiers: Tiers, agent: UUID, full: Server) -> None:
    used = full.command("DBSIZE")
    report = Forgetting(tiers.settings, tiers.hot, tiers.cold).forget(agent)
    assert (report.keys, report.log_entries, report.left) == (4, 11, 0)
    assert full.command("DBSIZE") < used


def test_writes_are_refused_whole(tiers: Tiers, agent: UUID, full: Server) -> None:
    before = full.content()
    for write in (
        lambda: tiers.emotions.save_state(agent, EmotionalState()),
        lambda: tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.5}),
        lambda: tiers.emotions.save_event(agent, HAPPENED, {Emotion.JOY: 0.5}),
        lambda: tiers.conversations.save_message(agent, "user", "more"),
        lambda: tiers.memories.store_memory(agent, "fact", "x", "new"),
        lambda: tiers.memories.store_memory(agent, "fact", "y", "new"),
        lambda: tiers.emotions.update_emotions(uuid4(), {Emotion.JOY: 0.5}),
    ):
        with pytest.raises(HotStoreFull):
            write()
    assert full.content() == before


def everything(tiers: Tiers, agent: UUID) -> None:
    state = tiers.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.5}
    assert [m.content for m in tiers.conversations.get_history(agent)] == [f"word {n}" for n in range(8)]
    assert len(tiers.conversations.search_messages(agent, "words")) == 8
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 8
    assert len(tiers.emotions.get_event_history(agent)) == 1
    assert tiers.memories.retrieve_memory(agent, "fact", "x") == "data"
    assert len(tiers.memories.get_memories_by_type(agent, "fact")) == 1
    assert tiers.memories.get_memory(agent, "fact", "unknown") is None


def test_reads_are_served_from_either_tier(tiers: Tiers, agent: UUID, full: Server) -> None:
    everything(tiers, agent)
    tiers.flush(agent)
    everything(tiers, agent)
    tiers.evict(agent)
    everything(tiers, agent)


def test_a_flush_and_an_evict_make_room(tiers: Tiers, agent: UUID, full: Server) -> None:
    before = full.command("DBSIZE")
    report = tiers.evict(agent)
    assert (report.kept, report.flushed.messages) == (0, 8)
    assert full.command("DBSIZE") < before
    assert full.command("XLEN", tiers.keys(agent).log) == 0


def test_a_resident_memory_can_be_deleted(tiers: Tiers, agent: UUID, full: Server) -> None:
    assert tiers.memories.delete_memory(agent, "fact", "x") is True
    assert tiers.memories.get_memory(agent, "fact", "x") is None
    tiers.flush(agent)
    assert tiers.memories.get_memory(agent, "fact", "x") is None


def test_a_delete_of_what_is_cold_says_that_redis_is_full(tiers: Tiers, agent: UUID, full: Server) -> None:
    tiers.evict(agent)
    with pytest.raises(HotStoreFull):
        tiers.memories.delete_memory(agent, "fact", "x")
    full.command("CONFIG", "SET", "maxmemory", "0")
    assert tiers.memories.delete_memory(agent, "fact", "x") is True


def test_poison_leaves_a_full_server_too(tiers: Tiers, agent: UUID, full: Server) -> None:
    full.command("CONFIG", "SET", "maxmemory", "0")
    keys = tiers.keys(agent)
    full.fcall("append_messages", [keys.messages, keys.log, keys.state], agent.bytes, "", "", b"\xc1 no MessagePack")
    full.command("CONFIG", "SET", "maxmemory", "1")
    assert tiers.flush(agent).poisoned == 1
    assert full.command("XLEN", keys.log) == 0
