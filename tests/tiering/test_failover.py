"""Another Redis than before: a replica that lagged, a restart, a restart from an old file, an empty one. Whoever meets
it first: what PostgreSQL has is what is read, what survived only in Redis is carried once, what is lost is told."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from banshee_memory import AsyncMemoryPlugin, Emotion, MemoryPlugin
from banshee_memory.cold.drain import Batch, StateRow
from banshee_memory.failpoints import armed
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import agent_keys
from banshee_memory.operations import Operations
from banshee_memory.tiering.steps import Step, Steps, drive, relayed
from tests.own_servers import own_database
from tests.redis_servers import Redises, RedisServer, copied, restored
from tests.tiering.another_redis import SETTINGS, agent_in, live
from tests.tiering.lives import everything


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


class Fate(NamedTuple):
    """How a server comes to be another: what is done in the middle of the story, and what at its end."""

    split: Callable[[Redises, RedisServer], Any]
    end: Callable[[Redises, RedisServer, Any], RedisServer]
    keeps_the_first_part: bool
    keeps_all: bool


def _follow(servers: Redises, server: RedisServer) -> RedisServer:
    replica = servers.new()
    replica.follow(server)
    replica.await_all_of(server)
    replica.promote()  # to those that come later it is a replica that lags
    return replica


def _promote(servers: Redises, server: RedisServer, replica: Any) -> RedisServer:
    server.kill()
    assert isinstance(replica, RedisServer)
    return replica


def _restore(servers: Redises, server: RedisServer, copy: Any) -> RedisServer:
    restored(server, copy)
    return server


def _restart(servers: Redises, server: RedisServer, _: Any) -> RedisServer:
    server.kill()
    server.start()
    return server


FATES = {
    "a lagging replica": Fate(_follow, _promote, True, False),
    "an old file": Fate(lambda _, server: copied(server), _restore, True, False),
    "a restart": Fate(lambda *_: None, _restart, True, True),
    "nothing": Fate(lambda *_: None, _restore, False, False),
}
Meeting = Callable[[MemoryPlugin, str, str, UUID], object]


def _a_new_client(memory: MemoryPlugin, redis_url: str, database_url: str, agent: UUID) -> None:
    with MemoryPlugin(database_url, redis_url, settings=SETTINGS) as other:
        other.emotions.load_state(agent)


def _an_async_client(memory: MemoryPlugin, redis_url: str, database_url: str, agent: UUID) -> None:
    async def meet() -> None:
        async with AsyncMemoryPlugin(database_url, redis_url, settings=SETTINGS) as other:
            state = await other.emotions.load_state(agent)
            known = memory.emotions.load_state(agent)
            assert state is not None
            assert known is not None
            assert state.emotions == known.emotions

    asyncio.run(meet())


MEETINGS: dict[str, Meeting] = {
    "a read": lambda memory, *_: None,
    "a write": lambda memory, *_: memory.conversations.save_message(uuid4(), "user", "hello"),
    "a flush": lambda memory, *_: memory.flush(),
    "a new client": _a_new_client,
    "an async client": _an_async_client,
}


class Story(NamedTuple):
    """Agents, and all that was known of them when the server was lost."""

    moved: UUID
    """Flushed before the split and again after it."""
    dirty: UUID
    """Not flushed at the split; changed and flushed after it."""
    waiting: UUID
    """Written before the split and never flushed."""
    known: dict[UUID, dict[str, Any]]


def begin(memory: MemoryPlugin, split: Callable[[], None]) -> Story:
    """What is flushed is in one shard, what is not in the other."""
    moved, dirty, waiting = agent_in(0), agent_in(0), agent_in(1)
    live(memory, moved, "first")
    message = memory.conversations.save_message(moved, "user", "an amended word", tokens_used=2)
    memory.flush(moved)
    live(memory, dirty, "first")
    live(memory, waiting, "first")
    memory.conversations.update_emotional_context(moved, message, {"joy": 0.5})
    split()
    live(memory, moved, "second")
    memory.conversations.update_emotional_context(moved, message, {"joy": 0.25})
    memory.memories.delete_memory(moved, "fact", "first")
    live(memory, dirty, "second")
    memory.memories.delete_memory(dirty, "fact", "first")
    memory.flush(moved)
    return Story(moved, dirty, waiting, {agent: everything(memory, agent) for agent in (moved, dirty, waiting)})


FEW = {
    ("a lagging replica", "a read"),
    ("a lagging replica", "a flush"),
    ("an old file", "an async client"),
    ("a restart", "a write"),
    ("nothing", "a new client"),
}
"""Those that the default suite has time for."""
ALL = [
    pytest.param(fate, meeting, marks=[] if (fate, meeting) in FEW else pytest.mark.soak)
    for fate in FATES
    for meeting in MEETINGS
]


@pytest.mark.parametrize(("fate", "meeting"), ALL)
def test_what_is_cold_is_what_is_read_and_what_survived_is_carried_once(
    servers: Redises, database: str, fate: str, meeting: str
) -> None:
    first, chosen, halves = servers.new(), FATES[fate], []
    servers.front.lead_to(first)
    url = servers.front.url
    with MemoryPlugin(database, url, settings=SETTINGS) as memory:
        story = begin(memory, lambda: halves.append(chosen.split(servers, first)))
        live(memory, story.waiting, "third") if chosen.keeps_all else None
        known = story.known | ({story.waiting: everything(memory, story.waiting)} if chosen.keeps_all else {})
        lost = agent_in(1)
        memory.conversations.save_message(lost, "user", "never flushed")
        servers.front.lead_to(chosen.end(servers, first, halves[0]))

        MEETINGS[meeting](memory, url, database, story.moved)
        assert everything(memory, story.moved) == known[story.moved]
        assert everything(memory, story.dirty) == known[story.dirty]
        if chosen.keeps_the_first_part:
            assert everything(memory, story.waiting) == known[story.waiting]
        else:
            assert memory.emotions.load_state(story.waiting) is None
        assert len(memory.conversations.get_history(lost)) == chosen.keeps_all
        report = memory.flush()
        assert report.conflicts == report.duplicates == report.poisoned == 0
        agents = [story.moved, story.dirty, *([story.waiting] if chosen.keeps_the_first_part else [])]
        for agent in agents:
            memory.evict(agent)
            assert everything(memory, agent) == known[agent]
        found = memory.stats().recoveries[0]
        assert found.store == "redis"
        assert (found.behind_seconds is None) is not chosen.keeps_the_first_part
        assert found.behind_seconds is None or (found.behind_seconds > 1e-3) is not chosen.keeps_all
        assert ("behind PostgreSQL" in found.said) is not chosen.keeps_all


@pytest.mark.parametrize("fate", FATES)
def test_what_is_written_afterwards_is_newer_than_all_before(servers: Redises, database: str, fate: str) -> None:
    """Also where the lost server's clock was a year ahead, so that the stamps of the log go back."""
    first, chosen, halves = servers.new(), FATES[fate], []
    servers.front.lead_to(first)

    def split() -> None:
        halves.append(chosen.split(servers, first))
        for shard in range(SETTINGS.shards):
            log = f"banshee:{{{shard}}}:log"
            last = first.command("XINFO", "STREAM", log)[b"last-generated-id"]
            first.command("XSETID", log, f"{int(last.partition(b'-')[0]) + 31_536_000_000}-0")

    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        story = begin(memory, split)
        servers.front.lead_to(chosen.end(servers, first, halves[0]))
        for agent in (story.moved, story.dirty):
            live(memory, agent, "afterwards")
            memory.emotions.update_emotions(agent, {Emotion.LOVE: 0.25})
            known = everything(memory, agent)
            assert known["state"][0][Emotion.LOVE] == 0.25
            assert [m.content for m in known["messages"]][-2:] == ["second word", "afterwards word"]
            memory.flush()
            memory.evict(agent)
            assert everything(memory, agent) == known


