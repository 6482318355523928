"""Events told after they happened, by a clock that stands: values to the last digit, order, trends. On both clients,
wherever the records are."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal
from uuid import UUID

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState, MemoryPlugin
from banshee_memory.hot.calls import Call
from banshee_memory.stamps import from_us
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers

NOW = 1_750_000_000_000_000
HOUR = 3_600_000_000
EVENT = CustomEvent(event_type="x")
RATES = {Emotion.JOY: 0.5, Emotion.FEAR: 0.0}
Mode = Literal["set", "add", "record"]


@pytest.fixture
def still(timed: Tiers, timed_memory: MemoryPlugin) -> MemoryPlugin:
    """A client of both tiers, with a clock that stands."""
    timed.hot.run(Call(("SET", CLOCK_KEY, NOW), bytes))
    return timed_memory


@pytest.mark.parametrize(
    ("mode", "ago", "joy", "fear"),
    [
        ("set", 0, 1.0, 0.25),
        ("set", 1_000_000, 0.5, 0.25),
        ("set", 2_500_000, 0.5**2.5, 0.25),
        ("set", 10_000_000, 0.0, 0.25),
        ("add", 0, 1.0, 0.5),
        ("add", 1_000_000, 1.0, 0.5),
        ("add", 3_000_000, 0.625, 0.5),
        ("record", 1_000_000, 0.5, 0.25),
    ],
)
def test_it_counts_as_faded_since(
    still: MemoryPlugin, agent: UUID, mode: Mode, ago: int, joy: float, fear: float
) -> None:
    still.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5, Emotion.FEAR: 0.25}, RATES, from_us(NOW)))
    named = {Emotion.JOY: 1.0, Emotion.FEAR: 0.25}
    event = still.emotions.save_event(agent, EVENT, named, mode=mode, occurred_at=from_us(NOW - ago))
    after = {Emotion.JOY: 0.5, Emotion.FEAR: 0.25} if mode == "record" else {Emotion.JOY: joy, Emotion.FEAR: fear}
    state = still.emotions.load_state(agent)
    assert state is not None
    assert state.emotions == pytest.approx({e: i for e, i in after.items() if i}, abs=1e-12)
    told = {Emotion.JOY: 0.5, Emotion.FEAR: 0.25} if mode == "record" else after
    assert event.resulting_emotions == named
    if mode != "record":
        before, then = (
            EmotionalState({Emotion.JOY: 0.5, Emotion.FEAR: 0.25}),
            EmotionalState({e: i for e, i in told.items() if i}),
        )
        assert event.intensity == pytest.approx(sum(told.values()), abs=1e-12)
        assert event.intensity_delta == pytest.approx(sum(told.values()) - 0.75, abs=1e-12)
        assert event.valence == pytest.approx(then.overall_valence, abs=1e-12)
        assert event.valence_delta == pytest.approx(then.overall_valence - before.overall_valence, abs=1e-12)
        assert event.arousal == pytest.approx(then.overall_arousal, abs=1e-12)
        assert event.arousal_delta == pytest.approx(then.overall_arousal - before.overall_arousal, abs=1e-12)
    assert still.emotions.get_event_history(agent) == [event]


def test_order_and_trends_are_by_when_it_happened(still: MemoryPlugin, agent: UUID) -> None:
    agos = (2 * HOUR, 5 * HOUR, 3 * HOUR, 5 * HOUR, 3 * HOUR - 1, 26 * HOUR)
    told = []
    for n, ago in enumerate(agos, start=1):
        told.append(
            still.emotions.save_event(
                agent, EVENT, {Emotion.FEAR: n / 8}, mode="record", occurred_at=from_us(NOW - ago)
            )
        )
        order = sorted(range(6), key=lambda n: (-agos[n], n))
    assert still.emotions.get_event_history(agent) == [told[n] for n in reversed(order)]
    assert still.emotions.get_event_history(agent, 2) == [told[n] for n in order[:-3:-1]]
    raw = still.emotions.get_emotional_trends(agent, hours=24)
    assert [(p.at, p.intensity, p.valence, p.arousal, p.events) for p in raw] == [
        (told[n].occurred_at, told[n].intensity, told[n].valence, told[n].arousal, 1) for n in order[1:]
    ]
    assert [p.at for p in still.emotions.get_emotional_trends(agent, hours=3)] == [
        told[n].occurred_at for n in order if agos[n] <= 3 * HOUR
    ]
    bucket = timedelta(hours=24)
    binned: dict[int, list[float]] = {}
    for n in order:
        binned.setdefault((NOW - agos[n]) // (24 * HOUR), []).append(told[n].intensity)
    points = still.emotions.get_emotional_trends(agent, hours=48, bucket=bucket)
    assert [(p.at, p.events) for p in points] == [(from_us(day * 24 * HOUR), len(held)) for day, held in binned.items()]
    assert [p.intensity for p in points] == pytest.approx([sum(held) / len(held) for held in binned.values()])
