"""Whatever a caller passes is judged before any I/O: stored as it is, or refused with the name of its field."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from banshee_memory import (
    CustomEvent,
    Emotion,
    EmotionalState,
    InvalidInput,
    NewMessage,
    Settings,
    TaskCompleted,
    ToolCallFailed,
    UnexpectedEvent,
)
from banshee_memory.operations import AnyOperation, Operations
from banshee_memory.stores import ConversationStore, EmotionStore, MemoryManager, SessionStore

AGENT = UUID("5e11a0a8-4d2c-4c8e-9b55-0f6d1c2a7e31")
NOW = datetime.now(UTC)
MEGABYTES = "x" * 10_000_000
SAID = NewMessage(role="user", content="x")


class Reached(Exception):
    """The arguments were accepted; here the I/O would begin."""


def run(operation: AnyOperation[Any]) -> Any:
    raise Reached


OPERATIONS = Operations(Settings())
EMOTIONS = EmotionStore(run, OPERATIONS, lambda *_: iter(()))
CONVERSATIONS = ConversationStore(run, OPERATIONS)
MEMORIES = MemoryManager(run, OPERATIONS)
SESSIONS = SessionStore(run, OPERATIONS)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


class Opaque:
    """What no encoder knows; its name is the same in every run."""

    def __repr__(self) -> str:
        return "Opaque()"


class Number(float):
    """A float by another name, as array libraries have them."""


class Level(enum.IntEnum):
    LOW = 1


class Word(str, enum.Enum):  # noqa: UP042 - whose str() is not its value
    HI = "hi"


def refused(field: str, call: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        call()
    assert caught.value.field.startswith(field)
    assert len(str(caught.value).encode()) < 500  # can be printed and logged


# --- texts ---

BAD_TEXTS = ["", " \t\n", "a\0b", "\ud800", "ok\udfff", MEGABYTES, None, 5, b"bytes", ["text"]]
GOOD_TEXTS = [
    "x",
    "\u202eright to left",
    "🦊" * 10,
    "'; DROP TABLE agents; --",
    "return redis.call('FLUSHALL')",
    "{17}:*",
    "a:b",
]


def short(value: object) -> str:
    """An id for a case: pytest's own would be as long as the value."""
    try:
        text = re.sub(" at 0x[0-9a-f]+", "", repr(value))  # each process that runs tests must find the same names
        return text[:30].encode("ascii", "backslashreplace").decode()
    except (ValueError, RecursionError):
        return f"huge {type(value).__name__}"


@pytest.mark.parametrize("value", BAD_TEXTS, ids=short)
@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("content", lambda v: CONVERSATIONS.save_message(AGENT, "user", v)),
        ("query", lambda v: CONVERSATIONS.search_messages(AGENT, v)),
        ("key", lambda v: MEMORIES.store_memory(AGENT, "fact", v, 1)),
        ("key", lambda v: MEMORIES.retrieve_memory(AGENT, "fact", v)),
        ("key", lambda v: MEMORIES.get_memory(AGENT, "fact", v)),
        ("key", lambda v: MEMORIES.delete_memory(AGENT, "fact", v)),
        ("tags", lambda v: MEMORIES.store_memory(AGENT, "fact", "x", 1, tags=[v])),
        ("event", lambda v: EMOTIONS.save_event(AGENT, CustomEvent(event_type=v), {})),
        ("role", lambda v: CONVERSATIONS.save_message(AGENT, v, "x")),
        ("memory_type", lambda v: MEMORIES.store_memory(AGENT, v, "x", 1)),
        ("memory_type", lambda v: MEMORIES.get_memories_by_type(AGENT, "" if v is None else v)),
    ],
)
def test_bad_texts_are_refused_everywhere(field: str, call: Callable[[Any], object], value: Any) -> None:
    refused(field, lambda: call(value))


@pytest.mark.parametrize("value", ["", "x" * 300, "\ud800", 5, b"x"], ids=short)
def test_bad_idempotency_keys_are_refused(value: Any) -> None:
    refused("idempotency_key", lambda: CONVERSATIONS.save_message(AGENT, "user", "x", idempotency_key=value))


