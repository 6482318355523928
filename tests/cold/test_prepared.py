"""Reads without a cursor: what a server forgot is prepared again; whoever is interrupted leaves a usable connection."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import AsyncColdStore, ColdStore
from banshee_memory.cold.queries import numbered
from banshee_memory.errors import ColdStoreUnavailable
from banshee_memory.settings import Settings
from tests.cold.making import message, write

# An int is an int8 in each statement of ours, however small it is.
SLOWLY = "SELECT %(number)s + 1, pg_sleep(%(seconds)s), %(number)s %% 4"


def alone(settings: Settings, **other: Any) -> Settings:
    """With one connection, so that each call gets the same."""
    return msgspec.structs.replace(settings, db_min_connections=1, db_max_connections=1, **other)


def forget_all(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DISCARD ALL")


def roll_back(connection: psycopg.Connection[Any]) -> None:
    """The driver lets the server forget all that is prepared, once something of its own was."""
    connection.execute("SELECT 1", prepare=True)
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT 1")


def change_columns(connection: psycopg.Connection[Any]) -> None:
    connection.execute("ALTER TABLE conversation_messages ALTER tokens_used TYPE integer")


@pytest.mark.parametrize("befalls", [forget_all, roll_back, change_columns])
def test_a_statement_that_the_server_forgot_is_prepared_again(
    fresh_url: str, settings: Settings, agent: UUID, befalls: Callable[[Any], None]
) -> None:
    store, said = ColdStore(fresh_url, alone(settings)), message(agent, tokens_used=7)
    write(store, said)
    for _ in range(2):
        assert store.fetch(reads.message_page(agent, 5)).placed == [said]
        with store.connection() as connection:
            befalls(connection)
    assert store.fetch(reads.message_page(agent, 5)).placed == [said]
    store.close()


def test_tasks_prepare_again_what_the_server_forgot(url: str, settings: Settings, agent: UUID) -> None:
    async def live() -> None:
        store = AsyncColdStore(url, alone(settings))
        for _ in range(3):
            assert (await store.fetch(reads.message_page(agent, 5))).placed == []
            async with store.connection() as connection:
                await connection.execute("DISCARD ALL")
        await store.aclose()

    asyncio.run(live())


def test_a_parameter_is_numbered_by_where_it_is_first_named() -> None:
    assert numbered("SELECT %(b)s, %(a)s, %(b)s || '100%%'") == (b"SELECT $1, $2, $1 || '100%'", ("b", "a"))


def test_values_of_other_types_are_another_statement(store: ColdStore) -> None:
    with store.connection() as connection:
        for value in ["text", 7, None, b"bytes", "text", 7]:
            assert connection.rows("SELECT %(value)s", {"value": value}) == [(value,)]


def test_an_error_leaves_the_statement_prepared(store: ColdStore) -> None:
    divide = "SELECT 1 / %(by)s"
    with store.connection() as connection:
        for _ in range(2):
            assert connection.rows(divide, {"by": 1}) == [(1,)]
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.rows(divide, {"by": 0})
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.rows("SELECT FROM WHERE", {})
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall() == [(1,)]


def await_sleep(url: str, pid: int) -> None:
    """Until that process of the server does what it was asked to do SLOWLY."""
    with psycopg.connect(url, autocommit=True) as connection:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            asked = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %s"
            if connection.execute(asked, [pid]).fetchall():
                return
    raise AssertionError("it does not sleep")


def test_a_read_that_is_interrupted_is_cancelled(url: str, settings: Settings) -> None:
    store = ColdStore(url, alone(settings))
    with store.connection() as connection:
        backend = connection.info.backend_pid

        def interrupt() -> None:
            await_sleep(url, backend)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            connection.rows(SLOWLY, {"number": 1, "seconds": 600})
        thread.join()
        assert connection.rows(SLOWLY, {"number": 6, "seconds": 0}) == [(7, b"", 2)]
        assert connection.info.backend_pid == backend
    store.close()


def test_a_read_of_a_task_that_is_cancelled_is_cancelled(url: str, settings: Settings) -> None:
    async def live() -> None:
        store = AsyncColdStore(url, alone(settings))
        async with store.connection() as connection:
            task = asyncio.create_task(connection.rows(SLOWLY, {"number": 1, "seconds": 600}))
            await asyncio.to_thread(await_sleep, url, connection.info.backend_pid)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await connection.rows(SLOWLY, {"number": 6, "seconds": 0}) == [(7, b"", 2)]
        await store.aclose()

    asyncio.run(live())


def test_a_read_takes_no_longer_than_a_call_may(url: str, settings: Settings) -> None:
    store = ColdStore(url, alone(settings, call_timeout=0.5))
    with pytest.raises(ColdStoreUnavailable, match="statement timeout"), store.connection() as connection:
        connection.rows(SLOWLY, {"number": 1, "seconds": 600})
    with store.connection() as connection:
        connection.execute("SET statement_timeout = 0")
    with pytest.raises(ColdStoreUnavailable, match="no answer within"), store.connection() as connection:
        connection.rows(SLOWLY, {"number": 1, "seconds": 600})
    assert store.fetch(reads.server_version())
    store.close()


def test_a_read_on_a_connection_that_broke_says_so(url: str, database_url: str, settings: Settings) -> None:
    store = ColdStore(url, alone(settings))

    with store.connection() as connection:
        pid = connection.info.backend_pid

    def throw_out() -> None:
        await_sleep(url, pid)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])

    thread = threading.Thread(target=throw_out)
    thread.start()
    with pytest.raises(ColdStoreUnavailable, match="terminat"), store.connection() as connection:
        connection.rows(SLOWLY, {"number": 1, "seconds": 600})
    thread.join()
    assert store.fetch(reads.server_version())
    store.close()
