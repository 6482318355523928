"""The cold tier against the least that PostgreSQL can do the same with: `make bench-cold`, or

    python bench/cold.py [--rows N] [--partitions N] [--rounds N]

Flush: 5,000 new messages of 500 agents, as binary COPY into a staging table and INSERT ... SELECT (the floor: without
totals), as one INSERT of many rows, and as the drain writes them. Rehydrate: the newest 50 messages of an agent among
so many rows, by the best bare query (prepared, bounded by the time in which they lie) and through the client.
Client and server share one core; cases take turns; medians are told.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from uuid import UUID

import psycopg
from measuring import pin

from banshee_memory.cold import partitions, reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.migrate import migrate
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.session import BoundedConnection, connection_arguments
from banshee_memory.cold.staging import Batch, MessageRow, copies
from banshee_memory.embedded import start
from banshee_memory.records import ConversationMessage, Placed
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, record_id, to_us

SETTINGS = Settings(message_retention_days=None, call_timeout=600, flush_timeout=600)
FLUSHED, AGENTS, WEEK_US = 5_000, 500, 7 * 86_400_000_000
END_US = to_us(from_us(1_790_000_000_000_000))
TEXT = "What the agent was told, in about as many words as people use when they talk to each other. " * 2
Connection = BoundedConnection
_numbers = itertools.count(1)
_MOVE = """INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, metadata,
    emotional_context, tokens_used, session_id) SELECT * FROM pg_temp.staged_messages ON CONFLICT DO NOTHING"""
_INSERT = """INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, metadata,
    emotional_context, tokens_used, session_id) VALUES """
_BEST = """SELECT id, role, content, metadata::text, emotional_context::text, tokens_used, session_id, created_at, stamp
    FROM conversation_messages WHERE agent_id = %s AND created_at >= %s
    ORDER BY created_at DESC, stamp DESC, id DESC LIMIT 50"""


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
            content=TEXT,
            metadata={"channel": "web"},
            emotional_context=None,
            tokens_used=12,
            session_id=None,
            created_at=from_us(at_us),
        )
        batch.messages.append(MessageRow.of(Placed(at_us, stamp, message)))
    return batch


def staged(connection: Connection, batch: Batch) -> None:
    """The floor."""
    with connection.transaction():
        connection.execute(STATEMENTS["create_staged_messages"].sql)
        (copy,) = copies(batch)
        with connection.cursor() as cursor, cursor.copy(STATEMENTS["stage_messages"].sql) as sink:
            sink.set_types(copy.types)
            for row in copy.rows:
                sink.write_row(row)
        connection.execute(_MOVE, prepare=True)


def inserted(connection: Connection, batch: Batch) -> None:
    """What most people would do."""
    values: list[object] = []
    for at_us, stamp, said in (row.placed for row in batch.messages):
        metadata = psycopg.types.json.Jsonb(said.metadata)
        values += [said.agent_id, from_us(at_us), stamp, said.id, said.role, said.content, metadata, None, 12, None]
    row = f"({', '.join(['%s'] * 10)})"
    with connection.transaction():
        connection.execute((_INSERT + ", ".join([row] * FLUSHED)).encode(), values)


def drained(store: ColdStore, batch: Batch) -> None:
    """Ours."""
    with store.drain([0]) as drain:
        assert drain.write(batch).messages == FLUSHED


def fill(connection: Connection, rows: int, weeks: int) -> None:
    """So many messages of agents of 1,000 messages each, the last 50 of an agent within its last week."""
    ends = [END_US - week * WEEK_US for week in range(weeks)]
    partitions.ensure(connection, partitions.MESSAGES, [*ends, END_US + WEEK_US])
    connection.execute(
        """
        WITH placed AS (
            SELECT lpad(to_hex(n %% %(agents)s + 1), 32, '0')::uuid AS agent,
                   to_timestamp(%(end)s) - n * (interval '1 week' * (%(weeks)s - 1) / %(rows)s) AS at, n
            FROM generate_series(0, %(rows)s - 1) AS n)
        INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, tokens_used)
        SELECT agent, at, (extract(epoch FROM at) * 1000)::bigint * 65536, gen_random_uuid(), 'user', %(text)s, 12
        FROM placed
        """,
        {"rows": rows, "agents": max(rows // 1_000, 1), "end": END_US / 1e6, "weeks": weeks, "text": TEXT},
    )
    connection.execute(
        "INSERT INTO agents (agent_id, first_message, last_message)"
        " SELECT agent_id, min(created_at), max(created_at) FROM conversation_messages GROUP BY agent_id"
    )
    connection.execute("VACUUM ANALYZE conversation_messages, agents")


def timed(rounds: int, cases: dict[str, Callable[[], Callable[[], object]]]) -> dict[str, float]:
    """The median seconds of each, taking turns. A case prepares, and gives what is measured."""
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, prepare in cases.items():
            work = prepare()
            began = perf_counter()
            work()
            spent[name].append(perf_counter() - began)
    return {name: statistics.median(each) for name, each in spent.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=25)
    asked = parser.parse_args()
    pin()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as servers:
        migrate(servers.database_url, SETTINGS)
        store = ColdStore(servers.database_url, SETTINGS)
        with BoundedConnection.connect(**connection_arguments(servers.database_url, SETTINGS)) as connection:
            connection.execute("SET statement_timeout = 0")
            fill(connection, asked.rows, asked.partitions)
            flush(store, connection, asked.rounds)
            rehydrate(store, connection, asked)
        store.close()


def flush(store: ColdStore, connection: Connection, rounds: int) -> None:
    """The lines about the flush."""

    def with_fresh(write: Callable[[Batch], None]) -> Callable[[], Callable[[], object]]:
        def prepare() -> Callable[[], object]:
            batch = fresh()
            return lambda: write(batch)

        return prepare

    took = timed(
        rounds,
        {
            "staging COPY, bare": with_fresh(lambda batch: staged(connection, batch)),
            "multi-row INSERT": with_fresh(lambda batch: inserted(connection, batch)),
            "the drain": with_fresh(lambda batch: drained(store, batch)),
        },
    )
    floor = took["staging COPY, bare"]
    for name, seconds in took.items():
        print(
            f"flush      {name:22} {FLUSHED / seconds:10,.0f} rows/s   {floor / seconds:5.2f} x the bare staging COPY"
        )


def rehydrate(store: ColdStore, connection: Connection, asked: argparse.Namespace) -> None:
    """The lines about rehydrating."""
    agents = itertools.cycle([UUID(int=number * 37 % max(asked.rows // 1_000, 1) + 1) for number in range(500)])
    week = from_us(END_US) - timedelta(weeks=max(asked.partitions // 10, 1))

    def best() -> Callable[[], object]:
        agent = next(agents)
        return lambda: connection.execute(_BEST, (agent, week), prepare=True, binary=True).fetchall()

    def ours() -> Callable[[], object]:
        query = reads.message_page(next(agents), 50)
        return lambda: store.fetch(query)

    took = timed(asked.rounds * 40, {"bare query": best, "the client": ours})
    for name, seconds in took.items():
        ratio = seconds / took["bare query"]
        print(f"rehydrate  {name:22} {seconds * 1e6:10,.0f} us       {ratio:5.2f} x the bare query")


if __name__ == "__main__":
    main()
