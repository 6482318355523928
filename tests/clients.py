"""Both clients under one face, and where records lie when they are called: what the conformance suite runs on."""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, cast
from uuid import UUID

from banshee_memory import AsyncMemoryPlugin, MemoryPlugin

WRITES = frozenset({"save_state", "update_emotions", "save_event", "save_message", "save_messages"}) | {
    "store_memory",
    "delete_memory",
    "save_emotional_state",
    "save_emotional_event",
    "save_conversation_message",
    "set_temperament",
    "update_emotional_context",
    "start_session",
    "end_session",
}
TIERS = frozenset({"flush", "evict", "rehydrate", "find", "retry", "drop"})
STORES = ("emotions", "conversations", "memories", "sessions", "dead_letters")


class _Face:
    """An object whose public callables are wrapped, and those of its stores too."""

    def __init__(self, target: Any, wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
        self._target = target
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name in STORES:
            return _Face(value, self._wrap)
        return self._wrap(name, value) if callable(value) else value


def awaited(plugin: AsyncMemoryPlugin, runner: asyncio.Runner) -> MemoryPlugin:
    """An AsyncMemoryPlugin whose methods are called like those of a MemoryPlugin."""

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if name == "subscribe":
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

    def move(name: str, agent: UUID) -> None:
        if placement is Placement.GONE or (placement is Placement.COLD and name in WRITES):
            plugin.evict(agent)
        elif placement is Placement.HALF and name in WRITES:
            written[agent] = written.get(agent, 0) + 1
            if written[agent] % 2:
                plugin.flush(agent)

    def wrap(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if name not in TIERS and args and isinstance(args[0], UUID):
                move(name, args[0])
            return result

        return call

    return cast("MemoryPlugin", _Face(plugin, wrap))
