"""Memories of a type come from Redis alone where all of them are resident, and are the right ones whatever went on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory.cold.reads import Query
from banshee_memory.hot import calls, wire
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import shard_keys
from banshee_memory.stamps import from_us
from banshee_memory.tiering.forgetting import Forgetting
from banshee_memory.tiering.steps import relayed
from tests.own_servers import CLOCK_KEY
from tests.tiers import Tiers, intruded, nothing

BEGAN = 1_800_000_000_000_000
SECOND = 1_000_000
MOST_STEPS = 40


@pytest.fixture(autouse=True)
def _clock(tiers: Tiers) -> Iterator[None]:
    set_clock(tiers, 0)
    yield
    tiers.hot.run(Call(("DEL", CLOCK_KEY), int))


def set_clock(tiers: Tiers, seconds: float) -> None:
    tiers.hot.run(Call(("SET", CLOCK_KEY, int(BEGAN + seconds * SECOND)), bytes))


@contextmanager
def asked(tiers: Tiers) -> Iterator[list[str]]:
    """The names of the queries to PostgreSQL while the block runs."""
    queries: list[str] = []

    def answer(step: Any) -> Any:
        if isinstance(step, Query):
            queries.append(step.name)
        return (yield step)

    before = tiers.between
    tiers.between = lambda steps: relayed(before(steps), answer)
    try:
        yield queries
    finally:
        tiers.between = before


def page(tiers: Tiers, agent: UUID, kind: str | None = "fact", limit: int = 50, offset: int = 0) -> list[Any]:
    return [memory.data for memory in tiers.memories.get_memories_by_type(agent, kind, limit, offset)]


def resident_page(tiers: Tiers, agent: UUID, kind: str | None = "fact", limit: int = 50, offset: int = 0) -> list[Any]:
    """A page that must come from Redis alone."""
    with asked(tiers) as queries:
        found = page(tiers, agent, kind, limit, offset)
    assert queries == []
    return found


def know(tiers: Tiers, agent: UUID, kind: str = "fact", many: int = 3) -> None:
    for n in range(many):
        tiers.memories.store_memory(agent, kind, f"k{n}", n, importance=0.75 - n / 16)


def know_many(tiers: Tiers, agent: UUID, many: int) -> None:
    keys, body = tiers.keys(agent), wire.pack(wire.MemoryBody("x", 0.5))
    tiers.hot.run_all([calls.store_memory(keys, "fact", f"{n}", body, None, how="blind") for n in range(many)])


def drop(tiers: Tiers, *keys: str) -> None:
    """What a Redis that is short of memory does by itself, to keys that have a TTL and no others."""
    assert tiers.hot.run(calls.evict(keys)) == (len(keys), 0)


# --- from Redis alone ---


@pytest.mark.parametrize("placement", ["hot", "flushed", "cold", "half"])
def test_the_second_look_asks_redis_alone(tiers: Tiers, agent: UUID, placement: str) -> None:
    know(tiers, agent)
    if placement in ("cold", "half"):
        tiers.evict(agent)
    elif placement == "flushed":
        tiers.flush(agent)
    if placement == "half":
        tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0)
    expected = [0, 1, 2, 9] if placement == "half" else [0, 1, 2]
    with asked(tiers) as queries:
        assert page(tiers, agent) == expected
    assert queries == ["memory_page"]
    assert resident_page(tiers, agent) == expected
    tiers.flush(agent)
    assert resident_page(tiers, agent) == expected


def test_another_client_profits(tiers: Tiers, intruder: Tiers, agent: UUID) -> None:
    know(tiers, agent)
    tiers.evict(agent)
    assert page(intruder, agent) == [0, 1, 2]
    assert resident_page(tiers, agent) == [0, 1, 2]


def test_it_is_paged_like_postgresql_pages(tiers: Tiers, agent: UUID) -> None:
    know(tiers, agent, many=8)
    tiers.evict(agent)
    cold = []
    for offset in range(0, 10, 3):
        cold.append(page(tiers, agent, limit=3, offset=offset))
        tiers.evict(agent)
    page(tiers, agent)
    assert [resident_page(tiers, agent, limit=3, offset=offset) for offset in range(0, 10, 3)] == cold


def test_that_there_is_none_is_known_too(tiers: Tiers, agent: UUID) -> None:
    for kind in ("fact", None):
        assert page(tiers, agent, kind) == []
        assert resident_page(tiers, agent, kind) == []
    tiers.memories.store_memory(agent, "fact", "x", 1)
    assert resident_page(tiers, agent) == [1]
    tiers.evict(agent)
    assert page(tiers, agent) == [1]


def test_all_types_include_each(tiers: Tiers, agent: UUID) -> None:
    know(tiers, agent, "fact")
    know(tiers, agent, "goal", 1)
    tiers.sessions.start_session(agent)
    tiers.evict(agent)
    assert page(tiers, agent, None) == [0, 0, 1, 2]
    assert resident_page(tiers, agent, None) == [0, 0, 1, 2]
    assert resident_page(tiers, agent, "fact") == [0, 1, 2]
    assert resident_page(tiers, agent, "goal") == [0]
    assert resident_page(tiers, agent, "skill") == []


def test_a_type_does_not_stand_for_another(tiers: Tiers, agent: UUID) -> None:
    know(tiers, agent, "fact")
    know(tiers, agent, "goal")
    tiers.evict(agent)
    assert page(tiers, agent, "fact") == [0, 1, 2]
    for kind, expected in (("goal", [0, 1, 2]), (None, [0, 0, 1, 1, 2, 2])):
        with asked(tiers) as queries:
            assert page(tiers, agent, kind) == expected
        assert len(queries) == 1


def test_what_is_rehydrated_is_all_there(tiers: Tiers, agent: UUID) -> None:
    know(tiers, agent)
    tiers.evict(agent)
    with asked(tiers) as queries:
        assert tiers.rehydrate(agent).memories == 3
    assert queries.count("memory_page_of_all_types") == 1
    assert "memory_of" not in queries
    assert resident_page(tiers, agent) == [0, 1, 2]
    assert resident_page(tiers, agent, None) == [0, 1, 2]
    assert tiers.rehydrate(agent).memories == 0


def test_rehydration_brings_the_worthiest_of_many(tiers: Tiers, agent: UUID) -> None:
    know_many(tiers, agent, 101)
    tiers.evict(agent)
    assert tiers.rehydrate(agent).memories == 100
    assert len(page(tiers, agent, limit=1_000)) == 101


def test_sessions_are_listed_alike(tiers: Tiers, agent: UUID) -> None:
    started = [tiers.sessions.start_session(agent).id for _ in range(3)]
    tiers.evict(agent)
    assert {session.id for session in tiers.sessions.get_sessions(agent)} == set(started)
    with asked(tiers) as queries:
        assert {session.id for session in tiers.sessions.get_sessions(agent)} == set(started)
    assert queries == []
    # That all types are known says nothing of those that are ours.
    tiers.evict(agent)
    assert page(tiers, agent, None) == []
    with asked(tiers) as queries:
        assert len(tiers.sessions.get_sessions(agent)) == 3
    assert queries == ["memory_page"]


def test_a_type_of_too_many_stays_where_it_is(tiers: Tiers, agent: UUID) -> None:
    know_many(tiers, agent, 1_001)
    tiers.evict(agent)
    assert len(page(tiers, agent, limit=2_000)) == 1_001
    assert tiers.hot.run(calls.memory_index(tiers.keys(agent))) == ([], frozenset())
    tiers.memories.delete_memory(agent, "fact", "0")
    tiers.evict(agent)
    assert len(page(tiers, agent, limit=2_000)) == 1_000
    assert len(resident_page(tiers, agent, limit=2_000)) == 1_000
    assert resident_page(tiers, agent, limit=1) == ["x"]


# --- what happens to memories of a type that is all there ---


@pytest.fixture
def whole(tiers: Tiers, agent: UUID) -> UUID:
    """An agent whose facts 0, 1 and 2 are in both tiers, and known to be all."""
    know(tiers, agent)
    tiers.evict(agent)
    assert page(tiers, agent) == [0, 1, 2]
    assert resident_page(tiers, agent) == [0, 1, 2]
    return agent


def test_what_is_written_is_seen(tiers: Tiers, intruder: Tiers, whole: UUID) -> None:
    intruder.memories.store_memory(whole, "fact", "k9", 9, importance=1.0)
    assert resident_page(tiers, whole) == [9, 0, 1, 2]
    intruder.memories.store_memory(whole, "fact", "k1", "one", importance=0.0)
    assert resident_page(tiers, whole) == [9, 0, 2, "one"]
    intruder.memories.delete_memory(whole, "fact", "k0")
    assert resident_page(tiers, whole) == [9, 2, "one"]
    intruder.flush(whole)
    assert resident_page(tiers, whole) == [9, 2, "one"]
    tiers.evict(whole)
    assert page(tiers, whole) == [9, 2, "one"]


def test_an_access_changes_the_order(tiers: Tiers, agent: UUID) -> None:
    for n in range(3):
        tiers.memories.store_memory(agent, "fact", f"k{n}", n, importance=0.5)
    tiers.evict(agent)
    page(tiers, agent)
    assert resident_page(tiers, agent) == [0, 1, 2]
    set_clock(tiers, 1)
    tiers.memories.retrieve_memory(agent, "fact", "k2")
    for move in (lambda: None, lambda: tiers.flush(agent)):
        move()
        assert resident_page(tiers, agent) == [2, 0, 1]
    tiers.evict(agent)
    found = tiers.memories.get_memories_by_type(agent, "fact")
    assert [(m.data, m.access_count, m.last_accessed) for m in found[:1]] == [(2, 1, from_us(BEGAN + SECOND))]


def test_a_foreign_client_writes_into_it(tiers: Tiers, whole: UUID) -> None:
    keys, body = tiers.keys(whole), wire.pack(wire.MemoryBody("foreign", 1.0))
    at = (keys.memory("fact:new"), keys.memories, keys.log)
    stored = ("FCALL", "banshee1_store_memory", 3, *at, whole.bytes, "fact:new", "", body, "blind")
    assert tiers.hot.run(Call(stored, bytes))
    assert resident_page(tiers, whole) == ["foreign", 0, 1, 2]
    gone = ("FCALL", "banshee1_delete_memory", 3, *at, whole.bytes, "fact:new")
    assert tiers.hot.run(Call(gone, int)) == 1
    assert resident_page(tiers, whole) == [0, 1, 2]


@pytest.mark.parametrize("flushed", [False, True], ids=["unflushed", "flushed"])
def test_one_that_expires_is_gone(tiers: Tiers, whole: UUID, flushed: bool) -> None:
    tiers.memories.store_memory(whole, "fact", "brief", "brief", 60, importance=1.0)
    if flushed:
        tiers.flush(whole)
    assert resident_page(tiers, whole) == ["brief", 0, 1, 2]
    set_clock(tiers, 60)
    assert resident_page(tiers, whole) == [0, 1, 2]
    tiers.flush(whole)
    assert page(tiers, whole) == [0, 1, 2]
    if flushed:
        drop(tiers, tiers.keys(whole).memory("fact:brief"))
        assert page(tiers, whole) == [0, 1, 2]
    assert resident_page(tiers, whole) == [0, 1, 2]
    tiers.evict(whole)
    assert page(tiers, whole) == [0, 1, 2]


def test_volatile_ones_are_listed_while_they_last(tiers: Tiers, agent: UUID) -> None:
    assert page(tiers, agent, "scratch") == []
    tiers.memories.store_memory(agent, "scratch", "a", 1, 60, importance=0.75)
    tiers.memories.store_memory(agent, "scratch", "b", 2, importance=0.5)
    assert resident_page(tiers, agent, "scratch") == [1, 2]
    set_clock(tiers, 60)
    assert resident_page(tiers, agent, "scratch") == [2]
    tiers.memories.delete_memory(agent, "scratch", "b")
    assert page(tiers, agent, "scratch") == []
    assert resident_page(tiers, agent, "scratch") == []
    tiers.memories.store_memory(agent, "scratch", "b", 3)
    tiers.evict(agent)
    assert page(tiers, agent, "scratch") == []


def test_a_volatile_one_that_hides_a_kept_one(tiers: Tiers, agent: UUID) -> None:
    """A type that became volatile: when what hid the old one goes, both tiers say the same again."""
    know(tiers, agent)
    tiers.evict(agent)
    assert page(tiers, agent) == [0, 1, 2]
    keys = tiers.keys(agent)
    drop(tiers, keys.memory("fact:k1"))
    tiers.hot.run(calls.store_memory(keys, "fact", "k1", wire.pack(wire.MemoryBody("new", 1.0)), 60, how="volatile"))
    assert page(tiers, agent) == ["new", 0, 2]
    tiers.memories.delete_memory(agent, "fact", "k1")
    hot = page(tiers, agent)
    tiers.evict(agent)
    assert hot == page(tiers, agent)


@pytest.mark.parametrize("gone", ["a value", "all values", "the index", "the index and a value"])
def test_what_redis_lets_go_by_itself_comes_back(tiers: Tiers, whole: UUID, gone: str) -> None:
    keys = tiers.keys(whole)
    values = [keys.memory(f"fact:k{n}") for n in range(3)]
    dropped = {"a value": values[1:2], "all values": values, "the index": [keys.memories]}
    drop(tiers, *dropped.get(gone, [keys.memories, values[1]]))
    with asked(tiers) as queries:
        assert page(tiers, whole) == [0, 1, 2]
    assert queries == ["memory_page"]
    assert resident_page(tiers, whole) == [0, 1, 2]


def test_a_deletion_that_redis_lets_go_is_looked_up_once(tiers: Tiers, whole: UUID) -> None:
    tiers.memories.delete_memory(whole, "fact", "k1")
    tiers.flush(whole)
    drop(tiers, tiers.keys(whole).memory("fact:k1"))
    assert page(tiers, whole) == [0, 2]
    assert resident_page(tiers, whole) == [0, 2]


def test_a_name_that_the_index_forgets_is_missed(tiers: Tiers, whole: UUID) -> None:
    """Redis let a value go at its time, and the flush of another memory has the index forget its name."""
    hour = tiers.settings.hot_ttl
    set_clock(tiers, hour / 2)
    tiers.memories.retrieve_memory(whole, "fact", "k0")
    tiers.memories.retrieve_memory(whole, "fact", "k2")
    tiers.flush(whole)
    set_clock(tiers, hour + 2)
    keys = tiers.keys(whole)
    drop(tiers, keys.memory("fact:k1"))
    tiers.memories.store_memory(whole, "fact", "k9", 9, importance=0.0)
    tiers.flush(whole)
    assert "fact:k1" not in tiers.hot.run(calls.resident_members(keys))
    assert page(tiers, whole) == [0, 1, 2, 9]
    assert resident_page(tiers, whole) == [0, 1, 2, 9]


def test_a_look_keeps_all_of_them_for_as_long(tiers: Tiers, agent: UUID) -> None:
    """Or a type whose memories came one after the other would have to be asked for as often as one of them goes."""
    keys, hour = tiers.keys(agent), tiers.settings.hot_ttl
    for n in range(3):
        set_clock(tiers, n * hour / 4)
        tiers.memories.store_memory(agent, "fact", f"k{n}", n, 2 * hour if n == 1 else None)
        tiers.flush(agent)
    tiers.memories.store_memory(agent, "fact", "k3", 3, hour / 4)
    tiers.flush(agent)
    for name in ("fact:k0", "fact:k3"):
        tiers.hot.run(Call(("PEXPIRE", keys.memory(name), 10_000), int))
    page(tiers, agent)
    scores = tiers.hot.run(Call(("ZRANGE", keys.memories, 0, -1, "WITHSCORES"), list))
    until = {bytes(name): float(score) for name, score in zip(scores[::2], scores[1::2], strict=True)}
    now = BEGAN / 1_000 + hour / 2 * 1_000
    assert until == {
        b"*fact": -(now + hour * 1_000),
        **{f"fact:k{n}".encode(): now + hour * 1_000 for n in range(3)},
        b"fact:k3": now + hour / 4 * 1_000,
    }
    assert hour * 225 < tiers.hot.run(Call(("PTTL", keys.memory("fact:k3")), int)) <= hour * 250
    for key in (keys.memories, keys.memory("fact:k0"), keys.memory("fact:k1")):
        assert hour * 900 < tiers.hot.run(Call(("PTTL", key), int)) <= hour * 1_000


def test_a_look_lets_nothing_go_that_is_not_flushed(tiers: Tiers, agent: UUID) -> None:
    know(tiers, agent)
    tiers.evict(agent)
    tiers.memories.store_memory(agent, "fact", "k1", "one")
    tiers.memories.store_memory(agent, "fact", "k9", 9)
    page(tiers, agent)
    keys = tiers.keys(agent)
    for key in (keys.memories, keys.memory("fact:k1"), keys.memory("fact:k9")):
        assert tiers.hot.run(Call(("PTTL", key), int)) == -1
    for member in ("fact:k1", "fact:k9"):
        assert tiers.hot.run(Call(("ZSCORE", keys.memories, member), float)) == float("inf")


def test_an_index_that_names_nothing_goes_too(tiers: Tiers, agent: UUID) -> None:
    keys, ttl = tiers.keys(agent), tiers.settings.hot_ttl * 1_000
    page(tiers, agent)
    assert 0 < tiers.hot.run(Call(("PTTL", keys.memories), int)) <= ttl
    tiers.memories.store_memory(agent, "goal", "x", 1, 60)
    assert tiers.hot.run(Call(("PTTL", keys.memories), int)) == -1
    set_clock(tiers, 61)
    tiers.flush(agent)
    assert tiers.hot.run(calls.memory_index(keys)) == ([], frozenset({"fact"}))
    assert 0 < tiers.hot.run(Call(("PTTL", keys.memories), int)) <= ttl


def test_eviction_takes_what_is_said_of_types(tiers: Tiers, whole: UUID) -> None:
    """Also where the index itself stays: after it, only what is not in PostgreSQL is relied on."""
    keys = tiers.keys(whole)
    tiers.memories.store_memory(whole, "fact", "k9", 9, importance=0.0)
    tiers.drop(whole)
    assert tiers.hot.run(calls.memory_index(keys)).whole == frozenset()
    assert page(tiers, whole) == [0, 1, 2, 9]


def forget(tiers: Tiers, agent: UUID) -> None:
    Forgetting(tiers.settings, tiers.hot, tiers.cold).forget(agent)


def test_nothing_is_said_of_a_forgotten_agent(tiers: Tiers, whole: UUID) -> None:
    forget(tiers, whole)
    assert tiers.hot.run(Call(("EXISTS", tiers.keys(whole).memories), int)) == 0
    assert page(tiers, whole) == []
    assert resident_page(tiers, whole) == []
    forget(tiers, whole)
    tiers.memories.store_memory(whole, "fact", "k0", "anew")
    assert page(tiers, whole) == ["anew"]
    tiers.evict(whole)
    assert page(tiers, whole) == ["anew"]


def test_what_a_dropped_letter_leaves_is_looked_up(tiers: Tiers, whole: UUID) -> None:
    """A value that could not be flushed goes; what PostgreSQL has of that memory is older, and is there again."""
    keys = tiers.keys(whole)
    at = (keys.memory("fact:k1"), keys.memories, keys.log)
    broken = ("FCALL", "banshee1_store_memory", 3, *at, whole.bytes, "fact:k1", "", b"\xc1", "blind")
    tiers.hot.run(Call(broken, bytes))
    assert tiers.flush(whole).poisoned == 1
    dead = shard_keys(keys.shard).dead
    letter = tiers.hot.run(Call(("XREVRANGE", dead, "+", "-", "COUNT", 1), lambda reply: bytes(reply[0][0])))
    dropped = ("FCALL", "banshee1_drop_letter", 3, dead, *at[:2], letter)
    assert tiers.hot.run(Call(dropped, int)) == 1
    assert page(tiers, whole) == [0, 1, 2]
    assert resident_page(tiers, whole) == [0, 1, 2]


# --- in between ---


def _all_gone(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0)
    tiers.evict(agent)


def _value_gone(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0)
    tiers.flush(agent)
    drop(tiers, tiers.keys(agent).memory("fact:k9"))


def _index_gone(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0)
    tiers.flush(agent)
    drop(tiers, tiers.keys(agent).memories)


def _both_gone(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0)
    tiers.flush(agent)
    drop(tiers, tiers.keys(agent).memories, tiers.keys(agent).memory("fact:k9"))
    tiers.memories.store_memory(agent, "goal", "x", 1)


def _both_gone_and_another_looks(tiers: Tiers, agent: UUID) -> None:
    _both_gone(tiers, agent)
    page(tiers, agent)
    tiers.memories.store_memory(agent, "fact", "k8", 8, importance=0.0)
    tiers.evict(agent)
    tiers.memories.store_memory(agent, "goal", "x", 2)


def _deleted(tiers: Tiers, agent: UUID) -> None:
    tiers.memories.delete_memory(agent, "fact", "k0")


def _deleted_and_gone(tiers: Tiers, agent: UUID) -> None:
    _deleted(tiers, agent)
    tiers.evict(agent)


def _deleted_and_value_gone(tiers: Tiers, agent: UUID) -> None:
    _deleted(tiers, agent)
    tiers.flush(agent)
    drop(tiers, tiers.keys(agent).memory("fact:k0"))


def _replaced_by_one_that_is_over(tiers: Tiers, agent: UUID) -> None:
    """Its name leaves the index with the flush, and what PostgreSQL said of it before is not true any more."""
    tiers.memories.store_memory(agent, "fact", "k0", "brief", 1)
    set_clock(tiers, 2)
    tiers.flush(agent)


def _replaced_and_forgotten(tiers: Tiers, agent: UUID) -> None:
    """So long ago that the index forgot it, as the flush of another tells."""
    tiers.memories.store_memory(agent, "fact", "k0", "late", importance=0.875)
    tiers.flush(agent)
    set_clock(tiers, tiers.settings.hot_ttl + 2)
    drop(tiers, tiers.keys(agent).memory("fact:k0"))
    tiers.memories.store_memory(agent, "goal", "x", 1)
    tiers.flush(agent)


def _volatile(tiers: Tiers, agent: UUID) -> None:
    keys, body = tiers.keys(agent), wire.pack(wire.MemoryBody("volatile", 1.0))
    tiers.hot.run(calls.store_memory(keys, "fact", "v", body, 60, how="volatile"))


def _volatile_and_deleted(tiers: Tiers, agent: UUID) -> None:
    _volatile(tiers, agent)
    tiers.memories.delete_memory(agent, "fact", "v")


def _forgotten_and_anew(tiers: Tiers, agent: UUID) -> None:
    forget(tiers, agent)
    tiers.memories.store_memory(agent, "fact", "k1", "anew")


INTRUSIONS: dict[str, tuple[Callable[[Tiers, UUID], object], list[Any]]] = {
    "nothing": (lambda tiers, agent: None, [0, 1, 2]),
    "a flush": (lambda tiers, agent: tiers.flush(agent), [0, 1, 2]),
    "an eviction": (lambda tiers, agent: tiers.evict(agent), [0, 1, 2]),
    "eviction by Redis": (lambda tiers, agent: tiers.drop(agent), [0, 1, 2]),
    "another look": (page, [0, 1, 2]),
    "another look, then eviction": (lambda tiers, agent: (page(tiers, agent), tiers.evict(agent)), [0, 1, 2]),
    "a look at all, then eviction": (lambda tiers, agent: (page(tiers, agent, None), tiers.evict(agent)), [0, 1, 2]),
    "a store": (lambda tiers, agent: tiers.memories.store_memory(agent, "fact", "k9", 9, importance=0.0), [0, 1, 2, 9]),
    "a store that is evicted": (_all_gone, [0, 1, 2, 9]),
    "a store whose value goes": (_value_gone, [0, 1, 2, 9]),
    "a store whose name goes": (_index_gone, [0, 1, 2, 9]),
    "a store that goes, an index that comes": (_both_gone, [0, 1, 2, 9]),
    "stores that go around another look": (_both_gone_and_another_looks, [0, 1, 2, 8, 9]),
    "a deletion": (_deleted, [1, 2]),
    "a deletion that is evicted": (_deleted_and_gone, [1, 2]),
    "a deletion whose value goes": (_deleted_and_value_gone, [1, 2]),
    "a replacement that expires": (_replaced_by_one_that_is_over, [1, 2]),
    "a replacement that is forgotten": (_replaced_and_forgotten, ["late", 1, 2]),
    "forgetting": (forget, []),
    "forgetting, and another life": (_forgotten_and_anew, ["anew"]),
    "an access": (lambda tiers, agent: tiers.memories.retrieve_memory(agent, "fact", "k1"), [0, 1, 2]),
    "a volatile one": (_volatile, ["volatile", 0, 1, 2]),
    "a volatile one that is deleted": (_volatile_and_deleted, [0, 1, 2]),
}


def _rehydrated(tiers: Tiers, agent: UUID) -> None:
    tiers.rehydrate(agent)


LOOKS: dict[str, Callable[[Tiers, UUID], object]] = {
    "a type": page,
    "all types": lambda tiers, agent: page(tiers, agent, None),
    "rehydrate": _rehydrated,
}


# One at least that each rule needs, by which a lease ends or is refused.
_TELLING = {
    ("a type", "cold", "a store that is evicted"),
    ("a type", "cold", "a store that goes, an index that comes"),
    ("a type", "cold", "a replacement that expires"),
    ("a type", "cold", "a replacement that is forgotten"),
    ("a type", "cold", "a deletion whose value goes"),
    ("a type", "half", "a store whose value goes"),
    ("a type", "half", "an eviction"),
    ("a type", "whole", "a replacement that is forgotten"),
    ("all types", "cold", "a replacement that expires"),
    ("a type", "cold", "forgetting, and another life"),
    ("rehydrate", "cold", "stores that go around another look"),
}
CASES = [
    pytest.param(*case, marks=() if case in _TELLING else pytest.mark.soak)
    for case in product(LOOKS, ("cold", "half", "whole"), INTRUSIONS)
]


@pytest.mark.parametrize(("look", "placement", "name"), CASES)
def test_whatever_comes_between_is_seen_afterwards(
    tiers: Tiers, intruder: Tiers, look: str, placement: str, name: str
) -> None:
    """Before each call of a look something else happens; every later look, and PostgreSQL, say what that made of it."""
    intrude, expected = INTRUSIONS[name]
    for at in range(MOST_STEPS):
        set_clock(tiers, 0)
        agent = _agent_in(tiers, placement)
        happened: list[int] = []

        def act(agent: UUID = agent, happened: list[int] = happened) -> None:
            happened.append(1)
            intrude(intruder, agent)

        tiers.between = lambda steps, at=at, act=act: intruded(steps, at, act)  # type: ignore[misc]
        try:
            LOOKS[look](tiers, agent)
        finally:
            tiers.between = nothing
        if not happened:
            break
        for _ in range(3):
            assert page(tiers, agent) == expected, f"{name} before call {at}"
        hot = tiers.memories.get_memories_by_type(agent, "fact")
        if "volatile" not in name:
            tiers.evict(agent)
            assert tiers.memories.get_memories_by_type(agent, "fact") == hot, f"{name} before call {at}, then evicted"
    assert 0 < at < MOST_STEPS - 1


def _agent_in(tiers: Tiers, placement: str) -> UUID:
    agent = uuid4()
    know(tiers, agent)
    tiers.evict(agent)
    if placement == "half":
        tiers.memories.store_memory(agent, "fact", "k1", 1, importance=0.6875)
    elif placement == "whole":
        page(tiers, agent)
        page(tiers, agent, None)
    return agent
