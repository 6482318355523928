"""An offer of what PostgreSQL said is taken only while nothing newer can be known: a slow reader's interleavings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from banshee_memory import ConversationMessage, Emotion, EmotionalState
from banshee_memory.emotions import Felt, StoredState
from banshee_memory.hot import calls, flushing, leases, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.hot.leases import RESIDENT
from banshee_memory.records import Placed
from tests.hot.raw import Server, stored_state

ONE, TWO = b"token--1", b"token--2"
OLD = StoredState({Emotion.FEAR: Felt(1.0, 0)}, {Emotion.FEAR: 0.0}, 0, 1)
TTL = 10.0
MEMBER = "fact:x"


def feel(hot: HotStore, keys: AgentKeys) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 1.0}, {Emotion.JOY: 0.0})))


def be_flushed(hot: HotStore, keys: AgentKeys) -> None:
    """What a flush does to the agent's keys once all is committed."""
    shard = shard_keys(keys.shard)
    entries = hot.run(flushing.log_head(shard, 100, 1_000_000))
    settlement = flushing.Settlement()
    stored = stored_state(hot, keys)
    if stored is not None:
        settlement.state(keys, stored.stamp)
    settlement.history(keys.messages, 3)
    raw = hot.run(calls.memory_bytes(keys, MEMBER))
    if raw is not None:
        settlement.memory(keys, MEMBER, raw)
    assert hot.run(flushing.mark_clean(shard, entries, settlement, TTL, {}))


def leave(hot: HotStore, keys: AgentKeys) -> None:
    be_flushed(hot, keys)
    assert hot.run(calls.evict([keys.state, keys.messages, keys.memory(MEMBER), keys.memories]))[1] == 0


def come_back(hot: HotStore, keys: AgentKeys) -> None:
    """Another reader rehydrates the state, under a lease of its own."""
    token = hot.run(leases.lease(keys.state, "s", TWO, TTL))
    assert isinstance(token, bytes)
    assert hot.run(leases.offer_state(keys, token, TTL, OLD))


# --- states ---

CHANGED: dict[str, list[Callable[[HotStore, AgentKeys], None]]] = {
    "created": [feel],
    "created and flushed": [feel, be_flushed],
    "created, flushed and evicted": [feel, leave],
    "rehydrated by another": [come_back],
    "rehydrated, changed": [come_back, feel],
    "rehydrated, changed, flushed and evicted": [come_back, feel, leave],
}


@pytest.mark.parametrize("meanwhile", CHANGED)
def test_a_stale_state_is_refused(hot: HotStore, server: Server, keys: AgentKeys, meanwhile: str) -> None:
    assert hot.run(leases.lease(keys.state, "s", ONE, TTL)) == ONE
    for step in CHANGED[meanwhile]:
        step(hot, keys)
    before = server.content()
    stale = StoredState({Emotion.HATE: Felt(1.0, 0)}, {}, 0, 0)
    assert hot.run(leases.offer_state(keys, ONE, TTL, stale)) is False
    assert server.content() == before


