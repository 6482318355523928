"""What is packed by hand is what the plans say, and what is not read back is what was read."""

from __future__ import annotations

import os
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from banshee_memory import stamps
from banshee_memory.emotions import Emotion
from banshee_memory.hot import calls, packed, wire
from banshee_memory.hot.keys import AgentKeys, agent_keys
from banshee_memory.records import StoredMemory, known
from banshee_memory.stamps import EPOCH, fresh_nonce, from_us, times_of

AGENT = UUID("b54df8d0-2c5c-4b7d-9f7e-0a8f54c1f4b3")
NOW = 1_763_000_000_123_456
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.fixture
def keys() -> AgentKeys:
    return agent_keys(AGENT, 64)


@given(st.dictionaries(st.sampled_from(Emotion), st.floats(-1, 1)), st.sampled_from(["add", "set"]))
def test_a_change_of_what_is_felt(changes: dict[Emotion, float], mode: str) -> None:
    keys = agent_keys(AGENT, 64)
    for _ in range(2):  # as packed now, and as it waits
        assert packed.update_emotions(keys, changes, mode).command == _text(calls.update_emotions(keys, changes, mode))


@given(st.binary(min_size=1), st.booleans())
def test_a_message(body: bytes, felt: bool) -> None:
    keys = agent_keys(AGENT, 64)
    for _ in range(2):
        mine = packed.append_message(keys, felt, body)
        assert mine.command == _text(calls.append_messages(keys, [(None, felt, body)]))


@given(st.sampled_from(["fact", "goal"]), TEXT, st.none() | st.floats(1e-6, 3e9), TEXT)
def test_a_memory(memory_type: str, key: str, ttl: float | None, data: str) -> None:
    keys = agent_keys(AGENT, 64)
    body = wire.MemoryBody(data, 0.5, ("a",))
    for _ in range(2):
        mine = packed.store_memory(keys, memory_type, key, body, wire.pack(body), ttl)
        assert mine.command == _text(calls.store_memory(keys, memory_type, key, wire.pack(body), ttl))


def _text(call: calls.Call[Any]) -> tuple[object, ...]:
    """Its words as they are read from what goes over the connection."""
    from banshee_memory.hot.replies import pack, words_of

    return words_of(pack(call.sent))


def test_no_more_waits_on_the_keys_of_an_agent_than_is_used_again(keys: AgentKeys) -> None:
    body = wire.MemoryBody(None, 0.5)
    for number in range(1_000):
        packed.store_memory(keys, "fact", f"river {number}", body, wire.pack(body), None)
        assert len(keys.packed) <= 100


@pytest.mark.parametrize(("accessed", "created"), [(0, 0), (-5, -5), (-3, -7), (0, -7)])
@pytest.mark.parametrize("expires", [0, 10**9])
def test_a_memory_that_was_just_stored(keys: AgentKeys, accessed: int, created: int, expires: int) -> None:
    body = wire.MemoryBody({"a": [1, 2.5, None]}, 0.75, ("x", "y"))
    times = [float(t) for t in (expires and NOW + expires, 3, NOW + accessed, NOW + created, NOW)]
    reply = b"P" + struct.pack(">Qddddd", 7, *times)
    mine = packed.store_memory(keys, "fact", "river", body, wire.pack(body), None).decode(reply)
    read = calls.store_memory(keys, "fact", "river", wire.pack(body), None).decode(reply)
    assert isinstance(read, StoredMemory)
    assert mine == known(read)


def test_a_reply_that_is_none_is_undecodable(keys: AgentKeys) -> None:
    with pytest.raises(wire.Undecodable):
        packed.store_memory(keys, "fact", "river", wire.MemoryBody(None, 0.5), b"", None).decode(b"P")


def test_no_nonce_comes_twice() -> None:
    nonces = [fresh_nonce() for _ in range(1_000)]
    assert len(set(nonces)) == 1_000
    assert {len(nonce) for nonce in nonces} == {8}


def test_a_forked_child_has_nonces_of_its_own() -> None:
    stamps._fresh_nonces.clear()
    fresh_nonce()
    ahead = set(stamps._fresh_nonces)
    assert ahead
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"".join(fresh_nonce() for _ in range(len(ahead))))
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reading, 8 * len(ahead))
    os.close(reading)
    os.close(writing)
    assert len(said) == 8 * len(ahead)
    assert ahead.isdisjoint(said[at : at + 8] for at in range(0, len(said), 8))


@given(st.integers(0, 2**53 - 1), st.sampled_from([0, 0.5]))
@example(2**32 * 1_000_000 - 1, 0)
@example(2**32 * 1_000_000, 0)
def test_a_moment_to_the_microsecond(us: int, part: float) -> None:
    assert from_us(us) == EPOCH + timedelta(microseconds=us)
    assert from_us(float(us)) == EPOCH + timedelta(microseconds=us)
    assert from_us(us // 2 + part) == EPOCH + timedelta(microseconds=us // 2)
    assert from_us(us).tzinfo is UTC
    assert times_of([us, 0, us]) == [from_us(us), EPOCH, from_us(us)]


def test_a_moment_before_all() -> None:
    assert from_us(-1.0) == datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
