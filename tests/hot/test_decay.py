"""What the server's functions make of an intensity over time, and what Python does, agree to 1e-9."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState
from banshee_memory.emotions import FLOOR
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import agent_keys
from banshee_memory.stamps import from_us
from tests.own_servers import CLOCK_KEY

YEAR = 31_557_600_000_000
GAPS = (0, 1, 999_999, 1_000_000, 60_000_000, 86_400_000_000, 10 * YEAR)
RATES = (0.0, 1.0, 1e-12, 5e-324, 0.5, 1 - 1e-16)
START = 1_700_000_000_000_000
STATES, BATCH = 10_000, 500


def a_state(rng: random.Random) -> EmotionalState:
    felt = rng.sample(list(Emotion), rng.randint(3, 8))
    emotions = {e: rng.choice((rng.random(), 1.0, FLOOR, 0.011)) for e in felt}
    rates = {e: rng.choice((rng.random() ** 3, rng.choice(RATES))) for e in felt if rng.random() < 0.8}
    return EmotionalState({e: max(i, FLOOR) for e, i in emotions.items()}, rates, from_us(START))


def a_gap(rng: random.Random) -> int:
    return rng.choice((rng.choice(GAPS), int(10 ** rng.uniform(0, 14.5))))


def clock(us: int) -> Call[Any]:
    return Call(("SET", CLOCK_KEY, us), lambda reply: reply)


@pytest.mark.parametrize("seed", range(STATES // BATCH))
def test_the_server_decays_as_python_does(hot: HotStore, seed: int) -> None:
    rng = random.Random(seed)
    cases = [(agent_keys(uuid4(), 64), a_state(rng), a_gap(rng)) for _ in range(BATCH)]
    batch: list[Call[Any]] = []
    for keys, state, gap in cases:
        # Adding nothing makes the server work out what is left, and store that.
        nothing = dict.fromkeys(Emotion, 0.0)
        batch += [clock(START), calls.save_state(keys, state)]
        batch += [clock(START + gap), calls.load_state(keys), calls.update_emotions(keys, nothing, "add")]
    replies = hot.run_all(batch)
    for (_, state, gap), loaded, updated in zip(cases, replies[3::5], replies[4::5], strict=True):
        expected = state.decayed(from_us(START + gap)).emotions
        assert loaded.emotions == expected, (state, gap)
        assert_close(updated.emotions, expected, state, gap)


def assert_close(actual: dict[Emotion, float], expected: dict[Emotion, float], state: EmotionalState, gap: int) -> None:
    for emotion in Emotion:
        ours, theirs = expected.get(emotion, 0.0), actual.get(emotion, 0.0)
        both_at_floor = max(ours, theirs) < FLOOR + 1e-9 and min(ours, theirs) == 0.0
        assert abs(ours - theirs) <= 1e-9 or both_at_floor, (emotion, state, gap)


@pytest.mark.parametrize("mode", ["set", "add", "record"])
@pytest.mark.parametrize("seed", range(2))
def test_an_event_is_worked_out_alike(hot: HotStore, mode: str, seed: int) -> None:
    """The server changes the state; Python works out from the entry what the state was before and after."""
    rng = random.Random(seed)
    body = wire.pack(wire.EventBody(b"12345678", CustomEvent(event_type="x")))
    for _ in range(100):
        keys, state, gap = agent_keys(uuid4(), 64), a_state(rng), a_gap(rng)
        amounts = {e: rng.uniform(-1 if mode == "add" else 0, 1) for e in rng.sample(list(Emotion), 4)}
        late = rng.choice((None, START + gap - min(gap, a_gap(rng))))
        hot.run_all([clock(START), calls.save_state(keys, state), clock(START + gap)])
        settled = hot.run(calls.save_event(keys, body, amounts, mode, late))
        assert isinstance(settled, wire.SettledEvent)
        now = hot.run(calls.load_state(keys))
        assert isinstance(now, EmotionalState)
        before = state.decayed(from_us(START + gap))
        assert_close(now.emotions, settled.after if mode != "record" else before.emotions, state, gap)
        record = settled.placed.record
        after = EmotionalState(settled.after)
        assert record.valence == pytest.approx(after.overall_valence, abs=1e-9)
        assert record.arousal == pytest.approx(after.overall_arousal, abs=1e-9)
        assert record.valence_delta == pytest.approx(after.overall_valence - before.overall_valence, abs=1e-9)
        assert record.intensity_delta == pytest.approx(
            sum(after.emotions.values()) - sum(before.emotions.values()), abs=1e-9
        )


def test_a_clock_that_steps_back_brings_nothing_back(hot: HotStore) -> None:
    keys = agent_keys(UUID(int=5), 64)
    hot.run_all([clock(START), calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5}, {}, from_us(START)))])
    hot.run(clock(START - YEAR))
    state = hot.run(calls.update_emotions(keys, {Emotion.JOY: 0.25}, "add"))
    assert isinstance(state, EmotionalState)
    assert state.emotions == {Emotion.JOY: 0.75}
