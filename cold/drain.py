"""The write side of a flush: one transaction, under the rows of the shards that it holds. Imports the driver.

    with cold.drain(shards) as drain:
        written = drain.write(Batch(messages, events, states, memories))
        drain.advance({shard: stamp for shard in drain.held})

Messages and events are copied straight to where they belong. If one of them is there already, or may be, they go the
way that all values go: into staging tables of the connection's own, from where one statement moves them on, so that
writing the same again changes nothing and is not counted. The staging tables are created in the transaction itself, if
missing: behind a pooler another transaction may have another connection. Missing partitions are created beside it, on a
connection of their own, some at a time and each lot committed: so a flush that is cut off in the middle of many has not
made them for nothing, and no drain waits for another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import psycopg

from banshee_memory.cold import partitions
from banshee_memory.cold.failures import ConnectionLost, is_poison, is_without_partition
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.reads import tombstones
from banshee_memory.cold.session import GRACE, milliseconds
from banshee_memory.cold.staging import (
    AmendmentRow,
    AnyRow,
    Batch,
    Copy,
    EventRow,
    MemoryRow,
    MessageRow,
    ReplyRow,
    StateRow,
    amendment_parameters,
    copies,
    direct_copies,
    growth_of,
    span_of,
)
from banshee_memory.errors import ColdStoreUnavailable
from banshee_memory.failpoints import failpoint

if TYPE_CHECKING:
    from banshee_memory.cold.client import ColdStore
    from banshee_memory.cold.session import BoundedConnection
    from banshee_memory.settings import Settings

__all__ = ["AmendmentRow", "Batch", "Drain", "EventRow", "MemoryRow", "MessageRow", "StateRow", "Written", "drained"]

_PAGE = 1_000
_LAST_AGENT = UUID(int=2**128 - 1)
_STAGING = ("create_staged_messages", "create_staged_events", "create_staged_states", "create_staged_memories")


Superseded = StateRow | MemoryRow | AmendmentRow


class Written(NamedTuple):
    """What was really new, by kind; rows that were there already; values that lost against what is stored, which stays;
    and what cannot be stored."""

    messages: int = 0
    events: int = 0
    states: int = 0
    memories: int = 0
    duplicates: int = 0
    superseded: tuple[Superseded, ...] = ()
    poison: tuple[tuple[AnyRow, str], ...] = ()

    def plus(self, other: Written) -> Written:
        """Both together."""
        return Written(
            self.messages + other.messages,
            self.events + other.events,
            self.states + other.states,
            self.memories + other.memories,
            self.duplicates + other.duplicates,
            self.superseded + other.superseded,
            self.poison + other.poison,
        )


class Drain:
    """An open flush transaction. `held`: the shards it holds, each with the stamp up to which it was flushed before."""

    def __init__(self, store: ColdStore, connection: BoundedConnection, held: Mapping[int, int]) -> None:
        self.held = held
        self._store = store
        self._connection = connection
        self._unused = True
        self._is_new = True

    def write(self, batch: Batch) -> Written:
        """Stores the batch, but for its poison: what no retry can ever store, with the reason.

        A batch with poison in it is halved until the bad rows are alone; so one of 5,000 costs some 13 more attempts.
        """
        if not batch:
            return Written()
        try:
            return self._attempt(batch)
        except Exception as exc:
            if not is_poison(exc):
                raise
            if len(batch) == 1:
                return Written(poison=((batch.rows()[0], _reason(exc)),))
        first, second = batch.halves()
        written = self.write(first)
        failpoint("flush.half_written")
        return written.plus(self.write(second))

    def tombstones(self, agents: Collection[UUID]) -> dict[UUID, int]:
        """Those of the agents that were forgotten, and up to which stamp: true for as long as it holds their shards."""
        if not agents:
            return {}
        query = tombstones(agents)
        return query.decode(self._connection.execute(query.sql, query.params, prepare=True).fetchall())

    def keep_replies(self, rows: Sequence[ReplyRow]) -> None:
        """Keeps what calls with an idempotency key were answered."""
        if rows:
            names = ("agents", "functions", "keys", "shards", "stamps", "replies")
            columns = map(list, zip(*rows, strict=True))
            self._connection.execute(STATEMENTS["keep_replies"].sql, dict(zip(names, columns, strict=True)))

    def replies_after(self, shard: int, stamp: int) -> Iterator[list[ReplyRow]]:
        """What calls of a shard were answered that were made after that stamp, in pages."""
        place: dict[str, Any] = {"stamp": stamp, "agent": _LAST_AGENT, "function": "", "key": b""}
        while True:
            params = {"shard": shard, "limit": _PAGE, **place}
            page = self._connection.execute(STATEMENTS["replies_after"].sql, params, prepare=True).fetchall()
            rows = [ReplyRow(agent, function, key, shard, at, reply) for at, agent, function, key, reply in page]
            if rows:
                yield rows
            if len(rows) < _PAGE:
                return
            last = rows[-1]
            place = {"stamp": last.stamp, "agent": last.agent_id, "function": last.function, "key": last.key}

    def stamps(self) -> dict[int, int]:
        """The last stamp that each shard ever used, whether a flush or a tombstone has it; true while all are held."""
        return dict(self._connection.execute(STATEMENTS["shard_stamps"].sql, prepare=True).fetchall())

    def raise_tombstone(self, agent: UUID, through: int) -> None:
        """Moves the tombstone of an agent, of a shard that it holds, up to that stamp."""
        params = {"agent": agent, "through": through}
        self._connection.execute(STATEMENTS["raise_tombstone"].sql, params)

    def advance(self, stamps: Mapping[int, int], newest: Mapping[int, int] = {}) -> None:
        """Records up to which stamp each shard is flushed now, and the newest stamp of a value that was written, which
        may lie after that; a row never goes back."""
        shards = sorted({*stamps, *newest})
        params = {
            "shards": shards,
            "stamps": [stamps.get(shard, 0) for shard in shards],
            "newest": [newest.get(shard, 0) for shard in shards],
        }
        self._connection.execute(STATEMENTS["advance_shards"].sql, params)

    def keep_recovery(self, server: str, store: str, behind: float | None, said: str) -> None:
        """Records that a store was found not to be what it was, once for that server."""
        params = {"server": server, "store": store, "behind": behind, "said": said}
        self._connection.execute(STATEMENTS["keep_recovery"].sql, params)

    def _attempt(self, batch: Batch) -> Written:
        try:
            return self._stored(batch)
        except psycopg.errors.CheckViolation as exc:
            if not is_without_partition(exc):
                raise
        # Once a day or a week, and not where the daemon creates partitions ahead: cheaper than asking each time.
        self._ensure_partitions(batch)
        return self._stored(batch)

    def _stored(self, batch: Batch) -> Written:
        histories, values = batch.parted()
        if self._is_new and histories and not histories.is_doubtful:
            try:
                return self._copied(histories, values)
            except psycopg.errors.UniqueViolation:
                # A flush before this one died after its commit: some of it is there, and more may be.
                self._is_new = False
        return self._moved(batch)

    def _copied(self, histories: Batch, values: Batch) -> Written:
        """Writes what nobody has written before, straight to where it belongs, and then the values."""
        with self._connection.transaction():
            for copy in direct_copies(histories):
                self._copy(copy)
            failpoint("flush.copied")
            self._connection.execute(STATEMENTS["grow_agents"].sql, {"grown": growth_of(histories)}, prepare=True)
            written = Written(messages=len(histories.messages), events=len(histories.events))
            return written.plus(self._moved(values)) if values else written

    def _moved(self, batch: Batch) -> Written:
        """Writes what may be there already, by way of the staging tables."""
        with self._connection.transaction():
            self._clear()
            for copy in copies(batch):
                self._copy(copy)
            failpoint("flush.staged")
            if batch.is_doubtful:
                self._find_stored(batch)
            counts = self._connection.execute(STATEMENTS["store_staged"].sql, prepare=True).fetchall()[0]
            failpoint("flush.stored")
            superseded = self._superseded(batch, counts) + self._amend(batch)
        self._unused = False
        messages, events, states, memories = counts
        values = [row for row in superseded if not isinstance(row, AmendmentRow)]
        there = len(batch) - len(batch.amendments) - sum(counts) - len(values)
        return Written(messages, events, states, memories, there, superseded)

    def _find_stored(self, batch: Batch) -> None:
        """Looks for what is stored under other stamps, which no constraint can tell."""
        for statement, rows in (("find_stored_messages", batch.messages), ("find_stored_events", batch.events)):
            if rows:
                self._connection.execute(STATEMENTS[statement].sql, span_of(rows))

    def _amend(self, batch: Batch) -> tuple[Superseded, ...]:
        if not batch.amendments:
            return ()
        told = amendment_parameters(batch.amendments)
        amended = self._connection.execute(STATEMENTS["amend_messages"].sql, told).rowcount
        if amended == len(batch.amendments):
            return ()
        lost = set(self._connection.execute(STATEMENTS["superseded_amendments"].sql, told))
        # One that came before another of the same batch did not lose: it is a part of the way.
        newest = {row.message_id: row for row in sorted(batch.amendments, key=lambda row: row.stamp)}
        return tuple(row for row in newest.values() if (row.agent_id, row.message_id, row.stamp) in lost)

    def _superseded(self, batch: Batch, counts: Sequence[int]) -> tuple[Superseded, ...]:
        """The values that are not what is stored now; asked for only where some were not written."""
        _, _, states, memories = counts
        lost: list[Superseded] = []
        if states < len(batch.states):
            lost_states = set(self._connection.execute(STATEMENTS["superseded_states"].sql))
            lost += [row for row in batch.states if (row.agent_id, row.stamp) in lost_states]
        if memories < len(batch.memories):
            names = set(self._connection.execute(STATEMENTS["superseded_memories"].sql))
            lost += [row for row in batch.memories if (row.agent_id, row.memory_type, row.key, row.stamp) in names]
        return tuple(lost)

    def _copy(self, copy: Copy) -> None:
        with self._connection.cursor() as cursor, cursor.copy(STATEMENTS[copy.statement].sql) as sink:
            sink.set_types(copy.types)
            for row in copy.rows:
                sink.write_row(row)

    def _clear(self) -> None:
        if not self._unused:
            self._connection.execute(STATEMENTS["clear_staged"].sql)

    def _ensure_partitions(self, batch: Batch) -> None:
        with self._store.extra_connection() as connection:
            partitions.ensure(connection, partitions.EVENTS, [row.placed.at_us for row in batch.events])
            partitions.ensure(connection, partitions.MESSAGES, [row.placed.at_us for row in batch.messages])


@contextmanager
def drained(store: ColdStore, shards: Sequence[int], wait: float | None) -> Iterator[Drain]:
    """A flush transaction over the free ones of `shards`, or over all of them after at most `wait` seconds.

    Commits when the block ends well, else rolls back. ColdStoreUnavailable also when the lock was not had in time, or
    when it cannot be known whether the commit was done: flushing the same again is safe.
    """
    with ExitStack() as stack:
        connection = _begun(store, stack)
        connection.budget = max(store.settings.flush_timeout, wait or 0.0) + GRACE
        try:
            held = _held(connection, shards, wait, store.settings)
            yield Drain(store, connection, held)
        except BaseException:
            _roll_back(connection)
            raise
        _commit(connection)


def _begun(store: ColdStore, stack: ExitStack) -> BoundedConnection:
    try:
        return _begin(store, stack)
    except ConnectionLost:
        # The server was restarted since; nothing was begun yet, so another connection can.
        return _begin(store, stack)


def _begin(store: ColdStore, stack: ExitStack) -> BoundedConnection:
    with ExitStack() as attempt:
        connection = attempt.enter_context(store.connection())
        connection.execute("BEGIN")
        stack.enter_context(attempt.pop_all())
        return connection


def _held(
    connection: BoundedConnection, shards: Sequence[int], wait: float | None, settings: Settings
) -> dict[int, int]:
    _limit(connection, settings, lock_timeout=settings.flush_timeout if wait is None else wait)
    hold = STATEMENTS["hold_free_shards" if wait is None else "hold_shards"].sql
    try:
        rows = connection.execute(hold, {"shards": list(shards)}, prepare=True).fetchall()
    except psycopg.errors.LockNotAvailable as exc:
        raise ColdStoreUnavailable(f"another flush has held the shards for {wait:g} s") from exc
    _limit(connection, settings, lock_timeout=settings.flush_timeout)
    for statement in _STAGING:
        connection.execute(STATEMENTS[statement].sql)
    return dict(rows)


def _limit(connection: BoundedConnection, settings: Settings, *, lock_timeout: float) -> None:
    # A holder that hangs is cut off by the server, so that its shards are free for others.
    flush_ms = milliseconds(settings.flush_timeout)
    limits = {"lock_ms": milliseconds(lock_timeout), "statement_ms": flush_ms, "idle_ms": flush_ms}
    connection.execute(STATEMENTS["limit_transaction"].sql, limits, prepare=True)


def _commit(connection: BoundedConnection) -> None:
    try:
        connection.execute("COMMIT")
    except psycopg.OperationalError as exc:
        said = " ".join(str(exc).split())
        raise ColdStoreUnavailable(
            f"The connection to PostgreSQL was lost during COMMIT, so the flush was stored or was not ({said}). "
            "Flushing again is safe."
        ) from exc


def _roll_back(connection: BoundedConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()  # the server rolls back what it hears no end of


def _reason(exc: Exception) -> str:
    state = f"{exc.sqlstate} " if isinstance(exc, psycopg.Error) and exc.sqlstate else ""
    return f"{state}{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"[:500]
