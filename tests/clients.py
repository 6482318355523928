"""Both clients under one face, and where records lie when they are called: what the conformance suite runs on."""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, cast
from uuid import UUID

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin

READS = frozenset({"load_state", "get_event_history", "get_emotional_trends", "state_at", "why", "subscribe"}) | {
    "get_history",
    "search_messages",
    "get_conversation_stats",
    "get_memory",
    "get_memories_by_type",
    "get_sessions",
    "load_emotional_state",
    "get_emotional_history",
    "get_conversation_history",
    "export",
    "recall_turn",
}
"""After every other method the records of its agent go where the placement says."""
TIERS = frozenset({"flush", "evict", "rehydrate", "forget", "receipt", "find", "retry", "drop"})
_STORES = ("banshee_memory.stores", "banshee_memory.aio_stores")
Wrap = Callable[[str, Callable[..., Any]], Callable[..., Any]]


class _Face:
    """An object whose public callables are wrapped, under their names, and those of its stores too (`memories.x`)."""

    def __init__(self, target: Any, wrap: Wrap, path: str = "") -> None:
        self._target = target
        self._wrap = wrap
        self._path = path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if is_store(value):
            return _Face(value, self._wrap, f"{name}.")
        return self._wrap(self._path + name, value) if callable(value) else value


def is_store(value: object) -> bool:
    """Whether that is a store of a plugin, also behind a face."""
    return isinstance(value, _Face) or type(value).__module__ in _STORES


def awaited(plugin: AsyncMemoryPlugin, runner: asyncio.Runner) -> MemoryPlugin:
    """An AsyncMemoryPlugin whose methods are called like those of a MemoryPlugin."""

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if name.endswith("subscribe"):
                return _stepped(result, runner)
            return runner.run(_drained(result) if inspect.isasyncgen(result) else result)

        return call

    return cast("MemoryPlugin", _Face(plugin, wrap))


def _stepped(results: AsyncGenerator[Any, None], runner: asyncio.Runner) -> Iterator[Any]:
    try:
        while True:
            yield runner.run(_next(results))
    finally:
        runner.run(results.aclose())
        runner.run(asyncio.sleep(0))  # a transport that was closed lets go of its socket with the loop's next turn


async def _next(results: AsyncGenerator[Any, None]) -> Any:
    return await anext(results)


async def _drained(results: Any) -> list[Any]:
    return [result async for result in results]


class Placement(enum.Enum):
    """Where the records of an agent are when a method meets them."""

    HOT = "all hot"
    COLD = "all cold"
    HALF = "half flushed"
    GONE = "evicted between every two calls"


def placed(plugin: MemoryPlugin, placement: Placement) -> MemoryPlugin:
    """A plugin that moves the agent of each call between the tiers, as the placement says."""
    written: dict[UUID, int] = {}

    def move(agent: UUID, *, wrote: bool) -> None:
        if placement is Placement.GONE or (placement is Placement.COLD and wrote):
            plugin.evict(agent)
        elif placement is Placement.HALF and wrote:
            written[agent] = written.get(agent, 0) + 1
            if written[agent] % 2:
                plugin.flush(agent)

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        own = name.rpartition(".")[2]

        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if own not in TIERS and args and isinstance(args[0], UUID):
                move(args[0], wrote=own not in READS)
            return result

        return call

    return cast("MemoryPlugin", _Face(plugin, wrap))


def recorded(plugin: MemoryPlugin, called: set[str]) -> MemoryPlugin:
    """The same plugin; `called` is told the name of each method that gave an answer."""

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            called.add(name)
            return result

        return call

    return cast("MemoryPlugin", _Face(plugin, wrap))
