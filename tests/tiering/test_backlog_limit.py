"""The backlog has a limit: a shard at it takes no more, whoever asks; what makes room goes on; nothing is half done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from banshee_memory import (
    AsyncMemoryPlugin,
    ColdStoreUnavailable,
    CustomEvent,
    Emotion,
    EmotionalState,
    HotStoreFull,
    MemoryPlugin,
    NewMessage,
    Settings,
)
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.faults import BacklogFull
from banshee_memory.hot.keys import agent_keys, shard_keys, shard_of
from banshee_memory.tiering.backpressure import slowed
from banshee_memory.tiering.steps import Pause, Steps
from banshee_memory.tiering.transfer import MessageLine
from tests.clients import awaited
from tests.hot.raw import Server
from tests.own_servers import own_database, own_redis

SHARE = 10
SETTINGS = Settings(shards=2, backlog_limit=2 * SHARE)
SLOW = msgspec.structs.replace(SETTINGS, backlog_overflow="slow", backlog_wait=600.0)
HAPPENED = CustomEvent(event_type="x")


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as own, own_database(database_url, SETTINGS) as database:
        yield database, own


@pytest.fixture(scope="module")
def sync_memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(*urls, settings=SETTINGS) as plugin:
        yield plugin


@pytest.fixture(params=["sync", "async"])
def memory(request: pytest.FixtureRequest, urls: tuple[str, str], sync_memory: MemoryPlugin) -> Iterator[MemoryPlugin]:
    """Each client, with nothing waiting."""
    sync_memory.flush()
    if request.param == "sync":
        yield sync_memory
        return
    with asyncio.Runner() as runner:
        plugin = AsyncMemoryPlugin(*urls, settings=SETTINGS)
        yield awaited(plugin, runner)
        runner.run(plugin.aclose())


@pytest.fixture
def hot(urls: tuple[str, str]) -> Iterator[HotStore]:
    store = HotStore(urls[1], SETTINGS)
    yield store
    store.close()


@pytest.fixture
def agent() -> UUID:
    """An agent of shard 0."""
    return in_shard(0)


def in_shard(shard: int) -> UUID:
    return next(a for a in iter(uuid4, None) if shard_of(a, SETTINGS.shards) == shard)


def fill(memory: MemoryPlugin, agent: UUID, leave: int = 0) -> None:
    """Makes an agent with a state and a memory, and a log that has room for so many more entries."""
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0}))
    memory.memories.store_memory(agent, "fact", "x", "data")
    for n in range(SHARE - 2 - leave):
        memory.conversations.save_message(agent, "user", f"word {n}")


def said(memory: MemoryPlugin, agent: UUID) -> list[str]:
    return [m.content for m in memory.conversations.get_history(agent, 10_000)]


def test_every_write_is_refused_whole(memory: MemoryPlugin, hot: HotStore, agent: UUID) -> None:
    message_id = memory.conversations.save_message(agent, "user", "first")
    memory.flush()
    fill(memory, agent)
    server = Server(hot)
    before = server.content()
    writes: list[Callable[[], object]] = [
        lambda: memory.emotions.save_state(agent, EmotionalState()),
        lambda: memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5}),
        lambda: memory.emotions.set_temperament(agent, absence="active"),
        lambda: memory.emotions.save_event(agent, HAPPENED, {Emotion.JOY: 0.5}),
        lambda: memory.conversations.save_message(agent, "user", "more"),
        lambda: memory.conversations.save_messages(agent, [NewMessage(role="user", content="more")] * 3),
        lambda: memory.conversations.update_emotional_context(agent, message_id, {"joy": 1}),
        lambda: memory.memories.store_memory(agent, "fact", "x", "new"),
    ]
    for write in writes:
        with pytest.raises(HotStoreFull, match="backlog_limit"):
            write()
        assert server.content() == before
    assert len(said(memory, agent)) == SHARE - 1  # reads go on


def test_a_batch_begun_under_the_limit_is_done_whole(memory: MemoryPlugin, agent: UUID) -> None:
    fill(memory, agent, leave=1)
    memory.conversations.save_messages(agent, [NewMessage(role="user", content=f"{n}") for n in range(5)])
    assert said(memory, agent)[-5:] == ["0", "1", "2", "3", "4"]
    with pytest.raises(HotStoreFull):
        memory.conversations.save_message(agent, "user", "more")


def test_what_makes_room_goes_through(memory: MemoryPlugin, agent: UUID) -> None:
    fill(memory, agent)
    assert memory.memories.delete_memory(agent, "fact", "x")
    assert memory.memories.get_memory(agent, "fact", "x") is None
    assert memory.evict(agent).kept == 0
    memory.conversations.save_message(agent, "user", "more")
    assert len(said(memory, agent)) == SHARE - 2 + 1
    assert memory.memories.get_memory(agent, "fact", "x") is None


def test_each_shard_has_its_share(memory: MemoryPlugin, agent: UUID) -> None:
    fill(memory, agent)
    memory.conversations.save_message(in_shard(1), "user", "here is room")


def test_a_keyed_call_that_was_done_is_answered(memory: MemoryPlugin, agent: UUID) -> None:
    fill(memory, agent, leave=1)
    first = memory.conversations.save_message(agent, "user", "once", idempotency_key="k")
    assert memory.conversations.save_message(agent, "user", "once", idempotency_key="k") == first
    with pytest.raises(HotStoreFull):
        memory.conversations.save_message(agent, "user", "once", idempotency_key="other")


def test_a_client_in_any_language_is_bound(sync_memory: MemoryPlugin, urls: tuple[str, str], agent: UUID) -> None:
    sync_memory.flush()
    fill(sync_memory, agent)
    keys = agent_keys(agent, SETTINGS.shards)
    with redis.Redis.from_url(urls[1]) as foreign:
        with pytest.raises(redis.ResponseError, match=f"^BANSHEE_BACKLOG {SHARE} "):
            foreign.fcall("banshee1_update_emotions", 2, keys.state, keys.log, agent.bytes, "add", "joy", "0.1")
        waiting, _, limit, _, oldest, size, _ = foreign.fcall_ro("banshee1_backlog", 1, keys.log)
        ((first, fields),) = foreign.xrange(keys.log, count=1)
        assert (waiting, limit, oldest) == (SHARE, SHARE, first)
        assert size == sum(len(text) for pair in fields.items() for text in pair)


# --- slow ---


def write_soon(urls: tuple[str, str], agent: UUID, settings: Settings) -> None:
    with MemoryPlugin(*urls, settings=settings) as plugin:
        plugin.conversations.save_message(agent, "user", "later")


def test_a_slowed_write_is_done_when_there_is_room(
    sync_memory: MemoryPlugin, urls: tuple[str, str], agent: UUID
) -> None:
    sync_memory.flush()
    fill(sync_memory, agent)
    writer = threading.Thread(target=write_soon, args=(urls, agent, SLOW))
    writer.start()
    sync_memory.flush()
    writer.join()
    assert said(sync_memory, agent)[-1] == "later"


async def wait_and_be_interrupted(urls: tuple[str, str], agent: UUID) -> None:
    """A slowed write lets the other tasks of its loop work, and one that is interrupted has done nothing."""
    plugin = AsyncMemoryPlugin(*urls, settings=SLOW)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await plugin.conversations.save_message(agent, "user", "never")
    later = asyncio.create_task(plugin.conversations.save_message(agent, "user", "later"))
    await asyncio.sleep(0)
    await plugin.flush()
    await later
    await plugin.aclose()


def test_a_slowed_task_holds_up_no_other(sync_memory: MemoryPlugin, urls: tuple[str, str], agent: UUID) -> None:
    sync_memory.flush()
    fill(sync_memory, agent)
    asyncio.run(wait_and_be_interrupted(urls, agent))
    assert said(sync_memory, agent)[-1] == "later"
    assert "never" not in said(sync_memory, agent)


def test_a_slowed_write_does_not_wait_for_ever(memory: MemoryPlugin, urls: tuple[str, str], agent: UUID) -> None:
    fill(memory, agent)
    with pytest.raises(HotStoreFull):
        write_soon(urls, agent, msgspec.structs.replace(SLOW, backlog_wait=0.02))
    assert "later" not in said(memory, agent)


def test_the_pauses_grow_and_the_step_stays_the_same() -> None:
    call = calls.now()

    def written() -> Steps[int]:
        first = yield call
        second = yield call
        return int(first + second)

    steps = slowed(written(), 600.0)
    assert next(steps) is call
    pauses = []
    for _ in range(9):
        pause = steps.throw(BacklogFull("full"))
        assert isinstance(pause, Pause)
        pauses.append(pause.seconds)
        assert steps.send(None) is call
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert steps.send(1) is call
    with pytest.raises(StopIteration) as end:
        steps.send(2)
    assert end.value.value == 3


# --- the import ---


@pytest.mark.parametrize("settings", [SETTINGS, SLOW], ids=["refuse", "slow"])
def test_an_import_is_not_stuck_by_its_own_backlog(urls: tuple[str, str], settings: Settings) -> None:
    agents = [in_shard(0), in_shard(1)]
    lines = [MessageLine(agent=str(a), role="user", content=f"{n}") for n in range(1_200) for a in agents]
    with MemoryPlugin(*urls, settings=settings) as plugin:
        assert plugin.import_(lines).messages == 2_400
        for agent in agents:
            assert said(plugin, agent) == [f"{n}" for n in range(1_200)]


def test_an_import_ends_where_nothing_can_make_room(
    urls: tuple[str, str], agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise ColdStoreUnavailable("PostgreSQL is away")

    with MemoryPlugin(*urls, settings=SETTINGS) as plugin:
        plugin.flush()
        fill(plugin, agent)
        monkeypatch.setattr(plugin, "flush", down)
        with pytest.raises(ColdStoreUnavailable):
            plugin.import_([MessageLine(agent=str(agent), role="user", content="x")])


# --- who sets the limit ---


def test_the_log_tells_what_went_through_it(memory: MemoryPlugin, hot: HotStore, agent: UUID) -> None:
    before = hot.run(calls.log_size(shard_keys(0)))
    fill(memory, agent)
    size = hot.run(calls.log_size(shard_keys(0)))
    assert (size.waiting, size.added - before.added, size.limit) == (SHARE, SHARE, SHARE)
    memory.flush()
    after = hot.run(calls.log_size(shard_keys(0)))
    assert (after.waiting, after.added) == (0, size.added)
