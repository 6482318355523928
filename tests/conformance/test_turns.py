"""All that a turn needs in one call: the same as in three, wherever the records are."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from banshee_memory import Emotion, InvalidInput, MemoryPlugin, NewMessage, Turn
from banshee_memory.cold.reads import Query
from banshee_memory.hot.calls import MISS, Call
from banshee_memory.operations import Operation, Operations
from banshee_memory.stamps import from_us
from banshee_memory.tiering import turns
from banshee_memory.tiering.steps import relayed
from tests.hot.raw import Server
from tests.tiers import Tiers

NOW = 1_790_000_000_000_000


def live(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.9}, mode="set")
    memory.conversations.save_messages(agent, [NewMessage(role="user", content=f"word {n}") for n in range(60)])
    memory.memories.store_memory(agent, "goal", "den", "dig one", importance=0.9)
    memory.memories.store_memory(agent, "fact", "river", "rises", importance=0.5)
    memory.memories.store_memory(agent, "fact", "stones", "sink", importance=0.7)


def test_a_turn_is_what_three_calls_give(memory: MemoryPlugin, agent: UUID) -> None:
    live(memory, agent)
    for _ in range(2):  # the second time it is known what to ask for
        turn = memory.recall_turn(agent)
        assert turn.messages == memory.conversations.get_history(agent)
        assert turn.memories == memory.memories.get_memories_by_type(agent, None)
        assert turn.state is not None
        assert turn.state.emotions[Emotion.LOVE] == pytest.approx(0.9, abs=0.1)
    assert [found.data for found in turn.memories] == ["dig one", "sink", "rises"]


def test_a_turn_is_as_small_as_is_asked_for(memory: MemoryPlugin, agent: UUID) -> None:
    live(memory, agent)
    for _ in range(2):
        turn = memory.recall_turn(agent, messages=2, memories=1, memory_type="fact")
        assert [message.content for message in turn.messages] == ["word 58", "word 59"]
        assert [found.data for found in turn.memories] == ["sink"]


def test_an_agent_that_nobody_knows(memory: MemoryPlugin, agent: UUID) -> None:
    for _ in range(2):
        assert memory.recall_turn(agent) == Turn(state=None, messages=[], memories=[])


def test_what_was_written_since_the_last_turn_is_in_the_next(memory: MemoryPlugin, agent: UUID) -> None:
    live(memory, agent)
    memory.recall_turn(agent)
    memory.memories.delete_memory(agent, "goal", "den")
    memory.memories.store_memory(agent, "skill", "swim", "well", importance=1.0)
    memory.conversations.save_message(agent, "user", "the last word")
    turn = memory.recall_turn(agent)
    assert [found.data for found in turn.memories] == ["well", "sink", "rises"]
    assert turn.messages[-1].content == "the last word"


def test_no_access_is_counted(memory: MemoryPlugin, agent: UUID) -> None:
    live(memory, agent)
    assert [found.access_count for found in memory.recall_turn(agent).memories] == [0, 0, 0]
    assert [found.access_count for found in memory.recall_turn(agent).memories] == [0, 0, 0]


@pytest.mark.parametrize("wrong", [{"messages": 0}, {"memories": 0}, {"memory_type": "No"}, {"messages": True}])
def test_wrong_arguments(wrong: dict[str, Any], client: MemoryPlugin, agent: UUID) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        client.recall_turn(agent, **wrong)


def test_a_resident_agent_costs_one_round_trip(timed: Tiers, agent: UUID) -> None:
    operations, trips = Operations(timed.settings), 0

    def turn() -> Turn:
        def counted(step: Any) -> Any:
            nonlocal trips
            trips += 1
            assert not isinstance(step, Query), "PostgreSQL was asked"
            return (yield step)

        steps = turns.recall(operations.residency, timed.keys(agent), 50, 20, None)
        return timed.run(Operation(relayed(steps, counted)))

    timed.emotions.update_emotions(agent, {Emotion.LOVE: 0.9}, mode="set")
    timed.conversations.save_message(agent, "user", "word")
    timed.memories.store_memory(agent, "fact", "river", "rises")
    timed.rehydrate(agent)
    turn()
    trips = 0
    found = turn()
    assert trips == 1
    assert found.state is not None
    assert ([m.content for m in found.messages], [m.data for m in found.memories]) == (["word"], ["rises"])


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the packet that asks for all of it was answered with all of it, each time that it was sent."""
    told: list[bool] = []
    genuine = turns.recall_call

    def watched(*words: Any) -> Call[Any]:
        call = genuine(*words)

        def decode(replies: Any) -> Any:
            result = call.decode(replies)
            told.append(result is not MISS)
            return result

        return Call(call.sent, decode, call.replies)

    monkeypatch.setattr(turns, "recall_call", watched)
    return told


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_between_them_turns_are_what_three_calls_give(
    timed_client: MemoryPlugin, timed: Tiers, agent: UUID, answered: list[bool], seed: int
) -> None:
    chance, server, now, numbers = Random(seed), Server(timed.hot), NOW, iter(range(10_000))
    names = [("fact", "a"), ("fact", "b"), ("goal", "a"), ("scratch", "a")]

    def by() -> Any:
        return chance.choice((timed_client, timed))

    def say(**more: Any) -> None:
        by().conversations.save_messages(agent, [NewMessage(role="user", content=f"word {next(numbers)}", **more)])

    deeds: list[Any] = [
        lambda: None,
        lambda: by().emotions.update_emotions(agent, {chance.choice(list(Emotion)): 0.5}),
        lambda: by().emotions.set_temperament(agent, decay_rates={Emotion.JOY: chance.choice((None, 0.5))}),
        say,
        lambda: say(emotional_context="current"),
        lambda: say(created_at=from_us(now) - timedelta(hours=chance.randrange(1, 9))),
        lambda: by().memories.store_memory(agent, *chance.choice(names), next(numbers), importance=chance.random()),
        lambda: by().memories.store_memory(
            agent, *chance.choice(names), next(numbers), ttl_seconds=chance.randrange(1, 20)
        ),
        lambda: by().memories.delete_memory(agent, *chance.choice(names)),
        lambda: by().memories.retrieve_memory(agent, *chance.choice(names)),
        timed.flush,
        lambda: timed.evict(agent),
        lambda: timed.drop(agent),
        lambda: timed.rehydrate(agent),
    ]
    for _ in range(50):
        server.set_clock(now)
        chance.choice(deeds)()
        for messages, memories, kind in ((50, 20, None), (2, 1, None), (3, 5, "fact")):
            for _ in range(2):
                turn = timed_client.recall_turn(agent, messages=messages, memories=memories, memory_type=kind)
                assert turn == Turn(
                    state=timed_client.emotions.load_state(agent),
                    messages=timed_client.conversations.get_history(agent, messages),
                    memories=timed_client.memories.get_memories_by_type(agent, kind, memories),
                )
        now += chance.choice((1, 1_000_000, 7_000_000))
    assert {True, False} <= set(answered)
    assert answered.count(True) > 3 * answered.count(False)


def test_a_turn_counts_as_the_three_reads_that_it_is(timed: Tiers, agent: UUID, answered: list[bool]) -> None:
    live(timed, agent)  # type: ignore[arg-type]
    timed.flush()
    counters = timed._operations.residency.counters

    def counted() -> tuple[int, int]:
        before = counters.hits, counters.misses
        timed.run(timed._operations.recall_turn(agent, 50, 20, None))
        return counters.hits - before[0], counters.misses - before[1]

    counted()
    assert [counted(), counted()] == [(3, 0), (3, 0)]
    assert answered[-1]
    timed.drop(agent)
    assert counted() == (0, 3)
    assert not answered[-1]
    assert [counted(), counted()] == [(3, 0), (3, 0)]
