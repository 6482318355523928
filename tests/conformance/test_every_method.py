"""Every public method of the plugins and their stores: one life gets the same answers from both clients, wherever its
records are. A new method needs a deed in DEEDS."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
import redis

from banshee_memory import AsyncMemoryPlugin, CustomEvent, Emotion, EmotionalState, MemoryPlugin, NewMessage
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import Settings
from banshee_memory.tiering.transfer import MemoryLine
from tests.clients import Placement, is_store, placed, recorded

APART = {
    "close": "ends the client",
    "aclose": "ends the client",
}
"""Methods that no deed can call, and why."""
OF_THE_MOMENT = {"stamp", "shard", "exact", "ttl_seconds"}
"""Fields that hang on the millisecond, or on the agent's id."""
JOY, FEAR = Emotion.JOY, Emotion.FEAR
EVENT = CustomEvent(event_type="x", data={"n": 1})
STEADY = dict.fromkeys(Emotion, 0.0)
LONG_AGO = datetime.now(UTC) - timedelta(days=3)


@dataclass
class Life:
    """An agent, the client that asks for it, and what it was told so far, by deed."""

    memory: MemoryPlugin
    agent: UUID
    poison: Callable[[UUID], None]
    told: dict[str, Any] = field(default_factory=dict)


Deed = Callable[[Life], Any]


def still(result: object) -> str:
    """The kind of what says how much there was to be moved, or of whom: that is not the same everywhere."""
    return type(result).__name__


def following(life: Life, event: Any) -> Any:
    """The next event that the feed tells of after that one."""
    with closing(cast("Any", life.memory.emotions.subscribe(life.agent, after=event))) as events:
        return next(events)


def poisoned(life: Life) -> Any:
    """The dead letters of the agent, after another record of it that nobody can read."""
    life.poison(life.agent)
    life.memory.flush(life.agent)
    return life.memory.dead_letters.find(life.agent)


def waited(life: Life) -> None:
    """Waits for somebody's flush."""
    receipt = life.memory.receipt(life.agent)
    life.memory.flush()
    life.memory.wait_cold(receipt)


# What is called, in the order in which it happens; under a name that says the method, and after a blank how.
DEEDS: dict[str, Deed] = {
    "load_emotional_state": lambda life: life.memory.load_emotional_state(life.agent),
    "save_emotional_state": lambda life: life.memory.save_emotional_state(
        life.agent, EmotionalState({JOY: 0.5}, STEADY)
    ),
    "emotions.set_temperament": lambda life: life.memory.emotions.set_temperament(life.agent, decay_rates=STEADY),
    "emotions.save_state": lambda life: life.memory.emotions.save_state(
        life.agent, EmotionalState({JOY: 0.25}, STEADY)
    ),
    "emotions.load_state": lambda life: life.memory.emotions.load_state(life.agent),
    "sessions.start_session": lambda life: life.memory.sessions.start_session(life.agent, {"n": 1}),
    "save_emotional_event": lambda life: life.memory.save_emotional_event(life.agent, EVENT, {JOY: 0.5}),
    "emotions.save_event": lambda life: life.memory.emotions.save_event(life.agent, EVENT, {FEAR: 0.5}, mode="add"),
    "emotions.save_event late": lambda life: life.memory.emotions.save_event(
        life.agent, EVENT, {FEAR: 0.125}, mode="record", occurred_at=LONG_AGO
    ),
    "emotions.update_emotions": lambda life: life.memory.emotions.update_emotions(life.agent, {FEAR: 0.25}),
    "emotions.get_event_history": lambda life: life.memory.emotions.get_event_history(life.agent),
    "get_emotional_history": lambda life: life.memory.get_emotional_history(life.agent, 1),
    "emotions.get_emotional_trends": lambda life: life.memory.emotions.get_emotional_trends(life.agent),
    "emotions.state_at": lambda life: life.memory.emotions.state_at(life.agent, datetime.now(UTC)),
    "emotions.why": lambda life: life.memory.emotions.why(life.agent, FEAR),
    "emotions.subscribe": lambda life: following(life, life.told["save_emotional_event"]),
    "save_conversation_message": lambda life: life.memory.save_conversation_message(
        life.agent, "user", "foxes", {"n": 1}
    ),
    "conversations.save_message": lambda life: life.memory.conversations.save_message(
        life.agent, "assistant", "a fox", tokens_used=2, emotional_context="current"
    ),
    "conversations.save_messages": lambda life: life.memory.conversations.save_messages(
        life.agent, [NewMessage(role="user", content="old", created_at=LONG_AGO), NewMessage(role="tool", content="x")]
    ),
    "conversations.update_emotional_context": lambda life: life.memory.conversations.update_emotional_context(
        life.agent, life.told["conversations.save_message"], {"joy": 1.0}
    ),
    "conversations.get_history": lambda life: life.memory.conversations.get_history(life.agent),
    "conversations.get_history before": lambda life: life.memory.conversations.get_history(
        life.agent, 2, before=life.told["conversations.save_message"]
    ),
    "get_conversation_history": lambda life: life.memory.get_conversation_history(life.agent, 2),
    "conversations.search_messages": lambda life: life.memory.conversations.search_messages(life.agent, "fox"),
    "conversations.get_conversation_stats": lambda life: life.memory.conversations.get_conversation_stats(life.agent),
    "sessions.end_session": lambda life: life.memory.sessions.end_session(
        life.agent, life.told["sessions.start_session"].id
    ),
    "sessions.get_sessions": lambda life: life.memory.sessions.get_sessions(life.agent),
    "recall_turn": lambda life: life.memory.recall_turn(life.agent),
    "store_memory": lambda life: life.memory.store_memory(life.agent, "fact", "a", {"n": 1}),
    "memories.store_memory": lambda life: life.memory.memories.store_memory(
        life.agent, "goal", "b", [1, None], 3_600, importance=0.25, tags=["t"]
    ),
    "retrieve_memory": lambda life: life.memory.retrieve_memory(life.agent, "fact", "a"),
    "memories.retrieve_memory": lambda life: life.memory.memories.retrieve_memory(life.agent, "goal", "b"),
    "memories.get_memory": lambda life: life.memory.memories.get_memory(life.agent, "goal", "b"),
    "memories.get_memories_by_type": lambda life: life.memory.memories.get_memories_by_type(life.agent, None),
    "memories.delete_memory": lambda life: life.memory.memories.delete_memory(life.agent, "fact", "a"),
    "memories.get_memories_by_type deleted": lambda life: life.memory.memories.get_memories_by_type(life.agent, "fact"),
    "import_": lambda life: life.memory.import_(
        [MemoryLine(agent=str(life.agent), memory_type="skill", key="c", data="ü")]
    ),
    "export": lambda life: list(life.memory.export(life.agent)),
    "receipt": lambda life: still(life.memory.receipt(life.agent)),
    "flush": lambda life: still(life.memory.flush(life.agent)),
    "wait_cold": waited,
    "evict": lambda life: life.memory.evict(life.agent).kept,
    "evict_idle": lambda life: still(life.memory.evict_idle(3_600)),
    "rehydrate": lambda life: still(life.memory.rehydrate(life.agent)),
    "dead_letters.find": lambda life: [letter.reason for letter in poisoned(life)],
    "dead_letters.retry": lambda life: life.memory.dead_letters.retry(life.memory.dead_letters.find(life.agent)),
    "dead_letters.drop": lambda life: life.memory.dead_letters.drop(poisoned(life)),
    "health_check": lambda life: life.memory.health_check().ok,
    "stats": lambda life: still(life.memory.stats()),
    "migrate": lambda life: life.memory.migrate(),
    "forget": lambda life: still(life.memory.forget(life.agent)),
    "memories.get_memories_by_type forgotten": lambda life: life.memory.memories.get_memories_by_type(life.agent, None),
}