@pytest.mark.parametrize("value", GOOD_TEXTS)
def test_odd_texts_are_taken(value: str) -> None:
    for call in (
        lambda: CONVERSATIONS.save_message(AGENT, "user", value),
        lambda: CONVERSATIONS.search_messages(AGENT, value),
        lambda: MEMORIES.store_memory(AGENT, "fact", value, value, tags=[value]),
        lambda: EMOTIONS.save_event(AGENT, CustomEvent(event_type=value, data=value), {}),
    ):
        with pytest.raises(Reached):
            call()


@pytest.mark.parametrize("name", ["Fact", "a b", "a:b", "ünï", "fact\n", "fact٣", "x" * 65, "{17}", "unregistered"])
def test_memory_types_are_registered_names(name: str) -> None:
    refused("memory_type", lambda: MEMORIES.store_memory(AGENT, name, "x", 1))


# --- JSON ---

BAD_JSON = [
    math.nan,
    math.inf,
    -math.inf,
    2**63,
    -(2**63) - 1,
    10**5000,
    "a\0",
    "\ud800",
    {"a\0": 1},
    {"\ud800": 1},
    {1: 1},
    {None: 1},
    {("a",): 1},
    b"bytes",
    {1, 2},
    Opaque(),
    datetime.now(UTC),
    UUID(int=0),
    nested(33),
    nested(100_000),
    CYCLE,
    {"a": [{"b": math.nan}]},
    MEGABYTES,
    ["x" * 100_000] * 11,
]
JSON_FIELDS: list[tuple[str, Callable[[Any], object]]] = [
    ("metadata", lambda v: CONVERSATIONS.save_message(AGENT, "user", "x", v)),
    ("emotional_context", lambda v: CONVERSATIONS.save_message(AGENT, "user", "x", emotional_context={"k": v})),
    ("data", lambda v: MEMORIES.store_memory(AGENT, "fact", "x", v)),
    ("event", lambda v: EMOTIONS.save_event(AGENT, CustomEvent(event_type="x", data=v), {})),
    ("context_factors", lambda v: EMOTIONS.save_event(AGENT, CustomEvent(event_type="x"), {}, context_factors=v)),
    ("metadata", lambda v: SESSIONS.start_session(AGENT, v)),
]


@pytest.mark.parametrize("value", BAD_JSON, ids=short)
@pytest.mark.parametrize(("field", "call"), JSON_FIELDS)
def test_what_json_cannot_say_is_refused(field: str, call: Callable[[Any], object], value: Any) -> None:
    refused(field, lambda: call(value))


@pytest.mark.parametrize(
    "value", [-0.0, 5e-324, 1.7e308, 2**63 - 1, nested(30), "", {"": {}}, Number(1.5), Level.LOW, Word.HI], ids=short
)
@pytest.mark.parametrize(("field", "call"), JSON_FIELDS[:-1])
def test_what_json_can_say_is_taken(field: str, call: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(Reached):
        call(value)


@pytest.mark.parametrize("context", ["CURRENT", "", 5, [1], {"a": nested(40)}, {5: 1}], ids=short)
def test_an_emotional_context_is_an_object_or_current(context: Any) -> None:
    refused("emotional_context", lambda: CONVERSATIONS.save_message(AGENT, "user", "x", emotional_context=context))


# --- numbers ---

BAD_INTENSITIES = [-0.01, 1.01, math.nan, math.inf, -math.inf, True, "0.5", None, 10**5000, [0.5]]


@pytest.mark.parametrize("value", BAD_INTENSITIES, ids=short)
def test_what_is_no_intensity_is_refused(value: Any) -> None:
    joy = {Emotion.JOY: value}
    refused("changes[joy]", lambda: EMOTIONS.update_emotions(AGENT, joy, mode="set"))
    refused("resulting_emotions[joy]", lambda: EMOTIONS.save_event(AGENT, CustomEvent(event_type="x"), joy))
    refused("state.emotions[joy]", lambda: EMOTIONS.save_state(AGENT, EmotionalState(joy)))
    refused("state.decay_rates[joy]", lambda: EMOTIONS.save_state(AGENT, EmotionalState({}, joy)))
    if value is not None:
        refused("importance", lambda: MEMORIES.store_memory(AGENT, "fact", "x", 1, importance=value))


@pytest.mark.parametrize("value", [-1.01, 1.01, math.nan])
def test_what_is_added_is_in_minus_one_to_one(value: float) -> None:
    refused("changes[fear]", lambda: EMOTIONS.update_emotions(AGENT, {Emotion.FEAR: value}))


@pytest.mark.parametrize("changes", [None, [1], "joy", {"glee": 0.5}, {5: 0.5}, {None: 0.5}], ids=short)
def test_changes_are_emotions_and_numbers(changes: Any) -> None:
    with pytest.raises(InvalidInput):
        EMOTIONS.update_emotions(AGENT, changes)


@pytest.mark.parametrize("value", [0, -1, 1e-9, math.nan, math.inf, 10**5000, True, "60", 3_155_760_001], ids=short)
def test_a_ttl_is_seconds_up_to_a_hundred_years(value: Any) -> None:
    refused("ttl_seconds", lambda: MEMORIES.store_memory(AGENT, "fact", "x", 1, value))


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "5", None, 10**5000], ids=short)
def test_a_limit_is_a_whole_number(value: Any) -> None:
    for call in (CONVERSATIONS.get_history, EMOTIONS.get_event_history, SESSIONS.get_sessions):
        refused("limit", lambda call=call: call(AGENT, value))  # type: ignore[misc]
    refused("limit", lambda: CONVERSATIONS.search_messages(AGENT, "x", value))
    refused("limit", lambda: MEMORIES.get_memories_by_type(AGENT, "fact", value))
    if value != 0:
        refused("offset", lambda: MEMORIES.get_memories_by_type(AGENT, "fact", 1, value))


