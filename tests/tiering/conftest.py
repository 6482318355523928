"""Both tiers for the tests of what runs between them: a Redis and a database of their own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory.settings import MemoryPolicy, Settings
from tests.own_servers import CLOCK, own_database, own_redis
from tests.redis_servers import Redises, RedisServer, redises
from tests.tiers import Tiers

SETTINGS = Settings(
    message_cap=3,
    event_cap=3,
    message_retention_days=None,
    event_retention_days=None,
    shards=4,
    memory_policies={"scratch": MemoryPolicy(volatile=True)},
)
"""Lists so short that they are trimmed, shards so few that agents share one."""


@pytest.fixture(scope="session")
def own_urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as redis, own_database(database_url, SETTINGS) as database:
        yield redis, database


@pytest.fixture(scope="session")
def tiers(own_urls: tuple[str, str]) -> Iterator[Tiers]:
    """A client whose clock tests may set: the test build of the library."""
    client = Tiers(*own_urls, SETTINGS, clock=CLOCK)
    client.hot.load_library()
    yield client
    client.close()


@pytest.fixture(scope="session")
def intruder(own_urls: tuple[str, str]) -> Iterator[Tiers]:
    """Another client of the same servers."""
    client = Tiers(*own_urls, SETTINGS, clock=CLOCK)
    yield client
    client.close()


@pytest.fixture
def servers(redis_url: str) -> Iterator[Redises]:
    """Servers of Redis to be killed, and one address in front of them."""
    with redises(redis_url) as every:
        yield every


@pytest.fixture
def server(servers: Redises) -> RedisServer:
    """The one that clients are led to."""
    only = servers.new()
    servers.front.lead_to(only)
    return only


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()
