"""`memory.conversations`: every method, on both clients, wherever the agent's records are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from banshee_memory import Emotion, EmotionalState, InvalidInput, MemoryPlugin, NewMessage

ROLES = ("user", "assistant", "system", "function", "tool")


def said(memory: MemoryPlugin, agent: UUID, count: int) -> list[UUID]:
    return [memory.conversations.save_message(agent, ROLES[n % 5], f"words {n}") for n in range(count)]


def test_a_message_comes_back_as_it_was_said(memory: MemoryPlugin, agent: UUID) -> None:
    session = uuid4()
    content = "Ünïcödé 🦊 \u202eright to left\u202c; DROP TABLE agents; --\nreturn redis.call('FLUSHALL') {17}:*"
    metadata = {"a": [1, 2.5, None, True, {"": "empty key"}], "big": 2**63 - 1, "tiny": 5e-324, "huge": 1.7e308}
    context = {"joy": 0.5, Emotion.HOPE: 1, "note": ["free", "form"]}
    message = memory.conversations.save_message(
        agent, "tool", content, metadata, tokens_used=7, emotional_context=context, session_id=session
    )
    (read,) = memory.conversations.get_history(agent)
    assert (read.id, read.agent_id, read.role, read.content) == (message, agent, "tool", content)
    assert (read.metadata, read.tokens_used, read.session_id) == (metadata, 7, session)
    assert read.emotional_context == {"joy": 0.5, "hope": 1, "note": ["free", "form"]}
    assert abs(read.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert message.version == 7


def test_what_was_not_given_stays_so(memory: MemoryPlugin, agent: UUID) -> None:
    memory.conversations.save_message(agent, "user", "hi")
    (read,) = memory.conversations.get_history(agent)
    assert (read.metadata, read.tokens_used, read.session_id, read.emotional_context) == (None, None, None, None)


def test_the_current_emotions_go_along(memory: MemoryPlugin, agent: UUID) -> None:
    memory.conversations.save_message(agent, "user", "nothing felt yet", emotional_context="current")
    rates = {Emotion.JOY: 0.0, Emotion.FEAR: 0.5}
    at = datetime.now(UTC) - timedelta(seconds=1)
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5, Emotion.FEAR: 1.0}, rates, at))
    memory.conversations.save_message(agent, "user", "felt", emotional_context="current")
    before, after = memory.conversations.get_history(agent)
    assert before.emotional_context == {}
    assert after.emotional_context is not None
    assert after.emotional_context["joy"] == 0.5
    assert after.emotional_context.get("fear", 0.0) < 0.5
    assert memory.conversations.get_history(agent) == [before, after]


def test_a_history_is_gapless_and_oldest_first(memory: MemoryPlugin, agent: UUID) -> None:
    ids = said(memory, agent, 7)
    assert [m.id for m in memory.conversations.get_history(agent)] == ids
    assert [m.id for m in memory.conversations.get_history(agent, 3)] == ids[-3:]
    assert [m.id for m in memory.conversations.get_history(agent, 7)] == ids
    assert memory.conversations.get_history(uuid4()) == []


def test_a_long_history_goes_on_in_postgresql(memory: MemoryPlugin, agent: UUID) -> None:
    batch = [NewMessage(role="user", content=f"line {n}") for n in range(60)]
    ids = memory.conversations.save_messages(agent, batch) + memory.conversations.save_messages(agent, batch)
    for limit in (49, 50, 51, 119, 120, 121):
        assert [m.id for m in memory.conversations.get_history(agent, limit)] == ids[-limit:]


def test_a_cursor_walks_back_to_the_beginning(memory: MemoryPlugin, agent: UUID) -> None:
    ids = memory.conversations.save_messages(agent, [NewMessage(role="user", content=str(n)) for n in range(65)])
    ids += said(memory, agent, 3)
    seen: list[UUID] = []
    page = memory.conversations.get_history(agent, 9)
    while page:
        seen = [m.id for m in page] + seen
        page = memory.conversations.get_history(agent, 9, before=page[0].id)
    assert seen == ids


def test_an_unknown_cursor_is_refused(memory: MemoryPlugin, agent: UUID) -> None:
    said(memory, agent, 2)
    with pytest.raises(InvalidInput, match="before"):
        memory.conversations.get_history(agent, before=uuid4())


def test_imported_messages_stand_where_their_time_puts_them(memory: MemoryPlugin, agent: UUID) -> None:
    (now,) = said(memory, agent, 1)
    day = datetime.now(UTC) - timedelta(days=2)
    late = memory.conversations.save_messages(
        agent,
        [
            NewMessage(role="user", content="second", created_at=day + timedelta(microseconds=1)),
            NewMessage(role="user", content="third", created_at=day + timedelta(hours=1)),
            NewMessage(role="user", content="first", created_at=day),
        ],
    )
    history = memory.conversations.get_history(agent)
    assert [m.id for m in history] == [late[2], late[0], late[1], now]
    assert [m.created_at for m in history[:2]] == [day, day + timedelta(microseconds=1)]
    assert [m.id for m in memory.conversations.get_history(agent, before=late[1])] == [late[2], late[0]]


def test_no_messages_are_no_call(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.conversations.save_messages(agent, []) == []


def test_a_batch_with_one_bad_message_leaves_nothing(memory: MemoryPlugin, agent: UUID) -> None:
    batch = [NewMessage(role="user", content="good"), NewMessage(role="user", content="  ")]
    with pytest.raises(InvalidInput, match="content"):
        memory.conversations.save_messages(agent, batch)
    assert memory.conversations.get_history(agent) == []


def test_search_stems_excludes_and_ranks(memory: MemoryPlugin, agent: UUID) -> None:
    fox, foxes, hound, both = (
        memory.conversations.save_message(agent, "user", text)
        for text in ("The fox sleeps", "foxes foxes and foxes", "a hound", "a fox and a hound")
    )

    def found(query: str, limit: int = 50) -> list[UUID]:
        return [m.id for m in memory.conversations.search_messages(agent, query, limit)]

    assert set(found("fox")) == {fox, foxes, both}
    assert found("fox")[0] == foxes
    assert found("fox", 1) == [foxes]
    assert set(found("fox -hound")) == {fox, foxes}
    assert found('"fox sleeps"') == [fox]
    assert set(found("hound or sleeping")) == {fox, hound, both}
    assert found("badger") == []
    assert memory.conversations.search_messages(uuid4(), "fox") == []


def test_search_gives_whole_messages(memory: MemoryPlugin, agent: UUID) -> None:
    said(memory, agent, 2)
    memory.conversations.save_message(agent, "user", "a unicorn", {"k": 1}, tokens_used=3)
    (found,) = memory.conversations.search_messages(agent, "unicorns")
    assert [found] == memory.conversations.get_history(agent, 1)


def test_totals_are_exact(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.conversations.get_conversation_stats(agent).total_messages == 0
    for n in range(6):
        memory.conversations.save_message(agent, ROLES[n % 5], "text", tokens_used=None if n == 3 else n)
    history = memory.conversations.get_history(agent)
    stats = memory.conversations.get_conversation_stats(agent)
    assert (stats.total_messages, stats.user_messages, stats.assistant_messages) == (6, 2, 1)
    assert stats.by_role == {"user": 2, "assistant": 1, "system": 1, "function": 1, "tool": 1}
    assert stats.total_tokens == 0 + 1 + 2 + 4 + 5
    assert (stats.first_message, stats.last_message) == (history[0].created_at, history[-1].created_at)


def test_the_short_names_are_the_same_methods(memory: MemoryPlugin, agent: UUID) -> None:
    message = memory.save_conversation_message(agent, "user", "hi", {"k": 1})
    (read,) = memory.get_conversation_history(agent, 5)
    assert (read.id, read.metadata) == (message, {"k": 1})
