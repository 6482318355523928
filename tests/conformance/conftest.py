"""Each test of this folder runs on both clients, with the records of its agent in four placements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin
from tests.clients import Placement, awaited, placed


@pytest.fixture(scope="session")
def sync_client(redis_url: str, database_url: str) -> Iterator[MemoryPlugin]:
    with MemoryPlugin(database_url, redis_url) as memory:
        yield memory


@pytest.fixture(scope="session")
def async_client(redis_url: str, database_url: str) -> Iterator[MemoryPlugin]:
    with asyncio.Runner() as runner:
        memory = AsyncMemoryPlugin(database_url, redis_url)
        yield awaited(memory, runner)
        runner.run(memory.aclose())


@pytest.fixture(scope="session", autouse=True)
def _migrated(redis_url: str, database_url: str) -> None:
    MemoryPlugin(database_url, redis_url).migrate()


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> MemoryPlugin:
    """One client after the other, called alike."""
    chosen: MemoryPlugin = request.getfixturevalue(f"{request.param}_client")
    return chosen


@pytest.fixture(params=list(Placement), ids=lambda placement: placement.value.replace(" ", "-"))
def memory(client: MemoryPlugin, request: pytest.FixtureRequest) -> MemoryPlugin:
    """A client under which records are where the placement says."""
    return placed(client, request.param)


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
