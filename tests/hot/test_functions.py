"""What each function of the library replies and leaves behind, called as any client calls it."""

from __future__ import annotations

import struct

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.hot import calls, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys
from banshee_memory.stamps import from_us, stamp_in_id, stamp_of
from tests.hot.raw import Server

NOW = 1_700_000_000_000_000
FOREVER, GONE = -1, -2


def body(text: str, nonce: bytes = b"12345678") -> bytes:
    return wire.message_body(nonce, "user", text, None, None, None, None)


def texts(hot: HotStore, keys: AgentKeys) -> list[str]:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    return [wire.message_of(keys.agent, element).record.content for element in elements]


# --- states ---


def test_version_is_the_one_shipped(server: Server) -> None:
    assert server.command("FCALL_RO", "banshee1_version", 0) == [1, 0, 0]


def test_now_is_microseconds_of_the_server(server: Server) -> None:
    seconds, us = server.command("TIME")
    assert 0 <= server.command("FCALL_RO", "banshee1_now", 0) - (int(seconds) * 1_000_000 + int(us)) < 5_000_000


def test_a_state_that_is_not_there_misses(server: Server, keys: AgentKeys) -> None:
    assert server.command("FCALL_RO", "banshee1_load_state", 1, keys.state) == b"MISS"
    assert server.fcall("update_emotions", [keys.state, keys.log], keys.agent.bytes, "add", "joy", "0.5") == b"MISS"
    assert server.content() == {}


def test_save_state_logs_and_stores_what_is_felt(server: Server, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    args = ("hope", "0.25", "joy", "0.009", "joy/rate", "0.5", "pity", "1")
    entry = server.fcall("save_state", [keys.state, keys.log], keys.agent.bytes, NOW - 5, *args)
    assert server.command("XRANGE", keys.log, "-", "+") == [[entry, [b"k", b"S" + keys.agent.bytes, b"p", b""]]]
    fields = iter(server.command("HGETALL", keys.state))
    assert dict(zip(fields, fields, strict=True)) == {
        b"meta": stamp_of(entry).to_bytes(8, "big") + struct.pack(">d", NOW),
        b"hope": struct.pack(">dd", 0.25, NOW - 5),
        b"pity": struct.pack(">dd", 1.0, NOW - 5),
        b"joy/rate": struct.pack(">d", 0.5),
        b"blind": b"1",
    }
    assert server.ttl(keys.state) == FOREVER


def test_a_state_is_not_dated_ahead_of_the_server(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 1.0}, {}, from_us(NOW + 10**9))))
    server.set_clock(NOW + 1_000_000)
    state = hot.run(calls.load_state(keys))
    assert isinstance(state, EmotionalState)
    assert state.emotions == {Emotion.JOY: pytest.approx(0.95)}


@pytest.mark.parametrize("known", ["absent", "meta"])
def test_update_works_on_what_is_known_and_persists(server: Server, hot: HotStore, keys: AgentKeys, known: str) -> None:
    server.set_clock(NOW)
    if known == "absent":
        server.command("HSET", keys.state, "absent", "1")
    else:
        hot.run(calls.save_state(keys, EmotionalState({Emotion.FEAR: 0.5}, {}, from_us(NOW))))
    server.command("PEXPIRE", keys.state, 10_000)
    reply = server.fcall("update_emotions", [keys.state, keys.log], keys.agent.bytes, "add", "joy", "0.5", "fear", "-1")
    now, *flat = reply
    assert now == NOW
    state = wire.state_of(flat)
    assert state is not None
    assert state.felt == {Emotion.JOY: (0.5, NOW)}
    assert server.ttl(keys.state) == FOREVER
    assert b"absent" not in server.command("HKEYS", keys.state)
    assert stamp_of(server.command("XREVRANGE", keys.log, "+", "-", "COUNT", 1)[0][0]) == state.stamp


# --- histories ---


