"""Indexes of words: a search answers the same with and without them, whatever becomes of a build."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from banshee_memory.cold import reads, words
from banshee_memory.cold.client import ColdStore
from banshee_memory.errors import ColdStoreUnavailable, ConfigurationError
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us
from tests.cold.making import NOON, NOON_US, message, write

WEEK = timedelta(weeks=1)
WEEK_US = 7 * 86_400_000_000
TEXTS = ["The quick brown foxes", "a brown dog and a quick fox", "cats only", "fox fox fox", "foxglove", "running dogs"]
QUERIES = ["fox", "quick -dog", '"brown fox"', "cat or dog", "-fox", "nothing of that", "the", "run"]
NEVER = threading.Event()


@pytest.fixture
def own(fresh_url: str, settings: Settings) -> Iterator[ColdStore]:
    store = ColdStore(fresh_url, settings)
    yield store
    store.close()


def say(store: ColdStore, agent: UUID) -> None:
    """All of the texts in each of five weeks, of which the last is the one of NOON; beside another who says them."""
    for who, first in ((agent, 0), (uuid4(), 100)):
        write(
            store,
            *(
                message(who, first + week * 10 + n, text, at_us=NOON_US - week * WEEK_US + n)
                for week in range(5)
                for n, text in enumerate(TEXTS)
            ),
        )


def answers(store: ColdStore, agent: UUID, language: str = "english") -> dict[str, list[Any]]:
    waiting = [(uuid4(), "a fox that waits"), (uuid4(), "a dog that runs")]
    found = {query: store.fetch(reads.search(agent, query, 20, language, waiting)).hits for query in QUERIES}
    return {query: [placed.stamp if placed else "waits" for _, placed in hits] for query, hits in found.items()}


def build(store: ColdStore, weeks_later: int = 0, stopped: threading.Event = NEVER) -> list[str]:
    return list(words.build(store, NOON + weeks_later * WEEK, stopped, least=0))


def indexes(store: ColdStore) -> dict[str, bool]:
    """Those there are, and whether they are valid."""
    with store.connection() as connection:
        return dict(
            connection.execute(
                "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
                " WHERE right(relname, 6) = '_words'"
            ).fetchall()
        )


def used(store: ColdStore, agent: UUID, language: str = "english") -> int:
    """In how many partitions a search can find words by an index: as many as it does if there is no other index."""
    query = reads.search(agent, "fox", 5, language)
    with store.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("ALTER TABLE conversation_messages DROP CONSTRAINT conversation_messages_pkey")
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = connection.execute("EXPLAIN (COSTS off) " + query.sql, query.params).fetchall()
    return sum("Index Cond" in line and f"banshee_document('{language}'" in line for (line,) in plan)


@contextmanager
def looking(store: ColdStore) -> Iterator[None]:
    """Somebody who looked at the database and has not ended: a build waits until it has."""
    with psycopg.connect(store.database_url) as looking, looking.transaction():
        looking.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        looking.execute("SELECT 1")
        yield


def wait_for_a_build(store: ColdStore) -> None:
    deadline = time.monotonic() + 60
    with store.connection() as connection:
        while connection.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchall() == [(0,)]:
            assert time.monotonic() < deadline
            NEVER.wait(0.005)


def test_searches_answer_the_same_with_indexes_of_closed_partitions(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    before = answers(own, agent)
    assert before["fox"]
    steps = build(own)
    assert list(indexes(own).values()) == [True] * 4
    assert used(own, agent) == 4
    assert "conversation_messages_20260302_words" not in indexes(own)
    assert "(agent_id, " in steps[-1]
    assert answers(own, agent) == before
    assert build(own) == []
    assert len([step for step in build(own, 1) if step.startswith("CREATE INDEX")]) == 1


def test_what_comes_late_into_a_closed_partition_is_found(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    build(own)
    late = message(agent, 500, "a late unicorn", at_us=NOON_US - 2 * WEEK_US)
    write(own, late)
    assert own.fetch(reads.search(agent, "unicorns", 5, "english")).hits == [(late.record.id, late)]


def test_another_language_is_answered_right_before_and_after_its_indexes(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    simple, english = answers(own, agent, "simple"), answers(own, agent)
    assert simple != english
    build(own)
    assert used(own, agent, "simple") == 0
    assert answers(own, agent, "simple") == simple

    changed = ColdStore(own.database_url, msgspec.structs.replace(own.settings, search_language="simple"))
    assert len([step for step in build(changed) if step.startswith("DROP INDEX")]) == 4
    assert (used(own, agent, "simple"), used(own, agent)) == (4, 0)
    assert (answers(own, agent, "simple"), answers(own, agent)) == (simple, english)
    changed.close()


def test_a_build_stops_nobody_and_can_be_cut_off_at_any_time(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    before, stopped = answers(own, agent), threading.Event()
    with ThreadPoolExecutor(1) as pool, looking(own):
        building = pool.submit(build, own, 0, stopped)
        wait_for_a_build(own)
        # To the partition that is built on, to another one, to one that is made for it; and readers.
        for at_us in (NOON_US - WEEK_US, NOON_US - 2 * WEEK_US, NOON_US, NOON_US + WEEK_US):
            assert write(own, message(uuid4(), 700, "a fox beside it", at_us=at_us)).messages == 1
        assert answers(own, agent) == before
        stopped.set()
        building.result(60)
    (left,) = [name for name, whole in indexes(own).items() if not whole]
    assert answers(own, agent) == before
    again = build(own)
    assert [step.split()[-1] for step in again if step.startswith("DROP")] == [left]
    assert list(indexes(own).values()) == [True] * 4
    assert answers(own, agent) == before


def test_what_is_small_or_open_or_beyond_retention_gets_none(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    assert list(words.build(own, NOON, NEVER)) == []
    ended = from_us(NOON_US + WEEK_US).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    assert "20260302" not in str(list(words.build(own, ended, NEVER, least=0)))
    assert "20260302" in str(list(words.build(own, ended + timedelta(hours=1), NEVER, least=0)))
    brief = msgspec.structs.replace(own.settings, message_retention_days=1)
    with own.connection() as connection:
        for index in indexes(own):
            connection.execute(f"DROP INDEX {index}".encode())
    other = ColdStore(own.database_url, brief)
    assert {step.split()[5] for step in build(other) if step.startswith("CREATE INDEX")} <= {
        "conversation_messages_20260223_words"
    }
    other.close()


def test_without_btree_gin_the_words_alone_are_indexed(own: ColdStore, agent: UUID) -> None:
    """A role that owns the tables, but may not create an extension."""
    say(own, agent)
    before, role = answers(own, agent), f"owner_{uuid4().hex}"
    with owned(own.database_url, role):
        store = ColdStore(make_conninfo(own.database_url, options=f"-c role={role} -c timezone=UTC"), own.settings)
        steps = build(store)
        assert "EXTENSION" not in str(steps)
        assert steps[-1].endswith("USING gin (banshee_document('english'::regconfig, content))")
        assert used(own, agent) == 4
        assert answers(store, agent) == before
        store.close()


def test_who_does_not_own_the_tables_builds_nothing(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    role = f"small_{uuid4().hex}"
    with psycopg.connect(own.database_url, autocommit=True) as owner:
        owner.execute(SQL("CREATE ROLE {}").format(Identifier(role)))
        owner.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(Identifier(role)))
        store = ColdStore(make_conninfo(own.database_url, options=f"-c role={role} -c timezone=UTC"), own.settings)
        assert build(store) == []
        store.close()
        owner.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(role)))


@contextmanager
def owned(url: str, role: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        names = {"role": Identifier(role), "me": Identifier(connection.info.user)}
        connection.execute(SQL("CREATE ROLE {role}").format(**names))
        connection.execute(SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}").format(**names))
        connection.execute(SQL("GRANT CREATE ON SCHEMA public TO {role}").format(**names))
        parts = connection.execute("SELECT relid::regclass::text FROM pg_partition_tree('conversation_messages')")
        for (part,) in parts.fetchall():
            connection.execute(SQL("ALTER TABLE {part} OWNER TO {role}").format(part=Identifier(part), **names))
        try:
            yield
        finally:
            connection.execute(SQL("REASSIGN OWNED BY {role} TO {me}").format(**names))
            connection.execute(SQL("DROP OWNED BY {role}").format(**names))
            connection.execute(SQL("DROP ROLE {role}").format(**names))


def test_of_very_many_that_match_the_newest_are_ranked(
    own: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "RANKED", 3)
    best = message(agent, 0, "fox fox fox fox", at_us=NOON_US - 3 * WEEK_US)
    rest = [message(agent, n, "a fox " + "and more " * n, at_us=NOON_US - 2 * WEEK_US + n) for n in range(1, 5)]
    write(own, best, *rest)
    build(own)

    def found(limit: int) -> list[int]:
        return [placed.stamp for _, placed in own.fetch(reads.search(agent, "fox", limit, "english")).hits if placed]

    assert found(2) == [rest[3].stamp, rest[2].stamp]
    assert found(5)[0] == best.stamp
    assert len(found(5)) == 5


def test_an_unknown_language_is_said(own: ColdStore) -> None:
    klingon = ColdStore(own.database_url, msgspec.structs.replace(own.settings, search_language="klingon"))
    with pytest.raises(ConfigurationError, match="klingon"):
        build(klingon)
    klingon.close()
    with pytest.raises(ConfigurationError, match="plain name"):
        Settings(search_language="english'; DROP TABLE agents; --")


def test_a_server_that_ends_a_build_is_unavailable(own: ColdStore, agent: UUID) -> None:
    say(own, agent)
    with ThreadPoolExecutor(1) as pool, looking(own):
        building = pool.submit(build, own)
        wait_for_a_build(own)
        with psycopg.connect(own.database_url) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        with pytest.raises(ColdStoreUnavailable):
            building.result(60)
    assert list(indexes(own).values()) == [False]
    build(own)
    assert list(indexes(own).values()) == [True] * 4
