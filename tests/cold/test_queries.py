"""The statements: each is described, runs, and asks for one agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.queries import STATEMENTS, statements
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us
from tests.cold.making import NOON, NOON_US, message, write

AGENT = uuid4()
LATER = NOON + timedelta(days=7)
PLACE = {"since": NOON, "until": LATER, "stamp": 1, "id": AGENT, "limit": 5}
MEMORY = {"memory_type": "fact", "key": "k", "now": NOON, "limit": 5, "offset": 0}
CALLED = {"shard": 0, "stamp": 1, "function": "m", "key": b"key", "limit": 5, "through": 1}
AMENDMENT = {
    "since": NOON,
    "until": NOON,
    "agents": [AGENT],
    "times": [NOON],
    "ids": [AGENT],
    "stamps": [1],
    "contexts": ["{}"],
}
SEARCH = {
    "language": "english",
    "query": "fox",
    "ids": [AGENT],
    "texts": ["a fox"],
    "limit": 5,
    "ranked": 5,
    "since": NOON,
}
LIVED = {**PLACE, "first": NOON, "last": NOON}
SESSION = {"session": AGENT, "firsts": [1], "lasts": [2], "through": 2}
LIMITS = {"lock_ms": 1_000, "statement_ms": 1_000, "idle_ms": 1_000}
SPAN = {"parent": "emotional_events", "lowers": [NOON], "uppers": [LATER], "cutoff": NOON}
SHARDS = {"shards": [1, 2], "stamps": [1, 2], "newest": [1, 2]}
NUMBER = {"shards": 8}
GIVEN = {
    "since": NOON,
    "until": NOON,
    "agents": [AGENT],
    "times": [NOON],
    "ids": [AGENT],
    "types": ["fact"],
    "keys": ["k"],
}
GROWTH = {"grown": "[]"}
NOTHING: dict[str, Any] = {}
DOOMED = {"through": 1, "since": NOON, "until": LATER, "memory_type": "", "key": "", "limit": 5}
LEDGER = {"name": "0001_initial_schema", "checksum": "x"}

# In an order in which they can run.
EXAMPLES: dict[str, Mapping[str, Any]] = {
    **dict.fromkeys(["state_of", "totals_of", "lifespan_of", "agent_known"], NOTHING),
    **dict.fromkeys(["message_page", "messages_after", "message_place", "message_place_unpruned"], PLACE),
    **dict.fromkeys(["event_page", "events_after", "deeds_until", "deed_from"], LIVED),
    **dict.fromkeys(["memory_of", "memory_page", "memory_page_of_all_types", "memories_after"], MEMORY),
    "search": SEARCH,
    "weeks_without_words": {"language": "english", "since": None, "until": LATER, "least": 0},
    "word_index_steps": {"language": "english", "since": None, "until": LATER, "least": 0},
    **dict.fromkeys(["stored_messages", "stored_events", "stored_states", "stored_memories"], GIVEN),
    **dict.fromkeys(["amend_messages", "superseded_amendments"], AMENDMENT),
    "session_totals": {**SESSION, "first_message": NOON, "last_message": NOON, "first_event": NOON, "last_event": NOON},
    "agents": {"after": AGENT, "limit": 5},
    **dict.fromkeys(["overview", "database_size", "ping", "schema_state", "shard_stamps", "flushed_stamps"], NOTHING),
    "shard_stamp": {"shard": 0},
    "limit_transaction": LIMITS,
    **dict.fromkeys(["hold_free_shards", "hold_shards", "advance_shards"], SHARDS),
    "keep_replies": {
        "agents": [AGENT],
        "functions": ["m"],
        "keys": [b"key"],
        "shards": [0],
        "stamps": [1],
        "replies": [b"reply"],
    },
    **dict.fromkeys(["replies_after", "sweep_replies", "erase_replies"], CALLED),
    "keep_recovery": {"server": "a.b", "store": "redis", "behind": 0.5, "said": "another server"},
    "recoveries": {"limit": 5},
    "sweep_recoveries": {"kept": 5},
    **dict.fromkeys(["ensure_partitions", "drop_partition"], SPAN),
    "compact_rollups": {"before": NOON, "limit": 5},
    "trend": PLACE,
    **dict.fromkeys(["create_staged_messages", "create_staged_events"], NOTHING),
    **dict.fromkeys(["create_staged_states", "create_staged_memories"], NOTHING),
    **dict.fromkeys(["stage_messages", "stage_events", "stage_states", "stage_memories"], NOTHING),
    **dict.fromkeys(["copy_messages", "copy_events"], NOTHING),
    "grow_agents": GROWTH,
    "find_stored_messages": {"since": NOON, "until": NOON},
    "find_stored_events": {"since": NOON, "until": NOON},
    **dict.fromkeys(["clear_staged", "store_staged", "superseded_states", "superseded_memories"], NOTHING),
    "sweep_memories": {"now": NOON, "limit": 5},
    "bury_agent": {"shard": 1, "flushed": 1},
    "tombstones": {"agents": f"{{{AGENT.hex}}}"},
    "partition_spans": {"parent": "conversation_messages"},
    **dict.fromkeys(
        ["raise_tombstone", "erase_state", "erase_rollups", "erase_memories", "erase_messages", "erase_events"], DOOMED
    ),
    **dict.fromkeys(["hold_migrations", "ledger_exists", "ledger", "store_shards"], NOTHING),
    "sign_migration": LEDGER,
    **dict.fromkeys(["fix_shards", "add_shards"], NUMBER),
}


def test_every_statement_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(STATEMENTS)


def test_every_statement_runs(store: ColdStore) -> None:
    with store.connection() as connection, connection.transaction(force_rollback=True):
        for name, params in EXAMPLES.items():
            sql = STATEMENTS[name].sql
            if sql.startswith("COPY"):
                with connection.cursor().copy(sql) as copy:
                    copy.set_types(["uuid"])
            else:
                connection.execute(sql, {"agent": AGENT, **params} if "%(" in sql else None)


ORIGINAL = statements("original.sql")


@pytest.mark.parametrize("name", [*STATEMENTS, *ORIGINAL])
def test_every_statement_is_described(name: str) -> None:
    sql, description = STATEMENTS.get(name) or ORIGINAL[name]
    assert description.endswith((".", ").")), name
    assert not sql.rstrip().endswith(";")


@pytest.mark.parametrize("name", [name for name, statement in STATEMENTS.items() if statement.sql.startswith("SELECT")])
def test_every_look_into_a_partitioned_table_is_for_one_agent(name: str) -> None:
    sql = STATEMENTS[name].sql
    tables = ("conversation_messages", "emotional_events", "emotional_states", "memory_records")
    if any(f"FROM {table}" in sql for table in tables):
        assert "agent_id = %(agent)s" in sql


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_look_at_an_agents_rows_minds_its_tombstone(name: str) -> None:
    sql = STATEMENTS[name].sql
    looks = len(
        re.findall(
            r"FROM (?:conversation_messages|emotional_events|emotional_rollups|memory_records)\s+WHERE agent_id", sql
        )
    )
    if "DELETE FROM" not in sql:
        assert sql.count("coalesce((SELECT buried.stamp FROM forgotten AS buried") == looks


def test_a_bounded_page_looks_only_into_the_partitions_it_can_lie_in(
    fresh_url: str, settings: Settings, agent: UUID
) -> None:
    store = ColdStore(fresh_url, settings)
    week = 7 * 86_400_000_000
    said = [message(agent, n, at_us=NOON_US + n * week) for n in range(10)]
    write(store, *said)

    def looked_into(query: reads.Query[Any]) -> set[str]:
        with store.connection() as connection:
            plan = connection.execute(f"EXPLAIN (ANALYZE, COSTS off) {query.sql}", query.params)
            lines = [line for (line,) in plan if " on conversation_messages_" in line and "never executed" not in line]
        return {line.split(" on ")[1].split()[0] for line in lines}

    first, last = "conversation_messages_20260302", "conversation_messages_20260504"
    assert looked_into(reads.message_place(agent, said[0].record.id)) == {first}
    assert looked_into(reads.message_page(agent, 50, None, said[9].at_us)) == {last}
    assert looked_into(reads.message_page(agent, 50, (said[0].at_us + 1, 0))) == {first}
    # Newest first, one partition after the other, and no further than needed.
    assert looked_into(reads.message_page(agent, 1)) == {last}
    assert len(looked_into(reads.message_page(agent, 3))) == 3
    assert to_us(said[0].record.created_at) == NOON_US
    store.close()
