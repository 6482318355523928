"""Who may create and drop partitions: nobody but whom the owner named; and who is named needs no DDL rights else."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import EventRow, StateRow
from banshee_memory.cold.erasure import bury
from banshee_memory.errors import ConfigurationError
from banshee_memory.settings import Settings
from tests.cold.making import NOON, batch_of, event, memory, memory_row, message, state, write

ENSURE = "SELECT banshee_ensure_partition('emotional_events', '2026-01-01 00:00Z', '2026-01-02 00:00Z')"
DROP = "SELECT banshee_drop_partition('conversation_messages', 'infinity')"


@pytest.fixture
def role(fresh_url: str) -> Iterator[str]:
    """A role that may read and write the tables, and nothing else."""
    name = f"small_{uuid4().hex}"
    with psycopg.connect(fresh_url, autocommit=True) as owner:
        owner.execute(SQL("CREATE ROLE {}").format(Identifier(name)))
        owner.execute(SQL("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(name)))
        yield name
        owner.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))
        owner.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def lend(url: str, role: str) -> None:
    with psycopg.connect(url) as owner:
        functions = SQL("banshee_ensure_partition, banshee_drop_partition")
        owner.execute(SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(functions, Identifier(role)))


def as_role(url: str, role: str) -> str:
    return make_conninfo(url, options=f"-c role={role} -c timezone=UTC")


@pytest.mark.parametrize("call", [ENSURE, DROP])
def test_nobody_is_lent_the_owners_rights_unasked(fresh_url: str, role: str, call: str) -> None:
    with (
        psycopg.connect(as_role(fresh_url, role)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="function"),
    ):
        connection.execute(call)


def test_whoever_is_named_runs_a_whole_flush(fresh_url: str, role: str, settings: Settings, agent: UUID) -> None:
    store = ColdStore(as_role(fresh_url, role), msgspec.structs.replace(settings, db_max_connections=1))
    said, felt = message(agent, 1), event(agent, 2)
    with pytest.raises(ConfigurationError, match="Grant it"):
        write(store, said)
    lend(fresh_url, role)
    with store.drain([0]) as drain:
        written = drain.write(
            batch_of(said, EventRow.of(felt, {}), StateRow.of(agent, state(3)), memory_row(agent, memory(agent, 4)))
        )
        drain.advance({0: 5})
    assert (written.messages, written.events, written.states, written.memories) == (1, 1, 1, 1)
    assert store.fetch(reads.message_page(agent, 5)).placed == [said]
    assert store.fetch(reads.event_page(agent, 5)).placed == [felt]
    assert store.prepare_partitions(NOON) > 0
    store.close()


def test_who_may_not_delete_forgets_nobody(fresh_url: str, role: str, settings: Settings, agent: UUID) -> None:
    lend(fresh_url, role)
    store = ColdStore(as_role(fresh_url, role), settings)
    write(store, StateRow.of(agent, state(3)))
    with pytest.raises(ConfigurationError, match="Grant it"), store.drain([0]) as drain:
        bury(store, agent, 0, drain.held[0])
    assert store.fetch(reads.tombstones([agent])) == {}
    assert store.fetch(reads.state_of(agent)) == state(3)
    store.close()


def test_what_a_caller_made_is_not_taken_for_ours(fresh_url: str, role: str) -> None:
    lend(fresh_url, role)
    with psycopg.connect(as_role(fresh_url, role), autocommit=True) as caller:
        for table, column in (("emotional_events", "occurred_at"), ("conversation_messages", "created_at")):
            caller.execute(
                f"CREATE TEMPORARY TABLE {table} (agent_id uuid, {column} timestamptz) PARTITION BY RANGE ({column})"
            )
        assert caller.execute(ENSURE).fetchone() == (True,)
        caller.execute(
            "CREATE TEMPORARY TABLE bait PARTITION OF conversation_messages"
            " FOR VALUES FROM ('2000-01-03') TO ('2000-01-10')"
        )
        assert caller.execute(DROP).fetchall() == [(None,)]
        parents = caller.execute(
            "SELECT inhparent = 'public.emotional_events'::regclass FROM pg_inherits"
            " WHERE inhrelid = 'public.emotional_events_20260101'::regclass"
        ).fetchall()
    assert parents == [(True,)]
