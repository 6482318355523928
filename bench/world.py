"""Agents to measure with. Few, and as many for everybody: how long a cache remembers is not what is compared."""

from __future__ import annotations

from uuid import UUID

from banshee_memory import Emotion, MemoryPlugin, NewMessage, TaskCompleted
from banshee_memory.cli.workload import MESSAGES, METADATA, TOKENS, WORDS, feel, settle

AGENTS = 40


def _agents(first: int) -> list[UUID]:
    return [UUID(int=(first << 124) + 0x4000_8000_0000_0000_0000 + n * 7919) for n in range(AGENTS)]


READERS, WRITERS, SLEEPERS, FEELERS = _agents(0xA), _agents(0xB), _agents(0xC), _agents(0xD)
"""Who is only read, who is written to, whose messages are not in Redis, and who felt something with each of them."""


def begin(memory: MemoryPlugin) -> None:
    """Everybody, with all of it in PostgreSQL as well."""
    settle(memory, [*READERS, *WRITERS, *SLEEPERS])
    feel(memory, FEELERS)
    said = NewMessage(
        role="user", content=WORDS * 2, metadata=METADATA, tokens_used=TOKENS, emotional_context="current"
    )
    done = TaskCompleted(success=True, difficulty=0.7, time_taken=95.0, expected_time=120.0)
    for agent in FEELERS:
        memory.conversations.save_messages(agent, [said] * MESSAGES)
        for _ in range(MESSAGES):
            memory.emotions.save_event(agent, done, {Emotion.PRIDE: 0.5})
    memory.flush()
    feel(memory, READERS)
