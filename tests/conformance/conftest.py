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
from tests.tiers import Tiers, by_the_library

TIMED = Settings(
    message_retention_days=None,
    event_retention_days=None,
    shards=4,
    memory_policies={"scratch": MemoryPolicy(volatile=True)},
)


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
def placement(request: pytest.FixtureRequest) -> Placement:
    """One placement after the other."""
    chosen: Placement = request.param
    return chosen


@pytest.fixture
def memory(client: MemoryPlugin, placement: Placement) -> MemoryPlugin:
    """A client under which records are where the placement says."""
    return placed(client, placement)


@pytest.fixture
def other(client: MemoryPlugin, sync_client: MemoryPlugin, async_client: MemoryPlugin) -> MemoryPlugin:
    """The client that `client` is not."""
    return async_client if client is sync_client else sync_client


@pytest.fixture(scope="session")
def timed_urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, TIMED) as database:
        yield redis, database


@pytest.fixture(scope="session")
def timed(timed_urls: tuple[str, str]) -> Iterator[Tiers]:
    """Both tiers on servers of their own, whose clock tests set."""
    tiers = Tiers(*timed_urls, TIMED, clock=CLOCK)
    tiers.hot.load_library()
    yield tiers
    tiers.close()


@pytest.fixture(scope="session")
def timed_clients(timed: Tiers, timed_urls: tuple[str, str]) -> Iterator[dict[str, MemoryPlugin]]:
    redis, database = timed_urls
    with MemoryPlugin(database, redis, settings=TIMED) as plugin, asyncio.Runner() as runner:
        twin = AsyncMemoryPlugin(database, redis, settings=TIMED)
        by_the_library(plugin._operations, twin._operations)
        yield {"sync": plugin, "async": awaited(twin, runner)}
        runner.run(twin.aclose())


@pytest.fixture(params=["sync", "async"])
def timed_client(timed_clients: dict[str, MemoryPlugin], request: pytest.FixtureRequest) -> MemoryPlugin:
    """One client of those servers after the other."""
    return timed_clients[request.param]


@pytest.fixture
def timed_memory(timed_client: MemoryPlugin, placement: Placement) -> MemoryPlugin:
    """A client of those servers under which records are where the placement says."""
    return placed(timed_client, placement)


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
