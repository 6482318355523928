"""What is promised of each operation: so many times the floor at most, so many times faster than others at least."""

from __future__ import annotations

from dataclasses import dataclass

SYNC, ASYNC = "banshee-memory", "banshee-memory, asyncio"
FLOOR, ASYNC_FLOOR = "floor", "floor, asyncio"
AT_ONCE = "32 tasks at once"
BY_HAND, ASYNC_BY_HAND = "redis-py by hand", "redis.asyncio by hand"
SESSION = "OpenAI Agents RedisSession"
LANGCHAIN = "LangChain Redis history"
LLAMA = "LlamaIndex RedisChatStore"
AGNO = "agno RedisDb"
LANGGRAPH = "LangGraph PostgresStore"
OM = "redis-om"


@dataclass(frozen=True, slots=True)
class Target:
    """`at_most`: times `other`; else at least so many times faster than it."""

    operation: str
    mine: str
    other: str
    limit: float
    at_most: bool = False

    def __str__(self) -> str:
        if self.at_most:
            return f"{'asyncio' if self.mine == ASYNC else 'sync'}, at most {self.limit:g} × floor"
        return f"at least {self.limit:g} × as fast as {self.other}"

    def met(self, ratio: float) -> bool:
        """Whether this was measured."""
        return ratio <= self.limit if self.at_most else ratio >= self.limit


def _floors(operation: str, sync: float, asyncio: float) -> list[Target]:
    return [
        Target(operation, SYNC, FLOOR, sync, at_most=True),
        Target(operation, ASYNC, ASYNC_FLOOR, asyncio, at_most=True),
    ]


TARGETS = [
    *_floors("load_state", 1.2, 1.25),
    Target("load_state", SYNC, BY_HAND, 1.7),
    Target("load_state", SYNC, OM, 3.5),
    *_floors("update_emotions", 1.2, 1.25),
    Target("update_emotions", SYNC, OM, 3.5),
    *_floors("get_history(50)", 1.15, 1.2),
    Target("get_history(50)", ASYNC, SESSION, 3.5),
    Target("get_history(50)", SYNC, LLAMA, 5),
    Target("get_history(50)", SYNC, LANGCHAIN, 8),
    *_floors("save_message", 1.2, 1.25),
    Target("save_message", ASYNC, SESSION, 8),
    Target("save_message", SYNC, BY_HAND, 2),
    *_floors("retrieve_memory", 1.2, 1.25),
    Target("retrieve_memory", SYNC, BY_HAND, 1.5),
    Target("retrieve_memory", SYNC, AGNO, 1.5),
    Target("retrieve_memory", SYNC, LANGGRAPH, 10),
    *_floors("store_memory", 1.2, 1.25),
    Target("store_memory", SYNC, AGNO, 4),
    Target("store_memory", SYNC, LANGGRAPH, 10),
    Target(AT_ONCE, ASYNC, ASYNC_FLOOR, 1.5, at_most=True),
    Target(AT_ONCE, ASYNC, ASYNC_BY_HAND, 5),
]
