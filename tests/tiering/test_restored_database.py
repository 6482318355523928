"""PostgreSQL was restored to an earlier time under a Redis that knows more: what is still there goes there again, once;
what is not is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
import redis
from psycopg import sql

from banshee_memory import MemoryPlugin, Settings
from banshee_memory.failpoints import armed
from banshee_memory.hot.keys import shard_of
from banshee_memory.tiering.drain import Drain
from tests.own_servers import own_database, own_redis, throw_out
from tests.tiering.another_redis import live
from tests.tiering.lives import everything

SETTINGS = Settings(shards=2, message_cap=50, event_cap=50, message_retention_days=None, event_retention_days=None)


@pytest.fixture
def redis_of_its_own(redis_url: str) -> Iterator[str]:
    with own_redis(like=redis_url) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture
def memory(redis_of_its_own: str, database: str) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(database, redis_of_its_own, settings=SETTINGS) as plugin:
        yield plugin


@pytest.fixture
def backed_up(database: str, database_url: str) -> Iterator[Callable[[], Callable[[], None]]]:
    """Takes a copy of the database; gives what puts that in the database's place, under those who use it."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    assert isinstance(name, str)
    copy, lost = f"{name}_copy", f"{name}_lost"

    def run(connection: psycopg.Connection[object], words: str, *names: str) -> None:
        throw_out(connection, name=name)
        connection.execute(sql.SQL(words).format(*map(sql.Identifier, names)))

    with psycopg.connect(database_url, autocommit=True) as connection:

        def restore() -> None:
            run(connection, "ALTER DATABASE {} RENAME TO {}", name, lost)
            run(connection, "ALTER DATABASE {} RENAME TO {}", copy, name)

        def back_up() -> Callable[[], None]:
            run(connection, "CREATE DATABASE {} TEMPLATE {}", copy, name)
            return restore

        yield back_up
        for left in (copy, lost):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(left)))


BackUp = Callable[[], Callable[[], None]]


def agent_in(shard: int) -> UUID:
    """An agent of that shard."""
    return next(agent for agent in iter(uuid4, None) if shard_of(agent, SETTINGS.shards) == shard)


def test_what_redis_still_has_goes_there_again_once(memory: MemoryPlugin, backed_up: BackUp) -> None:
    known, changed, gone = (agent_in(0) for _ in range(3))
    for agent in (known, changed, gone):
        live(memory, agent, "first")
    memory.memories.store_memory(changed, "fact", "deleted", 1)
    memory.flush()
    restore = backed_up()
    live(memory, changed, "second")
    live(memory, gone, "second")
    memory.memories.delete_memory(changed, "fact", "deleted")
    memory.memories.retrieve_memory(known, "fact", "k")
    memory.flush()
    memory.evict(gone)
    restore()
    live(memory, changed, "third")  # not flushed when the database goes back
    before = {agent: everything(memory, agent) for agent in (known, changed)}
    report = memory.flush()
    assert report.messages == 2, "the second and the third"
    assert report.events == 2
    assert report.conflicts == report.poisoned == 0
    for agent, expected in before.items():
        assert everything(memory, agent) == expected
        memory.evict(agent)
        assert everything(memory, agent) == expected
    assert memory.memories.retrieve_memory(changed, "fact", "deleted") is None
    assert [m.content for m in memory.conversations.get_history(gone)] == ["first word"], "this is what was lost"
    (found,) = [found for found in memory.stats().recoveries if found.store == "postgresql"]
    assert "is lost" in found.said
    assert memory.flush().records == 0
    assert len([found for found in memory.stats().recoveries if found.store == "postgresql"]) == 1


def test_a_shard_in_which_nothing_happens_is_found_too(memory: MemoryPlugin, backed_up: BackUp) -> None:
    """The daemon looks at all of them now and then."""
    agent = agent_in(1)
    live(memory, agent, "first")
    memory.flush()
    restore = backed_up()
    live(memory, agent, "second")
    memory.flush()
    known = everything(memory, agent)
    drain = Drain(SETTINGS, *memory._open())
    assert drain.gone_back() == []
    restore()
    assert drain.gone_back() == [1]
    drain.flush_shards([1])
    assert drain.gone_back() == []
    memory.evict(agent)
    assert everything(memory, agent) == known


def test_one_flush_carries_all_that_is_logged_again(redis_of_its_own: str, database: str, backed_up: BackUp) -> None:
    """It was acknowledged before, so the flush is not over before it, in however many transactions."""
    with MemoryPlugin(database, redis_of_its_own, settings=msgspec.structs.replace(SETTINGS, flush_batch=2)) as memory:
        agent = agent_in(0)
        restore = backed_up()
        for number in range(9):
            memory.conversations.save_message(agent, "user", f"word {number}")
        memory.flush()
        restore()
        memory.conversations.save_message(agent, "user", "word 9")
        assert memory.flush().messages == 10
        assert memory.flush().messages == 0


def test_a_full_redis_is_drained_into_it(memory: MemoryPlugin, redis_of_its_own: str, backed_up: BackUp) -> None:
    agent = agent_in(0)
    live(memory, agent, "first")
    memory.flush()
    restore = backed_up()
    live(memory, agent, "second")
    memory.flush()
    restore()
    live(memory, agent, "third")
    known = everything(memory, agent)
    with redis.Redis.from_url(redis_of_its_own) as server:
        server.config_set("maxmemory", 1)
        memory.flush()
        memory.evict(agent)
        assert everything(memory, agent) == known
        server.config_set("maxmemory", 0)


def test_an_empty_database_gets_what_is_left(memory: MemoryPlugin, backed_up: BackUp) -> None:
    agent = agent_in(0)
    restore = backed_up()
    live(memory, agent, "first")
    live(memory, agent, "second")
    memory.flush()
    known = everything(memory, agent)
    restore()
    memory.conversations.save_message(agent, "user", "third word")
    memory.flush()
    memory.evict(agent)
    after = everything(memory, agent)
    assert [m.content for m in after["messages"]] == ["first word", "second word", "third word"]
    assert after["totals"].total_messages == 3
    assert {name: after[name] for name in ("state", "events", "memories")} == {
        name: known[name] for name in ("state", "events", "memories")
    }


@pytest.mark.parametrize("place", ["restore.logged_again", "flush.advanced", "flush.committed"])
def test_it_is_told_whoever_dies(memory: MemoryPlugin, backed_up: BackUp, place: str) -> None:
    """Also by the next, where the one who found it died before that was committed."""
    agent = agent_in(0)
    restore = backed_up()
    live(memory, agent, "first")
    memory.flush()
    known = everything(memory, agent)
    restore()

    def die(name: str) -> None:
        if name == place:
            raise KeyboardInterrupt

    with armed(die), pytest.raises(KeyboardInterrupt):
        Drain(SETTINGS, *memory._open()).flush_shards([0])
    Drain(SETTINGS, *memory._open()).flush_shards([0])
    assert [found.store for found in memory.stats().recoveries if found.store == "postgresql"] == ["postgresql"]
    memory.evict(agent)
    assert everything(memory, agent) == known
    assert memory.flush().records == 0
