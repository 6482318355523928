"""The two clients of PostgreSQL, for threads and for tasks: they run what `reads` plans, and open a drain.

Nothing connects before the first call. Opening asks one connection of its own whether the server is there and the
schema is right, so a server that is down is told at once and in its own words. When a connection breaks, its whole pool
is given up: the others are most likely broken too, and the next call begins anew, with the server as it is then.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.reads import Query, server_version
from banshee_memory.cold.schema import require_current
from banshee_memory.errors import ColdStoreUnavailable, IncompatibleSchema
from banshee_memory.failpoints import failpoint
from banshee_memory.settings import Settings

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    from banshee_memory.cold.drain import Drain
    from banshee_memory.cold.session import AsyncBoundedConnection, BoundedConnection

T = TypeVar("T")
SWEPT_AT_ONCE = 1_000
_MAINTENANCE = 600.0
# What the pool's background work has to say is raised to the caller anyway; without a handler it would go to stderr.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())


class Ping(NamedTuple):
    """The server's version, and the seconds that asking for it took."""

    version: str
    seconds: float


class ColdStore:
    """PostgreSQL, for any number of threads.

    Every call may raise ColdStoreUnavailable, IncompatibleSchema or ConfigurationError.
    """

    def __init__(self, database_url: str, settings: Settings) -> None:
        self.database_url = database_url
        self.settings = settings
        self._opening = threading.Lock()
        self._pool: ConnectionPool[BoundedConnection] | None = None

    def fetch(self, query: Query[T]) -> T:
        """What the plan asks for, in one round trip."""
        try:
            with self.connection() as connection:
                rows = connection.rows(query.sql, query.params)
        except ColdStoreUnavailable as exc:
            _require_lost(exc)
            # The server was restarted since: a read can be repeated, and this time it is asked by a new connection.
            with self.connection() as connection:
                rows = connection.rows(query.sql, query.params)
        return _decoded(query, rows)

    def ping(self) -> Ping:
        """Whether and how fast the server answers."""
        self.fetch(server_version())  # the first call connects
        began = perf_counter()
        version = self.fetch(server_version())
        return Ping(version, perf_counter() - began)

    def check_schema(self) -> None:
        """Whether the schema is still this version's: somebody may have migrated since the first call."""
        with self.connection() as connection:
            _require_current(connection.execute(STATEMENTS["schema_state"].sql).fetchall(), self.settings)

    def drain(self, shards: Sequence[int], wait: float | None = None) -> AbstractContextManager[Drain]:
        """The write side of one flush: see `drain.Drain`.

        It holds the shards that nobody else holds, or with `wait` all of them, after at most that many seconds.
        """
        from banshee_memory.cold.drain import drained

        return drained(self, shards, wait)

    def prepare_partitions(self, now: datetime) -> int:
        """Creates the partitions of now and of `Settings.partitions_ahead` more; returns how many were missing."""
        from banshee_memory.cold.partitions import ensure_ahead

        with self.connection() as connection:
            return ensure_ahead(connection, now, self.settings.partitions_ahead)

    def drop_expired(self, now: datetime) -> list[str]:
        """Drops the partitions that lie wholly beyond retention, for a day; returns their names.

        Adding up the events of one takes about a second a million.
        """
        from banshee_memory.cold.partitions import drop_expired

        with self.connection() as connection:
            connection.budget = _MAINTENANCE
            return drop_expired(connection, now, self.settings)

    def compact_rollups(self, now: datetime) -> int:
        """Makes days of some hours that are beyond `Settings.hourly_rollup_days`; returns how many hours.

        Fewer than `SWEPT_AT_ONCE`: that was all.
        """
        with self.connection() as connection:
            params = {"before": now - timedelta(days=self.settings.hourly_rollup_days), "limit": SWEPT_AT_ONCE}
            compacted = int(connection.execute(STATEMENTS["compact_rollups"].sql, params).fetchall()[0][0])
        failpoint("sweep.rollups_compacted")
        return compacted

    def sweep_memories(self, now: datetime) -> int:
        """Makes tombstones of some memories that expired, and forgets some old tombstones; returns how many of both.

        Fewer than `SWEPT_AT_ONCE`: that was all.
        """
        with self.connection() as connection:
            params = {"now": now, "limit": SWEPT_AT_ONCE}
            swept = int(connection.execute(STATEMENTS["sweep_memories"].sql, params).fetchall()[0][0])
        failpoint("sweep.memories_swept")
        return swept

    def sweep_replies(self, shard: int, before: int) -> int:
        """Forgets some calls of a shard that were made before that stamp; fewer than `SWEPT_AT_ONCE`: that was all."""
        with self.connection() as connection:
            params = {"shard": shard, "stamp": before, "limit": SWEPT_AT_ONCE}
            return int(connection.execute(STATEMENTS["sweep_replies"].sql, params).fetchall()[0][0])

    def index_words(self, now: datetime, stopped: threading.Event) -> Iterator[str]:
        """Builds the indexes of words that closed partitions lack; gives each statement once done. See `words`."""
        from banshee_memory.cold.words import build

        return build(self, now, stopped)

    def sweep_recoveries(self, kept: int) -> int:
        """Forgets all but the latest recoveries; returns how many."""
        with self.connection() as connection:
            return int(connection.execute(STATEMENTS["sweep_recoveries"].sql, {"kept": kept}).fetchall()[0][0])

    def close(self) -> None:
        """Closes the connections; calling it again does nothing, another call to the store opens it again."""
        with self._opening:
            pool, self._pool = self._pool, None
        if pool:
            pool.close(self.settings.connect_timeout + 1)

    def connection(self) -> AbstractContextManager[BoundedConnection]:
        """A connection of the pool, in autocommit; the driver's errors leave as ours."""
        from banshee_memory.cold.lending import Lent

        return Lent(self)

    @contextmanager
    def extra_connection(self) -> Iterator[BoundedConnection]:
        """A connection beside the pool, in autocommit: for who holds one of the pool's, which may be its last."""
        from banshee_memory.cold.failures import translated
        from banshee_memory.cold.session import BoundedConnection, connection_arguments

        with (
            translated(self._server),
            BoundedConnection.connect(**connection_arguments(self.database_url, self.settings)) as connection,
        ):
            connection.budget = self.settings.flush_timeout
            yield connection

    @property
    def _server(self) -> str:
        from banshee_memory.cold.session import server_of

        return server_of(self.database_url)

    def opened(self) -> ConnectionPool[BoundedConnection]:
        """The pool that is in use, for `lending`."""
        if self._pool:
            return self._pool
        with self._opening:
            if self._pool is None:
                self._pool = self._open()
            return self._pool

    def _open(self) -> ConnectionPool[BoundedConnection]:
        from psycopg_pool import ConnectionPool

        from banshee_memory.cold.failures import translated
        from banshee_memory.cold.session import GRACE, BoundedConnection, connection_arguments, pool_arguments

        with (
            translated(self._server),
            BoundedConnection.connect(**connection_arguments(self.database_url, self.settings)) as probe,
        ):
            probe.budget = self.settings.call_timeout + GRACE
            _require_current(probe.execute(STATEMENTS["schema_state"].sql).fetchall(), self.settings)
        pool: ConnectionPool[BoundedConnection] = ConnectionPool(
            connection_class=BoundedConnection, **pool_arguments(self.database_url, self.settings)
        )
        pool.open()
        return pool

    def give_up(self, pool: ConnectionPool[BoundedConnection]) -> None:
        """Closes a pool a connection of which broke."""
        with self._opening:
            if self._pool is pool:
                self._pool = None
        pool.close(0)


