"""What a test breaks, fills or slows down is its own: a Redis, a PostgreSQL, or a database on the session's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import redis
from psycopg import sql

from banshee_memory.cold.migrate import migrate
from banshee_memory.settings import Settings
from tests.folders import folder
from tests.postgres_servers import PostgresServer
from tests.redis_servers import RedisServer
from tests.servers import program_of, programs, until

CLOCK = Path(__file__).with_name("clock.lua").read_text()
"""The clock of the test build of the Lua library: time stands at the key `CLOCK_KEY`, where that is set."""
CLOCK_KEY = "banshee:test:clock"


@contextmanager
def own_redis(like: str) -> Iterator[str]:
    """The URL of a new, empty server: the program that serves `like`, or the bundled one where that is elsewhere."""
    with running_redis(program_of(like), appendonly="no") as server:
        yield server.url


@contextmanager
def lasting_redis() -> Iterator[RedisServer]:
    """A new, empty server that can be killed and started again; its append-only file is synced every second."""
    with running_redis(programs().redis_server, appendfsync="everysec", maxmemory_policy="volatile-lru") as server:
        yield server


@contextmanager
def running_redis(program: Path, **settings: str | int) -> Iterator[RedisServer]:
    """A new, empty server with these settings."""
    with folder("redis-") as home:
        server = RedisServer(program, Path(home), **settings)
        try:
            server.start()
            make_logs(server.client)
            yield server
        finally:
            server.kill()


@contextmanager
def lasting_postgres(settings: Settings) -> Iterator[PostgresServer]:
    """A new server that can be killed and started again, with a migrated database."""
    with folder("postgres-") as home:
        server = PostgresServer(Path(home))
        try:
            migrate(server.begin(), settings)
            yield server
        finally:
            server.end()


def make_logs(client: redis.Redis) -> None:
    """What seeding does where PostgreSQL has nothing: an empty log for every shard there may be."""
    with client.pipeline(transaction=False) as packet:
        for shard in range(64):
            log = f"banshee:{{{shard}}}:log"
            packet.xadd(log, {"k": ""}, id="0-1")
            packet.xdel(log, "0-1")
        packet.execute()


def throw_out(connection: psycopg.Connection[Any], *, name: str = "", pid: int = 0) -> None:
    """Ends the sessions of that database, or the one of that process, and returns when they are gone."""
    found = "SELECT pid FROM pg_stat_activity WHERE datname = %s OR pid = %s"
    pids = [row[0] for row in connection.execute(found, [name, pid])]

    def are_gone() -> bool:
        # One that is only just starting may not hear it the first time.
        left = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY(%s::integer[])", [pids]
        )
        return not left.fetchall()

    until(are_gone)


@contextmanager
def own_database(beside: str, settings: Settings) -> Iterator[str]:
    """The URL of a new, migrated database on the server of that URL."""
    with empty_database(beside, like=_pattern(beside, settings.shards)) as url:
        yield url


@cache
def _pattern(beside: str, shards: int) -> str:
    """The name of a migrated database on that server, which nobody uses: to copy it takes less than to migrate anew."""
    name = f"pattern_{uuid4().hex}"
    with psycopg.connect(beside, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(psycopg.conninfo.make_conninfo(beside, dbname=name), Settings(shards=shards))
    _patterns.append((beside, name))
    return name


_patterns: list[tuple[str, str]] = []


def drop_patterns() -> None:
    """What databases were copied from goes."""
    while _patterns:
        beside, name = _patterns.pop()
        # The database that was named may be gone by now; this one is always there.
        with psycopg.connect(psycopg.conninfo.make_conninfo(beside, dbname="template1"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    _pattern.cache_clear()


@contextmanager
def empty_database(beside: str, like: str = "template1") -> Iterator[str]:
    """The URL of a new database on the server of that URL, with nothing in it but what is in the one it is `like`."""
    name = f"own_{uuid4().hex}"
    with psycopg.connect(beside, autocommit=True) as connection:
        # Files are copied as they are: page by page and through the log it takes more than twice as long.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(like)))
        # Nobody pulls the plug of this one.
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
        try:
            yield psycopg.conninfo.make_conninfo(beside, dbname=name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
