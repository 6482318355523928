"""A server that is down, lost, silent, or not ours: told at once, in our words, and forgotten once it is back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from banshee_memory.cold import reads
from banshee_memory.cold.client import AsyncColdStore, ColdStore
from banshee_memory.errors import BansheeError, ColdStoreUnavailable, ConfigurationError, IncompatibleSchema
from banshee_memory.settings import Settings
from tests.cold.making import batch_of, message, write
from tests.own_servers import throw_out

SLEEP = "SELECT pg_sleep(600)"
PING = reads.server_version()


def ask(store: ColdStore) -> str:
    return store.fetch(PING)


def ask_async(url: str, settings: Settings) -> str:
    async def asked() -> str:
        store = AsyncColdStore(url, settings)
        try:
            return await store.fetch(PING)
        finally:
            await store.aclose()

    return asyncio.run(asked())


def ask_sync(url: str, settings: Settings) -> str:
    store = ColdStore(url, settings)
    try:
        return store.fetch(PING)
    finally:
        store.close()


BOTH = pytest.mark.parametrize("asked", [ask_sync, ask_async])
Asked = Callable[[str, Settings], str]


@contextmanager
def closed_database(url: str, server: str) -> Iterator[None]:
    """For a while, nobody gets into the database, and who was in it is thrown out: a server that is down."""
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        throw_out(connection, name=str(name))
        yield
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def throw_all_out(url: str, server: str) -> None:
    """Breaks every connection to the database: a server that was restarted."""
    with psycopg.connect(server, autocommit=True) as connection:
        throw_out(connection, name=str(conninfo_to_dict(url)["dbname"]))


@BOTH
def test_a_server_that_is_not_there_is_told_without_its_password(
    tmp_path: Path, settings: Settings, asked: Asked
) -> None:
    url = f"postgresql://someone:s3cret@/memories?host={tmp_path}"
    with pytest.raises(ColdStoreUnavailable) as raised:
        asked(url, settings)
    assert str(tmp_path) in str(raised.value)
    assert "memories" in str(raised.value)
    assert "DATABASE_URL" in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)


@BOTH
def test_a_url_that_is_none_is_a_matter_of_configuration(settings: Settings, asked: Asked) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        asked("postgresql://host:notaport:5/x y?nonsense=1", settings)


@BOTH
def test_a_database_that_is_not_there_is_told(database_url: str, settings: Settings, asked: Asked) -> None:
    with pytest.raises(ColdStoreUnavailable, match="nobody_made_this"):
        asked(make_conninfo(database_url, dbname="nobody_made_this"), settings)


@BOTH
def test_another_number_of_shards_is_refused(url: str, settings: Settings, asked: Asked) -> None:
    with pytest.raises(ConfigurationError, match="8 shards"):
        asked(url, msgspec.structs.replace(settings, shards=9))


@BOTH
def test_a_database_without_a_schema_asks_for_migrate(empty_url: str, settings: Settings, asked: Asked) -> None:
    with pytest.raises(IncompatibleSchema, match="banshee migrate"):
        asked(empty_url, settings)


def test_closing_an_unopened_or_failed_store_does_nothing(tmp_path: Path, settings: Settings) -> None:
    store = ColdStore(f"postgresql:///x?host={tmp_path}", settings)
    store.close()
    with pytest.raises(ColdStoreUnavailable):
        ask(store)
    store.close()
    store.close()


def test_broken_connections_are_replaced_without_a_word(
    store: ColdStore, url: str, database_url: str, agent: UUID
) -> None:
    said = message(agent)
    write(store, said)
    throw_all_out(url, database_url)
    assert store.fetch(reads.message_page(agent, 5)).placed == [said]
    assert store.ping().seconds > 0
    throw_all_out(url, database_url)
    assert write(store, said, message(agent, 1)).messages == 1


def test_a_store_recovers_when_the_server_is_back(store: ColdStore, url: str, database_url: str) -> None:
    assert ask(store)
    with closed_database(url, database_url):
        for _ in range(3):
            with pytest.raises(ColdStoreUnavailable):
                ask(store)
        with pytest.raises(ColdStoreUnavailable), store.drain([0]):
            pytest.fail("the block ran without a connection")
    assert ask(store)
    with store.drain([0]) as drain:
        assert drain.held


def test_an_async_store_recovers_when_the_server_is_back(url: str, database_url: str, settings: Settings) -> None:
    async def live() -> None:
        store = AsyncColdStore(url, settings)
        await asyncio.gather(*(store.fetch(PING) for _ in range(8)))
        await asyncio.to_thread(throw_all_out, url, database_url)
        assert await store.fetch(PING)
        closing = closed_database(url, database_url)
        await asyncio.to_thread(closing.__enter__)
        answers = await asyncio.gather(*(store.fetch(PING) for _ in range(4)), return_exceptions=True)
        assert all(isinstance(answer, ColdStoreUnavailable) for answer in answers)
        await asyncio.to_thread(closing.__exit__, None, None, None)
        assert await store.fetch(PING)
        await store.aclose()

    asyncio.run(live())


def test_a_server_that_works_too_long_is_stopped(url: str, settings: Settings) -> None:
    store = ColdStore(url, msgspec.structs.replace(settings, call_timeout=0.5, db_max_connections=1))
    with pytest.raises(ColdStoreUnavailable, match="statement timeout"), store.connection() as connection:
        connection.execute(SLEEP)
    with store.connection() as connection:
        connection.execute("SET statement_timeout = 0")
    with pytest.raises(ColdStoreUnavailable, match="no answer within"), store.connection() as connection:
        connection.execute(SLEEP)
    assert ask(store)
    store.close()


async def wait_for_nothing(store: AsyncColdStore) -> None:
    async with store.connection() as connection:
        await connection.execute(SLEEP)


def test_an_async_call_to_a_silent_server_is_given_up(url: str, settings: Settings) -> None:
    short = msgspec.structs.replace(settings, call_timeout=0.5, db_max_connections=1)

    async def live() -> None:
        store = AsyncColdStore(url, short)
        async with store.connection() as connection:
            await connection.execute("SET statement_timeout = 0")
        with pytest.raises(ColdStoreUnavailable, match="no answer within"):
            await wait_for_nothing(store)
        assert await store.fetch(PING)
        await store.aclose()

    asyncio.run(live())


def test_when_all_connections_are_taken_the_limit_is_named(url: str, settings: Settings) -> None:
    few = Settings(shards=8, db_min_connections=1, db_max_connections=1, connect_timeout=0.05)
    store = ColdStore(url, few)
    with store.drain([0]), pytest.raises(ColdStoreUnavailable, match="DB_MAX_CONNECTIONS"):
        ask(store)
    assert ask(store)
    store.close()


def test_the_session_speaks_utc_and_plans_once(store: ColdStore) -> None:
    with store.connection() as connection:
        shown = [connection.execute(f"SHOW {name}").fetchall()[0][0] for name in ("TimeZone", "plan_cache_mode")]
    assert shown == ["UTC", "force_generic_plan"]


def test_options_of_the_url_are_kept(url: str, settings: Settings) -> None:
    """Behind a pooler that refuses them: `?options=`, and the role's own settings."""
    store = ColdStore(make_conninfo(url, options="-c extra_float_digits=2"), settings)
    with store.connection() as connection:
        assert connection.execute("SHOW extra_float_digits").fetchall() == [("2",)]
        assert connection.execute("SHOW plan_cache_mode").fetchall() == [("auto",)]
    store.close()


