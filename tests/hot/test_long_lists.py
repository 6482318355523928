"""Lists with thousands of elements: settled a chunk at a time, and in order however late their elements came."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from banshee_memory.hot import calls, erasing, failover, flushing, leases, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.flushing import Entry, Settlement
from banshee_memory.hot.incarnation import incarnation_of
from banshee_memory.hot.keys import AgentKeys, OwnedKey, owned_key, shard_keys
from tests.hot.raw import Server

LONG, CHUNK, CAP = 5_000, 500, 3
MOST = 1_000
"""Elements that one call walks along."""
EVERYTHING = 1_000_000_000
DAY_US = 86_400_000_000


def say(hot: HotStore, keys: AgentKeys, texts: Sequence[tuple[int | None, str]]) -> None:
    said: list[Any] = [
        (at, False, wire.message_body(text.rjust(8, "-").encode(), "user", text, None, None, None, None))
        for at, text in texts
    ]
    hot.run(calls.append_messages(keys, said))


def contents(hot: HotStore, keys: AgentKeys) -> list[str]:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    return [wire.message_of(keys.agent, element).record.content for element in elements]


def flushed(hot: HotStore, keys: AgentKeys, entries: Sequence[Entry]) -> None:
    settlement = Settlement()
    settlement.history(keys.messages, CAP)
    assert hot.run(flushing.mark_clean(shard_keys(keys.shard), entries, settlement, 60.0, {}))


def log(hot: HotStore, keys: AgentKeys, most: int) -> list[Entry]:
    return hot.run(flushing.log_head(shard_keys(keys.shard), most, EVERYTHING))


def lranges(server: Server, keys: AgentKeys, act: Any) -> int:
    """How many ranges of a list were read meanwhile."""
    server.command("CONFIG", "RESETSTAT")
    act()
    info = server.command("INFO", "commandstats").decode()
    found = [line for line in info.splitlines() if line.startswith("cmdstat_lrange:")]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


@pytest.fixture
def texts(hot: HotStore, keys: AgentKeys) -> list[str]:
    said = [f"{n}" for n in range(LONG)]
    for first in range(0, LONG, 1_000):
        say(hot, keys, [(None, text) for text in said[first : first + 1_000]])
    return said


@pytest.mark.parametrize("carried", [1, CHUNK - 1, CHUNK, CHUNK + 1, 1_700, LONG - CAP, LONG])
def test_what_is_flushed_and_over_the_cap_goes_a_chunk_at_a_time(
    hot: HotStore, server: Server, keys: AgentKeys, texts: list[str], carried: int
) -> None:
    entries = log(hot, keys, carried)
    read = lranges(server, keys, lambda: flushed(hot, keys, entries))
    gone = LONG - CAP if carried == LONG else min(carried, MOST)
    # No further than to the first element that stays, and not at all where everything is flushed.
    assert read == (0 if carried == LONG else min(gone // CHUNK + 1, MOST // CHUNK))
    assert contents(hot, keys) == texts[gone:]
    header = hot.run(calls.whole_history(keys.messages)).header
    assert header is not None
    last = wire.place_of(wire.element_of("M", entries[gone - 1].stamp, entries[gone - 1].payload))
    assert not header.covers(*last)
    assert header.covers(last[0], last[1] + 1)
    assert (server.ttl(keys.messages) > 0) == (carried == LONG)


def test_the_rest_of_it_goes_with_the_next_flushes(
    hot: HotStore, server: Server, keys: AgentKeys, texts: list[str]
) -> None:
    left = LONG
    while entries := log(hot, keys, 1_000):
        flushed(hot, keys, entries)
        left -= len(entries)
        assert contents(hot, keys) == texts[-max(left, CAP) :]
    assert server.ttl(keys.messages) > 0


@pytest.mark.parametrize("order", ["newest first", "shuffled", "of one time"])
def test_late_messages_stand_where_their_time_says(hot: HotStore, server: Server, keys: AgentKeys, order: str) -> None:
    now = hot.run(calls.now()) - DAY_US
    times = [now if order == "of one time" else now - n * 1_000_000 for n in range(500)]
    if order == "shuffled":
        random.Random(7).shuffle(times)
    model: list[tuple[int, int, str]] = []
    for n, at in enumerate(times):
        say(hot, keys, [(at, f"{n}")])
        model.append((at, n, f"{n}"))
        if n % 25 == 0 or n > 490:
            assert contents(hot, keys) == [text for _, _, text in sorted(model)]
    replies = hot.run_all(calls.history_end(keys.messages, 50))
    newest = [wire.message_of(keys.agent, element).record for element in calls.end_of(replies).elements]
    assert [m.content for m in newest] == [text for _, _, text in sorted(model)][-50:]
    assert [m.created_at for m in newest] == sorted(m.created_at for m in newest)


def test_a_list_is_shed_some_at_a_time(hot: HotStore, server: Server, keys: AgentKeys, texts: list[str]) -> None:
    """What the log does not hold goes, wherever it stands; what it names otherwise stays."""
    shard, kept = shard_keys(keys.shard), {17, 1_200, LONG - 2}
    lost = {0, 499, 500, 501, 2_345, LONG - 1, *kept}
    entries, elements = log(hot, keys, LONG), hot.run(calls.whole_history(keys.messages)).elements
    for number in lost:
        server.command("XDEL", shard.log, entries[number].id)
    mentions = [wire.message_of(keys.agent, elements[number]).record.id.bytes for number in kept]
    told = b"".join(bytes([17, 0]) + mention for mention in mentions)
    named = incarnation_of(hot.run_all(failover.which_server())).identity
    assert hot.run(failover.park(shard, named)) is True
    items, start, rounds = [(keys.state, "s", b""), (keys.messages, "h", told), (keys.events, "h", b"")], 0, 0
    while items:
        done = hot.run(failover.shed(shard, named, b"a birth.", items, start))
        assert isinstance(done, tuple)
        items, start, rounds = items[done[0] :], done[1], rounds + 1
    assert rounds > LONG // CHUNK
    assert contents(hot, keys) == [text for number, text in enumerate(texts) if number not in lost - kept]
    header = hot.run(calls.whole_history(keys.messages)).header
    assert header is not None
    assert not header.covers(*wire.place_of(elements[-1]))


def logged_again(hot: HotStore, owned: OwnedKey, floor: int) -> Iterator[int]:
    start: int | None = 0
    while start is not None:
        again, start = hot.run(failover.log_again(owned, floor, start))
        yield again


def test_a_list_is_logged_again_some_at_a_time(
    hot: HotStore, server: Server, keys: AgentKeys, texts: list[str]
) -> None:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    for _ in range(2):
        flushed(hot, keys, log(hot, keys, 1_000))
    owned = owned_key(keys.messages.encode())
    assert owned is not None
    counts = list(logged_again(hot, owned, wire.place_of(elements[1_099])[1]))
    assert sum(counts) == 0, "what is flushed and over the cap has left the list, and the log has the rest"
    hot.run(flushing.mark_clean(shard_keys(keys.shard), log(hot, keys, LONG), Settlement(), 60.0, {}))
    counts = list(logged_again(hot, owned, wire.place_of(elements[2_699])[1]))
    assert max(counts) <= CHUNK
    assert sum(counts) == LONG - 2_700
    assert [entry.payload for entry in log(hot, keys, LONG)] == elements[2_700:]


def test_the_old_life_leaves_a_long_list_some_at_a_time(hot: HotStore, keys: AgentKeys, texts: list[str]) -> None:
    elements = hot.run(calls.whole_history(keys.messages)).elements
    through, rounds, again = wire.place_of(elements[LONG - 500])[1], 0, True
    while again:
        _, again = hot.run(erasing.erase_keys(keys, through, 0, []))
        rounds += 1
    assert rounds == 5
    assert contents(hot, keys) == texts[LONG - 499 :]
    assert hot.run(erasing.erase_keys(keys, through, 0, [])) == (0, False)


def test_what_is_offered_to_a_long_list_is_refused(hot: HotStore, keys: AgentKeys, texts: list[str]) -> None:
    header, elements = hot.run(calls.whole_history(keys.messages))
    assert header is not None
    assert not hot.run(leases.offer_history(keys.messages, header, 60.0, (0.0, 0), elements[:3]))
    assert contents(hot, keys) == texts


def test_an_outdated_message_is_found_by_its_time(hot: HotStore, keys: AgentKeys, texts: list[str]) -> None:
    history = hot.run(calls.whole_history(keys.messages))
    placed = wire.message_of(keys.agent, history.elements[3_000])
    settlement = Settlement()
    settlement.outdated(keys.messages, placed.record.id, placed.at_us)
    hot.run(flushing.mark_clean(shard_keys(keys.shard), [], settlement, 60.0, {}))
    assert contents(hot, keys) == texts[:3_000] + texts[3_001:]
