"""Databases of the cold tests' own, on the session's server: made for a test or a module, dropped after it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory.cold.client import ColdStore
from banshee_memory.settings import Settings
from tests.own_servers import empty_database, own_database


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(shards=8, db_max_connections=4, connect_timeout=10, call_timeout=30, flush_timeout=30)


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """A database without a schema."""
    with empty_database(database_url) as url:
        yield url


@pytest.fixture
def fresh_url(database_url: str, settings: Settings) -> Iterator[str]:
    """A migrated database of the test's own."""
    with own_database(database_url, settings) as url:
        yield url


@pytest.fixture(scope="module")
def url(database_url: str, settings: Settings) -> Iterator[str]:
    """A migrated database that the tests of a module share; each has agents of its own."""
    with own_database(database_url, settings) as url:
        yield url


@pytest.fixture
def store(url: str, settings: Settings) -> Iterator[ColdStore]:
    store = ColdStore(url, settings)
    yield store
    store.close()


@pytest.fixture
def agent() -> UUID:
    return uuid4()