def test_many_threads_share_a_store(store: ColdStore) -> None:
    agents = [uuid4() for _ in range(8)]
    wrong: list[Any] = []

    def live(agent: UUID, shard: int) -> None:
        try:
            for n in range(5):
                with store.drain([shard], wait=30) as drain:
                    drain.write(batch_of(message(agent, n)))
                assert len(store.fetch(reads.message_page(agent, 50)).placed) == n + 1
        except (BansheeError, AssertionError) as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=live, args=(agent, n % 3)) for n, agent in enumerate(agents)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_row_of_a_newer_version_is_an_incompatible_schema(store: ColdStore, agent: UUID) -> None:
    with store.connection() as connection:
        connection.execute(
            "INSERT INTO emotional_states (agent_id, emotions, felt_at, last_updated, stamp) "
            """VALUES (%s, '{"glee": 1}', '{"glee": 1}', now(), 1)""",
            [agent],
        )
    with pytest.raises(IncompatibleSchema, match="state_of"):
        store.fetch(reads.state_of(agent))


def test_a_role_without_rights_is_told_so(fresh_url: str, settings: Settings) -> None:
    store = ColdStore(fresh_url, settings)
    with pytest.raises(ConfigurationError, match="Grant"), store.connection() as connection:
        connection.execute(b"BEGIN; SET LOCAL ROLE pg_monitor; SELECT * FROM agents")
    store.close()


def test_importing_the_clients_loads_no_driver() -> None:
    code = (
        "import sys; import banshee_memory.cold.client, banshee_memory.cold.migrate, banshee_memory.cold.reads; "
        "sys.exit(any(name.startswith('psycopg') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
