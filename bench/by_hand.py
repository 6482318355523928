"""What people write by hand: redis-py and json, pooled client, nothing decays, nothing is logged."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import redis
import redis.asyncio

from banshee_memory.cli.workload import DATA, FELT, MESSAGES, METADATA, TOKENS, WORDS, turning
from bench import world

PREFIX = "byhand:"


def settle(url: str) -> None:
    """The same agents, as somebody would keep them."""
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for agent in world.READERS + world.WRITERS:
            pipe.hset(f"{PREFIX}state:{agent}", mapping={e.value: i for e, i in FELT.items()})
            for _ in range(MESSAGES):
                pipe.rpush(f"{PREFIX}messages:{agent}", _message())
            pipe.set(f"{PREFIX}memory:{agent}:river", json.dumps(DATA))
        pipe.execute()


def _message() -> str:
    return json.dumps({"role": "user", "content": WORDS * 2, "metadata": METADATA, "tokens": TOKENS})


def sync_calls(client: redis.Redis) -> dict[str, Callable[[], Any]]:
    """By operation."""
    reader, writer = turning(world.READERS), turning(world.WRITERS)

    def load_state() -> Any:
        return {k.decode(): float(v) for k, v in client.hgetall(f"{PREFIX}state:{reader()}").items()}  # type: ignore[union-attr]

    def save_message() -> None:
        agent = writer()
        with client.pipeline(transaction=True) as pipe:
            pipe.rpush(f"{PREFIX}messages:{agent}", _message())
            pipe.ltrim(f"{PREFIX}messages:{agent}", -50, -1)
            pipe.xadd(f"{PREFIX}log", {"agent": str(agent), "message": _message()}, maxlen=100_000)
            pipe.execute()

    return {
        "load_state": load_state,
        "get_history(50)": lambda: [json.loads(m) for m in client.lrange(f"{PREFIX}messages:{reader()}", -50, -1)],  # type: ignore[union-attr]
        "save_message": save_message,
        "retrieve_memory": lambda: json.loads(client.get(f"{PREFIX}memory:{reader()}:river")),  # type: ignore[arg-type]
        "store_memory": lambda: client.set(f"{PREFIX}memory:{writer()}:river", json.dumps(DATA), ex=3_600),
    }


def async_calls(client: redis.asyncio.Redis) -> dict[str, Callable[[], Awaitable[Any]]]:
    """By operation."""
    reader = turning(world.READERS)

    async def load_state() -> Any:
        return {k.decode(): float(v) for k, v in (await client.hgetall(f"{PREFIX}state:{reader()}")).items()}  # type: ignore[misc]

    async def history() -> Any:
        return [json.loads(m) for m in await client.lrange(f"{PREFIX}messages:{reader()}", -50, -1)]  # type: ignore[misc]

    async def retrieve() -> Any:
        return json.loads(await client.get(f"{PREFIX}memory:{reader()}:river"))

    return {"load_state": load_state, "get_history(50)": history, "retrieve_memory": retrieve}
