"""What is promised of each operation: so many times the floor at most, so many times faster than others at least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.measuring import Case

SYNC, ASYNC = "banshee-memory", "banshee-memory, asyncio"
CACHED = "banshee-memory, client cache"
FLOOR, ASYNC_FLOOR = "floor", "floor, asyncio"
AT_ONCE = "32 tasks at once"
NOT_HOT = "get_history(50), not in Redis"
BY_HAND, ASYNC_BY_HAND = "redis-py by hand", "redis.asyncio by hand"
SESSION = "OpenAI Agents RedisSession"
SQL_SESSION = "OpenAI Agents SQLAlchemySession"
LANGCHAIN = "LangChain Redis history"
LANGCHAIN_POSTGRES = "LangChain Postgres history"
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
    Target("get_history(50)", SYNC, LANGCHAIN_POSTGRES, 12),
    Target("get_history(50)", ASYNC, SQL_SESSION, 12),
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
    Target(NOT_HOT, ASYNC, SQL_SESSION, 3.5),
]


@dataclass(frozen=True, slots=True)
class Cell:
    """One promise and what was found; None: that was not measured. `quiet`: of the quietest tenth of calls; `noise`: of
    what was found, as a part of it."""

    operation: str
    promise: str
    limit: float
    at_most: bool
    found: float | None = None
    quiet: float | None = None
    noise: float | None = None

    def met(self, number: float) -> bool:
        """Whether the promise is kept, in as many digits as are shown."""
        shown = round(number, 2)
        return shown <= self.limit if self.at_most else shown >= self.limit

    @property
    def verdict(self) -> str:
        """In words; of two that disagree both."""
        if self.found is None:
            return "not run"
        words = ["pass" if self.met(number) else "falls short" for number in (self.found, self.quiet) if number]
        return words[0] if len(set(words)) == 1 else f"{words[0]} ({words[1]} at p10)"


def cells(cases: Iterable[Case]) -> Iterator[Cell]:
    """Each target beside what was found."""
    found = {(case.operation, case.name): case for case in cases}
    for target in TARGETS:
        mine, other = found.get((target.operation, target.mine)), found.get((target.operation, target.other))
        numbers: Sequence[Any] = ()
        if mine is not None and other is not None:
            numbers = mine.times(other) if target.at_most else other.times(mine)
        yield Cell(target.operation, str(target), target.limit, target.at_most, *numbers)


def judged(every: Iterable[Cell]) -> Iterator[str]:
    """The promises, as Markdown."""
    yield "| operation | promised | median | at p10 | ± | |"
    yield "|---|---|---:|---:|---:|---|"
    for cell in every:
        numbers = [f"{n:.2f}" if n is not None else "" for n in (cell.found, cell.quiet)]
        noise = "" if cell.noise is None else f"{cell.noise:.0%}"
        yield f"| {cell.operation} | {cell.promise} | {numbers[0]} | {numbers[1]} | {noise} | {cell.verdict} |"
