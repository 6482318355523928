"""What was felt at any moment gone by, and which events made it so: against the answers that were given then."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from banshee_memory import (
    Capped,
    CustomEvent,
    Emotion,
    EmotionalEventRecord,
    EmotionalState,
    Explanation,
    InvalidInput,
    MemoryPlugin,
)
from banshee_memory.emotions import Absence
from banshee_memory.hot.calls import Call
from banshee_memory.stamps import from_us
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers

SECOND = 1_000_000
AHEAD = 10
"""By how many seconds our clock leads the server's, which stamps go by once it has overtaken ours."""
JOY, FEAR, LOVE = Emotion.JOY, Emotion.FEAR, Emotion.LOVE
STEADY = dict.fromkeys(Emotion, 0.0)


def happens(name: str = "x") -> CustomEvent:
    return CustomEvent(event_type=name)


class Life:
    """An agent whose clock is in our hands, and what it said it felt at each moment at which it was asked."""

    def __init__(self, tiers: Tiers, memory: MemoryPlugin, agent: UUID) -> None:
        self.tiers, self.agent = tiers, agent
        self.emotions, self.sessions = memory.emotions, memory.sessions
        self.told: list[tuple[int, dict[Emotion, float]]] = []
        self.log = tiers.keys(agent).log
        self.begin()
        self.wait(0)

    def begin(self) -> None:
        """A log whose stamps begin now, where the life before this one may have moved it on."""
        self.tiers.flush()
        self.ask("DEL", self.log)
        self.ask("XADD", self.log, "0-1", "k", "")
        self.ask("XDEL", self.log, "0-1")
        seconds, microseconds = map(int, self.ask("TIME"))
        self.start = self.now = (seconds + AHEAD) * SECOND + microseconds

    def ask(self, *command: str | int) -> Any:
        return self.tiers.hot.run(Call(command, lambda reply: reply))

    def wait(self, seconds: float) -> None:
        """Time goes on, for stamps too. By less than a minute a life: what lies further in the future is refused."""
        self.now += int(seconds * SECOND)
        self.ask("SET", CLOCK_KEY, self.now)
        self.ask("XSETID", self.log, f"{self.now // 1_000}-0")

    def tell(self) -> None:
        state = self.emotions.load_state(self.agent)
        self.told.append((self.now, state.emotions if state else {}))

    def event(self, amounts: dict[Emotion, float], **how: object) -> EmotionalEventRecord:
        return self.emotions.save_event(self.agent, happens(), amounts, **how)  # type: ignore[arg-type]

    def why(self, emotion: Emotion, at_us: int | None = None) -> Explanation:
        return self.emotions.why(self.agent, emotion, None if at_us is None else from_us(at_us))


@pytest.fixture
def life(timed: Tiers, timed_memory: MemoryPlugin, agent: UUID) -> Life:
    return Life(timed, timed_memory, agent)


def remains(account: Explanation) -> dict[UUID, float]:
    total = sum(part.remaining for part in account.contributions) + account.unexplained
    assert total == pytest.approx(account.intensity, abs=1e-9)
    return {part.event.id: part.remaining for part in account.contributions}


@pytest.mark.parametrize("absence", ["wall", Capped(2.5)], ids=["wall", "capped"])
def test_every_moment_of_a_life_of_events_is_known_exactly(life: Life, absence: Absence) -> None:
    chance = random.Random(7)
    life.emotions.set_temperament(life.agent, decay_rates={JOY: 0.2, LOVE: 0.0}, absence=absence)
    for _ in range(8):
        mode = chance.choice(["add", "set", "record"])
        ago = chance.choice([0, 0, 1.5])
        amounts = {e: chance.uniform(-0.4 if mode == "add" else 0.0, 0.9) for e in chance.sample([JOY, FEAR, LOVE], 2)}
        life.event(amounts, mode=mode, occurred_at=from_us(life.now - int(ago * SECOND)))
        life.tell()
        life.wait(chance.uniform(0.01, 3.0))
        life.tell()
        life.wait(0.002)
    for at, felt in life.told:
        state = life.emotions.state_at(life.agent, from_us(at))
        assert state is not None
        assert state.exact, at
        assert state.last_updated == from_us(at)
        assert state.emotions == pytest.approx(felt, abs=1e-9)
        for emotion in (JOY, FEAR, LOVE):
            account = life.why(emotion, at)
            remains(account)
            assert account.intensity == pytest.approx(felt.get(emotion, 0.0), abs=1e-9)
            assert account.unexplained == 0.0


