"""Random lives of a few agents, moved between the tiers at random, against a plain model of what they should be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from banshee_memory import (
    AgentSession,
    AsyncMemoryPlugin,
    Capped,
    CustomEvent,
    Emotion,
    EmotionalEventRecord,
    EmotionalState,
    MemoryPlugin,
    MemoryRecord,
    NewMessage,
)
from banshee_memory.emotions import Absence, StoredState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Call
from banshee_memory.stamps import from_us, to_us
from tests.clients import awaited
from tests.own_servers import CLOCK_KEY
from tests.tiering.comparing import check_event, check_memory, check_messages, check_session, close
from tests.tiering.model import FLOOR, Agent, Said
from tests.tiers import Tiers, by_the_library

T = TypeVar("T")
EMOTIONS = (Emotion.JOY, Emotion.FEAR, Emotion.LOVE, Emotion.PITY)
KINDS = ("fact", "goal", "scratch")
VOLATILE = "scratch"
KEYS = ("a", "b:c", "{17}")
WORDS = ("fox", "foxes", "hound", "hounds", "badger", "sleeps")
ROLES = ("user", "assistant", "tool")
STEPS_OF_TIME = (0, 1, 999, 500_000, 1_000_000, 60_000_000, 3_600_000_000)
DATA = (None, 0, 1.5, "one two", [1, {"a": None}], {"a": 1, "b": "ü🦊"})
EVENT = CustomEvent(event_type="happened", data={"n": 1})

agents = st.sampled_from((0, 0, 0, 0, 1, 2))
clients = st.integers(0, 1)
gaps = st.sampled_from((0, 1_000, 1_500, 2_000_000, 2_000_001, 86_400_000_000))
intensities = st.one_of(st.sampled_from((0.0, 1.0, 0.5, FLOOR)), st.floats(0, 1))
changes = st.dictionaries(st.sampled_from(EMOTIONS), intensities, max_size=3)
signed = st.dictionaries(st.sampled_from(EMOTIONS), st.floats(-1, 1), max_size=3)
rates = st.dictionaries(st.sampled_from(EMOTIONS), st.sampled_from((0.0, 1.0, 0.5, 1e-6)), max_size=2)
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
retries = st.sampled_from((False, False, False, True))
limits = st.sampled_from((1, 2, 3, 4, 6, 100))
absences = st.sampled_from((None, "wall", "active", "active", Capped(1.5), Capped(7_200)))
half_lives = st.dictionaries(st.sampled_from(EMOTIONS), st.sampled_from((0.5, 1.0, 3_600.0)), max_size=1)
own_rates = st.dictionaries(st.sampled_from(EMOTIONS), st.none() | st.sampled_from((0.0, 1.0, 0.5, 1e-6)), max_size=2)


class World(NamedTuple):
    """The two clients, both tiers to look behind them, and how many pages of memories came from which."""

    clients: tuple[MemoryPlugin, MemoryPlugin]
    tiers: Tiers
    pages: Counter[str]


@pytest.fixture(scope="module")
def world(own_urls: tuple[str, str], tiers: Tiers) -> Iterator[World]:
    redis, database = own_urls
    with MemoryPlugin(database, redis, settings=tiers.settings) as plugin, asyncio.Runner() as runner:
        twin = AsyncMemoryPlugin(database, redis, settings=tiers.settings)
        by_the_library(plugin._operations, twin._operations)
        yield World((plugin, awaited(twin, runner)), tiers, Counter())
        runner.run(twin.aclose())
    tiers.hot.run(Call(("DEL", CLOCK_KEY), int))


class Lives(RuleBasedStateMachine):
    """Each rule does something to an agent and to its model, or compares them."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.models = [Agent() for _ in range(3)]
        shared = uuid4().int & 0xFFFFFFFF
        # The first two share a shard, and so a log.
        self.ids = [UUID(int=uuid4().int >> 32 << 32 | shared) for _ in range(2)] + [uuid4()]
        self.now = to_us(datetime.now(UTC) - timedelta(days=30))
        self.wait(0)

    def client(self, number: int) -> MemoryPlugin:
        return self.world.clients[number]

    # --- time and tiers ---

    @rule(us=st.sampled_from(STEPS_OF_TIME))
    def wait(self, us: int) -> None:
        self.now += us
        self.world.tiers.hot.run(Call(("SET", CLOCK_KEY, self.now), bytes))

    @rule(a=agents, c=clients)
    def flush(self, a: int, c: int) -> None:
        self.client(c).flush(self.ids[a])

    @rule(c=clients)
    def flush_all(self, c: int) -> None:
        self.client(c).flush()

    @rule(a=agents, c=clients)
    def evict(self, a: int, c: int) -> None:
        assert self.client(c).evict(self.ids[a]).kept == 0
        self.models[a].leave()

    @rule(a=agents)
    def redis_evicts_by_itself(self, a: int) -> None:
        self.world.tiers.drop(self.ids[a])
        self.models[a].leave()

    @rule(a=agents, index=st.booleans(), kind=st.sampled_from(KINDS), key=st.sampled_from(KEYS))
    def redis_evicts_one(self, a: int, index: bool, kind: str, key: str) -> None:
        """One key of a clean memory, or the index that names it."""
        keys, memories = self.world.tiers.keys(self.ids[a]), self.models[a].memories
        # A volatile memory whose name goes first is there, and not listed.
        if index and not any(known.volatile for known in memories.values()):
            self.world.tiers.hot.run(calls.evict([keys.memories]))
        elif self.world.tiers.hot.run(calls.evict([keys.memory(f"{kind}:{key}")]))[0] and kind == VOLATILE:
            memories.pop((kind, key), None)

    @rule(a=agents, c=clients)
    def forget(self, a: int, c: int) -> None:
        """What it is from then on, it is from the beginning."""
        report = self.client(c).forget(self.ids[a])
        assert (report.left, report.agent_id) == (0, self.ids[a])
        self.models[a] = Agent()

    @rule(a=agents, c=clients)
    def rehydrate(self, a: int, c: int) -> None:
        self.client(c).rehydrate(self.ids[a])

    @rule(a=agents, c=clients)
    def leave_and_come_back(self, a: int, c: int) -> None:
        """What is stored of a state, values and times, is exactly the same afterwards."""
        before = self.stored_state(a)
        self.evict(a, c)
        self.client(c).rehydrate(self.ids[a])
        if before is not None:
            assert self.stored_state(a) == before

    def stored_state(self, a: int) -> StoredState | None:
        flat = self.world.tiers.hot.run(calls.state_hash(self.world.tiers.keys(self.ids[a])))
        return wire.state_of(flat)

    # --- emotions ---

    @rule(a=agents, c=clients, emotions=changes, own=rates, ago=gaps)
    def save_state(self, a: int, c: int, emotions: dict[Emotion, float], own: dict[Emotion, float], ago: int) -> None:
        state = EmotionalState(emotions, own, from_us(self.now - ago))
        self.client(c).emotions.save_state(self.ids[a], state)
        self.models[a].save_state(state, self.now - ago, self.now)

    @rule(a=agents, c=clients)
    def load_state(self, a: int, c: int) -> None:
        state = self.client(c).emotions.load_state(self.ids[a])
        model = self.models[a]
        if model.felt is None:
            assert state is None
        else:
            assert state is not None
            assert state.last_updated == from_us(self.now)
            assert state.decay_rates == model.rates
            assert close(state.emotions, model.feels(self.now))

    @rule(a=agents, c=clients, amounts=signed, key=retries)
    def add_emotions(self, a: int, c: int, amounts: dict[Emotion, float], key: bool) -> None:
        def add(client: MemoryPlugin, name: str | None) -> EmotionalState:
            return client.emotions.update_emotions(self.ids[a], amounts, idempotency_key=name)

        state = self.retried(a, c, key, add)
        self.models[a].change(amounts, "add", self.now, self.now)
        assert close(state.emotions, self.models[a].feels(self.now))

    def retried(self, a: int, c: int, key: bool, call: Callable[[MemoryPlugin, str | None], T]) -> T:
        """The result of a call; with a key it is made again, elsewhere and after the agent has left: the same."""
        name = uuid4().hex if key else None
        result = call(self.client(c), name)
        if key:
            self.evict(a, c)
            assert call(self.client(1 - c), name) == result
        return result

    @rule(a=agents, c=clients, own=own_rates, halves=half_lives, absence=absences)
    def set_temperament(
        self, a: int, c: int, own: dict[Emotion, float | None], halves: dict[Emotion, float], absence: Absence | None
    ) -> None:
        state = self.client(c).emotions.set_temperament(
            self.ids[a], decay_rates=own, half_lives=halves, absence=absence
        )
        rates = {**own, **{e: 1.0 - 0.5 ** (1.0 / seconds) for e, seconds in halves.items()}}
        self.models[a].set_temperament(rates, absence, self.now)
        assert state.decay_rates == self.models[a].rates
        assert close(state.emotions, self.models[a].feels(self.now))

    @rule(a=agents, c=clients, amounts=changes)
    def set_emotions(self, a: int, c: int, amounts: dict[Emotion, float]) -> None:
        state = self.client(c).emotions.update_emotions(self.ids[a], amounts, mode="set")
        self.models[a].change(amounts, "set", self.now, self.now)
        assert close(state.emotions, self.models[a].feels(self.now))

    @rule(
        a=agents,
        c=clients,
        named=changes,
        mode=st.sampled_from(("set", "add", "record")),
        ago=gaps,
        key=retries,
        tagged=st.booleans(),
    )
    def save_event(
        self, a: int, c: int, named: dict[Emotion, float], mode: Any, ago: int, key: bool, tagged: bool
    ) -> None:
        session = self.a_session(a) if tagged else None
        occurred = from_us(self.now - ago) if ago else None

        def save(client: MemoryPlugin, name: str | None) -> EmotionalEventRecord:
            return client.emotions.save_event(
                self.ids[a],
                EVENT,
                named,
                mode=mode,
                occurred_at=occurred,
                session_id=session,
                idempotency_key=name,
            )

        record = self.retried(a, c, key, save)
        assert occurred in (None, record.occurred_at)
        place = to_us(record.occurred_at)
        model = self.models[a].happen(EVENT, named, mode, self.now - ago, place, self.now, session)
        check_event(record, model)

    @rule(a=agents, c=clients, limit=limits)
    def event_history(self, a: int, c: int, limit: int) -> None:
        records = self.client(c).emotions.get_event_history(self.ids[a], limit)
        models = self.models[a].event_history()[::-1][:limit]
        for record, model in zip(records, models, strict=True):
            check_event(record, model)

    @rule(a=agents, c=clients)
    def trends(self, a: int, c: int) -> None:
        points = self.client(c).emotions.get_emotional_trends(self.ids[a], hours=12)
        models = [m for m in self.models[a].event_history() if m.at >= self.now - 12 * 3_600_000_000]
        assert [to_us(point.at) for point in points] == [model.at for model in models]

    # --- conversations ---

    @rule(
        a=agents,
        c=clients,
        said=st.lists(
            st.tuples(contents, st.sampled_from(ROLES), st.none() | st.integers(0, 9), st.booleans(), gaps),
            min_size=1,
            max_size=6,
        ),
        key=retries,
        tagged=st.booleans(),
    )
    def save_messages(
        self, a: int, c: int, said: list[tuple[str, str, int | None, bool, int]], key: bool, tagged: bool
    ) -> None:
        session = self.a_session(a) if tagged else None
        batch = [
            NewMessage(
                role=role,
                content=content,
                tokens_used=tokens,
                metadata={"n": tokens},
                emotional_context="current" if felt else None,
                session_id=session,
                created_at=from_us(self.now - ago) if ago else None,
            )
            for content, role, tokens, felt, ago in said
        ]

        def save(client: MemoryPlugin, name: str | None) -> list[UUID]:
            return client.conversations.save_messages(self.ids[a], batch, idempotency_key=name)

        ids = self.retried(a, c, key, save)
        feels = {e.value: i for e, i in self.models[a].feels(self.now).items()}
        for message, (content, role, tokens, felt, ago) in zip(ids, said, strict=True):
            at = self.now - ago if ago else (message.int >> 80) * 1_000
            context = feels if felt else None
            self.models[a].say(Said(at, 0, message, role, content, {"n": tokens}, tokens, context, session))

    @precondition(lambda self: any(model.messages for model in self.models))
    @rule(a=agents, c=clients, context=st.sampled_from((None, {}, {"joy": 0.25})), data=st.data())
    def amend(self, a: int, c: int, context: dict[str, float] | None, data: st.DataObject) -> None:
        """What was felt at a message, told afterwards."""
        assert self.client(c).conversations.update_emotional_context(self.ids[a], uuid4(), context) is False
        if every := self.models[a].history():
            message = every[data.draw(st.integers(0, len(every) - 1))]
            assert self.client(c).conversations.update_emotional_context(self.ids[a], message.id, context) is True
            message.context = context

    @rule(a=agents, c=clients, limit=limits)
    def history(self, a: int, c: int, limit: int) -> None:
        read = self.client(c).conversations.get_history(self.ids[a], limit)
        check_messages(read, self.models[a].history()[-limit:])

    @precondition(lambda self: any(model.messages for model in self.models))
    @rule(a=agents, c=clients, limit=limits, data=st.data())
    def history_before(self, a: int, c: int, limit: int, data: st.DataObject) -> None:
        every = self.models[a].history()
        if every:
            index = data.draw(st.integers(0, len(every) - 1))
            read = self.client(c).conversations.get_history(self.ids[a], limit, before=every[index].id)
            check_messages(read, every[:index][-limit:])

    @rule(a=agents, c=clients, sought=st.sampled_from(("fox", "hound", "badger")), without=st.booleans(), limit=limits)
    def search(self, a: int, c: int, sought: str, without: bool, limit: int) -> None:
        query = f"{sought} -sleeps" if without else sought
        found = self.client(c).conversations.search_messages(self.ids[a], query, limit)
        matching = {
            m.id
            for m in self.models[a].messages
            if sought in m.words and not (without and m.words & {"sleeps", "sleep"})
        }
        assert len(found) == min(limit, len(matching))
        assert {m.id for m in found} <= matching

    @rule(a=agents, c=clients)
    def totals(self, a: int, c: int) -> None:
        stats, model = self.client(c).conversations.get_conversation_stats(self.ids[a]), self.models[a]
        roles = model.roles()
        assert stats.total_messages == len(model.messages)
        assert {role: stats.by_role[role] for role in ROLES} == {role: roles[role] for role in ROLES}
        assert stats.total_tokens == sum(m.tokens or 0 for m in model.messages)
        times = [from_us(m.at) for m in model.history()]
        assert (stats.first_message, stats.last_message) == ((times[0], times[-1]) if times else (None, None))

    # --- sessions ---

    def a_session(self, a: int) -> UUID | None:
        """The first of its sessions, ended or not."""
        return self.models[a].sessions[0].id if self.models[a].sessions else None

    @rule(a=agents, c=clients, metadata=st.sampled_from(DATA), key=retries)
    def start_session(self, a: int, c: int, metadata: Any, key: bool) -> None:
        def start(client: MemoryPlugin, name: str | None) -> AgentSession:
            return client.sessions.start_session(self.ids[a], metadata, idempotency_key=name)

        session = self.retried(a, c, key, start)
        check_session(session, self.models[a].begin(session.id, metadata, self.now))

    @precondition(lambda self: any(model.sessions for model in self.models))
    @rule(a=agents, c=clients, data=st.data())
    def end_session(self, a: int, c: int, data: st.DataObject) -> None:
        if every := self.models[a].sessions:
            model = every[data.draw(st.integers(0, len(every) - 1))]
            session = self.client(c).sessions.end_session(self.ids[a], model.id)
            self.models[a].finish(model, self.now)
            check_session(session, model)

    @rule(a=agents, c=clients, limit=limits)
    def sessions(self, a: int, c: int, limit: int) -> None:
        read = self.client(c).sessions.get_sessions(self.ids[a], limit)
        for session, model in zip(read, self.models[a].newest_sessions()[:limit], strict=True):
            check_session(session, model)

    # --- memories ---

    @rule(
        a=agents,
        c=clients,
        kind=st.sampled_from(KINDS),
        key=st.sampled_from(KEYS),
        data=st.sampled_from(DATA),
        ttl=st.sampled_from((None, 0.5, 1, 60, 3600)),
        importance=st.sampled_from((None, 0.25, 0.5)),
        tags=st.sampled_from(((), ("t", "ü"))),
        retry=retries,
    )
    def store(
        self, a: int, c: int, kind: str, key: str, data: Any, ttl: float | None, importance: Any, tags: Any, retry: bool
    ) -> None:
        volatile = kind == VOLATILE
        if volatile and (ttl is None or ttl < 60):  # how long Redis has it is by the server's own clock
            ttl = None

        def store(client: MemoryPlugin, name: str | None) -> MemoryRecord:
            return client.memories.store_memory(
                self.ids[a], kind, key, data, ttl, importance=importance, tags=tags, idempotency_key=name
            )

        record = self.retried(a, c, retry and not volatile, store)
        lives = self.world.tiers.settings.hot_ttl if volatile and ttl is None else ttl
        model = self.models[a].store((kind, key), data, lives, importance, tags, self.now, volatile=volatile)
        check_memory(record, kind, key, model)

    @rule(a=agents, c=clients, kind=st.sampled_from(KINDS), key=st.sampled_from(KEYS))
    def get(self, a: int, c: int, kind: str, key: str) -> None:
        record = self.client(c).memories.get_memory(self.ids[a], kind, key)
        check_memory(record, kind, key, self.models[a].living((kind, key), self.now))

    @rule(a=agents, c=clients, kind=st.sampled_from(KINDS), key=st.sampled_from(KEYS))
    def retrieve(self, a: int, c: int, kind: str, key: str) -> None:
        data = self.client(c).memories.retrieve_memory(self.ids[a], kind, key)
        model = self.models[a].living((kind, key), self.now)
        assert data == (model.data if model else None)
        if model:
            model.count, model.accessed = model.count + 1, self.now

    @rule(a=agents, c=clients, kind=st.sampled_from(KINDS), key=st.sampled_from(KEYS))
    def delete(self, a: int, c: int, kind: str, key: str) -> None:
        deleted = self.client(c).memories.delete_memory(self.ids[a], kind, key)
        model = self.models[a]
        assert deleted is (model.living((kind, key), self.now) is not None)
        model.memories.pop((kind, key), None)

    @rule(
        a=agents,
        c=clients,
        kind=st.sampled_from((*KINDS, None)),
        limit=limits,
        offset=st.sampled_from((0, 1, 2)),
        again=st.booleans(),
    )
    def page(self, a: int, c: int, kind: str | None, limit: int, offset: int, again: bool = False) -> None:
        counters = self.client(c)._operations.residency.counters
        for _ in range(1 + again):
            before = counters.hits
            records = self.client(c).memories.get_memories_by_type(self.ids[a], kind, limit, offset)
            self.world.pages["hot" if counters.hits > before else "cold"] += 1
            models = self.models[a].page(kind, self.now)[offset : offset + limit]
            assert [(record.memory_type, record.key) for record in records] == [name for name, _ in models]
            for record, (name, model) in zip(records, models, strict=True):
                check_memory(record, *name, model)

    def teardown(self) -> None:
        for a in range(3):
            self.compare(a)
            self.evict(a, 0)
            self.compare(a)

    def compare(self, a: int) -> None:
        """All of an agent, at the end of its life."""
        self.load_state(a, 0)
        self.history(a, 0, 100)
        self.event_history(a, 0, 100)
        self.totals(a, 0)
        self.sessions(a, 0, 100)
        for kind in (*KINDS, None):
            self.page(a, 0, kind, 100, 0)


def lives(world: World) -> type[RuleBasedStateMachine]:
    """The machine as hypothesis calls it, without arguments."""
    return cast("type[RuleBasedStateMachine]", partial(Lives, world))


COMMON = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=True)


def test_no_difference_from_the_model(world: World) -> None:
    chosen = settings(COMMON, max_examples=40, stateful_step_count=30, derandomize=True, phases=[Phase.generate])
    run_state_machine_as_test(lives(world), settings=chosen)
    assert min(world.pages["hot"], world.pages["cold"]) > 40


@pytest.mark.soak
def test_no_difference_from_the_model_for_a_long_time(world: World) -> None:
    chosen = settings(COMMON, max_examples=2_000, stateful_step_count=50)
    run_state_machine_as_test(lives(world), settings=chosen)
