"""Whatever comes between two steps of an operation, it answers and does what it would have otherwise.

Every operation is a generator that yields its calls one by one, so a test can do something else before each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState, NewMessage
from tests.tiering.lives import HAPPENED, STEADY, Life, begin, everything
from tests.tiers import Tiers, intruded, nothing, refused_writes

PLACEMENTS = ("hot", "clean", "half", "cold")
MOST_STEPS = 20

# What moves an agent between the tiers and changes nothing.
MOVES: dict[str, Callable[[Tiers, UUID], object]] = {
    "flush": lambda tiers, agent: tiers.flush(agent),
    "evict": lambda tiers, agent: tiers.evict(agent),
    "drop": lambda tiers, agent: tiers.drop(agent),
    "rehydrate": lambda tiers, agent: tiers.rehydrate(agent),
    "evict and read": lambda tiers, agent: (tiers.evict(agent), everything(tiers, agent)),
}

# Where the agent is, and what can then come between.
_TELLING = {("hot", "flush"), ("clean", "drop"), ("half", "evict"), ("half", "rehydrate"), ("cold", "evict and read")}
CASES = [pytest.param(*case, marks=() if case in _TELLING else pytest.mark.soak) for case in product(PLACEMENTS, MOVES)]


def _emotions(tiers: Tiers, life: Life) -> dict[Emotion, float] | None:
    state = tiers.emotions.load_state(life.agent)
    return state.emotions if state else None


def _texts(messages: list[Any]) -> list[str]:
    return [message.content for message in messages]


def _totals(tiers: Tiers, life: Life) -> tuple[int, int]:
    stats = tiers.conversations.get_conversation_stats(life.agent)
    return stats.total_messages, stats.total_tokens


def _datum(tiers: Tiers, life: Life, key: str) -> Any:
    record = tiers.memories.get_memory(life.agent, "fact", key)
    return record.data if record else None


# What each reading says, and what it says of the life that `begin` gives.
def _why(tiers: Tiers, life: Life) -> object:
    why = tiers.emotions.why(life.agent, Emotion.HOPE)
    return [e for part in why.contributions for e in part.event.resulting_emotions], why.intensity, why.unexplained


READS: dict[str, tuple[Callable[[Tiers, Life], Any], Callable[[Life], Any]]] = {
    "load_state": (
        _emotions,
        lambda life: {Emotion.JOY: 0.5, Emotion.HOPE: 0.5},
    ),
    "newest 3": (
        lambda tiers, life: _texts(tiers.conversations.get_history(life.agent, 3)),
        lambda life: life.texts[-3:],
    ),
    "newest 7": (
        lambda tiers, life: _texts(tiers.conversations.get_history(life.agent, 7)),
        lambda life: life.texts[-7:],
    ),
    "newest 9": (lambda tiers, life: _texts(tiers.conversations.get_history(life.agent, 9)), lambda life: life.texts),
    "before the last": (
        lambda tiers, life: _texts(tiers.conversations.get_history(life.agent, 2, before=life.ids[-1])),
        lambda life: life.texts[5:7],
    ),
    "before the third": (
        lambda tiers, life: _texts(tiers.conversations.get_history(life.agent, 9, before=life.ids[2])),
        lambda life: life.texts[:2],
    ),
    "events": (
        lambda tiers, life: [
            e.resulting_emotions.get(Emotion.HOPE) for e in tiers.emotions.get_event_history(life.agent)
        ],
        lambda life: [0.5, 0.25, 0.25, 0.25, 0.25, 0.25],
    ),
    "trends": (
        lambda tiers, life: [p.intensity for p in tiers.emotions.get_emotional_trends(life.agent)],
        lambda life: [0.75, 0.75, 0.75, 0.75, 0.75, 1.0],
    ),
    "why": (_why, lambda life: ([Emotion.HOPE], 0.5, 0.0)),
    "totals": (_totals, lambda life: (8, 16)),
    "search": (
        lambda tiers, life: sorted(_texts(tiers.conversations.search_messages(life.agent, "number"))),
        lambda life: life.texts,
    ),
    "get_memory": (lambda tiers, life: _datum(tiers, life, "k1"), lambda life: "one"),
    "retrieve_memory": (lambda tiers, life: tiers.memories.retrieve_memory(life.agent, "fact", "k2"), lambda life: 2),
    "by_type": (
        lambda tiers, life: [m.data for m in tiers.memories.get_memories_by_type(life.agent, "fact")],
        lambda life: [0, "one", 2],
    ),
}


class Intrusion:
    """Something else, done before call number `at` of every operation of a client, at most once."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.happened = False
        self._at = at
        self._action = action

    def act(self) -> None:
        self.happened = True
        self._action()

    @contextmanager
    def into(self, tiers: Tiers) -> Iterator[None]:
        """While the block runs."""
        before = tiers.between
        tiers.between = lambda steps: intruded(before(steps), self._at, self.act)
        try:
            yield
        finally:
            tiers.between = before