def test_a_lease_ends_with_its_ttl(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    hot.run(leases.lease(keys.state, "s", ONE, TTL))
    assert 0 < server.ttl(keys.state) <= TTL * 1000
    server.command("DEL", keys.state)
    assert hot.run(leases.offer_state(keys, ONE, TTL, OLD)) is False


def test_two_readers_share_a_lease_and_one_offer_is_taken(hot: HotStore, keys: AgentKeys) -> None:
    for kind, key in (("s", keys.state), ("m", keys.memory(MEMBER))):
        assert hot.run(leases.lease(key, kind, ONE, TTL)) == ONE
        assert hot.run(leases.lease(key, kind, TWO, TTL)) == ONE
    assert hot.run(leases.offer_state(keys, ONE, TTL, OLD)) is True
    assert hot.run(leases.offer_state(keys, ONE, TTL, OLD)) is False
    assert hot.run(leases.lease(keys.state, "s", TWO, TTL)) is RESIDENT


def test_a_taken_offer_is_clean_and_a_lease_is_no_state(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    hot.run(leases.lease(keys.state, "s", ONE, TTL))
    assert hot.run(calls.load_state(keys)) is calls.MISS
    assert hot.run(calls.update_emotions(keys, {Emotion.JOY: 0.5}, "add")) is calls.MISS
    assert hot.run(leases.offer_state(keys, ONE, TTL, OLD))
    assert stored_state(hot, keys) == OLD
    assert 0 < server.ttl(keys.state) <= TTL * 1000


def test_a_known_absence_is_no_miss(hot: HotStore, keys: AgentKeys) -> None:
    hot.run(leases.lease(keys.state, "s", ONE, TTL))
    assert hot.run(leases.offer_state(keys, ONE, TTL, None))
    assert hot.run(calls.load_state(keys)) is None
    assert hot.run(leases.lease(keys.state, "s", TWO, TTL)) is RESIDENT


# --- memories ---


def store(hot: HotStore, keys: AgentKeys) -> None:
    body = wire.pack(wire.MemoryBody("new", 0.5))
    args = (keys.agent.bytes, MEMBER, "", body, "blind")
    Server(hot).fcall("store_memory", [keys.memory(MEMBER), keys.memories, keys.log], *args)


def delete(hot: HotStore, keys: AgentKeys) -> None:
    assert hot.run(calls.delete_memory(keys, "fact", "x")) is True


MEMORY_CHANGED: dict[str, list[Callable[[HotStore, AgentKeys], None]]] = {
    "stored": [store],
    "stored and flushed": [store, be_flushed],
    "stored, flushed and evicted": [store, leave],
    "stored and deleted": [store, delete],
    "stored, deleted, flushed and evicted": [store, delete, leave],
}


@pytest.mark.parametrize("meanwhile", MEMORY_CHANGED)
def test_a_stale_memory_is_refused(hot: HotStore, server: Server, keys: AgentKeys, meanwhile: str) -> None:
    assert hot.run(leases.lease(keys.memory(MEMBER), "m", ONE, TTL)) == ONE
    for step in MEMORY_CHANGED[meanwhile]:
        step(hot, keys)
    before = server.content()
    assert hot.run(leases.offer_memory(keys, MEMBER, ONE, TTL, None)) is False
    assert server.content() == before


def test_an_absent_memory_is_known_and_clean(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    hot.run(leases.lease(keys.memory(MEMBER), "m", ONE, TTL))
    assert hot.run(calls.get_memory(keys, "fact", "x")) is calls.MISS
    assert hot.run(leases.offer_memory(keys, MEMBER, ONE, TTL, None))
    assert hot.run(calls.get_memory(keys, "fact", "x")) is None
    assert 0 < server.ttl(keys.memory(MEMBER)) <= TTL * 1000
    assert hot.run(leases.lease(keys.memory(MEMBER), "m", TWO, TTL)) is RESIDENT


@pytest.mark.parametrize(("left", "expected"), [(2.0, 2.0), (3600.0, TTL)])
def test_a_rehydrated_memory_goes_when_it_expires_or_earlier(
    hot: HotStore, server: Server, keys: AgentKeys, left: float, expected: float
) -> None:
    now = 1_700_000_000_000_000
    server.set_clock(now)
    value = wire.pack(wire.MemoryBody("x", 0.5))
    head = wire._MEMORY.pack(b"P", 5, now + left * 1e6, 0, now, now, now)
    hot.run(leases.lease(keys.memory(MEMBER), "m", ONE, TTL))
    at = [keys.memory(MEMBER), keys.memories, keys.forgotten]
    offered = (ONE, int(TTL * 1000), MEMBER, head + value, keys.agent.bytes)
    assert server.fcall("offer_memory", at, *offered) == b"OK"
    assert expected * 1000 - 500 < server.ttl(keys.memory(MEMBER)) <= expected * 1000


def test_a_memory_that_expired_on_the_way_is_installed_as_absent(
    hot: HotStore, server: Server, keys: AgentKeys
) -> None:
    server.set_clock(1_700_000_000_000_000)
    head = wire._MEMORY.pack(b"P", 5, 1_700_000_000_000_000, 0, 0, 0, 0)
    hot.run(leases.lease(keys.memory(MEMBER), "m", ONE, TTL))
    at = [keys.memory(MEMBER), keys.memories, keys.forgotten]
    server.fcall("offer_memory", at, ONE, 1000, MEMBER, head + b"x", keys.agent.bytes)
    assert server.command("GET", keys.memory(MEMBER))[:1] == b"A"


# --- histories ---


def append(hot: HotStore, keys: AgentKeys, text: str = "new", at_us: int | None = None) -> None:
    body = wire.message_body(text.ljust(8).encode()[:8], "user", text, None, None, None, None)
    hot.run(calls.append_messages(keys, [(at_us, False, body)]))


def cold(keys: AgentKeys, count: int) -> list[bytes]:
    """Messages as PostgreSQL has them: of long ago, a millisecond apart."""
    elements = []
    for n in range(1, count + 1):
        at = datetime.fromtimestamp(n / 1000, UTC)
        record = ConversationMessage(
            id=UUID(int=n),
            agent_id=keys.agent,
            role="user",
            content=f"cold {n}",
            metadata=None,
            emotional_context=None,
            tokens_used=None,
            session_id=None,
            created_at=at,
        )
        elements.append(wire.message_element(Placed(n * 1000, n << 16, record)))
    return elements


def contents(hot: HotStore, keys: AgentKeys) -> list[str]:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    return [wire.message_of(keys.agent, element).record.content for element in elements]


def leased(hot: HotStore, keys: AgentKeys, token: bytes = ONE) -> wire.Header:
    hot.run(leases.lease(keys.messages, "h", token, TTL))
    header = hot.run(calls.whole_history(keys.messages)).header
    assert header is not None
    return header


def offer(hot: HotStore, keys: AgentKeys, header: wire.Header, elements: list[bytes]) -> bool:
    return hot.run(leases.offer_history(keys.messages, header, TTL, (0.0, 0), elements))


def test_a_list_that_is_not_there_is_begun_empty_for_a_while(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    header = leased(hot, keys)
    assert not header.covers(2.0**52, 0)
    assert 0 < server.ttl(keys.messages) <= TTL * 1000
    assert offer(hot, keys, header, cold(keys, 2))
    history = hot.run(calls.whole_history(keys.messages))
    assert history.header is not None
    assert history.header.covers(0.0, 0)
    assert contents(hot, keys) == ["cold 1", "cold 2"]
    assert 0 < server.ttl(keys.messages) <= TTL * 1000


def test_an_append_to_the_present_list_does_not_revoke_the_offer(
    hot: HotStore, server: Server, keys: AgentKeys
) -> None:
    header = leased(hot, keys)
    append(hot, keys, "new")
    append(hot, keys, "late", at_us=1500)
    assert offer(hot, keys, header, cold(keys, 3))
    assert contents(hot, keys) == ["cold 1", "late", "cold 2", "cold 3", "new"]
    assert server.ttl(keys.messages) == -1


def test_what_is_in_both_is_there_once(hot: HotStore, keys: AgentKeys) -> None:
    append(hot, keys, "first")
    header = leased(hot, keys)
    append(hot, keys, "second")
    ours = hot.run(calls.whole_history(keys.messages)).elements
    assert offer(hot, keys, header, [*cold(keys, 1), ours[0]])
    assert contents(hot, keys) == ["cold 1", "first", "second"]


def test_one_offer_revokes_the_other(hot: HotStore, keys: AgentKeys) -> None:
    header = leased(hot, keys)
    assert leased(hot, keys, TWO) == header
    assert offer(hot, keys, header, cold(keys, 2))
    assert not offer(hot, keys, header, cold(keys, 1))


def trim(hot: HotStore, keys: AgentKeys) -> None:
    for n in range(6):
        append(hot, keys, f"new {n}")
    be_flushed(hot, keys)


def recreate(hot: HotStore, keys: AgentKeys) -> None:
    """Redis evicts the list, an append begins a new one: what was flushed meanwhile is in neither."""
    append(hot, keys, "lost")
    leave(hot, keys)
    append(hot, keys, "new")


HISTORY_CHANGED: dict[str, Callable[[HotStore, AgentKeys], None]] = {
    "trimmed": trim,
    "flushed and evicted": lambda hot, keys: (append(hot, keys), leave(hot, keys))[1],  # type: ignore[func-returns-value]
    "evicted and recreated by an append": recreate,
    "evicted and leased again": lambda hot, keys: (append(hot, keys), leave(hot, keys), leased(hot, keys, TWO))[1],  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("meanwhile", HISTORY_CHANGED)
def test_a_stale_history_is_refused(hot: HotStore, server: Server, keys: AgentKeys, meanwhile: str) -> None:
    append(hot, keys, "before")
    header = leased(hot, keys)
    HISTORY_CHANGED[meanwhile](hot, keys)
    before = server.content()
    assert not offer(hot, keys, header, cold(keys, 2))
    assert server.content() == before


def test_an_empty_lease_that_redis_dropped_is_over(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    header = leased(hot, keys)
    server.command("DEL", keys.messages)
    append(hot, keys, "new")
    assert not offer(hot, keys, header, cold(keys, 2))
    assert contents(hot, keys) == ["new"]


def test_a_read_whose_list_changed_under_it_counts_as_no_list(hot: HotStore, keys: AgentKeys) -> None:
    """The header, the elements, the header again: if the list lost something in between, it vouches for nothing."""
    for n in range(6):
        append(hot, keys, f"new {n}")
    first, elements, _ = (hot.run(call) for call in calls.history_end(keys.messages, 2))
    be_flushed(hot, keys)
    _, _, last = (hot.run(call) for call in calls.history_end(keys.messages, 2))
    assert calls.end_of([first, elements, first]).header is not None
    assert calls.end_of([first, elements, last]).header is None
