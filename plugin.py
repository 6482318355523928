"""MemoryPlugin: the stores, the short names of the original facade, and what concerns both tiers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from banshee_memory import validation
from banshee_memory.connections import Connections
from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.errors import BansheeError, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, failover
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.rounds import Rounds
from banshee_memory.operations import AnyOperation, Carried, Direct, Flushed, Operation, Operations, check_carried
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
from banshee_memory.settings import Settings, settings_from
from banshee_memory.stamps import Receipt
from banshee_memory.stores import ConversationStore, DeadLetters, EmotionStore, MemoryManager, SessionStore
from banshee_memory.tiering.backpressure import emptied
from banshee_memory.tiering.idling import evict_idle
from banshee_memory.tiering.steps import drive, drive_together

if TYPE_CHECKING:
    from banshee_memory.cold.client import ColdStore
    from banshee_memory.hot.cache import Cache
    from banshee_memory.hot.client import HotStore
    from banshee_memory.hot.tracking import CachedReads
    from banshee_memory.tiering.drain import Drain
    from banshee_memory.tiering.transfer import Line

T = TypeVar("T")


class MemoryPlugin:
    """The memory of emotional agents. Safe to share between threads.

    Without arguments it uses REDIS_URL and DATABASE_URL, or the embedded servers where neither is set. Constructing
    opens nothing; the first call, or `with`, connects. `settings` None: the defaults, and what the environment says.

    Every call judges its arguments first: `InvalidInput`, and nothing was done. Besides, any call can raise
    `HotStoreUnavailable`, `ColdStoreUnavailable`, `IncompatibleSchema` and `ConfigurationError`, a write also
    `HotStoreFull` and `DurabilityUnavailable`; no driver's error gets through. Every write takes `durability` (None:
    that of the settings); one that takes an `idempotency_key`, of up to 256 bytes, is done once however often it is
    called with that key within `Settings.idempotency_window`, and answered as it was the first time.
    """

    emotions: EmotionStore
    conversations: ConversationStore
    memories: MemoryManager
    sessions: SessionStore
    dead_letters: DeadLetters

    def __init__(
        self, database_url: str | None = None, redis_url: str | None = None, *, settings: Settings | None = None
    ) -> None:
        self.settings = settings or settings_from()
        self._connections = Connections(redis_url, database_url, self.settings)
        self._operations = Operations(self.settings)
        self._lock = threading.Lock()
        self._rounds = Rounds(self._carry)
        self._stale = ContextVar("banshee_memory_stale", default=False)
        self._tells_stale = self.settings.degraded_reads
        self._tiers: tuple[HotStore, ColdStore] | None = None
        self._cached: tuple[CachedReads, ColdStore] | None = None
        self._cache = _cache_of(self.settings)
        self.emotions = EmotionStore(self._run, self._operations, self._subscribe)
        self.conversations = ConversationStore(self._run, self._operations)
        self.memories = MemoryManager(self._run, self._operations)
        self.sessions = SessionStore(self._run, self._operations)
        self.dead_letters = DeadLetters(self._run, self.settings)

    def __enter__(self) -> MemoryPlugin:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection and leaves the embedded servers. Calling it again does nothing."""
        with self._lock:
            tiers, cached, self._tiers, self._cached = self._tiers, self._cached, None, None
        if cached is not None:
            cached[0].close()
        for tier in tiers or ():
            tier.close()
        self._connections.close()

    # --- the original's short names ---

    def save_emotional_state(self, agent_id: UUID, state: EmotionalState) -> None:
        """`emotions.save_state`."""
        self.emotions.save_state(agent_id, state)

    def load_emotional_state(self, agent_id: UUID) -> EmotionalState | None:
        """`emotions.load_state`."""
        return self.emotions.load_state(agent_id)

    def save_emotional_event(
        self, agent_id: UUID, event: EmotionalEvent, resulting_emotions: Mapping[Emotion, float]
    ) -> EmotionalEventRecord:
        """`emotions.save_event`."""
        return self.emotions.save_event(agent_id, event, resulting_emotions)

    def get_emotional_history(self, agent_id: UUID, limit: int = 100) -> list[EmotionalEventRecord]:
        """`emotions.get_event_history`."""
        return self.emotions.get_event_history(agent_id, limit)

    def save_conversation_message(self, agent_id: UUID, role: str, content: str, metadata: Json = None) -> UUID:
        """`conversations.save_message`."""
        return self.conversations.save_message(agent_id, role, content, metadata)

    def get_conversation_history(self, agent_id: UUID, limit: int = 50) -> list[ConversationMessage]:
        """`conversations.get_history`."""
        return self.conversations.get_history(agent_id, limit)

    def store_memory(
        self, agent_id: UUID, memory_type: str, key: str, data: Json, ttl_seconds: float | None = None
    ) -> MemoryRecord:
        """`memories.store_memory`."""
        return self.memories.store_memory(agent_id, memory_type, key, data, ttl_seconds)

    def retrieve_memory(self, agent_id: UUID, memory_type: str, key: str) -> Any | None:
        """`memories.retrieve_memory`."""
        return self.memories.retrieve_memory(agent_id, memory_type, key)

    def recall_turn(
        self, agent_id: UUID, *, messages: int = 50, memories: int = 20, memory_type: str | None = None
    ) -> Turn:
        """All that a prompt needs, in one round trip where the agent is resident: call it before each turn of a model.

        What the agent feels now, its newest `messages`, oldest first, and its worthiest `memories` (of `memory_type`;
        None: of all types), by importance, then last access; these do not count as accessed. It is what `load_state`,
        `get_history` and `get_memories_by_type` give, read at one time but not as of one instant.
        """
        return self._run(self._operations.recall_turn(agent_id, messages, memories, memory_type))

    # --- both tiers ---

    @property
    def last_read_was_stale(self) -> bool:
        """Whether PostgreSQL answered the last call of this thread or task because Redis did not.

        Only where `Settings.degraded_reads` allows it. Then the answer is as of the last flush: what was written after
        it is not in there. A fresh answer, and a write, make it False again. Of tasks it is the calling one that is
        told, not who awaits it, where the call is a task by itself (`gather`, `create_task`).
        """
        return self._stale.get()

    def flush(self, agent_id: UUID | None = None) -> FlushReport:
        """Returns when everything acknowledged before the call (of that agent) is in PostgreSQL.

        Of the agent's shard all is carried. ColdStoreUnavailable if it takes longer than `Settings.flush_timeout`.
        """
        return self._drain().flush(validation.optional_id("agent_id", agent_id))

    def rehydrate(self, agent_id: UUID) -> RehydrateReport:
        """Brings an agent into Redis: its state, the end of its histories, its worthiest memories.

        No call needs this: each brings in what it reads. It is there to have an agent warm before it is needed.
        """
        return self._run(self._operations.rehydrate(agent_id))

    def evict(self, agent_id: UUID) -> EvictReport:
        """Flushes an agent and drops it from Redis; never drops what is not flushed.

        Volatile memories are only in Redis, and go. The next read brings the rest back as it was.
        """
        return self._run(self._operations.evict(agent_id, self.flush(agent_id)))

    def forget(self, agent_id: UUID, *, progress: Callable[[str, int], None] | None = None) -> ErasureReport:
        """Erases an agent from both tiers, looks again whether anything is left, and says what went.

        What is written from then on is of a new life, which knows nothing of the old one; a call that is under way
        belongs to the one or to the other. ColdStoreUnavailable and HotStoreUnavailable where a store is not there, or
        does not stay: forgetting it again ends what was begun. What backups, replicas and write-ahead logs still hold
        is beyond it: see `docs/forgetting.md`. `progress` is told each kind of thing that goes (by the names of the
        report's fields) and how many of it, again and again, by the thread that does it.
        """
        from banshee_memory.tiering.forgetting import Forgetting

        return Forgetting(self.settings, *self._open(), progress).forget(validation.agent(agent_id))

    def receipt(self, agent_id: UUID) -> Receipt:
        """What `wait_cold` takes to wait for all that is acknowledged of the agent so far (and of its shard)."""
        return self._run(self._operations.receipt(agent_id))

    def wait_cold(self, receipt: Receipt, timeout: float | None = None) -> None:
        """Returns when all that the receipt stands for is committed in PostgreSQL, or is a dead letter.

        It waits for whoever flushes, a daemon or a `flush()`, and does not flush itself. A store that is away may come
        back within `timeout` seconds (None: `Settings.flush_timeout`); after that DurabilityUnavailable, with the
        receipt to wait again; at once where Redis was replaced since, as it cannot tell whether the write was lost.
        """
        self._run(self._operations.wait_cold(receipt, timeout))

    def evict_idle(self, idle: float) -> EvictReport:
        """Drops what no agent used for so many seconds, and flushes first; never drops what is not flushed.

        Redis lets go of it by itself after `Settings.hot_ttl`; this is for who wants the room now. 0: everything that
        is clean. Volatile memories are only in Redis, and go too. Redis counts whole seconds, and not under an LFU
        policy: ConfigurationError.
        """
        validation.idle(idle)
        return self._run(Operation(evict_idle(idle, self.flush())))

    def health_check(self) -> Health:
        """Whether both stores answer, how fast, and what is wrong in words. A server that is down raises nothing."""
        from banshee_memory.tiering.report import health

        return health(*self._open())

    def stats(self) -> Stats:
        """Both tiers at a glance: who is hot, what waits for PostgreSQL, rows, partitions, sizes, own hits."""
        from banshee_memory.tiering.report import stats

        return stats(self.settings, *self._open(), self._operations.residency.counters)

    def migrate(self) -> list[str]:
        """Brings the database up to this version's schema; gives the names of the migrations applied now.

        Any number may run it at once. IncompatibleSchema if the database is newer than this code.
        """
        from banshee_memory.cold.migrate import migrate

        return migrate(self._connections.urls()[1], self.settings)

    def export(self, agent_id: UUID) -> Iterator[Line]:
        """Everything both tiers have of an agent, as lines of the import format (flushes it first).

        `docs/import-format.md` says what an export holds.
        """
        from banshee_memory.tiering.exporting import exported

        self.flush(agent_id)
        return exported(agent_id, *self._open())

    def import_(self, records: Iterable[Line], *, skip_expired: bool = False) -> ImportReport:
        """Puts lines of the import format in, in their order. What is beyond retention is refused, or skipped.

        All of them are judged first: InvalidInput names the first that cannot go in, and then nothing was written.
        They are those that `export` gives, or `banshee_memory.tiering.transfer.parse` makes of a file's lines (bytes).
        """
        from banshee_memory.importing import Importer

        return Importer(self._operations, self._run_together, self.flush).run(records, skip_expired=skip_expired)

    def _open(self) -> tuple[HotStore, ColdStore]:
        if self._tiers is None:
            with self._lock:
                if self._tiers is None:
                    self._tiers = self._opened()
        return self._tiers

    def _opened(self) -> tuple[HotStore, ColdStore]:
        from banshee_memory.cold.client import ColdStore
        from banshee_memory.hot.client import HotStore
        from banshee_memory.tiering.recovery import Recoverer

        redis_url, database_url = self._connections.urls()
        hot, cold = HotStore(redis_url, self.settings), ColdStore(database_url, self.settings)
        hot.recovery = Recoverer(self.settings, hot, cold)
        hot.cache = self._cache
        if self._cache is not None:
            from banshee_memory.hot.tracking import CachedReads

            self._cached = CachedReads(hot, self._cache, self.settings.call_timeout), cold
        return hot, cold

    def _drain(self) -> Drain:
        from banshee_memory.tiering.drain import Drain

        return Drain(self.settings, *self._open())

    def _subscribe(self, subscription: Subscription) -> Iterator[EmotionalEventRecord]:
        return self._open()[0].subscribe(subscription)

    def _run(self, operation: AnyOperation[T]) -> T:
        if isinstance(operation, Direct):
            hot, _ = self._tiers or self._open()
            try:
                result = hot.run(operation.call)
            except BansheeError as exc:
                operation = operation.resumed(exc)
            else:
                if result is not calls.MISS:
                    if self._tells_stale:
                        self._stale.set(False)
                    return result  # type: ignore[no-any-return]
                operation = operation.resumed(result)
        return self._run_steps(operation)

    def _run_steps(self, operation: Operation[T]) -> T:
        result = self._read_or_written(operation)
        if operation.due is not None:
            failpoint("write.hot")
            receipt = operation.due.receipt
            check_carried(result, receipt, self._rounds.wait(receipt.shard))
        return result

    def _read_or_written(self, operation: Operation[T]) -> T:
        tiers = self._open()
        try:
            result = drive(operation.steps, *((operation.cacheable and self._cached) or tiers))
        except HotStoreUnavailable:
            if operation.degraded is None:
                raise
            result, is_stale = drive(operation.degraded, *tiers), True
        else:
            is_stale = False
        if self._tells_stale:
            self._stale.set(is_stale)
        return result

    def _carry(self, shards: frozenset[int]) -> Carried:
        """A flush for all that wrote to these shards and wait for PostgreSQL."""
        try:
            _, left_out = self._drain().flush_shards(sorted(shards))
            return Flushed(left_out, self._open()[0].run(failover.named_server()))
        except BansheeError as exc:
            return exc

    def _run_together(self, operations: Sequence[AnyOperation[Any]]) -> list[Any]:
        # An import is its own backlog: at the limit it carries that itself, as nobody else might.
        steps = [emptied(operation.steps, self.flush) for operation in operations]
        results = drive_together(steps, *self._open())
        due = {operation.due.receipt.shard for operation in operations if operation.due is not None}
        if due:
            self._drain().flush_shards(sorted(due))
        return results


def _cache_of(settings: Settings) -> Cache | None:
    if not settings.client_cache_entries:
        return None
    from banshee_memory.hot.cache import Cache

    return Cache(settings.client_cache_entries, settings.client_cache_bytes)
