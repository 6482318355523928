"""The 22 emotions, how they fade, what they add up to; and that the Lua library has the same rates."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from banshee_memory import Emotion, EmotionalState, InvalidInput
from banshee_memory.emotions import FLOOR, Felt, StoredState, arousal_of, faded, intensity_of, valence_of
from banshee_memory.hot import library
from banshee_memory.records import memory_importance
from banshee_memory.stamps import to_us

# name, rate a second, valence, arousal: the contract's table.
TABLE = """
joy              .05 + .8 | gratification .03 + .7
distress         .08 - .7 | remorse       .09 - .6
hope             .06 + .6 | gratitude     .03 + .5
fear             .12 - .9 | anger         .15 - .9
satisfaction     .04 + .7 | love          .01 + .6
disappointment   .07 - .6 | hate          .02 - .8
relief           .08 + .5 | happy_for     .05 + .6
fear_confirmed   .10 - .8 | resentment    .06 - .7
pride            .03 + .6 | gloating      .07 + .6
shame            .10 - .7 | pity          .04 - .4
admiration       .04 + .5 | reproach      .08 - .6
"""
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_table_is_the_contracts() -> None:
    cells = [cell.split() for line in TABLE.strip().splitlines() for cell in line.split("|")]
    expected = {name: (float(rate), {"+": 1, "-": -1}[sign], float(arousal)) for name, rate, sign, arousal in cells}
    assert {e.value: (e.rate, e.valence, e.arousal) for e in Emotion} == expected
    assert len(Emotion) == 22


def test_lua_has_the_same_rates_and_floor() -> None:
    text = (Path(library.__file__).parents[1] / "lua" / "emotions.lua").read_text()
    table = re.search(r"local RATES = \{(.*?)\}", text, re.DOTALL)
    floor = re.search(r"local FLOOR = ([\d.]+)", text)
    assert table
    assert floor
    rates = {name: float(rate) for name, rate in re.findall(r"(\w+) = ([\d.]+)", table[1])}
    assert rates == {e.value: e.rate for e in Emotion}
    assert float(floor[1]) == FLOOR


@pytest.mark.parametrize("emotion", Emotion)
def test_names_are_read_as_here_and_as_in_the_original(emotion: Emotion) -> None:
    camel = "".join(part.capitalize() for part in emotion.value.split("_"))
    assert Emotion.parse(emotion.value) is emotion
    assert Emotion.parse(camel) is emotion
    assert str(emotion) == emotion.value


@pytest.mark.parametrize("name", ["", "glee", "JOY", "joy ", "joy\0", "Fear_Confirmed", "\ud800"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Emotion.parse(name)
    assert refused.value.field == "emotion"


# --- decay ---


@pytest.mark.parametrize(
    ("intensity", "rate", "seconds", "expected"),
    [
        (1.0, 0.05, 1, 0.95),
        (0.8, 0.5, 2, 0.2),
        (1.0, 0.0, 1e9, 1.0),
        (1.0, 1.0, 1e-6, 0.0),
        (1.0, 1.0, 0, 1.0),
        (0.5, 0.5, -10, 0.5),
        (0.02, 0.5, 1, 0.01),
        (0.0199, 0.5, 1, 0.0),
        (0.009, 0.0, 0, 0.0),
        (1.0, 0.05, 315_576_000, 0.0),
    ],
)
def test_an_intensity_fades_by_its_rate(intensity: float, rate: float, seconds: float, expected: float) -> None:
    assert faded(intensity, rate, seconds * 1e6) == pytest.approx(expected, abs=1e-12)


def test_a_state_fades_with_its_own_rates_and_drops_what_is_gone() -> None:
    state = EmotionalState({Emotion.JOY: 0.8, Emotion.FEAR: 0.02, Emotion.LOVE: 0.5}, {Emotion.JOY: 0.5}, AT)
    later = state.decayed(AT + timedelta(seconds=10))
    assert later.emotions == pytest.approx({Emotion.LOVE: 0.5 * 0.99**10})
    assert (later.decay_rates, later.last_updated) == ({Emotion.JOY: 0.5}, AT + timedelta(seconds=10))
    assert state.emotions[Emotion.FEAR] == 0.02


def test_decay_in_one_step_or_many_is_the_same() -> None:
    state = EmotionalState({Emotion.JOY: 1.0}, {}, AT)
    by_steps = state
    for n in range(1, 21):
        by_steps = by_steps.decayed(AT + timedelta(seconds=n))
    assert by_steps.emotions == pytest.approx(state.decayed(AT + timedelta(seconds=20)).emotions)


def test_a_stored_state_fades_each_emotion_from_its_own_time() -> None:
    start = to_us(AT)
    felt = {Emotion.JOY: Felt(1.0, start), Emotion.FEAR: Felt(1.0, start + 1_000_000)}
    state = StoredState(felt, {Emotion.FEAR: 0.5}, start, 1).at(start + 2_000_000)
    assert state.emotions == pytest.approx({Emotion.JOY: 0.95**2, Emotion.FEAR: 0.5})
    assert state.last_updated == AT + timedelta(seconds=2)


# --- what they add up to ---


@pytest.mark.parametrize(
    ("emotions", "valence", "arousal"),
    [
        ({}, 0.0, 0.0),
        ({Emotion.JOY: 0.0}, 0.0, 0.0),
        ({Emotion.JOY: 0.5}, 1.0, 0.8),
        ({Emotion.FEAR: 0.1}, -1.0, 0.9),
        ({Emotion.JOY: 0.6, Emotion.FEAR: 0.2}, 0.5, 0.825),
        (dict.fromkeys(Emotion, 1.0), 0.0, sum(e.arousal for e in Emotion) / 22),
    ],
)
def test_valence_and_arousal_are_weighted_means(emotions: dict[Emotion, float], valence: float, arousal: float) -> None:
    assert valence_of(emotions) == pytest.approx(valence)
    assert arousal_of(emotions) == pytest.approx(arousal)
    state = EmotionalState(emotions)
    assert (state.overall_valence, state.overall_arousal) == (valence_of(emotions), arousal_of(emotions))
    assert intensity_of(emotions) == sum(emotions.values())


def test_the_dominant_is_the_strongest_and_of_equals_the_first_of_the_22() -> None:
    assert EmotionalState().dominant is None
    assert EmotionalState({Emotion.PITY: 0.5, Emotion.JOY: 0.4}).dominant == (Emotion.PITY, 0.5)
    assert EmotionalState({Emotion.PITY: 0.5, Emotion.HOPE: 0.5}).dominant == (Emotion.HOPE, 0.5)


def test_the_summary_is_one_line() -> None:
    assert EmotionalState().summary() == "calm (nothing is felt)"
    state = EmotionalState({Emotion.HOPE: 0.313, Emotion.JOY: 0.8})
    assert state.summary().startswith("joy 0.80, hope 0.31 (valence +1.00, arousal ")
    assert "\n" not in state.summary()


def test_update_emotion_sets_after_all_else_has_faded() -> None:
    state = EmotionalState({Emotion.JOY: 0.8, Emotion.FEAR: 0.5}, {Emotion.JOY: 0.5}, AT)
    state.update_emotion(Emotion.FEAR, 0.25, AT + timedelta(seconds=1))
    assert state.emotions == pytest.approx({Emotion.JOY: 0.4, Emotion.FEAR: 0.25})
    assert state.last_updated == AT + timedelta(seconds=1)
    state.update_emotion(Emotion.FEAR, 0.009, AT)
    assert state.emotions == pytest.approx({Emotion.JOY: 0.4})
    assert state.last_updated == AT + timedelta(seconds=1)


@pytest.mark.parametrize("intensity", [-0.1, 1.0000001, float("nan"), float("inf"), -float("inf")])
def test_update_emotion_refuses_what_is_no_intensity(intensity: float) -> None:
    state = EmotionalState({Emotion.JOY: 0.5}, {}, AT)
    with pytest.raises(InvalidInput) as refused:
        state.update_emotion(Emotion.JOY, intensity)
    assert refused.value.field == "intensity"
    assert (state.emotions, state.last_updated) == ({Emotion.JOY: 0.5}, AT)


def test_new_states_share_nothing() -> None:
    EmotionalState().emotions[Emotion.JOY] = 1.0
    assert EmotionalState().emotions == {}


def test_a_state_is_json_by_the_names_of_the_table() -> None:
    state = EmotionalState({Emotion.FEAR_CONFIRMED: 0.5}, {}, AT)
    encoded = msgspec.json.encode(state)
    assert b'{"fear_confirmed":0.5}' in encoded
    assert msgspec.json.decode(encoded, type=EmotionalState) == state


# --- importance ---


@pytest.mark.parametrize(
    ("memory_type", "data", "importance"),
    [
        ("experience", None, 0.5),
        ("goal", None, 0.8),
        ("preference", 1, 0.7),
        ("personality", [1, 2, 3], 0.7),
        ("skill", True, 0.6),
        ("fact", "", 0.55),
        ("knowledge", "one two three", 0.58),
        ("temp", "word " * 500, 0.4),
        ("cache", {}, 0.3),
        ("relationship", {"a": 1, "b": 2}, 0.6),
        ("context", dict.fromkeys("abcdefgh"), 0.7),
        ("goal", dict.fromkeys("abcdefgh"), 1.0),
        ("anything", {"a": 1}, 0.55),
    ],
)
def test_importance_follows_the_formula(memory_type: str, data: object, importance: float) -> None:
    assert memory_importance(memory_type, data) == pytest.approx(importance)