@pytest.mark.parametrize(("placement", "move"), CASES)
@pytest.mark.parametrize("reading", READS)
def test_a_read_sees_what_was_written(tiers: Tiers, intruder: Tiers, reading: str, move: str, placement: str) -> None:
    read, expected = READS[reading]
    for at in range(MOST_STEPS):
        life = begin(tiers, placement)
        intrusion = Intrusion(at, lambda agent=life.agent: MOVES[move](intruder, agent))  # type: ignore[misc]
        with intrusion.into(tiers):
            assert read(tiers, life) == expected(life), f"{move} before call {at}"
        if not intrusion.happened:
            break
    assert 0 < at < MOST_STEPS - 1


@pytest.mark.parametrize("reading", READS)
def test_a_read_is_right_where_the_agent_comes_and_goes(tiers: Tiers, intruder: Tiers, reading: str) -> None:
    """It was not there; somebody brought it back before it could; and it went again."""
    read, expected = READS[reading]
    for at in range(MOST_STEPS):
        life = begin(tiers, "cold")
        came = Intrusion(at, lambda agent=life.agent: intruder.rehydrate(agent))  # type: ignore[misc]
        gone = Intrusion(at + 1, lambda agent=life.agent: intruder.evict(agent))  # type: ignore[misc]
        with came.into(tiers), gone.into(tiers):
            assert read(tiers, life) == expected(life), f"before call {at}"
        if not came.happened:
            break
    assert 0 < at < MOST_STEPS - 1


# What each write does, and what it makes of the life: (what is read of it, what that then is).
WRITES: dict[str, tuple[Callable[[Tiers, Life], object], Callable[[Tiers, Life], Any], Any]] = {
    "save_state": (
        lambda tiers, life: tiers.emotions.save_state(life.agent, EmotionalState({Emotion.FEAR: 0.5}, dict(STEADY))),
        _emotions,
        {Emotion.FEAR: 0.5},
    ),
    "update_emotions": (
        lambda tiers, life: tiers.emotions.update_emotions(life.agent, {Emotion.HOPE: 0.25}),
        _emotions,
        {Emotion.JOY: 0.5, Emotion.HOPE: 0.75},
    ),
    "save_event": (
        lambda tiers, life: tiers.emotions.save_event(life.agent, HAPPENED, {Emotion.HOPE: 0.25}, mode="add"),
        lambda tiers, life: (_emotions(tiers, life), len(tiers.emotions.get_event_history(life.agent))),
        ({Emotion.JOY: 0.5, Emotion.HOPE: 0.75}, 7),
    ),
    "save_message": (
        lambda tiers, life: tiers.conversations.save_message(life.agent, "user", "and a ninth word", tokens_used=1),
        lambda tiers, life: (_texts(tiers.conversations.get_history(life.agent))[7:], _totals(tiers, life)),
        (["word number 7", "and a ninth word"], (9, 17)),
    ),
    "save_message that feels": (
        lambda tiers, life: tiers.conversations.save_message(life.agent, "user", "x", emotional_context="current"),
        lambda tiers, life: tiers.conversations.get_history(life.agent)[-1].emotional_context,
        {"joy": 0.5, "hope": 0.5},
    ),
    "import": (
        lambda tiers, life: tiers.conversations.save_messages(life.agent, [_old_message()]),
        lambda tiers, life: (_texts(tiers.conversations.get_history(life.agent))[:2], _totals(tiers, life)),
        (["an old word", "word number 0"], (9, 16)),
    ),
    "amend a message": (
        lambda tiers, life: tiers.conversations.update_emotional_context(life.agent, life.ids[1], {"pity": 1.0}),
        lambda tiers, life: [m.emotional_context for m in tiers.conversations.get_history(life.agent)][:3],
        [None, {"pity": 1.0}, None],
    ),
    "amend the last message": (
        lambda tiers, life: tiers.conversations.update_emotional_context(life.agent, life.ids[-1], {"pity": 1.0}),
        lambda tiers, life: [m.emotional_context for m in tiers.conversations.get_history(life.agent)][-2:],
        [None, {"pity": 1.0}],
    ),
    "replace a memory": (
        lambda tiers, life: tiers.memories.store_memory(life.agent, "fact", "k2", "two", importance=0.125),
        lambda tiers, life: (_datum(tiers, life, "k2"), _keys(tiers, life)),
        ("two", ["k0", "k1", "k2"]),
    ),
    "store a memory": (
        lambda tiers, life: tiers.memories.store_memory(life.agent, "fact", "k9", 9, importance=0.125),
        lambda tiers, life: (_datum(tiers, life, "k9"), _keys(tiers, life)),
        (9, ["k0", "k1", "k2", "k9"]),
    ),
    "delete a memory": (
        lambda tiers, life: tiers.memories.delete_memory(life.agent, "fact", "k0"),
        lambda tiers, life: (_datum(tiers, life, "k0"), _keys(tiers, life)),
        (None, ["k1", "k2"]),
    ),
    "count an access": (
        lambda tiers, life: tiers.memories.retrieve_memory(life.agent, "fact", "k1"),
        lambda tiers, life: [m.access_count for m in tiers.memories.get_memories_by_type(life.agent, "fact")],
        [0, 1, 0],
    ),
}