def test_an_append_begins_a_list_with_its_header(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    at = [keys.messages, keys.log, keys.state]
    identity, entry, time = server.fcall("append_messages", at, keys.agent.bytes, "", "", body("one"))
    assert stamp_in_id(identity) == stamp_of(entry)
    assert time == (stamp_of(entry) >> 16) * 1000
    header = hot.run(calls.whole_history(keys.messages)).header
    assert header is not None
    assert header.covers(time, stamp_of(entry))
    assert not header.covers(time, stamp_of(entry) - 1)
    assert server.ttl(keys.messages) == FOREVER
    again = server.fcall("append_messages", at, keys.agent.bytes, "", "", body("two"), "", "", body("three"))
    assert texts(hot, keys) == ["one", "two", "three"]
    assert stamp_of(again[1]) < stamp_of(again[4])
    assert server.command("XLEN", keys.log) == 3


def test_an_append_persists_a_clean_list(server: Server, keys: AgentKeys) -> None:
    at = [keys.messages, keys.log, keys.state]
    server.fcall("append_messages", at, keys.agent.bytes, "", "", body("one"))
    server.command("PEXPIRE", keys.messages, 10_000)
    server.fcall("append_messages", at, keys.agent.bytes, "", "", body("two"))
    assert server.ttl(keys.messages) == FOREVER


def test_a_felt_append_misses_without_a_state_and_writes_nothing(server: Server, keys: AgentKeys) -> None:
    at = [keys.messages, keys.log, keys.state]
    args = ("", "", body("one"), "", "1", body("two"))
    assert server.fcall("append_messages", at, keys.agent.bytes, *args) == b"MISS"
    assert server.content() == {}


def test_own_times_put_messages_in_their_place(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    at = [keys.messages, keys.log, keys.state]
    for time, text in (("", "now"), (NOW, "c"), (NOW - 9, "a"), (NOW - 5, "b"), (NOW, "d"), (10**15 * 5, "future")):
        server.fcall("append_messages", at, keys.agent.bytes, time, "", body(text))
    assert texts(hot, keys) == ["a", "b", "c", "d", "now", "future"]


def test_stamps_grow_when_the_clock_is_stuck(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    """The server's clock behind its log: sequence numbers stay under 2^16, and order is kept."""
    far = 9_999_999_999_999
    server.command("XADD", keys.log, f"{far}-65000", "k", "x")
    server.command("DEL", keys.log)
    server.command("XADD", keys.log, f"{far}-32766", "k", "x")
    at = [keys.messages, keys.log, keys.state]
    stamps = []
    for _ in range(4):
        _, entry, _ = server.fcall("append_messages", at, keys.agent.bytes, "", "", body("x"))
        assert int(entry.split(b"-")[1]) < 65_536
        stamps.append(stamp_of(entry))
    assert stamps == sorted(set(stamps))
    assert stamps[-1] >> 16 == far + 1


def test_an_event_replies_its_element(server: Server, hot: HotStore, keys: AgentKeys) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5}, {Emotion.JOY: 0.0})))
    packed = wire.pack([b"12345678", {"type": "custom", "event_type": "x", "data": None}])
    at = [keys.events, keys.log, keys.state, keys.feed]
    element = server.fcall("save_event", at, keys.agent.bytes, "add", "", packed, "joy", "0.25")
    assert hot.run(calls.whole_history(keys.events)).elements == [element]
    settled = wire.event_of(keys.agent, element)
    assert settled.after == {Emotion.JOY: 0.75}
    assert settled.placed.record.resulting_emotions == {Emotion.JOY: 0.25}
    kinds = [entry[1][1][:1] for entry in server.command("XRANGE", keys.log, "-", "+")]
    assert kinds == [b"S", b"E"]
    assert server.fcall("save_event", at, keys.agent.bytes, "record", "", packed, "joy", "1")[:8] > element[:8]
    state = hot.run(calls.load_state(keys))
    assert isinstance(state, EmotionalState)
    assert state.emotions == {Emotion.JOY: 0.75}


def test_an_amended_message_that_was_not_resident_stands_where_its_stamp_puts_it(
    server: Server, hot: HotStore, keys: AgentKeys
) -> None:
    """Of messages of one time, an earlier one that comes back from PostgreSQL goes before those that came later."""
    at = [keys.messages, keys.log, keys.state]
    for text in ("first", "second", "third"):
        server.fcall("append_messages", at, keys.agent.bytes, NOW, "", body(text))
    first, second, third = hot.run(calls.whole_history(keys.messages)).elements
    for gone in (first, third):
        server.command("LREM", keys.messages, 1, gone)
        amended = gone + b"\xc0"
        at = [keys.messages, keys.log, keys.forgotten]
        assert server.fcall("amend_message", at, keys.agent.bytes, "", amended, b"x") == b"OK"
    elements = hot.run(calls.whole_history(keys.messages)).elements
    assert elements == [first + b"\xc0", second, third + b"\xc0"]


# --- memories ---


def memory_at(keys: AgentKeys) -> list[str]:
    return [keys.memory("fact:x"), keys.memories, keys.log]


def accesses_at(keys: AgentKeys) -> list[str]:
    return [keys.memory("fact:x"), keys.memories, keys.accesses]


def test_a_memory_that_is_not_there_misses(server: Server, keys: AgentKeys) -> None:
    agent = keys.agent.bytes
    assert server.fcall("store_memory", memory_at(keys), agent, "fact:x", "", b"body", "") == b"MISS"
    assert server.command("FCALL_RO", "banshee1_get_memory", 1, keys.memory("fact:x")) == b"MISS"
    assert server.fcall("retrieve_memory", accesses_at(keys), agent, "fact:x") == b"MISS"
    assert server.fcall("delete_memory", memory_at(keys), agent, "fact:x") == b"MISS"
    assert server.content() == {}


