"""`emotions.set_temperament`, on both clients, wherever the agent's records are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import Capped, CustomEvent, Emotion, EmotionalState, InvalidInput, MemoryPlugin
from banshee_memory.cold.reads import Query
from banshee_memory.emotions import Absence, StoredState
from banshee_memory.errors import ColdStoreUnavailable
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Call
from banshee_memory.stamps import from_us
from banshee_memory.tiering.steps import Steps, relayed
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers, nothing

NOW = 1_700_000_000_000_000
TEN_YEARS = 315_576_000_000_000
POLICIES: tuple[Absence, ...] = ("wall", "active", Capped(1.5))
LEFT = {"wall": 0.0, "active": 0.5, Capped(1.5): 0.5 * 0.5**1.5}


def test_an_agent_has_rates_of_its_own(memory: MemoryPlugin, agent: UUID) -> None:
    rates = {Emotion.JOY: 0.0, Emotion.HATE: 0.0, Emotion.FEAR: 1.0}
    assert memory.emotions.set_temperament(agent, decay_rates=rates).decay_rates == rates
    memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5, Emotion.HATE: 0.25})
    state = memory.emotions.set_temperament(agent, decay_rates={Emotion.FEAR: None}, half_lives={Emotion.LOVE: 1.0})
    assert state.decay_rates == {Emotion.JOY: 0.0, Emotion.HATE: 0.0, Emotion.LOVE: 0.5}
    assert state.emotions == {Emotion.JOY: 0.5, Emotion.HATE: 0.25}
    assert memory.emotions.set_temperament(agent, decay_rates={Emotion.LOVE: Emotion.LOVE.rate}).decay_rates == {
        Emotion.JOY: 0.0,
        Emotion.HATE: 0.0,
    }
    loaded = memory.emotions.load_state(agent)
    assert loaded is not None
    assert (loaded.emotions, loaded.decay_rates) == (
        {Emotion.JOY: 0.5, Emotion.HATE: 0.25},
        {Emotion.JOY: 0.0, Emotion.HATE: 0.0},
    )


def test_an_active_agent_that_is_away_feels_what_it_felt(memory: MemoryPlugin, agent: UUID) -> None:
    memory.emotions.set_temperament(agent, absence="active")
    session = memory.sessions.start_session(agent)
    memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    ended = memory.sessions.end_session(agent, session.id)
    assert ended.final_emotional_state is not None
    for _ in range(2):
        state = memory.emotions.load_state(agent)
        assert state is not None
        assert state.emotions == ended.final_emotional_state
    again = memory.sessions.start_session(agent)
    assert again.initial_emotional_state == pytest.approx(ended.final_emotional_state, abs=1e-2)


@pytest.mark.parametrize(
    "bad",
    [
        {"absence": "sometimes"},
        {"absence": ""},
        {"absence": Capped(0)},
        {"absence": Capped(float("nan"))},
        {"absence": Capped(float("inf"))},
        {"absence": Capped("5")},  # type: ignore[arg-type]
        {"decay_rates": {Emotion.JOY: 1.5}},
        {"decay_rates": {Emotion.JOY: float("nan")}},
        {"decay_rates": {"glee": 0.5}},
        {"decay_rates": [Emotion.JOY]},
        {"half_lives": {Emotion.JOY: 0}},
        {"half_lives": {Emotion.JOY: -1}},
        {"half_lives": {Emotion.JOY: None}},
    ],
    ids=str,
)
def test_what_is_refused_changes_nothing(client: MemoryPlugin, agent: UUID, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        client.emotions.set_temperament(agent, **bad)
    assert client.emotions.load_state(agent) is None


# --- by a clock that stands ---


@pytest.fixture
def still(timed: Tiers) -> Iterator[Tiers]:
    """Both tiers, with a clock that tests move, beside the clients of them."""
    at(timed, NOW)
    yield timed
    timed.between = nothing


Either = Tiers | MemoryPlugin


def at(tiers: Tiers, us: int) -> None:
    tiers.hot.run(Call(("SET", CLOCK_KEY, us), bytes))


def stored(tiers: Tiers, agent: UUID) -> StoredState | None:
    flat = tiers.hot.run(calls.state_hash(tiers.keys(agent)))
    return wire.state_of(flat)


def away(tiers: Either, agent: UUID, absence: Absence) -> None:
    """An agent that felt joy when it went."""
    tiers.emotions.set_temperament(agent, absence=absence, decay_rates={Emotion.JOY: 0.5})
    session = tiers.sessions.start_session(agent)
    tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
    tiers.sessions.end_session(agent, session.id)


def felt(tiers: Either, agent: UUID) -> float:
    state = tiers.emotions.load_state(agent)
    assert state is not None
    return state.emotions.get(Emotion.JOY, 0.0)


@pytest.mark.parametrize("absence", POLICIES, ids=str)
def test_ten_years_away(still: Tiers, timed_memory: MemoryPlugin, agent: UUID, absence: Absence) -> None:
    away(timed_memory, agent, absence)
    at(still, NOW + TEN_YEARS)
    assert felt(timed_memory, agent) == pytest.approx(LEFT[absence], abs=1e-9)
    session = timed_memory.sessions.start_session(agent)
    assert session.initial_emotional_state.get(Emotion.JOY, 0.0) == pytest.approx(LEFT[absence], abs=1e-9)
    at(still, NOW + TEN_YEARS + 1_000_000)
    half = {"wall": 0.0, "active": 0.25, Capped(1.5): LEFT[absence]}[absence]
    assert felt(timed_memory, agent) == pytest.approx(half, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_leaving_and_coming_back_at_any_moment_changes_nothing(
    still: Tiers, timed_client: MemoryPlugin, seed: int
) -> None:
    """Of two agents with one life, one leaves Redis and comes back between every two moments of it."""
    rng, now = random.Random(seed), NOW
    stays, leaves = uuid4(), uuid4()
    sessions: list[tuple[UUID, UUID]] = []
    for _ in range(12):
        now += rng.choice((0, 1, 1_000_000, 3_600_000_000, TEN_YEARS // 12))
        at(still, now)
        pick = rng.random()
        for agent in (stays, leaves):
            deed(timed_client, agent, random.Random(pick), now, sessions)
            if agent == leaves:
                assert timed_client.evict(agent).kept == 0
                timed_client.rehydrate(agent)
        assert unstamped(stored(still, leaves)) == unstamped(stored(still, stays))
        assert timed_client.emotions.load_state(leaves) == timed_client.emotions.load_state(stays)


def deed(tiers: Either, agent: UUID, rng: random.Random, now: int, sessions: list[tuple[UUID, UUID]]) -> None:
    some = {e: rng.random() for e in rng.sample(list(Emotion), 3)}
    match rng.randrange(6):
        case 0:
            tiers.emotions.set_temperament(agent, absence=rng.choice(POLICIES), decay_rates=dict(some))
        case 1:
            ago = rng.choice((0, 1, 2_000_000))
            tiers.emotions.save_state(agent, EmotionalState(some, {Emotion.JOY: 0.001}, from_us(now - ago)))
        case 2:
            tiers.emotions.save_event(
                agent, CustomEvent(event_type="x"), some, mode=rng.choice(("set", "add", "record"))
            )
        case 3:
            sessions.append((agent, tiers.sessions.start_session(agent).id))
        case 4:
            for owner, session in sessions:
                if owner == agent:
                    tiers.sessions.end_session(agent, session)
        case _:
            tiers.emotions.update_emotions(agent, some)


def unstamped(state: StoredState | None) -> tuple[Any, ...] | None:
    if state is None:
        return None
    return state.felt, state.rates, state.updated_us, state.absence, state.paused_us, state.away_us


def without_postgresql(steps: Steps[Any]) -> Steps[Any]:
    """The same steps, as if PostgreSQL did not answer."""

    def answer(step: Any) -> Steps[Any]:
        if isinstance(step, Query):
            raise ColdStoreUnavailable("away")
        return (yield step)

    return relayed(steps, answer)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1e-6, 1.0])
def test_what_is_felt_fades_by_the_clock_alone(
    still: Tiers, timed_memory: MemoryPlugin, agent: UUID, rate: float
) -> None:
    timed_memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.75}, {Emotion.JOY: rate}, from_us(NOW)))
    for us in (0, 1, 1_500_000, 3_600_000_000, TEN_YEARS):
        at(still, NOW + us)
        left = 0.75 * (1.0 - rate) ** (us / 1e6)
        assert felt(timed_memory, agent) == pytest.approx(left if left >= 0.01 else 0.0, abs=1e-9)


@pytest.mark.parametrize("absence", POLICIES, ids=str)
def test_a_state_saved_while_postgresql_is_away_keeps_the_policy(still: Tiers, agent: UUID, absence: Absence) -> None:
    still.emotions.set_temperament(agent, absence=absence)
    still.evict(agent)
    saved = EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.5}, from_us(NOW))
    still.between = without_postgresql
    still.emotions.save_state(agent, saved)
    still.emotions.save_state(agent, saved)
    assert felt(still, agent) == 0.5
    still.between = nothing
    still.evict(agent)
    still.rehydrate(agent)
    back = stored(still, agent)
    assert back is not None
    assert back.absence == {"wall": "wall", "active": "active", Capped(1.5): "capped:1.5"}[absence]
    session = still.sessions.start_session(agent)
    still.emotions.save_state(agent, saved)
    still.sessions.end_session(agent, session.id)
    at(still, NOW + TEN_YEARS)
    assert felt(still, agent) == pytest.approx(LEFT[absence], abs=1e-9)


def test_a_policy_set_after_such_a_save_is_the_policy(still: Tiers, agent: UUID) -> None:
    still.emotions.set_temperament(agent, absence="active")
    still.evict(agent)
    still.between = without_postgresql
    still.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.5}, from_us(NOW)))
    still.emotions.set_temperament(agent, absence=Capped(1.5))
    still.between = nothing
    at(still, NOW + TEN_YEARS)
    assert felt(still, agent) == pytest.approx(LEFT[Capped(1.5)], abs=1e-9)
    still.evict(agent)
    assert felt(still, agent) == pytest.approx(LEFT[Capped(1.5)], abs=1e-9)
