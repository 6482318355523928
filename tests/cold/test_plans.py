"""What every statement costs: by which index it finds what it looks for, and in how many partitions it looks.

The plans are generic ones, as clients use them, over a database with a crowd in it. A statement without a line here
fails.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from banshee_memory.cold import partitions, words
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.migrate import migrate
from banshee_memory.cold.queries import STATEMENTS, in_language
from banshee_memory.cold.session import connection_arguments
from banshee_memory.settings import Settings
from banshee_memory.stamps import EPOCH
from tests.cold.crowd import END, agent, fill
from tests.own_servers import empty_database

AGENT = agent(7)
NO_ID = UUID(int=0)
DAY = timedelta(days=1)
_STAGING = ("create_staged_messages", "create_staged_events", "create_staged_states", "create_staged_memories")
SIZES = {"agents": 4_000, "messages": 80_000, "events": 60_000, "memories": 24_000}


@pytest.fixture(scope="module")
def crowded(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    settings = Settings(shards=8, call_timeout=60)
    with empty_database(database_url) as url:
        migrate(url, settings)
        fill(url, settings, **SIZES)
        with psycopg.connect(**connection_arguments(url, settings)) as connection:
            yield connection


class Looks(NamedTuple):
    """By index, or table that is read whole: in how many partitions that was done, and in how many prepared for."""

    done: dict[str, int]
    begun: dict[str, int]


def looks(connection: psycopg.Connection[Any], name: str, params: Mapping[str, Any]) -> Looks:
    """Where a statement looked."""
    sql, names = in_language(name, "english") if name == "search" else STATEMENTS[name].sql, list[str]()

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    numbered = re.sub(r"%\((\w+)\)s", number, sql)
    arguments = SQL(", ").join(Literal(params[word]) for word in names)
    with connection.transaction(force_rollback=True):
        for staging in _STAGING:
            connection.execute(STATEMENTS[staging].sql)
        connection.execute(f"PREPARE plan AS {numbered}".encode())
        try:
            asked = SQL("EXECUTE plan ({})").format(arguments) if names else SQL("EXECUTE plan")
            (plan,) = connection.execute(SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(asked)).fetchall()
        finally:
            connection.execute("DEALLOCATE plan")
        print(__import__("json").dumps(plan[0][0]["Plan"], indent=1)[:9000])
    scans = list(_scans(plan[0][0]["Plan"]))
    return Looks(dict(Counter(what for what, done in scans if done)), dict(Counter(what for what, _ in scans)))


def _scans(node: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Those of the plan, which lacks the partitions that were pruned before it began; and whether they were needed."""
    if "Index Name" in node or node["Node Type"] == "Seq Scan":
        what = node.get("Index Name") or f"all of {node['Relation Name']}"
        yield re.sub(r"_\d{8}|(?<=states|ecords)_\d(?=_|$)", "", what), bool(node.get("Actual Loops"))
    for child in node.get("Plans", ()):
        yield from _scans(child)


MESSAGES, EVENTS = "conversation_messages_pkey", "emotional_events_pkey"
WORDS = "conversation_messages_words"
LATE, WORTH = "emotional_events_agent_id_stamp_id_idx", "memory_records_agent_id_memory_type_importance_last_acces_idx"
STATES, MEMORIES, AGENTS, BURIED = "emotional_states_pkey", "memory_records_pkey", "agents_pkey", "forgotten_pkey"
NEWEST = {"since": EPOCH, "until": END + DAY * 5_000, "stamp": 2**63 - 1, "id": NO_ID}
DOOMED = {"since": END - DAY, "until": END, "through": 2**63 - 1}
SEARCH = {"query": "words", "language": "english", "ids": [], "texts": [], "ranked": 500, "since": EPOCH}
GIVEN = {"agents": [AGENT], "ids": [AGENT]}
# As if an agent had lived for the last eleven days.
LIFE = {"first": END - DAY * 11, "last": END}
SESSION = {
    "session": AGENT,
    "firsts": [1],
    "lasts": [2**62],
    "through": 2**62,
    "first_message": END - DAY * 20,
    "last_message": END,
    "first_event": END - DAY * 11,
    "last_event": END,
}
DAY_BEFORE = {"since": END - DAY, "until": END - DAY, "times": [END - DAY]}


class Plan(NamedTuple):
    """The parameters that matter, and which index is used, or what is read whole, in how many partitions at most.

    `begun`: in how many it is prepared for, where a time bounds that: a scan that is not needed costs something, too.
    """

    params: dict[str, Any]
    looks: dict[str, int]
    begun: Mapping[str, int] | None = None


