"""What is kept to answer a repeated call is small, whatever the call brought."""

from __future__ import annotations

from banshee_memory import CustomEvent, Emotion, EmotionalState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.stamps import from_us
from tests.hot.raw import Server

LARGE = 100_000
SMALL = 500


def kept(server: Server, keys: AgentKeys) -> int:
    """The bytes that the only key of the shard takes."""
    (size,) = [len(value) for value in server.command("HVALS", shard_keys(keys.shard).idem)]
    return int(size)


def test_a_large_memory_is_answered_from_little(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    body = wire.pack(wire.MemoryBody("x" * LARGE, 0.5, ("tag",)))
    call = calls.store_memory(keys, "fact", "large", body, 60.0, how="blind", once="once")
    first = hot.run(call)
    assert first
    assert kept(server, keys) < SMALL
    logged = server.command("XLEN", keys.log)
    assert hot.run(call) == first
    assert server.command("XLEN", keys.log) == logged


def test_a_large_event_is_answered_from_little(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5}, {}, from_us(1_700_000_000_000_000))))
    body = wire.pack(wire.EventBody(b"abcdefgh", CustomEvent(event_type="long"), {"notes": "x" * LARGE}))
    call = calls.save_event(keys, body, {Emotion.HOPE: 0.25}, "add", None, "once")
    first = hot.run(call)
    assert kept(server, keys) < SMALL
    assert hot.run(call) == first
    assert server.command("LLEN", keys.events) == 2
