"""Agents to measure with, and the arguments of calls that are measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from banshee_memory import Emotion, EmotionalState, MemoryPlugin, NewMessage

AGENTS = 200
MESSAGES = 50
WORDS = "The fox came back to the den before the rain, and said that it had seen the river rise over the stones. "
METADATA = {"channel": "web", "turn": 7}
FELT = {Emotion.JOY: 0.8, Emotion.HOPE: 0.5, Emotion.FEAR: 0.3, Emotion.LOVE: 0.9, Emotion.PRIDE: 0.4}
DATA = {
    "title": "the river",
    "summary": WORDS + WORDS,
    "depth": 3.5,
    "seen": [1, 2, 3],
    "by": {"who": "fox", "sure": True},
}
"""About 300 bytes of JSON."""

READERS = [UUID(int=0xA000_0000_0000_4000_8000_0000_0000_0000 + n * 7919) for n in range(AGENTS)]
WRITERS = [UUID(int=0xB000_0000_0000_4000_8000_0000_0000_0000 + n * 7919) for n in range(AGENTS)]


def message() -> NewMessage:
    """About 280 bytes once it is packed."""
    return NewMessage(role="user", content=WORDS * 2, metadata=METADATA, tokens_used=42)


def settle(memory: MemoryPlugin, agents: list[UUID]) -> None:
    """Gives agents a state, a conversation and a memory."""
    for agent in agents:
        memory.conversations.save_messages(agent, [message() for _ in range(MESSAGES)])
        memory.memories.store_memory(agent, "fact", "river", DATA)
    stir(memory, agents)


def stir(memory: MemoryPlugin, agents: list[UUID]) -> None:
    """Makes them feel again what fades while they are measured."""
    for agent in agents:
        memory.emotions.save_state(agent, EmotionalState(dict(FELT)))


def turning(agents: list[UUID]) -> Callable[[], UUID]:
    """The next agent at each call."""
    following: Iterator[Any] = itertools.cycle(agents)
    return following.__next__
