"""What a client keeps of replies, and lets go of: the store of it, without a server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banshee_memory.emotions import EmotionalState
from banshee_memory.hot import calls, leases
from banshee_memory.hot.cache import ABSENT, Cache, Marked, told_by
from banshee_memory.hot.calls import Call
from banshee_memory.hot.keys import agent_keys

KEYS = [agent_keys(UUID(int=n + 1), 4) for n in range(4)]
READS = [calls.load_state(keys) for keys in KEYS]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def cache(entries: int = 100, size: int = 1_000_000) -> Cache:
    return Cache(entries, size, clock=Clock())


def keep(made: Cache, call: Call[Any], reply: Any) -> None:
    told = told_by(call)
    assert told is not None
    marked = made.ask([told], made.generation)
    assert marked is not None
    made.answer(marked, [reply])
    made.end(marked)


def test_what_may_be_kept() -> None:
    made, keys = cache(), KEYS[0]
    lasting = b"P" + bytes(8) + bytes(40) + b"body"
    ending = b"P" + bytes(8) + b"\x40" + bytes(39) + b"body"
    for call, reply, kept in (
        (calls.load_state(keys), [1, b"meta", b"x"], True),
        (calls.load_state(keys), b"MISS", False),
        (calls.get_memory(keys, "fact", "a"), lasting, True),
        (calls.get_memory(keys, "fact", "a"), None, True),
        (calls.get_memory(keys, "fact", "a"), b"MISS", False),
        (calls.get_memory(keys, "fact", "a"), ending, False),
        (calls.memory_bytes(keys, "fact:a"), lasting, True),
        (calls.memory_bytes(keys, "fact:a"), b"L" + bytes(8), False),
        (calls.memory_bytes(keys, "fact:a"), None, False),
        (calls.history_end(keys.messages, 5)[0], None, False),
        (calls.history_end(keys.messages, 5)[1], [], False),
        (calls.history_end(keys.messages, 5)[1], [b"x"], True),
    ):
        made.lose()
        keep(made, call, reply)
        assert (made.find(call.sent) is not ABSENT) is kept, (call.command, reply)
    for written in (
        calls.retrieve_memory(keys, "fact", "a"),
        leases.lease(keys.state, "s", bytes(8), 1),
        calls.update_emotions(keys, {}, "add"),
    ):
        assert told_by(written) is None


def test_the_server_s_time_goes_on_in_what_is_kept() -> None:
    clock = Clock()
    made = Cache(10, 10_000, clock=clock)
    keep(made, READS[0], [5_000_000, b"meta", b"x"])
    keep(made, calls.now(), 5_000_000)
    clock.now += 1.5
    assert made.find(READS[0].sent) == [6_500_000, b"meta", b"x"]
    assert made.find(calls.now().sent) == 6_500_000
    clock.now += 60
    assert made.find(READS[0].sent) is ABSENT, "the server is asked again now and then"


def test_no_more_entries_than_allowed_and_those_in_use_stay() -> None:
    made = cache(entries=2)
    for number, read in enumerate(READS):
        keep(made, read, [1, b"meta", bytes(number)])
        assert made.find(READS[0].sent) is not ABSENT or number == 0
        assert len(made) <= 2
    assert made.find(READS[3].sent) is not ABSENT


def test_no_more_bytes_than_allowed() -> None:
    made = cache(size=3_000)
    for read in READS:
        keep(made, read, [1, b"meta", bytes(900)])
        assert made.size <= 3_000
    assert 0 < len(made) < 4
    keep(made, READS[0], [1, bytes(5_000)])
    assert made.size <= 3_000
    made.lose()
    assert made.size == len(made) == 0


def test_a_write_of_this_client_drops_its_keys_however_they_are_spelled() -> None:
    made, keys = cache(), KEYS[0]
    for write in (
        calls.save_state(keys, EmotionalState()),
        calls.evict([keys.state.encode()]),
        Call(("FCALL", "banshee1_save_state", "2", keys.state, keys.log, b"\xff"), lambda reply: reply),
    ):
        keep(made, READS[0], [1, b"meta"])
        keep(made, READS[1], [1, b"meta"])
        made.wrote([write, READS[1]])
        assert made.find(READS[0].sent) is ABSENT
        assert made.find(READS[1].sent) is not ABSENT


def test_a_forked_child_has_nothing_and_no_lock_that_is_held() -> None:
    made = cache()
    keep(made, READS[0], [1, b"meta"])
    with made._lock:
        made.forget()
    assert made.find(READS[0].sent) is ABSENT
    keep(made, READS[0], [1, b"meta"])
    assert made.find(READS[0].sent) is not ABSENT


class World:
    """A server with a version of each key, readers whose replies come whenever they like, and its word of changes,
    which comes whenever it likes."""

    def __init__(self, made: Cache) -> None:
        self.cache = made
        self.versions = [0] * len(KEYS)
        self.tracked: set[int] = set()
        self.words: list[int] = []
        self.asked: list[tuple[Any, int, int]] = []
        self.own = [0] * len(KEYS)
        """The version of each key that the client wrote itself."""

    def ask(self, key: int) -> None:
        told = told_by(READS[key])
        assert told is not None
        marked = self.cache.ask([told], self.cache.generation)
        assert marked is not None
        self.asked.append((marked, key, self.versions[key]))
        self.tracked.add(key)

    def answer(self, at: int) -> None:
        marked, _, version = self.asked.pop(at)
        self.cache.answer(marked, [[version]])
        self.cache.end(marked)

    def write(self, key: int) -> None:
        self.versions[key] += 1
        if key in self.tracked:
            self.tracked.discard(key)
            self.words.append(key)

    def write_oneself(self, key: int) -> None:
        self.write(key)
        self.cache.drop([KEYS[key].state])
        self.own[key] = self.versions[key]

    def hear(self) -> None:
        self.cache.drop([KEYS[self.words.pop(0)].state.encode()])

    def check(self) -> None:
        for key, read in enumerate(READS):
            kept = self.cache.find(read.sent)
            if kept is not ABSENT:
                assert kept[0] >= self.own[key], "older than a write of this client"
                assert kept[0] == self.versions[key] or key in self.words, "outdated, and nobody will ever say so"


steps = st.lists(
    st.tuples(st.sampled_from(("ask", "answer", "write", "write_oneself", "hear", "lose")), st.integers(0, 3)),
    max_size=40,
)


def play(made: Cache, moves: list[tuple[str, int]]) -> None:
    world = World(made)
    for move, number in moves:
        if move == "answer":
            if world.asked:
                world.answer(number % len(world.asked))
        elif move == "hear":
            if world.words:
                world.hear()
        elif move == "lose":
            world.cache.lose()
            world.tracked.clear()
            world.words.clear()
        else:
            getattr(world, move)(number)
        world.check()
    while world.asked:
        world.answer(0)
        world.check()
    assert not world.cache._marks


@given(steps)
@settings(max_examples=400, deadline=None)
def test_nothing_outdated_is_kept_whatever_comes_first(moves: list[tuple[str, int]]) -> None:
    play(cache(entries=3), moves)


class Unmarked(Cache):
    """One that keeps whatever comes."""

    def answer(self, marked: Marked, replies: Sequence[Any]) -> None:
        """Lays the marks again that were taken."""
        self._marks.update({one.key: mark for one, mark in zip(*marked, strict=True)})
        super().answer(marked, replies)


@pytest.mark.parametrize("meanwhile", [[("write", 0), ("hear", 0)], [("write_oneself", 0)]])
def test_without_marks_a_late_reply_would_be_kept(meanwhile: list[tuple[str, int]]) -> None:
    moves = [("ask", 0), *meanwhile, ("answer", 0)]
    play(cache(), moves)
    with pytest.raises(AssertionError):
        play(Unmarked(100, 1_000_000, clock=Clock()), moves)


def test_threads_at_one_cache_leave_nothing_behind() -> None:
    made = cache(entries=3)

    def work(number: int) -> None:
        for turn in range(2_000):
            read = READS[(turn + number) % 4]
            if made.find(read.sent) is ABSENT:
                keep(made, read, [turn])
            if turn % 7 == number:
                made.drop([KEYS[turn % 4].state])
            if turn % 501 == number:
                made.empty()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not made._marks
    made.drop([keys.state for keys in KEYS])
    assert (made.size, len(made), len(made._replies)) == (0, 0, 0)