# The agent said 20 things in 30 weeks and felt 15 in 30 days; asked is for five.
PLANS: dict[str, Plan] = {
    "state_of": Plan({}, {STATES: 1}),
    "message_page": Plan({**NEWEST, "since": END - DAY * 70}, {BURIED: 1, MESSAGES: 8, AGENTS: 1}, {MESSAGES: 11}),
    "messages_after": Plan(
        {"since": EPOCH, "until": END - DAY * 150, "stamp": 0, "id": NO_ID}, {BURIED: 1, MESSAGES: 9}, {MESSAGES: 10}
    ),
    "message_place": Plan({"since": END - DAY * 9, "until": END - DAY * 8, "id": AGENT}, {BURIED: 1, MESSAGES: 1}),
    "message_place_unpruned": Plan({"id": AGENT}, {BURIED: 1, MESSAGES: 31}),
    "search": Plan(SEARCH, {AGENTS: 1, BURIED: 1, MESSAGES: 31}),
    "totals_of": Plan({}, {AGENTS: 1}),
    "lifespan_of": Plan({}, {AGENTS: 1}),
    "event_page": Plan({**NEWEST, "since": END - DAY * 12}, {BURIED: 1, EVENTS: 10, AGENTS: 1}, {EVENTS: 12}),
    "events_after": Plan(
        {"since": END - DAY * 9, "until": END - DAY * 4, "stamp": 0, "id": NO_ID}, {BURIED: 1, EVENTS: 6}, {EVENTS: 6}
    ),
    "trend": Plan(
        {"since": END - DAY * 5},
        {BURIED: 2, EVENTS: 5, "emotional_rollups_pkey": 1, "all of banshee_store": 1},
    ),
    "deeds_until": Plan({**NEWEST, **LIFE}, {BURIED: 2, EVENTS: 10, LATE: 12}, {EVENTS: 12, LATE: 12}),
    "deed_from": Plan(
        {**LIFE, "since": END - DAY * 5, "stamp": 0}, {BURIED: 2, EVENTS: 3, LATE: 12}, {EVENTS: 5, LATE: 12}
    ),
    "memory_of": Plan({}, {MEMORIES: 1}),
    "memory_page": Plan({}, {BURIED: 1, WORTH: 1}),
    "memory_page_of_all_types": Plan({}, {BURIED: 1, WORTH: 1}),
    "memories_after": Plan({}, {BURIED: 1, MEMORIES: 1}),
    # What names a session can have brought a time of its own, so it may lie anywhere in the life.
    "session_totals": Plan(SESSION, {BURIED: 2, MESSAGES: 4, EVENTS: 12}, {MESSAGES: 4, EVENTS: 12}),
    "agents": Plan({"after": AGENT}, {AGENTS: 1}),
    "agent_known": Plan({}, {AGENTS: 1}),
    "database_size": Plan({}, {AGENTS: 1}),
    "overview": Plan({}, {"all of pg_class": 1}),
    "schema_state": Plan({}, {"all of banshee_store": 1, "all of banshee_migrations": 1}),
    "shard_stamp": Plan({"shard": 1}, {"all of shards": 1}),
    "shard_stamps": Plan({}, {"all of shards": 1, "all of forgotten": 1}),
    "flushed_stamps": Plan({}, {"all of shards": 1}),
    "hold_free_shards": Plan({"shards": [1]}, {"all of shards": 1}),
    "hold_shards": Plan({"shards": [1]}, {"all of shards": 1}),
    "advance_shards": Plan({"shards": [1], "stamps": [1], "newest": [1]}, {"all of shards": 1}),
    "tombstones": Plan({"agents": [AGENT]}, {BURIED: 1}),
    "bury_agent": Plan({"shard": 1, "flushed": 1}, {AGENTS: 2, MEMORIES: 1, STATES: 2}),
    "raise_tombstone": Plan({"through": 1}, {BURIED: 1}),
    "partition_spans": Plan({"parent": "emotional_events"}, {"all of pg_class": 1, "all of pg_inherits": 1}),
    # The row of what is due, and the row that goes, which is found by where it lies.
    "erase_messages": Plan(DOOMED, {MESSAGES: 2}),
    "erase_events": Plan(DOOMED, {EVENTS: 2}),
    "erase_memories": Plan({"memory_type": "", "key": "", "through": 1}, {MEMORIES: 2}),
    "erase_state": Plan({"through": 1}, {STATES: 1}),
    "erase_rollups": Plan({"since": EPOCH, "through": 1}, {"emotional_rollups_pkey": 1}),
    "sweep_memories": Plan({"now": END}, {"memory_records_expires_at_idx": 8}),
    "compact_rollups": Plan({"before": END}, {"emotional_rollups_by_hour": 1, "forgotten_by_time": 1, BURIED: 1}),
    "amend_messages": Plan({**GIVEN, **DAY_BEFORE, "stamps": [1], "contexts": ["{}"]}, {MESSAGES: 1}, {MESSAGES: 1}),
    "stored_messages": Plan({**GIVEN, **DAY_BEFORE}, {MESSAGES: 1}, {MESSAGES: 1}),
    "stored_events": Plan({**GIVEN, **DAY_BEFORE}, {EVENTS: 1}, {EVENTS: 1}),
    # For thousands of agents at once, so all of a partition is cheaper where there is not much more in it.
    "stored_states": Plan(GIVEN, {"all of emotional_states": 8}),
    "stored_memories": Plan({"agents": [AGENT], "types": ["fact"], "keys": ["k"]}, {MEMORIES: 1}),
    "keep_replies": Plan(
        {"agents": [AGENT], "functions": ["m"], "keys": [b"k"], "shards": [1], "stamps": [1], "replies": [b"r"]}, {}
    ),
    "replies_after": Plan({"shard": 1, "stamp": 5, "function": "", "key": b""}, {"idempotency_by_stamp": 1}),
    "sweep_replies": Plan({"shard": 1, "stamp": 9_000}, {"idempotency_by_stamp": 1}),
    "erase_replies": Plan({"through": 2**62, "function": "", "key": b""}, {"idempotency_pkey": 1}),
    "superseded_amendments": Plan({**GIVEN, **DAY_BEFORE, "stamps": [1]}, {MESSAGES: 1}, {MESSAGES: 1}),
    "find_stored_messages": Plan(DAY_BEFORE, {"all of staged_messages": 1}, {MESSAGES: 1}),
    "find_stored_events": Plan(DAY_BEFORE, {"all of staged_events": 1}, {EVENTS: 1}),
    "store_staged": Plan({}, {f"all of staged_{kind}": 2 for kind in ("messages", "events", "states", "memories")}),
    "superseded_states": Plan({}, {"all of staged_states": 1}),
    "superseded_memories": Plan({}, {"all of staged_memories": 1}),
}
PLANLESS = {
    *("ping", "limit_transaction", "ensure_partitions", "drop_partition", "clear_staged"),
    *(f"{verb}_{kind}" for verb in ("create_staged", "stage") for kind in ("messages", "events", "states", "memories")),
    *("hold_migrations", "ledger_exists", "ledger", "sign_migration", "store_shards", "fix_shards", "add_shards"),
    *("copy_messages", "copy_events", "grow_agents"),
    *("word_index_steps", "weeks_without_words", "keep_recovery", "recoveries", "sweep_recoveries"),
}
"""What looks into no table that grows."""
USUAL = {"agent": AGENT, "limit": 5, "offset": 0, "memory_type": "fact", "key": "key 1", "now": END - DAY}


