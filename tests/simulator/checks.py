"""What must hold at every moment, and what must hold when all is healed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from banshee_memory.cold import reads
from banshee_memory.hot import calls, wire
from banshee_memory.hot.keys import agent_keys, member_of, shard_keys
from banshee_memory.records import MemoryRecord, known
from banshee_memory.stamps import to_us
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.steps import drive
from tests.simulator.deeds import ALL, Deed, compare_events, compare_memories, compare_messages, compare_state
from tests.simulator.life import Life, number_of
from tests.simulator.retention import settle, take_down
from tests.simulator.sessions import compare_sessions
from tests.simulator.trends import compare_trends
from tests.simulator.upkeep import maintain

if TYPE_CHECKING:
    from tests.simulator.world import World


def assert_clean_is_cold(world: World) -> None:
    """A key has a TTL only if all of it is in PostgreSQL."""
    with world.quiet():
        for life in world.everyone:
            _CleanKeys(world, life).check()


class _CleanKeys:
    """What one agent has in Redis with a TTL, beside what PostgreSQL has."""

    def __init__(self, world: World, life: Life) -> None:
        self._redis = world.servers.redis.client
        self._life = life
        # What was over once, by a clock that stepped back since, need not be named.
        self._now = world.latest
        self._cold = world.cold
        self._keys = agent_keys(life.id, world.settings.shards)

    def check(self) -> None:
        self._check_state()
        messages, events = reads.message_page(self._keys.agent, ALL), reads.event_page(self._keys.agent, ALL)
        self._check_list(self._keys.messages, wire.message_of, messages)
        self._check_list(self._keys.events, lambda agent, element: wire.event_of(agent, element).placed, events)
        self._check_memories()
        self._check_index()

    def _is_clean(self, key: str) -> bool:
        return bool(self._redis.pttl(key) >= 0)

    def _check_state(self) -> None:
        flat = [word for pair in self._redis.hgetall(self._keys.state).items() for word in pair]
        ours = wire.state_of(flat) if flat and self._is_clean(self._keys.state) else None
        if ours is not None:
            theirs = self._cold.fetch(reads.state_of(self._keys.agent))
            assert theirs is not None, "a state has a TTL and is nowhere else"
            assert theirs.stamp >= ours.stamp, "a state has a TTL and is newer than PostgreSQL's"

    def _check_list(self, key: str, decode: Any, query: Any) -> None:
        elements = self._redis.lrange(key, 1, -1)
        if elements and self._is_clean(key):
            cold = {placed.record.id: placed.record for placed in self._cold.fetch(query).placed}
            for element in elements:
                ours = decode(self._keys.agent, element).record
                if ours.id not in cold and self._life.may_be_dropped(ours):
                    continue
                assert ours.id in cold, f"{key} has a TTL, and what it holds is nowhere else"
                if hasattr(ours, "emotional_context"):
                    theirs = cold[ours.id].emotional_context
                    assert ours.emotional_context == theirs, f"{key} has a TTL and an amendment is nowhere else"

    def _check_memories(self) -> None:
        for member, score in self._redis.zrangebyscore(self._keys.memories, 0, "+inf", withscores=True):
            key = self._keys.memory(member.decode())
            value = self._redis.get(key)
            if score == float("inf"):
                assert not self._is_clean(self._keys.memories), "an index has a TTL and names what is nowhere else"
            if value is not None and value[:1] in b"PA" and self._is_clean(key):
                self._check_memory(key, member.decode(), value)

    def _check_index(self) -> None:
        index = calls.memory_index(self._keys).decode(self._redis.zrange(self._keys.memories, 0, -1))
        for kind in index.whole:
            for stored in self._cold.fetch(reads.memory_page(self._keys.agent, kind or None, self._now, ALL)):
                record = known(stored)
                name = member_of(record.memory_type, record.key)
                if not self._life.is_certain((record.memory_type, record.key)):
                    continue  # it was over, and by a clock that stepped back it is not
                assert name in index.members, f"an index says that it names every {kind or 'memory'}, but not {name}"

    def _check_memory(self, key: str, member: str, value: bytes) -> None:
        ours = wire.memory_of(self._keys.agent, member, value)
        memory_type, _, name = member.partition(":")
        theirs = self._cold.fetch(reads.memory_of(self._keys.agent, memory_type, name, 0))
        if theirs is None and (ours.record is None or self._is_over(ours.record)):
            return  # PostgreSQL knows for a week what is gone; then there is nothing in either
        assert ours.stamp == 0 or (theirs is not None and theirs.stamp >= ours.stamp), f"{key} has a TTL too early"
        if ours.record is not None and theirs is not None and theirs.record is not None:
            counts = ours.record.access_count, theirs.record.access_count
            assert theirs.stamp > ours.stamp or counts[0] <= counts[1], f"{key} has a TTL, its accesses are not cold"

    def _is_over(self, record: MemoryRecord) -> bool:
        return record.expires_at is not None and to_us(record.expires_at) <= self._now


def assert_healed(world: World) -> None:
    """Everything is as the model says: as it lies, flushed, only in PostgreSQL after an upkeep, and back in Redis."""
    _compare_all(world, "as it lies")
    assert_clean_is_cold(world)
    Drain(msgspec.structs.replace(world.settings, flush_timeout=30.0), world.hot, world.cold).flush()
    _assert_nothing_waits(world)
    assert_clean_is_cold(world)
    take_down(world, all_of_it=True)
    _compare_all(world, "flushed")
    maintain(world)
    settle(world)
    for life in world.everyone:
        evicted = _run(world, world.deeds.evict(life))
        assert evicted.kept == 0, f"{life.label} keeps {evicted.kept} keys in Redis with nothing unflushed"
    _compare_all(world, "cold")
    for life in world.everyone:
        _run(world, world.deeds.rehydrate(life))
    _compare_all(world, "rehydrated")
    assert_clean_is_cold(world)


def _assert_nothing_waits(world: World) -> None:
    client = world.servers.redis.client
    for shard in range(world.settings.shards):
        keys = shard_keys(shard)
        assert client.xlen(keys.log) == 0, "the log keeps what was flushed"
        assert client.scard(keys.accesses) == 0, "accesses wait for ever"
        assert client.xlen(keys.dead) == 0, "there is a dead letter"


def _run(world: World, deed: Deed) -> Any:
    return drive(deed.start().steps, world.hot, world.cold)


def _compare_all(world: World, where: str) -> None:
    for life in world.lives:
        try:
            _compare(world, life, where)
        except AssertionError as exc:
            raise AssertionError(f"{life.label}, {where}: {exc}") from exc
    world.thorns.compare(world, where)


def _compare(world: World, life: Life, where: str) -> None:
    compare_state(world.ask(lambda o: o.load_state(life.id)), life, world.now)
    messages = world.ask(lambda o: o.get_history(life.id, ALL, None))
    events = world.ask(lambda o: o.get_event_history(life.id, ALL))
    said, happened = life.history({m.content for m in messages}), life.event_history(set(map(number_of, events)))
    if where in ("cold", "rehydrated"):  # what the upkeep left is all there
        said, happened = life.model.history(), life.model.event_history()
    compare_messages(messages, said)
    compare_events(events, happened[::-1])
    found = world.ask(lambda o: o.search_messages(life.id, "word", ALL))
    if where not in ("cold", "rehydrated"):  # of what is beyond retention Redis may have let go before PostgreSQL
        said = life.history({m.content for m in found})
    assert sorted(m.id for m in found) == sorted(m.id for m in said)
    stats = world.ask(lambda o: o.get_conversation_stats(life.id))
    assert stats.total_messages in life.totals(life.messages_ever()), "the totals are not exact"
    assert stats.total_tokens == 2 * stats.total_messages
    if where != "as it lies":
        assert {m.content for m in messages} <= life.carried, "what was never cold is there after a flush"
        assert set(map(number_of, events)) <= life.carried_events.keys()
        assert stats.total_messages == len(life.carried), "the totals do not count what was cold, or count it twice"
        compare_trends(world, life)
    compare_memories(world.ask(lambda o: o.get_memories_by_type(life.id, None, ALL, 0)), life, world.now)
    compare_sessions(world, life)