def test_a_server_that_stays_the_same_is_not_recovered(servers: Redises, database: str) -> None:
    servers.front.lead_to(servers.new())
    agent = agent_in(0)
    for _ in range(2):
        with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
            before = memory.stats().recoveries
            live(memory, agent, "first")
            memory.flush()
            assert memory.rehydrate(agent).messages == 0, "all of it stays resident"
    assert memory.stats().recoveries == before
    memory.close()


def test_an_amendment_that_only_postgresql_has_is_read(servers: Redises, database: str) -> None:
    """The replica knows the message, as one that is not flushed, and not what was told of it afterwards."""
    first, agent, felt = servers.new(), agent_in(0), {"joy": 0.5}
    servers.front.lead_to(first)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        message = memory.conversations.save_message(agent, "user", "hello")
        replica = _follow(servers, first)
        memory.conversations.update_emotional_context(agent, message, felt)
        memory.flush()
        servers.front.lead_to(_promote(servers, first, replica))
        for _ in range(2):
            assert [m.emotional_context for m in memory.conversations.get_history(agent)] == [felt]
            memory.flush()


def test_what_a_flush_of_the_lost_server_stores_last_is_what_is_read(servers: Redises, database: str) -> None:
    """It ends when what survived was flushed already, and before the recovery does."""
    first, agent = servers.new(), agent_in(0)
    servers.front.lead_to(first)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        live(memory, agent, "first")
        replica = _follow(servers, first)
        live(memory, agent, "second")
        known = memory.emotions.load_state(agent)
        hot, cold = memory._open()
        flat: list[bytes] = hot.run(calls.state_hash(agent_keys(agent, SETTINGS.shards)))
        stored = wire.state_of(flat)
        assert stored is not None
        assert known is not None
        servers.front.lead_to(_promote(servers, first, replica))

        def end_late(name: str) -> None:
            if name == "recover.survivors_flushed":
                with cold.drain([0]) as rows:
                    rows.write(Batch(states=[StateRow.of(agent, stored)]))

        with armed(end_late):
            read = memory.emotions.load_state(agent)
        assert read is not None
        assert read.emotions == known.emotions


