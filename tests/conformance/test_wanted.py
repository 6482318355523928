"""A client that cannot rehydrate asks for an agent, and whoever serves such wishes brings it in."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from banshee_memory import CustomEvent, Emotion, InvalidInput, MemoryPlugin, Settings
from banshee_memory.errors import ConfigurationError
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import shard_keys
from banshee_memory.operations import Operations
from tests.tiers import Tiers


@pytest.fixture(scope="module")
def tiers(redis_url: str, database_url: str) -> Iterator[Tiers]:
    client = Tiers(redis_url, database_url, Settings())
    yield client
    client.close()


def asked(tiers: Tiers, agent: UUID, name: bytes | None = None) -> int:
    wanted = shard_keys(tiers.keys(agent).shard).wanted
    call = Call(("FCALL", "banshee1_want", 1, wanted, agent.bytes if name is None else name), int)
    return tiers.hot.run(call)


def serve(tiers: Tiers) -> int:
    return tiers.run(Operations(tiers.settings).rehydrate_wanted())


def test_a_wanted_agent_comes_in(client: MemoryPlugin, tiers: Tiers, agent: UUID) -> None:
    client.emotions.update_emotions(agent, {Emotion.LOVE: 0.5})
    client.conversations.save_message(agent, "user", "hi")
    client.emotions.save_event(agent, CustomEvent(event_type="x"), {})
    client.memories.store_memory(agent, "fact", "x", 1)
    client.evict(agent)
    keys = tiers.keys(agent)
    every = [keys.state, keys.messages, keys.events, keys.memories, keys.memory("fact:x")]
    assert tiers.hot.run(Call(("EXISTS", *every), int)) == 0
    assert tiers.hot.run(Call(("FCALL_RO", "banshee1_load_state", 1, keys.state), bytes)) == b"MISS"
    assert (asked(tiers, agent), asked(tiers, agent)) == (1, 0)
    assert serve(tiers) == 1
    assert tiers.hot.run(Call(("EXISTS", *every), int)) == len(every)
    assert serve(tiers) == 0


def test_an_agent_that_nobody_knows_is_no_trouble(tiers: Tiers, agent: UUID) -> None:
    assert asked(tiers, agent) + asked(tiers, uuid4()) == 2
    assert serve(tiers) == 2
    assert tiers.emotions.load_state(agent) is None


@pytest.mark.parametrize("name", [b"", b"x", b"x" * 17])
def test_what_is_no_agent_is_refused(tiers: Tiers, agent: UUID, name: bytes) -> None:
    with pytest.raises((InvalidInput, ConfigurationError)):
        asked(tiers, agent, name)
    assert serve(tiers) == 0
