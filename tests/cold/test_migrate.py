"""Migrations: once each, by whoever comes first, whatever kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest

from banshee_memory.cold import migrate as migrating
from banshee_memory.cold import reads, schema
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.migrate import migrate, status
from banshee_memory.cold.schema import Migration, shipped
from banshee_memory.errors import ColdStoreUnavailable, ConfigurationError, IncompatibleSchema
from banshee_memory.settings import Settings

NAMES = [migration.name for migration in shipped()]


def everything(url: str) -> list[tuple[Any, ...]]:
    """What the schema consists of: columns, indexes, constraints and functions."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """
            SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
            WHERE table_schema = 'public'
            UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
            UNION ALL SELECT proname, '', prosrc, '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            ORDER BY 1, 2, 3
            """
        ).fetchall()


@pytest.fixture
def raw(empty_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        yield connection


def test_migrating_twice_does_it_once(empty_url: str, settings: Settings) -> None:
    assert [(name, at) for name, at, _ in status(empty_url, settings)] == [(name, None) for name in NAMES]
    assert migrate(empty_url, settings) == NAMES
    before = everything(empty_url)
    assert migrate(empty_url, settings) == []
    assert everything(empty_url) == before
    assert [name for name, at, _ in status(empty_url, settings) if at is not None] == NAMES


def test_two_runners_at_once_do_it_once(empty_url: str, settings: Settings) -> None:
    applied: list[list[str]] = []
    runners = [threading.Thread(target=lambda: applied.append(migrate(empty_url, settings))) for _ in range(4)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sorted(applied) == [[], [], [], NAMES]


def test_the_store_gets_its_shards_and_keeps_their_number(
    empty_url: str, settings: Settings, raw: psycopg.Connection[Any]
) -> None:
    migrate(empty_url, settings)
    assert raw.execute("SELECT array_agg(shard ORDER BY shard) FROM shards").fetchall() == [(list(range(8)),)]
    with pytest.raises(ConfigurationError, match=r"8 shards, Settings\.shards is 16"):
        migrate(empty_url, msgspec.structs.replace(settings, shards=16))
    assert raw.execute("SELECT count(*) FROM shards").fetchall() == [(8,)]


def test_a_runner_killed_in_the_middle_leaves_nothing(
    empty_url: str, settings: Settings, raw: psycopg.Connection[Any]
) -> None:
    # It is stopped right after its first table, in the middle of the file, by a lock of ours; and killed there.
    raw.execute(
        "CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock(4242); END $$"
    )
    raw.execute("CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION stop()")
    raw.execute("SELECT pg_advisory_lock(4242)")
    code = (
        "import sys; from banshee_memory.cold.migrate import migrate; from banshee_memory.settings import Settings; "
        "migrate(sys.argv[1], Settings(shards=8))"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, empty_url])
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 4242"
    _until(lambda: raw.execute(waiting).fetchall() == [(1,)] or runner.poll() is not None)
    os.kill(runner.pid, signal.SIGKILL)
    assert runner.wait() == -signal.SIGKILL
    raw.execute("SELECT pg_advisory_unlock(4242)")
    raw.execute("DROP EVENT TRIGGER stop")
    raw.execute("DROP FUNCTION stop")

    assert migrate(empty_url, settings) == NAMES
    ColdStore(empty_url, settings).close()


def _until(done: Any) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_what_psql_applied_is_recognized_and_finished(
    empty_url: str, settings: Settings, raw: psycopg.Connection[Any]
) -> None:
    with raw.transaction():
        for migration in shipped():
            raw.execute(migration.sql.encode())
    assert raw.execute("SELECT name, checksum FROM banshee_migrations").fetchall() == [(name, None) for name in NAMES]
    with pytest.raises(IncompatibleSchema, match="number of shards: run `banshee migrate`"):
        ColdStore(empty_url, settings).fetch(reads.server_version())

    assert migrate(empty_url, settings) == []
    checksums = raw.execute("SELECT checksum FROM banshee_migrations ORDER BY name").fetchall()
    assert checksums == [(migration.checksum,) for migration in shipped()]
    _fetch(empty_url, settings)


def _fetch(url: str, settings: Settings) -> None:
    store = ColdStore(url, settings)
    try:
        store.fetch(reads.server_version())
    finally:
        store.close()


def test_a_changed_file_is_refused(empty_url: str, settings: Settings, raw: psycopg.Connection[Any]) -> None:
    migrate(empty_url, settings)
    raw.execute("UPDATE banshee_migrations SET checksum = 'other'")
    with pytest.raises(IncompatibleSchema, match="0001_initial_schema"):
        migrate(empty_url, settings)


def test_an_older_database_asks_for_migrate(
    empty_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_url, settings)
    later = Migration(
        "0002_later", "CREATE TABLE later (); INSERT INTO banshee_migrations (name) VALUES ('0002_later');"
    )
    ours = [*shipped(), later]
    monkeypatch.setattr(schema, "shipped", lambda: ours)
    monkeypatch.setattr(migrating, "shipped", lambda: ours)
    with pytest.raises(IncompatibleSchema, match=r"lacks 0002_later: run `banshee migrate`"):
        _fetch(empty_url, settings)
    assert migrate(empty_url, settings) == ["0002_later"]
    _fetch(empty_url, settings)


def test_a_newer_database_asks_for_an_upgrade(empty_url: str, settings: Settings, raw: psycopg.Connection[Any]) -> None:
    migrate(empty_url, settings)
    raw.execute("INSERT INTO banshee_migrations (name, checksum) VALUES ('0099_from_the_future', 'x')")
    with pytest.raises(IncompatibleSchema, match=r"0099_from_the_future: upgrade banshee-memory"):
        _fetch(empty_url, settings)
    with pytest.raises(IncompatibleSchema, match="upgrade banshee-memory"):
        migrate(empty_url, settings)
    assert status(empty_url, settings)[-1].name == "0099_from_the_future"


def test_a_broken_migration_leaves_the_ones_before_it(
    empty_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Migration("0002_broken", "CREATE TABLE half (); SELECT 1 / 0;")
    monkeypatch.setattr(migrating, "shipped", lambda: [*shipped(), broken])
    with pytest.raises(ColdStoreUnavailable, match="division by zero"):
        migrate(empty_url, settings)
    assert [name for name, at, _ in status(empty_url, settings) if at] == NAMES
    assert not any(row[0] == "half" for row in everything(empty_url))


def test_names_sort_and_every_file_writes_its_own_row() -> None:
    assert sorted(NAMES) == NAMES
    for migration in shipped():
        assert migration.sql.rstrip().endswith(f"INSERT INTO banshee_migrations (name) VALUES ('{migration.name}');")
