"""A database, or an environment, of another encoding than UTF-8: what both can say comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from banshee_memory import MemoryPlugin
from tests.own_servers import own_redis

SAID = "Ça va, élève?"
TOLD = {"été": "désolé"}


@pytest.fixture
def latin_url(database_url: str) -> Iterator[str]:
    name = f"latin_{uuid4().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C'".encode()
        )
        try:
            yield make_conninfo(database_url, dbname=name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_database_in_latin_1(latin_url: str, redis_url: str) -> None:
    with own_redis(redis_url) as redis:
        kept(latin_url, redis)


def test_an_environment_in_latin_1(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    kept(database_url, redis_url)


def test_an_address_in_latin_1(database_url: str, redis_url: str) -> None:
    kept(make_conninfo(database_url, client_encoding="LATIN1"), redis_url)


def kept(database_url: str, redis_url: str) -> None:
    agent = uuid4()
    with MemoryPlugin(database_url, redis_url) as memory:
        memory.migrate()
        said = memory.conversations.save_message(agent, "user", SAID, TOLD)
        memory.memories.store_memory(agent, "fact", "élan", TOLD)
        memory.evict(agent)
        assert memory.conversations.update_emotional_context(agent, said, TOLD)
        memory.evict(agent)
        (read,) = memory.conversations.get_history(agent)
        assert (read.content, read.metadata, read.emotional_context) == (SAID, TOLD, TOLD)
        assert memory.memories.retrieve_memory(agent, "fact", "élan") == TOLD
        memory.forget(agent)
