"""Totals are exact at every moment of a flush, also when it carries a value that is newer than its part of the log."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import msgspec
import pytest

from banshee_memory import Emotion, MemoryPlugin, Settings
from banshee_memory.hot.keys import shard_of
from banshee_memory.tiering.drain import Drain


@pytest.fixture
def memory(redis_url: str, database_url: str) -> Iterator[MemoryPlugin]:
    """A plugin on the session's servers."""
    plugin = MemoryPlugin(database_url, redis_url)
    plugin.migrate()
    with plugin:
        yield plugin


def one_entry_at_a_time(memory: MemoryPlugin) -> Drain:
    """A drain that carries a single log entry a transaction."""
    settings: Settings = msgspec.structs.replace(memory.settings, flush_batch=1)
    return Drain(settings, *memory._open())


def test_a_message_between_two_changes_of_the_state_is_counted_at_every_step(memory: MemoryPlugin) -> None:
    agent = uuid4()
    memory.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
    memory.conversations.save_message(agent, "user", "between", tokens_used=7)
    memory.emotions.update_emotions(agent, {Emotion.HOPE: 0.5})
    drain = one_entry_at_a_time(memory)
    for _ in range(4):
        drain.carry([shard_of(agent, memory.settings.shards)], wait=5)
        stats = memory.conversations.get_conversation_stats(agent)
        assert (stats.total_messages, stats.total_tokens) == (1, 7)