def live(memory: MemoryPlugin, poison: Callable[[UUID], None]) -> dict[str, Any]:
    """What the deeds say, one after the other, of an agent nobody knows yet."""
    life = Life(memory, uuid4(), poison)
    for name, deed in DEEDS.items():
        life.told[name] = deed(life)
    names: dict[UUID, int] = {}
    return {name: comparable(told, names) for name, told in life.told.items()}


def comparable(told: Any, names: dict[UUID, int]) -> Any:
    """The same for two lives: ids by when they were first told, times of these hours as one."""
    if isinstance(told, msgspec.Struct):
        told = {name: getattr(told, name) for name in told.__struct_fields__ if name not in OF_THE_MOMENT}
    match told:
        case dict():
            told = {key: comparable(value, names) for key, value in told.items()}
        case list() | tuple():
            told = [comparable(value, names) for value in told]
        case float():
            told = round(told, 7)
        case datetime() if abs(told - datetime.now(UTC)) < timedelta(hours=2):
            told = "now"
        case UUID():
            told = names.setdefault(told, len(names))
        case str() if len(told) == 36 and told.count("-") == 4:
            told = names.setdefault(UUID(told), len(names))
    return told


@pytest.fixture(scope="module")
def poison(redis_url: str) -> Iterator[Callable[[UUID], None]]:
    """Puts something into the log of an agent that no flush can carry."""
    with redis.Redis.from_url(redis_url) as server:

        def put(agent: UUID) -> None:
            server.xadd(agent_keys(agent, Settings().shards).log, {"k": b"Z" + agent.bytes, "p": b"bad"})

        yield put


@pytest.fixture(scope="module")
def expected(sync_client: MemoryPlugin, poison: Callable[[UUID], None]) -> dict[str, Any]:
    """What the sync client says of a life that never leaves Redis by itself."""
    return live(placed(sync_client, Placement.HOT), poison)


def public_methods(plugin: type[MemoryPlugin] | type[AsyncMemoryPlugin]) -> set[str]:
    """Its own and those of its stores, as `memories.store_memory`."""
    stores = {f"{name}.": type(store) for name, store in vars(plugin()).items() if is_store(store)}
    return {
        prefix + name
        for prefix, kind in {"": plugin, **stores}.items()
        for name, _ in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


def ask_for_deeds(plugin: type, methods: set[str]) -> str:
    """What to do about methods that nobody calls."""
    return (
        f"{plugin.__name__}: no deed calls {', '.join(sorted(methods))}. Place one for each in DEEDS of {__name__}, "
        "where its answer is compared for both clients in all four placements. If it only reads, name it in READS of "
        "tests.clients, too; if there is no way to call it there, in APART, with the reason."
    )


@pytest.mark.parametrize("plugin", [MemoryPlugin, AsyncMemoryPlugin])
def test_every_method_answers_alike_wherever_the_records_are(
    plugin: type[MemoryPlugin],
    sync_client: MemoryPlugin,
    async_client: MemoryPlugin,
    placement: Placement,
    poison: Callable[[UUID], None],
    expected: dict[str, Any],
) -> None:
    client = sync_client if plugin is MemoryPlugin else async_client
    called: set[str] = set()
    told = live(recorded(placed(client, placement), called), poison)
    for name, answer in told.items():
        assert answer == expected[name], name
    forgotten = public_methods(plugin) - called - set(APART)
    assert not forgotten, ask_for_deeds(plugin, forgotten)
