"""The stores of `MemoryPlugin`: the public methods, each one line over its operation. `aio_stores.py` is their twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from banshee_memory.emotions import Absence, Emotion, EmotionalState
from banshee_memory.hot.feed import Subscription
from banshee_memory.operations import AnyOperation, Operation, Operations
from banshee_memory.records import (
    AgentSession,
    ConversationMessage,
    ConversationStats,
    DeadLetter,
    EmotionalEvent,
    EmotionalEventRecord,
    EventMode,
    Json,
    MemoryRecord,
    Mode,
    NewMessage,
    TrendPoint,
)
from banshee_memory.settings import Durability, Settings
from banshee_memory.tiering import letters
from banshee_memory.timeline import Explanation, PastState

T = TypeVar("T")


class Run(Protocol):
    """How a plugin carries out an operation."""

    def __call__(self, operation: AnyOperation[T], /) -> T: ...


Subscribe = Callable[[Subscription], Iterator[EmotionalEventRecord]]


class EmotionStore:
    """What agents feel: `memory.emotions`."""

    def __init__(self, run: Run, operations: Operations, subscribe: Subscribe) -> None:
        self._run = run
        self._operations = operations
        self._subscribe = subscribe

    def save_state(self, agent_id: UUID, state: EmotionalState, *, durability: Durability | None = None) -> None:
        """Replaces what the agent feels, and its rates of decay. The intensities are those of `state.last_updated`.

        From then on they fade. Its absence policy stays as it is.
        """
        self._run(self._operations.save_state(agent_id, state, durability))

    def load_state(self, agent_id: UUID) -> EmotionalState | None:
        """What the agent feels now, by the hot store's clock; None if nothing was ever saved.

        `last_updated` of the answer is that now. Reading changes nothing: a state is stored as it was felt.
        """
        return self._run(self._operations.load_state(agent_id))

    def set_temperament(
        self,
        agent_id: UUID,
        *,
        decay_rates: Mapping[Emotion, float | None] = {},
        half_lives: Mapping[Emotion, float] = {},
        absence: Absence | None = None,
        durability: Durability | None = None,
    ) -> EmotionalState:
        """Gives the agent rates of its own, and says what being away means for it; gives what it feels.

        A rate is the part that is lost in a second (None: the emotion's own again), a half-life is in seconds. The
        policy `absence` is `"wall"` (decay always runs), `"active"` (not between an end_session and the next
        start_session) or `Capped(seconds)` (at most that long between two writes); None leaves it as it is. What is not
        named stays too.
        """
        return self._run(self._operations.set_temperament(agent_id, decay_rates, half_lives, absence, durability))

    def update_emotions(
        self,
        agent_id: UUID,
        changes: Mapping[Emotion, float],
        *,
        mode: Mode = "add",
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> EmotionalState:
        """Decays what is there to now, adds or sets, clamps to [0, 1], drops what is under 0.01; what is true then.

        One atomic step in Redis: of two concurrent updates neither is lost. Changes lie in [-1, 1] to add, in [0, 1]
        to set; emotions that are not named stay. The answer's `last_updated` is the moment of that step.
        """
        return self._run(self._operations.update_emotions(agent_id, changes, mode, durability, idempotency_key))

    def save_event(
        self,
        agent_id: UUID,
        event: EmotionalEvent,
        resulting_emotions: Mapping[Emotion, float],
        *,
        mode: EventMode = "set",
        occurred_at: datetime | None = None,
        session_id: UUID | None = None,
        context_factors: Json = None,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> EmotionalEventRecord:
        """Records what happened, and changes what the agent feels in the same atomic step.

        `resulting_emotions` lie in [0, 1], to add in [-1, 1]. `set` sets the emotions named and leaves the others,
        `add` adds to them, `record` writes history only. An event that `occurred_at` an earlier time counts as faded
        since then; InvalidInput if that is in the future, or beyond `Settings.event_retention_days`.
        """
        return self._run(
            self._operations.save_event(
                agent_id,
                event,
                resulting_emotions,
                mode,
                occurred_at,
                session_id,
                context_factors,
                durability,
                idempotency_key,
            )
        )

    def get_event_history(self, agent_id: UUID, limit: int = 100) -> list[EmotionalEventRecord]:
        """The newest events by when they occurred, newest first, whatever tier each is in; `limit` from 1 to 1,000."""
        return self._run(self._operations.get_event_history(agent_id, limit))

    def get_emotional_trends(
        self, agent_id: UUID, hours: float = 24, *, bucket: timedelta | None = None
    ) -> list[TrendPoint]:
        """Valence, arousal, intensity after each event of the last hours, or the means of each bucket; oldest first.

        `hours` may be a fraction. Buckets are counted from 1970-01-01 UTC, and `at` is where one begins; one without
        events is left out. Of more than 100,000 events the newest are taken. Events that retention dropped are there as
        the means of each hour, or day once `Settings.hourly_rollup_days` have passed, and belong to the bucket in which
        that begins.
        """
        return self._run(self._operations.get_emotional_trends(agent_id, hours, bucket))

    def state_at(self, agent_id: UUID, at: datetime) -> PastState | None:
        """What the agent felt at a moment gone by, its late events as they were told; None: nothing is known of it.

        It is worked out from the events before and after that moment, flushed or not, and from the state as it is. What
        was written without an event (`update_emotions`, `save_state`, `set_temperament`) leaves no history of its own:
        `exact` of the answer is False where such a write may have changed the state between the last event and that
        moment, or the event is beyond `Settings.event_retention_days`. InvalidInput if `at` lies in the future.
        """
        return self._run(self._operations.state_at(agent_id, at))

    def why(self, agent_id: UUID, emotion: Emotion, at: datetime | None = None) -> Explanation:
        """Which events made a feeling what it is (or was, at `at`), by what is left of each.

        Events before the one that last set the feeling, or before it had faded to nothing, have nothing to do with it.
        What remains of the events, and what they do not explain, add up to the intensity. Of the events since then at
        most 10,000 are looked at. InvalidInput if `at` lies in the future.
        """
        return self._run(self._operations.why(agent_id, emotion, at))

    def subscribe(
        self, agent_id: UUID | None = None, *, after: EmotionalEventRecord | None = None
    ) -> Iterator[EmotionalEventRecord]:
        """The live feed: the agent's events (None: all agents') as they happen, from when it is first read, or from
        after the last one seen.

        It waits for ever; stop reading, or close the iterator, to end it. A feed keeps the last thousand or so events
        of a shard; who was away for longer finds the rest in `get_event_history`.
        """
        return self._subscribe(self._operations.subscription(agent_id, after))


class ConversationStore:
    """What was said: `memory.conversations`."""

    def __init__(self, run: Run, operations: Operations) -> None:
        self._run = run
        self._operations = operations

    def save_message(
        self,
        agent_id: UUID,
        role: str,
        content: str,
        metadata: Json = None,
        *,
        tokens_used: int | None = None,
        emotional_context: Mapping[Any, Any] | Literal["current"] | None = None,
        session_id: UUID | None = None,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> UUID:
        """Appends a message; gives its id (a UUIDv7).

        `role` is `user`, `assistant`, `system`, `function` or `tool`; `metadata` any JSON. `emotional_context` is an
        object, or `"current"`: then what the agent feels is recorded in the same atomic step.
        """
        return self._run(
            self._operations.save_message(
                agent_id,
                role,
                content,
                metadata,
                tokens_used,
                emotional_context,
                session_id,
                durability,
                idempotency_key,
            )
        )

    def save_messages(
        self,
        agent_id: UUID,
        messages: Sequence[NewMessage],
        *,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> list[UUID]:
        """Appends messages in one round trip, all or none; gives their ids in the same order.

        At most `Settings.max_batch` of them. One with a `created_at` of its own stands where that puts it in the
        history; InvalidInput if that is in the future, or beyond `Settings.message_retention_days`.
        """
        return self._run(self._operations.save_messages(agent_id, messages, durability, idempotency_key))

    def get_history(self, agent_id: UUID, limit: int = 50, *, before: UUID | None = None) -> list[ConversationMessage]:
        """The newest `limit` messages (before the one with that id), oldest first, whatever tier each is in.

        `limit` from 1 to 100,000. To go back page by page, pass the id of the first message of the page before;
        InvalidInput if the agent has no such message.
        """
        return self._run(self._operations.get_history(agent_id, limit, before))

    def search_messages(self, agent_id: UUID, query: str, limit: int = 50) -> list[ConversationMessage]:
        """Best match first: words (stemmed), "phrases", or, -exclusion. What is not flushed is searched too.

        The rules are those of PostgreSQL's `websearch_to_tsquery` in `Settings.search_language`; among equals the
        newest comes first. Of more than 500 flushed messages that match (or `limit`, if that is more) the newest are
        ranked and the others left out. `limit` from 1 to 100,000; a query that holds no word finds nothing.
        """
        return self._run(self._operations.search_messages(agent_id, query, limit))

    def get_conversation_stats(self, agent_id: UUID) -> ConversationStats:
        """Exact totals over all the agent's messages, what retention dropped included."""
        return self._run(self._operations.get_conversation_stats(agent_id))

    def update_emotional_context(
        self,
        agent_id: UUID,
        message_id: UUID,
        emotional_context: Mapping[Any, Any] | None,
        *,
        durability: Durability | None = None,
    ) -> bool:
        """Replaces what is recorded as felt at a message (None: nothing); False if the agent has no such message."""
        return self._run(self._operations.update_emotional_context(agent_id, message_id, emotional_context, durability))


