"""The memory of emotional AI agents: hot in Redis, whole in PostgreSQL."""

from __future__ import annotations

from banshee_memory.aio_plugin import AsyncMemoryPlugin
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
from banshee_memory.plugin import MemoryPlugin
from banshee_memory.records import (
    AgentSession,
    Backlog,
    ConversationMessage,
    ConversationStats,
    CustomEvent,
    EmotionalEvent,
    EmotionalEventRecord,
    EvictReport,
    FlushReport,
    GoalProgress,
    Health,
    ImportReport,
    MemoryRecall,
    MemoryRecord,
    NewMessage,
    RehydrateReport,
    SocialInteraction,
    Stats,
    TaskCompleted,
    ToolCallFailed,
    TrendPoint,
    UnexpectedEvent,
    UserFeedback,
)
from banshee_memory.settings import Durability, MemoryPolicy, Settings

__version__ = "0.1.0"

__all__ = [
    "AgentSession",
    "AsyncMemoryPlugin",
    "Backlog",
    "BansheeError",
    "Capped",
    "ColdStoreUnavailable",
    "ConfigurationError",
    "ConversationMessage",
    "ConversationStats",
    "CustomEvent",
    "Durability",
    "DurabilityUnavailable",
    "Emotion",
    "EmotionalEvent",
    "EmotionalEventRecord",
    "EmotionalState",
    "EvictReport",
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
    "RehydrateReport",
    "Settings",
    "SocialInteraction",
    "Stats",
    "TaskCompleted",
    "ToolCallFailed",
    "TrendPoint",
    "UnexpectedEvent",
    "UserFeedback",
    "__version__",
]
