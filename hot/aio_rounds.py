"""`rounds.py`, for the tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from banshee_memory.hot.rounds import NextRound, Round

T = TypeVar("T")


class AsyncRounds(Generic[T]):
    """For tasks: the work is a task of its own, which goes on when those that wait for it are cancelled."""

    def __init__(self, work: Callable[[frozenset[int]], Awaitable[T]]) -> None:
        self._work = work
        self._next: NextRound[T] = NextRound()
        self._one_at_a_time = asyncio.Lock()

    async def wait(self, shard: int) -> T:
        """What the first round came to that began after this call."""
        joined, _ = self._next.join(shard)
        if joined.task is None:
            joined.task = asyncio.create_task(self._do(joined))
        outcome: T = await asyncio.shield(joined.task)
        return outcome

    async def _do(self, joined: Round[T]) -> T:
        async with self._one_at_a_time:
            self._next.begin(joined)
            return await self._work(frozenset(joined.shards))
