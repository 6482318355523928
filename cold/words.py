"""Indexes of words: what makes a search cost what it finds, instead of what the agent ever said.

Each is of one partition of messages and one language. It is built once the partition is closed: one on the partition
that is written to would slow every flush down. It is built beside readers and writers (CONCURRENTLY), so outside of
transactions and functions, and only by a role that owns the tables. A build that was cut off leaves an index that is
not valid: no search uses it, the next build replaces it. Imports the driver.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import psycopg

from banshee_memory.cold.failures import translated
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.reads import LEAST_INDEXED
from banshee_memory.cold.session import BoundedConnection, connection_arguments, server_of
from banshee_memory.failpoints import failpoint
from banshee_memory.settings import Settings

if TYPE_CHECKING:
    from banshee_memory.cold.client import ColdStore

V = TypeVar("V")
_CLOSED_FOR = timedelta(hours=1)
_LONGEST = 3_600.0


def build(store: ColdStore, now: datetime, stopped: threading.Event, *, least: int = LEAST_INDEXED) -> Iterator[str]:
    """Builds what closed partitions within retention lack, the newest first; gives each statement once it is done.

    Returns early when it is `stopped`, also in the middle of a statement.
    """
    with store.connection() as connection:
        steps = _steps(connection, now, store.settings, least)
    if not steps:
        return
    with _building(store, stopped) as connection:
        for step in steps:
            if stopped.is_set():
                return
            connection.execute(step.encode())
            failpoint("words.step_done")
            yield step


def _steps(connection: BoundedConnection, now: datetime, settings: Settings, least: int) -> list[str]:
    days = settings.message_retention_days
    params = {
        "language": settings.search_language,
        "since": None if days is None else now - timedelta(days=days),
        "until": now - _CLOSED_FOR,
        "least": least,
    }
    return [step for (step,) in connection.execute(STATEMENTS["word_index_steps"].sql, params).fetchall()]


class _Building(BoundedConnection):
    """A connection whose statement is cancelled as soon as `stopped` is set."""

    stopped = threading.Event()

    def wait(self, gen: Generator[Any, Any, V], *args: Any, **kwargs: Any) -> V:
        """Runs a step of the driver's protocol to its end."""
        return super().wait(self._cancelled_once(gen), *args, **kwargs)

    def _cancelled_once(self, gen: Generator[Any, Any, V]) -> Generator[Any, Any, V]:
        cancelled = False
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.stopped.is_set() and not cancelled:
                    self.cancel_safe()
                    cancelled = True
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


@contextmanager
def _building(store: ColdStore, stopped: threading.Event) -> Iterator[_Building]:
    """A connection of its own: a build may take an hour."""
    settings = msgspec.structs.replace(store.settings, call_timeout=_LONGEST)
    with (
        translated(server_of(store.database_url)),
        _Building.connect(**connection_arguments(store.database_url, settings)) as connection,
    ):
        connection.stopped = stopped
        try:
            yield connection
        except psycopg.errors.QueryCanceled:
            if not stopped.is_set():
                raise
