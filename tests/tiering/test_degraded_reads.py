"""While Redis is away reads are answered by PostgreSQL where that is allowed, and it is told; writes are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory import (
    AsyncMemoryPlugin,
    ColdStoreUnavailable,
    CustomEvent,
    Emotion,
    EmotionalState,
    HotStoreUnavailable,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.hot import calls
from banshee_memory.hot.keys import agent_keys
from banshee_memory.tiering.degraded import without_redis
from tests.clients import awaited
from tests.own_servers import own_database
from tests.proxy import Proxy, proxied
from tests.redis_servers import Redises, RedisServer, redises

SETTINGS = Settings(shards=2, message_cap=5, degraded_reads=True)
STEADY = EmotionalState({Emotion.LOVE: 0.5}, {Emotion.LOVE: 0.0})


class World(NamedTuple):
    """Servers, and an agent whose life PostgreSQL knows."""

    redis: RedisServer
    urls: tuple[str, str]
    proxy: Proxy
    agent: UUID


@pytest.fixture(scope="module")
def world(redis_url: str, database_url: str) -> Iterator[World]:
    with (
        redises(redis_url) as every,
        own_database(database_url, SETTINGS) as database,
        proxied(database) as proxy,
        MemoryPlugin(database, _front(every), settings=SETTINGS) as memory,
    ):
        agent = uuid4()
        memory.emotions.save_state(agent, STEADY)
        said = [NewMessage(role="user", content=f"fox {n}", tokens_used=1) for n in range(8)]
        memory.conversations.save_messages(agent, said)
        memory.emotions.save_event(agent, CustomEvent(event_type="x"), {Emotion.LOVE: 0.25}, mode="add")
        memory.memories.store_memory(agent, "fact", "x", {"a": 1})
        memory.memories.store_memory(agent, "fact", "over", 1, ttl_seconds=0.001)
        memory.memories.retrieve_memory(agent, "fact", "x")
        session = memory.sessions.start_session(agent)
        memory.sessions.end_session(agent, session.id)
        memory.flush()
        yield World(every._servers[0], (proxy.url, every.front.url), proxy, agent)


def _front(every: Redises) -> str:
    every.front.lead_to(every.new())
    return every.front.url


@contextmanager
def client(kind: str, urls: tuple[str, str], settings: Settings = SETTINGS) -> Iterator[MemoryPlugin]:
    """Either client, called alike."""
    if kind == "sync":
        with MemoryPlugin(*urls, settings=settings) as plugin:
            yield plugin
        return
    with asyncio.Runner() as runner:
        aplugin = AsyncMemoryPlugin(*urls, settings=settings)
        yield cast("MemoryPlugin", _Looked(aplugin, runner))
        runner.run(aplugin.aclose())


class _Looked:
    """An awaited client that is asked what was stale by the tasks that read."""

    def __init__(self, plugin: AsyncMemoryPlugin, runner: asyncio.Runner) -> None:
        self._plugin, self._runner, self._face = plugin, runner, awaited(plugin, runner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._face, name)

    @property
    def last_read_was_stale(self) -> bool:
        async def look() -> bool:
            return self._plugin.last_read_was_stale

        return self._runner.run(look())


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client."""
    return str(request.param)


@pytest.fixture
def memory(kind: str, world: World) -> Iterator[MemoryPlugin]:
    """Each client, connected."""
    with client(kind, world.urls) as plugin:
        plugin.emotions.load_state(world.agent)
        yield plugin


@contextmanager
def away(server: RedisServer) -> Iterator[None]:
    """A Redis that was killed, and is there again after the block with what it had."""
    server.kill()
    try:
        yield
    finally:
        server.start()


def _happened(memory: MemoryPlugin, agent: UUID) -> datetime:
    return memory.emotions.get_event_history(agent)[0].occurred_at + timedelta(milliseconds=1)


