"""What bounds a page is a guess: what is returned is the same, whatever was guessed."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.tiering import reach
from banshee_memory.tiering.reach import Reach
from tests.cold.making import NOON_US, message, write

WEEK_US = 7 * 86_400_000_000
SAID_AFTER = {
    "a message a week": [n * WEEK_US for n in range(20)],
    "all at once, long ago": [n * 1_000_000 for n in range(20)],
    "a burst, and a word much later": [*(n * 1_000_000 for n in range(19)), 40 * WEEK_US],
}


class Counted:
    """PostgreSQL, and how often it was asked."""

    def __init__(self, store: ColdStore) -> None:
        self.store = store
        self.asked = 0

    def run(self, steps: Any) -> Any:
        """What the steps return."""
        try:
            query = next(steps)
            while True:
                self.asked += 1
                query = steps.send(self.store.fetch(query))
        except StopIteration as stop:
            return stop.value


@pytest.mark.parametrize("limit", [1, 7, 20, 50])
@pytest.mark.parametrize("spoken", SAID_AFTER)
def test_a_page_is_whole_whatever_was_guessed(store: ColdStore, agent: UUID, spoken: str, limit: int) -> None:
    said = [message(agent, n, at_us=NOON_US + after) for n, after in enumerate(SAID_AFTER[spoken])]
    write(store, *said)
    known, counted = Reach(WEEK_US), Counted(store)

    def newest() -> Any:
        return counted.run(reach.newest(reads.message_page, reads.message_span, known, agent, limit))

    assert newest() == said[-limit:]
    assert counted.asked <= 4  # one of them if it lies ahead of this clock
    counted.asked = 0
    assert newest() == said[-limit:]
    assert counted.asked == 1
    for place in range(1, 20):
        before = (said[place].at_us, said[place].stamp)
        page = counted.run(reach.before(reads.message_page, known, agent, limit, before))
        assert page == said[:place][-limit:]


def test_what_was_said_since_the_last_look_is_in_the_page(store: ColdStore, agent: UUID) -> None:
    old = [message(agent, n, at_us=NOON_US - 40 * WEEK_US + n) for n in range(5)]
    write(store, *old)
    known, counted = Reach(WEEK_US), Counted(store)
    assert counted.run(reach.newest(reads.message_page, reads.message_span, known, agent, 5)) == old
    new = message(agent, 9)
    write(store, new)
    assert counted.run(reach.newest(reads.message_page, reads.message_span, known, agent, 5)) == [*old[1:], new]


def test_the_times_of_an_agent_are_asked_first_once_one_had_fallen_silent(store: ColdStore) -> None:
    """The first one costs two pages; whoever is met next, silent or not, one, and a look at its times."""
    known, counted = Reach(WEEK_US), Counted(store)
    now_us = time.time_ns() // 1_000
    for long_ago, asked in [(40 * WEEK_US, 2), (40 * WEEK_US, 2), (0, 2), (0, 1), (40 * WEEK_US, 2)]:
        agent = uuid4()
        said = [message(agent, n, at_us=now_us - long_ago - (9 - n) * 1_000_000) for n in range(9)]
        write(store, *said)
        counted.asked = 0
        assert counted.run(reach.newest(reads.message_page, reads.message_span, known, agent, 5)) == said[-5:]
        assert counted.asked == asked
    assert counted.run(reach.newest(reads.message_page, reads.message_span, known, uuid4(), 5)) == []


def test_what_came_after_the_times_of_an_agent_were_asked_is_in_the_page(store: ColdStore, agent: UUID) -> None:
    known = Reach(WEEK_US, is_guessed=False)
    old = [message(agent, n, at_us=NOON_US - 40 * WEEK_US + n) for n in range(5)]
    write(store, *old)
    steps: Any = reach.newest(reads.message_page, reads.message_span, known, agent, 5)
    span = store.fetch(next(steps))
    new = message(agent, 9)
    write(store, new)
    page = store.fetch(steps.send(span))
    again = store.fetch(steps.send(page))
    with pytest.raises(StopIteration) as stop:
        steps.send(again)
    assert stop.value.value == [*old[1:], new]
