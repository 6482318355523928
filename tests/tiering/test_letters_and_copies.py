"""A dead letter that is put back has another stamp than its record had: by neither is it stored twice, on whatever
older copy of Redis it is met again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from banshee_memory import CustomEvent, Emotion, MemoryPlugin
from tests.own_servers import own_database
from tests.redis_servers import Redises, RedisServer, copied, restored
from tests.tiering.another_redis import SETTINGS, agent_in

_REFUSAL = """
CREATE TABLE refusing (all_of_it boolean NOT NULL);
INSERT INTO refusing VALUES (false);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT all_of_it FROM refusing) THEN RAISE 'refused' USING ERRCODE = '22000'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse();
"""


class Kind(NamedTuple):
    """Where records of a kind are stored, how one is written, and what is seen of them."""

    table: str
    write: Callable[[MemoryPlugin, UUID], object]
    seen: Callable[[MemoryPlugin, UUID], tuple[int, int]]
    """How many are read, and how many the totals say there are."""


def _messages_seen(memory: MemoryPlugin, agent: UUID) -> tuple[int, int]:
    conversations = memory.conversations
    return len(conversations.get_history(agent)), conversations.get_conversation_stats(agent).total_messages


def _events_seen(memory: MemoryPlugin, agent: UUID) -> tuple[int, int]:
    with memory._open()[1].connection() as connection:
        told = connection.execute(b"SELECT total_events FROM agents WHERE agent_id = %s", (agent,)).fetchall()
    return len(memory.emotions.get_event_history(agent)), int(told[0][0])


KINDS = {
    "message": Kind(
        "conversation_messages",
        lambda memory, agent: memory.conversations.save_message(agent, "user", "x"),
        _messages_seen,
    ),
    "event": Kind(
        "emotional_events",
        lambda memory, agent: memory.emotions.save_event(
            agent, CustomEvent(event_type="met", data={}), {Emotion.JOY: 0.5}
        ),
        _events_seen,
    ),
}


@pytest.fixture
def database(database_url: str) -> Iterator[str]:
    with own_database(database_url, SETTINGS) as url:
        yield url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def memory(servers: Redises, database: str, kind: Kind) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(database, servers.front.url, settings=SETTINGS) as made:
        _told(made, _REFUSAL.format(table=kind.table))
        yield made


def _told(memory: MemoryPlugin, statement: str) -> None:
    with memory._open()[1].connection() as connection:
        connection.execute(statement.encode())


def _refused(memory: MemoryPlugin) -> None:
    """Makes a dead letter of what waits."""
    _told(memory, "UPDATE refusing SET all_of_it = true")
    memory.flush()
    _told(memory, "UPDATE refusing SET all_of_it = false")


def _put_back(memory: MemoryPlugin, agent: UUID) -> None:
    assert memory.dead_letters.retry(memory.dead_letters.find(agent)) == 1
    memory.flush()


def _stored(memory: MemoryPlugin, kind: Kind) -> list[Any]:
    with memory._open()[1].connection() as connection:
        return connection.execute(f"SELECT id, stamp FROM {kind.table}".encode()).fetchall()


def test_one_that_is_put_back_on_both(memory: MemoryPlugin, server: RedisServer, kind: Kind) -> None:
    agent = agent_in(0)
    kind.write(memory, agent)
    _refused(memory)
    copy = copied(server)
    _put_back(memory, agent)
    restored(server, copy)
    _put_back(memory, agent)
    assert len(_stored(memory, kind)) == 1
    assert kind.seen(memory, agent) == (1, 1)
    memory.evict(agent)
    assert kind.seen(memory, agent) == (1, 1)


def test_one_that_was_no_letter_yet_on_the_other(memory: MemoryPlugin, server: RedisServer, kind: Kind) -> None:
    agent = agent_in(0)
    kind.write(memory, agent)
    copy = copied(server)
    _refused(memory)
    _put_back(memory, agent)
    restored(server, copy)
    memory.flush()
    assert len(_stored(memory, kind)) == 1
    assert kind.seen(memory, agent) == (1, 1)
    memory.evict(agent)
    assert kind.seen(memory, agent) == (1, 1)
