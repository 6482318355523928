"""Every public operation: judges its arguments, then gives the steps that do it. Both clients run the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID, uuid4, uuid5

import msgspec

from banshee_memory import validation
from banshee_memory.emotions import Absence, Emotion, EmotionalState, absence_text
from banshee_memory.errors import (
    BansheeError,
    ColdStoreUnavailable,
    ConfigurationError,
    DurabilityUnavailable,
    InvalidInput,
    shown,
)
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import bodies, calls, packed, wire
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.greeting import taken_by_another
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.records import (
    MEMORY_TYPES,
    AgentSession,
    ConversationMessage,
    ConversationStats,
    EmotionalEvent,
    EmotionalEventRecord,
    EvictReport,
    FlushReport,
    Json,
    MemoryRecord,
    NewMessage,
    RehydrateReport,
    TrendPoint,
    Turn,
    known,
    memory_importance,
)
from banshee_memory.settings import Durability, MemoryPolicy, Settings
from banshee_memory.stamps import Receipt, fresh_nonce, keyed_nonce, to_us
from banshee_memory.tiering import (
    conversations,
    hindsight,
    histories,
    memories,
    pages,
    receipts,
    sessions,
    states,
    turns,
)
from banshee_memory.tiering.backpressure import slowed
from banshee_memory.tiering.degraded import without_redis
from banshee_memory.tiering.histories import EVENTS, MESSAGES
from banshee_memory.tiering.receipts import Due, completed
from banshee_memory.tiering.residency import Counters, Residency
from banshee_memory.tiering.steps import Steps, resumed
from banshee_memory.timeline import Explanation, PastState

T = TypeVar("T")
MOST_EVENTS = 1_000
MOST_ROWS = 100_000
_REHYDRATED_MEMORIES = 100
_WANTED_AT_ONCE = 100
_HOT = Durability.HOT
_TYPES = frozenset(MEMORY_TYPES)
_MOST_HITS = 10_000


class Operation(msgspec.Struct, Generic[T], frozen=True):
    """What to do; what must be in PostgreSQL before it counts as done (None: nothing); what to do instead where Redis
    is away (None: nothing, that is an error); and whether replies that the client kept will do."""

    steps: Steps[T]
    due: Due | None = None
    degraded: Steps[T] | None = None
    cacheable: bool = False


class Direct(msgspec.Struct, Generic[T], frozen=True):
    """An operation that is one call where Redis has what it is about, as it nearly always has."""

    call: calls.Call[Any]
    """Gives its result, or a miss."""
    made: Callable[..., Operation[T]]
    """Makes all of it. Its first step is that call: answered with a miss or an error, it goes on from there."""
    given: tuple[Any, ...] = ()
    """What it is made of."""
    due: None = None

    def whole(self) -> Operation[T]:
        """All of it."""
        return self.made(*self.given)

    @property
    def steps(self) -> Steps[T]:
        """All of them."""
        return self.whole().steps

    def resumed(self, outcome: Any) -> Operation[T]:
        """What is left to do when the call had this outcome."""
        whole = self.whole()
        return Operation(resumed(whole.steps, outcome), whole.due, whole.degraded)


class Hit(Direct[T], Generic[T], frozen=True, kw_only=True):
    """A read that Redis answers at once, to be carried out any number of times until (of the monotonic clock) its key's
    TTL is to be started again. It was counted as a hit beforehand."""

    counters: Counters
    reads: int = 1
    """As how many hits it counts."""
    until: float = math.inf
    begins: bool = True
    """Whether a miss is what its steps would be told first."""

    @property
    def steps(self) -> Steps[T]:
        """All of them, which count by themselves."""
        self.counters.hits -= self.reads
        return self.whole().steps

    def resumed(self, outcome: Any) -> Operation[T]:
        """What is left to do."""
        self.counters.hits -= self.reads
        if outcome is calls.MISS and not self.begins:
            return self.whole()
        return super().resumed(outcome)


AnyOperation = Operation[T] | Direct[T]


def not_cold(result: object, receipt: Receipt, exc: BansheeError) -> DurabilityUnavailable:
    """The error of a write that is in Redis but not known to be in PostgreSQL, as COLD asked."""
    return DurabilityUnavailable(
        f"The write is in Redis, but not known to be in PostgreSQL: {exc} The next flush carries it there.",
        applied=True,
        result=result,
        receipt=receipt,
    )


class Flushed(NamedTuple):
    """What a flush for waiting writers came to: the shards of which nothing can be carried, and from which server."""

    left_out: set[int]
    server: str


Carried = BansheeError | Flushed
"""That, or why it failed."""


def check_carried(result: object, receipt: Receipt, outcome: Carried | None) -> None:
    """Raises what there is to say to a writer that waited for it. None: the flush was interrupted."""
    if isinstance(outcome, Flushed) and receipt.shard in outcome.left_out:
        outcome = ConfigurationError(f"Nothing of shard {receipt.shard} can be carried: `banshee doctor` says why.")
    if outcome is None:
        outcome = ColdStoreUnavailable("The flush was interrupted.")
    if isinstance(outcome, BansheeError):
        raise not_cold(result, receipt, outcome) from outcome
    if receipt.stamp and receipt.server != outcome.server:
        raise taken_by_another(result, receipt)


def _nonce(keys: AgentKeys, once: str | None, index: int = 0) -> bytes:
    return fresh_nonce() if once is None else keyed_nonce(keys.agent, once, index)


class Operations:
    """The operations of one client."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = calls.server_time()
        """What tells the library's time: it is the server's own, but in its test build."""
        self._usual = settings.durability
        self._usual_size = bodies.usual_size(settings)
        self.residency = Residency(settings)
        self._policies = {**dict.fromkeys(MEMORY_TYPES, MemoryPolicy()), **settings.memory_policies}
        self._known = self.residency.known
        self._hits: dict[Any, Hit[Any]] = {}

    def _keys(self, agent_id: UUID) -> AgentKeys:
        keys = self._known.get(agent_id.int) if type(agent_id) is UUID else None
        return self.residency.keys(validation.agent(agent_id)) if keys is None else keys

    def _level(self, durability: Durability | None) -> Durability:
        if durability is None:
            return self.settings.durability
        try:
            return Durability(durability)
        except ValueError:
            raise InvalidInput("durability", f"{shown(durability)} is none of {', '.join(Durability)}") from None

    def _writing(self, steps: Steps[T], keys: AgentKeys, level: Durability) -> Operation[T]:
        if self.settings.backlog_overflow == "slow":
            steps = slowed(steps, self.settings.backlog_wait)
        if level is Durability.HOT:
            return Operation(steps)
        if level is not Durability.COLD:
            return Operation(completed(steps))
        due = Due(keys)
        return Operation(due.noted(steps), due)

    def _reading(self, steps: Callable[[], Steps[T]], *, cacheable: bool = False) -> Operation[T]:
        if not self.settings.degraded_reads:
            return Operation(steps(), None, None, cacheable)
        return Operation(steps(), None, without_redis(steps()), cacheable)

    def _hit(self, name: Any) -> Hit[Any] | None:
        """The read of that name, where Redis will know."""
        hit = self._hits.get(name)
        if hit is None or monotonic() >= hit.until:
            return None
        hit.counters.hits += hit.reads
        return hit

    def _read(
        self,
        name: Any,
        keys: Sequence[str],
        call: Callable[[], calls.Call[Any]],
        steps: Callable[[], Steps[T]],
        *,
        begins: bool = True,
        reads: int = 1,
    ) -> AnyOperation[T]:
        """A read that next time is a hit, as long as it need not keep its keys warm (of some it never does)."""
        until = min(map(self.residency.warm_until, keys), default=math.inf)
        cacheable = bool(keys)
        if monotonic() >= until or (cacheable and self.settings.client_cache_entries):
            return self._reading(steps, cacheable=cacheable)
        if len(self._hits) >= _MOST_HITS:
            self._hits.clear()
        counters = self.residency.counters
        hit = Hit(call(), partial(self._reading, steps), counters=counters, reads=reads, until=until, begins=begins)
        self._hits[name] = hit
        counters.hits += reads
        return hit

    # --- emotions ---

    def save_state(self, agent_id: UUID, state: EmotionalState, durability: Durability | None) -> Operation[None]:
        """Replaces what it feels."""
        keys, level, checked = self._keys(agent_id), self._level(durability), validation.state(state)
        return self._writing(states.save(self.residency, keys, checked, level), keys, level)

    def set_temperament(
        self,
        agent_id: UUID,
        decay_rates: Mapping[Emotion, float | None],
        half_lives: Mapping[Emotion, float],
        absence: Absence | None,
        durability: Durability | None,
    ) -> Operation[EmotionalState]:
        """Its own rates of decay, and what being away means for it."""
        keys, level = self._keys(agent_id), self._level(durability)
        rates = {**validation.rates(decay_rates), **validation.half_lives(half_lives)}
        text = "" if absence is None else absence_text(validation.absence(absence))
        return self._writing(states.set_temperament(self.residency, keys, text, rates, level), keys, level)

    def load_state(self, agent_id: UUID) -> AnyOperation[EmotionalState | None]:
        """What it feels now."""
        if type(agent_id) is UUID:
            hit = self._hit(agent_id.int)
            if hit is not None:
                return hit
        keys = self._keys(agent_id)
        steps = partial(states.load, self.residency, keys)
        return self._read(keys.agent.int, [keys.state], lambda: packed.load_state(keys, self.clock), steps)

    def update_emotions(
        self,
        agent_id: UUID,
        changes: Mapping[Emotion, float],
        mode: str,
        durability: Durability | None,
        idempotency_key: str | None = None,
    ) -> AnyOperation[EmotionalState]:
        """Changes what it feels."""
        keys = self._keys(agent_id)
        level = self._usual if durability is None else self._level(durability)
        if mode != "add":
            mode = validation.mode(mode, ("add", "set"))
        checked = validation.changes("changes", changes, mode)
        once = None if idempotency_key is None else validation.idempotency_key(idempotency_key)
        if level is not _HOT or once is not None:
            return self._updated(keys, checked, mode, level, once)
        call = packed.update_emotions(keys, checked, mode)
        return Direct(call, self._updated, (keys, checked, mode, level, None))

    def _updated(
        self, keys: AgentKeys, changes: dict[Emotion, float], mode: str, level: Durability, once: str | None
    ) -> Operation[EmotionalState]:
        return self._writing(states.update(self.residency, keys, changes, mode, level, once), keys, level)

    def save_event(
        self,
        agent_id: UUID,
        event: EmotionalEvent,
        resulting_emotions: Mapping[Emotion, float],
        mode: str,
        occurred_at: datetime | None,
        session_id: UUID | None,
        context_factors: Json,
        durability: Durability | None,
        idempotency_key: str | None = None,
    ) -> Operation[EmotionalEventRecord]:
        """Records what happened, and what it made the agent feel."""
        keys, level = self._keys(agent_id), self._level(durability)
        mode = validation.mode(mode, ("set", "add", "record"))
        changes = validation.changes("resulting_emotions", resulting_emotions, mode)
        once = validation.idempotency_key(idempotency_key)
        body = self._event_body(event, context_factors, session_id, _nonce(keys, once))
        occurred_us = self._own_time("occurred_at", occurred_at, self.settings.event_retention_days)

        def steps() -> Steps[EmotionalEventRecord]:
            settled = yield from states.record_event(
                self.residency, keys, body, changes, mode, occurred_us, level, once
            )
            return settled.placed.record

        return self._writing(steps(), keys, level)

    def _event_body(self, event: EmotionalEvent, context_factors: Json, session_id: UUID | None, nonce: bytes) -> bytes:
        checked = validation.event(event, self.settings)
        context = validation.json("context_factors", context_factors, self.settings)
        session = validation.optional_id("session_id", session_id)
        return wire.pack(wire.EventBody(nonce, checked, context, session.bytes if session else None))

    def _own_time(self, field: str, at: datetime | None, days: int | None) -> int | None:
        return None if at is None else to_us(validation.moment(field, at, oldest_days=days))

    def subscription(self, agent_id: UUID | None, after: EmotionalEventRecord | None) -> Subscription:
        """A place in the live feed."""
        if agent_id is not None:
            validation.agent(agent_id)
        if after is not None and not isinstance(after, EmotionalEventRecord):
            raise InvalidInput("after", f"must be the last event seen, not a {type(after).__name__}")
        return Subscription(self.settings, agent_id, after)

    def get_event_history(self, agent_id: UUID, limit: int) -> Operation[list[EmotionalEventRecord]]:
        """The newest events, newest first."""
        keys = self._keys(agent_id)
        limit = validation.count("limit", limit, low=1, high=MOST_EVENTS)

        def steps() -> Steps[list[EmotionalEventRecord]]:
            events = yield from histories.newest(EVENTS, self.residency, keys, limit)
            return events[::-1]

        return self._reading(steps, cacheable=True)

    def get_emotional_trends(
        self, agent_id: UUID, hours: float, bucket: timedelta | None
    ) -> Operation[list[TrendPoint]]:
        """What was felt over the last hours."""
        keys = self._keys(agent_id)
        if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= 876_600:
            raise InvalidInput("hours", f"{shown(hours)} is not a number over 0 and up to a hundred years")
        if bucket is not None and (not isinstance(bucket, timedelta) or bucket <= timedelta(0)):
            raise InvalidInput("bucket", f"{shown(bucket)} is not a positive timedelta")
        return self._reading(partial(conversations.trends, self.residency, keys, hours, bucket))

    def state_at(self, agent_id: UUID, at: datetime) -> Operation[PastState | None]:
        """What it felt at a moment gone by."""
        keys = self._keys(agent_id)
        return self._reading(partial(hindsight.state_at, self.residency, keys, to_us(validation.moment("at", at))))

    def why(self, agent_id: UUID, emotion: Emotion, at: datetime | None) -> Operation[Explanation]:
        """Which events made a feeling what it is, or was."""
        keys = self._keys(agent_id)
        named = validation.emotion(emotion)
        at_us = self._own_time("at", at, None)
        return self._reading(partial(hindsight.why, self.residency, keys, named, at_us))

    # --- conversations ---

    def save_message(
        self,
        agent_id: UUID,
        role: str,
        content: str,
        metadata: Json,
        tokens_used: int | None,
        emotional_context: Mapping[Any, Any] | str | None,
        session_id: UUID | None,
        durability: Durability | None,
        idempotency_key: str | None = None,
    ) -> AnyOperation[UUID]:
        """Appends a message."""
        keys = self._keys(agent_id)
        level = self._usual if durability is None else self._level(durability)
        once = None if idempotency_key is None else validation.idempotency_key(idempotency_key)
        nonce = fresh_nonce() if once is None else keyed_nonce(keys.agent, once, 0)
        felt, body = self._message(nonce, role, content, metadata, tokens_used, emotional_context, session_id)
        if level is not _HOT or once is not None:
            return self._saved(keys, felt, body, level, once)
        return Direct(packed.append_message(keys, felt, body), self._saved, (keys, felt, body, level, None))

    def _saved(self, keys: AgentKeys, felt: bool, body: bytes, level: Durability, once: str | None) -> Operation[UUID]:
        def steps() -> Steps[UUID]:
            return (yield from self._appended(keys, [(None, felt, body)], level, once))[0]

        return self._writing(steps(), keys, level)

    def save_messages(
        self,
        agent_id: UUID,
        messages: Sequence[NewMessage],
        durability: Durability | None,
        idempotency_key: str | None = None,
    ) -> Operation[list[UUID]]:
        """Appends messages, all or none."""
        keys, level = self._keys(agent_id), self._level(durability)
        if not isinstance(messages, Sequence) or len(messages) > self.settings.max_batch:
            raise InvalidInput("messages", f"must be a sequence of at most {self.settings.max_batch} NewMessage")
        return self._writing(self._append(keys, messages, level, idempotency_key), keys, level)

    def _append(
        self, keys: AgentKeys, messages: Sequence[NewMessage], level: Durability, idempotency_key: str | None
    ) -> Steps[list[UUID]]:
        once = validation.idempotency_key(idempotency_key)
        judged = [self._new_message(message, _nonce(keys, once, index)) for index, message in enumerate(messages)]
        return self._appended(keys, judged, level, once)

    def _appended(
        self,
        keys: AgentKeys,
        judged: Sequence[tuple[int | None, bool, bytes]],
        level: Durability,
        once: str | None,
    ) -> Steps[list[UUID]]:
        if not judged:
            return []
        ids = yield from conversations.append(self.residency, keys, judged, level, once)
        if len(ids) != len(judged):
            raise InvalidInput("idempotency_key", f"{once!r} was used for {len(ids)} messages before")
        return ids

    def _new_message(self, message: NewMessage, nonce: bytes) -> tuple[int | None, bool, bytes]:
        if not isinstance(message, NewMessage):
            raise InvalidInput("messages", f"hold a {type(message).__name__}, not a NewMessage")
        felt, body = self._message(
            nonce,
            message.role,
            message.content,
            message.metadata,
            message.tokens_used,
            message.emotional_context,
            message.session_id,
        )
        return self._own_time("created_at", message.created_at, self.settings.message_retention_days), felt, body

    def _message(
        self,
        nonce: bytes,
        role: str,
        content: str,
        metadata: Json,
        tokens_used: int | None,
        context: Mapping[Any, Any] | str | None,
        session_id: UUID | None,
    ) -> tuple[bool, bytes]:
        """Whether what is felt belongs to it, and its body."""
        settings = self.settings
        felt = isinstance(context, str)
        if felt and context != "current":
            raise InvalidInput("emotional_context", f"{shown(context)} is neither 'current' nor an object")
        session = validation.optional_id("session_id", session_id)
        if felt or context is None:
            packed_session = None if session is None else session.bytes
            body = bodies.usual_message(nonce, role, content, metadata, tokens_used, packed_session, self._usual_size)
            if body is not None:
                return felt, body
        return felt, wire.message_body(
            nonce,
            validation.role(role),
            validation.text("content", content, settings.max_content_bytes),
            validation.json("metadata", metadata, settings),
            None if felt else validation.optional_object("emotional_context", context, settings),
            validation.tokens(tokens_used),
            session,
        )

    def get_history(self, agent_id: UUID, limit: int, before: UUID | None) -> AnyOperation[list[ConversationMessage]]:
        """The newest messages (before that one), oldest first."""
        if type(agent_id) is UUID and type(limit) is int and before is None:
            hit = self._hit((agent_id.int, limit))
            if hit is not None:
                return hit
        keys = self._keys(agent_id)
        limit = validation.count("limit", limit, low=1, high=MOST_ROWS)
        cursor = validation.optional_id("before", before)
        if cursor is None:
            return self._read(
                (keys.agent.int, limit),
                [keys.messages],
                partial(histories.newest_call, MESSAGES, keys, limit),
                lambda: histories.newest(MESSAGES, self.residency, keys, limit),
                begins=False,
            )
        return self._reading(lambda: histories.before(MESSAGES, self.residency, keys, limit, cursor))

    def search_messages(self, agent_id: UUID, query: str, limit: int) -> Operation[list[ConversationMessage]]:
        """The messages that match, best first."""
        keys = self._keys(agent_id)
        words = validation.text("query", query, 10_000)
        limit = validation.count("limit", limit, low=1, high=MOST_ROWS)
        return self._reading(partial(conversations.search, self.residency, keys, words, limit))

    def get_conversation_stats(self, agent_id: UUID) -> Operation[ConversationStats]:
        """Exact totals."""
        return self._reading(partial(conversations.totals, self.residency, self._keys(agent_id)))

    def update_emotional_context(
        self,
        agent_id: UUID,
        message_id: UUID,
        emotional_context: Mapping[Any, Any] | None,
        durability: Durability | None,
    ) -> Operation[bool]:
        """Gives a message another emotional context."""
        keys, level = self._keys(agent_id), self._level(durability)
        if not isinstance(message_id, UUID):
            raise InvalidInput("message_id", f"must be a uuid.UUID, not {type(message_id).__name__}")
        context = validation.optional_object("emotional_context", emotional_context, self.settings)
        return self._writing(conversations.amend(self.residency, keys, message_id, context, level), keys, level)

    # --- memories ---

    def store_memory(
        self,
        agent_id: UUID,
        memory_type: str,
        key: str,
        data: Json,
        ttl_seconds: float | None,
        importance: float | None,
        tags: Sequence[str],
        durability: Durability | None,
        idempotency_key: str | None = None,
    ) -> AnyOperation[MemoryRecord]:
        """Stores or replaces a memory."""
        keys = self._keys(agent_id)
        level = self._usual if durability is None else self._level(durability)
        memory_type, key = self._name(memory_type, key)
        policy = self._policies.get(memory_type) or self._policy(memory_type)
        named = policy.importance if importance is None else importance
        worth = memory_importance(memory_type, data) if named is None else validation.intensity("importance", named)
        checked = validation.tags(tags) if tags != () else ()
        usual = bodies.usual_memory(data, worth, checked, self._usual_size)
        body, raw = usual or self._judged_memory(data, worth, checked)
        ttl = policy.ttl_seconds if ttl_seconds is None else ttl_seconds
        if ttl is not None:
            ttl = validation.ttl(ttl)
        elif policy.volatile:
            ttl = self.settings.hot_ttl
        once = None if idempotency_key is None else validation.idempotency_key(idempotency_key)
        given = (keys, (memory_type, key), raw, ttl, level, once, policy.volatile)
        if level is not _HOT or once is not None or policy.volatile:
            return self._stored(*given)
        return Direct(packed.store_memory(keys, memory_type, key, body, raw, ttl), self._stored, given)

    def _judged_memory(self, data: Json, importance: float, tags: tuple[str, ...]) -> tuple[wire.MemoryBody, bytes]:
        body = wire.MemoryBody(validation.json("data", data, self.settings), importance, tags)
        return body, wire.pack(body)

    def _stored(
        self,
        keys: AgentKeys,
        name: tuple[str, str],
        body: bytes,
        ttl: float | None,
        level: Durability,
        once: str | None,
        is_volatile: bool,
    ) -> Operation[MemoryRecord]:
        def steps() -> Steps[MemoryRecord]:
            stored = yield from memories.store(
                self.residency, keys, *name, body, ttl, level, once, volatile=is_volatile
            )
            return known(stored)

        return self._writing(steps(), keys, level)

    def _policy(self, memory_type: str) -> MemoryPolicy:
        policy = self._policies.get(memory_type)
        if policy is None:
            raise InvalidInput("memory_type", f"{shown(memory_type)} is not registered (Settings.memory_policies)")
        return policy

    def _name(self, memory_type: str, key: str) -> tuple[str, str]:
        if type(memory_type) is not str or memory_type not in _TYPES:
            memory_type = validation.memory_type(memory_type)
        return memory_type, validation.text("key", key, self.settings.max_key_bytes)

    def retrieve_memory(self, agent_id: UUID, memory_type: str, key: str) -> AnyOperation[Any]:
        """The data of a memory, or None; counts."""
        if type(agent_id) is UUID and type(memory_type) is type(key) is str:
            hit = self._hit((agent_id.int, memory_type, key))
            if hit is not None:
                return hit
        keys = self._keys(agent_id)
        memory_type, key = self._name(memory_type, key)
        call = lambda: packed.packed(calls.retrieve_data(keys, memory_type, key))  # noqa: E731
        steps = partial(memories.data, self.residency, keys, memory_type, key)
        return self._read((keys.agent.int, memory_type, key), (), call, steps)

    def get_memory(self, agent_id: UUID, memory_type: str, key: str) -> Operation[MemoryRecord | None]:
        """A memory, or None; does not count."""
        keys = self._keys(agent_id)
        memory_type, key = self._name(memory_type, key)

        def steps() -> Steps[MemoryRecord | None]:
            stored = yield from memories.read(self.residency, keys, memory_type, key, counted=False)
            return stored.record if stored else None

        return self._reading(steps, cacheable=True)

    def get_memories_by_type(
        self, agent_id: UUID, memory_type: str | None, limit: int, offset: int
    ) -> Operation[list[MemoryRecord]]:
        """The memories of a type (None: of all), the worthiest first."""
        keys = self._keys(agent_id)
        if memory_type is not None:
            memory_type = validation.memory_type(memory_type)
        limit = validation.count("limit", limit, low=1, high=MOST_ROWS)
        offset = validation.count("offset", offset, low=0, high=MOST_ROWS)

        def steps() -> Steps[list[MemoryRecord]]:
            page = yield from pages.by_type(self.residency, keys, memory_type, limit, offset)
            return [known(stored) for stored in page]

        return self._reading(steps, cacheable=True)

    def delete_memory(
        self, agent_id: UUID, memory_type: str, key: str, durability: Durability | None
    ) -> Operation[bool]:
        """Deletes a memory; False where there was none."""
        keys, level = self._keys(agent_id), self._level(durability)
        memory_type, key = self._name(memory_type, key)
        return self._writing(memories.delete(self.residency, keys, memory_type, key, level), keys, level)

    def recall_turn(self, agent_id: UUID, messages: int, memories: int, memory_type: str | None) -> AnyOperation[Turn]:
        """State, history and memories together."""
        keys = self._keys(agent_id)
        said = validation.count("messages", messages, low=1, high=MOST_ROWS)
        known_ones = validation.count("memories", memories, low=1, high=MOST_ROWS)
        kind = None if memory_type is None else validation.memory_type(memory_type)
        steps = partial(turns.recall, self.residency, keys, said, known_ones, kind)
        members = self.residency.members_of(keys)
        if members is None:
            return self._reading(steps, cacheable=True)
        name = (keys.agent.int, said, known_ones, kind, members)
        return self._hit(name) or self._read(
            name,
            [keys.state, keys.messages],
            partial(turns.recall_call, keys, self.clock, said, known_ones, kind, members),
            steps,
            begins=False,
            reads=3,
        )

    # --- sessions ---

    def start_session(
        self, agent_id: UUID, metadata: Json, durability: Durability | None, idempotency_key: str | None
    ) -> Operation[AgentSession]:
        """Begins a session."""
        keys, level = self._keys(agent_id), self._level(durability)
        plain = validation.json("metadata", metadata, self.settings)
        once = validation.idempotency_key(idempotency_key)
        session_id = uuid4() if once is None else uuid5(keys.agent, f"session\0{once}")
        return self._writing(
            sessions.start(self.residency, keys, session_id, plain, level, keyed=once is not None), keys, level
        )

    def end_session(
        self, agent_id: UUID, session_id: UUID, durability: Durability | None, idempotency_key: str | None
    ) -> Operation[AgentSession]:
        """Ends a session. Ending it again gives the same, so a key is checked and not needed."""
        keys, level = self._keys(agent_id), self._level(durability)
        validation.idempotency_key(idempotency_key)
        if not isinstance(session_id, UUID):
            raise InvalidInput("session_id", f"must be a uuid.UUID, not {type(session_id).__name__}")
        return self._writing(sessions.end(self.residency, keys, session_id, level), keys, level)

    def get_sessions(self, agent_id: UUID, limit: int) -> Operation[list[AgentSession]]:
        """The newest sessions, newest first."""
        keys = self._keys(agent_id)
        limit = validation.count("limit", limit, low=1, high=MOST_EVENTS)
        return self._reading(partial(sessions.newest, self.residency, keys, limit))

    # --- tiers ---

    def receipt(self, agent_id: UUID) -> Operation[Receipt]:
        """For all that is acknowledged of the agent so far."""
        return Operation(receipts.receipt(self._keys(agent_id)))

    def wait_cold(self, receipt: Receipt, timeout: float | None) -> Operation[None]:
        """Waits until PostgreSQL has it."""
        shards = self.settings.shards
        if not isinstance(receipt, Receipt) or not 0 <= receipt.shard < shards:
            raise InvalidInput("receipt", f"{shown(receipt)} is no Receipt of a store with {shards} shards")
        if timeout is None:
            timeout = self.settings.flush_timeout
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise InvalidInput("timeout", f"{shown(timeout)} is not a number of seconds")
        return Operation(receipts.wait_cold(receipt, timeout))

    def rehydrate(self, agent_id: UUID) -> Operation[RehydrateReport]:
        """Brings an agent into Redis: its state, the end of its histories, its worthiest memories."""
        keys = self._keys(agent_id)

        def steps() -> Steps[RehydrateReport]:
            state = yield from states.rehydrate(self.residency, keys)
            return RehydrateReport(
                state=state is not None,
                messages=(yield from histories.rehydrate(MESSAGES, self.residency, keys)),
                events=(yield from histories.rehydrate(EVENTS, self.residency, keys)),
                memories=(yield from pages.rehydrate_worthiest(self.residency, keys, _REHYDRATED_MEMORIES)),
            )

        return Operation(steps())

    def rehydrate_wanted(self) -> Operation[int]:
        """Rehydrates the agents that foreign clients asked for; gives how many those were."""
        every = [shard_keys(number) for number in range(self.settings.shards)]

        def steps() -> Steps[int]:
            taken = yield [calls.take_wanted(keys, _WANTED_AT_ONCE) for keys in every]
            agents = [agent for wanted in taken for agent in wanted]
            failpoint("rehydrate.wanted_taken")
            for agent in agents:
                yield from self.rehydrate(agent).steps
            return len(agents)

        return Operation(steps())

    def evict(self, agent_id: UUID, flushed: FlushReport) -> Operation[EvictReport]:
        """Drops what is clean of an agent, after that flush."""
        keys = self._keys(agent_id)

        def steps() -> Steps[EvictReport]:
            failpoint("evict.flushed")
            members = yield calls.resident_members(keys)
            every = [keys.state, keys.messages, keys.events, *map(keys.memory, members), keys.memories]
            dropped, kept = yield calls.evict(every)
            failpoint("evict.dropped")
            return EvictReport(flushed=flushed, dropped=dropped, kept=kept)

        return Operation(steps())