def test_nothing_is_known_of_the_time_before_the_first_write(life: Life) -> None:
    assert life.emotions.state_at(life.agent, from_us(life.start)) is None
    life.wait(5)
    life.event({JOY: 0.5})
    assert life.emotions.state_at(life.agent, from_us(life.start)) is None
    assert life.why(JOY, life.start).contributions == ()


def test_what_an_update_changed_is_owned_up_to(life: Life) -> None:
    life.emotions.save_state(life.agent, EmotionalState({}, STEADY, from_us(life.start)))
    life.wait(1)
    first = life.event({JOY: 0.25}, mode="add")
    life.wait(1)
    life.emotions.update_emotions(life.agent, {JOY: 0.125})
    life.wait(1)
    second = life.event({JOY: 0.5}, mode="add")
    life.wait(1)
    life.tell()

    account = life.why(JOY)
    assert remains(account) == {first.id: 0.25, second.id: 0.5}
    assert account.unexplained == 0.125
    assert account.exact
    # Before and after the update it is known; where another may have come between the first event and it, it is said.
    moments = [life.start + offset for offset in (SECOND, 2 * SECOND - 1_000, 2 * SECOND, 3 * SECOND)]
    known = [life.emotions.state_at(life.agent, from_us(at)) for at in moments]
    assert [state and (state.emotions[JOY], state.exact) for state in known] == [
        (0.25, False),
        (0.25, False),
        (0.375, True),
        (0.875, True),
    ]


def test_what_follows_the_last_event_is_told_by_the_state_itself(life: Life) -> None:
    life.event({JOY: 0.5, FEAR: 0.5})
    life.wait(3)
    life.emotions.update_emotions(life.agent, {FEAR: 0.0}, mode="set")
    life.wait(1)
    life.tell()
    at, felt = life.told[-1]
    state = life.emotions.state_at(life.agent, from_us(at))
    assert state is not None
    assert state.exact
    assert state.emotions == pytest.approx(felt, abs=1e-9)
    account = life.why(JOY)
    assert (len(account.contributions), account.unexplained) == (1, 0.0)
    assert life.why(FEAR).contributions == ()


def test_a_set_and_a_feeling_that_was_gone_end_the_account(life: Life) -> None:
    life.emotions.save_state(life.agent, EmotionalState({}, {LOVE: 0.0, JOY: 0.9}, from_us(life.start)))
    life.event({JOY: 0.9, LOVE: 0.5}, mode="add")
    life.wait(3)  # joy is gone, love is not
    joyful = life.event({JOY: 0.25}, mode="add")
    setting = life.event({LOVE: 0.75}, mode="set")
    spoilt = life.event({LOVE: -0.5}, mode="add")
    assert remains(life.why(JOY)) == {joyful.id: 0.25}
    assert remains(life.why(LOVE)) == {setting.id: 0.75, spoilt.id: -0.5}
    assert [part.event.id for part in life.why(LOVE).contributions] == [setting.id, spoilt.id]


def test_what_does_not_fit_into_the_most_that_can_be_felt_does_not_count(life: Life) -> None:
    life.emotions.save_state(life.agent, EmotionalState({}, STEADY, from_us(life.start)))
    first, second = life.event({JOY: 0.75}, mode="add"), life.event({JOY: 0.75}, mode="add")
    assert remains(life.why(JOY)) == {first.id: 0.75, second.id: 0.25}


def test_a_late_event_counts_from_when_it_was_told(life: Life) -> None:
    life.wait(20)
    early = life.event({LOVE: 0.5}, mode="add")
    life.wait(10)
    late = life.event({FEAR: 0.5}, mode="add", occurred_at=from_us(life.now - 3 * SECOND))
    life.wait(10)
    life.event({LOVE: 0.01}, mode="add")
    then = life.emotions.state_at(life.agent, from_us(life.now - 12 * SECOND))
    assert then is not None
    assert (set(then.emotions), then.exact) == ({LOVE}, True)
    afterwards = life.emotions.state_at(life.agent, late.created_at)
    assert afterwards is not None
    assert set(afterwards.emotions) == {LOVE, FEAR}
    assert early.id in remains(life.why(LOVE))


