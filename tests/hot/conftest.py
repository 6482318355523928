"""A server of their own for the tests of the Lua library, emptied before each, whose clock they set."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import redis

from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, agent_keys
from banshee_memory.settings import Settings
from tests.hot.raw import Server
from tests.own_servers import CLOCK, make_logs, own_redis


@pytest.fixture(scope="session")
def own_url(redis_url: str) -> Iterator[str]:
    with own_redis(like=redis_url) as url:
        yield url


@pytest.fixture(scope="session")
def loaded(own_url: str) -> Iterator[HotStore]:
    store = HotStore(own_url, Settings(), clock=CLOCK)
    store.load_library()
    yield store
    store.close()


@pytest.fixture
def hot(loaded: HotStore, own_url: str) -> HotStore:
    """The client of an empty server with the test build of the library."""
    with redis.Redis.from_url(own_url) as client:
        client.flushdb()
        make_logs(client)
    return loaded


@pytest.fixture
def server(hot: HotStore) -> Server:
    """The same server, called as any client can."""
    return Server(hot)


@pytest.fixture
def agent() -> UUID:
    """An agent nobody knows yet."""
    return uuid4()


@pytest.fixture
def keys(agent: UUID) -> AgentKeys:
    """The keys of that agent."""
    return agent_keys(agent, Settings().shards)
