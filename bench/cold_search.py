"""Searches among the 10,000 messages of TALKER, beside one for a word that nobody said: the same statements, the same
agent, nothing found. The last week that is filled is not closed yet, so it has no index of words: each search, also one
that finds nothing, works out the words of what TALKER said in it.

What one that finds nothing costs is told beside the least that a client can ask, its `ping`; and what it costs in a
language that has no index.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from banshee_memory.cold import reads, words
from banshee_memory.stamps import from_us
from banshee_memory.tiering import conversations
from banshee_memory.tiering.steps import drive
from bench.cold_compared import Case, Compared, timed
from bench.cold_world import END_US, TALKER, World

SOUGHT = {
    "a word in one of 1,000 of its messages": "c412",
    "a word in one of 90": "r44",
    "two words, one in one of 90": "fox r44",
    "a word in a quarter of them": "fox",
    "a word in each of them": "case",
}
NOTHING = "unheard"


def compared(world: World, rounds: int) -> Iterator[Compared]:
    """After the indexes are built."""
    _index(world)
    cases = {what: _search(world, sought) for what, sought in SOUGHT.items()}
    cases |= {"nothing": _search(world, NOTHING), "unindexed": _search(world, NOTHING, "simple"), "bare": _bare(world)}
    took = timed(rounds, cases)
    yield Compared("a search that finds nothing, against a ping", took["bare"], took["nothing"])
    for what in SOUGHT:
        yield Compared(f"search for {what}, against one that finds nothing", took["nothing"], took[what], limit=5)
    yield Compared("the same without an index, against one that finds nothing", took["nothing"], took["unindexed"])


def _index(world: World) -> None:
    for step in words.build(world.store, from_us(END_US) - timedelta(days=1), threading.Event()):
        print(step[:110], end="\r", file=sys.stderr)


def _search(world: World, sought: str, language: str = "english") -> Case:
    no_redis: Any = None

    def search() -> int:
        return len(drive(conversations.searched(TALKER, sought, 50, language), no_redis, world.store))

    assert bool(search()) is (sought != NOTHING)
    return lambda: search


def _bare(world: World) -> Case:
    return lambda: partial(world.store.fetch, reads.server_version())
