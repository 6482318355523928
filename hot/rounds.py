"""Group commit: those who wait for the same thing wait together.

Whoever has written joins the round that is to begin next. Once it begins others join the one after it, and what it
comes to is for all its members: they wrote before it began. So each waits for two rounds at most, however many wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Round(Generic[T]):
    """The shards that its members wrote to, and what it came to (None: it is not over, or was interrupted)."""

    def __init__(self) -> None:
        self.shards: set[int] = set()
        self.outcome: T | None = None
        self.over = threading.Event()
        self.task: Any = None


class NextRound(Generic[T]):
    """The round that will begin next."""

    def __init__(self) -> None:
        self._round: Round[T] | None = None
        self._lock = threading.Lock()

    def join(self, shard: int) -> tuple[Round[T], bool]:
        """That round, and whether this is its first member."""
        with self._lock:
            is_first = self._round is None
            joined = self._round = self._round or Round()
            joined.shards.add(shard)
            return joined, is_first

    def begin(self, begun: Round[T]) -> None:
        """Nobody joins that round any more."""
        with self._lock:
            if self._round is begun:
                self._round = None


class Rounds(Generic[T]):
    """For threads: the first member of a round does the work, the others wait for it."""

    def __init__(self, work: Callable[[frozenset[int]], T]) -> None:
        self._work = work
        self._next: NextRound[T] = NextRound()
        self._one_at_a_time = threading.Lock()

    def wait(self, shard: int) -> T | None:
        """What the first round came to that began after this call. None: whoever did the work was interrupted."""
        joined, is_first = self._next.join(shard)
        if not is_first:
            joined.over.wait()
            return joined.outcome
        try:
            with self._one_at_a_time:
                self._next.begin(joined)
                joined.outcome = self._work(frozenset(joined.shards))
        finally:
            self._next.begin(joined)  # an interrupt can come before it began, too
            joined.over.set()
        return joined.outcome
