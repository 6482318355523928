"""Both tiers without the plugin around them, for tests that come between the steps of what runs on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from banshee_memory.cold.client import ColdStore
from banshee_memory.errors import BansheeError, HotStoreFull
from banshee_memory.hot import calls
from banshee_memory.hot.calls import MISS, Call
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, agent_keys
from banshee_memory.operations import AnyOperation, Direct, Operations
from banshee_memory.records import EvictReport, FlushReport, RehydrateReport
from banshee_memory.settings import Settings
from banshee_memory.stores import ConversationStore, DeadLetters, EmotionStore, MemoryManager, SessionStore
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.recovery import Recoverer
from banshee_memory.tiering.steps import Steps, drive, relayed

T = TypeVar("T")
Action = Callable[[], object]
Between = Callable[[Steps[Any]], Steps[Any]]


def nothing(steps: Steps[Any]) -> Steps[Any]:
    return steps


def by_the_library(*operations: Any) -> None:
    """Has these ask the library for the time: on servers whose clock tests set, the server's is another."""
    for made in operations:
        made.clock = calls.now()


class Tiers:
    """A client of both tiers. `between` wraps the steps of each of its operations."""

    def __init__(self, redis_url: str, database_url: str, settings: Settings, *, clock: str | None = None) -> None:
        self.settings = settings
        self.hot = HotStore(redis_url, settings, clock=clock)
        self.cold = ColdStore(database_url, settings)
        self.between: Between = nothing
        operations = Operations(settings)
        if clock is not None:
            by_the_library(operations)
        self.emotions = EmotionStore(self.run, operations, self.hot.subscribe)
        self.conversations = ConversationStore(self.run, operations)
        self.memories = MemoryManager(self.run, operations)
        self.sessions = SessionStore(self.run, operations)
        self.dead_letters = DeadLetters(self.run, settings)
        self._operations = operations
        self.hot.recovery = Recoverer(settings, self.hot, self.cold)

    def run(self, operation: AnyOperation[T]) -> T:
        """Runs an operation; by its one call, where it has one and nothing comes between."""
        if isinstance(operation, Direct) and self.between is nothing:
            try:
                result = self.hot.run(operation.call)
            except BansheeError as exc:
                operation = operation.resumed(exc)
            else:
                if result is not MISS:
                    return result  # type: ignore[no-any-return]
                operation = operation.resumed(result)
        steps: Steps[T] = self.between(operation.steps)
        return drive(steps, self.hot, self.cold)

    def keys(self, agent: UUID) -> AgentKeys:
        """The keys of an agent."""
        return agent_keys(agent, self.settings.shards)

    def flush(self, agent: UUID | None = None) -> FlushReport:
        """Carries what is unflushed to PostgreSQL."""
        return Drain(self.settings, self.hot, self.cold).flush(agent)

    def evict(self, agent: UUID) -> EvictReport:
        """Flushes an agent and drops it from Redis."""
        return self.run(self._operations.evict(agent, self.flush(agent)))

    def rehydrate(self, agent: UUID) -> RehydrateReport:
        """Brings an agent into Redis."""
        return self.run(self._operations.rehydrate(agent))

    def drop(self, agent: UUID) -> None:
        """What Redis does by itself when it is short of memory: lets go of keys with a TTL."""
        self.run(self._operations.evict(agent, FlushReport()))

    def close(self) -> None:
        """Closes both."""
        self.hot.close()
        self.cold.close()


def intruded(steps: Steps[T], at: int, action: Action) -> Steps[T]:
    """The same steps; before call number `at` something else happens. One round trip may be several calls."""
    number = 0

    def answer(step: Any) -> Steps[Any]:
        nonlocal number
        if isinstance(step, list):
            replies = [None] * len(step)
            for index, call in enumerate(step):
                replies[index] = yield from answer(call)
            return replies
        if number == at:
            action()
        number += 1
        return (yield step)

    return relayed(steps, answer)


# The functions that a Redis at its memory limit still runs: those that read, and those that free memory.
_FULL_RUNS = ("version", "now", "load_state", "get_memory", "delete_memory", "mark_clean", "evict")


def refused_writes(steps: Steps[T], since: int = 0) -> Steps[T]:
    """The same steps, as if Redis refused every write for lack of memory, from call number `since` on."""
    number = 0

    def answer(step: Any) -> Steps[Any]:
        nonlocal number
        number += 1
        if number > since and isinstance(step, Call) and _is_refused(step):
            raise HotStoreFull("full")
        return (yield step)

    return relayed(steps, answer)


def _is_refused(call: Call[Any]) -> bool:
    command, function = call.command[0], str(call.command[1])
    return command == "FCALL" and not function.endswith(_FULL_RUNS)


class IntrudedHotStore(HotStore):
    """A hot store before whose round trip number `at` something else happens."""

    at = -1
    trips = 0
    action: Action = staticmethod(lambda: None)

    def run(self, call: Call[T]) -> T:
        self._trip()
        return super().run(call)

    def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        self._trip()
        return super().run_all(batch)

    def try_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        self._trip()
        return super().try_all(batch)

    def _trip(self) -> None:
        number, self.trips = self.trips, self.trips + 1
        if number == self.at:
            self.action()
