"""A flush of 5,000 new messages of 500 agents, beside binary COPY into a staging table and INSERT ... SELECT (without
totals: the floor), and one INSERT of many rows (what most people would do).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from uuid import UUID

import psycopg

from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.staging import Batch, MessageRow, copies
from banshee_memory.records import ConversationMessage, Placed
from banshee_memory.stamps import from_us, record_id
from bench.cold_compared import Case, Compared, timed
from bench.cold_world import END_US, World, text

FLUSHED, AGENTS = 5_000, 500
_numbers = itertools.count(1)
_COLUMNS = "agent_id, created_at, stamp, id, role, content, metadata, emotional_context, tokens_used, session_id"
_INTO = f"INSERT INTO conversation_messages ({_COLUMNS}) "
_MOVE = f"{_INTO}SELECT {_COLUMNS} FROM pg_temp.staged_messages ON CONFLICT DO NOTHING"
_INSERT = f"{_INTO}VALUES "


def fresh() -> Batch:
    """New messages, as a flush carries them."""
    batch = Batch()
    for number in itertools.islice(_numbers, FLUSHED):
        at_us, agent = END_US + number * 1_000, UUID(int=1 << 100 | number % AGENTS)
        stamp = at_us // 1_000 << 16
        message = ConversationMessage(
            id=record_id(stamp, number.to_bytes(8, "big"), at_us),
            agent_id=agent,
            role="user",
            content=text(number),
            metadata={"channel": "web"},
            emotional_context=None,
            tokens_used=12,
            session_id=None,
            created_at=from_us(at_us),
        )
        batch.messages.append(MessageRow.of(Placed(at_us, stamp, message)))
    return batch


def compared(world: World, rounds: int) -> Iterator[Compared]:
    """Against both."""
    took = timed(rounds, {"staging": _staged(world), "insert": _inserted(world), "drain": _drained(world)})
    here = took["drain"]
    yield Compared("flush of 5,000, against staging COPY", took["staging"], here, limit=0.8, rows=FLUSHED)
    yield Compared("flush of 5,000, against multi-row INSERT", took["insert"], here, limit=2.5, rows=FLUSHED)


def _staged(world: World) -> Case:
    def write(batch: Batch) -> None:
        connection = world.connection
        with connection.transaction():
            connection.execute(STATEMENTS["create_staged_messages"].sql)
            (copy,) = copies(batch)
            with connection.cursor() as cursor, cursor.copy(STATEMENTS["stage_messages"].sql) as sink:
                sink.set_types(copy.types)
                for row in copy.rows:
                    sink.write_row(row)
            connection.execute(_MOVE.encode(), prepare=True)

    return lambda: partial(write, fresh())


def _inserted(world: World) -> Case:
    def write(batch: Batch) -> None:
        values: list[object] = []
        for placed in (row.placed for row in batch.messages):
            said = placed.record
            metadata = psycopg.types.json.Jsonb(said.metadata)
            values += [said.agent_id, said.created_at, placed.stamp, said.id, said.role, said.content]
            values += [metadata, None, 12, None]
        row = f"({', '.join(['%s'] * 10)})"
        with world.connection.transaction():
            world.connection.execute((_INSERT + ", ".join([row] * FLUSHED)).encode(), values)

    return lambda: partial(write, fresh())


def _drained(world: World) -> Case:
    def write(batch: Batch) -> None:
        with world.store.drain([0]) as drain:
            assert drain.write(batch).messages == FLUSHED

    return lambda: partial(write, fresh())
