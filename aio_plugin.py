"""AsyncMemoryPlugin: `plugin.py`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from banshee_memory import validation
from banshee_memory.aio_stores import (
    AsyncConversationStore,
    AsyncDeadLetters,
    AsyncEmotionStore,
    AsyncMemoryManager,
    AsyncSessionStore,
)
from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.errors import BansheeError, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls
from banshee_memory.hot.aio_rounds import AsyncRounds
from banshee_memory.hot.faults import LostError, ServerError
from banshee_memory.hot.feed import Subscription
from banshee_memory.operations import AnyOperation, Carried, Direct, Operation, Operations, check_carried
from banshee_memory.plugin import MemoryPlugin
from banshee_memory.records import (
    ConversationMessage,
    EmotionalEvent,
    EmotionalEventRecord,
    ErasureReport,
    EvictReport,
    FlushReport,
    Health,
    ImportReport,
    Json,
    MemoryRecord,
    RehydrateReport,
    Stats,
    Turn,
)
from banshee_memory.settings import Settings
from banshee_memory.stamps import Receipt
from banshee_memory.tiering.idling import evict_idle
from banshee_memory.tiering.steps import adrive

if TYPE_CHECKING:
    from banshee_memory.cold.client import AsyncColdStore
    from banshee_memory.hot.aio import AsyncHotStore
    from banshee_memory.hot.aio_tracking import AsyncCachedReads
    from banshee_memory.tiering.recovery import Recoverer
    from banshee_memory.tiering.transfer import Line

T = TypeVar("T")


class AsyncMemoryPlugin:
    """The memory of emotional agents, for the tasks of one event loop: the methods of `MemoryPlugin`, awaited.

    What is rare and long (flush, import, statistics) runs in a thread, on connections of its own.
    """

    emotions: AsyncEmotionStore
    conversations: AsyncConversationStore
    memories: AsyncMemoryManager
    sessions: AsyncSessionStore
    dead_letters: AsyncDeadLetters

    def __init__(
        self, database_url: str | None = None, redis_url: str | None = None, *, settings: Settings | None = None
    ) -> None:
        self._sync = MemoryPlugin(database_url, redis_url, settings=settings)
        self.settings = self._sync.settings
        self._operations = Operations(self.settings)
        self._lock = asyncio.Lock()
        self._rounds = AsyncRounds(self._carry)
        self._stale = ContextVar("banshee_memory_stale", default=False)
        self._tells_stale = self.settings.degraded_reads
        self._tiers: tuple[AsyncHotStore, AsyncColdStore] | None = None
        self._cached: tuple[AsyncCachedReads, AsyncColdStore] | None = None
        self.emotions = AsyncEmotionStore(self._run, self._operations, self._subscribe)
        self.conversations = AsyncConversationStore(self._run, self._operations)
        self.memories = AsyncMemoryManager(self._run, self._operations)
        self.sessions = AsyncSessionStore(self._run, self._operations)
        self.dead_letters = AsyncDeadLetters(self._run, self.settings)

    async def __aenter__(self) -> AsyncMemoryPlugin:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection and leaves the embedded servers. Calling it again does nothing."""
        async with self._lock:
            tiers, cached, self._tiers, self._cached = self._tiers, self._cached, None, None
        if cached is not None:
            await cached[0].aclose()
        for tier in tiers or ():
            await tier.aclose()
        await asyncio.to_thread(self._sync.close)

    # --- the original's short names ---

    async def save_emotional_state(self, agent_id: UUID, state: EmotionalState) -> None:
        """`emotions.save_state`."""
        await self.emotions.save_state(agent_id, state)

    async def load_emotional_state(self, agent_id: UUID) -> EmotionalState | None:
        """`emotions.load_state`."""
        return await self.emotions.load_state(agent_id)

    async def save_emotional_event(
        self, agent_id: UUID, event: EmotionalEvent, resulting_emotions: Mapping[Emotion, float]
    ) -> EmotionalEventRecord:
        """`emotions.save_event`."""
        return await self.emotions.save_event(agent_id, event, resulting_emotions)

    async def get_emotional_history(self, agent_id: UUID, limit: int = 100) -> list[EmotionalEventRecord]:
        """`emotions.get_event_history`."""
        return await self.emotions.get_event_history(agent_id, limit)

    async def save_conversation_message(self, agent_id: UUID, role: str, content: str, metadata: Json = None) -> UUID:
        """`conversations.save_message`."""
        return await self.conversations.save_message(agent_id, role, content, metadata)

    async def get_conversation_history(self, agent_id: UUID, limit: int = 50) -> list[ConversationMessage]:
        """`conversations.get_history`."""
        return await self.conversations.get_history(agent_id, limit)

    async def store_memory(
        self, agent_id: UUID, memory_type: str, key: str, data: Json, ttl_seconds: float | None = None
    ) -> MemoryRecord:
        """`memories.store_memory`."""
        return await self.memories.store_memory(agent_id, memory_type, key, data, ttl_seconds)

    async def retrieve_memory(self, agent_id: UUID, memory_type: str, key: str) -> Any | None:
        """`memories.retrieve_memory`."""
        return await self.memories.retrieve_memory(agent_id, memory_type, key)

    async def recall_turn(
        self, agent_id: UUID, *, messages: int = 50, memories: int = 20, memory_type: str | None = None
    ) -> Turn:
        """All that a prompt needs, in one round trip where the agent is resident: call it before each turn of a model.

        What the agent feels now, its newest `messages`, oldest first, and its worthiest `memories` (of `memory_type`;
        None: of all types), by importance, then last access; these do not count as accessed. It is what `load_state`,
        `get_history` and `get_memories_by_type` give, read at one time but not as of one instant.
        """
        return await self._run(self._operations.recall_turn(agent_id, messages, memories, memory_type))

    # --- both tiers ---

    @property
    def last_read_was_stale(self) -> bool:
        """Whether PostgreSQL answered the last call of this thread or task because Redis did not.

        Only where `Settings.degraded_reads` allows it. Then the answer is as of the last flush: what was written after
        it is not in there. A fresh answer, and a write, make it False again. Of tasks it is the calling one that is
        told, not who awaits it, where the call is a task by itself (`gather`, `create_task`).
        """
        return self._stale.get()

    async def flush(self, agent_id: UUID | None = None) -> FlushReport:
        """Returns when everything acknowledged before the call (of that agent) is in PostgreSQL.

        Of the agent's shard all is carried. ColdStoreUnavailable if it takes longer than `Settings.flush_timeout`.
        """
        return await asyncio.to_thread(self._sync.flush, agent_id)

    async def rehydrate(self, agent_id: UUID) -> RehydrateReport:
        """Brings an agent into Redis: its state, the end of its histories, its worthiest memories.

        No call needs this: each brings in what it reads. It is there to have an agent warm before it is needed.
        """
        return await self._run(self._operations.rehydrate(agent_id))

    async def evict(self, agent_id: UUID) -> EvictReport:
        """Flushes an agent and drops it from Redis; never drops what is not flushed.

        Volatile memories are only in Redis, and go. The next read brings the rest back as it was.
        """
        return await self._run(self._operations.evict(agent_id, await self.flush(agent_id)))

    async def forget(self, agent_id: UUID, *, progress: Callable[[str, int], None] | None = None) -> ErasureReport:
        """Erases an agent from both tiers, looks again whether anything is left, and says what went.

        What is written from then on is of a new life, which knows nothing of the old one; a call that is under way
        belongs to the one or to the other. ColdStoreUnavailable and HotStoreUnavailable where a store is not there, or
        does not stay: forgetting it again ends what was begun. What backups, replicas and write-ahead logs still hold
        is beyond it: see `docs/forgetting.md`. `progress` is told each kind of thing that goes (by the names of the
        report's fields) and how many of it, again and again, by the thread that does it.
        """
        return await asyncio.to_thread(self._sync.forget, agent_id, progress=progress)

    async def receipt(self, agent_id: UUID) -> Receipt:
        """What `wait_cold` takes to wait for all that is acknowledged of the agent so far (and of its shard)."""
        return await self._run(self._operations.receipt(agent_id))

    async def wait_cold(self, receipt: Receipt, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Returns when all that the receipt stands for is committed in PostgreSQL, or is a dead letter.

        It waits for whoever flushes, a daemon or a `flush()`, and does not flush itself. A store that is away may come
        back within `timeout` seconds (None: `Settings.flush_timeout`); after that DurabilityUnavailable, with the
        receipt to wait again; at once where Redis was replaced since, as it cannot tell whether the write was lost.
        """
        await self._run(self._operations.wait_cold(receipt, timeout))

    async def evict_idle(self, idle: float) -> EvictReport:
        """Drops what no agent used for so many seconds, and flushes first; never drops what is not flushed.

        Redis lets go of it by itself after `Settings.hot_ttl`; this is for who wants the room now. 0: everything that
        is clean. Volatile memories are only in Redis, and go too. Redis counts whole seconds, and not under an LFU
        policy: ConfigurationError.
        """
        validation.idle(idle)
        return await self._run(Operation(evict_idle(idle, await self.flush())))

    async def health_check(self) -> Health:
        """Whether both stores answer, how fast, and what is wrong in words. A server that is down raises nothing."""
        return await asyncio.to_thread(self._sync.health_check)

    async def stats(self) -> Stats:
        """Both tiers at a glance: who is hot, what waits for PostgreSQL, rows, partitions, sizes, own hits."""
        from banshee_memory.tiering.report import stats

        tiers = await asyncio.to_thread(self._sync._open)
        return await asyncio.to_thread(stats, self.settings, *tiers, self._operations.residency.counters)

    async def migrate(self) -> list[str]:
        """Brings the database up to this version's schema; gives the names of the migrations applied now.

        Any number may run it at once. IncompatibleSchema if the database is newer than this code.
        """
        return await asyncio.to_thread(self._sync.migrate)

    async def export(self, agent_id: UUID) -> AsyncIterator[Line]:
        """Everything both tiers have of an agent, as lines of the import format (flushes it first).

        `docs/import-format.md` says what an export holds.
        """
        lines = await asyncio.to_thread(self._sync.export, agent_id)
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line

    async def import_(self, records: Iterable[Line], *, skip_expired: bool = False) -> ImportReport:
        """Puts lines of the import format in, in their order. What is beyond retention is refused, or skipped.

        All of them are judged first: InvalidInput names the first that cannot go in, and then nothing was written.
        They are those that `export` gives, or `banshee_memory.tiering.transfer.parse` makes of a file's lines (bytes).
        """
        return await asyncio.to_thread(self._sync.import_, records, skip_expired=skip_expired)

    async def _open(self) -> tuple[AsyncHotStore, AsyncColdStore]:
        if self._tiers is None:
            async with self._lock:
                if self._tiers is None:
                    self._tiers = await self._opened()
        return self._tiers

    async def _opened(self) -> tuple[AsyncHotStore, AsyncColdStore]:
        from banshee_memory.cold.client import AsyncColdStore
        from banshee_memory.hot.aio import AsyncHotStore
        from banshee_memory.tiering.recovery import Recoverer

        redis_url, database_url = await asyncio.to_thread(self._sync._connections.urls)
        hot, cold = AsyncHotStore(redis_url, self.settings), AsyncColdStore(database_url, self.settings)
        hot.recovery = _Threaded(lambda: Recoverer(self.settings, *self._sync._open()))
        # What runs in threads is by the same client: it tells this cache what it writes.
        hot.cache = self._sync._cache
        if hot.cache is not None:
            from banshee_memory.hot.aio_tracking import AsyncCachedReads

            self._cached = AsyncCachedReads(hot, hot.cache, self.settings.call_timeout), cold
        return hot, cold

    async def _subscribe(self, subscription: Subscription) -> AsyncIterator[EmotionalEventRecord]:
        hot, _ = await self._open()
        async for event in hot.subscribe(subscription):
            yield event

    async def _run(self, operation: AnyOperation[T]) -> T:
        if isinstance(operation, Direct):
            hot, _ = self._tiers or await self._open()
            call = operation.call
            try:
                asked = hot.asked(call)
                if asked is None:
                    result = await hot.run(call)
                else:  # one coroutine less
                    reply = await asked
                    result = call.decode(reply) if type(reply) is not ServerError else await hot.recovered(call, reply)
            except (BansheeError, LostError) as exc:
                operation = operation.resumed(hot.fault(exc))
            else:
                if result is not calls.MISS:
                    if self._tells_stale:
                        self._stale.set(False)
                    return result  # type: ignore[no-any-return]
                operation = operation.resumed(result)
        return await self._run_steps(operation)

    async def _run_steps(self, operation: Operation[T]) -> T:
        result = await self._read_or_written(operation)
        if operation.due is not None:
            failpoint("write.hot_by_task")
            receipt = operation.due.receipt
            check_carried(result, receipt, await self._rounds.wait(receipt.shard))
        return result

    async def _read_or_written(self, operation: Operation[T]) -> T:
        tiers = await self._open()
        try:
            result = await adrive(operation.steps, *((operation.cacheable and self._cached) or tiers))
        except HotStoreUnavailable:
            if operation.degraded is None:
                raise
            result, is_stale = await adrive(operation.degraded, *tiers), True
        else:
            is_stale = False
        if self._tells_stale:
            self._stale.set(is_stale)
        return result

    async def _carry(self, shards: frozenset[int]) -> Carried:
        return await asyncio.to_thread(self._sync._carry, shards)


class _Threaded:
    """Recovers the server by the sync client's connections, in a thread: it is rare and long."""

    def __init__(self, recoverer: Callable[[], Recoverer]) -> None:
        self._recoverer = recoverer

    async def meet(self) -> None:
        await asyncio.to_thread(lambda: self._recoverer().meet())

    async def admit(self) -> None:
        await asyncio.to_thread(lambda: self._recoverer().admit())