Read = Callable[[MemoryPlugin, UUID], Any]
READS: dict[str, Read] = {
    "load_state": lambda m, a: m.emotions.load_state(a).emotions,  # type: ignore[union-attr]
    "state_at": lambda m, a: m.emotions.state_at(a, _happened(m, a)),
    "why": lambda m, a: m.emotions.why(a, Emotion.LOVE, at=_happened(m, a)),
    "get_event_history": lambda m, a: m.emotions.get_event_history(a),
    "get_emotional_trends": lambda m, a: m.emotions.get_emotional_trends(a),
    "trends in buckets": lambda m, a: m.emotions.get_emotional_trends(a, bucket=timedelta(hours=1)),
    "get_history": lambda m, a: m.conversations.get_history(a),
    "get_history of few": lambda m, a: m.conversations.get_history(a, 2),
    "search_messages": lambda m, a: m.conversations.search_messages(a, "foxes"),
    "get_conversation_stats": lambda m, a: m.conversations.get_conversation_stats(a),
    "get_memory": lambda m, a: m.memories.get_memory(a, "fact", "x"),
    "get_memory that expired": lambda m, a: m.memories.get_memory(a, "fact", "over"),
    "get_memory of none": lambda m, a: m.memories.get_memory(a, "fact", "none"),
    "get_memories_by_type": lambda m, a: m.memories.get_memories_by_type(a, "fact"),
    "get_sessions": lambda m, a: m.sessions.get_sessions(a),
}


def answers(memory: MemoryPlugin, agent: UUID) -> dict[str, Any]:
    return {name: read(memory, agent) for name, read in READS.items()}


def test_every_read_is_answered_and_told_of(memory: MemoryPlugin, world: World) -> None:
    fresh = answers(memory, world.agent)
    assert not memory.last_read_was_stale
    first = memory.conversations.get_history(world.agent)[3]
    before = memory.conversations.get_history(world.agent, before=first.id)
    assert len(before) == 3
    with away(world.redis):
        for name, read in READS.items():
            assert read(memory, world.agent) == fresh[name], name
            assert memory.last_read_was_stale, name
        assert memory.conversations.get_history(world.agent, before=first.id) == before
        with pytest.raises(InvalidInput, match="before"):
            memory.conversations.get_history(world.agent, before=uuid4())
    assert answers(memory, world.agent) == fresh
    assert not memory.last_read_was_stale


def test_an_access_is_not_counted(memory: MemoryPlugin, world: World) -> None:
    count = memory.memories.get_memory(world.agent, "fact", "x").access_count  # type: ignore[union-attr]
    with away(world.redis):
        assert memory.memories.retrieve_memory(world.agent, "fact", "x") == {"a": 1}
        assert memory.memories.retrieve_memory(world.agent, "fact", "none") is None
    assert memory.memories.get_memory(world.agent, "fact", "x").access_count == count  # type: ignore[union-attr]


def test_nothing_is_known_of_a_stranger(memory: MemoryPlugin, world: World) -> None:
    with away(world.redis):
        assert memory.emotions.load_state(uuid4()) is None
        assert memory.conversations.get_history(uuid4()) == []
        assert memory.conversations.get_conversation_stats(uuid4()).total_messages == 0


def test_what_is_felt_fades_by_the_local_clock(memory: MemoryPlugin, world: World) -> None:
    agent = uuid4()
    memory.emotions.save_state(agent, EmotionalState({Emotion.LOVE: 1.0, Emotion.JOY: 1.0}, {Emotion.JOY: 1.0}))
    memory.flush()
    with away(world.redis):
        state = memory.emotions.load_state(agent)
    assert state is not None
    assert state.emotions.keys() == {Emotion.LOVE}
    assert 0.1 < state.emotions[Emotion.LOVE] < 1.0


def test_what_is_only_in_redis_is_missing_until_it_is_back(memory: MemoryPlugin, world: World) -> None:
    agent = uuid4()
    memory.conversations.save_message(agent, "user", "cold")
    memory.flush()
    memory.conversations.save_message(agent, "user", "hot")
    with away(world.redis):
        assert [m.content for m in memory.conversations.get_history(agent)] == ["cold"]
        assert memory.last_read_was_stale
    assert [m.content for m in memory.conversations.get_history(agent)] == ["cold", "hot"]
    assert not memory.last_read_was_stale


