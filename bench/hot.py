"""Every hot operation as a case, beside the floor and beside what people use today.

The servers are private ones, in a temporary folder, on the core that this process is pinned to.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
import redis.asyncio

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin, Settings
from banshee_memory.cli.workload import calls, turning
from banshee_memory.embedded import start
from banshee_memory.hot.keys import agent_keys
from bench import by_hand, floors, peers, world
from bench.measuring import Case
from bench.targets import ASYNC, ASYNC_BY_HAND, ASYNC_FLOOR, AT_ONCE, BY_HAND, CACHED, FLOOR, NOT_HOT, SYNC

TASKS = 32
SLOW = 20
"""Calls a block of what takes longer."""


def at_once(call: Callable[[], Any]) -> Callable[[], Any]:
    """So many tasks that each call it four times."""

    async def task() -> None:
        for _ in range(4):
            await call()

    async def together() -> None:
        await asyncio.gather(*[task() for _ in range(TASKS)])

    return together


class Bench:
    """Servers, clients and cases."""

    def __init__(self, stack: ExitStack, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self._stack, self._loop = stack, loop
        self.notes: list[str] = []
        servers = stack.enter_context(start(folder))
        self.urls = servers.redis_url, servers.database_url
        self.memory = stack.enter_context(MemoryPlugin(servers.database_url, servers.redis_url))
        self.memory.migrate()
        self._async_memory = AsyncMemoryPlugin(servers.database_url, servers.redis_url)
        self._at_end(self._async_memory.aclose)
        world.begin(self.memory)
        by_hand.settle(servers.redis_url)
        self.redis = stack.enter_context(redis.Redis.from_url(servers.redis_url))
        self._async_redis = redis.asyncio.Redis.from_url(servers.redis_url)
        self._at_end(self._async_redis.aclose)

    def _at_end(self, close: Callable[[], Any]) -> None:
        self._stack.callback(lambda: self._loop.run_until_complete(close()))

    def versions(self) -> str:
        """Of the servers."""
        health = self.memory.health_check()
        return f"{health.redis_version}, PostgreSQL {health.postgres_version}"

    def cases(self) -> list[Case]:
        """All of them, those of an operation side by side."""
        every = [*self._sync(), *self._async(), *self._felt(), *self._not_hot()]
        every += peers.all_of(self.urls, self._loop, self._stack, self.notes.append)
        order = {name: n for n, name in enumerate(dict.fromkeys(case.operation for case in every))}
        return sorted(every, key=lambda case: order[case.operation])

    def _sync(self) -> Iterator[Case]:
        bare = floors.BareSocket(self.urls[0])
        self._stack.callback(bare.close)
        yield from _each(FLOOR, floors.sync_calls(bare))
        yield from _each(SYNC, calls(self.memory, world.READERS, world.WRITERS))
        yield from self._cached()
        yield from _each(BY_HAND, by_hand.sync_calls(self.redis))

    def _cached(self) -> Iterator[Case]:
        """Reads of what did not change since the last one. Of so few agents that the uncounted calls read them all."""
        keeping = Settings(client_cache_entries=1_000)
        memory = self._stack.enter_context(MemoryPlugin(self.urls[1], self.urls[0], settings=keeping))
        made = calls(memory, world.READERS[:4], world.WRITERS[:4])
        yield from _each(CACHED, {name: made[name] for name in ("load_state", "get_history(50)", "recall_turn")})

    def _async(self) -> Iterator[Case]:
        protocol = floors.bare_protocol(self.urls[0], self._loop)
        self._stack.callback(protocol.transport.abort)
        bare = floors.async_calls(protocol)
        ours = calls(self._async_memory, world.READERS, world.WRITERS)
        by_them = by_hand.async_calls(self._async_redis)
        for name, made in ((ASYNC_FLOOR, bare), (ASYNC, ours), (ASYNC_BY_HAND, by_them)):
            yield from _each(name, made, is_async=True)
            yield Case(AT_ONCE, name, at_once(made["load_state"]), many=TASKS * 4, calls=3, is_async=True)

    def _felt(self) -> Iterator[Case]:
        """What was felt is worked out when it is read, of each message and each event."""
        for name, memory, is_async in ((SYNC, self.memory, False), (ASYNC, self._async_memory, True)):
            agent = turning(world.FEELERS)
            made = {
                "get_history(50), felt": partial(_history, memory, agent),
                "get_event_history(50)": partial(_events, memory, agent),
            }
            yield from _each(name, made, is_async=is_async)

    def _not_hot(self) -> Iterator[Case]:
        """What is asked for lies in PostgreSQL: Redis let it go before each call."""
        for name, memory, is_async in ((SYNC, self.memory, False), (ASYNC, self._async_memory, True)):
            before, call = self._letting_go(memory)
            yield Case(NOT_HOT, name, call, calls=SLOW, is_async=is_async, before=before)

    def _letting_go(self, memory: Any) -> tuple[Callable[[], object], Callable[[], Any]]:
        following, shards = itertools.cycle(world.SLEEPERS), self.memory.settings.shards
        asked = [world.SLEEPERS[0]]

        def let_go() -> None:
            asked[0] = next(following)
            self.redis.delete(agent_keys(asked[0], shards).messages)

        return let_go, lambda: memory.conversations.get_history(asked[0], 50)


def _history(memory: Any, agent: Callable[[], UUID]) -> Any:
    return memory.conversations.get_history(agent(), 50)


def _events(memory: Any, agent: Callable[[], UUID]) -> Any:
    return memory.emotions.get_event_history(agent(), 50)


def _each(name: str, made: dict[str, Callable[[], Any]], *, is_async: bool = False) -> Iterator[Case]:
    for operation, call in made.items():
        yield Case(operation, name, call, is_async=is_async)
