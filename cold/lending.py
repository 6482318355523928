"""A connection of a client's pool, lent for a block: whoever has it is its only user, and it always comes back.

Classes instead of generators with a decorator, as each read begins and ends here. Imports the driver: whoever needs it
imports it when first connecting.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from banshee_memory.cold.failures import failure_of
from banshee_memory.cold.session import GRACE, AsyncBoundedConnection, BoundedConnection, server_of
from banshee_memory.errors import ColdStoreUnavailable

if TYPE_CHECKING:
    from banshee_memory.cold.client import AsyncColdStore, ColdStore


class Lent(AbstractContextManager[BoundedConnection, None]):
    """A connection of the store's pool, in autocommit; the driver's errors leave the block as ours."""

    __slots__ = ("_connection", "_pool", "_store")

    def __init__(self, store: ColdStore) -> None:
        self._store = store

    def __enter__(self) -> BoundedConnection:
        while True:
            pool = self._store.opened()
            try:
                connection = pool.getconn()
            except PoolClosed:
                continue  # another thread gave it up meanwhile
            except PoolTimeout as exc:
                raise _none_free(self._store) from exc
            connection.budget = self._store.settings.call_timeout + GRACE
            self._pool, self._connection = pool, connection
            return connection

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        pool, connection = self._pool, self._connection
        lost = connection.closed
        if lost:
            self._store.give_up(pool)
        pool.putconn(connection)
        if isinstance(exc, psycopg.Error):
            raise failure_of(exc, server_of(self._store.database_url), lost=lost) from exc


class AsyncLent(AbstractAsyncContextManager[AsyncBoundedConnection, None]):
    """The same for asyncio."""

    __slots__ = ("_connection", "_pool", "_store")

    def __init__(self, store: AsyncColdStore) -> None:
        self._store = store

    async def __aenter__(self) -> AsyncBoundedConnection:
        while True:
            pool = await self._store.opened()
            try:
                connection = await pool.getconn()
            except PoolClosed:
                continue
            except PoolTimeout as exc:
                raise _none_free(self._store) from exc
            connection.budget = self._store.settings.call_timeout + GRACE
            self._pool, self._connection = pool, connection
            return connection

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        pool, connection = self._pool, self._connection
        lost = connection.closed
        if lost:
            await asyncio.shield(self._store.give_up(pool))
        # Not even a cancelled task may keep what it took: the pool would run dry.
        await asyncio.shield(pool.putconn(connection))
        if isinstance(exc, psycopg.Error):
            raise failure_of(exc, server_of(self._store.database_url), lost=lost) from exc


def _none_free(store: ColdStore | AsyncColdStore) -> ColdStoreUnavailable:
    settings = store.settings
    return ColdStoreUnavailable(
        f"PostgreSQL at {server_of(store.database_url)}: no connection within {settings.connect_timeout:g} s. All "
        f"{settings.db_max_connections} may be in use: raise DB_MAX_CONNECTIONS."
    )
