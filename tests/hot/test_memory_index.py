"""The index of an agent's memories forgets those that Redis let go: it does not grow as long as the agent lives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from banshee_memory.hot import calls, flushing, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.flushing import Settlement
from banshee_memory.hot.keys import AgentKeys, shard_keys
from tests.hot.raw import Server

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
TTL = 60.0


@pytest.fixture(autouse=True)
def _clock(server: Server) -> Iterator[None]:
    server.set_clock(NOW)
    yield
    server.set_clock(None)


def store(hot: HotStore, keys: AgentKeys, names: list[str], ttl: float | None = None) -> None:
    body = wire.pack(wire.MemoryBody("data", 0.5))
    hot.run_all([calls.store_memory(keys, "fact", name, body, ttl, how="blind") for name in names])


def flush(hot: HotStore, keys: AgentKeys, names: list[str]) -> None:
    entries = hot.run(flushing.log_head(shard_keys(keys.shard), 1_000, 1_000_000))
    settlement = Settlement()
    for name in names:
        value = hot.run(calls.memory_bytes(keys, f"fact:{name}"))
        assert value is not None
        settlement.memory(keys, f"fact:{name}", value)
    assert hot.run(flushing.mark_clean(shard_keys(keys.shard), entries, settlement, TTL, {}))


def indexed(hot: HotStore, keys: AgentKeys) -> set[str]:
    return {member.removeprefix("fact:") for member in hot.run(calls.resident_members(keys))}


def test_it_forgets_what_was_not_used_for_an_hour(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    for turn in range(6):
        server.set_clock(NOW + turn * 100 * SECOND)
        names = [f"{turn}-{n}" for n in range(50)]
        store(hot, keys, names)
        flush(hot, keys, names)
        assert indexed(hot, keys) == set(names)
    assert 0 < server.ttl(keys.memories) <= TTL * 1_000


def test_it_forgets_what_expired_before_it_was_cold(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    names = [f"{n}" for n in range(50)]
    store(hot, keys, names, ttl=1.0)
    assert indexed(hot, keys) == set(names)
    server.set_clock(NOW + 2 * SECOND)
    flush(hot, keys, names)
    assert indexed(hot, keys) == set()
    assert server.ttl(keys.memories) == -2


def test_what_is_not_flushed_stays_in_it_and_keeps_it(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    store(hot, keys, ["clean"])
    flush(hot, keys, ["clean"])
    store(hot, keys, ["waits"])
    server.set_clock(NOW + 1_000 * SECOND)
    store(hot, keys, ["other"])
    flush(hot, keys, ["other"])
    assert indexed(hot, keys) == {"waits", "other"}
    assert server.ttl(keys.memories) == -1
