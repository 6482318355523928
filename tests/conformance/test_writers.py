"""32 who write to one agent at once, threads and tasks: no update is lost, history is in order, totals are exact."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from banshee_memory import AsyncMemoryPlugin, CustomEvent, Emotion, EmotionalState, MemoryPlugin
from tests.clients import Placement

EACH, WRITERS = 6, 16
MOVES = 4
"""Fewer than the attempts of a call at bringing in what it needs."""
ALL = 2 * WRITERS * EACH
STEADY = dict.fromkeys(Emotion, 0.0)
EVENT = CustomEvent(event_type="x")
BIT = 1 / 512
"""Exact in binary, so that sums are exact in any order."""
START = {Emotion.JOY: 0.25, Emotion.HOPE: 0.25}


def write(memory: MemoryPlugin, agent: UUID, writer: int) -> list[UUID]:
    said = []
    for n in range(EACH):
        memory.emotions.update_emotions(agent, {Emotion.JOY: BIT})
        said.append(memory.conversations.save_message(agent, "user", f"{writer} {n}", tokens_used=n))
        memory.emotions.save_event(agent, EVENT, {Emotion.HOPE: BIT}, mode="add", context_factors=[writer, n])
        memory.memories.store_memory(agent, "fact", f"{writer}", n)
        memory.memories.retrieve_memory(agent, "fact", "shared")
    return said


async def awrite(memory: AsyncMemoryPlugin, agent: UUID, writer: int) -> list[UUID]:
    said = []
    for n in range(EACH):
        await memory.emotions.update_emotions(agent, {Emotion.JOY: BIT})
        said.append(await memory.conversations.save_message(agent, "user", f"{writer} {n}", tokens_used=n))
        await memory.emotions.save_event(agent, EVENT, {Emotion.HOPE: BIT}, mode="add", context_factors=[writer, n])
        await memory.memories.store_memory(agent, "fact", f"{writer}", n)
        await memory.memories.retrieve_memory(agent, "fact", "shared")
    return said


@pytest.mark.parametrize("placement", [Placement.HOT, Placement.HALF, Placement.GONE], ids=lambda p: p.value)
def test_nothing_is_lost(
    sync_client: MemoryPlugin, redis_url: str, database_url: str, agent: UUID, placement: Placement
) -> None:
    sync_client.emotions.save_state(agent, EmotionalState(START, STEADY))
    sync_client.memories.store_memory(agent, "fact", "shared", "data", importance=1.0)
    session = sync_client.sessions.start_session(agent)

    async def tasks() -> list[list[UUID]]:
        async with AsyncMemoryPlugin(database_url, redis_url) as memory:
            return await asyncio.gather(*(awrite(memory, agent, WRITERS + n) for n in range(WRITERS)))

    with ThreadPoolExecutor(WRITERS + 1) as threads:
        running = [threads.submit(write, sync_client, agent, n) for n in range(WRITERS)]
        others = threads.submit(asyncio.run, tasks())
        for _ in range(MOVES):
            if placement is Placement.GONE:
                sync_client.evict(agent)
            elif placement is Placement.HALF:
                sync_client.flush(agent)
        said = [thread.result() for thread in running] + others.result()
    for _ in range(2):
        check(sync_client, agent, said)
        sync_client.evict(agent)
    ended = sync_client.sessions.end_session(agent, session.id)
    assert (ended.total_messages, ended.total_events) == (ALL, ALL)
    assert ended.total_tokens_used == 2 * WRITERS * sum(range(EACH))


def check(memory: MemoryPlugin, agent: UUID, said: list[list[UUID]]) -> None:
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {emotion: start + ALL * BIT for emotion, start in START.items()}
    history = memory.conversations.get_history(agent, 1_000)
    ids = [message.id for message in history]
    assert len(ids) == len(set(ids)) == ALL
    assert {i for one in said for i in one} == set(ids)
    places = {message: place for place, message in enumerate(ids)}
    for one in said:
        assert [places[i] for i in one] == sorted(places[i] for i in one)
    assert [message.created_at for message in history] == sorted(message.created_at for message in history)
    walked: list[UUID] = []
    page = memory.conversations.get_history(agent, 37)
    while page:
        walked = [message.id for message in page] + walked
        page = memory.conversations.get_history(agent, 37, before=page[0].id)
    assert walked == ids
    events = memory.emotions.get_event_history(agent, 1_000)[::-1]
    assert [event.intensity_delta for event in events] == [BIT] * ALL
    assert [event.intensity for event in events] == sorted(event.intensity for event in events)
    assert len({tuple(event.context_factors) for event in events}) == ALL
    stats = memory.conversations.get_conversation_stats(agent)
    assert (stats.total_messages, stats.total_tokens) == (ALL, 2 * WRITERS * sum(range(EACH)))
    shared = memory.memories.get_memory(agent, "fact", "shared")
    assert shared is not None
    assert shared.access_count == ALL
    stored = {m.key: m.data for m in memory.memories.get_memories_by_type(agent, "fact", 100)}
    assert stored == {"shared": "data"} | {str(n): EACH - 1 for n in range(2 * WRITERS)}
