"""A call that is repeated with its idempotency key changes nothing and answers the same, wherever it is repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import (
    AsyncMemoryPlugin,
    CustomEvent,
    Emotion,
    EmotionalState,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
)
from banshee_memory.hot import calls
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import shard_keys, shard_of
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers

EVENT = CustomEvent(event_type="x", data={"n": 1})
STEADY = dict.fromkeys(Emotion, 0.0)
THREE = [NewMessage(role="user", content=f"words {n}", tokens_used=n) for n in range(3)]
CALLS: dict[str, Callable[[Any, UUID, str], Any]] = {
    "update_emotions": lambda m, a, k: m.emotions.update_emotions(a, {Emotion.JOY: 0.125}, idempotency_key=k),
    "set_emotions": lambda m, a, k: m.emotions.update_emotions(a, {Emotion.JOY: 0.5}, mode="set", idempotency_key=k),
    "save_event": lambda m, a, k: m.emotions.save_event(
        a, EVENT, {Emotion.HOPE: 0.25}, mode="add", context_factors={"w": "ü"}, idempotency_key=k
    ),
    "save_message": lambda m, a, k: m.conversations.save_message(
        a, "user", "hi", {"k": 1}, tokens_used=7, emotional_context="current", idempotency_key=k
    ),
    "save_messages": lambda m, a, k: m.conversations.save_messages(a, THREE, idempotency_key=k),
    "store_memory": lambda m, a, k: m.memories.store_memory(a, "fact", "x", {"v": 1}, 3_600, idempotency_key=k),
    "start_session": lambda m, a, k: m.sessions.start_session(a, {"k": 1}, idempotency_key=k),
}
LONGEST = "ü" * 128


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[Any, UUID, str], Any]:
    """One write after the other."""
    return CALLS[request.param]


def everything(memory: MemoryPlugin, agent: UUID) -> list[Any]:
    """All that can be read of an agent that nothing fades for."""
    state = memory.emotions.load_state(agent)
    return [
        state and state.emotions,
        memory.emotions.get_event_history(agent),
        memory.conversations.get_history(agent),
        memory.conversations.get_conversation_stats(agent),
        memory.memories.get_memories_by_type(agent, None),
        memory.sessions.get_sessions(agent),
    ]


def test_a_repeated_call_changes_nothing(
    memory: MemoryPlugin, other: MemoryPlugin, agent: UUID, call: Callable[[Any, UUID, str], Any]
) -> None:
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, STEADY))
    first = call(memory, agent, "k")
    before = everything(memory, agent)
    assert call(memory, agent, "k") == first
    assert call(other, agent, "k") == first
    other.evict(agent)
    assert call(memory, agent, "k") == first
    assert everything(memory, agent) == before


def test_a_repeated_call_is_not_repeated_after_what_came_since(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({}, STEADY))
    first = CALLS["update_emotions"](memory, agent, "k")
    stored = CALLS["store_memory"](memory, agent, "k")
    memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
    memory.memories.store_memory(agent, "fact", "x", "newer")
    assert CALLS["update_emotions"](memory, agent, "k") == first
    assert CALLS["store_memory"](memory, agent, "k") == stored
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.625}
    assert memory.memories.retrieve_memory(agent, "fact", "x") == "newer"


def test_another_key_agent_or_method_is_another_call(client: MemoryPlugin, agent: UUID) -> None:
    """One key may go with all calls that belong to one request."""
    neighbour = UUID(int=uuid4().int >> 32 << 32 | agent.int & 0xFFFFFFFF)
    for key in ("k", "K", LONGEST):
        for name in ("update_emotions", "save_event", "save_message", "store_memory", "start_session"):
            for one in (agent, neighbour):
                CALLS[name](client, one, key)
    for one in (agent, neighbour):
        assert len(client.emotions.get_event_history(one)) == 3
        assert client.conversations.get_conversation_stats(one).total_messages == 3
        assert len(client.sessions.get_sessions(one)) == 3
        assert client.memories.get_memory(one, "fact", "x") is not None


def test_a_key_of_another_batch_is_refused(client: MemoryPlugin, agent: UUID) -> None:
    client.conversations.save_messages(agent, THREE, idempotency_key="k")
    with pytest.raises(InvalidInput, match="idempotency_key"):
        client.conversations.save_messages(agent, THREE[:2], idempotency_key="k")
    assert client.conversations.get_conversation_stats(agent).total_messages == 3


@pytest.mark.parametrize("key", ["", "  ", "a\0", "\ud800", "ü" * 129, 1, b"k"])
def test_a_key_is_short_text(
    client: MemoryPlugin, agent: UUID, call: Callable[[Any, UUID, Any], Any], key: Any
) -> None:
    with pytest.raises(InvalidInput, match="idempotency_key"):
        call(client, agent, key)
    assert client.rehydrate(agent).messages == 0
    assert client.emotions.load_state(agent) is None


def test_eight_threads_at_once_do_it_once(sync_client: MemoryPlugin, agent: UUID, call: Callable[..., Any]) -> None:
    sync_client.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, STEADY))
    sync_client.evict(agent)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: call(sync_client, agent, "k"), range(8)))
    check_once(sync_client, agent, call, answers)


def test_eight_tasks_at_once_do_it_once(
    sync_client: MemoryPlugin, redis_url: str, database_url: str, agent: UUID, call: Callable[..., Any]
) -> None:
    sync_client.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.25}, STEADY))
    sync_client.evict(agent)

    async def main() -> list[Any]:
        async with AsyncMemoryPlugin(database_url, redis_url) as memory:
            return await asyncio.gather(*(call(memory, agent, "k") for _ in range(8)))

    check_once(sync_client, agent, call, asyncio.run(main()))


def check_once(memory: MemoryPlugin, agent: UUID, call: Callable[..., Any], answers: list[Any]) -> None:
    assert answers == answers[:1] * 8
    before = everything(memory, agent)
    counts = [len(listed) for listed in before if isinstance(listed, list)]
    assert max(counts) <= 3
    assert sum(counts) <= 3
    assert call(memory, agent, "k") == answers[0]
    assert everything(memory, agent) == before


def test_a_key_is_forgotten_after_the_window(timed: Tiers, timed_memory: MemoryPlugin, agent: UUID) -> None:
    now, window = 1_700_000_000_000_000, int(timed.settings.idempotency_window * 1e6)
    shard = shard_keys(shard_of(agent, timed.settings.shards))

    def swept_at(us: int) -> int:
        timed.hot.run(Call(("SET", CLOCK_KEY, us), bytes))
        return timed.hot.run(calls.sweep_idempotency(shard, timed.settings.idempotency_window, b"0"))[1]

    def add() -> float:
        state = timed_memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.25}, idempotency_key="k")
        return state.emotions[Emotion.LOVE]

    swept_at(now + 3 * window)  # what others left in the shard
    swept_at(now)
    timed_memory.emotions.set_temperament(agent, decay_rates={Emotion.LOVE: 0.0})
    assert (add(), add()) == (0.25, 0.25)
    assert swept_at(now + window) == 0
    assert add() == 0.25
    assert swept_at(now + window + 1) == 1
    assert (add(), add()) == (0.5, 0.5)