def test_an_agent_that_was_away_stood_still(life: Life) -> None:
    life.emotions.set_temperament(life.agent, decay_rates={JOY: 0.5}, absence="active")
    sessions = life.sessions
    first = sessions.start_session(life.agent)
    gift = life.event({JOY: 0.8})
    life.wait(1)
    sessions.end_session(life.agent, first.id)
    life.wait(9)
    life.tell()
    life.wait(0.01)
    sessions.start_session(life.agent)
    life.wait(1)
    life.event({JOY: 0.1}, mode="add")
    life.wait(1)
    at, felt = life.told[0]
    state = life.emotions.state_at(life.agent, from_us(at))
    assert felt == {JOY: pytest.approx(0.4)}
    assert state is not None
    assert not state.exact
    assert state.emotions == pytest.approx(felt, abs=1e-9)
    account = life.why(JOY)
    assert remains(account)[gift.id] == pytest.approx(0.1, abs=0.002)
    assert account.unexplained == 0.0
    assert life.why(JOY, at).intensity == pytest.approx(0.4, abs=1e-9)


def test_an_account_goes_back_over_many_pages_of_other_events(
    timed: Tiers, timed_client: MemoryPlugin, agent: UUID
) -> None:
    life = Life(timed, timed_client, agent)
    life.emotions.save_state(agent, EmotionalState({}, STEADY, from_us(life.start)))
    first = life.event({JOY: 0.25}, mode="add")
    for number in range(260):
        life.wait(0.01)
        life.event({FEAR: 0.001}, mode="add", occurred_at=from_us(life.now - (number % 2) * SECOND))
    timed_client.evict(agent)
    last = life.event({JOY: 0.25}, mode="add")
    assert remains(life.why(JOY)) == {first.id: 0.25, last.id: 0.25}
    assert len(life.why(FEAR).contributions) == 0  # none of them reached what counts


# --- on both clients, wherever the records are ---


def test_state_at_is_what_the_last_event_left(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.emotions.state_at(agent, datetime.now(UTC)) is None
    memory.emotions.save_state(agent, EmotionalState({}, STEADY))
    first = memory.emotions.save_event(agent, happens(), {JOY: 0.25})
    second = memory.emotions.save_event(agent, happens(), {JOY: 0.5}, mode="add")
    at_first, at_second = (memory.emotions.state_at(agent, e.created_at) for e in (first, second))
    if first.created_at != second.created_at:
        assert at_first is not None
        assert (at_first.emotions, at_first.exact) == ({JOY: 0.25}, True)
    assert at_second is not None
    assert (at_second.emotions, at_second.exact) == ({JOY: 0.75}, True)
    assert at_second.decay_rates == STEADY


def test_why_names_the_events(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.emotions.why(agent, JOY).intensity == 0.0
    memory.emotions.save_state(agent, EmotionalState({FEAR: 0.5}, STEADY))
    first = memory.emotions.save_event(agent, happens("praise"), {JOY: 0.25}, mode="add")
    memory.emotions.save_event(agent, happens("noise"), {FEAR: 0.125}, mode="add")
    second = memory.emotions.save_event(agent, happens("gift"), {JOY: 0.5}, mode="add")
    account = memory.emotions.why(agent, JOY)
    assert [(p.event, p.change, p.remaining) for p in account.contributions] == [
        (second, 0.5, 0.5),
        (first, 0.25, 0.25),
    ]
    assert (account.agent_id, account.emotion, account.intensity) == (agent, JOY, 0.75)
    assert (account.unexplained, account.exact) == (0.0, True)
    fear = memory.emotions.why(agent, FEAR)
    assert (len(fear.contributions), fear.unexplained) == (1, 0.5)


def test_the_future_and_what_is_no_emotion_are_refused(client: MemoryPlugin, agent: UUID) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    for call in (
        lambda: client.emotions.state_at(agent, soon),
        lambda: client.emotions.why(agent, JOY, soon),
        lambda: client.emotions.why(agent, "boredom"),  # type: ignore[arg-type]
        lambda: client.emotions.state_at(agent, datetime(2026, 1, 1)),  # noqa: DTZ001
    ):
        with pytest.raises(InvalidInput):
            call()
