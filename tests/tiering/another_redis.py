"""Where Redis is another than before: how the agents live whose records are then looked for, and what is not there."""

from __future__ import annotations

from uuid import UUID, uuid4

from banshee_memory import Emotion, EmotionalState, MemoryPlugin, Settings
from banshee_memory.hot.keys import shard_of
from tests.tiering.lives import HAPPENED, STEADY

SETTINGS = Settings(shards=2, message_cap=3, event_cap=3, message_retention_days=None, event_retention_days=None)
AWAY = "postgresql://nobody@/nothing?host=/nonexistent"
"""A PostgreSQL that is not there."""


def agent_in(shard: int) -> UUID:
    """An agent of that shard."""
    return next(agent for agent in iter(uuid4, None) if shard_of(agent, SETTINGS.shards) == shard)


def live(memory: MemoryPlugin, agent: UUID, word: str) -> None:
    """Something of each kind."""
    felt = len(word) / 64
    memory.emotions.save_state(agent, EmotionalState({Emotion.JOY: felt}, dict(STEADY)))
    memory.conversations.save_message(agent, "user", f"{word} word", tokens_used=2)
    memory.emotions.save_event(agent, HAPPENED, {Emotion.HOPE: felt}, mode="set")
    memory.memories.store_memory(agent, "fact", "k", word)
    memory.memories.store_memory(agent, "fact", word, word)
