"""`memory.sessions`: every method, on both clients, wherever the agent's records are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState, InvalidInput, MemoryPlugin, Settings
from banshee_memory.hot.calls import Call
from banshee_memory.tiering.steps import Steps, relayed
from tests.tiers import Tiers, nothing

EVENT = CustomEvent(event_type="x")
STEADY = dict.fromkeys(Emotion, 0.0)


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    client = Tiers(redis_url, database_url, Settings())
    yield client
    client.close()


def said(memory: MemoryPlugin, agent: UUID, *tokens: int, session: UUID | None = None) -> None:
    for count in tokens:
        memory.conversations.save_message(agent, "user", "words", tokens_used=count, session_id=session)


def happened(memory: MemoryPlugin, agent: UUID, count: int = 1, session: UUID | None = None) -> None:
    for _ in range(count):
        memory.emotions.save_event(agent, EVENT, {}, mode="record", session_id=session)


def totals(session: Any) -> tuple[int, int, int]:
    return session.total_messages, session.total_events, session.total_tokens_used


def test_an_unknown_agent_has_none(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.sessions.get_sessions(agent) == []
    with pytest.raises(InvalidInput, match="session_id"):
        memory.sessions.end_session(agent, uuid4())


def test_a_session_has_what_was_felt_at_both_ends_and_what_happened_within(memory: MemoryPlugin, agent: UUID) -> None:
    said(memory, agent, 100)
    happened(memory, agent)
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, STEADY))
    session = memory.sessions.start_session(agent, {"a": [1, None, "ü🦊"]})
    assert (session.agent_id, session.session_end, session.session_metadata) == (agent, None, {"a": [1, None, "ü🦊"]})
    assert (session.initial_emotional_state, session.final_emotional_state) == ({Emotion.JOY: 0.5}, None)
    assert totals(session) == (0, 0, 0)
    assert memory.sessions.get_sessions(agent) == [session]
    said(memory, agent, 1, 2)
    happened(memory, agent, 3)
    memory.emotions.update_emotions(agent, {Emotion.HOPE: 0.25})
    ended = memory.sessions.end_session(agent, session.id)
    assert totals(ended) == (2, 3, 3)
    assert (ended.id, ended.session_start, ended.session_metadata) == (
        session.id,
        session.session_start,
        session.session_metadata,
    )
    assert ended.initial_emotional_state == {Emotion.JOY: 0.5}
    assert ended.final_emotional_state == {Emotion.JOY: 0.5, Emotion.HOPE: 0.25}
    assert ended.session_end is not None
    assert ended.session_end >= ended.session_start
    said(memory, agent, 100)
    assert memory.sessions.get_sessions(agent) == [ended]


def test_ending_again_gives_the_same(memory: MemoryPlugin, agent: UUID) -> None:
    session = memory.sessions.start_session(agent)
    said(memory, agent, 1)
    ended = memory.sessions.end_session(agent, session.id)
    said(memory, agent, 2, 3, session=session.id)
    happened(memory, agent)
    assert memory.sessions.end_session(agent, session.id) == ended
    assert memory.sessions.end_session(agent, session.id, idempotency_key="k") == ended
    assert memory.sessions.get_sessions(agent) == [ended]


def test_what_names_no_session_counts_to_the_one_started_last_of_those_open(memory: MemoryPlugin, agent: UUID) -> None:
    outer = memory.sessions.start_session(agent)
    said(memory, agent, 1)
    inner = memory.sessions.start_session(agent)
    said(memory, agent, 10)
    happened(memory, agent)
    assert totals(memory.sessions.end_session(agent, inner.id)) == (1, 1, 10)
    said(memory, agent, 2)
    last = memory.sessions.start_session(agent)
    said(memory, agent, 20, 20)
    assert totals(memory.sessions.end_session(agent, outer.id)) == (2, 0, 3)
    said(memory, agent, 30)
    assert totals(memory.sessions.end_session(agent, last.id)) == (3, 0, 70)
    assert [session.id for session in memory.sessions.get_sessions(agent)] == [last.id, inner.id, outer.id]


def test_what_names_its_session_counts_to_that(memory: MemoryPlugin, agent: UUID) -> None:
    said_before, elsewhere = memory.sessions.start_session(agent), uuid4()
    named = memory.sessions.start_session(agent)
    said(memory, agent, 1, session=said_before.id)
    said(memory, agent, 2, session=named.id)
    said(memory, agent, 4, session=elsewhere)
    happened(memory, agent, 2, session=said_before.id)
    assert totals(memory.sessions.end_session(agent, named.id)) == (1, 0, 2)
    assert totals(memory.sessions.end_session(agent, said_before.id)) == (1, 2, 1)


def test_the_newest_come_first(memory: MemoryPlugin, agent: UUID) -> None:
    sessions = [memory.sessions.start_session(agent, n) for n in range(4)]
    assert memory.sessions.get_sessions(agent) == sessions[::-1]
    assert memory.sessions.get_sessions(agent, 2) == [sessions[3], sessions[2]]


def test_sessions_are_no_memories_that_anybody_sees(memory: MemoryPlugin, agent: UUID) -> None:
    session = memory.sessions.start_session(agent)
    memory.memories.store_memory(agent, "fact", "x", 1)
    assert [m.key for m in memory.memories.get_memories_by_type(agent, None)] == ["x"]
    for call in (memory.memories.get_memory, memory.memories.retrieve_memory, memory.memories.delete_memory):
        with pytest.raises(InvalidInput, match="memory_type"):
            call(agent, "_session", str(session.id))


class Died(Exception):
    """Whoever was at work is no more."""


def dying(steps: Steps[Any], store: int, *, done: bool) -> Steps[Any]:
    """The same steps up to that store of a memory, which is done or not; then nothing."""
    number = 0

    def answer(step: Any) -> Steps[Any]:
        nonlocal number
        is_store = isinstance(step, Call) and str(step.command[1]).endswith("store_memory")
        number += is_store
        if is_store and number == store:
            if done:
                yield step
            raise Died
        return (yield step)

    return relayed(steps, answer)


# The end of a session is two stores of it: the mark, and the totals.
@pytest.mark.parametrize(("store", "done"), [(1, True), (2, False)], ids=["after the mark", "before the totals"])
def test_an_end_that_was_cut_off_is_made_good(
    memory: MemoryPlugin, agent: UUID, tiers: Tiers, store: int, done: bool
) -> None:
    session = memory.sessions.start_session(agent)
    said(memory, agent, 1, 2)
    happened(memory, agent)
    tiers.between = lambda steps: dying(steps, store, done=done)
    try:
        with pytest.raises(Died):
            tiers.sessions.end_session(agent, session.id)
    finally:
        tiers.between = nothing
    said(memory, agent, 4)
    ended = memory.sessions.end_session(agent, session.id)
    assert totals(ended) == (2, 1, 3)
    assert memory.sessions.get_sessions(agent) == [ended]
    assert tiers.sessions.end_session(agent, session.id) == ended


def test_a_session_that_began_after_the_end_of_another_takes_nothing_of_it(
    memory: MemoryPlugin, agent: UUID, tiers: Tiers
) -> None:
    """The end was marked, and is counted only when the next one has begun."""
    session = memory.sessions.start_session(agent)
    said(memory, agent, 1, 2)
    tiers.between = lambda steps: dying(steps, 1, done=True)
    try:
        with pytest.raises(Died):
            tiers.sessions.end_session(agent, session.id)
    finally:
        tiers.between = nothing
    following = memory.sessions.start_session(agent)
    said(memory, agent, 4)
    assert totals(memory.sessions.end_session(agent, session.id)) == (2, 0, 3)
    assert totals(memory.sessions.end_session(agent, following.id)) == (1, 0, 4)