def test_every_statement_has_a_plan_here() -> None:
    assert set(PLANS) | PLANLESS == set(STATEMENTS)
    assert not set(PLANS) & PLANLESS


@pytest.mark.parametrize("name", PLANS)
def test_it_looks_no_further_than_it_must(crowded: psycopg.Connection[Any], name: str) -> None:
    found = looks(crowded, name, {**USUAL, **PLANS[name].params})
    plan = PLANS[name]
    assert set(found.done) == set(plan.looks)
    assert {what: count for what, count in found.done.items() if count > plan.looks[what]} == {}
    assert {what: count for what, count in (plan.begun or {}).items() if found.begun[what] > count} == {}


SERVED = {"search", "session_totals"}


def test_a_search_finds_words_by_an_index_where_there_is_one(crowded: psycopg.Connection[Any]) -> None:
    """In all partitions but the one that is not closed yet; and all else goes on as before."""
    store = ColdStore(crowded.info.dsn, Settings(shards=8, call_timeout=60, message_retention_days=None))
    until = partitions.span(partitions.MESSAGES, END - DAY)[0] + DAY
    try:
        built = [step for step in words.build(store, until, threading.Event(), least=0) if "CREATE INDEX" in step]
        assert len(built) == 30
        found = looks(crowded, "search", {**USUAL, **SEARCH})
        assert {AGENTS, BURIED, MESSAGES, WORDS} == set(found.done)
        assert found.done[MESSAGES] == 1
        assert found.done[WORDS] <= 30
        for name in (name for name in PLANS if MESSAGES in PLANS[name].looks and name not in SERVED):
            test_it_looks_no_further_than_it_must(crowded, name)
        # What reads all that an agent said in a week may find it by either index: both begin with the agent.
        found = looks(crowded, "session_totals", {**USUAL, **SESSION})
        assert found.begun[MESSAGES] + found.begun.get(WORDS, 0) <= 4
    finally:
        store.close()
        for (part,) in crowded.execute(
            "SELECT relid::regclass::text FROM pg_partition_tree('conversation_messages')"
        ).fetchall():
            crowded.execute(f"DROP INDEX IF EXISTS {part}_words".encode())
