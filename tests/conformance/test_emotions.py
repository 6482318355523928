"""`memory.emotions`: every method, on both clients, wherever the agent's records are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from banshee_memory import (
    CustomEvent,
    Emotion,
    EmotionalEvent,
    EmotionalState,
    GoalProgress,
    InvalidInput,
    MemoryPlugin,
    MemoryRecall,
    SocialInteraction,
    TaskCompleted,
    ToolCallFailed,
    UnexpectedEvent,
    UserFeedback,
)

DONE = TaskCompleted(success=True, difficulty=0.5, time_taken=60.0, expected_time=90.0)
EVENTS: list[EmotionalEvent] = [
    DONE,
    UserFeedback(sentiment=-0.25, specificity=1.0, is_constructive=True),
    ToolCallFailed(attempts=3, error_severity=0.7, is_critical=False),
    GoalProgress(progress_delta=-0.1, goal_importance=0.9, is_milestone=False),
    SocialInteraction(interaction_type="recognition", outcome=0.5, peer_status=0.1),
    UnexpectedEvent(surprise_level=1.0, positive_outcome=False, context="ünexpected 🦊"),
    MemoryRecall(memory_relevance=0.3, emotional_content=-0.2, memory_age=1e9),
    CustomEvent(event_type="rain", data={"mm": 3.5, "where": ["roof", None]}),
]
STEADY = dict.fromkeys(Emotion, 0.0)
"""Rates under which nothing fades, so that what was felt is what is felt."""


def steady(**emotions: float) -> EmotionalState:
    return EmotionalState({Emotion(name): value for name, value in emotions.items()}, dict(STEADY))


def test_an_unknown_agent_has_no_state(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.emotions.load_state(agent) is None
    assert memory.emotions.load_state(agent) is None


def test_a_saved_state_is_what_is_loaded(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.8, fear=0.25))
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.8, Emotion.FEAR: 0.25}
    assert state.decay_rates == STEADY


def test_a_state_fades_by_the_time_that_passed(memory: MemoryPlugin, agent: UUID) -> None:
    saved = EmotionalState({Emotion.JOY: 0.8, Emotion.LOVE: 0.6}, {Emotion.LOVE: 0.001}, _now() - timedelta(seconds=20))
    memory.emotions.save_state(agent, saved)
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.last_updated > saved.last_updated + timedelta(seconds=19)
    expected = saved.decayed(state.last_updated).emotions
    assert state.emotions == pytest.approx(expected, abs=1e-9)
    assert state.decay_rates == {Emotion.LOVE: 0.001}


def test_a_state_replaces_all_of_the_one_before(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.8))
    memory.emotions.save_state(agent, EmotionalState({Emotion.HATE: 1.0}, {Emotion.HATE: 0.0}))
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert (state.emotions, state.decay_rates) == ({Emotion.HATE: 1.0}, {Emotion.HATE: 0.0})


def test_updates_add_clamp_and_drop(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.8, fear=0.25, pity=0.5))
    changes = {Emotion.JOY: 0.7, Emotion.FEAR: -0.245, Emotion.HOPE: 0.125, Emotion.ANGER: -0.5}
    state = memory.emotions.update_emotions(agent, changes)
    assert state.emotions == {Emotion.JOY: 1.0, Emotion.HOPE: 0.125, Emotion.PITY: 0.5}
    loaded = memory.emotions.load_state(agent)
    assert loaded is not None
    assert loaded.emotions == state.emotions


def test_updates_set_the_named_and_leave_the_others(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.8, fear=0.25))
    state = memory.emotions.update_emotions(agent, {Emotion.JOY: 0.125, Emotion.GLOATING: 0.009}, mode="set")
    assert state.emotions == {Emotion.JOY: 0.125, Emotion.FEAR: 0.25}


def test_the_first_update_begins_a_state(memory: MemoryPlugin, agent: UUID) -> None:
    before = _now()
    state = memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
    assert state.emotions == {Emotion.JOY: 0.5}
    assert abs(state.last_updated - before) < timedelta(minutes=1)


def test_many_updates_are_all_there(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady())
    for _ in range(8):
        memory.emotions.update_emotions(agent, {Emotion.JOY: 0.0625, Emotion.HOPE: 0.125})
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.5, Emotion.HOPE: 1.0}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event_type)
def test_each_event_comes_back_as_it_happened(memory: MemoryPlugin, agent: UUID, event: EmotionalEvent) -> None:
    session = uuid4()
    saved = memory.emotions.save_event(
        agent, event, {Emotion.PRIDE: 0.5}, session_id=session, context_factors={"weather": "rain"}
    )
    assert memory.emotions.get_event_history(agent) == [saved]
    assert (saved.agent_id, saved.event, saved.event_type) == (agent, event, event.event_type)
    assert (saved.session_id, saved.context_factors, saved.mode) == (session, {"weather": "rain"}, "set")
    assert saved.resulting_emotions == {Emotion.PRIDE: 0.5}


def test_an_event_tells_what_was_felt_before_and_after(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.5, fear=0.25))
    saved = memory.emotions.save_event(agent, DONE, {Emotion.FEAR: 0.0, Emotion.JOY: 0.75})
    assert (saved.valence, saved.intensity) == (1.0, 0.75)
    assert saved.arousal == pytest.approx(Emotion.JOY.arousal)
    assert saved.valence_delta == pytest.approx(1 - 0.25 / 0.75)
    assert saved.arousal_delta == pytest.approx(0.8 - (0.5 * 0.8 + 0.25 * 0.9) / 0.75)
    assert saved.intensity_delta == 0.0
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.75}
    assert memory.emotions.get_event_history(agent) == [saved]


def test_an_event_can_add(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.5))
    saved = memory.emotions.save_event(agent, DONE, {Emotion.JOY: 0.25, Emotion.HOPE: -0.5}, mode="add")
    assert saved.intensity == 0.75
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.75}


def test_an_event_can_be_history_only(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, steady(joy=0.5))
    saved = memory.emotions.save_event(agent, DONE, {Emotion.JOY: 1.0}, mode="record")
    assert saved.resulting_emotions == {Emotion.JOY: 1.0}
    state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.5}


def test_an_event_of_the_past_has_faded_since(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.save_state(agent, EmotionalState({}, {Emotion.JOY: 0.5}))
    at = _now() - timedelta(seconds=2)
    saved = memory.emotions.save_event(agent, DONE, {Emotion.JOY: 1.0}, occurred_at=at)
    assert saved.occurred_at == at
    assert saved.created_at > at
    assert 0.0 < saved.intensity <= 0.25
    assert memory.emotions.get_event_history(agent) == [saved]


def test_the_history_is_newest_first_by_when_it_happened(memory: MemoryPlugin, agent: UUID) -> None:
    natural = [memory.emotions.save_event(agent, DONE, {}) for _ in range(3)]
    late = memory.emotions.save_event(agent, DONE, {}, occurred_at=_now() - timedelta(days=3))
    assert memory.emotions.get_event_history(agent) == [*natural[::-1], late]
    assert memory.emotions.get_event_history(agent, 2) == [natural[2], natural[1]]
    assert memory.emotions.get_event_history(uuid4()) == []


def test_trends_are_what_was_felt_after_each_event(memory: MemoryPlugin, agent: UUID) -> None:
    old = memory.emotions.save_event(agent, DONE, {Emotion.JOY: 0.5}, occurred_at=_now() - timedelta(hours=5))
    new = [memory.emotions.save_event(agent, DONE, {Emotion.FEAR: 0.25 * n}, mode="set") for n in range(1, 4)]
    points = memory.emotions.get_emotional_trends(agent, hours=1)
    expected = [(event.occurred_at, event.valence, event.arousal, event.intensity, 1) for event in new]
    assert [(p.at, p.valence, p.arousal, p.intensity, p.events) for p in points] == expected
    assert [p.at for p in memory.emotions.get_emotional_trends(agent)] == [e.occurred_at for e in (old, *new)]


def test_trends_in_buckets_are_means(memory: MemoryPlugin, agent: UUID) -> None:
    day = _now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    for hour, joy in ((1, 0.5), (2, 1.0), (30, 0.25)):
        at = day + timedelta(hours=hour)
        memory.emotions.save_event(agent, DONE, {Emotion.JOY: joy}, mode="record", occurred_at=at)
    points = memory.emotions.get_emotional_trends(agent, hours=96, bucket=timedelta(days=1))
    assert [(p.at, p.events) for p in points] == [(day, 2), (day + timedelta(days=1), 1)]


def test_the_short_names_are_the_same_methods(memory: MemoryPlugin, agent: UUID) -> None:
    memory.save_emotional_state(agent, steady(joy=0.5))
    event = memory.save_emotional_event(agent, DONE, {Emotion.HOPE: 0.25})
    state = memory.load_emotional_state(agent)
    assert state is not None
    assert state.emotions == {Emotion.JOY: 0.5, Emotion.HOPE: 0.25}
    assert memory.get_emotional_history(agent) == [event]


def test_what_is_refused_leaves_nothing(memory: MemoryPlugin, agent: UUID) -> None:
    for changes in ({Emotion.JOY: 1.5}, {Emotion.JOY: float("nan")}, {"glee": 0.5}):
        with pytest.raises(InvalidInput):
            memory.emotions.save_event(agent, DONE, changes)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            memory.emotions.update_emotions(agent, changes)  # type: ignore[arg-type]
    assert memory.emotions.load_state(agent) is None
    assert memory.emotions.get_event_history(agent) == []


def _now() -> datetime:
    return datetime.now(UTC)
