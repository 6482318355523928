"""Each test of this folder runs on both clients, with the records of its agent in four placements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin
from banshee_memory.settings import MemoryPolicy, Settings
from tests.clients import Placement, awaited, placed
from tests.own_servers import CLOCK, own_database, own_redis
from tests.tiers import Tiers


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
def other(client: MemoryPlugin, sync_client: MemoryPlugin, async_client: MemoryPlugin) -> MemoryPlugin:
    """The client that `client` is not."""
    return async_client if client is sync_client else sync_client


@pytest.fixture(scope="session")
def timed(redis_url: str, database_url: str) -> Iterator[Tiers]:
    """Both tiers on servers of their own, whose clock tests set."""
    policies = {"scratch": MemoryPolicy(volatile=True)}
    settings = Settings(message_retention_days=None, event_retention_days=None, shards=4, memory_policies=policies)
    with own_redis(like=redis_url) as redis, own_database(database_url, settings) as database:
        tiers = Tiers(redis, database, settings, clock=CLOCK)
        tiers.hot.load_library()
        yield tiers
        tiers.close()


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
