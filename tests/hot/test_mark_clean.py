"""mark_clean forgets just what was flushed, and lets go of just what is not needed any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import uuid4

import pytest

from banshee_memory import Emotion, EmotionalState
from banshee_memory.hot import calls, flushing, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.flushing import Entry, Settlement
from banshee_memory.hot.keys import AgentKeys, agent_keys, shard_keys
from tests.hot.raw import Server, stored_state

TTL = 60.0
FOREVER, GONE = -1, -2
MEMBER = "fact:x"


def say(hot: HotStore, keys: AgentKeys, text: str, at_us: int | None = None) -> None:
    body = wire.message_body(text.ljust(8).encode()[:8], "user", text, None, None, None, None)
    hot.run(calls.append_messages(keys, [(at_us, False, body)]))


def contents(hot: HotStore, keys: AgentKeys) -> list[str]:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    return [wire.message_of(keys.agent, element).record.content for element in elements]


def log(hot: HotStore, keys: AgentKeys) -> list[Entry]:
    return hot.run(flushing.log_head(shard_keys(keys.shard), 1000, 1_000_000))


def mark(
    hot: HotStore,
    keys: AgentKeys,
    entries: list[Entry],
    settlement: Settlement,
    dead: Mapping[bytes, str] | None = None,
) -> bool:
    return hot.run(flushing.mark_clean(shard_keys(keys.shard), entries, settlement, TTL, dead or {}))


def messages_settled(keys: AgentKeys, cap: int = 50) -> Settlement:
    settlement = Settlement()
    settlement.history(keys.messages, cap)
    return settlement


# --- the log ---


def test_only_the_flushed_part_leaves_the_log(hot: HotStore, keys: AgentKeys) -> None:
    say(hot, keys, "one")
    say(hot, keys, "two")
    flushed = log(hot, keys)
    say(hot, keys, "three")
    assert mark(hot, keys, flushed, messages_settled(keys))
    (left,) = log(hot, keys)
    assert left.stamp > flushed[-1].stamp


@pytest.mark.parametrize("what", ["trimmed by another", "an entry more", "an entry less", "another content"])
def test_a_log_that_is_not_what_was_flushed_is_left_alone(
    hot: HotStore, server: Server, keys: AgentKeys, what: str
) -> None:
    for text in ("one", "two", "three"):
        say(hot, keys, text)
    entries = log(hot, keys)
    match what:
        case "trimmed by another":
            server.command("XDEL", keys.log, entries[0].id)
        case "an entry more":
            del entries[1]
        case "an entry less":
            server.command("XDEL", keys.log, entries[1].id)
        case _:
            # After a failover the same ids stand for something else, which nobody has flushed.
            entries[1] = Entry(entries[1].id, (*entries[1].raw[:-1], b"other"))
    before = server.content()
    assert not mark(hot, keys, entries, messages_settled(keys, cap=1))
    assert server.content() == before


def test_dead_letters_leave_with_their_reason_and_out_of_their_list(
    hot: HotStore, server: Server, keys: AgentKeys
) -> None:
    for text in ("good", "poison", "fine"):
        say(hot, keys, text)
    entries = log(hot, keys)
    bad = entries[1]
    settlement = Settlement()
    settlement.drop(keys.messages, wire.element_of("M", bad.stamp, bad.payload))
    settlement.history(keys.messages, 50)
    assert mark(hot, keys, entries, settlement, {bad.id: "because"})
    assert contents(hot, keys) == ["good", "fine"]
    ((_, fields),) = server.command("XRANGE", shard_keys(keys.shard).dead, "-", "+")
    assert fields == [b"id", bad.id, b"reason", b"because", *bad.raw]
    assert server.command("XLEN", keys.log) == 0


def test_a_broken_key_does_not_keep_the_log(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    other = replace(agent_keys(uuid4(), 64), shard=keys.shard, tag=keys.tag)
    say(hot, keys, "one")
    say(hot, other, "two")
    entries = log(hot, keys)
    server.command("SET", keys.messages, "somebody else's")
    settlement = Settlement()
    settlement.history(keys.messages, 50)
    settlement.history(other.messages, 50)
    assert mark(hot, keys, entries, settlement)
    assert server.command("XLEN", keys.log) == 0
    assert server.ttl(other.messages) > 0


# --- histories ---


def test_a_list_goes_only_when_all_of_it_is_flushed(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    say(hot, keys, "one")
    flushed = log(hot, keys)
    say(hot, keys, "two")
    assert mark(hot, keys, flushed, messages_settled(keys))
    assert server.ttl(keys.messages) == FOREVER
    assert mark(hot, keys, log(hot, keys), messages_settled(keys))
    assert 0 < server.ttl(keys.messages) <= TTL * 1000


def test_a_list_with_an_unflushed_import_in_its_middle_stays(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    say(hot, keys, "one")
    flushed = log(hot, keys)
    say(hot, keys, "earlier", at_us=1000)
    assert mark(hot, keys, flushed, messages_settled(keys, cap=1))
    assert server.ttl(keys.messages) == FOREVER
    assert contents(hot, keys) == ["earlier", "one"]
    assert mark(hot, keys, log(hot, keys), messages_settled(keys))
    assert server.ttl(keys.messages) > 0


def test_a_list_is_trimmed_up_to_the_flushed_stamp(hot: HotStore, keys: AgentKeys) -> None:
    for n in range(6):
        say(hot, keys, f"{n}")
    flushed = log(hot, keys)[:4]
    assert mark(hot, keys, flushed, messages_settled(keys, cap=1))
    assert contents(hot, keys) == ["4", "5"]
    header = hot.run(calls.whole_history(keys.messages)).header
    assert header is not None
    places = [wire.place_of(element) for element in hot.run(calls.whole_history(keys.messages)).elements]
    assert header.covers(*places[0])
    assert not header.covers(0.0, 0)


def test_a_cap_that_is_not_reached_trims_nothing(hot: HotStore, keys: AgentKeys) -> None:
    for n in range(3):
        say(hot, keys, f"{n}")
    assert mark(hot, keys, log(hot, keys), messages_settled(keys, cap=3))
    assert contents(hot, keys) == ["0", "1", "2"]


# --- states ---


@pytest.mark.parametrize("changed", [False, True])
def test_a_state_goes_only_if_it_is_the_flushed_one(
    hot: HotStore, server: Server, keys: AgentKeys, changed: bool
) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    entries, stored = log(hot, keys), stored_state(hot, keys)
    assert stored is not None
    if changed:
        hot.run(calls.update_emotions(keys, {Emotion.JOY: 0.25}, "add"))
    settlement = Settlement()
    settlement.state(keys, stored.stamp)
    assert mark(hot, keys, entries, settlement)
    assert (server.ttl(keys.state) == FOREVER) is changed


@pytest.mark.parametrize("changed", [False, True])
def test_a_state_that_lost_goes_at_once_unless_it_changed(
    hot: HotStore, server: Server, keys: AgentKeys, changed: bool
) -> None:
    hot.run(calls.save_state(keys, EmotionalState({Emotion.JOY: 0.5})))
    entries, stored = log(hot, keys), stored_state(hot, keys)
    assert stored is not None
    if changed:
        hot.run(calls.update_emotions(keys, {Emotion.JOY: 0.25}, "add"))
    settlement = Settlement()
    settlement.state(keys, stored.stamp, superseded=True)
    assert mark(hot, keys, entries, settlement)
    assert server.ttl(keys.state) == (FOREVER if changed else GONE)


# --- memories ---


def remember(hot: HotStore, keys: AgentKeys, ttl: float | None = None) -> bytes:
    args = (keys.agent.bytes, MEMBER, "" if ttl is None else repr(ttl), wire.pack(wire.MemoryBody(1, 0.5)), "blind")
    Server(hot).fcall("store_memory", [keys.memory(MEMBER), keys.memories, keys.log], *args)
    raw = hot.run(calls.memory_bytes(keys, MEMBER))
    assert raw is not None
    return raw


def memory_settled(keys: AgentKeys, raw: bytes) -> Settlement:
    settlement = Settlement()
    settlement.memory(keys, MEMBER, raw)
    return settlement


def test_a_clean_memory_and_its_index_go(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    raw = remember(hot, keys)
    assert mark(hot, keys, log(hot, keys), memory_settled(keys, raw))
    assert 0 < server.ttl(keys.memory(MEMBER)) <= TTL * 1000
    assert 0 < server.ttl(keys.memories) <= TTL * 1000
    assert float(server.command("ZSCORE", keys.memories, MEMBER)) < float("inf")


@pytest.mark.parametrize("change", ["stored again", "counted", "deleted"])
def test_a_memory_that_changed_since_stays(hot: HotStore, server: Server, keys: AgentKeys, change: str) -> None:
    raw = remember(hot, keys)
    entries = log(hot, keys)
    if change == "stored again":
        remember(hot, keys)
    elif change == "counted":
        hot.run(calls.retrieve_memory(keys, "fact", "x"))
    else:
        hot.run(calls.delete_memory(keys, "fact", "x"))
    assert mark(hot, keys, entries, memory_settled(keys, raw))
    assert server.ttl(keys.memory(MEMBER)) == FOREVER
    assert server.ttl(keys.memories) == FOREVER
    assert server.command("SCARD", keys.accesses) == (1 if change == "counted" else 0)


def test_an_access_that_was_flushed_waits_no_more(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    remember(hot, keys)
    hot.run(calls.retrieve_memory(keys, "fact", "x"))
    raw = hot.run(calls.memory_bytes(keys, MEMBER))
    assert raw is not None
    assert mark(hot, keys, [], memory_settled(keys, raw))
    assert server.command("EXISTS", keys.accesses) == 0
    assert server.ttl(keys.memory(MEMBER)) > 0
    hot.run(calls.retrieve_memory(keys, "fact", "x"))
    assert server.ttl(keys.memory(MEMBER)) == FOREVER


@pytest.mark.parametrize(("left", "expected"), [(5.0, 5.0), (3600.0, TTL)])
def test_a_memory_goes_no_later_than_it_expires(
    hot: HotStore, server: Server, keys: AgentKeys, left: float, expected: float
) -> None:
    server.set_clock(1_700_000_000_000_000)
    raw = remember(hot, keys, ttl=left)
    assert mark(hot, keys, log(hot, keys), memory_settled(keys, raw))
    assert expected * 1000 - 500 < server.ttl(keys.memory(MEMBER)) <= expected * 1000


def test_a_memory_that_expired_meanwhile_goes_at_once(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    server.set_clock(1_700_000_000_000_000)
    raw = remember(hot, keys, ttl=5)
    server.set_clock(1_700_000_005_000_000)
    assert mark(hot, keys, log(hot, keys), memory_settled(keys, raw))
    assert server.ttl(keys.memory(MEMBER)) == GONE
    assert server.command("ZCARD", keys.memories) == 0


def test_an_index_stays_for_a_member_that_is_not_flushed(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    raw = remember(hot, keys)
    entries = log(hot, keys)
    args = (keys.agent.bytes, "fact:y", "", b"\x92\x01\xca\x3f\x00\x00\x00", "blind")
    server.fcall("store_memory", [keys.memory("fact:y"), keys.memories, keys.log], *args)
    assert mark(hot, keys, entries, memory_settled(keys, raw))
    assert server.ttl(keys.memory(MEMBER)) > 0
    assert server.ttl(keys.memories) == FOREVER


@pytest.mark.parametrize("change", ["none", "counted", "stored again"])
def test_a_memory_that_lost_goes_at_once_unless_it_was_replaced(
    hot: HotStore, server: Server, keys: AgentKeys, change: str
) -> None:
    raw = remember(hot, keys)
    entries = log(hot, keys)
    if change == "stored again":
        remember(hot, keys)
    elif change == "counted":
        hot.run(calls.retrieve_memory(keys, "fact", "x"))
    settlement = Settlement()
    settlement.memory(keys, MEMBER, raw, superseded=True)
    assert mark(hot, keys, entries, settlement)
    stays = change == "stored again"
    assert server.ttl(keys.memory(MEMBER)) == (FOREVER if stays else GONE)
    assert server.command("ZCARD", keys.memories) == stays
    assert server.command("SCARD", keys.accesses) == 0
