"""A log whose stamps are ahead of the clock: another server's clock was, or a tombstone lies there."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, EmotionalState, MemoryPlugin, Settings
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import agent_keys
from tests.own_servers import own_database, own_redis

SETTINGS = Settings(shards=1)


@pytest.fixture
def memory(redis_url: str, database_url: str) -> Iterator[MemoryPlugin]:
    with (
        own_redis(like=redis_url) as redis,
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, redis, settings=SETTINGS) as plugin,
    ):
        yield plugin


@pytest.fixture
def agent(memory: MemoryPlugin) -> UUID:
    """One in whose log an hour has passed that the clock knows nothing of."""
    agent = uuid4()
    memory.emotions.save_state(agent, EmotionalState({}, {Emotion.HOPE: 0.0}))
    hot, _ = memory._open()
    log = agent_keys(agent, 1).log
    last = hot.run(Call(("XREVRANGE", log, "+", "-", "COUNT", 1), lambda found: bytes(found[0][0])))
    ahead = int(last.partition(b"-")[0]) + 3_600_000
    hot.run(Call(("XSETID", log, f"{ahead}-0"), bytes))
    return agent


@pytest.mark.parametrize("is_flushed", [False, True])
def test_what_was_told_until_now_explains_what_is_felt_now(memory: MemoryPlugin, agent: UUID, is_flushed: bool) -> None:
    memory.emotions.save_event(agent, CustomEvent(event_type="x"), {Emotion.HOPE: 0.5})
    if is_flushed:
        memory.evict(agent)
    explanation = memory.emotions.why(agent, Emotion.HOPE)
    assert (explanation.intensity, explanation.unexplained) == (0.5, 0.0)
    assert [contribution.event.event_type for contribution in explanation.contributions] == ["x"]
