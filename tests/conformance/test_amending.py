"""`conversations.update_emotional_context`, on both clients, wherever the agent's records are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import Emotion, EmotionalState, InvalidInput, MemoryPlugin, NewMessage

STEADY = dict.fromkeys(Emotion, 0.0)


def test_a_message_is_given_another_context(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, STEADY))
    contexts: list[Any] = [None, {"joy": 0.25}, "current"]
    ids = [
        memory.conversations.save_message(
            agent, "user", f"the fox number {n}", {"n": n}, tokens_used=n, emotional_context=context
        )
        for n, context in enumerate(contexts)
    ]
    before, stats = memory.conversations.get_history(agent), memory.conversations.get_conversation_stats(agent)
    after: list[Any] = [{Emotion.HOPE: 0.125, "note": ["ü", None]}, None, {}]
    for message, context in zip(ids, after, strict=True):
        assert memory.conversations.update_emotional_context(agent, message, context) is True
    history = memory.conversations.get_history(agent)
    assert [m.emotional_context for m in history] == [{"hope": 0.125, "note": ["ü", None]}, None, {}]
    unamended = [(m.id, m.role, m.content, m.metadata, m.tokens_used, m.session_id, m.created_at) for m in before]
    assert unamended == [
        (m.id, m.role, m.content, m.metadata, m.tokens_used, m.session_id, m.created_at) for m in history
    ]
    assert memory.conversations.get_conversation_stats(agent) == stats
    found = memory.conversations.search_messages(agent, "foxes -two")
    assert sorted(found, key=lambda m: m.id) == history
    assert memory.conversations.get_history(agent, before=ids[2]) == history[:2]


def test_the_last_word_holds(memory: MemoryPlugin, agent: UUID) -> None:
    message = memory.conversations.save_message(agent, "user", "a fox", emotional_context="current")
    for n in range(4):
        assert memory.conversations.update_emotional_context(agent, message, {"joy": n / 8}) is True
        (read,) = memory.conversations.get_history(agent)
        assert read.emotional_context == {"joy": n / 8}
        assert memory.conversations.search_messages(agent, "fox") == [read]


def test_one_that_left_redis_long_ago(memory: MemoryPlugin, agent: UUID) -> None:
    day = datetime.now(UTC) - timedelta(days=2)
    late = NewMessage(role="user", content="the oldest", created_at=day)
    batch = [NewMessage(role="user", content=f"words {n}", tokens_used=1) for n in range(59)]
    ids = memory.conversations.save_messages(agent, [*batch, late])
    memory.flush(agent)
    order = [ids[-1], *ids[:-1]]
    for place in (0, 1, 30):
        context = {"pity": place / 64}
        assert memory.conversations.update_emotional_context(agent, order[place], context) is True
    history = memory.conversations.get_history(agent, 100)
    assert [m.id for m in history] == order
    assert {n: m.emotional_context for n, m in enumerate(history) if m.emotional_context is not None} == {
        0: {"pity": 0.0},
        1: {"pity": 1 / 64},
        30: {"pity": 30 / 64},
    }
    assert [m.id for m in memory.conversations.get_history(agent, 5)] == order[-5:]
    assert memory.conversations.get_history(agent, 5, before=order[2])[-1].emotional_context == {"pity": 1 / 64}
    stats = memory.conversations.get_conversation_stats(agent)
    assert (stats.total_messages, stats.total_tokens, stats.first_message) == (60, 59, day)


def test_a_message_that_is_not_there(memory: MemoryPlugin, agent: UUID) -> None:
    stranger = memory.conversations.save_message(uuid4(), "user", "hi")
    for message in (uuid4(), UUID(int=0), stranger):
        assert memory.conversations.update_emotional_context(agent, message, {"joy": 0.5}) is False
    assert memory.conversations.get_history(agent) == []


@pytest.mark.parametrize("bad", ["current", [1], {"a": float("nan")}, {1: 2}, {"a": "\0"}, {"\ud800": 1}], ids=repr)
def test_what_is_refused_changes_nothing(client: MemoryPlugin, agent: UUID, bad: Any) -> None:
    message = client.conversations.save_message(agent, "user", "hi", emotional_context={"joy": 0.5})
    with pytest.raises(InvalidInput):
        client.conversations.update_emotional_context(agent, message, bad)
    with pytest.raises(InvalidInput, match="message_id"):
        client.conversations.update_emotional_context(agent, str(message), {})  # type: ignore[arg-type]
    (read,) = client.conversations.get_history(agent)
    assert read.emotional_context == {"joy": 0.5}
