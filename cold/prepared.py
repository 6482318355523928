"""Reads in the driver's own protocol: a statement is prepared once a connection, and answered without a cursor.

A cursor takes as long to get ready as PostgreSQL takes to find a page. What is left of it here: the driver's adapters
dump parameters and load rows, in binary, and its generators wait, so that time limits and interruptions are those of
every other call. Imports the driver: whoever needs it imports it when first connecting.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg.abc import Transformer as Loading
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from banshee_memory.cold.queries import numbered

Row = tuple[Any, ...]
_AUTO = PyFormat.AUTO
_TUPLES = ExecStatus.TUPLES_OK
_INT8 = psycopg.adapters.types["int8"].oid
_FORGOTTEN = (errors.InvalidSqlStatementName, errors.FeatureNotSupported)
"""The server does not know the statement any more (the driver lets it forget all after a rollback; DISCARD ALL), or its
tables have other columns than when it was prepared."""


class Prepared:
    """The statements that one connection has prepared."""

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._dumping = Transformer(connection)
        self._known: dict[tuple[str, tuple[int, ...]], _Statement] = {}
        self._names = 0

    def rows(self, sql: str, params: Mapping[str, Any]) -> Generator[Any, Any, list[Row]]:
        """What a statement gives; to be run by the connection's `wait`."""
        text, names = numbered(sql)
        dumping = self._dumping
        values = dumping.dump_sequence([params[name] for name in names], [_AUTO] * len(names))
        # The dumpers say what they made of a value, and so which of PostgreSQL's types the parameter is.
        types, formats = dumping.types or (), dumping.formats
        known = self._known.get((sql, types))
        if known is not None:
            try:
                return (yield from known.rows(values, formats))
            except _FORGOTTEN:
                del self._known[sql, types]
        known = yield from self._prepare(text, types)
        self._known[sql, types] = known
        return (yield from known.rows(values, formats))

    def _prepare(self, text: bytes, types: tuple[int, ...]) -> Generator[Any, Any, _Statement]:
        # Whoever was interrupted does not know whether a name was taken, so each is used once.
        self._names += 1
        name = b"banshee_%d" % self._names
        self._connection.pgconn.send_prepare(name, text, types)
        yield from _result(self._connection, ExecStatus.COMMAND_OK)
        return _Statement(self._connection, name)


class _Statement:
    """One of them: its name, and what loads its rows once it is known of which types their columns are."""

    __slots__ = ("_connection", "_loading", "_name")

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], name: bytes) -> None:
        self._connection = connection
        self._name = name
        self._loading: Loading | None = None

    def rows(self, values: Any, formats: Any) -> Generator[Any, Any, list[Row]]:
        self._connection.pgconn.send_query_prepared(self._name, values, formats, Format.BINARY)
        result = yield from _result(self._connection, _TUPLES)
        loading = self._loading
        if loading is None:
            loading = self._loading = Transformer(self._connection)
            loading.set_loader_types([_type_of(result, column) for column in range(result.nfields)], Format.BINARY)
        loading.set_pgresult(result, set_loaders=False)
        rows = loading.load_rows(0, result.ntuples, tuple)
        loading.set_pgresult(None, set_loaders=False)
        return rows


def _type_of(result: PGresult, column: int) -> int:
    """Of a column of the result. A time that a statement calls `pg_us` is the number that it travels as."""
    return _INT8 if result.fname(column) == b"pg_us" else result.ftype(column)


def _result(
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], wanted: ExecStatus
) -> Generator[Any, Any, PGresult]:
    results = yield from generators.execute(connection.pgconn)
    result: PGresult = results[-1]
    if result.status != wanted:
        raise errors.error_from_result(result, connection.info.encoding)
    return result
