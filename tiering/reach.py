"""How far back a page of a history reaches, as this client saw it: so that PostgreSQL looks into few partitions.

A statement is planned once, so a page that nothing bounds begins a scan of every partition that there is; and a bound
helps only if it is known before the statement begins, so it cannot be looked up there. What is known here is a guess.
A page says between which times everything lies, so that one which was bounded too narrowly is seen to be, and what is
missing is asked for: what is returned is the same whatever was guessed. Where the agent that was met last had said
nothing for so long that the guess failed, the next one's times are asked for first, which costs less than a page.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from banshee_memory.cold.reads import LAST_STAMP, Page, Place, Query
from banshee_memory.records import Placed
from banshee_memory.tiering.steps import Steps

R = TypeVar("R")
_MOST_KNOWN = 10_000
_FIRST_GUESS = 4
"""Partitions."""
_AHEAD_US = 86_400_000_000
"""How far in the future something may lie, by another's clock, without a second look."""


@dataclass(slots=True)
class Reach:
    """What this client learnt. `partition_us`: the span of a partition. Not exact under threads, and need not be."""

    partition_us: int
    spans: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """By agent: how many of its newest records lie between which times (µs)."""
    width_us: int = field(init=False)
    """How far back from now the pages of agents reach that are in use."""
    is_guessed: bool = True
    """Whether to guess where those of an agent lie that is met for the first time: of the one before it was right."""

    def __post_init__(self) -> None:
        self.width_us = _FIRST_GUESS * self.partition_us

    def newest(self, agent: UUID, limit: int, now_us: int) -> tuple[int, int]:
        """Between which times the newest `limit` may lie."""
        known = self.spans.get(agent.int)
        if known is None:
            return max(now_us - self.width_us, 0), now_us + _AHEAD_US
        count, first_us, last_us = known
        since_us = first_us if limit <= count else last_us - 2 * (last_us - first_us) * limit // count
        # Of an agent that fell silent long ago nothing lies in all the partitions since.
        is_silent = now_us - last_us > self.width_us
        return max(since_us, 0), last_us if is_silent else max(last_us, now_us + _AHEAD_US)

    def before(self, agent: UUID, limit: int, until_us: int) -> int:
        """Since when the newest `limit` before a time may lie."""
        count, first_us, last_us = self.spans.get(agent.int, (limit, 0, self.width_us))
        return max(until_us - 2 * (last_us - first_us) * limit // count - self.partition_us, 0)

    def meet(self, agent: UUID, limit: int, span: Page[R], now_us: int) -> None:
        """Guesses where the newest `limit` lie, from where all do: as if these were spread evenly."""
        if not span.total:
            return
        since_us = max(span.last_us - 2 * (span.last_us - span.first_us) * limit // span.total, span.first_us)
        self._remember(agent, limit, since_us, span.last_us)
        self.is_guessed = now_us - since_us <= self.width_us

    def learn(self, agent: UUID, limit: int, page: Page[R], now_us: int) -> None:
        """Remembers where the newest `limit` lie."""
        if not page.total:
            return
        first_us = page.placed[0].at_us if len(page.placed) == limit else page.first_us
        if agent.int not in self.spans:
            self.is_guessed = page.last_us >= now_us - self.width_us
        self._remember(agent, limit, first_us, page.last_us)
        # It follows the widest page at once, unless that is of another kind of agent, and comes back slowly.
        if now_us - first_us <= 4 * self.width_us:
            narrower = max(self.width_us - self.width_us // 64, self.partition_us)
            self.width_us = max(now_us - first_us, narrower)

    def _remember(self, agent: UUID, limit: int, first_us: int, last_us: int) -> None:
        if len(self.spans) >= _MOST_KNOWN:
            self.spans.clear()
        self.spans[agent.int] = (limit, first_us, last_us)


PageOf = Callable[[UUID, int, Place | None, int], Query[Page[R]]]
"""Agent, limit, before which place and since when (µs)."""
SpanOf = Callable[[UUID], Query[Page[R]]]
"""A page of none: between which times all lie."""


def newest(page_of: PageOf[R], span_of: SpanOf[R], reach: Reach, agent: UUID, limit: int) -> Steps[list[Placed[R]]]:
    """The newest `limit` that PostgreSQL has, oldest first."""
    now_us = time.time_ns() // 1_000
    if not reach.is_guessed and agent.int not in reach.spans:
        reach.meet(agent, limit, (yield span_of(agent)), now_us)
    since_us, until_us = reach.newest(agent, limit, now_us)
    page = yield page_of(agent, limit, (until_us, LAST_STAMP), since_us)
    if page.last_us > until_us:
        page = yield page_of(agent, limit, None, since_us)
    whole = yield from _completed(page_of, agent, limit, page, since_us)
    if whole is None:
        whole = yield page_of(agent, limit, None, 0)
    reach.learn(agent, limit, whole, now_us)
    return whole.placed


def before(page_of: PageOf[R], reach: Reach, agent: UUID, limit: int, place: Place) -> Steps[list[Placed[R]]]:
    """The newest `limit` before a place that PostgreSQL has, oldest first."""
    since_us = reach.before(agent, limit, place[0])
    page = yield page_of(agent, limit, place, since_us)
    whole = yield from _completed(page_of, agent, limit, page, since_us)
    if whole is None:
        whole = yield page_of(agent, limit, place, 0)
    return whole.placed


def _completed(page_of: PageOf[R], agent: UUID, limit: int, page: Page[R], since_us: int) -> Steps[Page[R] | None]:
    """The same with what it lacks from before `since_us`: as far back as that lies if spread evenly; then all.

    None: the agent was forgotten meanwhile, for else there never are fewer, nor do they begin later. A part of what it
    had said would be neither what there was nor what there is.
    """
    placed = page.placed
    for margin in (2, None):
        missing = limit - len(placed)
        if not missing or not page.total or since_us <= page.first_us:
            break
        place = (since_us, 0) if since_us <= page.last_us else (page.last_us, LAST_STAMP)
        spread_us = missing * (page.last_us - page.first_us) // page.total
        since_us = 0 if margin is None else max(place[0] - margin * spread_us, 0)
        older = yield page_of(agent, missing, place, since_us)
        if older.total < page.total or older.first_us > page.first_us:
            return None
        placed = older.placed + placed
    return page._replace(placed=placed)
