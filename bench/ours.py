"""The hot operations of both clients, as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from banshee_memory import Emotion
from bench import world


def calls(memory: Any, agents: int = world.AGENTS) -> dict[str, Callable[[], Any]]:
    """By operation; of the asyncio client what they return is to be awaited."""
    reader, writer = world.turning(world.READERS[:agents]), world.turning(world.WRITERS[:agents])
    emotions, conversations, memories = memory.emotions, memory.conversations, memory.memories
    return {
        "load_state": lambda: emotions.load_state(reader()),
        "update_emotions": lambda: emotions.update_emotions(writer(), {Emotion.JOY: 0.01}),
        "get_history(50)": lambda: conversations.get_history(reader(), 50),
        "save_message": lambda: conversations.save_message(
            writer(), "user", world.WORDS * 2, world.METADATA, tokens_used=42
        ),
        "retrieve_memory": lambda: memories.retrieve_memory(reader(), "fact", "river"),
        "recall_turn": lambda: memory.recall_turn(reader()),
        "store_memory": lambda: memories.store_memory(writer(), "fact", "river", world.DATA),
    }
