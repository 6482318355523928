"""How this package connects. Imports the driver: whoever needs it imports it when first connecting.

The session's settings travel in the connection's `options`, so they cost no round trip and survive DISCARD ALL. A URL
that brings its own `options`, were they empty, keeps those alone: that is how to pass a pooler that refuses them, with
`ALTER ROLE ... SET plan_cache_mode = force_generic_plan, timezone = 'UTC'` in their place.

Two clocks bound a call. `statement_timeout` stops the server's work after `Settings.call_timeout`; a server that no
longer says anything at all (stopped, cut off) is given up by the client `GRACE` seconds later.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from functools import cached_property
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg import adapt, conninfo
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper
from psycopg.types.string import ByteaBinaryLoader

from banshee_memory.cold.failures import Overdue
from banshee_memory.cold.prepared import Prepared, Row
from banshee_memory.errors import ConfigurationError
from banshee_memory.settings import Settings

V = TypeVar("V")
GRACE = 1.0
_OPTIONS = (
    "-c TimeZone=UTC -c plan_cache_mode=force_generic_plan -c jit=off -c client_min_messages=warning "
    "-c statement_timeout={call_ms}"
)


def server_of(database_url: str) -> str:
    """The server of that URL in words for messages, without its password. ConfigurationError if it is no URL."""
    told = _told(database_url)
    where = told.get("host") or told.get("hostaddr") or "the default socket"
    port = f":{told['port']}" if told.get("port") else ""
    return f"{where}{port}, database {told.get('dbname') or told.get('user') or 'by default'}"


def connection_arguments(database_url: str, settings: Settings) -> dict[str, Any]:
    """The arguments of the driver's `connect`."""
    return {"conninfo": _conninfo(database_url, settings), "autocommit": True, "context": _adapters()}


def pool_arguments(database_url: str, settings: Settings) -> dict[str, Any]:
    """The arguments of the driver's pools; `open` them afterwards."""
    arguments = connection_arguments(database_url, settings)
    return {
        "conninfo": arguments.pop("conninfo"),
        "kwargs": arguments,
        "min_size": settings.db_min_connections,
        "max_size": settings.db_max_connections,
        "timeout": settings.connect_timeout,
        "reconnect_timeout": settings.connect_timeout,
        "num_workers": 1,
        "open": False,
    }


def _conninfo(database_url: str, settings: Settings) -> str:
    told = _told(database_url)
    options = _OPTIONS.format(call_ms=milliseconds(settings.call_timeout))
    told.setdefault("options", options)
    told.setdefault("application_name", "banshee-memory")
    told["client_encoding"] = "UTF8"  # JSON is sent and read as the bytes that it travels as
    told["connect_timeout"] = max(math.ceil(settings.connect_timeout), 1)
    return conninfo.make_conninfo("", **told)


def _adapters() -> adapt.AdaptersMap:
    # Every int is an int8: one prepared statement, whatever the size of its numbers.
    known = adapt.AdaptersMap(psycopg.adapters)
    known.register_dumper(int, Int8Dumper)
    known.register_dumper(int, Int8BinaryDumper)
    # JSON is what it travels as, for whoever knows what it says: see codec.
    known.register_loader("jsonb", ByteaBinaryLoader)
    return known


class BoundedConnection(psycopg.Connection[Row]):
    """A connection that waits for the server at most `budget` seconds in a row; then it is closed."""

    budget = math.inf

    @cached_property
    def prepared(self) -> Prepared:
        """What reads have prepared on it."""
        return Prepared(self)

    def rows(self, sql: str, params: Mapping[str, Any]) -> list[Row]:
        """What a read gives: a statement that is prepared when it is first asked."""
        return self.wait(self.prepared.rows(sql, params))

    def wait(self, gen: Generator[Any, Any, V], *args: Any, **kwargs: Any) -> V:
        """Runs a step of the driver's protocol to its end."""
        return super().wait(_bounded(self, self.budget, gen), *args, **kwargs)


class AsyncBoundedConnection(psycopg.AsyncConnection[Row]):
    """The same for asyncio."""

    budget = math.inf

    @cached_property
    def prepared(self) -> Prepared:
        """What reads have prepared on it."""
        return Prepared(self)

    async def rows(self, sql: str, params: Mapping[str, Any]) -> list[Row]:
        """What a read gives: a statement that is prepared when it is first asked."""
        return await self.wait(self.prepared.rows(sql, params))

    async def wait(self, gen: Generator[Any, Any, V], *args: Any, **kwargs: Any) -> V:
        """Runs a step of the driver's protocol to its end."""
        return await super().wait(_bounded(self, self.budget, gen), *args, **kwargs)


def _bounded(
    connection: BoundedConnection | AsyncBoundedConnection, seconds: float, gen: Generator[Any, Any, V]
) -> Generator[Any, Any, V]:
    # The driver wakes the step every now and then, with nothing: that is when to look at the clock.
    deadline = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > deadline:
                connection.pgconn.finish()
                raise Overdue(f"no answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _told(database_url: str) -> dict[str, Any]:
    try:
        return dict(conninfo.conninfo_to_dict(database_url))
    except psycopg.ProgrammingError as exc:
        raise ConfigurationError(f"DATABASE_URL cannot be read: {str(exc).strip()}") from exc


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least one: 0 would mean no limit."""
    return max(math.ceil(seconds * 1_000), 1)
