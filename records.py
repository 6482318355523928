"""What the stores take and give: events, messages, memories, sessions, reports. All frozen; times are UTC.

Field names are the original's. `Json` is whatever JSON can say: None, bool, int, float, str, list, dict of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.stamps import uuid_of

Json = Any
R = TypeVar("R")
Mode = Literal["add", "set"]
EventMode = Literal["set", "add", "record"]
Role = Literal["user", "assistant", "system", "function", "tool"]
ROLES: tuple[Role, ...] = ("user", "assistant", "system", "function", "tool")


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    @property
    def event_type(self) -> str:
        """The name under which the event is counted and queried."""
        return str(self.__struct_config__.tag)


class TaskCompleted(_Event, frozen=True, kw_only=True, tag="task_completed"):
    """A task ended. `difficulty` in [0, 1]; `time_taken` and `expected_time` in seconds."""

    success: bool
    difficulty: float
    time_taken: float
    expected_time: float


class UserFeedback(_Event, frozen=True, kw_only=True, tag="user_feedback"):
    """A person said what they think. `sentiment` in [-1, 1], `specificity` in [0, 1]."""

    sentiment: float
    specificity: float
    is_constructive: bool


class ToolCallFailed(_Event, frozen=True, kw_only=True, tag="tool_call_failed"):
    """A tool did not do it, after so many `attempts`. `error_severity` in [0, 1]."""

    attempts: int
    error_severity: float
    is_critical: bool


class GoalProgress(_Event, frozen=True, kw_only=True, tag="goal_progress"):
    """A goal came nearer or went away. `progress_delta` in [-1, 1], `goal_importance` in [0, 1]."""

    progress_delta: float
    goal_importance: float
    is_milestone: bool


class SocialInteraction(_Event, frozen=True, kw_only=True, tag="social_interaction"):
    """A meeting with another, of the type collaboration, competition, recognition, criticism, support, conflict, …"""

    interaction_type: str
    outcome: float
    peer_status: float


class UnexpectedEvent(_Event, frozen=True, kw_only=True, tag="unexpected_event"):
    """A surprise. `surprise_level` in [0, 1]; `context` says in words what it was."""

    surprise_level: float
    positive_outcome: bool
    context: str


class MemoryRecall(_Event, frozen=True, kw_only=True, tag="memory_recall"):
    """Something came to mind. `memory_relevance` in [0, 1], `memory_age` in seconds."""

    memory_relevance: float
    emotional_content: float
    memory_age: float


class CustomEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="custom"):
    """Anything else, under a name of the user's of up to 256 bytes; `data` is any JSON."""

    event_type: str
    data: Json = None


EmotionalEvent = (
    TaskCompleted
    | UserFeedback
    | ToolCallFailed
    | GoalProgress
    | SocialInteraction
    | UnexpectedEvent
    | MemoryRecall
    | CustomEvent
)


class EmotionalEventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it went into history.

    Valence, arousal and intensity are those of the whole state after it; the deltas are against the state just before
    it, of the same atomic step.
    """

    id: UUID
    """A UUIDv7."""
    agent_id: UUID
    event_type: str
    """Its class in snake_case (`task_completed`), or the name of a `CustomEvent`."""
    event: EmotionalEvent
    resulting_emotions: dict[Emotion, float]
    """What the event named, as it was given."""
    context_factors: Json
    valence: float
    """In [−1, 1]."""
    arousal: float
    """In [0, 1]."""
    intensity: float
    """The sum of all intensities."""
    valence_delta: float
    arousal_delta: float
    intensity_delta: float
    occurred_at: datetime
    """When it happened: what histories are ordered by."""
    created_at: datetime
    """When Redis took it."""
    session_id: UUID | None = None
    mode: EventMode = "set"
    """What it did to the state: `set`, `add` or `record` (nothing)."""


class TrendPoint(msgspec.Struct, frozen=True):
    """Valence, arousal and intensity after an event, or their means over the `events` of a bucket.

    Of events that retention dropped there are only means: by the hour, by the day once that is long ago.
    """

    at: datetime
    """When the event occurred, or where the bucket begins."""
    valence: float
    """In [−1, 1]."""
    arousal: float
    """In [0, 1]."""
    intensity: float
    """The sum of all intensities."""
    events: int
    """1, or how many are in the bucket."""
    peaks: dict[Emotion, float] = {}
    """The most that was felt of each emotion after any of them."""


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message to save: the arguments of `save_message`, and `created_at` for imports (None: when Redis takes it)."""

    role: str
    content: str
    metadata: Json = None
    tokens_used: int | None = None
    emotional_context: Mapping[Any, Any] | Literal["current"] | None = None
    session_id: UUID | None = None
    created_at: datetime | None = None


class ConversationMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message as it was said. Its fields are in the order in which Redis has them."""

    id: UUID
    """A UUIDv7."""
    created_at: datetime
    """When Redis took it, or the time it brought along: what histories are ordered by."""
    role: str
    """`user`, `assistant`, `system`, `function` or `tool`."""
    content: str
    metadata: Json
    emotional_context: dict[str, Json] | None
    """What the agent felt then: intensities by emotion, or the object that was given; None: not recorded."""
    tokens_used: int | None
    session_id: UUID | None
    agent_id: UUID


class ConversationStats(msgspec.Struct, frozen=True, kw_only=True):
    """Exact totals over everything the agent was ever part of, what retention dropped included."""

    total_messages: int
    user_messages: int
    assistant_messages: int
    by_role: dict[str, int]
    """Messages of each of the five roles."""
    total_tokens: int
    """The sum of `tokens_used`; a message without counts as 0."""
    first_message: datetime | None
    last_message: datetime | None


class MemoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A typed memory."""

    id: UUID
    """Derived from agent, type and key (UUIDv5), so that a replacement has the same."""
    agent_id: UUID
    memory_type: str
    key: str
    data: Json
    importance: float
    """In [0, 1]."""
    access_count: int
    """How often `retrieve_memory` gave it; exact."""
    last_accessed: datetime
    """When it did so last, or when the memory was stored."""
    created_at: datetime
    """When it was first stored."""
    updated_at: datetime
    """When it was last replaced."""
    expires_at: datetime | None
    """From when on it is gone, in both tiers; None: never."""
    tags: tuple[str, ...]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent brings to its next turn: what it feels, what was said, what it knows."""

    state: EmotionalState | None
    """As of now; None if nothing was ever saved."""
    messages: list[ConversationMessage]
    """The newest, oldest first."""
    memories: list[MemoryRecord]
    """The worthiest first."""


class AgentSession(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of an agent's life, with what it felt at both ends and what happened between."""

    id: UUID
    agent_id: UUID
    session_start: datetime
    session_end: datetime | None
    """None: it is open."""
    initial_emotional_state: dict[Emotion, float]
    """Intensities as it began; empty: nothing was felt."""
    final_emotional_state: dict[Emotion, float] | None
    """Intensities as it ended; None: it is open."""
    total_messages: int
    """This and the other totals are 0 until it ends."""
    total_events: int
    total_tokens_used: int
    session_metadata: Json
    """The `metadata` of `start_session`."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether both stores answer. Versions and latencies are None where a store does not."""

    postgres_connected: bool
    redis_connected: bool
    postgres_version: str | None
    redis_version: str | None
    postgres_latency: float | None
    """Seconds of one round trip."""
    redis_latency: float | None
    """Seconds of one round trip."""
    problems: tuple[str, ...]
    """What is wrong, in words; empty when all is well."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


class FlushReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a flush carried to PostgreSQL, in records."""

    messages: int = 0
    events: int = 0
    states: int = 0
    memories: int = 0
    duplicates: int = 0
    """There already, from a flush that died before it could clean up."""
    conflicts: int = 0
    """Values that lost against newer ones in PostgreSQL, because two servers took writes of one agent."""
    expired: int = 0
    """Older than retention, so dropped."""
    forgotten: int = 0
    """Of agents that were forgotten since, so dropped."""
    poisoned: int = 0
    """Moved to the dead letters."""
    seconds: float = 0.0
    """How long it took."""

    def __add__(self, other: FlushReport) -> FlushReport:
        names = self.__struct_fields__
        return FlushReport(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def records(self) -> int:
        """How many records reached PostgreSQL by this flush."""
        return self.messages + self.events + self.states + self.memories


class RehydrateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was brought back into Redis; what was resident already is not counted."""

    state: bool = False
    messages: int = 0
    events: int = 0
    memories: int = 0


class EvictReport(msgspec.Struct, frozen=True, kw_only=True):
    """What left Redis."""

    flushed: FlushReport
    """What the flush before it carried."""
    dropped: int
    """Keys that are gone."""
    kept: int
    """Keys that stay, because something unflushed came into them meanwhile."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast records come and go, measured between two reports of a daemon."""

    measured_at: datetime
    records_in: float
    """Records a second that were written to Redis."""
    records_out: float
    """Records a second that went on to PostgreSQL, or to the dead letters."""
    full_at: datetime | None
    """When the first shard will take no more if it goes on so; None: none will, or there is no limit."""


class ErasureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What forgetting an agent removed, by kind, and what a second look at all of it found."""

    agent_id: UUID
    forgotten_at: datetime
    """The moment between two lives: what was written by then is gone, what was written later stays. By the hot store's
    clock."""
    keys: int = 0
    """Keys in Redis: its state, its lists, its memories."""
    log_entries: int = 0
    """Writes that PostgreSQL did not have yet."""
    dead_letters: int = 0
    feed_entries: int = 0
    idempotency_keys: int = 0
    messages: int = 0
    """Rows in PostgreSQL; so are the following."""
    events: int = 0
    rollups: int = 0
    """Hours and days of events that retention had dropped."""
    states: int = 0
    memories: int = 0
    """Sessions, and tombstones of deleted memories, included."""
    totals: int = 0
    rechecked: tuple[str, ...] = ()
    """Where a last look found nothing of it: kinds, by the names of the fields above."""
    left: int = 0
    """What that look still found, of the kinds that are not in `rechecked`: 0, unless something brings it back again
    and again."""
    seconds: float = 0.0
    """How long it took."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What is only in Redis."""

    records: int
    """Entries of the logs; exact."""
    bytes: int
    """An estimate, from the entry that waits longest in each shard."""
    oldest_age: float | None
    """Seconds; None: nothing waits."""
    limit: int | None = None
    """At how many records a shard takes no more, times the shards; None: never. As loaded, not as in these settings."""
    fullest: float = 0.0
    """How much of its share the fullest shard has used; 1: it takes no more writes."""
    pace: Pace | None = None
    """As the daemon measured it last; None: none has reported within three minutes."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not go to PostgreSQL, without its content."""

    id: str
    """What it is retried or dropped by."""
    shard: int
    kind: str | None
    """`message`, `event`, `state`, `memory`, `amendment`; else what the log said, None: nothing."""
    agent_id: UUID | None
    at: datetime | None
    """When it was written."""
    buried_at: datetime
    """When the flush gave it up."""
    entry: str
    """Its id in the log."""
    bytes: int
    reason: str


class Recovery(msgspec.Struct, frozen=True):
    """A store that was found not to be what it was: another server, or restored to an earlier time."""

    found_at: datetime
    store: str
    """`redis` or `postgresql`."""
    behind_seconds: float | None
    """How far it is known to be behind the other store; 0: nothing is known to be lost; None: it has nothing."""
    said: str
    """What that means, in words."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Both tiers at a glance. Sizes in bytes."""

    agents_hot: int
    """Agents in Redis: an estimate from `agents_hot_sample` sampled keys; a count where those are all there are."""
    agents_hot_sample: int
    hit_ratio: float | None
    """Of this client's read-through calls, the part that Redis answered; None before the first."""
    backlog: Backlog
    dead_letters: int
    """Records that PostgreSQL could not take; `banshee dead-letters` tells why."""
    redis_used_memory: int
    redis_max_memory: int
    """0: no limit is set."""
    agents: int
    """Agents in PostgreSQL."""
    rows: dict[str, int]
    """Estimated rows of each table, from PostgreSQL's own statistics."""
    partitions: dict[str, int]
    """Partitions of each table."""
    database_bytes: int
    recoveries: tuple[Recovery, ...]
    """The latest ten times that a store was found not to be what it was, latest first."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an import put in."""

    agents: int = 0
    messages: int = 0
    events: int = 0
    states: int = 0
    memories: int = 0
    skipped: int = 0
    """Older than retention, where the caller chose to skip those."""


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of one of the original's tables."""

    rows: int
    """Rows that there are, of states one an agent."""
    taken: int
    """Found in PostgreSQL afterwards just as they are."""
    newer: int
    """Changed here since they came over, or there before them and newer."""
    forgotten: int
    """Of agents that were forgotten here: those do not come back."""
    expired: int
    """Beyond retention, or memories whose time is over."""
    skipped: int
    """Cannot be said here."""
    refused: tuple[str, ...]
    """Which those are and why; the first 1,000."""
    different: tuple[str, ...]
    """Which are stored otherwise than the original has them: of messages and events agent, time in µs and id."""
    checksum: str
    """SHA-256 over what was compared of those `taken`, in the original's order."""


class TakeOverReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `banshee import --from-postgres` did."""

    tables: dict[str, TakenOver]
    """By what they hold: sessions, states, memories, events, messages."""
    superseded_states: int
    """States that were left out because their agent had a newer one."""


def memory_importance(memory_type: str, data: Json) -> float:
    """The importance of a memory that was given none, in [0, 1].

    0.5; by type +0.3 goal, +0.2 preference and personality, +0.1 skill, +0.05 fact and knowledge, −0.2 temp and cache;
    plus min(fields/20, 0.2) for an object or min(words/100, 0.1) for text.
    """
    score = 0.5 + _TYPE_WEIGHT.get(memory_type, 0.0)  # in [0.3, 0.8], so what is added stays in [0, 1]
    if isinstance(data, (dict, Mapping)):  # asked in that order: the latter takes its time
        return score + (len(data) / 20 if len(data) < 4 else 0.2)
    if isinstance(data, str):
        return score + min(len(data.split()) / 100, 0.1)
    return score


_TYPE_WEIGHT = {
    "goal": 0.3,
    "preference": 0.2,
    "personality": 0.2,
    "skill": 0.1,
    "fact": 0.05,
    "knowledge": 0.05,
    "temp": -0.2,
    "cache": -0.2,
}

MEMORY_TYPES = (
    "goal",
    "preference",
    "personality",
    "skill",
    "fact",
    "knowledge",
    "experience",
    "relationship",
    "context",
    "temp",
    "cache",
)

Messages = Sequence[NewMessage]


class Placed(msgspec.Struct, Generic[R], frozen=True):
    """A message or event with its place in the agent's history: (at_us, stamp) orders it, in both tiers."""

    at_us: int
    stamp: int
    record: R


class StoredMemory(msgspec.Struct, frozen=True):
    """A memory with the stamp of its last replacement; `record` None: it was deleted then."""

    stamp: int
    record: MemoryRecord | None


def known(stored: StoredMemory) -> MemoryRecord:
    """The record of a memory that is known to be there."""
    assert stored.record is not None
    return stored.record


@lru_cache(10_000)
def _memory_id(agent: int, name: str) -> UUID:
    from hashlib import sha1  # which brings OpenSSL in

    digest = sha1(agent.to_bytes(16, "big") + name.encode(), usedforsecurity=False).digest()
    return uuid_of(digest[:6] + _VERSION_5[digest[6]] + digest[7:8] + _VARIANT[digest[8]] + digest[9:16])


_VERSION_5 = [bytes([byte & 0x0F | 0x50]) for byte in range(256)]
_VARIANT = [bytes([byte & 0x3F | 0x80]) for byte in range(256)]


def memory_id(agent_id: UUID, memory_type: str, key: str) -> UUID:
    """The id of the memory with this name: derived (UUIDv5), so that a replacement keeps it without a look-up."""
    return _memory_id(agent_id.int, f"{memory_type}\0{key}")
