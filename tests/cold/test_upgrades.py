"""A database of each version that was released comes to this version's schema with all that is in it, beside clients.

`tests/cold/released/<version>/` holds what that version shipped (`*.sql` of its `cold/migrations`, never changed again)
and a life in its tables (`life.sql`). Whoever releases a version copies its migrations and the latest `life.sql` there,
and lets the latter grow with the schema. The changelog names the versions; one that has no folder fails here.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from banshee_memory.cold import migrate as migrating
from banshee_memory.cold import reads, schema
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.migrate import migrate, status
from banshee_memory.cold.schema import Migration, shipped
from banshee_memory.errors import IncompatibleSchema
from banshee_memory.settings import Settings
from tests.cold.making import NOON_US, message, write

RELEASED = Path(__file__).with_name("released")
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
NOW = shipped()
AGENT = UUID("00000000-0000-4000-8000-000000000001")
NEXT = Migration(
    "9999_of_the_next_version",
    "ALTER TABLE conversation_messages ADD COLUMN heard boolean; ALTER TABLE agents ADD COLUMN nickname text;"
    "INSERT INTO banshee_migrations (name) VALUES ('9999_of_the_next_version');",
)


def folders() -> list[Path]:
    """One a released version; and the latest life, by itself, for the migrations of this one."""
    return [*sorted(folder for folder in RELEASED.iterdir() if folder.is_dir()), RELEASED]


def migrations_of(folder: Path) -> list[Migration]:
    files = sorted(file for file in folder.glob("*.sql") if file.name != "life.sql")
    return [Migration(file.stem, file.read_text("utf-8")) for file in files] or shipped()


def everything(store: ColdStore) -> list[Any]:
    """What clients can read of the life."""
    memory = reads.memory_of(AGENT, "fact", "colour", NOON_US)
    asked: list[reads.Query[Any]] = [
        *(reads.message_page(AGENT, 10), reads.event_page(AGENT, 10), reads.state_of(AGENT), memory),
        *(reads.totals_of(AGENT), reads.trend(AGENT, 0, 10), reads.search(AGENT, "fox", 10, "english")),
        reads.shard_stamps(),
    ]
    return [store.fetch(query) for query in asked]


@pytest.fixture(params=folders(), ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, empty_url: str, settings: Settings) -> str:
    """A database as that version left it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrating, "shipped", lambda: migrations_of(request.param))
        migrate(empty_url, settings)
    with psycopg.connect(empty_url) as connection:
        connection.execute((request.param / "life.sql").read_bytes())
    return empty_url


def test_every_released_version_is_kept_here() -> None:
    released = set(re.findall(r"^## (\d+\.\d+\.\d+)(?!.*unreleased)", CHANGELOG.read_text("utf-8"), re.MULTILINE))
    assert released == {folder.name for folder in folders() if folder != RELEASED}


def test_it_is_upgraded_with_all_that_is_in_it(old: str, settings: Settings) -> None:
    migrate(old, settings)
    assert {standing.state for standing in status(old, settings)} == {"applied"}
    store = ColdStore(old, settings)
    messages, events, state, memory, totals, trend, found, _ = everything(store)
    store.close()
    assert [placed.record.content for placed in messages.placed] == ["The quick brown fox", "and another fox"]
    assert [placed.record.mode for placed in events.placed] == ["add"]
    assert (state.felt["joy"].intensity, memory.record.data) == (0.5, {"is": "green"})
    assert (totals.stats.total_messages, totals.total_events, len(trend.points)) == (2, 1, 2)
    assert {placed.record.content for _, placed in found.hits} == {"The quick brown fox", "and another fox"}


def test_clients_of_this_version_go_on_while_the_next_one_migrates(
    old: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are connected read and flush; who connects afterwards, or looks, is told that the schema is newer."""
    migrate(old, settings)
    store, ended, flushed = ColdStore(old, settings), threading.Event(), threading.Semaphore(0)
    before = everything(store)

    def work() -> int:
        count = 0
        while not ended.is_set():
            count += write(store, message(UUID(int=7), count, at_us=NOON_US + count)).messages
            assert everything(store)[:-1] == before[:-1]
            flushed.release()
        return count

    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        working = pool.submit(work)
        try:
            assert flushed.acquire(timeout=60)
            for module in (migrating, schema):
                patch.setattr(module, "shipped", lambda: [*NOW, NEXT])
            with pytest.raises(IncompatibleSchema, match=f"lacks {NEXT.name}: run `banshee migrate`"):
                ColdStore(old, settings).fetch(reads.server_version())
            assert migrate(old, settings) == [NEXT.name]
            flushed = threading.Semaphore(0)
            assert flushed.acquire(timeout=60)
        finally:
            ended.set()
        count = working.result()
    assert store.fetch(reads.totals_of(UUID(int=7))).stats.total_messages == count
    with pytest.raises(IncompatibleSchema, match=f"has {NEXT.name}: upgrade banshee-memory"):
        store.check_schema()
    store.close()
