"""Data directories, checked after each test: nothing may be left running on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from banshee_memory.embedded import start
from tests.embedded.processes import stop
from tests.folders import folder


@pytest.fixture(scope="session")
def used_data_dir() -> Iterator[Path]:
    """A directory with an odd name that was used once: a counter in Redis, another in PostgreSQL."""
    with folder("used-") as home:
        used = Path(home, "it's a “data” dir")
        with start(used) as servers:
            with redis.Redis.from_url(servers.redis_url) as client:
                client.set("kept", 1)
            with psycopg.connect(servers.database_url) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        stop(used)
        yield used


@pytest.fixture
def data_dir(used_data_dir: Path) -> Iterator[Path]:
    """That directory, whose counters have been moved by the tests before."""
    yield used_data_dir
    stop(used_data_dir)


@pytest.fixture
def new_dir() -> Iterator[Path]:
    """A directory that does not exist yet."""
    with folder("new-") as home:
        new = Path(home, "a new one")
        yield new
        stop(new)
