"""Another Redis than before was met while PostgreSQL was away, so its recovery could not be ended. Until it is, what
is resident may be older than what is cold, and is read for want of better; the first flush to reach PostgreSQL ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from banshee_memory import Emotion, EmotionalState, MemoryPlugin
from banshee_memory.cold.drain import Batch, StateRow
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import agent_keys
from banshee_memory.tiering.drain import Drain
from tests.own_servers import own_database
from tests.redis_servers import Redises, RedisServer, copied, restored
from tests.tiering.another_redis import AWAY, SETTINGS, agent_in, live
from tests.tiering.lives import HAPPENED, STEADY, everything

FELT = {"joy": 0.5}
FLUSHES: dict[str, Callable[[MemoryPlugin, UUID], object]] = {
    "a flush": lambda memory, agent: memory.flush(),
    "a flush of the agent": lambda memory, agent: memory.flush(agent),
    "a sweep": lambda memory, agent: Drain(SETTINGS, *memory._open()).sweep(),
}


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture
def memory(servers: Redises, server: RedisServer, database: str) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as plugin:
        yield plugin


def goes_back(server: RedisServer, copy: Path, servers: Redises) -> None:
    """It comes back from an old file, and is met by one who cannot ask PostgreSQL."""
    restored(server, copy)
    with MemoryPlugin(AWAY, servers.front.url, settings=SETTINGS) as blind:
        blind._open()[0].run(calls.now())


@pytest.mark.parametrize("flush", FLUSHES)
def test_a_flush_makes_nothing_clean_that_is_older_than_what_is_cold(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, flush: str
) -> None:
    agent = agent_in(0)
    live(memory, agent, "first")
    message = memory.conversations.save_message(agent, "user", "hello")
    copy = copied(server)
    memory.conversations.update_emotional_context(agent, message, FELT)
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.75}, dict(STEADY)))
    memory.flush()
    known = everything(memory, agent)
    goes_back(server, copy, servers)
    FLUSHES[flush](memory, agent)
    for _ in range(2):
        assert everything(memory, agent) == known
        assert memory.conversations.get_history(agent)[-1].emotional_context == FELT


@pytest.mark.parametrize("flush", FLUSHES)
def test_what_was_read_before_the_last_flush_of_the_lost_server_ended_is_not_read_for_ever(
    memory: MemoryPlugin, servers: Redises, server: RedisServer, flush: str
) -> None:
    """Nothing waits: all that is resident is what was brought in since the server was met."""
    agent = agent_in(0)
    live(memory, agent, "first")
    memory.flush()
    copy = copied(server)
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: 0.75}, dict(STEADY)))
    hot, cold = memory._open()
    flat: list[bytes] = hot.run(calls.state_hash(agent_keys(agent, SETTINGS.shards)))
    newest = wire.state_of(flat)
    assert newest is not None
    goes_back(server, copy, servers)
    before = memory.emotions.load_state(agent)
    assert before is not None
    assert before.emotions[Emotion.JOY] < 0.75
    with cold.drain([0]) as rows:
        rows.write(Batch(states=[StateRow.of(agent, newest)]))
    FLUSHES[flush](memory, agent)
    after = memory.emotions.load_state(agent)
    assert after is not None
    assert after.emotions == {Emotion.JOY: 0.75}


def test_what_was_brought_in_above_the_parked_log_goes_with_the_rest(
    memory: MemoryPlugin, servers: Redises, server: RedisServer
) -> None:
    """An event that was flushed before lies above all up to which what is parked will ever be flushed."""
    agent = agent_in(0)
    live(memory, agent, "first")
    copy = copied(server)
    memory.emotions.save_event(agent, HAPPENED, {Emotion.HOPE: 0.25}, mode="set")
    memory.flush()
    goes_back(server, copy, servers)
    assert len(memory.emotions.get_event_history(agent)) == 2
    memory.flush()
    assert memory.evict(agent).kept == 0
    assert len(memory.emotions.get_event_history(agent)) == 2
