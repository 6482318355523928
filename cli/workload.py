"""What is measured: a state of five emotions, 50 messages of 200 characters and a memory of 300 bytes of JSON an agent,
and the calls of which an agent's turn is made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.plugin import MemoryPlugin
from banshee_memory.records import NewMessage

MESSAGES = 50
TOKENS = 42
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
WRITES = frozenset({"update_emotions", "save_message", "store_memory"})
"""The operations that leave an entry in the log."""


def settle(memory: MemoryPlugin, agents: Iterable[UUID]) -> None:
    """Gives agents a state, a conversation and a memory."""
    said = NewMessage(role="user", content=WORDS * 2, metadata=METADATA, tokens_used=TOKENS)
    for agent in agents:
        memory.conversations.save_messages(agent, [said] * MESSAGES)
        memory.memories.store_memory(agent, "fact", "river", DATA)
        feel(memory, [agent])


def feel(memory: MemoryPlugin, agents: Iterable[UUID]) -> None:
    """Makes them feel again what fades while they are measured."""
    for agent in agents:
        memory.emotions.save_state(agent, EmotionalState(dict(FELT)))


def calls(memory: Any, readers: Sequence[UUID], writers: Sequence[UUID]) -> dict[str, Callable[[], Any]]:
    """By operation; of the asyncio client what they return is to be awaited."""
    reader, writer = turning(readers), turning(writers)
    emotions, conversations, memories = memory.emotions, memory.conversations, memory.memories
    return {
        "load_state": lambda: emotions.load_state(reader()),
        "update_emotions": lambda: emotions.update_emotions(writer(), {Emotion.JOY: 0.01}),
        "get_history(50)": lambda: conversations.get_history(reader(), 50),
        "save_message": lambda: conversations.save_message(writer(), "user", WORDS * 2, METADATA, tokens_used=TOKENS),
        "retrieve_memory": lambda: memories.retrieve_memory(reader(), "fact", "river"),
        "recall_turn": lambda: memory.recall_turn(reader()),
        "store_memory": lambda: memories.store_memory(writer(), "fact", "river", DATA),
    }


def turning(things: Sequence[Any]) -> Callable[[], Any]:
    """The next one at each call."""
    following: Iterator[Any] = itertools.cycle(things)
    return following.__next__
