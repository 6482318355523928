"""What `forget` says and does, by both clients, wherever the agent is."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from banshee_memory import CustomEvent, Emotion, InvalidInput, MemoryPlugin

HAPPENED = CustomEvent(event_type="happened")


def live(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    memory.conversations.save_message(agent, "user", "a word", tokens_used=3)
    memory.emotions.save_event(agent, HAPPENED, {Emotion.LOVE: 0.25}, mode="record")
    memory.memories.store_memory(agent, "fact", "k", 1, importance=0.5)


def test_it_says_what_went_and_the_agent_is_new(memory: MemoryPlugin, other: MemoryPlugin, agent: UUID) -> None:
    for _ in range(2):
        live(memory, agent)
        told = Counter[str]()
        report = memory.forget(agent, progress=lambda kind, count, told=told: told.update({kind: count}))  # type: ignore[misc]
        assert report.agent_id == agent
        assert (
            datetime.now(UTC) - timedelta(minutes=1) < report.forgotten_at <= datetime.now(UTC) + timedelta(minutes=1)
        )
        assert report.left == 0
        assert max(report.messages, report.log_entries) >= 1
        assert report.feed_entries == 1
        assert report.keys == told["keys"]
        assert report.messages == told["messages"]
        for client in (memory, other):
            assert client.emotions.load_state(agent) is None
            assert client.conversations.get_history(agent) == []
            assert client.conversations.get_conversation_stats(agent).total_messages == 0
            assert client.emotions.get_event_history(agent) == []
            assert client.memories.get_memories_by_type(agent, "fact") == []
            assert list(client.export(agent)) == []


def test_who_was_never_known_can_be_forgotten(client: MemoryPlugin, agent: UUID) -> None:
    report = client.forget(agent)
    assert (report.left, report.keys, report.messages, report.totals) == (0, 0, 0, 0)
    assert "messages" in report.rechecked


def test_an_agent_is_a_uuid(client: MemoryPlugin) -> None:
    with pytest.raises(InvalidInput, match="agent_id"):
        client.forget("mira")  # type: ignore[arg-type]
