"""Tasks that are cancelled at any moment leave a client with all its connections."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID, uuid4

import msgspec
import pytest

from banshee_memory import AsyncMemoryPlugin
from tests.tiering.conftest import SETTINGS
from tests.tiers import Tiers

CONNECTIONS = 3
TASKS = 300
AGENTS = 10


async def _reads(memory: AsyncMemoryPlugin, agent: UUID) -> tuple[object, list[str], int]:
    known = await memory.memories.retrieve_memory(agent, "fact", "k")
    said = await memory.conversations.get_history(agent, 200)  # more than Redis keeps, so PostgreSQL is asked
    totals = await memory.conversations.get_conversation_stats(agent)
    return known, [m.content for m in said], totals.total_messages


async def _cancelled(memory: AsyncMemoryPlugin, agent: UUID, turns: int) -> None:
    task = asyncio.create_task(_reads(memory, agent))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def _run(urls: tuple[str, str], dice: random.Random) -> None:
    settings = msgspec.structs.replace(SETTINGS, db_max_connections=CONNECTIONS, connect_timeout=2)
    async with AsyncMemoryPlugin(urls[1], urls[0], settings=settings) as memory:
        agents = [uuid4() for _ in range(AGENTS)]
        for number, agent in enumerate(agents):
            await memory.memories.store_memory(agent, "fact", "k", number)
            await memory.conversations.save_message(agent, "user", f"for {number}")
        for _ in range(TASKS // 6):
            await asyncio.gather(*(_cancelled(memory, dice.choice(agents), dice.randrange(60)) for _ in range(6)))
        # Each answer is its asker's, and more are under way than there are connections.
        answers = await asyncio.gather(*(_reads(memory, agent) for agent in agents))
        assert answers == [(number, [f"for {number}"], 1) for number in range(AGENTS)]
        assert memory._tiers is not None
        pool = memory._tiers[1]._pool
        assert pool is not None
        for connection in [await pool.getconn() for _ in range(CONNECTIONS)]:
            await pool.putconn(connection)


@pytest.mark.parametrize("seed", range(2))
def test_every_call_works_afterwards(tiers: Tiers, own_urls: tuple[str, str], seed: int) -> None:
    asyncio.run(_run(own_urls, random.Random(seed)))
