"""Hostile input at every text, key and number of the API: stored and read back equal from both tiers, or InvalidInput
and nothing stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from banshee_memory import (
    CustomEvent,
    Emotion,
    EmotionalState,
    GoalProgress,
    InvalidInput,
    MemoryPlugin,
    NewMessage,
    Settings,
    SocialInteraction,
    TaskCompleted,
    UnexpectedEvent,
)
from banshee_memory.hot.calls import Call
from tests.tiers import Tiers

TEXTS = (
    "",
    " ",
    "a\0b",
    "\ud800",
    "x\udfff",
    "\u202eright to left\u202c אבג",
    "🦊👩‍👩‍👧",
    "e\u0301 \u00e9 \ufeff\u2028\x01\x7f",
    "'; DROP TABLE agents; --",
    "%s %(agent)s $1 {0} \\ \\x00 \\u0000",
    "return redis.call('FLUSHALL')",
    "]] .. redis.call('FLUSHALL') .. [[",
    "{17}:*:banshee:{0}:log",
    "a:b:c",
    '{"$ref": "#"}',
    "NaN",
    "x" * 10_000_000,
)
NUMBERS = (
    *(math.nan, math.inf, -math.inf, -0.0, 0, 0.5, 1.0, -1, 1e-320, 1.7e308, -1.7e308),
    *(2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**400, True, "1", b"1", [1]),
)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"": value}
    return value


def ring() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


SHAPES = (
    *(nested(depth) for depth in (1, 31, 32, 33, 3_000)),
    *(ring(), {1: 2}, {"a": {2: 3}}, {None: 1}, {1}, b"bytes", object(), [math.nan], {"": -0.0, "🦊": []}),
)


class Place(NamedTuple):
    """Where a value goes in, how it is read, and what is tried there."""

    write: Callable[[MemoryPlugin, UUID, Any], Any]
    read: Callable[[MemoryPlugin, UUID, Any], Any]
    values: tuple[Any, ...]


def said(memory: MemoryPlugin, agent: UUID) -> Any:
    (message,) = memory.conversations.get_history(agent)
    return message


def happened(memory: MemoryPlugin, agent: UUID) -> Any:
    (event,) = memory.emotions.get_event_history(agent)
    return event


def amended(memory: MemoryPlugin, agent: UUID, context: Any) -> None:
    message = memory.conversations.save_message(agent, "user", "hi", emotional_context={"joy": 0.5})
    try:
        memory.conversations.update_emotional_context(agent, message, context)
    except InvalidInput:
        assert said(memory, agent).emotional_context == {"joy": 0.5}
        memory.conversations.update_emotional_context(agent, message, {"a": "refused"})


def an_event(make: Callable[[Any], Any], of: Callable[[Any], Any], values: tuple[Any, ...]) -> Place:
    return Place(
        lambda m, a, v: m.emotions.save_event(a, make(v), {}, mode="record"),
        lambda m, a, v: of(happened(m, a).event),
        values,
    )


def a_message(argument: str, of: Callable[[Any], Any], values: tuple[Any, ...]) -> Place:
    def write(memory: MemoryPlugin, agent: UUID, value: Any) -> None:
        memory.conversations.save_messages(agent, [NewMessage(**{"role": "user", "content": "hi", argument: value})])

    return Place(write, lambda m, a, v: of(said(m, a)), values)


def a_memory(argument: str, of: Callable[[Any], Any], values: tuple[Any, ...]) -> Place:
    def write(memory: MemoryPlugin, agent: UUID, value: Any) -> None:
        named = {"memory_type": "fact", "key": "k", "data": 1, argument: value}
        memory.memories.store_memory(agent, **named)

    def read(memory: MemoryPlugin, agent: UUID, value: Any) -> Any:
        record = memory.memories.get_memory(agent, "fact", value if argument == "key" else "k")
        assert record is not None
        assert record in memory.memories.get_memories_by_type(agent, "fact")
        return of(record)

    return Place(write, read, values)


def felt(memory: MemoryPlugin, agent: UUID) -> Any:
    state = memory.emotions.load_state(agent)
    assert state is not None
    return state


def dropped_at_the_floor(value: float) -> float:
    return value if value >= 0.01 else 0.0


STEADY = dict.fromkeys(Emotion, 0.0)
KEYED = tuple({text: 1} for text in TEXTS)
LISTED = tuple([text] for text in TEXTS)
JSON = (*TEXTS, *KEYED, *NUMBERS[:-3], *SHAPES)
OBJECTS = (*KEYED, *(shape for shape in SHAPES if isinstance(shape, dict)), *({"n": n} for n in NUMBERS[:-3]))
PLACES: dict[str, Place] = {
    "role": a_message("role", lambda m: m.role, TEXTS),
    "content": a_message("content", lambda m: m.content, (*TEXTS, 1, None, b"bytes")),
    "metadata": a_message("metadata", lambda m: m.metadata, JSON),
    "emotional context": a_message("emotional_context", lambda m: m.emotional_context, (*OBJECTS, *TEXTS)),
    "tokens": a_message("tokens_used", lambda m: m.tokens_used, NUMBERS),
    "session of a message": a_message("session_id", lambda m: m.session_id, (*TEXTS, b"1" * 16)),
    "time of a message": a_message("created_at", lambda m: m.created_at, (*TEXTS, *NUMBERS)),
    "amended context": Place(amended, lambda m, a, v: said(m, a).emotional_context, OBJECTS),
    "memory type": a_memory("memory_type", lambda m: m.memory_type, TEXTS),
    "memory key": a_memory("key", lambda m: m.key, (*TEXTS, "ü" * 256, "ü" * 257, 1, None, b"bytes")),
    "memory data": a_memory("data", lambda m: m.data, JSON),
    "tags": a_memory("tags", lambda m: list(m.tags), (*LISTED, *TEXTS[:3], ["t"] * 65, 1, [1], [b"b"])),
    "importance": a_memory("importance", lambda m: m.importance, NUMBERS),
    "seconds to live": a_memory(
        "ttl_seconds",
        lambda m: (m.expires_at - m.updated_at).total_seconds(),
        tuple(n for n in NUMBERS if n not in (0.5, 1e-320)),
    ),
    "kind of an event": an_event(lambda v: CustomEvent(event_type=v), lambda e: e.event_type, TEXTS),
    "data of an event": an_event(lambda v: CustomEvent(event_type="x", data=v), lambda e: e.data, JSON),
    "text of an event": an_event(
        lambda v: UnexpectedEvent(surprise_level=0.5, positive_outcome=True, context=v), lambda e: e.context, TEXTS
    ),
    "type of an interaction": an_event(
        lambda v: SocialInteraction(interaction_type=v, outcome=0.5, peer_status=0.5),
        lambda e: e.interaction_type,
        (*TEXTS, b"bytes", 1, None),
    ),
    "number of an event": an_event(
        lambda v: TaskCompleted(success=True, difficulty=0.5, time_taken=v, expected_time=1.0),
        lambda e: e.time_taken,
        tuple(n for n in NUMBERS if n not in (2**53 + 1, 2**63 - 1)),  # no doubles
    ),
    "flag of an event": an_event(
        lambda v: GoalProgress(progress_delta=0.5, goal_importance=0.5, is_milestone=v),
        lambda e: e.is_milestone,
        (*TEXTS, True, False, 0, 1, None),
    ),
    "context factors": Place(
        lambda m, a, v: m.emotions.save_event(a, CustomEvent(event_type="x"), {}, mode="record", context_factors=v),
        lambda m, a, v: happened(m, a).context_factors,
        JSON,
    ),
    "resulting emotions": Place(
        lambda m, a, v: m.emotions.save_event(a, CustomEvent(event_type="x"), v, mode="record"),
        lambda m, a, v: happened(m, a).resulting_emotions,
        (*KEYED, *({Emotion.JOY: n} for n in NUMBERS), *TEXTS, *NUMBERS),
    ),
    "mode": Place(
        lambda m, a, v: m.emotions.save_event(a, CustomEvent(event_type="x"), {}, mode=v),
        lambda m, a, v: happened(m, a).mode,
        (*TEXTS, *NUMBERS),
    ),
    "changes": Place(
        lambda m, a, v: m.emotions.update_emotions(a, v, mode="set"),
        lambda m, a, v: felt(m, a).emotions,
        (*KEYED, *TEXTS, *NUMBERS),
    ),
    "intensity": Place(
        lambda m, a, v: m.emotions.save_state(a, EmotionalState({Emotion.JOY: v}, dict(STEADY))),
        lambda m, a, v: felt(m, a).emotions.get(Emotion.JOY, 0.0) if dropped_at_the_floor(v) else v,
        NUMBERS,
    ),
    "rate": Place(
        lambda m, a, v: m.emotions.set_temperament(a, decay_rates={Emotion.JOY: v}),
        lambda m, a, v: felt(m, a).decay_rates[Emotion.JOY],
        NUMBERS,
    ),
    "metadata of a session": Place(
        lambda m, a, v: m.sessions.start_session(a, v),
        lambda m, a, v: m.sessions.get_sessions(a)[0].session_metadata,
        JSON,
    ),
    "idempotency key": Place(
        lambda m, a, v: m.conversations.save_message(a, "user", "hi", idempotency_key=v),
        lambda m, a, v: m.conversations.save_message(a, "user", "hi", idempotency_key=v) == said(m, a).id and v,
        (*TEXTS, b"bytes"),
    ),
}


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    client = Tiers(redis_url, database_url, Settings())
    yield client
    client.close()


@pytest.mark.parametrize("name", PLACES)
def test_it_is_stored_as_it_is_or_refused(client: MemoryPlugin, tiers: Tiers, name: str) -> None:
    place = PLACES[name]
    stored: list[tuple[UUID, Any]] = []
    refused: list[UUID] = []
    for value in place.values:
        agent = uuid4()
        try:
            place.write(client, agent, value)
        except InvalidInput:
            refused.append(agent)
        else:
            stored.append((agent, value))
    for agent, value in stored:
        check(place, client, agent, value)
    assert tiers.flush().poisoned == 0
    for agent, value in stored:
        tiers.drop(agent)
        check(place, client, agent, value)
    for agent in refused:
        keys = tiers.keys(agent)
        every = [keys.state, keys.messages, keys.events, keys.memories, keys.memory("fact:k")]
        assert tiers.hot.run(Call(("EXISTS", *every), int)) == 0
    assert stored or name in ("role", "memory type", "mode", "session of a message", "time of a message", "changes")
    assert refused or name == "amended context"


def check(place: Place, memory: MemoryPlugin, agent: UUID, value: Any) -> None:
    if place is PLACES["amended context"] and said(memory, agent).emotional_context == {"a": "refused"}:
        return
    read = place.read(memory, agent, value)
    assert read == value
    assert type(read) is type(value) or isinstance(value, (int, float))


@pytest.mark.parametrize("query", [*TEXTS, 'a "b', "-", "!&|<->:*", "or or -or", 1, None], ids=lambda q: repr(q)[:20])
def test_a_search_finds_or_refuses(client: MemoryPlugin, agent: UUID, query: Any) -> None:
    client.conversations.save_message(agent, "user", "words")
    try:
        found = client.conversations.search_messages(agent, query)
    except InvalidInput:
        return
    assert found in ([], client.conversations.get_history(agent))


@pytest.mark.parametrize("limit", [*NUMBERS, -1, 10**6], ids=lambda n: repr(n)[:12])
def test_a_limit_is_a_number_of_rows(client: MemoryPlugin, agent: UUID, limit: Any) -> None:
    def read(call: Callable[..., list[Any]], *args: Any) -> None:
        try:
            assert call(agent, *args) == []
        except InvalidInput:
            return

    read(client.conversations.get_history, limit)
    read(client.conversations.search_messages, "x", limit)
    read(client.emotions.get_event_history, limit)
    read(client.emotions.get_emotional_trends, limit)
    read(client.memories.get_memories_by_type, "fact", limit)
    read(client.memories.get_memories_by_type, "fact", 10, limit)
    read(client.sessions.get_sessions, limit)


class Stream(Iterator[NewMessage]):
    """Messages that can be counted only by taking them."""

    def __next__(self) -> NewMessage:
        raise StopIteration

    def __str__(self) -> str:
        return "stream"


@pytest.mark.parametrize("batch", [None, 1, "abc", b"ab", [None], {"role": "user"}, [{}], Stream()], ids=str)
def test_a_batch_is_a_sequence_of_messages(client: MemoryPlugin, agent: UUID, batch: Any) -> None:
    with pytest.raises(InvalidInput, match="messages"):
        client.conversations.save_messages(agent, batch)
