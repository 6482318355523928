"""Where the tests' servers come from. Never from REDIS_URL and DATABASE_URL: those may hold somebody's data."""

from __future__ import annotations

import gc
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis as driver

from banshee_memory.embedded import Binaries, start
from banshee_memory.embedded.binaries import bundled
from tests.matrix import second_pair

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
            _spare_the_disk(embedded.database_url)
            yield Urls(embedded.redis_url, embedded.database_url)


def _spare_the_disk(database_url: str) -> None:
    """What a process wrote outlives it, and no machine dies here. Else whoever commits, makes a database or ends a
    session with tables of its own would wait for a disk that others keep busy."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")


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


def programs() -> Binaries:
    """Of servers that a test starts: the second pair where the tests are given other servers than the bundled ones."""
    return (second_pair() if os.environ.get(REDIS_VARIABLE) else None) or bundled()


def program_of(like: str) -> Path:
    """The program that serves that URL of Redis, or the bundled one where that is elsewhere."""
    with driver.Redis.from_url(like) as client:
        serving = Path(str(client.info("server").get("executable", "")))
    return serving if serving.is_file() else bundled().redis_server


def until(true: Callable[[], object], *errors: type[Exception]) -> None:
    """Waits for a server to do what it was told; these errors say that it has not yet."""
    deadline = time.monotonic() + 30
    while True:
        with suppress(*errors):
            if true():
                return
        assert time.monotonic() < deadline, "a server did not do as it was told"
        time.sleep(0.002)


def limit_files(pid: int, size: int | None) -> None:
    """No file that the process writes may grow beyond that many bytes; None: any size."""
    limit = resource.RLIM_INFINITY if size is None else size
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
