"""Dead letters, on both clients."""

from __future__ import annotations

from uuid import UUID

import redis

from banshee_memory import MemoryPlugin
from banshee_memory.hot.keys import agent_keys


def test_find_retry_and_drop(client: MemoryPlugin, redis_url: str, agent: UUID) -> None:
    with redis.Redis.from_url(redis_url) as server:
        keys = agent_keys(agent, 64)
        client.conversations.save_message(agent, "user", "good")
        server.xadd(keys.log, {"k": b"Z" + agent.bytes, "p": b"bad"})
        client.flush(agent)
    (letter,) = client.dead_letters.find(agent)
    assert letter.reason == "kind 'Z' is unknown"
    assert letter in client.dead_letters.find(shard=letter.shard, limit=100_000)
    assert client.dead_letters.retry([letter]) == 1
    assert client.dead_letters.find(agent) == []
    client.flush(agent)
    (again,) = client.dead_letters.find(agent)
    assert client.dead_letters.drop([again.id]) == 1
    assert client.dead_letters.drop([again.id]) == 0
    assert client.dead_letters.find(agent) == []
    assert [m.content for m in client.conversations.get_history(agent)] == ["good"]
