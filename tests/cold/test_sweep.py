"""The sweep: what expired loses its content at once, and its tombstone when nothing older can come back any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from psycopg.types.json import Json

from banshee_memory.cold import client, reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.records import StoredMemory
from banshee_memory.stamps import to_us
from tests.cold.making import memory, memory_row, tombstone, write

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _nothing_else(store: ColdStore) -> None:
    with store.connection() as connection:
        connection.execute("TRUNCATE memory_records")


def content(store: ColdStore, agent: UUID) -> dict[str, tuple[object, bool]]:
    with store.connection() as connection:
        rows = connection.execute("SELECT key, data, deleted FROM memory_records WHERE agent_id = %s", (agent,))
        return {key: (data, deleted) for key, data, deleted in rows}


def known(store: ColdStore, agent: UUID, key: str) -> StoredMemory | None:
    return store.fetch(reads.memory_of(agent, "fact", key, to_us(NOW)))


def test_what_expired_becomes_a_tombstone_and_what_lives_stays(store: ColdStore, agent: UUID) -> None:
    write(
        store,
        memory_row(agent, memory(agent, 1, key="over", expires_at=NOW)),
        memory_row(agent, memory(agent, 1, key="later", expires_at=NOW + timedelta(microseconds=1))),
        memory_row(agent, memory(agent, 1, key="for ever")),
    )
    assert store.sweep_memories(NOW) == 1
    assert content(store, agent) == {
        "over": (None, True),
        "later": ({"is": "green"}, False),
        "for ever": ({"is": "green"}, False),
    }
    assert store.sweep_memories(NOW) == 0


def test_a_tombstone_goes_after_its_days(store: ColdStore, agent: UUID) -> None:
    # Deleted long ago, but carried only now: its days count from here.
    write(store, tombstone(agent, 1), memory_row(agent, memory(agent, 1, key="over", expires_at=NOW)))
    assert store.sweep_memories(NOW + DAY) == 1
    store.sweep_memories(NOW + timedelta(days=6, hours=23))
    assert content(store, agent) == {"colour": (None, True), "over": (None, True)}
    assert store.sweep_memories(NOW + timedelta(days=7, hours=1)) == 1
    assert content(store, agent) == {"over": (None, True)}
    assert store.sweep_memories(NOW + timedelta(days=8)) == 1
    assert content(store, agent) == {}


@pytest.mark.parametrize("late", ["what it was before", "the same, read once more", "its own deletion"])
def test_nothing_that_was_under_way_brings_it_back(store: ColdStore, agent: UUID, late: str) -> None:
    expiring = memory(agent, 5, expires_at=NOW)
    write(store, memory_row(agent, expiring))
    store.sweep_memories(NOW)
    arriving = {
        "what it was before": memory_row(agent, memory(agent, 4)),
        "the same, read once more": memory_row(agent, memory(agent, 5, expires_at=NOW, access_count=9)),
        "its own deletion": tombstone(agent, 5),
    }
    assert write(store, arriving[late]).memories == 0
    assert known(store, agent, "colour") == StoredMemory(expiring.stamp, None)
    write(store, memory_row(agent, memory(agent, 6)))
    assert known(store, agent, "colour") == memory(agent, 6)


def test_a_sweep_is_bounded(store: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SWEPT_AT_ONCE", 2)
    rows = [memory_row(agent, memory(agent, 1, key=f"k{n}", expires_at=NOW)) for n in range(5)]
    write(store, *rows)
    assert [store.sweep_memories(NOW) for _ in range(4)] == [2, 2, 1, 0]


def test_it_leaves_out_what_a_flush_is_at(store: ColdStore, agent: UUID) -> None:
    for key in ("held", "free"):
        write(store, memory_row(agent, memory(agent, 1, key=key, expires_at=NOW)))
    with store.connection() as flush, flush.transaction():
        flush.execute(
            "UPDATE memory_records SET data = %s, expires_at = NULL WHERE agent_id = %s AND key = 'held'",
            (Json("new"), agent),
        )
        assert store.sweep_memories(NOW) == 1
    assert store.sweep_memories(NOW) == 0
    assert content(store, agent) == {"held": ("new", False), "free": (None, True)}


def test_it_walks_along_the_index(store: ColdStore) -> None:
    with store.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN (COSTS off) " + STATEMENTS["sweep_memories"].sql, {"now": NOW, "limit": 5}
        ).fetchall()
    lines = [line for (line,) in plan]
    assert sum("expires_at_idx" in line for line in lines) == 8
    assert not any("Seq Scan" in line for line in lines)
