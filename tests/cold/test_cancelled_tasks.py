"""A task that is cancelled while it gives its connection back has given it back all the same."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import AsyncColdStore
from banshee_memory.settings import Settings

CONNECTIONS = 3


async def _run(store: AsyncColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.fetch(reads.totals_of(agent))
    pool = store._pool
    assert pool is not None
    put, giving_back = pool.putconn, asyncio.Event()

    async def held_up(connection: Any) -> None:
        giving_back.set()
        await asyncio.sleep(0)  # as where another task has the pool's lock
        await put(connection)

    monkeypatch.setattr(pool, "putconn", held_up)
    for _ in range(CONNECTIONS):
        giving_back.clear()
        task = asyncio.create_task(store.fetch(reads.totals_of(agent)))
        await giving_back.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    monkeypatch.undo()
    for connection in [await pool.getconn() for _ in range(CONNECTIONS)]:
        await pool.putconn(connection)


def test_the_pool_does_not_run_dry(url: str, settings: Settings, agent: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    own = msgspec.structs.replace(settings, db_max_connections=CONNECTIONS, connect_timeout=1)

    async def run() -> None:
        store = AsyncColdStore(url, own)
        try:
            await _run(store, agent, monkeypatch)
        finally:
            await store.aclose()

    asyncio.run(run())
