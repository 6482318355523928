"""`tracking.py`, for the tasks of one event loop, which listens by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from banshee_memory.hot.cache import ABSENT, Cache, Marked, Told, told_by
from banshee_memory.hot.calls import Call
from banshee_memory.hot.faults import LostError, ServerChangedError, ServerError, fault
from banshee_memory.hot.multiplexer import Multiplexer
from banshee_memory.hot.replies import pack
from banshee_memory.hot.tracking import TRACK, check_tracked, heed

if TYPE_CHECKING:
    from banshee_memory.hot.aio import AsyncHotStore
    from banshee_memory.settings import Durability

T = TypeVar("T")


class _Line:
    """The connection. While nobody asks, a PING now and then shows whether the server is still there."""

    def __init__(self, made: Multiplexer, cache: Cache, generation: int, patience: float) -> None:
        self.generation = generation
        self.made = made
        self._cache = cache
        self._patience = patience
        self._timer = made.loop.call_later(patience, self._look)
        made.when_lost = self._lost

    @property
    def is_on(self) -> bool:
        """Whether what it reads may be kept."""
        return self.generation == self._cache.generation and self.made.is_alive()

    def end(self) -> None:
        """Closes it."""
        self.made.end("what it read is not kept any more")

    def _lost(self) -> None:
        self._timer.cancel()
        self._cache.lose(self.generation)

    def _look(self) -> None:
        if self.made.lost is not None:
            return
        self.made.ask(pack(("PING",))).add_done_callback(_seen)
        self._timer = self.made.loop.call_later(self._patience, self._look)


def _seen(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()  # the end was told of already


async def _opened(hot: AsyncHotStore, cache: Cache, patience: float) -> _Line:
    generation = cache.generation
    made = await hot.connect(patience)
    try:
        made.divert(lambda said: heed(cache, said))
        check_tracked(await made.ask_all(TRACK))
    except BaseException:
        made.end("its reads are not tracked")
        raise
    return _Line(made, cache, generation, patience)


class AsyncCachedReads:
    """A hot store for reads: a reply that is kept is the server's."""

    def __init__(self, hot: AsyncHotStore, cache: Cache, patience: float) -> None:
        self._hot = hot
        self._cache = cache
        self._patience = patience
        self._lock = asyncio.Lock()
        self._line: _Line | None = None

    async def run(self, call: Call[T]) -> T:
        """One call; at most one round trip."""
        reply = self._cache.find(call.sent)
        if reply is not ABSENT:
            return call.decode(reply)
        result: T = (await self._asked([call]))[0]
        return result

    async def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls; at most one round trip."""
        find = self._cache.find
        replies = [find(call.sent) for call in batch]
        if ABSENT in replies:
            return await self._asked(batch)
        return [call.decode(reply) for call, reply in zip(batch, replies, strict=True)]

    async def run_durably(self, call: Call[T], level: Durability) -> T:
        """See `AsyncHotStore.run_durably`."""
        return await self._hot.run_durably(call, level)

    async def aclose(self) -> None:
        """Closes its connection and lets go of what is kept."""
        async with self._lock:
            line, self._line = self._line, None
            self._cache.lose()
            if line is not None:
                line.end()
                await asyncio.sleep(0)

    async def _asked(self, batch: Sequence[Call[Any]]) -> list[Any]:
        asked = [one for call in batch if (one := told_by(call)) is not None]
        if len(asked) == len(batch):
            replies = await self._tracked(asked)
            if replies is not None:
                return [call.decode(reply) for call, reply in zip(batch, replies, strict=True)]
        return [await self._hot.run(batch[0])] if len(batch) == 1 else await self._hot.run_all(batch)

    async def _tracked(self, asked: Sequence[Told]) -> list[Any] | None:
        """The replies, kept where they may be. None: the store must be asked as if nothing ever was."""
        try:
            line = await self._listened()
            marked = self._cache.ask(asked, line.generation)
            if marked is None:
                return None
            try:
                return await self._answered(line, marked)
            finally:
                self._cache.end(marked)
        except ServerChangedError:
            return None
        except LostError as exc:
            if exc.is_late:
                raise fault(exc, self._hot.where) from exc
            return None  # who hung up may listen to another connection

    async def _answered(self, line: _Line, marked: Marked) -> list[Any] | None:
        while line.made.is_full:
            await line.made.room()
        replies = await line.made.ask_all([one.sent for one in marked.told])
        if ServerError in map(type, replies):
            return None  # what the server lacks is mended there
        self._cache.answer(marked, replies)
        return replies

    async def _listened(self) -> _Line:
        line = self._line
        if line is not None and line.is_on:
            return line
        async with self._lock:
            line = self._line
            if line is None or not line.is_on:
                if line is not None:
                    self._line = None
                    self._cache.lose(line.generation)
                    line.end()
                self._line = line = await _opened(self._hot, self._cache, self._patience)
        return line
