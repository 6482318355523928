"""A database that the original plugin wrote, to be read: nothing is ever written to it. Imports the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from banshee_memory.cold.failures import failure_of
from banshee_memory.cold.queries import statements
from banshee_memory.cold.session import connection_arguments, server_of
from banshee_memory.errors import ConfigurationError
from banshee_memory.settings import Settings

KINDS = ("sessions", "states", "memories", "events", "messages")
"""In the order in which they go over."""
_TABLES = {
    "states": "emotional_states",
    "events": "emotional_events",
    "messages": "conversation_messages",
    "memories": "memory_records",
    "sessions": "agent_sessions",
}
_PAGE = 2_000
_SQL = statements("original.sql")


class Original:
    """One snapshot of the original's database. Every call may raise ColdStoreUnavailable or ConfigurationError."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], server: str) -> None:
        self._connection = connection
        self._server = server
        self._present = self._require_original()

    def count(self, kind: str) -> int:
        """How many rows of a kind there are to take over."""
        return self._number(f"count_{kind}") if kind in self._present else 0

    def superseded_states(self) -> int:
        """How many states there are of which their agent has a newer one."""
        return self._number("count_superseded_states")

    def rows(self, kind: str) -> Iterator[bytes]:
        """The rows of a kind, each as a JSON object, always in the same order."""
        if kind not in self._present:
            return
        with self._told(), self._connection.cursor(name=f"banshee_{kind}") as cursor:
            cursor.itersize = _PAGE
            for (row,) in cursor.execute(_SQL[f"original_{kind}"].sql):
                yield str(row).encode()

    def _require_original(self) -> set[str]:
        with self._told():
            if self._one("original_is_ours"):
                raise ConfigurationError(
                    "--from-postgres names a database of banshee-memory, not of the original plugin"
                )
            tables = {str(name) for (name,) in self._connection.execute(_SQL["original_tables"].sql)}
        missing = {table for kind, table in _TABLES.items() if kind != "sessions"} - tables
        if missing:
            raise ConfigurationError(f"--from-postgres: {self._server} has no table {', '.join(sorted(missing))}")
        return {kind for kind, table in _TABLES.items() if table in tables}

    def _number(self, name: str) -> int:
        with self._told():
            return int(str(self._one(name)))

    def _one(self, name: str) -> object:
        return self._connection.execute(_SQL[name].sql).fetchall()[0][0]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as exc:
            raise failure_of(exc, self._server) from exc


@contextmanager
def original(url: str, settings: Settings) -> Iterator[Original]:
    """The database of that URL, as it is now."""
    server = server_of(url)
    arguments = connection_arguments(url, settings)
    try:
        connection = psycopg.Connection.connect(**arguments)
    except psycopg.Error as exc:
        raise failure_of(exc, server) from exc
    with connection:
        connection.execute("SET statement_timeout = 0")
        connection.execute(_SQL["original_begin"].sql)
        yield Original(connection, server)
