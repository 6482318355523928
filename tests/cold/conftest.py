"""Databases of the cold tests' own, on the session's server: made for a test or a module, dropped after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.migrate import migrate
from banshee_memory.settings import Settings


@contextmanager
def scratch_database(server: str) -> Iterator[str]:
    name = Identifier(f"cold_{uuid4().hex}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(name))
        try:
            yield make_conninfo(server, dbname=name.as_string(None).strip('"'))
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(shards=8, db_max_connections=4, connect_timeout=10, call_timeout=30, flush_timeout=30)


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """A database without a schema."""
    with scratch_database(database_url) as url:
        yield url


@pytest.fixture
def fresh_url(empty_url: str, settings: Settings) -> str:
    """A migrated database of the test's own."""
    migrate(empty_url, settings)
    return empty_url


@pytest.fixture(scope="module")
def url(database_url: str, settings: Settings) -> Iterator[str]:
    """A migrated database that the tests of a module share; each has agents of its own."""
    with scratch_database(database_url) as url:
        migrate(url, settings)
        yield url


@pytest.fixture
def store(url: str, settings: Settings) -> Iterator[ColdStore]:
    store = ColdStore(url, settings)
    yield store
    store.close()


@pytest.fixture
def agent() -> UUID:
    return uuid4()
