"""What being away means for decay: the server, `StoredState.at` and a plain model agree to 1e-9 over random lives."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from banshee_memory import Capped, Emotion, EmotionalState
from banshee_memory.emotions import FLOOR, Absence, StoredState, absence_text
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, agent_keys
from banshee_memory.stamps import from_us
from tests.own_servers import CLOCK_KEY
from tests.tiering.model import Agent

START = 1_700_000_000_000_000
YEAR = 31_557_600_000_000
GAPS = (0, 1, 999_999, 1_000_000, 10_000_000, 60_000_000, 3_600_000_000, 10 * YEAR)
POLICIES: tuple[Absence, ...] = ("wall", "active", Capped(1e-6), Capped(1.5), Capped(3_600), Capped(3_155_760_000))
RATES = (None, 0.0, 1.0, 1e-9, 0.001, 0.5, 1 - 1e-16)
LIVES, STEPS = 40, 20
NOTHING = dict.fromkeys(Emotion, 0.0)


class Life:
    """An agent on the server and in the model, to which the same happens."""

    def __init__(self, hot: HotStore, rng: random.Random) -> None:
        self.hot, self.rng, self.now = hot, rng, START
        self.keys: AgentKeys = agent_keys(uuid4(), 64)
        self.model = Agent()
        self.wait(0)
        hot.run(calls.save_state(self.keys, EmotionalState({}, {}, from_us(START))))
        self.model.save_state(EmotionalState(), START, START)

    def wait(self, us: int) -> None:
        self.now += us
        self.hot.run(Call(("SET", CLOCK_KEY, self.now), bytes))

    def stored(self) -> StoredState:
        flat = self.hot.run(calls.state_hash(self.keys))
        state = wire.state_of(flat)
        assert state is not None
        return state

    def step(self) -> None:
        """One of the things that happen to it."""
        deeds: list[Callable[[], None]] = [self.add, self.add, self.save, self.temper, self.come, self.go]
        self.wait(self.rng.choice((*GAPS[:-1], int(10 ** self.rng.uniform(0, 14.5)))))
        self.check()
        self.rng.choice(deeds)()
        self.check()

    def add(self) -> None:
        changes = {e: self.rng.uniform(-0.25, 1) for e in self.rng.sample(list(Emotion), 3)}
        self.hot.run(calls.update_emotions(self.keys, changes, "add"))
        self.model.change(changes, "add", self.now, self.now)

    def save(self) -> None:
        at = self.now - self.rng.choice(GAPS[:4])
        felt = {e: self.rng.uniform(0.01, 1) for e in self.rng.sample(list(Emotion), 5)}
        state = EmotionalState(felt, {e: self.rng.random() ** 3 for e in self.rng.sample(list(felt), 2)}, from_us(at))
        self.hot.run(calls.save_state(self.keys, state))
        self.model.save_state(state, at, self.now)

    def temper(self) -> None:
        rates = {e: self.rng.choice(RATES) for e in self.rng.sample(list(Emotion), 2)}
        absence = self.rng.choice((None, *POLICIES))
        text = "" if absence is None else absence_text(absence)
        self.hot.run(calls.set_temperament(self.keys, text, rates))
        self.model.set_temperament(rates, absence, self.now)

    def come(self) -> None:
        self.hot.run(calls.set_presence(self.keys, "here"))
        self.model.be(True, self.now)

    def go(self) -> None:
        self.hot.run(calls.set_presence(self.keys, "away"))
        self.model.be(False, self.now)

    def check(self) -> None:
        """What Python reads in the stored state is what the model feels."""
        ours = self.stored().at(self.now)
        assert ours == self.hot.run(calls.load_state(self.keys))
        assert_close(ours.emotions, self.model.feels(self.now))
        assert ours.decay_rates == self.model.rates

    def settle(self) -> None:
        """What the server works out itself, when it must add to all, is what Python expected of it."""
        expected = self.stored().at(self.now).emotions
        self.hot.run(calls.update_emotions(self.keys, NOTHING, "add"))
        self.model.change(NOTHING, "add", self.now, self.now)
        assert_close({e: felt.intensity for e, felt in self.stored().felt.items()}, expected)


def assert_close(ours: dict[Emotion, float], theirs: dict[Emotion, float]) -> None:
    for emotion in ours.keys() | theirs.keys():
        low, high = sorted((ours.get(emotion, 0.0), theirs.get(emotion, 0.0)))
        assert high - low <= 1e-9 or (low == 0.0 and high < FLOOR + 1e-9), emotion


@pytest.mark.parametrize("absence", POLICIES, ids=absence_text)
def test_python_and_the_server_agree_over_random_lives(hot: HotStore, absence: Absence) -> None:
    for seed in range(LIVES // len(POLICIES) + 1):
        life = Life(hot, random.Random(f"{absence}{seed}"))
        hot.run(calls.set_temperament(life.keys, absence_text(absence), {}))
        life.model.set_temperament({}, absence, life.now)
        for _ in range(STEPS):
            life.step()
            if life.rng.random() < 0.3:
                life.settle()
        life.settle()


@pytest.mark.parametrize(
    ("absence", "left"),
    [("wall", 0.0), ("active", 0.25), (Capped(1.0), 0.25), (Capped(2.0), 0.125), (Capped(0.5), 0.5 * 0.5**0.5)],
    ids=str,
)
def test_ten_years_away(hot: HotStore, absence: Absence, left: float) -> None:
    life = Life(hot, random.Random(0))
    hot.run(calls.set_temperament(life.keys, absence_text(absence), {Emotion.JOY: 0.5}))
    hot.run(calls.update_emotions(life.keys, {Emotion.JOY: 0.5}, "set"))
    if absence == "active":
        life.wait(1_000_000)
        hot.run(calls.set_presence(life.keys, "away"))
    life.wait(10 * YEAR)
    assert life.stored().at(life.now).emotions == pytest.approx({Emotion.JOY: left} if left else {}, abs=1e-12)
    hot.run(calls.set_presence(life.keys, "here"))
    back = hot.run(calls.update_emotions(life.keys, {Emotion.PITY: 1.0}, "set"))
    assert isinstance(back, EmotionalState)
    assert back.emotions == pytest.approx({Emotion.PITY: 1.0} | ({Emotion.JOY: left} if left else {}), abs=1e-12)


def test_presence_means_nothing_where_decay_always_runs(hot: HotStore) -> None:
    life = Life(hot, random.Random(0))
    for absence in ("wall", "capped:5"):
        hot.run(calls.set_temperament(life.keys, absence, {}))
        before: Any = hot.run(calls.state_hash(life.keys))
        assert hot.run(calls.set_presence(life.keys, "away")) is False
        assert hot.run(calls.set_presence(life.keys, "here")) is False
        assert hot.run(calls.state_hash(life.keys)) == before