class AsyncColdStore:
    """PostgreSQL, for any number of tasks of one event loop: it reads; flushing is a thread's work."""

    def __init__(self, database_url: str, settings: Settings) -> None:
        self.database_url = database_url
        self.settings = settings
        self._opening = asyncio.Lock()
        self._pool: AsyncConnectionPool[AsyncBoundedConnection] | None = None

    async def fetch(self, query: Query[T]) -> T:
        """What the plan asks for, in one round trip."""
        try:
            async with self.connection() as connection:
                rows = await connection.rows(query.sql, query.params)
        except ColdStoreUnavailable as exc:
            _require_lost(exc)
            async with self.connection() as connection:
                rows = await connection.rows(query.sql, query.params)
        return _decoded(query, rows)

    async def ping(self) -> Ping:
        """Whether and how fast the server answers."""
        await self.fetch(server_version())
        began = perf_counter()
        version = await self.fetch(server_version())
        return Ping(version, perf_counter() - began)

    async def aclose(self) -> None:
        """Closes the connections; calling it again does nothing, another call to the store opens it again."""
        async with self._opening:
            pool, self._pool = self._pool, None
        if pool:
            await pool.close(self.settings.connect_timeout + 1)

    def connection(self) -> AbstractAsyncContextManager[AsyncBoundedConnection]:
        """A connection of the pool, in autocommit; the driver's errors leave as ours."""
        from banshee_memory.cold.lending import AsyncLent

        return AsyncLent(self)

    @property
    def _server(self) -> str:
        from banshee_memory.cold.session import server_of

        return server_of(self.database_url)

    async def opened(self) -> AsyncConnectionPool[AsyncBoundedConnection]:
        """The pool that is in use, for `lending`."""
        if self._pool:
            return self._pool
        async with self._opening:
            if self._pool is None:
                self._pool = await self._open()
            return self._pool

    async def _open(self) -> AsyncConnectionPool[AsyncBoundedConnection]:
        from psycopg_pool import AsyncConnectionPool

        from banshee_memory.cold.failures import translated
        from banshee_memory.cold.session import (
            GRACE,
            AsyncBoundedConnection,
            connection_arguments,
            pool_arguments,
        )

        with translated(self._server):
            arguments = connection_arguments(self.database_url, self.settings)
            async with await AsyncBoundedConnection.connect(**arguments) as probe:
                probe.budget = self.settings.call_timeout + GRACE
                cursor = await probe.execute(STATEMENTS["schema_state"].sql)
                _require_current(await cursor.fetchall(), self.settings)
        pool: AsyncConnectionPool[AsyncBoundedConnection] = AsyncConnectionPool(
            connection_class=AsyncBoundedConnection, **pool_arguments(self.database_url, self.settings)
        )
        await pool.open()
        return pool

    async def give_up(self, pool: AsyncConnectionPool[AsyncBoundedConnection]) -> None:
        """Closes a pool a connection of which broke."""
        if self._pool is pool:
            self._pool = None
        await pool.close(self.settings.connect_timeout)


def _require_current(rows: Sequence[tuple[Any, ...]], settings: Settings) -> None:
    applied, shards = rows[0]
    require_current(applied, shards, settings.shards)


def _require_lost(exc: ColdStoreUnavailable) -> None:
    """Raises it, unless it was a connection that broke."""
    from banshee_memory.cold.failures import ConnectionLost

    if not isinstance(exc, ConnectionLost):
        raise exc


def _decoded(query: Query[T], rows: Sequence[tuple[Any, ...]]) -> T:
    try:
        return query.decode(rows)
    except msgspec.MsgspecError as exc:
        raise IncompatibleSchema(f"{query.name} gave what this version cannot read: {exc}") from exc
