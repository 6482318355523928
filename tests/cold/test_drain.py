"""A flush transaction: exactly once, the newest value, the bad row alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.drain import Drain, EventRow, MemoryRow, MessageRow, StateRow, Written
from banshee_memory.emotions import Emotion, Felt, StoredState
from banshee_memory.errors import ColdStoreUnavailable, IncompatibleSchema
from banshee_memory.records import ConversationStats, StoredMemory
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us
from tests.cold.making import (
    NOON_US,
    Row,
    batch_of,
    event,
    memory,
    memory_row,
    message,
    stamp,
    state,
    tombstone,
    write,
)
from tests.own_servers import throw_out


def test_writing_again_changes_and_counts_nothing(store: ColdStore, agent: UUID) -> None:
    rows: list[Row] = [
        *(message(agent, n, tokens_used=n) for n in range(6)),
        *(EventRow.of(event(agent, n), {Emotion.JOY: 0.5}) for n in range(4)),
        StateRow.of(agent, state(3)),
        memory_row(agent, memory(agent, 2)),
    ]
    assert write(store, *rows) == Written(6, 4, 1, 1, 0, ())
    before = store.fetch(reads.totals_of(agent))
    assert write(store, *rows) == Written(0, 0, 0, 0, 12, ())
    assert write(store, *rows, message(agent, 6)) == Written(1, 0, 0, 0, 12, ())

    assert before == reads.Totals(
        stamp(5),
        ConversationStats(
            total_messages=6,
            user_messages=6,
            assistant_messages=0,
            by_role={"user": 6, "assistant": 0, "system": 0, "function": 0, "tool": 0},
            total_tokens=15,
            first_message=from_us(NOON_US),
            last_message=from_us(NOON_US + 5 * 1_000_003),
        ),
        4,
    )
    after = store.fetch(reads.totals_of(agent))
    assert (after.flushed_stamp, after.stats.total_messages, after.total_events) == (stamp(6), 7, 4)


def test_totals_are_by_role_and_agent(store: ColdStore, agent: UUID) -> None:
    other = uuid4()
    roles = ["user", "assistant", "system", "function", "tool", "tool"]
    write(store, *(message(agent, n, role=role, tokens_used=2**40) for n, role in enumerate(roles)), message(other, 9))
    write(store, message(agent, 20, role="assistant"), message(agent, -20))

    totals = store.fetch(reads.totals_of(agent))
    assert totals.stats.by_role == {"user": 2, "assistant": 2, "system": 1, "function": 1, "tool": 2}
    assert (totals.stats.user_messages, totals.stats.assistant_messages, totals.stats.total_messages) == (2, 2, 8)
    assert totals.stats.total_tokens == 6 * 2**40
    assert totals.stats.first_message == from_us(NOON_US - 20 * 1_000_003)
    assert totals.stats.last_message == from_us(NOON_US + 20 * 1_000_003)
    assert store.fetch(reads.totals_of(other)).stats.total_messages == 1
    unknown = store.fetch(reads.totals_of(uuid4()))
    assert (unknown.flushed_stamp, unknown.stats.total_messages, unknown.stats.first_message) == (0, 0, None)


def test_the_flushed_stamp_covers_what_is_counted(store: ColdStore) -> None:
    """A value may be newer than the messages that its flush carried; they would be missing from the totals."""
    agent = uuid4()
    write(store, StateRow.of(agent, state(9)), memory_row(agent, memory(agent, 9)), tombstone(agent, 9, key="x"))
    assert store.fetch(reads.agent_known(agent))
    assert store.fetch(reads.totals_of(agent)).flushed_stamp == 0
    write(store, message(agent, 5), StateRow.of(agent, state(10)))
    assert store.fetch(reads.totals_of(agent)).flushed_stamp == stamp(5)
    write(store, EventRow.of(event(agent, 7), {}))
    write(store, message(agent, 2))
    assert store.fetch(reads.totals_of(agent)).flushed_stamp == stamp(7)


def test_a_state_gives_way_to_newer_ones_only(store: ColdStore, agent: UUID) -> None:
    assert write(store, StateRow.of(agent, state(5))).states == 1
    assert write(store, StateRow.of(agent, state(5))) == Written(duplicates=1)
    # The second has the same stamp from another server.
    for lost in (StateRow.of(agent, state(4, joy=0.9)), StateRow.of(agent, state(5, joy=0.9))):
        assert write(store, lost) == Written(superseded=(lost,))
    assert store.fetch(reads.state_of(agent)) == state(5)
    # Several in one batch: the newest of them.
    newest = state(9, anger=0.7)
    first, _, third = rows = [StateRow.of(agent, s) for s in (state(8), newest, state(7))]
    assert write(store, *rows) == Written(states=1, superseded=(first, third))
    assert store.fetch(reads.state_of(agent)) == newest


def test_a_memory_gives_way_to_newer_ones_only(store: ColdStore, agent: UUID) -> None:
    def now() -> StoredMemory | None:
        return store.fetch(reads.memory_of(agent, "fact", "colour", NOON_US))

    first = memory(agent, 5, data="first", access_count=3)
    write(store, memory_row(agent, first))
    assert write(store, memory_row(agent, first)) == Written(duplicates=1)
    for lost in (memory(agent, 4, data="older", access_count=9), memory(agent, 5, data="another's", access_count=3)):
        assert write(store, memory_row(agent, lost)) == Written(superseded=(memory_row(agent, lost),))
    assert now() == first

    # The same replacement, read more often since: only its accesses move.
    accessed = memory(agent, 5, data="ignored", access_count=4, last_accessed=from_us(NOON_US + 99), importance=0.1)
    assert write(store, memory_row(agent, accessed)).memories == 1
    assert now() == memory(agent, 5, data="first", access_count=4, last_accessed=from_us(NOON_US + 99))
    fewer = memory_row(agent, memory(agent, 5, data="first", access_count=3))
    assert write(store, fewer) == Written(superseded=(fewer,))

    newest = memory(agent, 7, data="newest")
    older = memory_row(agent, memory(agent, 6, access_count=50))
    assert write(store, memory_row(agent, newest), older) == Written(memories=1, superseded=(older,))
    assert now() == newest


def test_a_tombstone_keeps_what_is_older_out(store: ColdStore, agent: UUID) -> None:
    write(store, memory_row(agent, memory(agent, 5)), tombstone(agent, 6))
    write(store, memory_row(agent, memory(agent, 5, access_count=9)))
    write(store, memory_row(agent, memory(agent, 6, access_count=9)))
    dead = store.fetch(reads.memory_of(agent, "fact", "colour", NOON_US))
    assert dead == StoredMemory(stamp(6), None)
    with store.connection() as connection:
        rows = connection.execute("SELECT data, deleted FROM memory_records WHERE agent_id = %s", [agent]).fetchall()
    assert rows == [(None, True)]

    again = memory(agent, 7, data=None)
    write(store, memory_row(agent, again))
    assert store.fetch(reads.memory_of(agent, "fact", "colour", NOON_US)) == again


def test_what_fails_in_the_block_is_rolled_back(store: ColdStore, agent: UUID) -> None:
    def fail_after_writing() -> None:
        with store.drain([1]) as drain:
            drain.write(batch_of(message(agent)))
            drain.advance({1: 77})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_writing()
    assert not store.fetch(reads.agent_known(agent))
    with store.drain([1]) as drain:
        assert drain.held == {1: 0}


def test_shards_advance_and_never_go_back(store: ColdStore) -> None:
    with store.drain([6, 7, 99]) as drain:
        assert drain.held == {6: 0, 7: 0}
        drain.advance({6: stamp(9), 7: 3})
        drain.advance({7: 2})
        drain.advance({})
    with store.drain([7, 6]) as drain:
        assert drain.held == {6: stamp(9), 7: 3}


def test_a_value_that_is_newer_than_what_its_shard_was_flushed_to_counts_as_used(store: ColdStore) -> None:
    """Stamps of another server have to lie after it: what got one below would lose against it."""
    with store.drain([4, 5]) as drain:
        drain.advance({4: 3}, {4: 8, 5: 6})
        drain.advance({4: 4}, {4: 7})
        assert (drain.stamps()[4], drain.stamps()[5]) == (8, 6)
    with store.drain([4, 5]) as drain:
        assert drain.held == {4: 4, 5: 0}


def test_a_second_drain_skips_or_waits_for_what_the_first_holds(store: ColdStore, agent: UUID) -> None:
    with store.drain([2, 3]) as first:
        first.write(batch_of(message(agent)))
        with store.drain(range(8)) as second:
            assert sorted(second.held) == [0, 1, 4, 5, 6, 7]
            second.write(batch_of(message(uuid4())))
        with pytest.raises(ColdStoreUnavailable, match="another flush"), store.drain([3, 4], wait=0.01):
            pytest.fail("held twice")
        first.advance({2: 5})
    with store.drain([2, 3], wait=5) as third:
        assert third.held[2] >= 5


def test_two_drains_that_need_the_same_new_partition_both_end(fresh_url: str, settings: Settings) -> None:
    store = ColdStore(fresh_url, settings)
    with store.drain([0]) as first:
        first.write(batch_of(message(uuid4())))
    with store.drain([0]) as first:
        # Into a partition that is there: the parent is locked as by any INSERT.
        first.write(batch_of(message(uuid4())))
        with store.drain([1]) as second:
            second.write(batch_of(message(uuid4(), at_us=NOON_US + 10**13)))
        first.write(batch_of(message(uuid4(), at_us=NOON_US + 10**13)))
    assert store.fetch(reads.overview()).partitions["conversation_messages"] == 2
    store.close()


def _with(agent: UUID, **fields: Any) -> MessageRow:
    return MessageRow.of(message(agent, 50, **fields))


POISON: dict[str, Any] = {
    "NUL in content": lambda a: _with(a, content="a\0b"),
    "NUL in json": lambda a: _with(a, metadata={"a": "\0"}),
    "lone surrogate": lambda a: _with(a, content="\ud800"),
    "lone surrogate in json": lambda a: _with(a, metadata={"a": "\udfff"}),
    "unknown role": lambda a: _with(a, role="alien"),
    "negative tokens": lambda a: _with(a, tokens_used=-1),
    "too many tokens": lambda a: _with(a, tokens_used=2**63),
    "no text": lambda a: _with(a, content=5),
    "not json": lambda a: _with(a, metadata={"a": object()}),
    "endless json": lambda a: _with(a, metadata=_endless()),
    "far time": lambda a: MessageRow.of(replace(message(a, 50), at_us=2**62)),
    "end of time": lambda a: MessageRow.of(replace(message(a, 50), at_us=253_402_300_799_999_999)),
    "far stamp": lambda a: MessageRow.of(replace(message(a, 50), stamp=2**63)),
    "unknown mode": lambda a: EventRow.of(event(a, 50, mode="guess"), {}),
    "no event": lambda a: EventRow.of(event(a, 50, context_factors={1, object()}), {}),
    "far state": lambda a: StateRow.of(a, StoredState({}, {}, 2**62, 1)),
    "no state": lambda a: StateRow.of(a, StoredState({Emotion.JOY: Felt(0.5, object())}, {}, 0, 1)),  # type: ignore[arg-type]
    "NUL in key": lambda a: memory_row(a, memory(a, 50, key="a\0")),
    "long key": lambda a: memory_row(a, memory(a, 50, key="".join(chr(0x4E00 + n) for n in range(9_000)))),
    "NUL in tag": lambda a: memory_row(a, memory(a, 50, tags=("a\0",))),
    "far count": lambda a: memory_row(a, memory(a, 50, access_count=2**63)),
    "far tombstone": lambda a: MemoryRow.of(a, "fact", "x", StoredMemory(2**80, None)),
}


def _endless() -> Any:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize("kind", POISON)
def test_poison_is_left_alone_and_its_neighbours_are_stored(store: ColdStore, agent: UUID, kind: str) -> None:
    bad = POISON[kind](agent)
    said = [message(agent, n) for n in range(7)]
    felt = [event(agent, n) for n in range(3)]
    rows = [*said[:3], bad, *said[3:], *(EventRow.of(one, {}) for one in felt), StateRow.of(uuid4(), state())]

    written = write(store, *rows, memory_row(agent, memory(agent)))

    assert written[:5] == (7, 3, 1, 1, 0)
    ((row, reason),) = written.poison
    assert row is bad
    assert reason
    assert "\n" not in reason
    assert store.fetch(reads.message_page(agent, 50)).placed == said
    assert store.fetch(reads.event_page(agent, 50)).placed == felt
    assert store.fetch(reads.totals_of(agent)).stats.total_messages == 7


def test_several_poisoned_rows_are_told_apart(store: ColdStore, agent: UUID) -> None:
    bad = [make(agent) for make in POISON.values()]
    said = [message(agent, n) for n in range(20)]
    written = write(store, *said, *bad)
    assert written.messages == 20
    assert {id(row) for row, _ in written.poison} == {id(row) for row in bad}


def test_a_batch_of_nothing_and_several_writes(store: ColdStore, agent: UUID) -> None:
    with store.drain([0]) as drain:
        assert drain.write(batch_of()) == Written()
        assert drain.write(batch_of(message(agent, 1))).messages == 1
        assert drain.write(batch_of(message(agent, 2))).messages == 1
        assert drain.write(batch_of(message(agent, 1))) == Written(duplicates=1)
    assert store.fetch(reads.totals_of(agent)).stats.total_messages == 2


def test_far_apart_times_get_their_partitions(store: ColdStore, agent: UUID) -> None:
    years = [1970, 1999, 2026, 2040, 9998]
    said = [
        message(agent, n, at_us=_us(datetime(year, 12, 31, 23, 59, 59, 999_999, UTC))) for n, year in enumerate(years)
    ]
    assert write(store, *said).messages == 5
    assert store.fetch(reads.message_page(agent, 9)).placed == said


def _us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def test_a_detached_partition_poisons_nothing(fresh_url: str, settings: Settings, agent: UUID) -> None:
    store = ColdStore(fresh_url, settings)
    write(store, message(agent))
    with store.connection() as connection:
        connection.execute("ALTER TABLE conversation_messages DETACH PARTITION conversation_messages_20260302")
    with pytest.raises(IncompatibleSchema, match="detached"):
        write(store, message(agent, 1))
    store.close()


def test_a_connection_lost_in_the_block_stores_nothing(store: ColdStore, agent: UUID) -> None:
    with pytest.raises(ColdStoreUnavailable):
        _lose_connection(store, agent, lambda drain: drain.advance({0: 1}))
    assert not store.fetch(reads.agent_known(agent))
    assert write(store, message(agent)).messages == 1


def test_a_commit_without_an_answer_says_so(store: ColdStore, agent: UUID) -> None:
    with pytest.raises(ColdStoreUnavailable, match="Flushing again is safe"):
        _lose_connection(store, agent, lambda drain: None)
    assert write(store, message(agent)).messages == 1


def _lose_connection(store: ColdStore, agent: UUID, then: Callable[[Drain], None]) -> None:
    with store.drain([0]) as drain:
        drain.write(batch_of(message(agent)))
        pid = drain._connection.info.backend_pid
        with store.connection() as other:
            throw_out(other, pid=pid)
        then(drain)
