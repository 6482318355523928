"""The memory of emotional AI agents: hot in Redis, whole in PostgreSQL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from banshee_memory.emotions import Capped, Emotion, EmotionalState
from banshee_memory.errors import (
    BansheeError,
    ColdStoreUnavailable,
    ConfigurationError,
    DurabilityUnavailable,
    HotStoreFull,
    HotStoreUnavailable,
    IncompatibleSchema,
    InvalidInput,
)
from banshee_memory.records import (
    AgentSession,
    Backlog,
    ConversationMessage,
    ConversationStats,
    CustomEvent,
    DeadLetter,
    EmotionalEvent,
    EmotionalEventRecord,
    ErasureReport,
    EvictReport,
    FlushReport,
    GoalProgress,
    Health,
    ImportReport,
    MemoryRecall,
    MemoryRecord,
    NewMessage,
    Pace,
    RehydrateReport,
    SocialInteraction,
    Stats,
    TaskCompleted,
    ToolCallFailed,
    TrendPoint,
    Turn,
    UnexpectedEvent,
    UserFeedback,
)
from banshee_memory.settings import Durability, MemoryPolicy, Settings
from banshee_memory.stamps import Receipt
from banshee_memory.timeline import Contribution, Explanation, PastState

if TYPE_CHECKING:
    from banshee_memory.aio_plugin import AsyncMemoryPlugin
    from banshee_memory.plugin import MemoryPlugin

__version__ = "0.1.0"

# A client, and asyncio, come in when they are first named: whoever wants the records alone, or the help of the command
# line, does not wait for them.
_CLIENTS = {"AsyncMemoryPlugin": "banshee_memory.aio_plugin", "MemoryPlugin": "banshee_memory.plugin"}


def __getattr__(name: str) -> Any:
    if name not in _CLIENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_CLIENTS[name]), name)


__all__ = [
    "AgentSession",
    "AsyncMemoryPlugin",
    "Backlog",
    "BansheeError",
    "Capped",
    "ColdStoreUnavailable",
    "ConfigurationError",
    "Contribution",
    "ConversationMessage",
    "ConversationStats",
    "CustomEvent",
    "DeadLetter",
    "Durability",
    "DurabilityUnavailable",
    "Emotion",
    "EmotionalEvent",
    "EmotionalEventRecord",
    "EmotionalState",
    "ErasureReport",
    "EvictReport",
    "Explanation",
    "FlushReport",
    "GoalProgress",
    "Health",
    "HotStoreFull",
    "HotStoreUnavailable",
    "ImportReport",
    "IncompatibleSchema",
    "InvalidInput",
    "MemoryPlugin",
    "MemoryPolicy",
    "MemoryRecall",
    "MemoryRecord",
    "NewMessage",
    "Pace",
    "PastState",
    "Receipt",
    "RehydrateReport",
    "Settings",
    "SocialInteraction",
    "Stats",
    "TaskCompleted",
    "ToolCallFailed",
    "TrendPoint",
    "Turn",
    "UnexpectedEvent",
    "UserFeedback",
    "__version__",
]
