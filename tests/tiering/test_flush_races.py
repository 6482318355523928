"""The flush beside all else: whatever happens between two of its steps, each record is cold once, and read always."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory import Emotion, HotStoreUnavailable, NewMessage
from banshee_memory.cold import reads
from banshee_memory.hot.calls import Call
from banshee_memory.hot.client import HotStore
from banshee_memory.settings import Settings
from banshee_memory.tiering.drain import Drain
from tests.own_servers import CLOCK
from tests.tiering.lives import HAPPENED, Life, begin, everything
from tests.tiers import IntrudedHotStore, Tiers, intruded, nothing

MOST_TRIPS = 20


class ForgetfulHotStore(HotStore):
    """A hot store whose connection is cut whenever something is to be marked clean."""

    def try_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        if batch and str(batch[0].command[1]).endswith("mark_clean"):
            raise HotStoreUnavailable("cut")
        return super().try_all(batch)


@pytest.fixture(scope="session")
def intruded_hot(own_urls: tuple[str, str], tiers: Tiers) -> Iterator[IntrudedHotStore]:
    hot = IntrudedHotStore(own_urls[0], tiers.settings, clock=CLOCK)
    hot.load_library()
    yield hot
    hot.close()


def flushed_with(tiers: Tiers, hot: IntrudedHotStore, agent: UUID, at: int, action: Callable[[], object]) -> bool:
    """Flushes, and before round trip number `at` acts; False if the flush had fewer."""
    hot.trips, hot.at, hot.action = 0, at, action
    try:
        Drain(tiers.settings, hot, tiers.cold).flush(agent)
    finally:
        hot.at = -1
    return hot.trips > at


def _change(tiers: Tiers, agent: UUID) -> None:
    tiers.conversations.save_message(agent, "user", "another word", tokens_used=2, emotional_context="current")
    tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.25})
    tiers.emotions.save_event(agent, HAPPENED, {Emotion.HOPE: 0.25}, mode="add")
    tiers.memories.retrieve_memory(agent, "fact", "k1")
    tiers.memories.delete_memory(agent, "fact", "k0")
    tiers.memories.store_memory(agent, "fact", "k2", "two", importance=0.125)


def _import(tiers: Tiers, agent: UUID) -> None:
    old = datetime.now(UTC) - timedelta(days=1)
    tiers.conversations.save_messages(
        agent, [NewMessage(role="user", content="an old word", tokens_used=2, created_at=old)]
    )


# What happens, and how many more messages there are then.
MEANWHILE: dict[str, tuple[Callable[[Tiers, UUID], object], int]] = {
    "a read": (everything, 0),
    "a change": (_change, 1),
    "an import": (_import, 1),
    "an eviction by Redis": (lambda tiers, agent: tiers.drop(agent), 0),
    "a sweep": (lambda tiers, agent: Drain(tiers.settings, tiers.hot, tiers.cold).sweep(), 0),
}


@pytest.mark.parametrize("placement", ["hot", "half"])
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_what_happens_during_a_flush_is_neither_lost_nor_doubled(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore, meanwhile: str, placement: str
) -> None:
    action, more = MEANWHILE[meanwhile]
    for at in range(MOST_TRIPS):
        life = begin(tiers, placement)
        if placement == "half":
            everything(tiers, life.agent)
        happened = flushed_with(tiers, intruded_hot, life.agent, at, lambda a=life.agent: action(intruder, a))  # type: ignore[misc]
        seen = everything(tiers, life.agent)
        assert seen["totals"].total_messages == len(seen["messages"]) == 8 + more * happened, f"before trip {at}"
        assert seen["totals"].total_tokens == 2 * len(seen["messages"])
        tiers.drop(life.agent)
        assert everything(tiers, life.agent) == seen, f"before trip {at}: Redis let go of what was nowhere else"
        tiers.evict(life.agent)
        assert everything(tiers, life.agent) == seen, f"before trip {at}"
        if not happened:
            break
    assert 5 < at < MOST_TRIPS - 1


def stamps_of(tiers: Tiers, query: reads.Query[list[tuple[int, int]]]) -> dict[int, int]:
    rows = tiers.cold.fetch(query)
    return dict(rows)


def test_no_value_is_newer_than_its_shard_is_known_to_be(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore
) -> None:
    """Another server goes on after that. What changes between the log and the values is cold before its entry is."""
    newer = 0
    for at in range(MOST_TRIPS):
        life = begin(tiers, "hot")
        happened = flushed_with(tiers, intruded_hot, life.agent, at, lambda a=life.agent: _change(intruder, a))  # type: ignore[misc]
        shard = tiers.keys(life.agent).shard
        known = stamps_of(tiers, reads.shard_stamps())[shard]
        state = tiers.cold.fetch(reads.state_of(life.agent))
        memories = tiers.cold.fetch(reads.memory_page(life.agent, "fact", 0, 10))
        assert state is not None
        stamps = [state.stamp, *(memory.stamp for memory in memories)]
        assert max(stamps) <= known, f"before trip {at}"
        newer += max(stamps) > stamps_of(tiers, reads.flushed_stamps())[shard]
        if not happened:
            break
    assert newer, "no change came between the log and the values"


def test_reads_are_whole_in_every_window_of_a_flush(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore
) -> None:
    for at in range(MOST_TRIPS):
        life = begin(tiers, "half")
        known = everything(tiers, life.agent)
        windows: list[dict[str, Any]] = []
        if not flushed_with(
            tiers,
            intruded_hot,
            life.agent,
            at,
            lambda a=life.agent, w=windows: w.append(everything(intruder, a)),  # type: ignore[misc]
        ):
            break
        assert windows == [known], f"before trip {at}"


@pytest.mark.parametrize("placement", ["hot", "half"])
def test_a_flush_that_dies_anywhere_is_done_by_the_next(
    tiers: Tiers, intruded_hot: IntrudedHotStore, placement: str
) -> None:
    def die() -> None:
        raise HotStoreUnavailable("killed")

    for at in range(MOST_TRIPS):
        life = begin(tiers, placement)
        known = everything(tiers, life.agent)
        try:
            died = flushed_with(tiers, intruded_hot, life.agent, at, die)
        except HotStoreUnavailable:
            died = True
        assert everything(tiers, life.agent) == known, f"died before trip {at}"
        tiers.evict(life.agent)
        assert everything(tiers, life.agent) == known, f"died before trip {at}, then evicted"
        if not died:
            break
    assert 5 < at < MOST_TRIPS - 1


def test_a_commit_that_was_never_marked_clean_is_found_again(own_urls: tuple[str, str], tiers: Tiers) -> None:
    life = begin(tiers, "hot")
    known = everything(tiers, life.agent)
    forgetful = ForgetfulHotStore(own_urls[0], tiers.settings, clock=CLOCK)
    for _ in range(2):
        with pytest.raises(HotStoreUnavailable):
            Drain(tiers.settings, forgetful, tiers.cold).flush(life.agent)
        assert tiers.cold.fetch(reads.totals_of(life.agent)).stats == known["totals"]
        assert everything(tiers, life.agent) == known
    forgetful.close()
    report = tiers.flush(life.agent)
    assert (report.messages, report.events, report.states, report.memories) == (0, 0, 0, 0)
    assert report.duplicates > 0
    tiers.evict(life.agent)
    assert everything(tiers, life.agent) == known


def test_a_change_after_an_unmarked_commit_is_carried_alone(own_urls: tuple[str, str], tiers: Tiers) -> None:
    life = begin(tiers, "hot")
    forgetful = ForgetfulHotStore(own_urls[0], tiers.settings, clock=CLOCK)
    with pytest.raises(HotStoreUnavailable):
        Drain(tiers.settings, forgetful, tiers.cold).flush(life.agent)
    forgetful.close()
    _change(tiers, life.agent)
    known = everything(tiers, life.agent)
    report = tiers.flush(life.agent)
    assert (report.messages, report.events, report.states) == (1, 1, 1)
    tiers.evict(life.agent)
    assert everything(tiers, life.agent) == known


def test_drains_and_writers_side_by_side(own_urls: tuple[str, str], tiers: Tiers) -> None:
    agents = [uuid4() for _ in range(3)]
    over = threading.Event()

    def drain() -> None:
        client = Tiers(*own_urls, tiers.settings, clock=CLOCK)
        drain = Drain(client.settings, client.hot, client.cold)
        while not over.is_set():
            drain.sweep()
            drain.flush()
        client.close()

    def write(number: int) -> list[UUID]:
        ids = []
        for n in range(60):
            agent = agents[n % 3]
            ids.append(tiers.conversations.save_message(agent, "user", f"{number} {n}", tokens_used=1))
            tiers.emotions.save_event(agent, HAPPENED, {Emotion.JOY: 0.001}, mode="record")
            tiers.memories.store_memory(agent, "fact", f"k{number}", n)
            tiers.memories.retrieve_memory(agent, "fact", f"k{number}")
        return ids

    with ThreadPoolExecutor(5) as pool:
        drains = [pool.submit(drain) for _ in range(2)]
        writers = [pool.submit(write, number) for number in range(3)]
        written = {message for writer in writers for message in writer.result()}
        over.set()
        for future in drains:
            future.result()
    read: list[UUID] = []
    for agent in agents:
        seen = everything(tiers, agent) if tiers.emotions.load_state(agent) else _histories(tiers, agent)
        tiers.evict(agent)
        assert _histories(tiers, agent) == {name: seen[name] for name in ("messages", "events", "totals", "memories")}
        read += [message.id for message in seen["messages"]]
        assert len(seen["events"]) == seen["totals"].total_messages == len(seen["messages"]) == 60
        assert [m.access_count for m in seen["memories"]] == [20, 20, 20]
    assert len(read) == len(set(read)) == 180
    assert set(read) == written


def _histories(tiers: Tiers, agent: UUID) -> dict[str, Any]:
    return {
        "messages": tiers.conversations.get_history(agent, 100),
        "events": tiers.emotions.get_event_history(agent),
        "totals": tiers.conversations.get_conversation_stats(agent),
        "memories": tiers.memories.get_memories_by_type(agent, "fact"),
    }


def test_totals_count_what_came_between_the_log_and_the_state(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore
) -> None:
    """A flush reads a state that is newer than the log it read; what was said in between is not cold yet."""

    def speak(agent: UUID) -> None:
        intruder.conversations.save_message(agent, "user", "between", tokens_used=7)
        intruder.emotions.update_emotions(agent, {Emotion.JOY: 0.25})

    for at in range(MOST_TRIPS):
        agent = uuid4()
        tiers.emotions.update_emotions(agent, {Emotion.JOY: 0.5})
        if not flushed_with(tiers, intruded_hot, agent, at, lambda a=agent: speak(a)):  # type: ignore[misc]
            break
        stats = tiers.conversations.get_conversation_stats(agent)
        assert (stats.total_messages, stats.total_tokens) == (1, 7), f"before trip {at}"


def test_a_list_merged_under_an_unflushed_element_keeps_no_ttl(
    tiers: Tiers, intruder: Tiers, intruded_hot: IntrudedHotStore
) -> None:
    """The list's last element is cold, one in its middle is not: Redis must not let go of it."""
    hours = [datetime.now(UTC) - timedelta(hours=n) for n in range(4)]

    def message(text: str, at: datetime) -> list[NewMessage]:
        return [NewMessage(role="user", content=text, created_at=at)]

    def meanwhile(agent: UUID) -> None:
        intruder.conversations.save_messages(agent, message("second", hours[2]))
        intruder.conversations.get_history(agent)

    for at in range(MOST_TRIPS):
        agent = uuid4()
        tiers.conversations.save_messages(agent, message("third", hours[1]))
        tiers.evict(agent)
        tiers.conversations.save_messages(agent, message("first", hours[3]))
        if not flushed_with(tiers, intruded_hot, agent, at, lambda a=agent: meanwhile(a)):  # type: ignore[misc]
            break
        tiers.drop(agent)
        read = [m.content for m in tiers.conversations.get_history(agent)]
        assert read == ["first", "second", "third"], f"before trip {at}"


@pytest.mark.parametrize("trips", [3, 4, 5])
def test_two_flushes_interleaved_with_a_slow_reader(tiers: Tiers, intruder: Tiers, trips: int) -> None:
    """A reader that asked PostgreSQL long ago offers what has since been rehydrated, changed, flushed and evicted."""
    life: Life = begin(tiers, "cold")

    def live_on() -> None:
        for text in ("later", "much later"):
            intruder.emotions.update_emotions(life.agent, {Emotion.JOY: 0.125})
            intruder.conversations.save_message(life.agent, "user", text)
            intruder.memories.store_memory(life.agent, "fact", "k1", text)
            intruder.evict(life.agent)

    tiers.between = lambda steps: intruded(steps, trips, live_on)
    try:
        tiers.rehydrate(life.agent)
    finally:
        tiers.between = nothing
    seen = everything(tiers, life.agent)
    assert seen["state"][0][Emotion.JOY] == 0.75
    assert [m.content for m in seen["messages"]][-2:] == ["later", "much later"]
    assert tiers.memories.retrieve_memory(life.agent, "fact", "k1") == "much later"


def test_settings_of_these_tests_trim(tiers: Tiers) -> None:
    assert tiers.settings.message_cap < 8 < Settings().message_cap
