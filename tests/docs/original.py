"""What the original said of itself: the rows of its README and of its tables. Each has a line in the documentation.

Sections are the headings of `docs/from-the-original.md`.
"""

from __future__ import annotations

ROWS: dict[str, tuple[str, ...]] = {
    "Emotional intelligence persistence": (
        "Real-time emotional state storage",
        "OCC model support",
        "Temporal decay persistence",
        "Event history tracking",
        "Emotional trend analysis",
    ),
    "Conversation management": (
        "Full conversation history",
        "Emotional context integration",
        "Full-text search",
        "Token usage tracking",
        "Metadata support",
    ),
    "Flexible memory storage": (
        "Typed memory system",
        "TTL support",
        "Importance-based prioritization",
        "Access pattern tracking",
        "Redis caching",
    ),
    "Production features": (
        "Automatic cleanup",
        "Database migrations",
        "Connection pooling",
        "Background tasks",
        "Comprehensive indexing",
    ),
    "PostgreSQL tables": (
        "emotional_states",
        "emotional_events",
        "conversation_messages",
        "memory_records",
        "agent_sessions",
    ),
    "Redis usage": (
        "Emotional state caching (1-hour TTL)",
        "Recent conversation messages (50 message buffer)",
        "Memory data caching with configurable TTL",
        "Real-time event streams for live processing",
    ),
    "Plugin architecture": (
        "MemoryPlugin::new",
        "EmotionalState::new",
        "update_emotion",
        "summary",
        "save_emotional_state",
        "load_emotional_state",
        "save_conversation_message",
        "store_memory",
        "MemoryResult",
    ),
    "Environment variables": (
        "DATABASE_URL",
        "REDIS_URL",
        "REDIS_PASSWORD",
        "DB_MAX_CONNECTIONS",
        "DB_MIN_CONNECTIONS",
    ),
    "Database setup": ("Run migrations", "By psql", "Verify installation"),
    "Redis setup": ("Start Redis server", "With Docker", "Configure persistence"),
    "EmotionStore": ("save_state", "load_state", "save_event", "get_event_history", "get_emotional_trends"),
    "ConversationStore": ("save_message", "get_history", "search_messages", "get_conversation_stats"),
    "MemoryManager": ("store_memory", "retrieve_memory", "get_memories_by_type", "delete_memory"),
    "Memory types": (
        *("goal", "preference", "personality", "skill", "fact"),
        *("experience", "relationship", "context", "temp", "cache"),
    ),
    "Indexing strategy": (
        "Agent-based partitioning",
        "Time-based indexing",
        "Compound indexes",
        "Full-text search",
    ),
    "Caching strategy": ("Emotional states", "Recent conversations", "Memory data", "Event streams"),
    "Cleanup policies": ("Emotional events", "Conversation messages", "Expired memories", "Background maintenance"),
    "Testing": ("Run all tests", "Run with database", "Run integration tests"),
    "Metrics to track": (
        "Emotional state save/load latency",
        "Cache hit/miss ratios",
        "Database connection pool usage",
        "Memory cleanup effectiveness",
        "Conversation message growth rate",
    ),
    "Health checks": ("health_check", "postgres_connected", "redis_connected"),
    "From the legacy emotion engine": ("OCCEmotionalState", "OCCEmotion::Joy", "Lost on restart"),
    "Schema evolution": (
        "Migration files",
        "Backward-compatible changes preferred",
        "Data migration scripts for breaking changes",
    ),
    "Contributing": ("Database changes", "New memory types", "Performance improvements", "Tests"),
    "License": ("License",),
    "Columns of emotional_states": (
        *("id", "agent_id", "emotions", "decay_rates", "overall_valence", "overall_arousal"),
        *("dominant_emotion", "dominant_intensity", "emotional_temperature", "is_frustrated", "is_confident"),
        *("created_at", "updated_at", "the trigger on updated_at"),
    ),
    "Columns of emotional_events": (
        *("id", "agent_id", "event_type", "event_data", "resulting_emotions", "context_factors", "intensity_delta"),
        *("valence_delta", "arousal_delta", "appraisal_duration_ms", "personality_influence", "created_at"),
    ),
    "Columns of conversation_messages": (
        *("id", "agent_id", "role", "content", "metadata", "emotional_context", "tokens_used", "content_length"),
        *("word_count", "created_at"),
    ),
    "Columns of memory_records": (
        *("id", "agent_id", "memory_type", "key", "data", "importance", "access_count", "last_accessed"),
        *("created_at", "updated_at", "expires_at", "tags", "unique (agent_id, memory_type, key)"),
    ),
    "Columns of agent_sessions": (
        *("id", "agent_id", "session_start", "session_end", "initial_emotional_state", "final_emotional_state"),
        *("total_messages", "total_events", "total_tokens_used", "session_metadata"),
    ),
    "Views, functions, spellings, keys": (
        *("agent_emotional_summary", "recent_emotional_events", "conversation_stats"),
        *("get_agent_emotional_state(uuid)", "cleanup_expired_memories()"),
        *("Joy, FearConfirmed, HappyFor, …", "SocialInteractionType", "emotion:state:<id>"),
        *("conversation:cache:<id>", "memory:<id>:<type>:<key>", "session:lock:<id>", "emotion:events:<id>"),
    ),
}

DEFECTS = (
    "A history oldest first from the cache and newest first from the database",
    "Cached messages with a random agent id, no tokens and no emotional context",
    "Valence and arousal deltas always 0, so trends are flat",
    "An upsert without its unique constraint",
    "A trigger that moves the clock of decay at each save",
    "Token totals always 0",
    "A rehydrated memory that outlives its own expiry",
    "Memories without a TTL that never leave Redis",
    "Values pasted into SQL",
)
