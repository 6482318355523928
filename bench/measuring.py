"""Measures cases side by side: a block of calls of each in turn, many rounds, so that what else goes on hits all.

A ratio is that of two neighbours within a round, and of those the median: never one of two runs, nor of two moments. A
block begins with calls that are not counted, because whoever was measured before it left the caches to itself. The
garbage collector rests while a block is measured. Client and servers are pinned to one core: left to the scheduler, a
lone call takes 13 µs or 55 µs by where it puts them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple

WARM = 200
Rounds = list[list[float]]


def pin(core: int | None = None) -> int:
    """This process, and those that it starts, on one core."""
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return chosen


class Ratio(NamedTuple):
    """How many times another's time: the median over rounds, and of the quietest tenth of calls; `noise`: how far the
    rounds' ratios lie apart (half their interquartile range), as a part of the median."""

    median: float
    quiet: float
    noise: float


@dataclass
class Case:
    """One thing that is measured. `many`: how many operations a call is; `before`: prepares each call, uncounted."""

    operation: str
    name: str
    call: Callable[[], Any]
    many: int = 1
    calls: int = 60
    is_async: bool = False
    before: Callable[[], object] | None = None
    rounds: Rounds = field(default_factory=list)

    @property
    def p50(self) -> float:
        """Microseconds of an operation: the median over rounds of their medians."""
        return statistics.median(self._medians)

    @property
    def p10(self) -> float:
        """Microseconds, when nothing else is at work: on a shared machine the median is mostly that of others' work."""
        return self._every[len(self._every) // 10]

    @property
    def p99(self) -> float:
        """Microseconds, of the slowest hundredth."""
        return self._every[int(len(self._every) * 0.99)]

    @property
    def noise(self) -> float:
        """How far the rounds' medians lie apart (half their interquartile range), as a part of the median."""
        return _spread(self._medians)

    def times(self, other: Case) -> Ratio:
        """How many times the other's time it takes."""
        ratios = [mine / theirs for mine, theirs in zip(self._medians, other._medians, strict=True)]
        return Ratio(statistics.median(ratios), self.p10 / other.p10, _spread(ratios))

    @property
    def _medians(self) -> list[float]:
        return [statistics.median(each) for each in self.rounds]

    @property
    def _every(self) -> list[float]:
        return sorted(us for each in self.rounds for us in each)


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def measure(
    cases: Sequence[Case], rounds: int, loop: asyncio.AbstractEventLoop, between: Callable[[str], None]
) -> None:
    """Runs all cases in turn, that many times; `between` is told which round begins."""
    for case in cases:
        _block(case, loop, min(WARM, case.calls * 4))
    gc.collect()
    gc.freeze()
    for number in range(rounds):
        between(f"round {number + 1} of {rounds}")
        gc.collect()
        gc.disable()
        try:
            for case in cases if number % 2 else reversed(cases):
                uncounted = max(case.calls // 8, 1)
                case.rounds.append(_block(case, loop, uncounted + case.calls)[uncounted:])
        finally:
            gc.enable()


def _block(case: Case, loop: asyncio.AbstractEventLoop, calls: int) -> list[float]:
    if case.is_async:
        return loop.run_until_complete(_awaited(case, calls))
    call, before, many, spans = case.call, case.before, case.many, []
    for _ in range(calls):
        if before is not None:
            before()
        began = perf_counter_ns()
        call()
        spans.append((perf_counter_ns() - began) / 1e3 / many)
    return spans


async def _awaited(case: Case, calls: int) -> list[float]:
    call: Callable[[], Awaitable[Any]] = case.call
    before, many, spans = case.before, case.many, []
    for _ in range(calls):
        if before is not None:
            before()
        began = perf_counter_ns()
        await call()
        spans.append((perf_counter_ns() - began) / 1e3 / many)
    return spans