@pytest.mark.parametrize("value", [-1, 1.5, True, "5", 2**31, 2**70], ids=short)
def test_tokens_are_a_count(value: Any) -> None:
    refused("tokens_used", lambda: CONVERSATIONS.save_message(AGENT, "user", "x", tokens_used=value))


@pytest.mark.parametrize("hours", [0, -1, math.nan, math.inf, True, "24", None, 10**5000], ids=short)
def test_hours_are_a_positive_number(hours: Any) -> None:
    refused("hours", lambda: EMOTIONS.get_emotional_trends(AGENT, hours))


@pytest.mark.parametrize("bucket", [timedelta(0), timedelta(-1), 60, "1h"], ids=short)
def test_a_bucket_is_a_positive_time(bucket: Any) -> None:
    refused("bucket", lambda: EMOTIONS.get_emotional_trends(AGENT, bucket=bucket))


# --- times ---

BAD_TIMES = [
    datetime(2026, 1, 1),  # noqa: DTZ001
    NOW + timedelta(hours=1),
    NOW + timedelta(days=1),
    NOW - timedelta(days=400),
    datetime(1969, 12, 31, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    "2026-01-01",
    1_700_000_000,
]


@pytest.mark.parametrize("at", BAD_TIMES, ids=short)
def test_times_are_aware_not_in_the_future_and_within_retention(at: Any) -> None:
    message = NewMessage(role="user", content="x", created_at=at)
    refused("created_at", lambda: CONVERSATIONS.save_messages(AGENT, [message]))
    refused("occurred_at", lambda: EMOTIONS.save_event(AGENT, CustomEvent(event_type="x"), {}, occurred_at=at))


@pytest.mark.parametrize("at", [at for at in BAD_TIMES if at != NOW - timedelta(days=400)], ids=short)
def test_a_state_is_dated_by_an_aware_time_that_was(at: Any) -> None:
    refused("state.last_updated", lambda: EMOTIONS.save_state(AGENT, EmotionalState({}, {}, at)))


# --- the rest ---


@pytest.mark.parametrize("value", [None, "x", 5, str(AGENT), AGENT.bytes], ids=short)
def test_an_agent_is_a_uuid_everywhere(value: Any) -> None:
    for call in (
        lambda: EMOTIONS.load_state(value),
        lambda: EMOTIONS.save_state(value, EmotionalState()),
        lambda: EMOTIONS.update_emotions(value, {}),
        lambda: EMOTIONS.save_event(value, CustomEvent(event_type="x"), {}),
        lambda: EMOTIONS.get_event_history(value),
        lambda: EMOTIONS.get_emotional_trends(value),
        lambda: CONVERSATIONS.save_message(value, "user", "x"),
        lambda: CONVERSATIONS.save_messages(value, []),
        lambda: CONVERSATIONS.get_history(value),
        lambda: CONVERSATIONS.search_messages(value, "x"),
        lambda: CONVERSATIONS.get_conversation_stats(value),
        lambda: CONVERSATIONS.update_emotional_context(value, AGENT, {}),
        lambda: MEMORIES.store_memory(value, "fact", "x", 1),
        lambda: MEMORIES.retrieve_memory(value, "fact", "x"),
        lambda: MEMORIES.get_memory(value, "fact", "x"),
        lambda: MEMORIES.get_memories_by_type(value, "fact"),
        lambda: MEMORIES.delete_memory(value, "fact", "x"),
        lambda: SESSIONS.start_session(value),
        lambda: SESSIONS.end_session(value, AGENT),
        lambda: SESSIONS.get_sessions(value),
    ):
        refused("agent_id", call)


@pytest.mark.parametrize("value", ["x", 5, str(AGENT)], ids=short)
def test_ids_are_uuids(value: Any) -> None:
    refused("session_id", lambda: CONVERSATIONS.save_message(AGENT, "user", "x", session_id=value))
    refused("session_id", lambda: EMOTIONS.save_event(AGENT, CustomEvent(event_type="x"), {}, session_id=value))
    refused("before", lambda: CONVERSATIONS.get_history(AGENT, before=value))
    refused("message_id", lambda: CONVERSATIONS.update_emotional_context(AGENT, value, {}))


@pytest.mark.parametrize(
    "event",
    [
        None,
        "task_completed",
        {"type": "task_completed"},
        TaskCompleted(success="yes", difficulty=0.5, time_taken=1, expected_time=1),  # type: ignore[arg-type]
        TaskCompleted(success=True, difficulty=math.nan, time_taken=1, expected_time=1),
        ToolCallFailed(attempts=2**70, error_severity=0.5, is_critical=False),
        UnexpectedEvent(surprise_level=0.5, positive_outcome=True, context="\ud800"),
        UnexpectedEvent(surprise_level=0.5, positive_outcome=True, context="\0"),
    ],
    ids=short,
)
def test_an_event_has_fields_of_their_types(event: Any) -> None:
    refused("event", lambda: EMOTIONS.save_event(AGENT, event, {}))


@pytest.mark.parametrize("mode", ["", "Add", "record", None, [], 5], ids=short)
def test_a_mode_is_one_of_few(mode: Any) -> None:
    refused("mode", lambda: EMOTIONS.update_emotions(AGENT, {}, mode=mode))


@pytest.mark.parametrize(
    "messages",
    [None, 5, "text", iter(()), {}, SAID, ["x"], [None], [SAID] * 1_001],
    ids=short,
)
def test_messages_are_a_sequence_of_new_messages(messages: Any) -> None:
    refused("messages", lambda: CONVERSATIONS.save_messages(AGENT, messages))


@pytest.mark.parametrize("tags", [None, "text", 5, ["x"] * 65, ["x" * 129]], ids=short)
def test_tags_are_few_and_short(tags: Any) -> None:
    refused("tags", lambda: MEMORIES.store_memory(AGENT, "fact", "x", 1, tags=tags))


@pytest.mark.parametrize("level", ["safe", "HOT", 5, []], ids=short)
def test_a_durability_is_one_of_four(level: Any) -> None:
    refused("durability", lambda: EMOTIONS.update_emotions(AGENT, {}, durability=level))


@pytest.mark.parametrize("state", [None, {}, {"joy": 0.5}], ids=short)
def test_a_state_is_an_emotional_state(state: Any) -> None:
    refused("state", lambda: EMOTIONS.save_state(AGENT, state))


def broken(emotions: Any = None, rates: Any = None) -> EmotionalState:
    """A state whose parts are not what they should be: nothing checks them before it is saved."""
    return EmotionalState(emotions, rates)


@pytest.mark.parametrize("state", [broken(), broken({}), broken([1], {}), broken({}, "joy")], ids=short)
def test_a_state_maps_emotions(state: EmotionalState) -> None:
    refused("state", lambda: EMOTIONS.save_state(AGENT, state))
