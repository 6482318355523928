"""Two clients, one contract: the async one has the methods of the sync one, and both have those of the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import banshee_memory
from banshee_memory import AsyncMemoryPlugin, MemoryPlugin, aio_stores, stores
from banshee_memory.errors import BansheeError
from banshee_memory.hot.aio import AsyncHotStore
from banshee_memory.hot.client import HotStore

TWINS = [
    (MemoryPlugin, AsyncMemoryPlugin),
    (stores.EmotionStore, aio_stores.AsyncEmotionStore),
    (stores.ConversationStore, aio_stores.AsyncConversationStore),
    (stores.MemoryManager, aio_stores.AsyncMemoryManager),
    (stores.SessionStore, aio_stores.AsyncSessionStore),
    (stores.DeadLetters, aio_stores.AsyncDeadLetters),
]
# What the contract promises, and the arguments it names, in their order.
CONTRACT = {
    stores.EmotionStore: {
        "save_state": "agent_id state",
        "load_state": "agent_id",
        "update_emotions": "agent_id changes *mode",
        "save_event": "agent_id event resulting_emotions *mode *occurred_at *session_id *context_factors",
        "get_event_history": "agent_id limit",
        "get_emotional_trends": "agent_id hours *bucket",
        "subscribe": "agent_id *after",
    },
    stores.ConversationStore: {
        "save_message": "agent_id role content metadata *tokens_used *emotional_context *session_id",
        "save_messages": "agent_id messages",
        "get_history": "agent_id limit *before",
        "search_messages": "agent_id query limit",
        "get_conversation_stats": "agent_id",
        "update_emotional_context": "agent_id message_id emotional_context",
    },
    stores.MemoryManager: {
        "store_memory": "agent_id memory_type key data ttl_seconds *importance *tags",
        "retrieve_memory": "agent_id memory_type key",
        "get_memory": "agent_id memory_type key",
        "get_memories_by_type": "agent_id memory_type limit offset",
        "delete_memory": "agent_id memory_type key",
    },
    stores.SessionStore: {
        "start_session": "agent_id metadata",
        "end_session": "agent_id session_id",
        "get_sessions": "agent_id limit",
    },
    MemoryPlugin: {
        "save_emotional_state": "agent_id state",
        "load_emotional_state": "agent_id",
        "save_emotional_event": "agent_id event resulting_emotions",
        "get_emotional_history": "agent_id limit",
        "save_conversation_message": "agent_id role content metadata",
        "get_conversation_history": "agent_id limit",
        "store_memory": "agent_id memory_type key data ttl_seconds",
        "retrieve_memory": "agent_id memory_type key",
        "recall_turn": "agent_id *messages *memories *memory_type",
        "health_check": "",
        "flush": "agent_id",
        "rehydrate": "agent_id",
        "evict": "agent_id",
        "forget": "agent_id",
        "stats": "",
        "export": "agent_id",
        "import_": "records",
    },
}
WRITES = {"save_state", "update_emotions", "save_event", "save_message", "save_messages", "store_memory"} | {
    "delete_memory",
    "start_session",
    "end_session",
}
KEYED = WRITES - {"save_state", "delete_memory"}
DEFAULTS: dict[str, dict[str, object]] = {
    "limit": {"get_event_history": 100, "search_messages": 50, "get_history": 50, "get_memories_by_type": 50},
    "mode": {"update_emotions": "add", "save_event": "set"},
    "hours": {"get_emotional_trends": 24},
}
NAMES = """
AgentSession AsyncMemoryPlugin BansheeError ColdStoreUnavailable ConfigurationError ConversationMessage
ConversationStats CustomEvent Durability DurabilityUnavailable Emotion EmotionalEvent EmotionalEventRecord
EmotionalState ErasureReport EvictReport FlushReport GoalProgress Health HotStoreFull HotStoreUnavailable ImportReport
IncompatibleSchema InvalidInput MemoryPlugin MemoryRecall MemoryRecord NewMessage RehydrateReport Settings
SocialInteraction Stats TaskCompleted ToolCallFailed TrendPoint Turn UnexpectedEvent UserFeedback
"""


def public(kind: type) -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}


def shape(method: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    """Names, kinds, defaults and annotations of the arguments."""
    parameters = inspect.signature(method).parameters.values()
    return [(p.name, p.kind, p.default, p.annotation) for p in parameters]


@pytest.mark.parametrize(("sync", "aio"), TWINS, ids=lambda kind: kind.__name__)
def test_the_twins_have_the_same_methods(sync: type, aio: type) -> None:
    ours, theirs = public(sync), public(aio)
    if ours.pop("close", None) is not None:
        theirs.pop("aclose")
    assert ours.keys() == theirs.keys()
    for name, method in ours.items():
        assert shape(method) == shape(theirs[name]), name
        assert method.__doc__ == theirs[name].__doc__, name
        if name not in ("export", "subscribe"):
            returned = inspect.signature(method).return_annotation
            assert returned == inspect.signature(theirs[name]).return_annotation, name
            assert inspect.iscoroutinefunction(theirs[name]), name
            assert not inspect.iscoroutinefunction(method), name


@pytest.mark.parametrize("kind", CONTRACT, ids=lambda kind: kind.__name__)
def test_the_contract_is_kept(kind: type) -> None:
    for name, arguments in CONTRACT[kind].items():
        given = list(inspect.signature(getattr(kind, name)).parameters.values())[1:]
        promised = arguments.split()
        in_order = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert in_order == [word for word in promised if not word.startswith("*")], name
        by_name = {p.name for p in given if p.kind is p.KEYWORD_ONLY}
        assert by_name >= {word[1:] for word in promised if word.startswith("*")}, name
        for parameter in given:
            expected = DEFAULTS.get(parameter.name, {}).get(name, parameter.default)
            assert parameter.default == expected, (name, parameter.name)


@pytest.mark.parametrize("kind", [kind for kind in CONTRACT if kind is not MemoryPlugin], ids=lambda k: k.__name__)
def test_every_write_takes_a_durability_and_most_a_key(kind: type) -> None:
    for name, method in public(kind).items():
        parameters = inspect.signature(method).parameters
        if name in WRITES:
            assert parameters["durability"].default is None, name
        if name in KEYED:
            assert parameters["idempotency_key"].default is None, name


def test_the_two_hot_stores_run_alike() -> None:
    for name in ("run", "run_all", "run_durably", "info", "load_library"):
        assert shape(getattr(HotStore, name)) == shape(getattr(AsyncHotStore, name)), name


@pytest.mark.parametrize("name", NAMES.split())
def test_the_names_of_the_contract_import_from_the_package(name: str) -> None:
    assert hasattr(banshee_memory, name)
    assert name in banshee_memory.__all__


def test_all_is_all_and_sorted() -> None:
    assert sorted(set(banshee_memory.__all__)) == banshee_memory.__all__
    for name in banshee_memory.__all__:
        assert hasattr(banshee_memory, name)


def test_every_error_is_one_of_ours() -> None:
    named = [getattr(banshee_memory, name) for name in NAMES.split()]
    errors = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) == 8
    assert all(issubclass(kind, BansheeError) for kind in errors)
    assert issubclass(banshee_memory.InvalidInput, ValueError)


def test_constructing_opens_nothing() -> None:
    MemoryPlugin("postgresql://nowhere.invalid/x", "redis://nowhere.invalid").close()
