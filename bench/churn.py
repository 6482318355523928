"""What updates make of the tables that hold current values, by fillfactor and by when they are vacuumed:

    python bench/churn.py [--days N] [--agents N] [--worth-alone]

Every agent has a state and ten memories. A day is a hundred flushes, as the drain makes them: of an eighth of the
agents each says something (so its totals grow) and feels something else; a quarter of them read a memory, which counts
the access, a quarter replace one. After each flush a table is vacuumed if as many rows of it are dead as autovacuum
waits for, by its scale factor; autovacuum itself is off, since it goes by the clock. Prints, per table, the share of
updates that needed no new entry in an index (HOT), the size of the table and of its indexes, how often its parts were
vacuumed, and how many records a second the flushes carried (the median).

`--worth-alone`: instead, with the tables as they are migrated, what it makes of memories that their index is of their
worth alone, without their last access; and what reading the first 20 memories of a type takes (the median).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[1]))

from banshee_memory.cold import partitions, reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import Batch, MemoryRow, MessageRow, StateRow
from banshee_memory.cold.migrate import migrate
from banshee_memory.embedded import start
from banshee_memory.emotions import Emotion, Felt, StoredState
from banshee_memory.records import ConversationMessage, MemoryRecord, Placed, StoredMemory, memory_id
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, record_id, to_us
from bench.measuring import pin

SETTINGS = Settings(shards=16, call_timeout=600, flush_timeout=600, db_max_connections=1)
TABLES = ("agents", "emotional_states", "memory_records", "shards")
MEMORIES, FLUSHES = 10, 100
START_US = to_us(partitions.span(partitions.MESSAGES, from_us(1_790_000_000_000_000))[0])
_THRESHOLD = 50
_LEAVES = """SELECT relid::regclass::text FROM pg_partition_tree(%s) WHERE isleaf
    UNION SELECT %s WHERE NOT EXISTS (SELECT FROM pg_partition_tree(%s) WHERE level > 0)"""
_TOLD = """SELECT sum(n_tup_upd), sum(n_tup_hot_upd), sum(pg_relation_size(relid)), sum(pg_indexes_size(relid)),
    sum(vacuum_count) FROM pg_stat_user_tables WHERE relid = ANY (%s::regclass[])"""
_WORTH_ALONE = """DROP INDEX memory_records_by_worth;
    CREATE INDEX memory_records_by_worth ON memory_records (agent_id, memory_type, importance DESC) WHERE NOT deleted"""
_REMEMBER = """INSERT INTO memory_records (agent_id, memory_type, key, data, importance, access_count, last_accessed,
        created_at, updated_at, tags, stamp)
    SELECT %s, 'fact', 'key ' || n, '{"what": "is known"}', n %% %s / 10.0, 0, now() - random() * interval '30 days',
        now(), now(), '{}', 1
    FROM generate_series(1, %s) AS n"""
_LISTED = ((10, 1), (2_000, 10), (2_000, 1))
"""So many memories of one type, of so many worths. (Sessions are memories of one worth.)"""
_DUE = """SELECT relid::regclass::text FROM pg_stat_user_tables JOIN pg_class ON oid = relid
    WHERE relid = ANY (%s::regclass[]) AND n_dead_tup > %s + %s * greatest(reltuples, 0)"""


@dataclass(frozen=True, slots=True)
class Choice:
    """How full the pages of the tables are made, and after which share of dead rows they are vacuumed."""

    fillfactor: int | None
    scale: float

    def __str__(self) -> str:
        return f"{self.fillfactor or 'as migrated'}, {self.scale:g}"


CHOICES = [Choice(None, 0.2), *(Choice(fill, scale) for scale in (0.2, 0.05) for fill in (100, 90, 70, 50))]


class Life:
    """Agents in a database of their own."""

    def __init__(self, store: ColdStore, agents: int) -> None:
        self.store = store
        self.agents = [UUID(int=1 << 64 | n * 7919) for n in range(agents)]
        self.random = random.Random(1)
        self.now_us = START_US
        self.accessed: dict[tuple[UUID, int], datetime] = {}

    def begin(self) -> None:
        """Every agent feels something and has its memories."""
        for first in range(0, len(self.agents), 500):
            batch = Batch()
            for agent in self.agents[first : first + 500]:
                batch.states.append(self._state(agent))
                batch.memories += [self._memory(agent, n) for n in range(MEMORIES)]
                batch.messages.append(self._message(agent))
            self._write(batch)

    def flush(self) -> float:
        """One of a day's; returns records a second."""
        batch = Batch()
        for agent in self.random.sample(self.agents, len(self.agents) // 8):
            batch.states.append(self._state(agent))
            batch.messages.append(self._message(agent))
            if self.random.random() < 0.5:
                batch.memories.append(self._memory(agent, self.random.randrange(MEMORIES), self.random.random() < 0.5))
        began = perf_counter()
        self._write(batch)
        return (len(batch.states) + len(batch.messages) + len(batch.memories)) / (perf_counter() - began)

    def _write(self, batch: Batch) -> None:
        with self.store.drain(range(SETTINGS.shards)) as drain:
            drain.write(batch)
            drain.advance(dict.fromkeys(range(SETTINGS.shards), self._stamp()))

    def _stamp(self) -> int:
        self.now_us += 1_000
        return self.now_us // 1_000 << 16

    def _state(self, agent: UUID) -> StateRow:
        felt = {emotion: Felt(self.random.random(), self.now_us) for emotion in self.random.sample(list(Emotion), 3)}
        return StateRow.of(agent, StoredState(felt, {}, self.now_us, self._stamp()))

    def _message(self, agent: UUID) -> MessageRow:
        stamp = self._stamp()
        said = ConversationMessage(
            id=record_id(stamp, self.random.randbytes(8), self.now_us),
            agent_id=agent,
            role="user",
            content="What was said.",
            metadata=None,
            emotional_context=None,
            tokens_used=4,
            session_id=None,
            created_at=from_us(self.now_us),
        )
        return MessageRow.of(Placed(self.now_us, stamp, said))

    def _memory(self, agent: UUID, number: int, read: bool = False) -> MemoryRow:
        key, now = f"key {number}", from_us(self.now_us)
        if read:
            self.accessed[agent, number] = now
        record = MemoryRecord(
            id=memory_id(agent, "fact", key),
            agent_id=agent,
            memory_type="fact",
            key=key,
            data={"what": "is known", "number": self.random.random()},
            importance=0.5,
            access_count=number,
            last_accessed=self.accessed.get((agent, number), from_us(START_US)),
            created_at=from_us(START_US),
            updated_at=now,
            expires_at=None,
            tags=(),
        )
        return MemoryRow.of(agent, "fact", key, StoredMemory(self._stamp(), record))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--agents", type=int, default=4_000)
    parser.add_argument("--worth-alone", action="store_true")
    asked = parser.parse_args()
    pin()
    if asked.worth_alone:
        for change in ("", _WORTH_ALONE):
            for line in measured(Choice(None, 0.05), asked.days, asked.agents, change):
                print(f"| {'worth alone' if change else 'as migrated'} {line}", flush=True)
        return
    print("| fillfactor, scale factor | table | HOT | table | indexes | vacuums | records/s |", flush=True)
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    for choice in CHOICES:
        for line in measured(choice, asked.days, asked.agents):
            print(f"| {choice} {line}", flush=True)


def measured(choice: Choice, days: int, agents: int, change: str | None = None) -> Iterator[str]:
    """The lines of one choice. `change`: to the schema; then it is told, too, what listing memories takes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start(Path(folder)) as servers:
        migrate(servers.database_url, SETTINGS)
        store = ColdStore(servers.database_url, SETTINGS)
        if change:
            with store.connection() as connection:
                connection.execute(change.encode())
        leaves = {table: _leaves(store, table) for table in TABLES}
        _set(store, [leaf for each in leaves.values() for leaf in each], choice)
        life = Life(store, agents)
        life.begin()
        with store.connection() as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("SELECT pg_stat_reset()")
        rates = []
        for _ in range(days * FLUSHES):
            rates.append(life.flush())
            _vacuum(store, [leaf for each in leaves.values() for leaf in each], choice.scale)
        for table, parts in leaves.items():
            with store.connection() as connection:
                ((updated, hot, size, indexes, vacuums),) = connection.execute(_TOLD, (parts,)).fetchall()
            share = f"{hot / updated:.0%}" if updated else ""
            rate = f"{statistics.median(rates):,.0f}" if table == TABLES[0] else ""
            yield f"| `{table}` | {share} | {size / 2**20:.1f} MiB | {indexes / 2**20:.1f} MiB | {vacuums} | {rate} |"
        if change is not None:
            yield from _listed(store)
        store.close()


def _listed(store: ColdStore) -> Iterator[str]:
    for number, (memories, worths) in enumerate(_LISTED):
        with store.connection() as connection:
            connection.execute(_REMEMBER.encode(), [UUID(int=number), worths, memories])
            connection.execute("ANALYZE memory_records")
        page, spent = reads.memory_page(UUID(int=number), "fact", START_US, 20), []
        for _ in range(500):
            began = perf_counter()
            store.fetch(page)
            spent.append(perf_counter() - began)
        yield f"| 20 of {memories:,} memories of {worths} worths | {statistics.median(spent) * 1e6:,.0f} µs |"


def _leaves(store: ColdStore, table: str) -> list[str]:
    with store.connection() as connection:
        return [name for (name,) in connection.execute(_LEAVES, (table, table, table)).fetchall()]


def _set(store: ColdStore, leaves: list[str], choice: Choice) -> None:
    with store.connection() as connection:
        for leaf in leaves:
            connection.execute(f"ALTER TABLE {leaf} SET (autovacuum_enabled = off)".encode())
            if choice.fillfactor:
                connection.execute(f"ALTER TABLE {leaf} SET (fillfactor = {choice.fillfactor})".encode())


def _vacuum(store: ColdStore, leaves: list[str], scale: float) -> None:
    with store.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
        for (leaf,) in connection.execute(_DUE, (leaves, _THRESHOLD, scale)).fetchall():
            connection.execute(f"VACUUM {leaf}".encode())


if __name__ == "__main__":
    main()