def _old_message() -> NewMessage:
    return NewMessage(role="user", content="an old word", created_at=datetime(2020, 1, 1, tzinfo=UTC))


def _keys(tiers: Tiers, life: Life) -> list[str]:
    return [memory.key for memory in tiers.memories.get_memories_by_type(life.agent, "fact")]


@pytest.mark.parametrize(("placement", "move"), CASES)
@pytest.mark.parametrize("writing", WRITES)
def test_a_write_is_done_once_and_stays(tiers: Tiers, intruder: Tiers, writing: str, move: str, placement: str) -> None:
    write, read, expected = WRITES[writing]
    for at in range(MOST_STEPS):
        life = begin(tiers, placement)
        intrusion = Intrusion(at, lambda agent=life.agent: MOVES[move](intruder, agent))  # type: ignore[misc]
        with intrusion.into(tiers):
            write(tiers, life)
        assert read(tiers, life) == expected, f"{move} before call {at}"
        seen = everything(tiers, life.agent)
        tiers.evict(life.agent)
        assert everything(tiers, life.agent) == seen, f"{move} before call {at}, then evicted"
        if not intrusion.happened:
            break
    assert 0 < at < MOST_STEPS - 1


def _another_life(tiers: Tiers, agent: UUID) -> None:
    """Another client changes everything, and it leaves for PostgreSQL."""
    _another_change(tiers, agent)
    tiers.evict(agent)


def _another_change(tiers: Tiers, agent: UUID) -> None:
    tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.25})
    tiers.emotions.save_event(agent, HAPPENED, {Emotion.JOY: 0.25}, mode="add")
    tiers.conversations.save_messages(agent, [NewMessage(role="user", content="another word", tokens_used=100)] * 2)
    tiers.memories.store_memory(agent, "fact", "another", 7, importance=0.125)
    tiers.memories.delete_memory(agent, "fact", "k0")


def _another_return(tiers: Tiers, agent: UUID) -> None:
    """It leaves, and another client's change brings it back."""
    tiers.evict(agent)
    _another_change(tiers, agent)


def _another_trim(tiers: Tiers, agent: UUID) -> None:
    """So much is written and flushed that what was resident before is trimmed from the lists."""
    tiers.conversations.save_messages(agent, [NewMessage(role="user", content="another word")] * 9)
    for _ in range(6):
        tiers.emotions.save_event(agent, HAPPENED, {}, mode="record")
    tiers.flush(agent)


INTRUSIONS: dict[str, Callable[[Tiers, UUID], object]] = {
    "change": _another_change,
    "change and evict": _another_life,
    "change and trim": _another_trim,
    "evict and change": _another_return,
}


@pytest.mark.parametrize("placement", ["half", pytest.param("cold", marks=pytest.mark.soak)])
@pytest.mark.parametrize("intrusion_name", INTRUSIONS)
@pytest.mark.parametrize("reading", ["load_state", "newest 9", "before the third", "events", "get_memory"])
def test_a_read_beside_writes_installs_nothing_that_is_over(
    tiers: Tiers, intruder: Tiers, reading: str, intrusion_name: str, placement: str
) -> None:
    read, _ = READS[reading]
    for at in range(MOST_STEPS):
        life = begin(tiers, placement)
        intrusion = Intrusion(at, lambda agent=life.agent: INTRUSIONS[intrusion_name](intruder, agent))  # type: ignore[misc]
        with intrusion.into(tiers):
            read(tiers, life)
        seen = everything(tiers, life.agent)
        tiers.evict(life.agent)
        assert everything(tiers, life.agent) == seen, f"{intrusion_name} before call {at}"
        if not intrusion.happened:
            break
        _assert_known(seen, life, intrusion_name)


def _assert_known(seen: dict[str, Any], life: Life, intrusion_name: str) -> None:
    trimmed = intrusion_name == "change and trim"
    assert _texts(seen["messages"]) == life.texts + ["another word"] * (9 if trimmed else 2)
    assert seen["totals"].total_messages == len(seen["messages"])
    assert seen["totals"].total_tokens == (16 if trimmed else 216)
    assert len(seen["events"]) == (12 if trimmed else 7)
    assert seen["state"][0] == {Emotion.JOY: 0.5 if trimmed else 1.0, Emotion.HOPE: 0.5}
    expected = [0, "one", 2] if trimmed else ["one", 2, 7]
    assert [memory.data for memory in seen["memories"]] == expected


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("reading", READS)
def test_a_read_does_without_what_a_full_redis_refuses(tiers: Tiers, reading: str, placement: str) -> None:
    read, expected = READS[reading]
    for since in range(6):
        life = begin(tiers, placement)
        tiers.between = lambda steps, since=since: refused_writes(steps, since)  # type: ignore[misc]
        try:
            assert read(tiers, life) == expected(life)
        finally:
            tiers.between = nothing