class MemoryManager:
    """What agents know: `memory.memories`."""

    def __init__(self, run: Run, operations: Operations) -> None:
        self._run = run
        self._operations = operations

    def store_memory(
        self,
        agent_id: UUID,
        memory_type: str,
        key: str,
        data: Json,
        ttl_seconds: float | None = None,
        *,
        importance: float | None = None,
        tags: Sequence[str] = (),
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> MemoryRecord:
        """Stores or replaces a memory; a replacement keeps id, creation time and access count.

        `key` is any text of up to `Settings.max_key_bytes`, `data` any JSON. `ttl_seconds` and `importance`, in [0, 1],
        are those of the type's policy where they are None; without one a memory stays for ever, and its importance is

            0.5; +0.3 goal, +0.2 preference and personality, +0.1 skill, +0.05 fact and knowledge, -0.2 temp and cache;
            + min(fields / 20, 0.2) of an object, + min(words / 100, 0.1) of a text; clamped to [0, 1]

        InvalidInput for a type that is neither one of the eleven (`goal`, `preference`, `personality`, `skill`, `fact`,
        `knowledge`, `experience`, `relationship`, `context`, `temp`, `cache`) nor in `Settings.memory_policies`. At
        most 64 `tags` of up to 128 bytes.
        """
        return self._run(
            self._operations.store_memory(
                agent_id, memory_type, key, data, ttl_seconds, importance, tags, durability, idempotency_key
            )
        )

    def retrieve_memory(self, agent_id: UUID, memory_type: str, key: str) -> Any | None:
        """The data of a memory, None if there is none or it has expired; counts the access.

        Counting costs no second round trip and no write to PostgreSQL: the count goes there with the next flush.
        """
        return self._run(self._operations.retrieve_memory(agent_id, memory_type, key))

    def get_memory(self, agent_id: UUID, memory_type: str, key: str) -> MemoryRecord | None:
        """A memory with all that is known of it, None if there is none or it has expired; does not count."""
        return self._run(self._operations.get_memory(agent_id, memory_type, key))

    def get_memories_by_type(
        self, agent_id: UUID, memory_type: str | None, limit: int = 50, offset: int = 0
    ) -> list[MemoryRecord]:
        """The memories of a type (None: of all), by importance, then last access, descending; the expired are left out.

        `limit` from 1 to 100,000, `offset` how many to pass over. Redis answers alone where all of the type are
        resident, as they are after a page that reached the last of at most 1,000.
        """
        return self._run(self._operations.get_memories_by_type(agent_id, memory_type, limit, offset))

    def delete_memory(
        self, agent_id: UUID, memory_type: str, key: str, *, durability: Durability | None = None
    ) -> bool:
        """Deletes a memory, in both tiers; False where there was none. One stored under its name later is a new one."""
        return self._run(self._operations.delete_memory(agent_id, memory_type, key, durability))


class SessionStore:
    """Stretches of agents' lives: `memory.sessions`."""

    def __init__(self, run: Run, operations: Operations) -> None:
        self._run = run
        self._operations = operations

    def start_session(
        self,
        agent_id: UUID,
        metadata: Json = None,
        *,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> AgentSession:
        """Begins a session, with what the agent feels now. Several may be open at once; `metadata` is any JSON."""
        return self._run(self._operations.start_session(agent_id, metadata, durability, idempotency_key))

    def end_session(
        self,
        agent_id: UUID,
        session_id: UUID,
        *,
        durability: Durability | None = None,
        idempotency_key: str | None = None,
    ) -> AgentSession:
        """Ends a session, with what the agent feels now and totals of what happened within; once, however often called.

        What carries no session id counts to the session that was started last of those open then. InvalidInput if the
        agent has no such session.
        """
        return self._run(self._operations.end_session(agent_id, session_id, durability, idempotency_key))

    def get_sessions(self, agent_id: UUID, limit: int = 50) -> list[AgentSession]:
        """The newest sessions by their start, newest first; `limit` from 1 to 1,000."""
        return self._run(self._operations.get_sessions(agent_id, limit))


class DeadLetters:
    """Records that could not go to PostgreSQL, with the reasons: `memory.dead_letters`."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self._run = run
        self._settings = settings

    def find(self, agent_id: UUID | None = None, *, shard: int | None = None, limit: int = 100) -> list[DeadLetter]:
        """The oldest of them, of everybody or of an agent or a shard; `limit` from 1 to 100,000."""
        return self._run(Operation(letters.found(self._settings, agent_id, shard, limit)))

    def retry(self, letters_or_ids: Sequence[DeadLetter | str]) -> int:
        """Puts them back into the log, once each, in the order in which they were written; gives how many.

        A message or event keeps its id and its time, and is in its history again: of what has the same millisecond, the
        last. What PostgreSQL still cannot take is a dead letter again after the next flush. An amendment (of an
        emotional context) is not retried: amend again.
        """
        return self._run(Operation(letters.retried(self._settings, letters_or_ids)))

    def drop(self, letters_or_ids: Sequence[DeadLetter | str]) -> int:
        """Gives them up for good; gives how many there were.

        With the letter of a state or memory goes its value in Redis, unless it was written again since: what PostgreSQL
        has of it counts from then on.
        """
        return self._run(Operation(letters.dropped(self._settings, letters_or_ids)))
