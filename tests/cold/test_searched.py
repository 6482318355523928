"""A search looks first among the newest of who said much, and finds what one among all finds."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from banshee_memory.cold import reads
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.reads import Query
from banshee_memory.tiering import conversations
from tests.cold.making import NOON_US, message, write

DAY_US = 86_400_000_000
SAID = 60
STEPS = {"even": lambda n: n * DAY_US, "most at first": lambda n: n * n * n * 50_000_000, "at once": lambda n: n}
UNFLUSHED = uuid4(), "a fox that nobody carried"


def asked(store: ColdStore, agent: UUID, query: str, limit: int) -> tuple[list[reads.Hit], list[int]]:
    """What is found, and since when it was looked for."""
    steps, since = conversations.searched(agent, query, limit, "english", [UNFLUSHED]), []
    step = next(steps)
    try:
        while True:
            assert isinstance(step, Query)
            if step.name == "search":
                since.append(step.params["since"].timestamp())
            step = steps.send(store.fetch(step))
    except StopIteration as stop:
        return stop.value, since


@pytest.mark.parametrize("lived", STEPS)
@pytest.mark.parametrize("limit", [2, 4])
def test_it_finds_what_one_among_all_finds(
    store: ColdStore, agent: UUID, lived: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "RANKED", 3)
    words = ["fox", "bear " * (1 + SAID // 9), "owl"]

    def content(n: int) -> str:
        return " ".join(word for word, every in zip(words, (1, 9, SAID - 1), strict=True) if n % every == 0) + " said"

    write(store, *(message(agent, n, content(n), at_us=NOON_US + STEPS[lived](n)) for n in range(SAID)))
    for query in ("fox", "bear", "owl", "bear or owl", "unheard", "said -fox"):
        found, since = asked(store, agent, query, limit)
        assert found == store.fetch(reads.search(agent, query, limit, "english", [UNFLUSHED])).hits, query
        assert len(since) <= 2
        if query == "fox" and lived == "even":
            assert len(since) == 1
            assert since[0] > 0


def test_of_who_said_little_all_is_asked_at_once(store: ColdStore, agent: UUID) -> None:
    write(store, message(agent, 1, "a fox"))
    found, since = asked(store, agent, "fox", 5)
    assert len(found) == 2
    assert since == [0]
