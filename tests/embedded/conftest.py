"""Data directories, checked after each test: nothing may be left running on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from banshee_memory.embedded import start
from tests.embedded.processes import stop


@pytest.fixture(scope="session")
def used_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with an odd name that was used once: a counter in Redis, another in PostgreSQL."""
    folder = tmp_path_factory.mktemp("used") / "it's a “data” dir"
    with start(folder) as servers:
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("kept", 1)
        with psycopg.connect(servers.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    stop(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def data_dir(used_data_dir: Path) -> Iterator[Path]:
    """That directory, whose counters have been moved by the tests before."""
    yield used_data_dir
    stop(used_data_dir)


@pytest.fixture
def new_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    folder = tmp_path / "a new one"
    yield folder
    stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