def test_a_server_that_is_followed_for_the_first_time_stays_the_same(servers: Redises, database: str) -> None:
    """It gives its history another name then."""
    first, agent = servers.new(), agent_in(0)
    servers.front.lead_to(first)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        live(memory, agent, "first")
        memory.flush()
        before = memory.stats().recoveries
    replica = servers.new()
    replica.follow(first)
    replica.await_all_of(first)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        assert memory.rehydrate(agent).messages == 0, "all of it stays resident"
        assert memory.stats().recoveries == before


@pytest.mark.parametrize("store", [1, 2], ids=["after the mark", "after the totals"])
def test_a_session_ends_although_the_server_that_took_its_end_is_lost(
    servers: Redises, database: str, store: int
) -> None:
    """Between the write and the look at what became of it."""
    server, agent = servers.new(), agent_in(0)
    servers.front.lead_to(server)
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as memory:
        live(memory, agent, "first")
        session = memory.sessions.start_session(agent)
        live(memory, agent, "second")
        copy, stores = copied(server), 0

        def lost(step: Step) -> Steps[Any]:
            nonlocal stores
            result = yield step
            stores += isinstance(step, calls.Call) and str(step.command[1]).endswith("store_memory")
            if stores == store and copy.exists():
                restored(server, copy)
                shutil.rmtree(copy)
            return result

        ending = Operations(SETTINGS).end_session(agent, session.id, None, None)
        ended = drive(relayed(ending.steps, lost), *memory._open())
        assert (ended.total_messages, ended.total_events) == (1, 1)
        assert ended.session_end is not None
        assert memory.sessions.end_session(agent, session.id) == ended
