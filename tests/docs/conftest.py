"""What the documentation shows runs on the session's servers."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import MemoryPlugin


@pytest.fixture(scope="session")
def urls(redis_url: str, database_url: str) -> tuple[str, str]:
    """(redis_url, database_url), migrated."""
    MemoryPlugin(database_url, redis_url).migrate()
    return redis_url, database_url


@pytest.fixture(scope="module")
def memory(urls: tuple[str, str]) -> Iterator[MemoryPlugin]:
    """A client of both."""
    with MemoryPlugin(urls[1], urls[0]) as plugin:
        yield plugin


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
