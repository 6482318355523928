"""Where the tests' servers come from. Never from REDIS_URL and DATABASE_URL: those may hold somebody's data."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from banshee_memory.embedded import start

REDIS_VARIABLE = "BANSHEE_TEST_REDIS_URL"
DATABASE_VARIABLE = "BANSHEE_TEST_DATABASE_URL"
CONTAINERS_VARIABLE = "BANSHEE_TEST_CONTAINERS"

# What this package reads from a user's environment; the tests set what they need.
USERS_VARIABLES = (
    "REDIS_URL",
    "REDIS_PASSWORD",
    "DATABASE_URL",
    "DB_MIN_CONNECTIONS",
    "DB_MAX_CONNECTIONS",
    "BANSHEE_DATA_DIR",
    "BANSHEE_BACKLOG_LIMIT",
    "BANSHEE_EVENT_RETENTION_DAYS",
    "BANSHEE_MESSAGE_RETENTION_DAYS",
    "BANSHEE_SEARCH_LANGUAGE",
)


class Urls(NamedTuple):
    """A Redis and a PostgreSQL that tests may fill and empty as they like."""

    redis: str
    database: str


@contextmanager
def servers(folder: Path) -> Iterator[Urls]:
    """Servers named for tests, else containers where they are asked for, else the embedded ones in `folder`."""
    named = _named()
    if named is not None:
        yield named
    elif os.environ.get(CONTAINERS_VARIABLE) == "1":
        with containers() as urls:
            yield urls
    else:
        with start(folder) as embedded:
            yield Urls(embedded.redis_url, embedded.database_url)


@contextmanager
def containers() -> Iterator[Urls]:
    """Both servers as containers; a skip where no engine answers."""
    from docker.errors import DockerException
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    missing = ""
    try:
        redis = RedisContainer("redis:7-alpine")
        postgres = PostgresContainer("postgres:17-alpine", driver=None)
    except DockerException as exc:
        missing = f"no container engine answers: {exc}"
    if missing:
        _collect_sockets()
        pytest.skip(missing)
    with redis, postgres:
        host, port = redis.get_container_host_ip(), redis.get_exposed_port(redis.port)
        yield Urls(f"redis://{host}:{port}/0", postgres.get_connection_url())


def _collect_sockets() -> None:
    """The client that found no engine leaves its socket open; here that is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _named() -> Urls | None:
    redis, database = os.environ.get(REDIS_VARIABLE), os.environ.get(DATABASE_VARIABLE)
    if bool(redis) != bool(database):
        raise pytest.UsageError(f"{REDIS_VARIABLE} and {DATABASE_VARIABLE} belong together; set both or neither")
    return Urls(redis, database) if redis and database else None