def test_a_stored_memory_has_its_times_and_no_ttl(server: Server, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    answered = server.fcall("store_memory", memory_at(keys), keys.agent.bytes, "fact:x", "1.5", b"body", "blind")
    ((entry, (_, kind, _, member)),) = server.command("XRANGE", keys.log, "-", "+")
    assert (kind, member) == (b"V" + keys.agent.bytes, b"fact:x")
    head = struct.pack(">cQddddd", b"P", stamp_of(entry), NOW + 1_500_000, 0, NOW, NOW, NOW)
    assert (answered, server.command("GET", keys.memory("fact:x"))) == (head, head + b"body")
    assert server.command("ZRANGE", keys.memories, 0, -1, "WITHSCORES") == [b"fact:x", b"inf"]
    assert [server.ttl(key) for key in memory_at(keys)] == [FOREVER] * 3


def test_a_retrieved_memory_counts_and_is_unflushed_again(server: Server, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    server.fcall("store_memory", memory_at(keys), keys.agent.bytes, "fact:x", "", b"body", "blind")
    server.command("ZADD", keys.memories, NOW // 1_000 + 10_000, "fact:x")  # as a flush leaves it
    for key in (keys.memory("fact:x"), keys.memories):
        server.command("PEXPIRE", key, 10_000)
    server.set_clock(NOW + 7)
    value = server.fcall("retrieve_memory", accesses_at(keys), keys.agent.bytes, "fact:x")
    assert struct.unpack_from(">ddddd", value, 9) == (0, 1, NOW + 7, NOW, NOW)
    assert server.command("GET", keys.memory("fact:x")) == value
    assert server.command("SMEMBERS", keys.accesses) == [keys.agent.bytes + b"fact:x"]
    assert [server.ttl(key) for key in accesses_at(keys)] == [FOREVER] * 3
    assert server.command("XLEN", keys.log) == 1


def test_an_expired_memory_is_none_and_its_name_is_free(server: Server, keys: AgentKeys) -> None:
    server.set_clock(NOW)
    agent = keys.agent.bytes
    server.fcall("store_memory", memory_at(keys), agent, "fact:x", "1", b"old", "blind")
    server.set_clock(NOW + 999_999)
    assert server.command("FCALL_RO", "banshee1_get_memory", 1, keys.memory("fact:x")) is not None
    server.set_clock(NOW + 1_000_000)
    assert server.command("FCALL_RO", "banshee1_get_memory", 1, keys.memory("fact:x")) is None
    assert server.fcall("retrieve_memory", accesses_at(keys), agent, "fact:x") is None
    assert server.fcall("delete_memory", memory_at(keys), agent, "fact:x") == 0
    head = server.fcall("store_memory", memory_at(keys), agent, "fact:x", "", b"new", "")
    assert struct.unpack_from(">ddddd", head, 9) == (0, 0, NOW + 1e6, NOW + 1e6, NOW + 1e6)


@pytest.mark.parametrize("foreign", [b"", b"no memory at all, and long enough to have a head"])
def test_what_somebody_else_put_there_is_no_memory(server: Server, keys: AgentKeys, foreign: bytes) -> None:
    server.command("SET", keys.memory("fact:x"), foreign)
    assert server.fcall("delete_memory", memory_at(keys), keys.agent.bytes, "fact:x") == 0
    head = server.fcall("store_memory", memory_at(keys), keys.agent.bytes, "fact:x", "", b"body", "")
    assert server.command("GET", keys.memory("fact:x")) == head + b"body"


def test_a_deleted_memory_leaves_a_tombstone(server: Server, keys: AgentKeys) -> None:
    agent = keys.agent.bytes
    server.fcall("store_memory", memory_at(keys), agent, "fact:x", "60", b"body", "blind")
    server.command("PEXPIRE", keys.memory("fact:x"), 10_000)
    assert server.fcall("delete_memory", memory_at(keys), agent, "fact:x") == 1
    newest = server.command("XREVRANGE", keys.log, "+", "-", "COUNT", 1)[0][0]
    assert server.command("GET", keys.memory("fact:x")) == b"A" + stamp_of(newest).to_bytes(8, "big")
    assert server.ttl(keys.memory("fact:x")) == FOREVER
    assert server.fcall("delete_memory", memory_at(keys), agent, "fact:x") == 0
    assert server.command("FCALL_RO", "banshee1_get_memory", 1, keys.memory("fact:x")) is None


def test_evict_drops_what_has_a_ttl_and_says_what_it_kept(server: Server, keys: AgentKeys) -> None:
    server.command("SET", keys.state, "clean", "PX", 10_000)
    server.command("SET", keys.messages, "not clean")
    assert server.fcall("evict", [keys.state, keys.messages, keys.events]) == [1, 1]
    assert (server.ttl(keys.state), server.ttl(keys.messages)) == (GONE, FOREVER)


def test_want_asks_once(server: Server, keys: AgentKeys) -> None:
    wanted = keys.tag + "wanted"
    assert server.fcall("want", [wanted], keys.agent.bytes) == 1
    assert server.fcall("want", [wanted], keys.agent.bytes) == 0
    assert server.command("SMEMBERS", wanted) == [keys.agent.bytes]
