"""A forgotten agent is gone from both tiers, nothing on its way brings it back, and it can live anew at once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from banshee_memory import Emotion, ErasureReport, InvalidInput
from banshee_memory.cold.erasure import ERASED
from banshee_memory.hot.calls import Call
from banshee_memory.tiering.forgetting import KINDS, Forgetting
from tests.tiering.lives import HAPPENED, begin, everything
from tests.tiers import Tiers

PLACEMENTS = ("hot", "clean", "half", "cold")


def forget(tiers: Tiers, agent: UUID) -> ErasureReport:
    return Forgetting(tiers.settings, tiers.hot, tiers.cold).forget(agent)


def traces(tiers: Tiers, own_urls: tuple[str, str], agent: UUID) -> list[str]:
    """Where either server still names the agent, but for its tombstones."""
    keys = [key for key in tiers.hot.keys("*") if key.decode() != tiers.keys(agent).forgotten]
    found = [key.decode() for key in keys if str(agent).encode() in key or agent.bytes in content(tiers, key)]
    with psycopg.connect(own_urls[1]) as connection:
        for table in sorted(tables_of_agents(connection) - {"forgotten"}):
            rows = connection.execute(f"SELECT 1 FROM {table} WHERE agent_id = %s LIMIT 1", (agent,))
            found += [table for _ in rows]
    return found


READ: dict[bytes, tuple[str, ...]] = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", "0", "-1"),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", "0", "-1"),
    b"stream": ("XRANGE", "-", "+"),
}


def content(tiers: Tiers, key: bytes) -> bytes:
    """All that a key holds."""
    command, *words = READ[tiers.hot.run(Call(("TYPE", key), bytes))]
    return joined(tiers.hot.run(Call((command, key, *words), lambda reply: reply)))


def joined(reply: Any) -> bytes:
    return reply if isinstance(reply, bytes) else b"\0".join(map(joined, reply or ()))


def tables_of_agents(connection: psycopg.Connection[Any]) -> set[str]:
    rows = connection.execute(
        """SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE a.attname = 'agent_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT a.attisdropped
             AND c.relnamespace = 'public'::regnamespace"""
    )
    return {name for (name,) in rows}


def test_no_table_that_names_agents_is_left_out(own_urls: tuple[str, str]) -> None:
    with psycopg.connect(own_urls[1]) as connection:
        assert tables_of_agents(connection) == ERASED | {"forgotten"}


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_nothing_is_left_of_it(tiers: Tiers, own_urls: tuple[str, str], placement: str) -> None:
    life, other = begin(tiers, placement), begin(tiers, placement)
    known = everything(tiers, other.agent)
    tiers.memories.store_memory(life.agent, "scratch", "volatile", 1)
    tiers.memories.store_memory(life.agent, "fact", "keyed", 1, idempotency_key="one")
    tiers.memories.retrieve_memory(life.agent, "fact", "k1")
    tiers.memories.delete_memory(life.agent, "fact", "k0")
    session = tiers.sessions.start_session(life.agent, {"n": 1})
    keys = tiers.keys(life.agent)
    tiers.hot.run(Call(("XADD", keys.tag + "dead", "*", "id", "1-1", "k", b"M" + life.agent.bytes, "p", "x"), bytes))
    tiers.hot.run(Call(("FCALL", "banshee1_want", 1, keys.wanted, life.agent.bytes), int))
    report = forget(tiers, life.agent)
    assert traces(tiers, own_urls, life.agent) == []
    assert (report.agent_id, report.left, report.rechecked) == (life.agent, 0, KINDS)
    assert report.idempotency_keys == 1
    assert report.feed_entries >= 6
    assert report.dead_letters == 1
    if placement in ("clean", "cold"):
        assert (report.messages, report.events, report.states, report.totals) == (8, 6, 1, 1)
    if placement == "hot":
        assert report.log_entries > 16
        assert report.messages == report.events == 0
    assert_new(tiers, life.agent)
    with pytest.raises(InvalidInput, match="no session"):
        tiers.sessions.end_session(life.agent, session.id)
    assert everything(tiers, other.agent) == known
    tiers.evict(other.agent)
    assert everything(tiers, other.agent) == known


def assert_new(tiers: Tiers, agent: UUID) -> None:
    """Nothing is known of it."""
    assert tiers.emotions.load_state(agent) is None
    assert tiers.conversations.get_history(agent) == []
    assert tiers.emotions.get_event_history(agent) == []
    assert tiers.conversations.get_conversation_stats(agent).total_messages == 0
    assert tiers.conversations.search_messages(agent, "word") == []
    assert tiers.memories.get_memories_by_type(agent, "fact") == []
    assert tiers.memories.get_memory(agent, "fact", "k1") is None
    assert tiers.sessions.get_sessions(agent) == []


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_it_lives_anew_at_once(tiers: Tiers, own_urls: tuple[str, str], placement: str) -> None:
    life = begin(tiers, placement)
    forget(tiers, life.agent)
    begin_again(tiers, life.agent)
    assert_begun_again(tiers, life.agent)
    assert tiers.flush(life.agent).forgotten == 0
    assert_begun_again(tiers, life.agent)
    tiers.evict(life.agent)
    assert_begun_again(tiers, life.agent)
    forget(tiers, life.agent)
    assert traces(tiers, own_urls, life.agent) == []


def begin_again(tiers: Tiers, agent: UUID) -> None:
    tiers.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    tiers.conversations.save_message(agent, "user", "a new word", tokens_used=3)
    tiers.emotions.save_event(agent, HAPPENED, {Emotion.LOVE: 0.25}, mode="record")
    tiers.memories.store_memory(agent, "fact", "k1", "new")


def assert_begun_again(tiers: Tiers, agent: UUID) -> None:
    """The new life, whole, and nothing but it."""
    state = tiers.emotions.load_state(agent)
    assert state is not None
    assert list(state.emotions) == [Emotion.LOVE]
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["a new word"]
    assert [m.content for m in tiers.conversations.search_messages(agent, "word")] == ["a new word"]
    stats = tiers.conversations.get_conversation_stats(agent)
    assert (stats.total_messages, stats.total_tokens) == (1, 3)
    assert len(tiers.emotions.get_event_history(agent)) == 1
    [known] = tiers.memories.get_memories_by_type(agent, "fact")
    assert (known.data, known.access_count, known.created_at) == ("new", 0, known.updated_at)