def test_writes_do_not_fall_back(memory: MemoryPlugin, world: World) -> None:
    agent, talk = world.agent, memory.conversations
    message = talk.get_history(agent)[0]
    writes: list[Callable[[], object]] = [
        lambda: memory.emotions.save_state(agent, STEADY),
        lambda: memory.emotions.update_emotions(agent, {Emotion.JOY: 1.0}),
        lambda: memory.emotions.set_temperament(agent, absence="active"),
        lambda: memory.emotions.save_event(agent, CustomEvent(event_type="x"), {}),
        lambda: talk.save_message(agent, "user", "x"),
        lambda: talk.update_emotional_context(agent, message.id, {"joy": 1}),
        lambda: memory.memories.store_memory(agent, "fact", "x", 2),
        lambda: memory.memories.delete_memory(agent, "fact", "x"),
        lambda: memory.sessions.start_session(agent),
        memory.flush,
        lambda: memory.evict(agent),
        lambda: memory.rehydrate(agent),
    ]
    fresh = answers(memory, agent)
    with away(world.redis):
        for write in writes:
            with pytest.raises(HotStoreUnavailable):
                write()
    assert answers(memory, agent) == fresh


def test_where_it_is_not_allowed_it_is_an_error(kind: str, world: World) -> None:
    settings = msgspec.structs.replace(SETTINGS, degraded_reads=False)
    with client(kind, world.urls, settings) as memory:
        memory.emotions.load_state(world.agent)
        with away(world.redis):
            for read in READS.values():
                with pytest.raises(HotStoreUnavailable):
                    read(memory, world.agent)
            assert not memory.last_read_was_stale


def test_a_client_that_begins_meanwhile_is_answered_too(kind: str, world: World) -> None:
    with client(kind, world.urls) as memory:
        with away(world.redis):
            assert memory.emotions.load_state(world.agent) is not None
            assert memory.last_read_was_stale
        memory.emotions.load_state(world.agent)
        assert not memory.last_read_was_stale


def test_with_both_stores_away_it_is_an_error(memory: MemoryPlugin, world: World) -> None:
    world.proxy.go_down()
    with away(world.redis), pytest.raises(ColdStoreUnavailable):
        memory.conversations.get_history(world.agent)
    world.proxy.come_back()
    assert len(memory.conversations.get_history(world.agent)) == 8


def test_each_thread_is_told_of_its_own_reads(world: World) -> None:
    told: list[bool] = []

    def read(memory: MemoryPlugin) -> None:
        memory.emotions.load_state(world.agent)
        told.append(memory.last_read_was_stale)

    with client("sync", world.urls) as memory:
        with away(world.redis):
            reader = threading.Thread(target=read, args=(memory,))
            reader.start()
            reader.join()
        assert told == [True]
        assert not memory.last_read_was_stale


def test_each_task_is_told_of_its_own_reads(world: World) -> None:
    async def run() -> None:
        async with AsyncMemoryPlugin(*world.urls, settings=SETTINGS) as memory:

            async def read() -> bool:
                await memory.emotions.load_state(world.agent)
                return memory.last_read_was_stale

            with away(world.redis):
                assert all(await asyncio.gather(read(), read()))
                assert not memory.last_read_was_stale
                assert await read()
                assert memory.last_read_was_stale

    asyncio.run(run())


def test_no_call_without_an_answer_of_its_own_gets_one() -> None:
    """A command that a read begins to use must be thought of here, not answered by chance."""
    keys = agent_keys(uuid4(), 2)

    def steps() -> Any:
        yield calls.memory_bytes(keys, "fact:x")
        yield calls.type_of(keys.log)

    with pytest.raises(KeyError, match="TYPE"):
        next(without_redis(steps()))
