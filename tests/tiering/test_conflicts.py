"""Two servers took writes of one agent, so PostgreSQL has a newer value than Redis, or another of the same stamp: that
one stays, and the one in Redis does not stay to be read."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.cold.staging import Batch, MemoryRow, StateRow
from banshee_memory.hot import calls, wire
from banshee_memory.records import StoredMemory
from tests.hot.raw import stored_state
from tests.tiering.lives import STEADY
from tests.tiers import Tiers


def felt(tiers: Tiers, agent: UUID) -> float:
    state = tiers.emotions.load_state(agent)
    assert state is not None
    return state.emotions[Emotion.JOY]


def another_server_wrote(tiers: Tiers, agent: UUID, later: int) -> None:
    """Puts into PostgreSQL another state and another memory than Redis has, by stamps so much later than Redis's."""
    keys = tiers.keys(agent)
    state = stored_state(tiers.hot, keys)
    raw = tiers.hot.run(calls.memory_bytes(keys, "fact:k"))
    assert state is not None
    assert raw is not None
    memory = wire.memory_of(agent, "fact:k", raw)
    assert memory.record is not None
    joy = state.felt[Emotion.JOY]._replace(intensity=0.25)
    state = msgspec.structs.replace(state, felt={Emotion.JOY: joy}, stamp=state.stamp + later)
    record = msgspec.structs.replace(memory.record, data="theirs")
    with tiers.cold.drain([keys.shard], wait=10) as drain:
        row = MemoryRow.of(agent, "fact", "k", StoredMemory(memory.stamp + later, record))
        drain.write(Batch(states=[StateRow.of(agent, state)], memories=[row]))


@pytest.fixture(autouse=True)
def _nothing_waits(tiers: Tiers) -> None:
    """A flush of an agent carries its whole shard: what other tests left in it must not be counted here."""
    tiers.flush()


@pytest.mark.parametrize("later", [0, 1, 1 << 40])
def test_what_is_in_postgres_stays_and_is_what_is_read(tiers: Tiers, agent: UUID, later: int) -> None:
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    tiers.memories.store_memory(agent, "fact", "k", "ours")
    tiers.conversations.save_message(agent, "user", "said here")
    another_server_wrote(tiers, agent, later)
    report = tiers.flush(agent)
    assert (report.conflicts, report.states, report.memories, report.messages) == (2, 0, 0, 1)
    assert felt(tiers, agent) == 0.25
    assert tiers.memories.retrieve_memory(agent, "fact", "k") == "theirs"
    assert [m.content for m in tiers.conversations.get_history(agent)] == ["said here"]
    assert tiers.flush(agent).conflicts == 0


def test_an_older_one_in_postgres_gives_way(tiers: Tiers, agent: UUID) -> None:
    tiers.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, dict(STEADY)))
    tiers.memories.store_memory(agent, "fact", "k", "ours")
    another_server_wrote(tiers, agent, -1)
    report = tiers.flush(agent)
    assert (report.conflicts, report.states, report.memories) == (0, 1, 1)
    tiers.evict(agent)
    assert felt(tiers, agent) == 0.5
    assert tiers.memories.retrieve_memory(agent, "fact", "k") == "ours"
