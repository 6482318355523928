"""The functions that forget: all at one moment, some at a time, and nothing of another agent or another life."""

from __future__ import annotations

from uuid import UUID

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.hot import calls, erasing, leases, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys, agent_keys, shard_keys
from banshee_memory.stamps import stamp_in_id, stamp_of
from tests.hot.raw import Server

BODY = wire.pack(wire.MemoryBody("x", 0.5))


def remember(hot: HotStore, keys: AgentKeys, *names: str) -> None:
    hot.run_all([calls.store_memory(keys, "fact", name, BODY, None, how="blind") for name in names])


def say(hot: HotStore, keys: AgentKeys, *texts: str) -> list[int]:
    said = [(None, False, wire.message_body(b"12345678", "user", text, None, None, None, None)) for text in texts]
    ids = hot.run(calls.append_messages(keys, said))
    assert isinstance(ids, list)
    return [stamp_in_id(message.bytes) for message in ids]


def neighbour(keys: AgentKeys) -> AgentKeys:
    return agent_keys(UUID(int=keys.agent.int ^ 1 << 64), 64)


def test_memories_that_are_not_named_are_asked_for(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    remember(hot, keys, "a", "b")
    some = hot.run(erasing.forget(keys, 0, [b"fact:a", b"fact:none"]))
    assert (some.through, some.gone) == (None, 1)
    assert server.command("EXISTS", keys.state) == 1
    assert hot.run(erasing.indexed(keys)) == [b"fact:b"]
    [last] = say(hot, keys, "to the last")
    rest = hot.run(erasing.forget(keys, 0, [b"fact:b"]))
    assert rest.through is not None
    assert rest.through > last
    assert rest.gone == 3
    for key in (keys.state, keys.messages, keys.memories, keys.memory("fact:a"), keys.memory("fact:b")):
        assert server.command("EXISTS", key) == 0


def test_it_ends_after_the_tombstone_whatever_the_log_says(hot: HotStore, keys: AgentKeys) -> None:
    [stamp] = say(hot, keys, "x")
    ahead = stamp + (86_400_000 << 16)
    through = hot.run(erasing.forget(keys, ahead, [])).through
    assert through == ahead + 1
    assert say(hot, keys, "y") > [through]


def test_entries_go_some_at_a_time_and_others_stay(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    log, other = shard_keys(keys.shard).log, neighbour(keys)
    for n in range(25):
        say(hot, keys, f"old {n}")
        say(hot, other, f"other {n}")
    through = say(hot, keys, "the last")[0]
    new = say(hot, keys, "new")[0]
    at = [log]
    after, count, calls_made = b"", 0, 0
    while True:
        words = (keys.agent.bytes, f"{through >> 16}-{through & 0xFFFF}", after, 10, 1_000_000)
        after, gone = server.fcall("erase_entries", at, *words)
        count, calls_made = count + gone, calls_made + 1
        if not after:
            break
    assert (count, calls_made > 3) == (26, True)
    left = [(wire_id, fields) for wire_id, fields in server.command("XRANGE", log, "-", "+")]
    assert sum(other.agent.bytes in field for _, fields in left for field in fields) == 25
    assert [stamp_of(i) for i, fields in left if any(keys.agent.bytes in field for field in fields)] == [new]


def test_one_entry_is_looked_at_whatever_its_size(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    [through] = say(hot, keys, "x" * 100_000)
    words = (keys.agent.bytes, f"{through >> 16}-{through & 0xFFFF}", "", 10, 1)
    assert server.fcall("erase_entries", [keys.log], *words)[1] == 1


def test_what_is_left_goes_and_what_is_newer_stays(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    """As on a replica that was promoted: the lists hold both."""
    remember(hot, keys, "old")
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    through = say(hot, keys, "old one", "old two")[-1]
    now = hot.run(calls.now())
    say(hot, keys, "new")
    remember(hot, keys, "new")
    hot.run(leases.lease(keys.memory("fact:leased"), "m", b"12345678", 60.0))
    members = [b"fact:old", b"fact:new", b"fact:leased", b"fact:none"]
    before = hot.run(calls.history_end(keys.messages, 5)[0])
    assert hot.run(erasing.erase_keys(keys, through, now, members)) == (3, False)
    history = hot.run(calls.whole_history(keys.messages))
    assert [wire.message_of(keys.agent, element).record.content for element in history.elements] == ["new"]
    assert history.header is not None
    assert history.header.generation != wire.history_of([before]).header.generation  # type: ignore[union-attr]
    assert server.command("EXISTS", keys.state, keys.memory("fact:old"), keys.memory("fact:leased")) == 0
    assert hot.run(erasing.indexed(keys)) == [b"fact:new"]
    assert server.ttl(keys.messages) == server.ttl(keys.memory("fact:new"))
    assert hot.run(erasing.erase_keys(keys, through, now, members)) == (0, False)


def test_who_was_forgotten_is_known_for_an_hour(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    server.command("HSET", keys.forgotten, b"x" * 16, (1 << 16).to_bytes(8, "big"))
    say(hot, keys, "x")
    through = hot.run(erasing.forget(keys, 0, [])).through
    assert through is not None
    assert server.command("HGETALL", keys.forgotten) == [keys.agent.bytes, through.to_bytes(8, "big")]
